//! `POST /processImage` and `/processImagePoison`: the queue-triggered functions. The host sends
//! `{"Data": {"job": MESSAGE}, "Metadata": {…}}`, in which the message is a JSON string, encoded once
//! or twice (<https://learn.microsoft.com/azure/azure-functions/functions-custom-handlers>).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::{answers, body};
use crate::app::App;
use crate::error::Problem;
use crate::generation::{Message, NotDelivered};

/// The queue that `processImage/function.json` listens to.
pub(super) const QUEUE: &str = crate::generation::QUEUE;
/// The queue to which the host moves a message after five failed deliveries.
pub(super) const POISON_QUEUE: &str = "visionary-jobs-poison";

/// In bytes. A queue message has 64 KiB at most.
const MAX_ENVELOPE: usize = 1024 * 1024;

pub(super) async fn deliver(State(app): State<Arc<App>>, body: Body) -> Response {
    match message(body).await {
        Some(message) => answer(app.generations.deliver(message).await),
        None => answer(Ok(())),
    }
}

pub(super) async fn give_up(State(app): State<Arc<App>>, body: Body) -> Response {
    match message(body).await {
        Some(message) => answer(app.generations.give_up(message).await),
        None => answer(Ok(())),
    }
}

/// Parses a message. A malformed message is dropped, because another delivery cannot repair it.
async fn message(body: Body) -> Option<Message> {
    let bytes = body::read(body, MAX_ENVELOPE, || Some(())).await.unwrap_or_default();
    let envelope: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut message = envelope["Data"]["job"].clone();
    // The host's documentation says that the message is encoded once; its source encodes it twice.
    for _ in 0..3 {
        if let Value::String(text) = &message {
            message = serde_json::from_str(text).unwrap_or_default();
        }
    }
    let message = serde_json::from_value(message).ok();
    if message.is_none() {
        tracing::warn!(event = "message_malformed", "a queue message was not written by this app; it is dropped");
    }
    message
}

/// Always JSON: after an empty answer, the host would wait until the function times out.
fn answer(delivered: Result<(), NotDelivered>) -> Response {
    match delivered {
        Ok(()) => answers::json(&json!({})),
        Err(error) => Problem::from(error).into_response(),
    }
}
