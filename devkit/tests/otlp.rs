//! Traces and metrics of a handler with the cargo feature `otlp`, as a collector gets them.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use devkit::stand_ins::azurite::Azurite;
use devkit::stand_ins::collector::{Attributes, Collector, Received, Span};
use devkit::stand_ins::faults::{Faults, Line};
use devkit::stand_ins::host::{FunctionsHost, LogLine, Options, Wire};
use devkit::stand_ins::openai::{Endpoint, OpenAi, Reply};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const API_KEY: &str = "sk-test-0123456789-secret";

/// Builds the handler with the feature, once. It shares what is built of the dependencies with the handler that other
/// tests run (`build.build-dir`), and does not replace that one: Cargo puts it into a folder of its own.
fn handler() -> PathBuf {
    static HANDLER: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let folder = devkit::target_dir().join("otlp");
        let mut cargo = devkit::cargo();
        cargo.args(["build", "--locked", "--features", "otlp", "--bin", "handler", "--target-dir"]).arg(&folder);
        cargo.env("CARGO_BUILD_BUILD_DIR", devkit::target_dir());
        assert!(cargo.status().unwrap().success(), "the handler with the feature is built");
        folder.join("debug/handler")
    };
    HANDLER.get_or_init(build).clone()
}

/// The storage account of all tests. It is never dropped; `kill_on_exit` ends it with this process.
fn azurite() -> &'static Azurite {
    static AZURITE: OnceLock<Azurite> = OnceLock::new();
    AZURITE.get_or_init(|| Azurite::start().expect("Azurite starts"))
}

/// A running app.
struct App {
    host: FunctionsHost,
    openai: OpenAi,
    http: reqwest::Client,
    // The folder is removed when the test ends.
    _spool: TempDir,
}

impl App {
    /// Starts an app with these settings, and with a container of this name.
    async fn start(container: &str, more: &[(&str, &str)]) -> anyhow::Result<Self> {
        let (handler, storage) =
            tokio::task::spawn_blocking(|| (handler(), azurite().connection_string())).await.unwrap();
        let openai = OpenAi::start().await.expect("the stand-in for OpenAI starts");
        let spool = tempfile::tempdir().unwrap();
        let settings = [
            ("AzureWebJobsStorage", storage.as_str()),
            ("IMAGE_CONTAINER", container),
            ("SPOOL_DIR", spool.path().to_str().unwrap()),
            ("OPENAI_API_KEY", API_KEY),
            ("OPENAI_BASE_URL", &openai.base_url()),
            ("DAILY_IMAGE_QUOTA", "1000"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "100"),
        ];
        let mut settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        for (name, value) in more {
            settings.retain(|(known, _)| known != name);
            settings.push(((*name).to_owned(), (*value).to_owned()));
        }
        let options = Options { handler: Some(handler), settings, ..Options::new(devkit::root(), Wire::Proxying) };
        let host = FunctionsHost::start(options).await?;
        Ok(Self { host, openai, http: reqwest::Client::new(), _spool: spool })
    }

    fn post(&self, prompt: &str) -> RequestBuilder {
        let url = format!("{}/api/generateImage?code=a-function-key", self.host.url());
        self.http.post(url).json(&json!({"prompt": prompt, "quality": "low"}))
    }

    async fn get(&self, path: &str) -> Response {
        self.http.get(format!("{}{path}", self.host.url())).send().await.unwrap()
    }

    /// The names of the threads that the SDK has started in the handler.
    fn threads(&self) -> Vec<String> {
        let threads = format!("/proc/{}/task", self.host.handler_pid(0).unwrap());
        let names =
            fs::read_dir(threads).unwrap().map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")));
        names.map(Result::unwrap).filter(|name| name.starts_with("OpenTelemetry")).collect()
    }

    /// Stops the handler, and returns its exit status and the time that it took.
    async fn stop(self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        let status = self.host.stop().await[0].expect("the handler ends by itself");
        (status, began.elapsed())
    }
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

fn named<'a>(received: &'a Received, name: &str) -> Vec<&'a Span> {
    received.spans.iter().filter(|span| span.name == name).collect()
}

