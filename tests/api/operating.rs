//! What an operator sees: the log's lines with their ids, traces that other services continue, one line for each image,
//! and the health of an app whose storage hangs.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request as Received;
use axum::http::StatusCode;
use devkit::stand_ins::faults::Line;
use devkit::stand_ins::openai::{Endpoint, Reply};
use reqwest::Method;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::harness::{Setup, Visionary, masked};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The line with this event, once the handler has written it.
async fn line_of(visionary: &Visionary, event: &str) -> Value {
    let text = format!("\"event\":\"{event}\"");
    visionary.host.wait_for_log(|line| line.text.contains(&text)).await;
    let line = visionary.host.logs().into_iter().find(|line| line.text.contains(&text)).unwrap();
    serde_json::from_str(&line.text).unwrap()
}

/// A storage account that refuses each call and remembers it: the method, the path and the header `traceparent`.
async fn remembering_account() -> (String, Arc<Mutex<Vec<(String, String)>>>) {
    let calls: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let remembered = Arc::clone(&calls);
    let remember = move |request: Received| {
        let trace = request.headers().get("traceparent").map(|value| value.to_str().unwrap().to_owned());
        let service = request.uri().path().split('/').nth(1).unwrap().to_owned();
        remembered.lock().unwrap().push((format!("{} {service}", request.method()), trace.unwrap_or_default()));
        async { StatusCode::FORBIDDEN }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(remember)).await });
    let setting = format!(
        "DefaultEndpointsProtocol=http;AccountName=account;AccountKey=c2VjcmV0;BlobEndpoint={base}/blobs;\
         QueueEndpoint={base}/queues;TableEndpoint={base}/tables"
    );
    (setting, calls)
}

#[tokio::test]
async fn a_trace_that_a_request_names_reaches_the_provider_and_storage() {
    let (account, calls) = remembering_account().await;
    let setup = Setup::default().set("AzureWebJobsStorage", account);
    let visionary = setup.set("DAILY_IMAGE_QUOTA", "0").set("DAILY_BUDGET_USD", "0").start().await;

    // The image is drawn, its upload is refused, and it waits in the spool.
    let answer = visionary.post("a fox").header("traceparent", TRACEPARENT).send().await;
    assert_eq!(answer.status_and_code(), (202, "stored_later"));
    let job = visionary.post("a fox").prefer("respond-async").header("traceparent", TRACEPARENT).send().await;
    assert_eq!(job.status, 503, "the queue refuses the job");
    let listing = visionary.request(Method::GET, "/api/getImages").header("traceparent", TRACEPARENT).send().await;
    assert_eq!(listing.status, 503);
    let id = format!("/api/images/{:013}-{:032x}", 1, 1);
    let details = visionary.request(Method::GET, &id).header("traceparent", TRACEPARENT).send().await;
    assert_eq!(details.status, 503);

    let drawn = visionary.openai.requests(Endpoint::Images);
    assert_eq!(drawn[0].headers["traceparent"], TRACEPARENT);
    let traced: Vec<String> = {
        let calls = calls.lock().unwrap();
        calls.iter().filter(|(_, trace)| trace == TRACEPARENT).map(|(call, _)| call.clone()).collect()
    };
    for call in ["PUT blobs", "POST queues", "GET blobs", "GET tables"] {
        assert!(traced.iter().any(|traced| traced == call), "{call} is not in the trace: {traced:?}");
    }
}

