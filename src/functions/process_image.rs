//! `POST /processImage` and `/processImagePoison`: what the queue triggers. The host sends its
//! envelope, `{"Data": {"job": MESSAGE}, "Metadata": {…}}`, and the message as JSON once or twice
//! encoded (<https://learn.microsoft.com/azure/azure-functions/functions-custom-handlers>).

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use crate::app::App;
use crate::error::Problem;
use crate::work;

const MAX_ENVELOPE: usize = 1024 * 1024;

pub(super) async fn deliver(State(app): State<Arc<App>>, body: Body) -> Response {
    match job(body).await {
        Some(id) => answer(work::deliver(&app, &id).await),
        None => answer(Ok(())),
    }
}

pub(super) async fn give_up(State(app): State<Arc<App>>, body: Body) -> Response {
    match job(body).await {
        Some(id) => answer(work::give_up(&app, &id).await),
        None => answer(Ok(())),
    }
}

/// The job that a message is about. One that is not ours is dropped: no number of deliveries makes it
/// so.
async fn job(body: Body) -> Option<String> {
    let bytes = to_bytes(body, MAX_ENVELOPE).await.unwrap_or_default();
    let envelope: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut message = envelope["Data"]["job"].clone();
    // Twice by the host's source, once by its documentation.
    for _ in 0..3 {
        if let Value::String(text) = &message {
            message = serde_json::from_str(text).unwrap_or_default();
        }
    }
    let id = message["job"].as_str().map(str::to_owned);
    if id.is_none() {
        tracing::warn!("a message in the queue is not ours; it is dropped");
    }
    id
}

/// An empty answer would have the host wait until the function's time is up.
fn answer(delivered: Result<(), Problem>) -> Response {
    match delivered {
        Ok(()) => super::json(&json!({})),
        Err(problem) => problem.into_response(),
    }
}
