//! `GET /api/quota`: what the caller may still have drawn today.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;

use super::{answers, rate_limit};
use crate::app::App;
use crate::error::Problem;
use crate::spending::Day;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// `null` without a quota, as the rest then is.
    limit: Option<u32>,
    used: Option<u32>,
    remaining: Option<u32>,
    #[serde(with = "time::serde::rfc3339::option")]
    resets_at: Option<OffsetDateTime>,
}

pub(super) async fn handle(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let caller = app.callers.identify(&headers);
    let now = (app.clock)();
    let standing = app.generations.standing(&caller, Day::of(now)).await;
    let standing = standing.map_err(|error| Problem::records_unavailable(&error))?;
    let mut response = answers::json(&Answer {
        limit: standing.map(|standing| standing.limit),
        used: standing.map(|standing| standing.used),
        remaining: standing.map(|standing| standing.remaining()),
        resets_at: standing.map(|standing| standing.resets_at),
    });
    rate_limit::insert(response.headers_mut(), app.generations.daily_images(), standing, now);
    Ok(response)
}
