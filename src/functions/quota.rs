//! `GET /api/quota`: what the caller may still have drawn today.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Serialize;
use time::OffsetDateTime;

use super::rate_limit;
use crate::app::App;
use crate::error::Problem;
use crate::quota;

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
    let standing = app.quota.standing(&caller, (app.clock)()).await.map_err(quota::Error::from)?;
    let mut response = super::json(&Answer {
        limit: standing.map(|standing| standing.limit),
        used: standing.map(|standing| standing.used),
        remaining: standing.map(|standing| standing.remaining()),
        resets_at: standing.map(|standing| standing.resets_at),
    });
    rate_limit::insert(response.headers_mut(), app.quota.daily_images(), standing, (app.clock)());
    Ok(response)
}
