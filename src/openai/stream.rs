//! Reads a streamed answer: server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>)
//! whose data is JSON with a `type`
//! (<https://platform.openai.com/docs/api-reference/images-streaming>).

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use reqwest::Response;

use super::body::MAX_ANSWER_BYTES;
use super::error::Error;
use super::memory::{Memory, Room};

/// Splits a stream of bytes into the data of its events.
pub(super) struct Events<S> {
    chunks: S,
    buffer: BytesMut,
    /// The room of the buffer.
    room: Room,
    /// No event ends before this index of the buffer.
    searched: usize,
    /// The result to return after the last event, once the stream has ended.
    end: Option<Result<(), Error>>,
}

/// The events of a successful response.
pub(super) fn events(
    response: Response,
    memory: &Memory,
) -> Events<impl futures_util::Stream<Item = reqwest::Result<Bytes>> + Unpin> {
    Events {
        chunks: Box::pin(response.bytes_stream()),
        buffer: BytesMut::new(),
        room: memory.room(),
        searched: 0,
        end: None,
    }
}

impl<S: futures_util::Stream<Item = reqwest::Result<Bytes>> + Unpin> Events<S> {
    /// Returns the data of the next event, with the room that it takes; `None` at the end. The last event is returned even if its blank
    /// line is missing or the stream broke, because it may hold a paid image.
    pub(super) async fn next(&mut self) -> Result<Option<(Vec<u8>, Room)>, Error> {
        loop {
            if let Some(end) = self.end.take() {
                self.end = Some(Ok(()));
                return end.map(|()| None);
            }
            while let Some(end) = end_of_event(&self.buffer, self.searched) {
                let event = self.buffer.split_to(end);
                self.searched = 0;
                let data = data(&event);
                if self.buffer.is_empty() {
                    // Frees the memory of an image: the next chunk may take a minute.
                    self.buffer = BytesMut::new();
                }
                // Comments and events without data are skipped.
                let room = self.room.take();
                if !data.is_empty() {
                    return Ok(Some((data, room)));
                }
            }
            self.searched = self.buffer.len().saturating_sub(3);
            let chunk = match self.chunks.next().await {
                Some(Ok(chunk)) => chunk,
                end => {
                    self.end = Some(end.map_or(Ok(()), |end| end.map(|_| ()).map_err(Error::from_reading)));
                    let data = data(&std::mem::take(&mut self.buffer));
                    if !data.is_empty() {
                        return Ok(Some((data, self.room.take())));
                    }
                    continue;
                }
            };
            if self.buffer.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Error::BadAnswer("an event of the stream is too large"));
            }
            self.room.grow_to(self.buffer.len() + chunk.len()).await;
            self.buffer.extend_from_slice(&chunk);
        }
    }
}

/// The index after the blank line that ends the first event.
fn end_of_event(buffer: &[u8], from: usize) -> Option<usize> {
    (from..buffer.len()).find_map(|at| {
        let rest = &buffer[at..];
        [&b"\n\n"[..], b"\r\n\r\n", b"\r\r", b"\n\r\n"]
            .into_iter()
            .find(|end| rest.starts_with(end))
            .map(|end| at + end.len())
    })
}

/// The `data:` lines of an event, joined with line feeds.
fn data(event: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    for line in event.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let Some(value) = line.strip_prefix(b"data:") else { continue };
        if !data.is_empty() {
            data.push(b'\n');
        }
        data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_found_across_chunks_and_line_ends() {
        for text in [
            ": hello\n\nevent: a\ndata: {\"one\":\ndata: 1}\n\ndata:two\n\n\nid: 7\n\ndata: cut off",
            ": hello\r\n\r\nevent: a\r\ndata: {\"one\":\r\ndata: 1}\r\n\r\ndata:two\r\n\r\n\r\nid: 7\r\n\r\ndata: cut off",
        ] {
            for size in 1..=text.len() {
                let chunks: Vec<_> =
                    text.as_bytes().chunks(size).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
                let chunks = futures_util::stream::iter(chunks);
                let room = Memory::default().room();
                let mut events = Events { chunks, buffer: BytesMut::new(), room, searched: 0, end: None };
                let mut found = Vec::new();
                while let Some((data, _)) = events.next().await.expect("the stream does not break") {
                    found.push(String::from_utf8(data).expect("text"));
                }
                assert_eq!(found, ["{\"one\":\n1}", "two", "cut off"], "in pieces of {size}");
            }
        }
    }
}
