//! A stand-in for the [OpenTelemetry Collector](https://opentelemetry.io/docs/collector/), with its receiver for
//! OTLP/HTTP in protobuf (<https://opentelemetry.io/docs/specs/otlp/#otlphttp>). It refuses what the real one refuses,
//! and also telemetry that breaks the specification without an error there.

mod protobuf;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::forward;
use crate::LONGEST_WAIT;

const PROTOBUF: &str = "application/x-protobuf";

/// Attributes by their names.
pub type Attributes = BTreeMap<String, Value>;

/// A running collector. It ends when the value is dropped.
#[derive(Debug)]
pub struct Collector {
    port: u16,
    server: Arc<Server>,
    _stop: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Server {
    /// The header that each request needs, as of a vendor's key.
    header: Option<(&'static str, &'static str)>,
    received: watch::Sender<Received>,
}

/// All that a collector has received.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// The ended spans.
    pub spans: Vec<Span>,
    /// The points of each metric, as the last export has them.
    pub metrics: BTreeMap<String, Metric>,
    /// The resource of each export.
    pub resources: Vec<Attributes>,
    /// Why requests were refused.
    pub refusals: Vec<String>,
    /// The headers and the body of each request, as they came.
    pub raw: Vec<u8>,
}

/// A span.
#[derive(Debug, Clone)]
pub struct Span {
    /// The trace's id in hexadecimal digits.
    pub trace: String,
    /// The span's id in hexadecimal digits.
    pub id: String,
    /// The id of the span above; empty for the first span of a trace.
    pub parent: String,
    /// The name.
    pub name: String,
    /// The kind: 2 is a server, 3 a client.
    pub kind: u64,
    /// Whether the status is an error.
    pub is_error: bool,
    /// The attributes.
    pub attributes: Attributes,
}

/// A metric.
#[derive(Debug, Clone)]
pub struct Metric {
    /// The unit.
    pub unit: String,
    /// The attributes of each point with its value: a sum's number, or a histogram's count and sum.
    pub points: Vec<(Attributes, Value)>,
    /// The bounds of a histogram; empty for a sum.
    pub bounds: Vec<f64>,
}

