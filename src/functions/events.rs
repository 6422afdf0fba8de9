//! A generation or a job as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>): `accepted`, `progress`,
//! `preview`, then `image` or `error`, then the end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{INVOCATION_ID, generate_image, jobs};
use crate::app::App;
use crate::error::Problem;
use crate::gallery::Gallery;
use crate::generate::{Answered, Error, Outcome, Running};
use crate::progress::Phase;
use crate::work;

/// Proxies close what is silent, the host after 240 s.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The host ends an invocation, and the whole process with it, after ten minutes: a client that
/// wants more comes back.
const LONGEST: Duration = Duration::from_secs(9 * 60);

/// Whether events reach the caller as they happen: not through a host in forwarding mode, which sends
/// an answer once it is whole. In proxying mode it says the invocation's id twice.
pub(super) fn pass_through(headers: &HeaderMap) -> bool {
    let last = headers.get_all(INVOCATION_ID).iter().next_back();
    last.is_none() || last == headers.get("x-ms-invocation-id")
}

/// The events of a generation, once it was let in; else the answer that it had without.
pub(super) async fn of_generation(mut running: Running, invocation_id: String) -> Result<Response, Answered> {
    let accepted = running.progress.wait_for(|progress| progress.accepted.is_some()).await.is_ok();
    let mut ended = None;
    if !accepted {
        // Its reporter is gone: it has ended, or will in a moment.
        let answered = (&mut running.answered).await.unwrap_or_else(|_| Error::Panicked.into());
        match answered {
            Answered { result: Ok(Outcome::Stored(_) | Outcome::StoredLater { .. }), .. } => ended = Some(answered),
            answered => return Err(answered),
        }
    }
    let watcher =
        Watcher { running, invocation_id, ended, told: Told::default(), waiting: VecDeque::new(), is_over: false };
    Ok(respond(stream::unfold(watcher, Watcher::next)))
}

/// What was told already.
#[derive(Default)]
struct Told {
    accepted: bool,
    phase: Option<Phase>,
    preview: Option<u64>,
}

struct Watcher {
    running: Running,
    invocation_id: String,
    ended: Option<Answered>,
    told: Told,
    waiting: VecDeque<Event>,
    is_over: bool,
}

impl Watcher {
    async fn next(mut self) -> Option<(Event, Self)> {
        loop {
            self.look();
            if let Some(event) = self.waiting.pop_front() {
                return Some((event, self));
            }
            if self.is_over {
                return None;
            }
            if let Some(answered) = self.ended.take() {
                self.is_over = true;
                let event = last(answered.result.map_err(Problem::from), &self.invocation_id);
                return Some((event, self));
            }
            let progress = &mut self.running.progress;
            tokio::select! {
                biased;
                changed = progress.changed(), if progress.has_changed().is_ok() => drop(changed),
                answered = &mut self.running.answered => {
                    self.ended = Some(answered.unwrap_or_else(|_| Error::Panicked.into()));
                }
            }
        }
    }

    /// Finds out what is new.
    fn look(&mut self) {
        let progress = self.running.progress.borrow_and_update().clone();
        let Some(accepted) = progress.accepted else { return };
        if !std::mem::replace(&mut self.told.accepted, true) {
            let estimate = accepted.estimate.map(|estimate| estimate.as_secs_f64().ceil());
            let data = json!({
                "name": accepted.name, "quotaRemaining": accepted.remaining, "estimateSeconds": estimate,
            });
            self.waiting.push_back(event("accepted", &data));
        }
        if self.told.phase != Some(progress.phase) {
            self.told.phase = Some(progress.phase);
            let elapsed = (progress.started.elapsed().as_secs_f64() * 10.0).round() / 10.0;
            self.waiting.push_back(event("progress", &json!({"phase": progress.phase, "elapsedSeconds": elapsed})));
        }
        if let Some(preview) = progress.preview.filter(|preview| self.told.preview != Some(preview.index)) {
            self.told.preview = Some(preview.index);
            self.waiting.push_back(event("preview", &json!({"index": preview.index, "image": &*preview.data_url})));
        }
    }
}

/// The events of a job, by whichever process it is worked on: looked up in the table.
pub(super) fn of_job(app: Arc<App>, id: String, invocation_id: String) -> Response {
    let watcher =
        JobWatcher { app: Arc::clone(&app), id, invocation_id, told: None, waiting: VecDeque::new(), is_over: false };
    let stopping = app.stopping.clone().cancelled_owned();
    respond(stream::unfold(watcher, JobWatcher::next).take_until(stopping))
}

struct JobWatcher {
    app: Arc<App>,
    id: String,
    invocation_id: String,
    told: Option<&'static str>,
    waiting: VecDeque<Event>,
    is_over: bool,
}

impl JobWatcher {
    async fn next(mut self) -> Option<(Event, Self)> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some((event, self));
            }
            if self.is_over {
                return None;
            }
            let now = (self.app.clock)();
            match work::look(&self.app, &self.id, now).await {
                Ok(Some(job)) => {
                    let elapsed = jobs::elapsed(&job, now);
                    if self.told.is_none() {
                        let name = Gallery::caption(&job.prompt);
                        let data = json!({"id": self.id, "name": name, "estimateSeconds": job.estimate});
                        self.waiting.push_back(event("accepted", &data));
                    }
                    if self.told != Some(job.status()) && job.end.is_none() {
                        let data = json!({"phase": job.phase, "elapsedSeconds": elapsed});
                        self.waiting.push_back(event("progress", &data));
                    }
                    self.told = Some(job.status());
                    if let Some(end) = job.end {
                        self.is_over = true;
                        let result = jobs::outcome(&self.app, job.prompt, end).await;
                        self.waiting.push_back(last(result, &self.invocation_id));
                    }
                }
                // Its time is over.
                Ok(None) => return None,
                // A look that failed is made again.
                Err(_) => {}
            }
            if self.waiting.is_empty() {
                tokio::time::sleep(jobs::LOOKED_AFTER).await;
            }
        }
    }
}

/// `image`, with what the JSON answer would have; or `error`, with a problem document.
fn last(result: Result<Outcome, Problem>, invocation_id: &str) -> Event {
    match result {
        Ok(outcome) => event("image", &generate_image::details(&outcome)),
        Err(problem) => {
            super::log_failure(&problem, invocation_id);
            event("error", &super::document(&problem, invocation_id))
        }
    }
}

fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}

fn respond(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let until = Instant::now() + LONGEST;
    let events = events.take_until(tokio::time::sleep_until(until)).map(Ok::<_, Infallible>);
    let mut response =
        Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("still here")).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
