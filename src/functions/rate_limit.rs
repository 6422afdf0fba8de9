//! How a caller stands, in headers
//! (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/>).

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;

use crate::spending::QuotaStatus;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const DAY_SECONDS: u32 = 24 * 60 * 60;

/// Without a quota there is nothing to say; how the caller stands may not be known.
pub(super) fn insert(
    headers: &mut HeaderMap,
    daily_images: Option<u32>,
    quota_status: Option<QuotaStatus>,
    now: OffsetDateTime,
) {
    let policy = daily_images.map(|limit| (POLICY, format!("\"daily\";q={limit};w={DAY_SECONDS}")));
    let limit = quota_status.and_then(|quota_status| {
        // Rounded up: at the second that is told the day has begun.
        let resets_in = quota_status.resets_in(now)?.as_millis().div_ceil(1000);
        Some((LIMIT, format!("\"daily\";r={};t={resets_in}", quota_status.remaining())))
    });
    for (name, value) in policy.into_iter().chain(limit) {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
}
