//! The telemetry of a handler without the cargo feature `otlp`: there is none, and nothing here does anything.

use std::time::Duration;

use axum::http::{HeaderMap, Request};
use reqwest::Url;

use super::Error;
use super::provider_call::{Answered, Operation};
use super::trace::{self, Trace};
use crate::config::TelemetryConfig;

/// The telemetry of this process.
#[derive(Debug)]
pub struct Telemetry;

impl Telemetry {
    /// Starts nothing.
    ///
    /// # Errors
    /// None.
    pub fn start(_: &TelemetryConfig) -> Result<Self, Error> {
        Ok(Self)
    }

    /// Sends nothing.
    pub async fn stop(self) {}
}

/// The span of a request.
pub(crate) struct ServerSpan;

impl ServerSpan {
    pub(crate) fn start<B>(_: &Request<B>, _: &str, _: Option<&'static str>, _: &'static str) -> Self {
        Self
    }

    pub(crate) fn trace(&self) -> Option<Trace> {
        None
    }

    pub(crate) fn end(self, _: u16, _: Option<&'static str>, _: Duration) {}
}

/// The span of a call of the provider.
pub(crate) struct ProviderCall;

impl ProviderCall {
    pub(crate) fn start(_: Operation, _: &'static str, _: &str, _: &Url) -> Self {
        Self
    }

    pub(crate) fn headers(&self) -> HeaderMap {
        trace::headers()
    }

    pub(crate) fn end(self, _: Result<Answered<'_>, &'static str>) {}
}

/// Counts an attempt to draw an image.
pub(crate) fn count_image(_: &'static str, _: &str, _: f64) {}
