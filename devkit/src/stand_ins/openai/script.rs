//! Scripted replies: other answers, delays and faults.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::LONGEST_WAIT;

/// A reply of the stand-in: an answer or a fault.
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

/// A change to the JSON of the normal answer.
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
    /// The normal answer, as a base for the methods below.
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

    /// A fixed answer: a status and JSON.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::canned(status, "application/json", body.to_string().into())
    }

    /// A fixed answer: a status and a body of any type, for example a proxy's error page.
    pub fn body(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self::canned(status, content_type, body.into())
    }

    /// A fixed answer: an error in OpenAI's format
    /// (<https://platform.openai.com/docs/guides/error-codes>).
    pub fn error(status: u16, kind: &str, code: &str, message: &str) -> Self {
        let error = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
        Self::json(status, &error)
    }

    fn canned(status: u16, content_type: &'static str, body: Bytes) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { canned: Some((status, content_type, body)), ..Self::normal() }
    }

    /// Adds a header to the answer.
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    /// Delays the answer.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Delays the answer until the hold is released.
    pub fn held_by(mut self, hold: &Hold) -> Self {
        self.hold = Some(hold.clone());
        self
    }

    /// Delays the partial images until the hold is released.
    pub fn partials_held_by(mut self, hold: &Hold) -> Self {
        self.partials_hold = Some(hold.clone());
        self
    }

    /// Reads the request and never answers.
    pub fn hang(self) -> Self {
        Self { fault: Fault::Hang, ..self }
    }

    /// Closes the connection before the answer.
    pub fn cut_before_answer(self) -> Self {
        Self { fault: Fault::CutBeforeAnswer, ..self }
    }

    /// Sends the status and the headers, and then closes the connection.
    pub fn cut_after_headers(self) -> Self {
        Self { fault: Fault::CutAfterHeaders, ..self }
    }

    /// Sends half of the body, and then closes the connection.
    pub fn cut_inside_body(self) -> Self {
        Self { fault: Fault::CutInsideBody, ..self }
    }

    /// Sends the body, and then more bytes without an end.
    pub fn endless(self) -> Self {
        Self { fault: Fault::Endless, ..self }
    }

    /// Changes the JSON of the normal answer.
    pub fn patch(mut self, patch: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        self.patch = Some(Arc::new(patch));
        self
    }
}

/// Holds replies back until a test releases them.
#[derive(Clone)]
pub struct Hold {
    waiting: watch::Sender<usize>,
    released: watch::Sender<bool>,
}

impl Hold {
    /// A hold that is not released.
    pub fn new() -> Self {
        Self { waiting: watch::Sender::new(0), released: watch::Sender::new(false) }
    }

    /// Releases all replies, the waiting ones and later ones.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Waits until `count` replies have reached the hold.
    ///
    /// # Panics
    /// After [`LONGEST_WAIT`], with the number of replies that have reached it.
    #[expect(clippy::panic, reason = "a test that waits in vain fails and says what it saw")]
    pub async fn reached(&self, count: usize) {
        let mut waiting = self.waiting.subscribe();
        if tokio::time::timeout(LONGEST_WAIT, waiting.wait_for(|waiting| *waiting >= count)).await.is_err() {
            panic!("waited {LONGEST_WAIT:?} for {count} replies at the hold; {} came", *self.waiting.borrow());
        }
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
