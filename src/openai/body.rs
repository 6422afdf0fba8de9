//! Reading the provider's answers, none of them without a bound.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use reqwest::{Response, header};

use super::error::Error;

/// The largest image that is taken, in bytes.
pub(super) const MAX_IMAGE_BYTES: usize = 64 * 1024 * 1024;
/// The largest JSON answer: such an image in base64, and some room for the rest.
pub(super) const MAX_ANSWER_BYTES: usize = MAX_IMAGE_BYTES / 3 * 4 + 1024 * 1024;
/// An error's body is read for its code alone.
pub(super) const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Reads a body that may not be larger than `limit` bytes.
pub(super) async fn read_body(response: Response, limit: usize) -> Result<Bytes, Error> {
    let announced = response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limit) {
        return Err(Error::BadAnswer("its body is too large"));
    }
    let mut body = BytesMut::with_capacity(announced.unwrap_or(0));
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(Error::from_reading)?;
        if body.len() + chunk.len() > limit {
            return Err(Error::BadAnswer("its body is too large"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The error that an unsuccessful answer is.
pub(super) async fn read_error(response: Response) -> Error {
    let (status, headers) = (response.status(), response.headers().clone());
    let body = read_body(response, MAX_ERROR_BYTES).await.unwrap_or_default();
    Error::from_answer(status, &headers, &body)
}
