//! The ways to ask for an image, and the end that each of them comes to, in the same words.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use percent_encoding::percent_decode_str;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::harness::{Answer, Visionary, eventually};
use crate::sse::Events;

/// How a caller asks, and waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// As the front ends do it.
    Plain,
    /// With an Idempotency-Key.
    Keyed,
    /// `Prefer: wait`: a job whose end is waited for.
    Wait,
    /// `Prefer: respond-async`: a job that is asked for again and again.
    Job,
    /// Server-sent events.
    Events,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    Stored,
    /// Under this name.
    StoredLater(String),
    /// With a status and a code.
    Failed(u16, String),
}

/// What a caller was told in the end.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) end: End,
    /// The address of the job, where the caller has it.
    pub(crate) job: Option<String>,
}

/// A job that is put back is delivered again after 10 s, and later after more.
const LONGEST: Duration = Duration::from_secs(120);

impl Way {
    pub(crate) const ALL: [Self; 5] = [Self::Plain, Self::Keyed, Self::Wait, Self::Job, Self::Events];
    /// Those that no queue delivers: a trouble of the provider's is told at once.
    pub(crate) const SYNCHRONOUS: [Self; 3] = [Self::Plain, Self::Keyed, Self::Events];

    pub(crate) fn is_queued(self) -> bool {
        !Self::SYNCHRONOUS.contains(&self)
    }

    /// Asks for an image, and waits for the end.
    pub(crate) async fn ask(self, visionary: &Visionary) -> Told {
        let told = tokio::time::timeout(LONGEST, self.ask_patiently(visionary)).await;
        told.unwrap_or_else(|_| panic!("{self:?} has come to no end within {LONGEST:?}"))
    }

    async fn ask_patiently(self, visionary: &Visionary) -> Told {
        let request = visionary.request(Method::POST, "/api/generateImage").json(&json!({"prompt": "a fox"}));
        let request = match self {
            Self::Plain => request,
            Self::Keyed => request.header("idempotency-key", new_key()),
            Self::Wait => request.header("prefer", format!("wait={}", LONGEST.as_secs())),
            Self::Job => request.header("prefer", "respond-async"),
            Self::Events => request.header("accept", "text/event-stream"),
        };
        let response = request.send().await.expect("an answer");
        if is_event_stream(&response) {
            let (name, data) = Events::of(response).rest().await.pop().expect("an event");
            let end = match name.as_str() {
                "image" => End::of_result(&data),
                "error" => End::of_problem(&data),
                other => panic!("the last event is {other}: {data}"),
            };
            return Told { end, job: None };
        }
        let answer = Answer::of(response).await;
        let code = answer.header("x-error-code");
        let end = match (answer.status, code) {
            (200, "") => End::Stored,
            (202, "stored_later") => {
                let name = percent_decode_str(answer.header("x-image-name")).decode_utf8().expect("UTF-8");
                End::StoredLater(name.into_owned())
            }
            (202, "") => {
                let job = answer.header("location").to_owned();
                assert!(!job.is_empty(), "{self:?} has no Location: {}", answer.body);
                return Told { end: end_of_job(visionary, &job).await, job: Some(job) };
            }
            (status, code) => End::Failed(status, code.to_owned()),
        };
        assert!(self != Self::Job || matches!(end, End::Failed(..)), "no job was made: {}", answer.body);
        Told { end, job: None }
    }
}

/// Asks in each of these ways at the same time.
pub(crate) async fn ask_at_once(visionary: &Visionary, ways: &[Way]) -> Vec<(Way, Told)> {
    join_all(ways.iter().map(async |way| (*way, way.ask(visionary).await))).await
}

impl End {
    pub(crate) fn failed(status: u16, code: &str) -> Self {
        Self::Failed(status, code.to_owned())
    }

    /// Of the details that come with an image.
    fn of_result(details: &Value) -> Self {
        if details["code"] == "stored_later" {
            return Self::StoredLater(details["name"].as_str().expect("a name").to_owned());
        }
        assert!(details["url"].is_string(), "{details}");
        Self::Stored
    }

    /// Of a problem document.
    fn of_problem(problem: &Value) -> Self {
        let status = problem["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        Self::failed(status.expect("a status"), problem["code"].as_str().expect("a code"))
    }
}

async fn end_of_job(visionary: &Visionary, job: &str) -> End {
    let look = async || {
        let job = visionary.get(job).await.json();
        match job["status"].as_str().expect("a status") {
            "done" => Some(End::of_result(&job["result"])),
            "failed" => Some(End::of_problem(&job["problem"])),
            "cancelled" => panic!("nobody has cancelled it: {job}"),
            _ => None,
        }
    };
    eventually(look).await
}

fn is_event_stream(response: &Response) -> bool {
    let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
    content_type.is_some_and(|content_type| content_type.starts_with("text/event-stream"))
}

/// One that no other request has.
fn new_key() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("key-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
