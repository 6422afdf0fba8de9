//! A generation as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>): `progress`, `accepted` and
//! `preview`, then `image` or `error` as the last event.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Span;

use super::answers::{self, INVOCATION_ID};
use crate::app::App;
use crate::caller::{Caller, Slot};
use crate::error::{self, Problem};
use crate::gallery::Gallery;
use crate::generation::{Order, Phase, Progress};

/// The interval of comments that keep the connection open. Proxies close idle connections, the host
/// after 240 s.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The longest stream. The host kills the process of an invocation that takes more than 10 minutes.
/// The client can reconnect.
const LONGEST: Duration = Duration::from_secs(9 * 60);

/// Whether the host streams answers. A host in forwarding mode buffers the whole answer; in proxying
/// mode it streams, and sends the invocation id in two headers.
pub(super) fn pass_through(headers: &HeaderMap) -> bool {
    let last = headers.get_all(INVOCATION_ID).iter().next_back();
    last.is_none() || last == headers.get("x-ms-invocation-id")
}

/// Counts one more stream of a caller, before anything is drawn for it.
///
/// # Errors
/// Too many streams are open.
pub(super) fn open(app: &App, caller: &Caller) -> Result<Slot, Problem> {
    app.streams
        .take(caller)
        .ok_or_else(|| Problem::busy("Too many event streams are open. Please close some, or try again in a moment."))
}

/// Streams the events of a generation until it has ended.
///
/// When the server stops, the stream of a generation that this process draws continues until the
/// generation ends. Other streams end at once; the client can reconnect to another process.
pub(super) fn respond(
    app: &Arc<App>,
    progress: watch::Receiver<Progress>,
    is_drawn_here: bool,
    stream: Slot,
    headers: &HeaderMap,
) -> Response {
    let mut watcher = Watcher {
        _stream: stream,
        app: Arc::clone(app),
        progress,
        invocation_id: answers::invocation_id(headers),
        span: Span::current(),
        sent: Sent::default(),
        waiting: VecDeque::new(),
    };
    if is_drawn_here {
        // Each stream begins with `queued`, even if the generation has already left that phase.
        let order = Arc::clone(&watcher.progress.borrow().order);
        watcher.push_phase(&order, Phase::Queued);
    }
    let until = Instant::now() + LONGEST;
    let stopping = app.generations.stopping.clone();
    let ends = async move {
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = stopping.cancelled(), if !is_drawn_here => {}
        }
    };
    let events = stream::unfold(watcher, Watcher::next).take_until(Box::pin(ends)).map(Ok::<_, Infallible>);
    let mut response =
        Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("still here")).into_response();
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The events that were already sent.
#[derive(Default)]
struct Sent {
    accepted: bool,
    phase: Option<Phase>,
    preview: Option<u64>,
    end: bool,
}

struct Watcher {
    _stream: Slot,
    app: Arc<App>,
    progress: watch::Receiver<Progress>,
    invocation_id: String,
    /// The request's span. The server reads the stream outside of it.
    span: Span,
    sent: Sent,
    /// Events to send.
    waiting: VecDeque<Event>,
}

impl Watcher {
    async fn next(mut self) -> Option<(Event, Self)> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some((event, self));
            }
            if self.sent.end {
                return None;
            }
            self.push_new().await;
            if self.waiting.is_empty() && self.progress.changed().await.is_err() {
                // The sender of the progress has stopped. The client can reconnect.
                return None;
            }
        }
    }

    /// Queues the events for all changes since the last call.
    async fn push_new(&mut self) {
        let progress = self.progress.borrow_and_update().clone();
        let order = &progress.order;
        if let Some(accepted) = progress.accepted.as_ref().filter(|_| !self.sent.accepted) {
            self.sent.accepted = true;
            let data = json!({
                "id": order.address,
                "statusUrl": answers::job_path(&order.address),
                "name": Gallery::caption(&order.prompt),
                "quotaRemaining": accepted.quota_status.map(|quota_status| quota_status.remaining()),
                "estimateSeconds": order.estimate,
            });
            self.waiting.push_back(event("accepted", &data));
        }
        if progress.ended.is_none() && self.sent.phase != Some(progress.phase) {
            self.push_phase(order, progress.phase);
        }
        if let Some(preview) = progress.preview.as_ref().filter(|preview| self.sent.preview != Some(preview.index)) {
            self.sent.preview = Some(preview.index);
            self.waiting.push_back(event("preview", &json!({"index": preview.index, "image": &*preview.data_url})));
        }
        if let Some(ended) = &progress.ended {
            self.sent.end = true;
            self.waiting.push_back(match answers::image(&self.app, &order.prompt, ended).await {
                Ok(image) => event("image", &image.json),
                Err(problem) => self.failure(&problem),
            });
        }
    }

    fn push_phase(&mut self, order: &Order, phase: Phase) {
        self.sent.phase = Some(phase);
        let elapsed = ((self.app.clock)() - order.created_at).as_seconds_f64().max(0.0);
        let elapsed = (elapsed * 10.0).round() / 10.0;
        self.waiting.push_back(event("progress", &json!({"phase": phase, "elapsedSeconds": elapsed})));
    }

    fn failure(&self, problem: &Problem) -> Event {
        self.span.in_scope(|| error::log(problem));
        event("error", &answers::document(problem, &self.invocation_id))
    }
}

fn event(name: &str, data: &Value) -> Event {
    Event::default().event(name).data(data.to_string())
}
