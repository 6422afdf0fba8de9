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
    // Only a quota counts by digests of callers.
    if app.generations.daily_images().is_some() {
        app.digest_key_known().await.map_err(|error| Problem::records_unavailable(&error))?;
    }
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

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use time::macros::datetime;
    use tower::ServiceExt as _;

    use super::*;
    use crate::config::Config;
    use crate::functions::router;

    #[tokio::test(start_paused = true)]
    async fn without_a_key_of_digests_a_quota_is_unavailable_and_no_quota_needs_none() {
        for (images, wanted) in [("0", (200, None)), ("5", (503, Some("quota_unavailable")))] {
            let lookup = |name: &str| {
                let value = match name {
                    "OPENAI_API_KEY" => "key",
                    "AzureWebJobsStorage__accountName" => "account",
                    // Nothing listens there.
                    "IDENTITY_ENDPOINT" => "http://127.0.0.1:1/msi/token",
                    "IDENTITY_HEADER" => "header",
                    "IMAGE_CONTAINER" => "test-quota",
                    "DAILY_IMAGE_QUOTA" => images,
                    _ => return None,
                };
                Some(value.to_owned())
            };
            let config = Config::from_vars(lookup).expect("the settings are right");
            let app = App::new(&config, Arc::new(|| datetime!(2026-11-21 10:00 UTC))).expect("an app");
            let request = Request::get("/api/quota").body(Body::empty()).expect("a request");
            let response = router(Arc::new(app)).oneshot(request).await.expect("an answer");
            let code = response.extensions().get::<Problem>().map(|problem| problem.code.as_str());
            assert_eq!((response.status().as_u16(), code), wanted);
        }
    }
}
