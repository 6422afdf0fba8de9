//! `GET /api/openapi.json`, `/api/openapi-3.1.json` and `/api/openapi.yaml`: the contract of this API. It is
//! `openapi.yaml`; `build.rs` makes the views, compressed.

#[cfg(test)]
mod tests;
#[cfg(test)]
mod view;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use super::{accept, etag, files};
use crate::digest::sha256_128;
use crate::error::Problem;

/// The document changes only with a release.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");
const JSON: &str = "application/json";
/// RFC 9512.
const YAML: &str = "application/yaml";

pub(super) async fn json(headers: HeaderMap) -> Result<Response, Problem> {
    answer(&headers, JSON, include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json.gz")))
}

pub(super) async fn json_3_1(headers: HeaderMap) -> Result<Response, Problem> {
    answer(&headers, JSON, include_bytes!(concat!(env!("OUT_DIR"), "/openapi-3.1.json.gz")))
}

pub(super) async fn yaml(headers: HeaderMap) -> Result<Response, Problem> {
    answer(&headers, YAML, include_bytes!(concat!(env!("OUT_DIR"), "/openapi.yaml.gz")))
}

/// A document, or 304 for a caller that has it.
fn answer(headers: &HeaderMap, content_type: &'static str, gzip: &'static [u8]) -> Result<Response, Problem> {
    let is_gzip = accept::takes_gzip(headers);
    // Each content coding has a validator of its own (RFC 9110, section 8.8.3.3).
    let etag = files::validator(&sha256_128(gzip), is_gzip);
    let mut response = if etag::is_named(headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        files::content(content_type, Bytes::from_static(gzip), is_gzip)?
    };
    response.headers_mut().insert(header::CACHE_CONTROL, CACHE_CONTROL);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response.headers_mut().extend(HeaderValue::try_from(etag).map(|etag| (header::ETAG, etag)));
    Ok(response)
}
