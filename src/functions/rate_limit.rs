//! The caller's quota status as RateLimit headers
//! (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/>).

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;

use crate::spending::QuotaStatus;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const DAY_SECONDS: u32 = 24 * 60 * 60;

/// Adds `RateLimit-Policy` if there is a quota, and `RateLimit` if the caller's quota status is known.
pub(super) fn insert(
    headers: &mut HeaderMap,
    daily_images: Option<u32>,
    quota_status: Option<QuotaStatus>,
    now: OffsetDateTime,
) {
    let policy = daily_images.map(|limit| (POLICY, format!("\"daily\";q={limit};w={DAY_SECONDS}")));
    let limit = quota_status.and_then(|quota_status| {
        // Rounded up, so that the new day has begun after this number of seconds.
        let resets_in = quota_status.resets_in(now)?.as_millis().div_ceil(1000);
        Some((LIMIT, format!("\"daily\";r={};t={resets_in}", quota_status.remaining())))
    });
    for (name, value) in policy.into_iter().chain(limit) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}
