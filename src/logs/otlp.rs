//! Traces and metrics by OTLP/HTTP, for a handler with the cargo feature `otlp`.
//!
//! The names are those of the semantic conventions for HTTP, for functions and for generative AI
//! (<https://opentelemetry.io/docs/specs/semconv/>). Nothing that is sent has a prompt, a caller, a key or a link: there
//! is no query string, and a path has the names of its parameters in place of their values.

mod collector;
mod metrics;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Request};
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::resource::{
    EnvResourceDetector, ResourceDetector as _, SdkProvidedResourceDetector, TelemetryResourceDetector,
};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};
use reqwest::Url;
use tokio::sync::mpsc;

use self::collector::Collector;
use self::metrics::Metrics;
use super::Error;
use super::provider_call::{Answered, Operation};
use super::trace::{self, Trace};
use crate::config::TelemetryConfig;

/// The time for what is not sent yet, when the process stops.
const LAST_EXPORT: Duration = Duration::from_secs(2);

/// Where this process records spans and values. Like the log, it is one for the process.
static STARTED: OnceLock<Started> = OnceLock::new();

#[derive(Debug)]
struct Started {
    tracer: Option<SdkTracer>,
    metrics: Option<Metrics>,
}

fn tracer() -> Option<&'static SdkTracer> {
    STARTED.get()?.tracer.as_ref()
}

fn metrics() -> Option<&'static Metrics> {
    STARTED.get()?.metrics.as_ref()
}

/// The telemetry of this process.
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
}

impl Telemetry {
    /// Starts to send traces and metrics to the endpoints in the settings. Without an endpoint nothing is started.
    /// Must be called within the runtime.
    ///
    /// # Errors
    /// [`Error::Telemetry`] if the exporters cannot be set up.
    pub fn start(config: &TelemetryConfig) -> Result<Self, Error> {
        if config.traces.is_none() && config.metrics.is_none() {
            return Ok(Self::default());
        }
        let collector = Arc::new(Collector::new()?);
        let resource = resource();
        let scope = InstrumentationScope::builder("visionary").with_version(env!("CARGO_PKG_VERSION")).build();
        let traces = match &config.traces {
            Some(endpoint) => Some(tracer_provider(endpoint, Arc::clone(&collector), resource.clone())?),
            None => None,
        };
        let metrics = match &config.metrics {
            Some(endpoint) => Some(metrics::provider(endpoint, config.metric_interval, collector, resource)?),
            None => None,
        };
        let started = Started {
            tracer: traces.as_ref().map(|traces| traces.tracer_with_scope(scope.clone())),
            metrics: metrics.as_ref().map(|metrics| Metrics::new(metrics, scope)),
        };
        STARTED.set(started).map_err(|_| Error::Started)?;
        Ok(Self { traces, metrics })
    }

    /// Sends what is not sent yet, for 2 s at most.
    pub async fn stop(self) {
        let (stopping, mut stopped) = mpsc::channel::<()>(1);
        // The SDK blocks its threads. The runtime does not wait for threads that are not its own.
        if let Some(traces) = self.traces {
            let stopping = stopping.clone();
            let _ = thread::Builder::new().spawn(move || {
                let _ = traces.shutdown_with_timeout(LAST_EXPORT);
                drop(stopping);
            });
        }
        if let Some(metrics) = self.metrics {
            let _ = thread::Builder::new().spawn(move || {
                let _ = metrics.shutdown_with_timeout(LAST_EXPORT);
                drop(stopping);
            });
        } else {
            drop(stopping);
        }
        let _ = tokio::time::timeout(LAST_EXPORT, stopped.recv()).await;
    }
}

fn tracer_provider(endpoint: &Url, collector: Arc<Collector>, resource: Resource) -> Result<SdkTracerProvider, Error> {
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint.as_str())
        .with_shared_http_client(collector)
        .build()
        .map_err(|_| Error::Telemetry)?;
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// What is known of this process. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` come first. Each process has an id,
/// because the sums of two processes must not be mixed.
fn resource() -> Resource {
    let id = format!("{:032x}", fastrand::u128(..));
    let own = Resource::builder_empty()
        .with_service_name("visionary")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", id))
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    // This detector invents a name if no variable has one.
    let named = SdkProvidedResourceDetector.detect().get(&"service.name".into());
    match named.map(|name| name.to_string()).filter(|name| !name.starts_with("unknown_service")) {
        Some(name) => own.with_service_name(name).build(),
        None => own.build(),
    }
}

