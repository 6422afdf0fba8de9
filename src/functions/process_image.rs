//! `POST /processImage` and `/processImagePoison`: what the queue triggers. The host sends its
//! envelope, `{"Data": {"job": MESSAGE}, "Metadata": {…}}`, and the message as JSON once or twice
//! encoded (<https://learn.microsoft.com/azure/azure-functions/functions-custom-handlers>).

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::answers;
use crate::app::App;
use crate::error::Problem;
use crate::generation::{Message, NotDelivered};

/// The queue that `processImage/function.json` listens to.
pub(super) const QUEUE: &str = crate::generation::QUEUE;
/// Where the host puts what was delivered in vain.
pub(super) const POISON_QUEUE: &str = "visionary-jobs-poison";

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

/// What a message says. One that is not ours is dropped: no number of deliveries makes it so.
async fn message(body: Body) -> Option<Message> {
    let bytes = to_bytes(body, MAX_ENVELOPE).await.unwrap_or_default();
    let envelope: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut message = envelope["Data"]["job"].clone();
    // Twice by the host's source, once by its documentation.
    for _ in 0..3 {
        if let Value::String(text) = &message {
            message = serde_json::from_str(text).unwrap_or_default();
        }
    }
    let message = serde_json::from_value(message).ok();
    if message.is_none() {
        tracing::warn!("a message in the queue is not ours; it is dropped");
    }
    message
}

/// An empty answer would have the host wait until the function's time is up.
fn answer(delivered: Result<(), NotDelivered>) -> Response {
    match delivered {
        Ok(()) => answers::json(&json!({})),
        Err(error) => Problem::from(error).into_response(),
    }
}
