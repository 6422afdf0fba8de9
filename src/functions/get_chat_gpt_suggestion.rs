//! `GET /api/getChatGPTSuggestion?style=&about=`: a suggested prompt. It never fails.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use super::answers;
use crate::app::App;
use crate::prompts::{Source, Topic};

pub(super) async fn handle(
    State(app): State<Arc<App>>,
    query: Result<Query<HashMap<String, String>>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    // A query that cannot be parsed is ignored.
    let mut query = query.map(|Query(query)| query).unwrap_or_default();
    let topic = Topic { style: query.remove("style"), about: query.remove("about") };
    let suggestion = app.suggestions.suggest(&topic, &app.callers.identify(&headers)).await;
    let source = match suggestion.source {
        Source::Model => "model",
        Source::BuiltIn => "built-in",
    };
    let mut response = answers::text(suggestion.text);
    response.headers_mut().insert("x-suggestion-source", HeaderValue::from_static(source));
    response
}
