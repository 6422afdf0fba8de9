//! `POST /images/generations`: a prompt becomes an image.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::body::{MAX_ANSWER_BYTES, read_body};
use super::client::OpenAi;
use super::error::Error;
use super::family::{Body, Family, ImageOptions, InvalidOption};
use super::stream;
use crate::image::Image;
use crate::lock::locked;
use crate::logs::chain;
use crate::prompt::Prompt;
use crate::spending::{ImageSpec, Usage};

/// More are not asked for.
const MAX_PARTIAL_IMAGES: u64 = 3;
/// How often the provider is asked for one image at the most.
const MAX_TRIES: u32 = 3;
/// A try that has less than this part of `OPENAI_TIMEOUT_SECONDS` may end before its image does,
/// which is billed all the same.
const LEAST_PART_OF_THE_TIME: u32 = 2;

/// A request for one image that the model will understand.
#[derive(Debug)]
pub struct ImageRequest {
    /// For the configured model, then for each fallback.
    bodies: Vec<Body>,
    limit: usize,
}

/// An image, and what the provider said about it.
#[derive(Debug)]
pub struct Drawn {
    /// The image.
    pub image: Image,
    /// The model that drew it.
    pub model: String,
    /// The prompt as the provider rewrote it, if it did.
    pub revised_prompt: Option<String>,
    /// The size, as the provider names it, else as it was asked for.
    pub size: String,
    /// The quality, likewise; `auto` where neither side named one.
    pub quality: String,
    /// What it took, if the provider says so.
    pub usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    data: Vec<Item<'a>>,
    // Whatever what is said about an image looks like, it is no reason to lose the image.
    #[serde(default, deserialize_with = "text")]
    size: Option<String>,
    #[serde(default, deserialize_with = "text")]
    quality: Option<String>,
    usage: Option<Value>,
}

#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    b64_json: Option<Base64<'a>>,
    url: Option<String>,
    #[serde(default, deserialize_with = "text")]
    revised_prompt: Option<String>,
}

/// Of a streamed answer.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    r#type: Option<Cow<'a, str>>,
    error: Option<Value>,
    partial_image_index: Option<Value>,
    #[serde(borrow)]
    b64_json: Option<Base64<'a>>,
    #[serde(default, deserialize_with = "text")]
    revised_prompt: Option<String>,
    #[serde(default, deserialize_with = "text")]
    size: Option<String>,
    #[serde(default, deserialize_with = "text")]
    quality: Option<String>,
    usage: Option<Value>,
}

/// Is shown partial images, each with its number.
pub(crate) type Show<'a> = dyn Fn(u64, Image) + Send + Sync + 'a;

/// Borrowed: megabytes are decoded from where they were received. (In an `Option` itself, serde
/// would copy the text.)
#[derive(Deserialize)]
struct Base64<'a>(#[serde(borrow)] Cow<'a, str>);

/// A text, if it is one.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        _ => None,
    })
}

impl ImageRequest {
    /// What may be billed: one of these.
    pub(crate) fn specs(&self) -> impl Iterator<Item = ImageSpec<'_>> {
        self.bodies.iter().map(Body::spec)
    }

    /// What was ordered of a model: not what it says that it has drawn, which may be in other words.
    pub(crate) fn spec(&self, model: &str) -> Option<ImageSpec<'_>> {
        self.specs().find(|spec| spec.model == model)
    }

    /// The longest prompt that every model takes, in characters.
    pub(crate) fn prompt_limit(&self) -> usize {
        self.limit
    }

    /// The same with another prompt.
    pub(crate) fn with_prompt(&self, prompt: &str) -> Self {
        let bodies = self.bodies.iter().map(|body| body.with_prompt(prompt)).collect();
        Self { bodies, limit: self.limit }
    }

    /// The model that is asked first.
    pub(crate) fn model(&self) -> &str {
        self.bodies.first().map_or("", |body| &body.model)
    }
}

