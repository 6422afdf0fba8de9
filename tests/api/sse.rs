//! A reader of server-sent events.

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use reqwest::Response;
use serde_json::Value;

use crate::contract;

/// One event or one comment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Sent {
    Event(String, Value),
    Comment,
}

/// The events of an answer.
pub(crate) struct Events {
    chunks: BoxStream<'static, reqwest::Result<Bytes>>,
    text: String,
}

impl Events {
    pub(crate) fn of(answer: Response) -> Self {
        assert_eq!(answer.status(), 200);
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        assert_eq!(answer.headers()["cache-control"], "no-store");
        Self { chunks: answer.bytes_stream().boxed(), text: String::new() }
    }

    /// The next event or comment; `None` at the end.
    pub(crate) async fn sent(&mut self) -> Option<Sent> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                return Some(match field("event:") {
                    None => Sent::Comment,
                    Some(name) => {
                        let data = serde_json::from_str(field("data:").expect("data")).expect("JSON");
                        contract::check_event(name, &data);
                        Sent::Event(name.to_owned(), data)
                    }
                });
            }
            let chunk = self.chunks.next().await?.expect("the stream does not break");
            self.text.push_str(std::str::from_utf8(&chunk).expect("a chunk of whole UTF-8 characters"));
        }
    }

    /// The next event; comments are skipped.
    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            match self.sent().await? {
                Sent::Event(name, data) => return Some((name, data)),
                Sent::Comment => {}
            }
        }
    }

    /// The next event of this name; other events are skipped.
    pub(crate) async fn until(&mut self, wanted: &str) -> Value {
        loop {
            let (name, data) = self.next().await.unwrap_or_else(|| panic!("the stream ended without {wanted}"));
            if name == wanted {
                return data;
            }
        }
    }

    /// All remaining events.
    pub(crate) async fn rest(&mut self) -> Vec<(String, Value)> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push(event);
        }
        all
    }
}
