//! `GET /api/getImages`: all images, newest first, with links.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;

use super::answers;
use crate::app::App;
use crate::azure;
use crate::error::Problem;
use crate::gallery::{Listed, NoListing};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    image_urls: Vec<Listed>,
}

pub(super) async fn handle(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let listing = Arc::clone(&app);
    let body = app.listing.get(move || async move { list(&listing).await }).await?;
    Ok(answers::json_bytes(body))
}

/// Lists the container and writes the answer, once for all requests that came meanwhile.
async fn list(app: &App) -> Result<Bytes, NoListing> {
    app.bodies.check()?;
    let image_urls = app.gallery.list((app.clock)()).await?;
    let body = serde_json::to_vec(&Answer { image_urls }).map_err(|_| azure::Error::Malformed)?;
    Ok(app.bodies.hold(body)?)
}
