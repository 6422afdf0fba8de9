//! `GET /api/getChatGPTSuggestion`: an idea for a prompt, always.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderValue;
use axum::response::Response;

use crate::app::App;
use crate::suggest::{Source, suggest};

pub(super) async fn handle(State(app): State<Arc<App>>) -> Response {
    let suggestion = suggest(&app).await;
    let source = match suggestion.source {
        Source::Model => "model",
        Source::BuiltIn => "built-in",
    };
    let mut response = super::text(suggestion.text);
    response.headers_mut().insert("x-suggestion-source", HeaderValue::from_static(source));
    response
}
