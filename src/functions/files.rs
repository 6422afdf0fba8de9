//! Files that are part of the binary, compressed: those of the page, and the contract.

use std::io::Read as _;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use flate2::read::GzDecoder;

use crate::error::Problem;

/// A compressed file, decompressed for callers that do not accept gzip.
pub(super) fn content(content_type: &'static str, gzip: Bytes, is_gzip: bool) -> Result<Response, Problem> {
    let body = if is_gzip {
        gzip
    } else {
        let mut content = Vec::new();
        let read = GzDecoder::new(&*gzip).read_to_end(&mut content);
        read.map_err(|_| Problem::internal("a file of the binary cannot be decompressed"))?;
        content.into()
    };
    let mut response = ([(header::CONTENT_TYPE, content_type)], body).into_response();
    if is_gzip {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// The strong validator of a version of a file. Each content coding has its own
/// (<https://www.rfc-editor.org/rfc/rfc9110#section-8.8.3.3>).
pub(super) fn validator(version: &str, is_gzip: bool) -> String {
    format!("\"{version}{}\"", if is_gzip { "-gzip" } else { "" })
}
