//! The log: JSON lines on stdout. The Functions host records each line with level Information. With the cargo feature
//! `otlp` there are traces and metrics, too.

#[cfg_attr(not(feature = "otlp"), path = "logs/without_otlp.rs")]
mod otlp;
mod provider_call;
mod trace;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

pub use self::otlp::Telemetry;
pub(crate) use self::otlp::{ProviderCall, ServerSpan, count_image};
pub(crate) use self::provider_call::{Answered, Operation};
pub(crate) use self::trace::{Trace, headers as trace_headers};

/// Why [`start`] or [`Telemetry::start`] failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `RUST_LOG` is not a valid filter.
    #[error("RUST_LOG is malformed: expected levels as in `info` or `visionary=debug,warn`")]
    Filter,
    /// The log has already been started.
    #[error("the log has already been started")]
    Started,
    /// OpenTelemetry cannot be set up.
    #[error("OpenTelemetry cannot be set up: check OTEL_EXPORTER_OTLP_ENDPOINT, or unset it")]
    Telemetry,
}

/// Starts the log with a filter in the syntax of [`Targets`].
///
/// Libraries log nothing more verbose than `info`, even if `filter` allows it: at `debug` the storage
/// SDK logs the Authorization header (RUSTSEC-2026-0275), and HTTP libraries log URLs.
///
/// # Errors
/// See [`Error`].
pub fn start(filter: &str) -> Result<(), Error> {
    let wanted: Targets = filter.parse().map_err(|_| Error::Filter)?;
    let without_secrets = filter_fn(|metadata| *metadata.level() <= Level::INFO || is_ours(metadata));
    // A span has the ids that each line within it shows, whatever the level of the line.
    let ids = filter_fn(|metadata| metadata.is_span() && *metadata.level() <= Level::INFO && is_ours(metadata))
        .with_max_level_hint(Level::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(std::io::stdout);
    tracing_subscriber::registry()
        .with(lines.with_filter(wanted.and(without_secrets).or(ids)))
        .try_init()
        .map_err(|_| Error::Started)
}

/// Whether a line or a span comes from this app, not from a library.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    target == "visionary" || target == "handler" || target.starts_with("visionary::")
}

/// An error and its sources on one line, separated by colons.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