impl OpenAi {
    /// Puts a request together without sending anything.
    ///
    /// # Errors
    /// A wish that the configured model cannot fulfil.
    pub fn plan(&self, prompt: &Prompt, options: &ImageOptions) -> Result<ImageRequest, InvalidOption> {
        let family = |model: &str| Family::of(model, self.config.image_wire);
        let model = &self.config.image_model;
        let mut bodies = vec![family(model).body(model, prompt, options)?];
        for model in &self.config.image_fallbacks {
            // An image without the wish that a fallback cannot fulfil is better than none.
            let body = family(model).body(model, prompt, options);
            bodies.extend(body.or_else(|_| family(model).body(model, prompt, &ImageOptions::default())));
        }
        let limit = bodies.iter().map(|body| family(&body.model).max_prompt_characters()).min();
        Ok(ImageRequest { bodies, limit: limit.unwrap_or_default() })
    }

    /// Has the image drawn, and fetches it where the provider answers with a URL. This costs money.
    ///
    /// What was certainly not done is asked for again, three times in all, while half of
    /// `OPENAI_TIMEOUT_SECONDS` is left; a model that is gone makes way for the next fallback. A URL
    /// has its own time after that.
    ///
    /// # Errors
    /// See [`Error`]; after `Timeout` and `LostAnswer` the image may have been drawn and billed.
    pub async fn draw(&self, image_request: &ImageRequest, show: &Show<'_>) -> Result<Drawn, Error> {
        let deadline = Instant::now() + self.config.timeout;
        self.check()?;
        let drawing = self.draw_with_first_that_exists(image_request, show, deadline);
        let drawn = tokio::time::timeout_at(deadline.into(), drawing).await.unwrap_or(Err(Error::Timeout));
        if let Err(error) = &drawn {
            locked(&self.remembered).note(error, Instant::now());
        }
        let (body, generated) = drawn?;
        let bytes = match generated.source {
            Source::Bytes(bytes) => bytes,
            Source::Url(url) => self.fetch(&url).await?,
        };
        let image = Image::recognise(bytes).map_err(|_| Error::BadAnswer("what it calls an image is none"))?;
        Ok(Drawn {
            image,
            model: body.model.clone(),
            revised_prompt: generated.revised_prompt.filter(|prompt| !prompt.trim().is_empty()),
            size: generated.size.unwrap_or_else(|| body.size.clone()),
            quality: generated.quality.unwrap_or_else(|| body.quality.unwrap_or("auto").to_owned()),
            usage: generated.usage,
        })
    }

