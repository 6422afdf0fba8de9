//! What a test has the stand-in do instead of answering as usual.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

/// One answer, or the lack of one.
#[derive(Clone)]
pub struct Reply {
    pub(super) canned: Option<(StatusCode, &'static str, Bytes)>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) delay: Duration,
    pub(super) hold: Option<Hold>,
    pub(super) partials_hold: Option<Hold>,
    pub(super) fault: Fault,
    pub(super) patch: Option<Patch>,
}

/// Changes the usual answer's JSON.
type Patch = Arc<dyn Fn(&mut Value) + Send + Sync>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Hang,
    CutBeforeAnswer,
    CutAfterHeaders,
    CutInsideBody,
    Endless,
}

impl Reply {
    /// The usual answer, to be combined with what follows.
    pub fn normal() -> Self {
        Self {
            canned: None,
            headers: Vec::new(),
            delay: Duration::ZERO,
            hold: None,
            partials_hold: None,
            fault: Fault::None,
            patch: None,
        }
    }

    /// A status and JSON.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::canned(status, "application/json", body.to_string().into())
    }

    /// A status and a body of any type, a proxy's page for example.
    pub fn body(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self::canned(status, content_type, body.into())
    }

    /// An error in OpenAI's shape.
    pub fn error(status: u16, kind: &str, code: &str, message: &str) -> Self {
        let error = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
        Self::json(status, &error)
    }

    fn canned(status: u16, content_type: &'static str, body: Bytes) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { canned: Some((status, content_type, body)), ..Self::normal() }
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    /// Answers later.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Answers once the hold is released.
    pub fn held_by(mut self, hold: &Hold) -> Self {
        self.hold = Some(hold.clone());
        self
    }

    /// Sends partial images once the hold is released.
    pub fn partials_held_by(mut self, hold: &Hold) -> Self {
        self.partials_hold = Some(hold.clone());
        self
    }

    /// Takes the request and never answers.
    pub fn hang(self) -> Self {
        Self { fault: Fault::Hang, ..self }
    }

    /// Closes the connection without a byte of an answer.
    pub fn cut_before_answer(self) -> Self {
        Self { fault: Fault::CutBeforeAnswer, ..self }
    }

    /// Sends the status and the headers, then closes the connection.
    pub fn cut_after_headers(self) -> Self {
        Self { fault: Fault::CutAfterHeaders, ..self }
    }

    /// Sends half of the body, then closes the connection.
    pub fn cut_inside_body(self) -> Self {
        Self { fault: Fault::CutInsideBody, ..self }
    }

    /// Sends the body and goes on sending.
    pub fn endless(self) -> Self {
        Self { fault: Fault::Endless, ..self }
    }

    /// Changes the usual answer's JSON.
    pub fn patch(mut self, patch: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.patch = Some(Arc::new(patch));
        self
    }
}

/// Keeps requests waiting until a test lets them go.
#[derive(Clone)]
pub struct Hold {
    waiting: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

impl Hold {
    /// Closed.
    pub fn new() -> Self {
        Self { waiting: watch::Sender::new(0), released: watch::Sender::new(false) }
    }

    /// Lets all go, now and later.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Resolves when so many requests wait, or have waited.
    pub async fn reached(&self, count: usize) {
        // The sender lives in `self`, so this cannot fail.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting >= count).await;
    }

    pub(super) async fn wait(&self) {
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _ = self.released.subscribe().wait_for(|released| *released).await;
    }
}

impl Default for Hold {
    fn default() -> Self {
        Self::new()
    }
}
