//! Refuses what a page on another site sends for a signed-in user. A browser adds the user's cookies to each such
//! request, and generateImage takes any content type, so no preflight protects it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::app::App;
use crate::error::Problem;

/// Where a browser says who sends a request (<https://www.w3.org/TR/fetch-metadata/>). A page cannot change it.
const FETCH_SITE: &str = "sec-fetch-site";

pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_cross_site = headers.get_all(FETCH_SITE).iter().any(|site| site.as_bytes() == b"cross-site");
    let changes_something = !request.method().is_safe();
    if app.authentication && changes_something && is_cross_site {
        let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
        if !app.web.allowed_origins.iter().any(|allowed| Some(allowed.as_str()) == origin) {
            return Problem::cross_site().into_response();
        }
    }
    next.run(request).await
}
