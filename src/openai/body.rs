//! Reads the bodies of the provider's responses, each with a size limit.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use reqwest::{Response, header};

use super::error::Error;
use super::memory::Room;

/// The largest image, in bytes.
pub(super) const MAX_IMAGE_BYTES: usize = 64 * 1024 * 1024;
/// The largest answer with an image, in bytes: [`MAX_IMAGE_BYTES`] in base64, and 1 MiB for the other fields.
pub(super) const MAX_ANSWER_BYTES: usize = MAX_IMAGE_BYTES / 3 * 4 + 1024 * 1024;
/// The largest body without an image or a text, in bytes: an error, a model, a moderation result.
pub(super) const MAX_ERROR_BYTES: usize = 64 * 1024;

/// The most memory that is taken for a body before its bytes arrive.
const MAX_CAPACITY: usize = 1024 * 1024;

/// Reads a body of at most `limit` bytes. One that may be large waits for room.
///
/// # Errors
/// `BadAnswer` for a larger body, and a broken connection.
pub(super) async fn read_body(response: Response, limit: usize, mut room: Option<&mut Room>) -> Result<Bytes, Error> {
    let announced = response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limit) {
        return Err(Error::BadAnswer("the body is too large"));
    }
    let announced = announced.unwrap_or(0);
    let mut body = BytesMut::with_capacity(announced.min(MAX_CAPACITY));
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(Error::from_reading)?;
        if body.len() + chunk.len() > limit {
            return Err(Error::BadAnswer("the body is too large"));
        }
        let length = body.len() + chunk.len();
        if let Some(room) = &mut room
            && length > MAX_CAPACITY
        {
            room.grow_to(length.max(announced)).await;
            body.reserve(length.max(announced) - body.len());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// Reads an unsuccessful response as an [`Error`].
pub(super) async fn read_error(response: Response) -> Error {
    let (status, headers) = (response.status(), response.headers().clone());
    let body = read_body(response, MAX_ERROR_BYTES, None).await.unwrap_or_default();
    Error::from_answer(status, &headers, &body)
}