impl Trace {
    fn context(self) -> Context {
        let (id, parent) = (TraceId::from_bytes(self.id.to_be_bytes()), SpanId::from_bytes(self.parent.to_be_bytes()));
        let remote = SpanContext::new(id, parent, TraceFlags::new(self.flags), true, TraceState::NONE);
        Context::new().with_remote_span_context(remote)
    }

    /// The trace of a span, for calls that the span makes.
    fn of_span(span: &Span) -> Self {
        let context = span.span_context();
        Self {
            id: u128::from_be_bytes(context.trace_id().to_bytes()),
            parent: u64::from_be_bytes(context.span_id().to_bytes()),
            flags: context.trace_flags().to_u8(),
        }
    }
}

/// Starts a span below `parent`; without one it begins a trace.
fn start_span(name: String, kind: SpanKind, parent: Option<Trace>, attributes: &[KeyValue]) -> Option<Span> {
    let builder = SpanBuilder::from_name(name).with_kind(kind).with_attributes(attributes.to_vec());
    Some(tracer()?.build_with_context(builder, &parent.map(Trace::context).unwrap_or_default()))
}

/// The methods of RFC 9110 and RFC 5789. Any other is `_OTHER`, so that callers cannot make up names.
fn method_name(method: &str) -> &'static str {
    let known = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
    known.into_iter().find(|name| *name == method).unwrap_or("_OTHER")
}

/// The span of a request.
pub(crate) struct ServerSpan {
    span: Option<Span>,
    /// The attributes of the span that the metrics have, too.
    common: Vec<KeyValue>,
}

impl ServerSpan {
    /// Starts the span of a request with this invocation id. `route` is that of the function, without its first slash;
    /// `trigger` is the value of `faas.trigger`.
    pub(crate) fn start<B>(
        request: &Request<B>,
        invocation_id: &str,
        route: Option<&'static str>,
        trigger: &'static str,
    ) -> Self {
        if STARTED.get().is_none() {
            return Self { span: None, common: Vec::new() };
        }
        let method = method_name(request.method().as_str());
        let is_https = request.headers().get("x-forwarded-proto").is_some_and(|scheme| scheme == "https");
        let mut common = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("url.scheme", if is_https { "https" } else { "http" }),
        ];
        let verb = if method == "_OTHER" { "HTTP" } else { method };
        let name = match route {
            Some(route) => format!("{verb} /{route}"),
            None => verb.to_owned(),
        };
        let mut attributes =
            vec![KeyValue::new("faas.invocation_id", invocation_id.to_owned()), KeyValue::new("faas.trigger", trigger)];
        if let Some(route) = route {
            common.push(KeyValue::new("http.route", format!("/{route}")));
            attributes.push(KeyValue::new("url.path", path(route)));
        }
        attributes.extend(common.iter().cloned());
        let span = start_span(name, SpanKind::Server, Trace::named_in(request.headers()), &attributes);
        Self { span, common }
    }

    /// The trace for calls that the request makes.
    pub(crate) fn trace(&self) -> Option<Trace> {
        self.span.as_ref().map(Trace::of_span)
    }

    /// Ends the span. `code` is the error code of the answer.
    pub(crate) fn end(self, status: u16, code: Option<&'static str>, took: Duration) {
        let Self { span, mut common } = self;
        let mut outcome = vec![KeyValue::new("http.response.status_code", i64::from(status))];
        if status >= 500 {
            let kind = code.map_or_else(|| Cow::from(status.to_string()), Cow::from);
            outcome.push(KeyValue::new("error.type", kind));
        }
        if let Some(mut span) = span {
            span.set_attributes(outcome.clone());
            if status >= 500 {
                span.set_status(Status::error(""));
            }
            span.end();
        }
        if let Some(metrics) = metrics() {
            common.extend(outcome);
            metrics.request_duration.record(took.as_secs_f64(), &common);
        }
    }
}

/// The path of a route, with the names of its parameters in place of their values: the address of a job is a secret of
/// its caller.
fn path(route: &str) -> String {
    let mut path = String::with_capacity(route.len() + 1);
    for segment in route.split('/') {
        path.push('/');
        match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(parameter) => {
                let name = parameter.split([':', '?']).next().unwrap_or_default();
                path.extend(["{", name, "}"]);
            }
            None => path.push_str(segment),
        }
    }
    path
}

