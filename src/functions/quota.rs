//! `GET /api/quota`: the caller's quota status for the current UTC day.

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
    /// Images for each caller and day. All fields are `null` if there is no quota.
    limit: Option<u32>,
    used: Option<u32>,
    remaining: Option<u32>,
    #[serde(with = "time::serde::rfc3339::option")]
    resets_at: Option<OffsetDateTime>,
}

pub(super) async fn handle(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let caller = app.callers.identify(&headers);
    let now = (app.clock)();
    let quota_status = app.generations.quota_status(&caller, Day::of(now)).await;
    let quota_status = quota_status.map_err(|error| Problem::records_unavailable(&error))?;
    let mut response = answers::json(&Answer {
        limit: quota_status.map(|quota_status| quota_status.limit),
        used: quota_status.map(|quota_status| quota_status.used),
        remaining: quota_status.map(|quota_status| quota_status.remaining()),
        resets_at: quota_status.map(|quota_status| quota_status.resets_at),
    });
    rate_limit::insert(response.headers_mut(), app.generations.daily_images(), quota_status, now);
    Ok(response)
}
