//! Reads the bodies of requests. A slow client cannot hold many connections, and no body much memory.

use std::time::Duration;

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use futures_util::{Stream, StreamExt as _};
use tokio::time::{Instant, timeout_at};

/// The time for a whole body.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The time for the first byte.
const FIRST_BYTE_WITHIN: Duration = Duration::from_secs(5);
/// A body that is not complete after this time needs a slot.
const SLOW_AFTER: Duration = Duration::from_secs(2);
/// A body with more bytes needs a slot.
const LONG_BYTES: usize = 64 * 1024;
/// How many bytes of a refused body are read and thrown away, and for how long.
const DISCARDED_BYTES: usize = 1024 * 1024;
const DISCARD_WITHIN: Duration = Duration::from_secs(2);

/// Why a body was not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotRead {
    /// It has more bytes than the limit.
    TooLarge,
    /// It did not arrive in time.
    Late,
    /// The connection broke, or the body is not valid HTTP.
    Broken,
    /// It is slow or long, and no slot is free.
    NoSlot,
}

/// Reads a body of at most `limit` bytes. A body that is slow or long must take a slot with `take`, which is held
/// until the body has been read.
pub(super) async fn read<T>(body: Body, limit: usize, take: impl FnOnce() -> Option<T>) -> Result<Bytes, NotRead> {
    let began = Instant::now();
    let slow_at = began + SLOW_AFTER;
    let (mut take, mut _slot) = (Some(take), None);
    let mut frames = body.into_data_stream();
    // Each frame is copied: a frame of one byte keeps the connection's buffer of 8 KiB in memory.
    let mut bytes = BytesMut::new();
    loop {
        let end = began + if bytes.is_empty() { FIRST_BYTE_WITHIN } else { TIMEOUT };
        let until = if take.is_some() { end.min(slow_at) } else { end };
        match timeout_at(until, frames.next()).await {
            Ok(None) => return Ok(bytes.freeze()),
            Ok(Some(frame)) => {
                let frame = frame.map_err(|_| NotRead::Broken)?;
                if bytes.len() + frame.len() > limit {
                    discard(frames).await;
                    return Err(NotRead::TooLarge);
                }
                bytes.extend_from_slice(&frame);
            }
            Err(_) if until == end => return Err(NotRead::Late),
            Err(_) => {}
        }
        if (bytes.len() > LONG_BYTES || Instant::now() >= slow_at)
            && let Some(take) = take.take()
        {
            _slot = Some(take().ok_or(NotRead::NoSlot)?);
        }
    }
}

/// Reads the rest of a body that is refused. A client that is still sending when the connection closes may lose
/// the answer (<https://www.rfc-editor.org/rfc/rfc9112#section-9.6>).
pub(super) async fn discard(mut frames: impl Stream<Item = Result<Bytes, axum::Error>> + Unpin) {
    let until = Instant::now() + DISCARD_WITHIN;
    let mut discarded = 0;
    while let Ok(Some(Ok(frame))) = timeout_at(until, frames.next()).await {
        discarded += frame.len();
        if discarded > DISCARDED_BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use futures_util::stream;

    use super::*;

    /// A frame that counts while it is in memory.
    struct Frame {
        _counted: Arc<()>,
    }

    impl AsRef<[u8]> for Frame {
        fn as_ref(&self) -> &[u8] {
            b"a"
        }
    }

    /// A body that sends each text after the pause before it.
    fn body(pauses: &[(u64, usize)]) -> Body {
        let frames = pauses.to_vec();
        Body::from_stream(stream::iter(frames).then(|(seconds, length)| async move {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            Ok::<_, Infallible>(Bytes::from(vec![b'a'; length]))
        }))
    }

    #[tokio::test]
    async fn bytes_that_arrive_one_by_one_keep_no_buffer_in_memory() {
        let count = Arc::new(());
        let frames = (0..1_000).map({
            let count = Arc::clone(&count);
            move |_| Ok::<_, Infallible>(Bytes::from_owner(Frame { _counted: Arc::clone(&count) }))
        });
        let last = stream::once({
            let count = Arc::clone(&count);
            async move {
                // One is the test's and two are the streams': no frame is left.
                assert!(Arc::strong_count(&count) <= 4, "{} frames are in memory", Arc::strong_count(&count));
                Ok::<_, Infallible>(Bytes::new())
            }
        });
        let frames = Body::from_stream(stream::iter(frames).chain(last));

        let bytes = read(frames, 1_000, || Some(())).await.expect("the body is complete");

        assert_eq!(bytes.len(), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_a_limit_and_times_for_its_first_byte_and_its_end() {
        let began = Instant::now();
        assert_eq!(read(body(&[(0, 11)]), 10, || Some(())).await, Err(NotRead::TooLarge));
        assert_eq!(read(body(&[(0, 10)]), 10, || Some(())).await.map(|bytes| bytes.len()), Ok(10));
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(read(body(&[(0, 11), (9, 1)]), 10, || Some(())).await, Err(NotRead::TooLarge));
        assert_eq!(began.elapsed(), DISCARD_WITHIN, "the rest of a body that is too large is read for a while");

        let began = Instant::now();
        assert_eq!(read(body(&[(60, 1)]), 10, || Some(())).await, Err(NotRead::Late));
        assert_eq!(began.elapsed(), FIRST_BYTE_WITHIN);

        let began = Instant::now();
        assert_eq!(read(body(&[(1, 1); 60]), 100, || Some(())).await, Err(NotRead::Late));
        assert_eq!(began.elapsed(), TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_slow_or_long_needs_a_slot_and_another_one_does_not() {
        let limit = 10 * LONG_BYTES;
        let refuse = || None::<()>;
        assert_eq!(read(body(&[(1, LONG_BYTES)]), limit, refuse).await.map(|bytes| bytes.len()), Ok(LONG_BYTES));
        assert_eq!(read(body(&[(0, LONG_BYTES), (0, 1)]), limit, refuse).await, Err(NotRead::NoSlot));
        assert_eq!(read(body(&[(1, 1); 4]), limit, refuse).await, Err(NotRead::NoSlot));
        assert_eq!(read(body(&[(3, 1)]), limit, || Some(())).await.map(|bytes| bytes.len()), Ok(1));
    }
}
