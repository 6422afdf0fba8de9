//! Validators of answers that clients keep (RFC 9110, section 8.8.3).

use axum::http::{HeaderMap, header};

use crate::digest::sha256_128;

/// A strong validator of a body.
pub(super) fn of(body: &[u8]) -> String {
    format!("\"{}\"", sha256_128(body))
}

/// Whether `If-None-Match` names this validator, by the weak comparison.
pub(super) fn is_named(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}
