//! The provider's answer to a request for an image, whole or as an event of a stream.

use std::borrow::Cow;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::error::Error;
use super::memory::Room;
use crate::spending::Usage;

/// The longest size or quality, in characters. A longer text of the provider is cut, because a row of the state table
/// has 1 MiB.
const MAX_NAME: usize = 50;
/// The longest revised prompt, in characters: as long as the longest prompt.
const MAX_REVISED_PROMPT: usize = 32_000;

/// A whole answer.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    data: Vec<Item<'a>>,
    // A field of an unexpected type is ignored, so that it cannot make the paid image unreadable.
    #[serde(default, deserialize_with = "text")]
    size: Option<String>,
    #[serde(default, deserialize_with = "text")]
    quality: Option<String>,
    usage: Option<Value>,
}

/// An image in an answer.
#[derive(Deserialize)]
pub(super) struct Item<'a> {
    #[serde(borrow)]
    pub(super) b64_json: Option<Base64<'a>>,
    pub(super) url: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) revised_prompt: Option<String>,
}

/// One event of a streamed answer.
#[derive(Deserialize)]
pub(super) struct Event<'a> {
    #[serde(borrow)]
    pub(super) r#type: Option<Cow<'a, str>>,
    pub(super) error: Option<Value>,
    pub(super) partial_image_index: Option<Value>,
    #[serde(borrow)]
    pub(super) b64_json: Option<Base64<'a>>,
    #[serde(default, deserialize_with = "text")]
    pub(super) revised_prompt: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) size: Option<String>,
    #[serde(default, deserialize_with = "text")]
    pub(super) quality: Option<String>,
    pub(super) usage: Option<Value>,
}

/// A base64 text, borrowed from the answer: it has megabytes. Serde would copy the text if the field were an
/// `Option<Cow<str>>`.
#[derive(Deserialize)]
pub(super) struct Base64<'a>(#[serde(borrow)] Cow<'a, str>);

impl Base64<'_> {
    /// The bytes that the text stands for.
    ///
    /// # Errors
    /// The text is not base64.
    pub(super) fn decode(&self) -> Result<Vec<u8>, Error> {
        BASE64_STANDARD.decode(self.0.as_bytes()).map_err(|_| Error::BadAnswer("the image is not base64"))
    }
}

/// Reads a string; a value of another type becomes `None`.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        _ => None,
    })
}

/// Reads `usage`. Without details, all input tokens count as text.
fn tokens(json: &Value) -> Option<Usage> {
    let details = &json["input_tokens_details"];
    let image_input = details["image_tokens"].as_u64().unwrap_or_default();
    let text_input =
        details["text_tokens"].as_u64().or_else(|| json["input_tokens"].as_u64()?.checked_sub(image_input));
    Some(Usage { text_input: text_input?, image_input, output: json["output_tokens"].as_u64()? })
}

/// Cuts a text of the provider at a number of characters.
fn cut(mut text: String, characters: usize) -> String {
    if let Some((at, _)) = text.char_indices().nth(characters) {
        text.truncate(at);
    }
    text
}

/// The data of an answer that is used, as owned values.
pub(super) struct Generated {
    pub(super) source: Source,
    pub(super) revised_prompt: Option<String>,
    pub(super) size: Option<String>,
    pub(super) quality: Option<String>,
    pub(super) usage: Option<Usage>,
}

pub(super) enum Source {
    Bytes(Bytes),
    Url(String),
}

impl Generated {
    pub(super) fn read(body: &[u8], room: Room) -> Result<Self, Error> {
        let answer: Answer =
            serde_json::from_slice(body).map_err(|_| Error::BadAnswer("the JSON has an unknown structure"))?;
        let item = answer.data.into_iter().next().ok_or(Error::BadAnswer("it contains no image"))?;
        Self::of(item, answer.size, answer.quality, answer.usage.as_ref(), room)
    }

    pub(super) fn of(
        item: Item<'_>,
        size: Option<String>,
        quality: Option<String>,
        usage: Option<&Value>,
        room: Room,
    ) -> Result<Self, Error> {
        let text = item.b64_json.filter(|text| !text.0.is_empty());
        let source = match (text, item.url) {
            (Some(text), _) => Source::Bytes(room.hold(text.decode()?)),
            (None, Some(url)) => Source::Url(url),
            (None, None) => return Err(Error::BadAnswer("it contains no image")),
        };
        Ok(Self {
            source,
            revised_prompt: item.revised_prompt.map(|prompt| cut(prompt, MAX_REVISED_PROMPT)),
            size: size.map(|size| cut(size, MAX_NAME)),
            quality: quality.map(|quality| cut(quality, MAX_NAME)),
            usage: usage.and_then(tokens),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::openai::memory::Memory;

    #[test]
    fn texts_of_the_provider_are_cut_between_characters() {
        let long = "\u{1F98A}".repeat(1_000_000);
        let answer = json!({
            "data": [{"b64_json": "AAAA", "revised_prompt": long}], "size": long, "quality": "low",
        });

        let read = Generated::read(answer.to_string().as_bytes(), Memory::default().room()).expect("an image");

        let characters = |text: Option<String>| text.map(|text| text.chars().count());
        assert_eq!(read.quality.as_deref(), Some("low"));
        assert_eq!(characters(read.revised_prompt), Some(MAX_REVISED_PROMPT));
        assert_eq!(characters(read.size), Some(MAX_NAME));
    }
}
