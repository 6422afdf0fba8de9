//! A document that requests share: its bytes, its ETag, and its compressed form, made once.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::OnceCell;

use super::bodies::Bodies;
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

    /// The document in gzip; `None` if it is short, or if `bodies` have no room for it.
    pub(crate) async fn gzip(&self, bodies: &Bodies) -> Option<Bytes> {
        let compress = || async {
            if self.body.len() < MIN_COMPRESSED {
                return None;
            }
            let body = self.body.clone();
            // A megabyte takes some 10 ms, in which a worker thread would serve nobody else.
            let compressed = tokio::task::spawn_blocking(move || compressed(&body)).await.ok().flatten()?;
            bodies.hold(compressed).ok()
        };
        self.gzip.get_or_init(compress).await.clone()
    }
}

fn compressed(body: &[u8]) -> Option<Vec<u8>> {
    // The fastest level: the tokens of the links repeat, and that is most of the text.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_compressed_form_counts_as_a_body_that_is_being_sent() {
        let bodies = Bodies::default();
        let rest = bodies.hold(vec![0; 60 * 1024 * 1024]).expect("it fits");
        // Random bytes do not compress.
        let random: Bytes = std::iter::repeat_with(|| fastrand::u8(..)).take(5 * 1024 * 1024).collect();

        assert!(Document::new(random.clone(), None).gzip(&bodies).await.is_none(), "60 and 5 MiB are more than 64");

        drop(rest);
        let document = Document::new(random, None);
        let gzip = document.gzip(&bodies).await.expect("there is room");
        assert!(bodies.hold(vec![0; 60 * 1024 * 1024]).is_err(), "the compressed form counts");
        drop((document, gzip));
        assert!(bodies.hold(vec![0; 60 * 1024 * 1024]).is_ok());
        assert!(Document::new(Bytes::from_static(b"{}"), None).gzip(&bodies).await.is_none(), "it is short");
    }
}