/// A value of a metric with these attributes among others.
fn point(received: &Received, metric: &str, wanted: &[(&str, &str)]) -> Value {
    let has = |attributes: &Attributes| {
        wanted.iter().all(|(name, value)| attributes.get(*name).is_some_and(|given| given == value))
    };
    let metric = received.metrics.get(metric).unwrap_or_else(|| panic!("no {metric}"));
    let mut points = metric.points.iter().filter(|(attributes, _)| has(attributes)).map(|(_, value)| value.clone());
    points.next().unwrap_or_else(|| panic!("no {wanted:?} in {metric:#?}"))
}

/// The attributes as JSON, with `[name]` in place of those that differ from run to run.
fn masked(attributes: &Attributes) -> String {
    let mut attributes = attributes.clone();
    for name in ["faas.invocation_id", "server.port", "service.instance.id", "service.version", "telemetry.sdk.version"]
    {
        attributes.entry(name.to_owned()).and_modify(|value| *value = json!(format!("[{name}]")));
    }
    serde_json::to_string_pretty(&attributes).unwrap()
}

#[tokio::test]
async fn an_image_is_one_trace_from_the_callers_span_to_the_call_of_the_provider() {
    let collector = Collector::start_with(Some(("x-vendor-key", "a-vendor-key"))).await.unwrap();
    let more = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-vendor-key=a-vendor-key".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test".to_owned()),
        ("QUOTA_USER_HEADER", "x-user".to_owned()),
    ];
    let app = App::start("otlp-image", &more.each_ref().map(|(name, value)| (*name, value.as_str()))).await.unwrap();

    let image = app.post("a secret fox").header("traceparent", TRACEPARENT).header("x-user", "a-secret-user");
    let image = image.header("accept", "application/json").send().await.unwrap();
    let invocation = image.headers()["x-azure-functions-invocationid"].to_str().unwrap().to_owned();
    let image: Value = image.json().await.unwrap();
    let received = collector
        .wait_for("the image's spans and metrics have come", |received| {
            let has = |metric: &str| received.metrics.contains_key(metric);
            !named(received, "POST /api/generateImage").is_empty()
                && ["visionary.image.cost", "http.server.request.duration"].into_iter().all(has)
        })
        .await;

    let [request] = named(&received, "POST /api/generateImage")[..] else { panic!("{:#?}", received.spans) };
    let [call] = named(&received, "generate_content gpt-image-2.5-flare")[..] else { panic!("{:#?}", received.spans) };
    assert_eq!((request.trace.as_str(), request.parent.as_str(), request.kind), (TRACE, "00f067aa0ba902b7", 2));
    assert_eq!((call.trace.as_str(), &call.parent, call.kind), (TRACE, &request.id, 3));
    assert_eq!(request.attributes["faas.invocation_id"], json!(invocation));
    insta::assert_snapshot!(masked(&request.attributes), @r#"
    {
      "faas.invocation_id": "[faas.invocation_id]",
      "faas.trigger": "http",
      "http.request.method": "POST",
      "http.response.status_code": 200,
      "http.route": "/api/generateImage",
      "url.path": "/api/generateImage",
      "url.scheme": "http"
    }
    "#);
    insta::assert_snapshot!(masked(&call.attributes), @r#"
    {
      "gen_ai.operation.name": "generate_content",
      "gen_ai.output.type": "image",
      "gen_ai.provider.name": "openai",
      "gen_ai.request.model": "gpt-image-2.5-flare",
      "gen_ai.usage.input_tokens": 11,
      "gen_ai.usage.output_tokens": 196,
      "server.address": "127.0.0.1",
      "server.port": "[server.port]"
    }
    "#);
    insta::assert_snapshot!(masked(&received.resources[0]), @r#"
    {
      "deployment.environment.name": "test",
      "service.instance.id": "[service.instance.id]",
      "service.name": "visionary",
      "service.version": "[service.version]",
      "telemetry.sdk.language": "rust",
      "telemetry.sdk.name": "opentelemetry",
      "telemetry.sdk.version": "[telemetry.sdk.version]"
    }
    "#);
    let sent = app.openai.requests(Endpoint::Images)[0].headers["traceparent"].to_str().unwrap().to_owned();
    assert_eq!(sent, format!("00-{TRACE}-{}-01", call.id), "the provider continues the trace below its call");
    let is_line = |line: &LogLine| line.text.contains("\"event\":\"request_answered\"");
    app.host.wait_for_log(is_line).await;
    let line: Value = serde_json::from_str(&app.host.logs().into_iter().find(is_line).unwrap().text).unwrap();
    let span = json!({
        "name": "invocation", "function.name": "generateImage", "invocation.id": invocation, "trace.id": TRACE,
    });
    assert_eq!(line["span"], span, "the log is the same as without the feature");

    let image_model = ("gen_ai.request.model", "gpt-image-2.5-flare");
    assert_eq!(point(&received, "visionary.images", &[("visionary.outcome", "stored"), image_model]), 1);
    assert_eq!(point(&received, "visionary.image.cost", &[("visionary.outcome", "stored")]), 0.005_935);
    let tokens = |kind| point(&received, "gen_ai.client.token.usage", &[("gen_ai.token.type", kind), image_model]);
    assert_eq!((&tokens("input")["sum"], &tokens("output")["sum"]), (&json!(11.0), &json!(196.0)));
    let duration = point(&received, "gen_ai.client.operation.duration", &[image_model]);
    assert!(duration["count"] == 1 && duration["sum"].as_f64() > Some(0.0), "{duration}");
    let duration = point(&received, "http.server.request.duration", &[("http.route", "/api/generateImage")]);
    assert_eq!(duration["count"], 1);
    assert_eq!(received.metrics["gen_ai.client.operation.duration"].bounds.last(), Some(&327.68));

    // None of it says what was drawn, for whom, with which key, or where the image is.
    assert_eq!(received.refusals, [""; 0]);
    let raw = String::from_utf8_lossy(&received.raw);
    assert!(raw.contains("gpt-image-2.5-flare"), "texts are found in the bytes");
    let url = image["url"].as_str().unwrap();
    let (id, token) = (image["id"].as_str().unwrap(), image["deleteToken"].as_str().unwrap());
    for secret in ["secret", "fox", API_KEY, "a-function-key", "code=", "sig=", "otlp-image", url, id, token] {
        assert!(!raw.contains(secret), "{secret} is in what was sent");
    }
    assert!(app.stop().await.0.success());
}

#[tokio::test]
async fn failures_jobs_and_texts_have_spans_without_secrets() {
    let collector = Collector::start().await.unwrap();
    let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())];
    let app = App::start("otlp-others", &[(endpoint[0].0, &endpoint[0].1)]).await.unwrap();

    // Of a trace that is not sampled, nothing is sent.
    let unsampled = TRACEPARENT.replace("-01", "-00");
    assert_eq!(status(app.post("a fox").header("traceparent", &unsampled)).await, 200);
    let sent = app.openai.requests(Endpoint::Images)[0].headers["traceparent"].to_str().unwrap().to_owned();
    assert!(sent.starts_with(&format!("00-{TRACE}-")) && sent.ends_with("-00"), "{sent}");

    app.openai.script(Endpoint::Images, Reply::error(401, "invalid_request_error", "invalid_api_key", "no"));
    assert_eq!(status(app.post("a fox")).await, 502);
    let text = Reply::json(
        200,
        &json!({
            "model": "gpt-6-luna-2026-08-01", "status": "completed", "usage": {"input_tokens": 30, "output_tokens": 20},
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "A secret garden at night"}]}],
        }),
    );
    app.openai.script(Endpoint::Responses, text);
    assert_eq!(app.get("/api/getChatGPTSuggestion").await.status(), 200);
    let job: Value = app.post("a fox").header("prefer", "respond-async").send().await.unwrap().json().await.unwrap();
    let address = job["id"].as_str().unwrap().to_owned();
    let delivery = app.http.post(format!("{}/processImage", app.host.handler_url(0).unwrap())).body("a secret message");
    let delivered = status(delivery).await;
    assert_eq!(app.get(&format!("/api/generateImage/jobs/{address}")).await.status(), 200);
    let job_route = "GET /api/generateImage/jobs/{id:length(75)}";
    let received = collector
        .wait_for("the job's span and the text's metrics have come", |received| {
            let texts = |metric: &str| received.metrics.get(metric).is_some_and(|metric| metric.points.len() >= 2);
            !named(received, job_route).is_empty() && texts("gen_ai.client.token.usage")
        })
        .await;

    let failed = named(&received, "POST /api/generateImage").into_iter().find(|span| span.is_error).unwrap();
    assert_eq!(failed.attributes["error.type"], "provider_misconfigured");
    assert_eq!(failed.attributes["http.response.status_code"], 502);
    assert!(failed.parent.is_empty(), "a request without a trace begins one");
    let denied = named(&received, "generate_content gpt-image-2.5-flare").into_iter().find(|span| span.is_error);
    assert_eq!(denied.map(|span| (&span.attributes["error.type"], &span.parent)), Some((&json!("denied"), &failed.id)));
    assert!(received.spans.iter().all(|span| span.trace != TRACE), "the trace is not sampled");

    let [text] = named(&received, "chat gpt-6-luna")[..] else { panic!("{:#?}", received.spans) };
    insta::assert_snapshot!(masked(&text.attributes), @r#"
    {
      "gen_ai.operation.name": "chat",
      "gen_ai.output.type": "text",
      "gen_ai.provider.name": "openai",
      "gen_ai.request.model": "gpt-6-luna",
      "gen_ai.response.model": "gpt-6-luna-2026-08-01",
      "gen_ai.usage.input_tokens": 30,
      "gen_ai.usage.output_tokens": 20,
      "server.address": "127.0.0.1",
      "server.port": "[server.port]"
    }
    "#);
    let [job] = named(&received, job_route)[..] else { panic!("{:#?}", received.spans) };
    assert_eq!(job.attributes["url.path"], "/api/generateImage/jobs/{id}");
    let [delivery] = named(&received, "POST /processImage")[..] else { panic!("{:#?}", received.spans) };
    assert_eq!(delivery.attributes["faas.trigger"], "pubsub");
    assert_eq!(delivery.attributes["http.response.status_code"], delivered);
    let raw = String::from_utf8_lossy(&received.raw);
    for secret in ["secret", API_KEY, &address] {
        assert!(!raw.contains(secret), "{secret} is in what was sent");
    }
    assert_eq!(received.refusals, [""; 0]);
}