/// The span of a call of the provider.
pub(crate) struct ProviderCall {
    span: Option<Span>,
    began: Instant,
    /// The attributes of the span that the metrics have, too.
    common: Vec<KeyValue>,
}

impl ProviderCall {
    /// Starts the span of a call of a model at `server`.
    pub(crate) fn start(operation: Operation, provider: &'static str, model: &str, server: &Url) -> Self {
        let began = Instant::now();
        if STARTED.get().is_none() {
            return Self { span: None, began, common: Vec::new() };
        }
        // The conventions have no name for drawing an image.
        let (name, output) = match operation {
            Operation::Image => ("generate_content", "image"),
            Operation::Chat => ("chat", "text"),
            Operation::Completion => ("text_completion", "text"),
        };
        let mut common = vec![
            KeyValue::new("gen_ai.operation.name", name),
            KeyValue::new("gen_ai.provider.name", provider),
            KeyValue::new("gen_ai.request.model", model.to_owned()),
            KeyValue::new("server.address", server.host_str().unwrap_or_default().to_owned()),
        ];
        common.extend(server.port_or_known_default().map(|port| KeyValue::new("server.port", i64::from(port))));
        let mut attributes = common.clone();
        attributes.push(KeyValue::new("gen_ai.output.type", output));
        let span = start_span(format!("{name} {model}"), SpanKind::Client, Trace::current(), &attributes);
        Self { span, began, common }
    }

    /// The header with which the provider continues the trace.
    pub(crate) fn headers(&self) -> HeaderMap {
        self.span.as_ref().map_or_else(trace::headers, |span| Trace::of_span(span).headers())
    }

    /// Ends the span, with the kind of the error if there is no usable answer.
    pub(crate) fn end(mut self, result: Result<Answered<'_>, &'static str>) {
        self.record(result);
    }

    /// The first result counts.
    fn record(&mut self, result: Result<Answered<'_>, &'static str>) {
        let common = std::mem::take(&mut self.common);
        if common.is_empty() {
            return;
        }
        let (answered, error) = match result {
            Ok(answered) => (answered, None),
            Err(kind) => (Answered::default(), Some(kind)),
        };
        let model = answered.model.map(|model| KeyValue::new("gen_ai.response.model", model.to_owned()));
        let common: Vec<KeyValue> = common.into_iter().chain(model.clone()).collect();
        let error_type = error.map(|kind| KeyValue::new("error.type", kind));
        if let Some(mut span) = self.span.take() {
            if let Some((input, output)) = answered.tokens {
                let count = |tokens: u64| i64::try_from(tokens).unwrap_or(i64::MAX);
                span.set_attribute(KeyValue::new("gen_ai.usage.input_tokens", count(input)));
                span.set_attribute(KeyValue::new("gen_ai.usage.output_tokens", count(output)));
            }
            if error.is_some() {
                span.set_status(Status::error(""));
            }
            span.set_attributes(model.into_iter().chain(error_type.clone()));
            span.end();
        }
        let Some(metrics) = metrics() else { return };
        for (tokens, kind) in
            answered.tokens.into_iter().flat_map(|(input, output)| [(input, "input"), (output, "output")])
        {
            let attributes = [&common[..], &[KeyValue::new("gen_ai.token.type", kind)]].concat();
            metrics.token_usage.record(tokens, &attributes);
        }
        let attributes: Vec<KeyValue> = common.into_iter().chain(error_type).collect();
        metrics.operation_duration.record(self.began.elapsed().as_secs_f64(), &attributes);
    }
}

/// A time limit around a call drops it.
impl Drop for ProviderCall {
    fn drop(&mut self) {
        self.record(Err("timeout"));
    }
}

/// Counts an attempt to draw an image: its outcome, as the log names it, and what it costs.
pub(crate) fn count_image(outcome: &'static str, model: &str, cost_usd: f64) {
    let Some(metrics) = metrics() else { return };
    let attributes =
        [KeyValue::new("visionary.outcome", outcome), KeyValue::new("gen_ai.request.model", model.to_owned())];
    metrics.images.add(1, &attributes);
    metrics.image_cost.add(cost_usd, &attributes);
}