impl Collector {
    /// Starts a collector.
    ///
    /// # Errors
    /// Fails if no port can be bound.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(None).await
    }

    /// Starts a collector that refuses requests without this header.
    ///
    /// # Errors
    /// Fails if no port can be bound.
    pub async fn start_with(header: Option<(&'static str, &'static str)>) -> anyhow::Result<Self> {
        let server = Arc::new(Server { header, received: watch::Sender::default() });
        // Another path is 404, another method 405.
        let router = Router::new().route("/v1/traces", post(receive)).route("/v1/metrics", post(receive));
        let (port, stop) = forward::serve(router.with_state(Arc::clone(&server))).await?;
        Ok(Self { port, server, _stop: stop })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The value of `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All that was received until now.
    pub fn received(&self) -> Received {
        self.server.received.borrow().clone()
    }

    /// Waits until what was received matches `wanted`, and returns it.
    ///
    /// # Panics
    /// After [`LONGEST_WAIT`], with what was received.
    #[expect(clippy::panic, reason = "a test that waits in vain fails and says what it saw")]
    pub async fn wait_for(&self, what: &str, wanted: impl Fn(&Received) -> bool) -> Received {
        let mut received = self.server.received.subscribe();
        let waited = tokio::time::timeout(LONGEST_WAIT, received.wait_for(|received| wanted(received))).await;
        if let Ok(Ok(received)) = waited {
            return received.clone();
        }
        let Received { spans, metrics, refusals, .. } = self.received();
        panic!("waited {LONGEST_WAIT:?} until {what}; received {spans:#?} {metrics:#?}, refused {refusals:#?}");
    }
}

async fn receive(State(server): State<Arc<Server>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let verdict = check(&server, &headers, &uri, &body);
    server.received.send_modify(|received| {
        for (name, value) in &headers {
            received.raw.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
        }
        received.raw.extend(&body);
        match &verdict {
            Ok(Export::Traces(resources, spans)) => {
                received.resources.extend(resources.clone());
                received.spans.extend(spans.clone());
            }
            Ok(Export::Metrics(resources, metrics)) => {
                received.resources.extend(resources.clone());
                received.metrics.extend(metrics.clone());
            }
            Err((_, reason)) => received.refusals.push(reason.clone()),
        }
    });
    match verdict {
        // An empty message: all was taken.
        Ok(_) => ([(header::CONTENT_TYPE, PROTOBUF)], Bytes::new()).into_response(),
        Err((status, reason)) => (status, reason).into_response(),
    }
}

enum Export {
    Traces(Vec<Attributes>, Vec<Span>),
    Metrics(Vec<Attributes>, Vec<(String, Metric)>),
}

fn check(server: &Server, headers: &HeaderMap, uri: &Uri, body: &[u8]) -> Result<Export, (StatusCode, String)> {
    let has = |name: &str, value: &str| headers.get(name).is_some_and(|given| given == value);
    if server.header.is_some_and(|(name, value)| !has(name, value)) {
        return Err((StatusCode::UNAUTHORIZED, "the key is missing".to_owned()));
    }
    if !has("content-type", PROTOBUF) || headers.contains_key("content-encoding") {
        return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is not plain protobuf".to_owned()));
    }
    let export = if uri.path() == "/v1/traces" { traces(body) } else { metrics(body) };
    export.map_err(|error| (StatusCode::BAD_REQUEST, format!("{error:#}")))
}

fn traces(body: &[u8]) -> anyhow::Result<Export> {
    let (mut resources, mut spans) = (Vec::new(), Vec::new());
    for group in list(&protobuf::read(body, protobuf::TRACES)?, "resourceSpans") {
        resources.push(resource(group)?);
        for scope in list(group, "scopeSpans") {
            ensure!(!text(&scope["scope"], "name").is_empty(), "a scope has no name");
            for json in list(scope, "spans") {
                spans.push(span(json).with_context(|| json.to_string())?);
            }
        }
    }
    ensure!(!spans.is_empty(), "an export has no span");
    Ok(Export::Traces(resources, spans))
}

fn span(json: &Value) -> anyhow::Result<Span> {
    let is_id = |id: &str, digits: usize| id.len() == digits && id.bytes().any(|byte| byte != b'0');
    let span = Span {
        trace: text(json, "traceId").to_owned(),
        id: text(json, "spanId").to_owned(),
        parent: text(json, "parentSpanId").to_owned(),
        name: text(json, "name").to_owned(),
        kind: json["kind"].as_u64().context("a span has no kind")?,
        is_error: json["status"]["code"] == 2,
        attributes: attributes(json)?,
    };
    ensure!(is_id(&span.trace, 32) && is_id(&span.id, 16), "an id is malformed");
    ensure!(span.parent.is_empty() || is_id(&span.parent, 16), "the id of the span above is malformed");
    ensure!(!span.name.is_empty(), "a span has no name");
    let (start, end) = (json["startTimeUnixNano"].as_u64(), json["endTimeUnixNano"].as_u64());
    ensure!(start > Some(0) && end >= start, "a span ends before it begins");
    Ok(span)
}

fn metrics(body: &[u8]) -> anyhow::Result<Export> {
    let (mut resources, mut metrics) = (Vec::new(), Vec::new());
    for group in list(&protobuf::read(body, protobuf::METRICS)?, "resourceMetrics") {
        resources.push(resource(group)?);
        for scope in list(group, "scopeMetrics") {
            ensure!(!text(&scope["scope"], "name").is_empty(), "a scope has no name");
            for json in list(scope, "metrics") {
                let name = text(json, "name").to_owned();
                ensure!(!name.is_empty(), "a metric has no name");
                metrics.push((name, metric(json).with_context(|| json.to_string())?));
            }
        }
    }
    Ok(Export::Metrics(resources, metrics))
}

fn metric(json: &Value) -> anyhow::Result<Metric> {
    let is_sum = json["sum"].is_object();
    ensure!(is_sum != json["histogram"].is_object(), "a metric is one of a sum and a histogram");
    let data = if is_sum { &json["sum"] } else { &json["histogram"] };
    ensure!(matches!(data["aggregationTemporality"].as_u64(), Some(1 | 2)), "a metric has no temporality");
    ensure!(!is_sum || data["isMonotonic"] == true, "a counter only grows");
    let mut metric = Metric { unit: text(json, "unit").to_owned(), points: Vec::new(), bounds: Vec::new() };
    for point in list(data, "dataPoints") {
        ensure!(point["timeUnixNano"].as_u64() >= point["startTimeUnixNano"].as_u64(), "a point ends before it begins");
        let value = if is_sum {
            let number = point.get("asInt").or(point.get("asDouble"));
            number.context("a point has no value")?.clone()
        } else {
            metric.bounds = numbers(point, "explicitBounds");
            let counts = numbers(point, "bucketCounts");
            ensure!(metric.bounds.is_sorted(), "the bounds are not in order");
            ensure!(counts.len() == metric.bounds.len() + 1, "the bounds do not fit the counts");
            ensure!(Some(counts.iter().sum()) == point["count"].as_f64(), "the counts do not add up");
            json!({"count": point["count"], "sum": point["sum"]})
        };
        let attributes = attributes(point)?;
        ensure!(metric.points.iter().all(|(known, _)| *known != attributes), "two points have the same attributes");
        metric.points.push((attributes, value));
    }
    ensure!(!metric.points.is_empty(), "a metric has no points");
    Ok(metric)
}

fn resource(group: &Value) -> anyhow::Result<Attributes> {
    let attributes = attributes(&group["resource"])?;
    ensure!(attributes.contains_key("service.name"), "a resource has no service.name");
    Ok(attributes)
}

/// The attributes of a span, a point or a resource. Each name comes once
/// (<https://opentelemetry.io/docs/specs/otel/common/#attribute-collections>).
fn attributes(json: &Value) -> anyhow::Result<Attributes> {
    let mut attributes = Attributes::new();
    let mut keys = BTreeSet::new();
    for attribute in list(json, "attributes") {
        let key = text(attribute, "key");
        ensure!(!key.is_empty() && keys.insert(key), "the attribute {key:?} has no name, or comes twice");
        let value = attribute["value"].as_object().and_then(|value| value.values().next());
        attributes.insert(key.to_owned(), value.with_context(|| format!("{key} has no value"))?.clone());
    }
    Ok(attributes)
}

fn list<'a>(json: &'a Value, name: &str) -> &'a [Value] {
    json[name].as_array().map_or(&[], Vec::as_slice)
}

fn numbers(json: &Value, name: &str) -> Vec<f64> {
    list(json, name).iter().filter_map(Value::as_f64).collect()
}

fn text<'a>(json: &'a Value, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_default()
}
