//! `GET /api/getImages`: all images, newest first, each with a link.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::answers;
use crate::app::App;
use crate::error::Problem;
use crate::gallery::Listed;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    image_urls: Vec<Listed>,
}

pub(super) async fn handle(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let image_urls = app.gallery.list((app.clock)()).await?;
    Ok(answers::json(&Answer { image_urls }))
}