    /// The image, and the body that it was asked for with.
    async fn draw_with_first_that_exists<'a>(
        &self,
        image_request: &'a ImageRequest,
        show: &Show<'_>,
        deadline: Instant,
    ) -> Result<(&'a Body, Generated), Error> {
        let mut last = Error::BadAnswer("no model is configured");
        for (index, body) in image_request.bodies.iter().enumerate() {
            if index > 0 && !self.has_time_for_another(Duration::ZERO, deadline) {
                break;
            }
            last = match self.draw_patiently(body, show, deadline).await {
                Ok(image) => return Ok((body, image)),
                Err(error @ Error::ModelGone(_)) => error,
                Err(error) => return Err(error),
            };
            let setting = if index == 0 { "OPENAI_IMAGE_MODEL" } else { "OPENAI_IMAGE_FALLBACKS" };
            tracing::error!(setting, model = body.model, cause = chain(&last), "the provider does not have this model");
        }
        Err(last)
    }

    /// Whether a try after that pause may have its image in time.
    fn has_time_for_another(&self, pause: Duration, deadline: Instant) -> bool {
        pause + self.config.timeout / LEAST_PART_OF_THE_TIME <= deadline.saturating_duration_since(Instant::now())
    }

    async fn draw_patiently(&self, body: &Body, show: &Show<'_>, deadline: Instant) -> Result<Generated, Error> {
        let mut tries = 0;
        let mut body = Cow::Borrowed(body);
        loop {
            let error = match self.draw_once(&body, show).await {
                Ok(image) => return Ok(image),
                Err(Error::StreamRefused(_)) if body.streams() => {
                    body = Cow::Owned(body.into_owned().with_partial_images(0));
                    continue;
                }
                Err(error) => error,
            };
            tries += 1;
            match error.pause(tries - 1) {
                Some(pause) if tries < MAX_TRIES && self.has_time_for_another(pause, deadline) => {
                    tracing::warn!(cause = chain(&error), tries, "the provider is asked again");
                    tokio::time::sleep(pause).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn draw_once(&self, request: &Body, show: &Show<'_>) -> Result<Generated, Error> {
        let response = self.post("images/generations", request, self.config.timeout).await?;
        let content_type = response.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        // Who does not know the field may leave it alone.
        if content_type.starts_with(b"text/event-stream") {
            follow(response, show).await
        } else {
            Generated::read(&read_body(response, MAX_ANSWER_BYTES).await?)
        }
    }
}

/// Shows what comes before the image, then gives back the image.
async fn follow(response: Response, show: &Show<'_>) -> Result<Generated, Error> {
    let mut events = stream::events(response);
    let (mut has_begun, mut shown) = (false, 0);
    while let Some(data) = events.next().await? {
        let event: Event = match serde_json::from_slice(&data) {
            Ok(event) => event,
            // `[DONE]`, perhaps.
            Err(_) => continue,
        };
        let kind = event.r#type.as_deref().unwrap_or_default();
        if event.error.is_some_and(|error| !error.is_null()) || kind == "error" {
            return Err(match Error::from_event(&data) {
                error @ Error::PromptRefused(_) => error,
                // What was shown of it may be billed.
                _ if has_begun => Error::LostAnswer(None),
                error => error,
            });
        }
        if kind.ends_with(".completed") {
            let item = Item { b64_json: event.b64_json, url: None, revised_prompt: event.revised_prompt };
            return Generated::of(item, event.size, event.quality, event.usage.as_ref());
        }
        let is_partial = kind.ends_with(".partial_image");
        has_begun |= is_partial;
        if is_partial
            && shown < MAX_PARTIAL_IMAGES
            && let Some(text) = event.b64_json
            && let Ok(bytes) = BASE64_STANDARD.decode(text.0.as_bytes())
            && let Ok(image) = Image::recognise(bytes.into())
        {
            show(event.partial_image_index.and_then(|index| index.as_u64()).unwrap_or(shown), image);
            shown += 1;
        }
    }
    // It was being drawn.
    Err(Error::LostAnswer(None))
}

/// `usage` in tokens; without the details all that was sent counts as text.
fn tokens(json: &Value) -> Option<Usage> {
    let details = &json["input_tokens_details"];
    let image_input = details["image_tokens"].as_u64().unwrap_or_default();
    let text_input =
        details["text_tokens"].as_u64().or_else(|| json["input_tokens"].as_u64()?.checked_sub(image_input));
    Some(Usage { text_input: text_input?, image_input, output: json["output_tokens"].as_u64()? })
}

/// The useful part of an answer, no longer borrowed from it.
struct Generated {
    source: Source,
    revised_prompt: Option<String>,
    size: Option<String>,
    quality: Option<String>,
    usage: Option<Usage>,
}

enum Source {
    Bytes(Bytes),
    Url(String),
}

impl Generated {
    fn read(body: &[u8]) -> Result<Self, Error> {
        let answer: Answer =
            serde_json::from_slice(body).map_err(|_| Error::BadAnswer("it is not the JSON we know"))?;
        let item = answer.data.into_iter().next().ok_or(Error::BadAnswer("it has no image"))?;
        Self::of(item, answer.size, answer.quality, answer.usage.as_ref())
    }

    fn of(item: Item<'_>, size: Option<String>, quality: Option<String>, usage: Option<&Value>) -> Result<Self, Error> {
        let text = item.b64_json.filter(|text| !text.0.is_empty());
        let source = match (text, item.url) {
            (Some(text), _) => {
                let bytes = BASE64_STANDARD
                    .decode(text.0.as_bytes())
                    .map_err(|_| Error::BadAnswer("the image is not base64"))?;
                Source::Bytes(bytes.into())
            }
            (None, Some(url)) => Source::Url(url),
            (None, None) => return Err(Error::BadAnswer("it has no image")),
        };
        Ok(Self { source, revised_prompt: item.revised_prompt, size, quality, usage: usage.and_then(tokens) })
    }
}