#[tokio::test]
async fn a_collector_that_is_away_or_fails_costs_requests_nothing_and_one_log_line() {
    let collector = Collector::start().await.unwrap();
    let faults = Faults::before(collector.port()).await.unwrap();
    for (line, container) in [
        (Line::Refused, "otlp-refused"),
        (Line::Answers(500, "a secret answer"), "otlp-failing"),
        (Line::Stalled, "otlp-stalled"),
    ] {
        faults.set(line);
        let endpoint = format!("http://127.0.0.1:{}", faults.port());
        let more = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint), ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a-secret-key")];
        let app = App::start(container, &more).await.unwrap();

        for _ in 0..3 {
            assert_eq!(status(app.post("a secret fox")).await, 200);
        }
        let is_line = |text: &str| text.contains("\"event\":\"telemetry_not_sent\"");
        if line != Line::Stalled {
            app.host.wait_for_log(|line| is_line(&line.text)).await;
            // The next images fall into later exports.
            assert_eq!(status(app.post("a secret fox")).await, 200);
        }
        let lines: Vec<String> =
            app.host.logs().into_iter().map(|line| line.text).filter(|line| is_line(line)).collect();
        assert!(lines.len() <= 1, "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains("secret")), "{lines:#?}");
        let (status, took) = app.stop().await;
        assert!(status.success(), "{line:?}: {status}");
        // Two seconds are for the collector. The SDK alone would wait for five.
        assert!(took < Duration::from_millis(4_500), "{line:?}: {took:?}");
    }
    assert!(collector.received().spans.is_empty());
}

#[tokio::test]
async fn what_is_not_sent_yet_is_sent_when_the_process_stops() {
    let collector = Collector::start().await.unwrap();
    let traces = format!("{}/v1/traces", collector.endpoint());
    let metrics = format!("{}/v1/metrics", collector.endpoint());
    let app = App::start(
        "otlp-stop",
        &[
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &traces),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &metrics),
            ("OTEL_BSP_SCHEDULE_DELAY", "600000"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "600000"),
            ("OTEL_SERVICE_NAME", "a-name"),
        ],
    )
    .await
    .unwrap();
    assert_eq!(status(app.post("a fox")).await, 200);
    assert!(collector.received().raw.is_empty(), "it is not time yet");

    assert!(app.stop().await.0.success());

    let received = collector.received();
    assert_eq!(named(&received, "POST /api/generateImage").len(), 1);
    assert_eq!(point(&received, "visionary.images", &[("visionary.outcome", "stored")]), 1);
    assert!(received.resources.iter().all(|resource| resource["service.name"] == "a-name"));
}

