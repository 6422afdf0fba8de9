//! Clients: the one that behaves well, and those that send many requests.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use reqwest::{RequestBuilder, Response};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Answers;
use crate::commands::handler::Handler;

/// The pause of the well-behaved caller between an answer and the next request.
const PAUSE: Duration = Duration::from_millis(100);

/// A caller that asks for one image after the other, on one connection.
pub(super) struct WellBehaved {
    stop: oneshot::Sender<()>,
    seen: JoinHandle<Seen>,
}

/// What the well-behaved caller got.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) answers: Answers,
    times: Vec<Duration>,
}

impl WellBehaved {
    pub(super) fn start(handler: &Handler) -> Self {
        let url = format!("{}/api/generateImage", handler.url);
        let (stop, mut stopped) = oneshot::channel();
        let seen = tokio::spawn(async move {
            let http = reqwest::Client::new();
            let mut seen = Seen::default();
            loop {
                let request = http.post(&url).header("x-user", "anna").json(&json!({"prompt": "a fox"}));
                let started = Instant::now();
                let answer = outcome(request).await;
                seen.times.push(started.elapsed());
                seen.answers.add(&answer);
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    _ = &mut stopped => return seen,
                }
            }
        });
        Self { stop, seen }
    }

    /// Waits for the last answer.
    pub(super) async fn stop(self) -> Seen {
        let _ = self.stop.send(());
        self.seen.await.unwrap_or_default()
    }
}

impl Seen {
    /// The time within which this percentage of the answers came.
    pub(super) fn percentile(&mut self, percent: usize) -> Duration {
        self.times.sort_unstable();
        let index = (self.times.len() * percent / 100).min(self.times.len().saturating_sub(1));
        self.times.get(index).copied().unwrap_or_default()
    }
}

/// A client that closes each connection after its answer, as separate attackers do.
pub(super) fn attacker() -> reqwest::Client {
    reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap_or_default()
}

/// Sends all requests, `at_once` at the same time.
pub(super) async fn flood(requests: impl IntoIterator<Item = RequestBuilder>, at_once: usize) -> Answers {
    let mut answers = Answers::default();
    let mut sent = stream::iter(requests).map(outcome).buffer_unordered(at_once);
    while let Some(answer) = sent.next().await {
        answers.add(&answer);
    }
    answers
}

/// Sends a request and reads the whole answer without keeping it. Returns its [`name`].
async fn outcome(request: RequestBuilder) -> String {
    let Ok(mut answer) = request.send().await else { return "no answer".to_owned() };
    let name = name(&answer);
    loop {
        match answer.chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => return name,
            Err(_) => return format!("{name}, broken off"),
        }
    }
}

/// The status and the error code of an answer, such as `503 busy`.
pub(super) fn name(answer: &Response) -> String {
    let code = answer.headers().get("x-error-code").and_then(|code| code.to_str().ok());
    code.map_or_else(|| answer.status().as_u16().to_string(), |code| format!("{} {code}", answer.status().as_u16()))
}
