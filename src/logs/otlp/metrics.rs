//! The metrics, and the interval at which they are sent.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::metrics::{Counter, Histogram, MeterProvider as _};
use opentelemetry_otlp::{MetricExporter, Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use reqwest::Url;

use super::collector::Collector;
use crate::logs::Error;

/// Seconds. The convention ends at 10 s; an image takes up to 200 s.
const REQUEST_SECONDS: [f64; 18] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 120.0, 240.0];
/// Seconds. The convention ends at 81.92 s.
const OPERATION_SECONDS: [f64; 16] =
    [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68];
/// As the convention has them.
const TOKENS: [f64; 14] = [
    1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0, 4194304.0, 16777216.0,
    67108864.0,
];

/// The instruments of this process.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) request_duration: Histogram<f64>,
    pub(super) operation_duration: Histogram<f64>,
    pub(super) token_usage: Histogram<u64>,
    pub(super) images: Counter<u64>,
    pub(super) image_cost: Counter<f64>,
}

impl Metrics {
    pub(super) fn new(provider: &SdkMeterProvider, scope: InstrumentationScope) -> Self {
        let meter = provider.meter_with_scope(scope);
        Self {
            request_duration: meter
                .f64_histogram("http.server.request.duration")
                .with_description("Duration of HTTP server requests.")
                .with_unit("s")
                .with_boundaries(REQUEST_SECONDS.to_vec())
                .build(),
            operation_duration: meter
                .f64_histogram("gen_ai.client.operation.duration")
                .with_description("GenAI operation duration.")
                .with_unit("s")
                .with_boundaries(OPERATION_SECONDS.to_vec())
                .build(),
            token_usage: meter
                .u64_histogram("gen_ai.client.token.usage")
                .with_description("Number of input and output tokens used.")
                .with_unit("{token}")
                .with_boundaries(TOKENS.to_vec())
                .build(),
            images: meter
                .u64_counter("visionary.images")
                .with_description("Attempts to draw an image.")
                .with_unit("{image}")
                .build(),
            image_cost: meter
                .f64_counter("visionary.image.cost")
                .with_description("What images cost, in US dollars.")
                .with_unit("{USD}")
                .build(),
        }
    }
}

/// Sends the metrics of a process to the endpoint at each interval.
pub(super) fn provider(
    endpoint: &Url,
    interval: Duration,
    collector: Arc<Collector>,
    resource: Resource,
) -> Result<SdkMeterProvider, Error> {
    let exporter = MetricExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint.as_str())
        .with_shared_http_client(collector)
        .build()
        .map_err(|_| Error::Telemetry)?;
    let reader = PeriodicReader::builder(exporter).with_interval(interval).build();
    Ok(SdkMeterProvider::builder().with_reader(reader).with_resource(resource).build())
}