#[tokio::test]
async fn without_an_endpoint_or_with_the_sdk_disabled_nothing_is_started_and_nothing_sent() {
    let collector = Collector::start().await.unwrap();
    let endpoint = collector.endpoint();
    let on = ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str());
    for (container, more, threads) in [
        ("otlp-on", &[on][..], 2),
        ("otlp-blank", &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")][..], 0),
        ("otlp-disabled", &[on, ("OTEL_SDK_DISABLED", "true")][..], 0),
    ] {
        let before = collector.received().spans.len();
        let app = App::start(container, more).await.unwrap();
        assert_eq!(status(app.post("a fox").header("traceparent", TRACEPARENT)).await, 200);
        assert_eq!(app.threads().len(), threads, "{container}: {:?}", app.threads());
        let passed_on = app.openai.requests(Endpoint::Images)[0].headers["traceparent"] == TRACEPARENT;
        assert_eq!(passed_on, threads == 0, "{container}");
        assert!(app.stop().await.0.success());
        assert_eq!(collector.received().spans.len() > before, threads > 0, "{container}");
    }
}

#[tokio::test]
async fn a_malformed_endpoint_ends_the_start_with_its_name_and_without_its_value() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "secret.example:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://user:secret@collector.example"),
    ] {
        let error = App::start("otlp-malformed", &[(name, value)]).await.err().expect("the handler does not start");
        let error = format!("{error:#}");
        assert!(error.contains(&format!("{name} is malformed: expected a URL")), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn the_collector_refuses_what_is_not_otlp() {
    let collector = Collector::start().await.unwrap();
    let post = |path: &str, content_type: &str, body: &[u8]| {
        let request = reqwest::Client::new().post(format!("{}{path}", collector.endpoint()));
        request.header("content-type", content_type).body(body.to_vec())
    };
    let protobuf = "application/x-protobuf";
    assert_eq!(status(post("/v1/traces", "application/json", b"{}")).await, 415);
    assert_eq!(status(post("/v1/logs", protobuf, b"")).await, 404);
    assert_eq!(status(reqwest::Client::new().get(format!("{}/v1/traces", collector.endpoint()))).await, 405);
    for malformed in [&b"\x0a\x05\x01"[..], b"\x12\x00", b"\x08\x01", b"\x0a\x00", b""] {
        assert_eq!(status(post("/v1/traces", protobuf, malformed)).await, 400, "{malformed:?}");
    }
    assert_eq!(collector.received().refusals.len(), 6);
    assert!(collector.received().spans.is_empty());
}
