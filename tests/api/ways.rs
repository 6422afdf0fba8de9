//! The five ways to request an image, and one type for their outcomes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use percent_encoding::percent_decode_str;
use reqwest::Response;
use serde_json::Value;

use crate::harness::{Answer, Visionary, eventually};
use crate::sse::Events;

/// How a caller requests an image and waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// As the front ends request it.
    Plain,
    /// With an Idempotency-Key.
    Keyed,
    /// `Prefer: wait`: a job whose outcome the request waits for.
    Wait,
    /// `Prefer: respond-async`: a job that the caller polls.
    Job,
    /// Server-sent events.
    Events,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    Stored,
    /// With the image's name.
    StoredLater(String),
    /// With a status and a code.
    Failed(u16, String),
}

/// The outcome of a request.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// The address of the job, if the answer was a job.
    pub(crate) job: Option<String>,
}

/// A job that is put back is delivered again after 10 s, then after longer delays.
const LONGEST: Duration = Duration::from_secs(120);

impl Way {
    pub(crate) const ALL: [Self; 5] = [Self::Plain, Self::Keyed, Self::Wait, Self::Job, Self::Events];
    /// The ways without a queue: a failure of the provider is in the answer.
    pub(crate) const SYNCHRONOUS: [Self; 3] = [Self::Plain, Self::Keyed, Self::Events];

    pub(crate) fn is_queued(self) -> bool {
        !Self::SYNCHRONOUS.contains(&self)
    }

    /// Requests an image and waits for the outcome.
    pub(crate) async fn request(self, visionary: &Visionary) -> Outcome {
        let outcome = tokio::time::timeout(LONGEST, self.request_unbounded(visionary)).await;
        outcome.unwrap_or_else(|_| panic!("{self:?} has no outcome within {LONGEST:?}"))
    }

    async fn request_unbounded(self, visionary: &Visionary) -> Outcome {
        let request = visionary.post("a fox");
        let request = match self {
            Self::Plain => request,
            Self::Keyed => request.key(&new_key()),
            Self::Wait => request.prefer(&format!("wait={}", LONGEST.as_secs())),
            Self::Job => request.prefer("respond-async"),
            Self::Events => request.events(),
        };
        let response = request.response().await;
        if is_event_stream(&response) {
            let (name, data) = Events::of(response).rest().await.pop().expect("an event");
            let end = match name.as_str() {
                "image" => End::of_result(&data),
                "error" => End::of_problem(&data),
                other => panic!("the last event is {other}: {data}"),
            };
            return Outcome { end, job: None };
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
                return Outcome { end: end_of_job(visionary, &job).await, job: Some(job) };
            }
            (status, code) => End::Failed(status, code.to_owned()),
        };
        assert!(self != Self::Job || matches!(end, End::Failed(..)), "the answer is no job: {}", answer.body);
        Outcome { end, job: None }
    }
}

/// Requests an image in each of these ways at the same time.
pub(crate) async fn request_at_once(visionary: &Visionary, ways: &[Way]) -> Vec<(Way, Outcome)> {
    join_all(ways.iter().map(async |way| (*way, way.request(visionary).await))).await
}

impl End {
    pub(crate) fn failed(status: u16, code: &str) -> Self {
        Self::Failed(status, code.to_owned())
    }

    /// From the JSON answer of generateImage.
    fn of_result(details: &Value) -> Self {
        if details["code"] == "stored_later" {
            return Self::StoredLater(details["name"].as_str().expect("a name").to_owned());
        }
        assert!(details["url"].is_string(), "{details}");
        Self::Stored
    }

    /// From a problem document.
    fn of_problem(problem: &Value) -> Self {
        let status = problem["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        Self::failed(status.expect("a status"), problem["code"].as_str().expect("a code"))
    }
}

async fn end_of_job(visionary: &Visionary, job: &str) -> End {
    let has_ended = |job: &Value| ["done", "failed", "cancelled"].contains(&job["status"].as_str().expect("a status"));
    let job = eventually("the job has ended", async || visionary.get(job).await.json(), has_ended).await;
    match job["status"].as_str() {
        Some("done") => End::of_result(&job["result"]),
        Some("failed") => End::of_problem(&job["problem"]),
        _ => panic!("the job is cancelled: {job}"),
    }
}

fn is_event_stream(response: &Response) -> bool {
    let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
    content_type.is_some_and(|content_type| content_type.starts_with("text/event-stream"))
}

/// An idempotency key that no other request has.
fn new_key() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("key-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