#[tokio::test]
async fn each_line_of_a_request_has_its_invocation_and_its_trace_at_any_log_level() {
    let visionary = Setup::default().set("RUST_LOG", "warn").start().await;
    let denied = || Reply::error(401, "invalid_request_error", "invalid_api_key", "no");
    visionary.openai.script(Endpoint::Images, denied());

    let answer = visionary.post("a fox").header("traceparent", TRACEPARENT).send().await;
    let mut line = line_of(&visionary, "request_failed").await;
    // The provider counts all requests, also those of the model watch.
    let cause = line["cause"].as_str().unwrap().trim_end_matches(|character: char| character.is_ascii_digit());
    line["cause"] = cause.to_owned().into();
    let id = answer.header("x-azure-functions-invocationid");
    insta::assert_json_snapshot!(masked(line, &["timestamp", "duration_ms", "span/invocation.id"]), @r#"
    {
      "cause": "the provider rejected the key or denied access: status 401 Unauthorized, code invalid_api_key, request id req_",
      "duration_ms": "[duration_ms]",
      "error.code": "provider_misconfigured",
      "event": "request_failed",
      "http.status": 502,
      "level": "ERROR",
      "message": "the request failed",
      "span": {
        "function.name": "generateImage",
        "invocation.id": "[invocation.id]",
        "name": "invocation",
        "trace.id": "4bf92f3577b34da6a3ce929d0e0e4736"
      },
      "target": "visionary::functions",
      "timestamp": "[timestamp]"
    }
    "#);
    assert_eq!(answer.status, 502);
    let has_id = |text: &str| text.contains(id) && text.contains(TRACE);
    assert!(visionary.host.logs().iter().any(|line| has_id(&line.text)), "{id}");
}

#[tokio::test]
async fn a_failure_within_an_event_stream_is_logged_with_the_ids_of_its_request() {
    let visionary = Visionary::start().await;
    visionary.openai.script(Endpoint::Images, Reply::error(401, "invalid_request_error", "invalid_api_key", "no"));

    let answer = visionary.post("a fox").events().header("traceparent", TRACEPARENT).send().await;
    assert_eq!(answer.status, 200);
    let line = line_of(&visionary, "stream_failed").await;
    assert_eq!(line["span"]["invocation.id"], answer.header("x-azure-functions-invocationid"));
    assert_eq!(line["span"]["trace.id"], TRACE);
    assert_eq!(line["span"]["function.name"], "generateImage");
}

#[tokio::test]
async fn a_malformed_traceparent_begins_a_trace_of_its_own() {
    let visionary = Visionary::start().await;
    let malformed = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
    visionary.post("a fox").header("traceparent", malformed).send().await;

    let line = line_of(&visionary, "drawing_ended").await;
    let trace = line["span"]["trace.id"].as_str().unwrap();
    assert!(trace.len() == 32 && trace != "0".repeat(32), "{trace}");
    let sent = visionary.openai.requests(Endpoint::Images)[0].headers["traceparent"].to_str().unwrap().to_owned();
    assert_eq!(sent.split('-').nth(1), Some(trace));
}

#[tokio::test]
async fn each_image_has_one_line_with_its_model_cost_time_and_outcome_and_without_its_prompt() {
    let visionary = Visionary::start().await;
    let answer = visionary.post_json(&serde_json::json!({"prompt": "a secret fox", "quality": "low"})).send().await;
    assert_eq!(answer.status, 200);

    let stored = line_of(&visionary, "drawing_ended").await;
    let volatile = ["timestamp", "duration_ms", "image.id", "span/invocation.id", "span/trace.id"];
    insta::assert_json_snapshot!(masked(stored, &volatile), @r#"
    {
      "cost_usd": 0.005935,
      "duration_ms": "[duration_ms]",
      "event": "drawing_ended",
      "image.id": "[image.id]",
      "input_tokens": 11,
      "level": "INFO",
      "message": "an attempt to draw an image has ended",
      "model": "gpt-image-2.5-flare",
      "outcome": "stored",
      "output_tokens": 196,
      "quality": "low",
      "size": "1024x1024",
      "span": {
        "function.name": "generateImage",
        "invocation.id": "[invocation.id]",
        "name": "invocation",
        "trace.id": "[trace.id]"
      },
      "target": "visionary::generation::report",
      "timestamp": "[timestamp]"
    }
    "#);
    let lines = visionary.host.logs();
    assert_eq!(lines.iter().filter(|line| line.text.contains("drawing_ended")).count(), 1);
    assert!(!lines.iter().any(|line| line.text.contains("secret fox")), "a prompt is in the log");
}

#[tokio::test]
async fn an_image_that_is_lost_or_not_drawn_has_its_line_with_what_it_counts() {
    let visionary = Visionary::start().await;
    visionary.openai.script(Endpoint::Images, Reply::normal().cut_before_answer());
    assert_eq!(visionary.generate("a fox").await.status_and_code(), (502, "provider_answer_lost"));
    let lost = line_of(&visionary, "drawing_ended").await;
    assert_eq!(lost["outcome"], "lost");
    assert_eq!(lost["cost_usd"], visionary.accounted().await["usd"], "it counts at the most that it can cost");

    let visionary = Visionary::start().await;
    visionary
        .openai
        .script(Endpoint::Images, Reply::error(400, "image_generation_user_error", "moderation_blocked", "no"));
    assert_eq!(visionary.generate("a fox").await.status_and_code(), (422, "prompt_rejected"));
    let refused = line_of(&visionary, "drawing_ended").await;
    assert_eq!((&refused["outcome"], &refused["cost_usd"]), (&Value::from("not_drawn"), &Value::from(0.0)));
}

#[tokio::test]
async fn health_answers_within_a_second_while_storage_hangs() {
    let visionary = Setup { lines: true, ..Setup::default() }.start().await;
    visionary.lines.as_ref().unwrap().blobs.set(Line::Stalled);

    // All of them wait for one look at storage.
    let started = Instant::now();
    let requests: Vec<_> = (0..8).map(|_| visionary.request(Method::GET, "/api/health").spawn()).collect();
    for request in requests {
        assert_eq!(request.await.unwrap().json()["status"], "degraded");
    }
    // The limit is one second; the rest is for a machine with much to do.
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(visionary.get("/api/status").await.json()["storage"], "unreachable");
}
