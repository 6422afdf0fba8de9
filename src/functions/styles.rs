//! `GET /api/styles`: the style presets that generateImage's `style` can name.

use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::json;

use super::answers;
use crate::prompts::enhance::STYLES;

/// The presets change only with a release.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=3600");

pub(super) async fn handle() -> Response {
    let mut response = answers::json(&json!({"styles": STYLES}));
    response.headers_mut().insert(header::CACHE_CONTROL, CACHE_CONTROL);
    response
}
