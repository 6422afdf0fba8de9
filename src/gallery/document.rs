//! A document that requests share: its bytes, its ETag, and its compressed form, made once.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::OnceCell;

use crate::digest::sha256_128;

/// A smaller document is not compressed: it fits into one packet.
const MIN_COMPRESSED: usize = 1_024;

/// A JSON document.
#[derive(Debug)]
pub(crate) struct Document {
    /// The JSON text.
    pub(crate) body: Bytes,
    /// The weak validator: the same for the plain and the compressed form
    /// (<https://www.rfc-editor.org/rfc/rfc9110#name-etag>).
    pub(crate) etag: String,
    /// The path of the next page.
    pub(crate) next: Option<String>,
    gzip: OnceCell<Option<Bytes>>,
}

impl Document {
    pub(crate) fn new(body: Bytes, next: Option<String>) -> Self {
        let etag = format!("W/\"{}\"", sha256_128(&body));
        Self { body, etag, next, gzip: OnceCell::new() }
    }

    /// The document in gzip; `None` if it is short.
    pub(crate) async fn gzip(&self) -> Option<Bytes> {
        let compress = || async {
            if self.body.len() < MIN_COMPRESSED {
                return None;
            }
            let body = self.body.clone();
            // A megabyte takes some 10 ms, in which a worker thread would serve nobody else.
            tokio::task::spawn_blocking(move || compressed(&body)).await.ok().flatten()
        };
        self.gzip.get_or_init(compress).await.clone()
    }
}

fn compressed(body: &[u8]) -> Option<Bytes> {
    // The fastest level: the tokens of the links repeat, and that is most of the text.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).ok()?;
    Some(encoder.finish().ok()?.into())
}
