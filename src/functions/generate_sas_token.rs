//! `GET /api/generateSASToken`: a SAS token for the container. The host checks the function key first.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::accept::Accept;
use super::answers;
use crate::app::App;
use crate::error::Problem;

pub(super) async fn handle(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let token = app.gallery.container_token((app.clock)()).await?;
    Ok(match Accept::of(&headers) {
        Accept::Text => answers::text(token.sas_token),
        Accept::Json => answers::json(&token),
    })
}
