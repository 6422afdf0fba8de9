//! `POST /images/generations`: a prompt becomes a picture.

use std::borrow::Cow;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use reqwest::Url;
use serde::Deserialize;

use super::family::{Body, Family, InvalidWish, Wishes};
use super::{Error, MAX_ANSWER_BYTES, MAX_IMAGE_BYTES, OpenAi, read_body};
use crate::config::is_loopback;
use crate::image::Image;
use crate::prompt::Prompt;

/// A request for one picture that the model will understand.
#[derive(Debug)]
pub struct Drawing {
    body: Body,
}

/// A picture, and what the provider said about it.
#[derive(Debug)]
pub struct Drawn {
    /// The picture.
    pub image: Image,
    /// The model that drew it.
    pub model: String,
    /// The prompt as the provider rewrote it, if it did.
    pub revised_prompt: Option<String>,
    /// The size, as the provider names it, else as it was asked for.
    pub size: String,
    /// The quality, likewise; `auto` where neither side named one.
    pub quality: String,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    data: Vec<Item<'a>>,
    size: Option<String>,
    quality: Option<String>,
}

#[derive(Deserialize)]
struct Item<'a> {
    // Borrowed: megabytes of base64 are decoded from where they were received.
    #[serde(borrow)]
    b64_json: Option<Cow<'a, str>>,
    url: Option<String>,
    revised_prompt: Option<String>,
}

impl OpenAi {
    /// Puts a request together without sending anything.
    ///
    /// # Errors
    /// A wish that the configured model cannot fulfil.
    pub fn plan(&self, prompt: &Prompt, wishes: &Wishes) -> Result<Drawing, InvalidWish> {
        let model = &self.config.image_model;
        Ok(Drawing { body: Family::of(model, self.config.image_wire).body(model, prompt, wishes)? })
    }

    /// Has the picture drawn, and fetches it where the provider answers with a URL. This costs money.
    ///
    /// # Errors
    /// See [`Error`]; after `Timeout` and `LostAnswer` the picture may have been drawn and billed.
    pub async fn draw(&self, drawing: &Drawing) -> Result<Drawn, Error> {
        let time_is_up = tokio::time::sleep(self.config.timeout);
        tokio::select! {
            drawn = self.draw_and_fetch(&drawing.body) => drawn,
            () = time_is_up => Err(Error::Timeout),
        }
    }

    async fn draw_and_fetch(&self, request: &Body) -> Result<Drawn, Error> {
        let response = self.post("images/generations", request, self.config.timeout).await?;
        let answer = Picture::read(&read_body(response, MAX_ANSWER_BYTES).await?)?;
        let bytes = match answer.source {
            Source::Bytes(bytes) => bytes,
            Source::Url(url) => self.fetch(&url).await?,
        };
        let image = Image::recognise(bytes).map_err(|_| Error::BadAnswer("what it calls a picture is none"))?;
        Ok(Drawn {
            image,
            model: request.model.clone(),
            revised_prompt: answer.revised_prompt.filter(|prompt| !prompt.trim().is_empty()),
            size: answer.size.unwrap_or_else(|| request.size.clone()),
            quality: answer.quality.unwrap_or_else(|| request.quality.unwrap_or("auto").to_owned()),
        })
    }

    /// Fetches a picture from where the provider put it.
    async fn fetch(&self, url: &str) -> Result<Bytes, Error> {
        let url = Url::parse(url).map_err(|_| Error::BadAnswer("the picture's URL is malformed"))?;
        let local = url.scheme() == "http" && is_loopback(&url) && is_loopback(&self.config.base_url);
        if url.scheme() != "https" && !local {
            return Err(Error::BadAnswer("the picture's URL is not https"));
        }
        let request = self.http.get(url).timeout(self.config.timeout);
        let response = request.send().await.map_err(Error::from_sending)?;
        if !response.status().is_success() {
            return Err(Error::BadAnswer("the picture's URL does not lead to it"));
        }
        read_body(response, MAX_IMAGE_BYTES).await
    }
}

/// The useful part of an answer, no longer borrowed from it.
struct Picture {
    source: Source,
    revised_prompt: Option<String>,
    size: Option<String>,
    quality: Option<String>,
}

enum Source {
    Bytes(Bytes),
    Url(String),
}

impl Picture {
    fn read(body: &[u8]) -> Result<Self, Error> {
        let answer: Answer =
            serde_json::from_slice(body).map_err(|_| Error::BadAnswer("it is not the JSON we know"))?;
        let item = answer.data.into_iter().next().ok_or(Error::BadAnswer("it has no picture"))?;
        let source = match (item.b64_json, item.url) {
            (Some(text), _) => {
                let bytes = BASE64_STANDARD
                    .decode(text.as_bytes())
                    .map_err(|_| Error::BadAnswer("the picture is not base64"))?;
                Source::Bytes(bytes.into())
            }
            (None, Some(url)) => Source::Url(url),
            (None, None) => return Err(Error::BadAnswer("it has no picture")),
        };
        Ok(Self { source, revised_prompt: item.revised_prompt, size: answer.size, quality: answer.quality })
    }
}
