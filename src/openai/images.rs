//! `POST /images/generations`: draws an image.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, HeaderMap};

use super::answer::{Event, Generated, Item, Source};
use super::body::{MAX_ANSWER_BYTES, read_body};
use super::client::OpenAi;
use super::error::{Error, FASTEST_IMAGE};
use super::family::{Body, Choices, Family, ImageOptions, InvalidOption};
use super::memory::Memory;
use super::stream;
use crate::image::Image;
use crate::lock::locked;
use crate::logs::{Answered, Operation, chain};
use crate::prompt::Prompt;
use crate::spending::{ImageSpec, Usage};

/// The most partial images that are shown; a request cannot ask for more.
const MAX_PARTIAL_IMAGES: u64 = 3;
/// The most requests to one model for one image.
const MAX_TRIES: u32 = 3;
/// A try needs at least `OPENAI_TIMEOUT_SECONDS` divided by this. With less time, the try may end before
/// the image is drawn, and the image is billed all the same.
const LEAST_TIME_DIVISOR: u32 = 2;

/// A provider whose streamed answer fails late, before its first event, is asked without streaming for this
/// time: some gateways let the provider draw and bill the image, and then fail
/// (<https://github.com/BerriAI/litellm/issues/19569>).
const UNSTREAMED_FOR: Duration = Duration::from_secs(60 * 60);

/// A request for one image, checked against the configured model.
#[derive(Debug)]
pub struct ImageRequest {
    /// One body for the configured model, then one for each fallback.
    bodies: Vec<Body>,
    /// The longest prompt that all models accept, in characters.
    limit: usize,
}

/// A drawn image, and the provider's data about it.
#[derive(Debug)]
pub struct Drawn {
    /// The image.
    pub image: Image,
    /// The model that drew it.
    pub model: String,
    /// The prompt as the provider rewrote it, if it did.
    pub revised_prompt: Option<String>,
    /// The size in the provider's answer, else in the request.
    pub size: String,
    /// The quality in the provider's answer, else in the request, else `auto`.
    pub quality: String,
    /// The tokens that it took, if the answer states them.
    pub usage: Option<Usage>,
}

/// Receives the partial images, each with its index.
pub(crate) type Show<'a> = dyn Fn(u64, Image) + Send + Sync + 'a;

impl ImageRequest {
    /// The specification of each body. The provider bills for one of them.
    pub(crate) fn specs(&self) -> impl Iterator<Item = ImageSpec<'_>> {
        self.bodies.iter().map(Body::spec)
    }

    /// The specification that was ordered from a model. The size and quality in the answer are not used,
    /// because they may be named differently.
    pub(crate) fn spec(&self, model: &str) -> Option<ImageSpec<'_>> {
        self.specs().find(|spec| spec.model == model)
    }

    /// The longest prompt that all models accept, in characters.
    pub(crate) fn prompt_limit(&self) -> usize {
        self.limit
    }

    /// The same request with another prompt.
    pub(crate) fn with_prompt(&self, prompt: &str) -> Self {
        let bodies = self.bodies.iter().map(|body| body.with_prompt(prompt)).collect();
        Self { bodies, limit: self.limit }
    }

    /// The configured model, which is asked first.
    pub(crate) fn model(&self) -> &str {
        self.bodies.first().map_or("", |body| &body.model)
    }
}

impl OpenAi {
    /// Builds a request without sending it.
    ///
    /// # Errors
    /// The configured model does not support an image option, or the prompt is too long for it.
    pub fn plan(&self, prompt: &Prompt, options: &ImageOptions) -> Result<ImageRequest, InvalidOption> {
        let family = |model: &str| Family::of(model, self.config.image_wire);
        let model = &self.config.image_model;
        let mut bodies = vec![family(model).body(model, prompt, options)?];
        for model in &self.config.image_fallbacks {
            // A fallback that does not support the options draws without them: better than no image.
            let body = family(model).body(model, prompt, options);
            bodies.extend(body.or_else(|_| family(model).body(model, prompt, &ImageOptions::default())));
        }
        let limit = bodies.iter().map(|body| family(&body.model).max_prompt_characters()).min();
        Ok(ImageRequest { bodies, limit: limit.unwrap_or_default() })
    }

    /// The values that a front end offers for the configured model.
    pub(crate) fn choices(&self) -> Choices {
        Family::of(&self.config.image_model, self.config.image_wire).choices()
    }

    /// Draws an image, and downloads it if the provider answers with a URL. This costs money.
    ///
    /// A request that certainly drew nothing is repeated, with at most three tries for a model and while half
    /// of `OPENAI_TIMEOUT_SECONDS` is left. If a model does not exist, the next fallback is asked. A download
    /// has its own time limit after that.
    ///
    /// # Errors
    /// See [`Error`]; after `Timeout` and `LostAnswer` the image may have been drawn and billed.
    pub async fn draw(&self, image_request: &ImageRequest, show: &Show<'_>) -> Result<Drawn, Error> {
        let deadline = Instant::now() + self.config.timeout;
        self.check()?;
        let drawing = self.draw_with_first_existing_model(image_request, show, deadline);
        let drawn = tokio::time::timeout_at(deadline.into(), drawing).await.unwrap_or(Err(Error::Timeout));
        if let Err(error) = &drawn {
            locked(&self.remembered).note(error, Instant::now());
        }
        let (body, generated) = drawn?;
        let bytes = match generated.source {
            Source::Bytes(bytes) => bytes,
            Source::Url(url) => self.fetch(&url).await?,
        };
        let image =
            Image::recognise(bytes).map_err(|_| Error::BadAnswer("the image is neither PNG nor JPEG nor WebP"))?;
        Ok(Drawn {
            image,
            model: body.model.clone(),
            revised_prompt: generated.revised_prompt.filter(|prompt| !prompt.trim().is_empty()),
            size: generated.size.unwrap_or_else(|| body.size.clone()),
            quality: generated.quality.unwrap_or_else(|| body.quality.unwrap_or("auto").to_owned()),
            usage: generated.usage,
        })
    }

    /// Asks the models in order until one exists. Returns the image and the body that asked for the image.
    async fn draw_with_first_existing_model<'a>(
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
            last = match self.draw_with_retries(body, show, deadline).await {
                Ok(image) => return Ok((body, image)),
                Err(error @ Error::ModelGone(_)) => error,
                Err(error) => return Err(error),
            };
            let setting = if index == 0 { "OPENAI_IMAGE_MODEL" } else { "OPENAI_IMAGE_FALLBACKS" };
            tracing::error!(
                event = "model_gone",
                setting,
                model = body.model,
                cause = chain(&last),
                "the provider does not have this image model; the app asks the next fallback, if there is one"
            );
        }
        Err(last)
    }

    /// Whether enough time for another try is left after `pause`.
    fn has_time_for_another(&self, pause: Duration, deadline: Instant) -> bool {
        pause + self.config.timeout / LEAST_TIME_DIVISOR <= deadline.saturating_duration_since(Instant::now())
    }

    /// Draws with one model. If the provider refuses to stream, the request is sent once more without partial
    /// images; this does not count as a try.
    async fn draw_with_retries(&self, body: &Body, show: &Show<'_>, deadline: Instant) -> Result<Generated, Error> {
        let mut tries = 0;
        let mut body = Cow::Borrowed(body);
        if body.streams() && !self.may_stream() {
            body = Cow::Owned(body.into_owned().with_partial_images(0));
        }
        loop {
            let began = Instant::now();
            let drawn = self.draw_once(&body, show).await.map_err(|error| error.after(began.elapsed(), FASTEST_IMAGE));
            let error = match drawn {
                Ok(image) => {
                    if body.streams() {
                        *locked(&self.stream_failed_at) = None;
                    }
                    return Ok(image);
                }
                Err(error @ Error::FailedLate(_)) => {
                    if body.streams() && error.is_before_the_stream() {
                        *locked(&self.stream_failed_at) = Some(Instant::now());
                    }
                    return Err(error);
                }
                Err(Error::StreamRefused(_)) if body.streams() => {
                    body = Cow::Owned(body.into_owned().with_partial_images(0));
                    continue;
                }
                Err(error) => error,
            };
            tries += 1;
            match error.pause(tries - 1) {
                Some(pause) if tries < MAX_TRIES && self.has_time_for_another(pause, deadline) => {
                    tracing::warn!(
                        event = "draw_repeated",
                        cause = chain(&error),
                        tries,
                        "the provider failed before it drew an image; the request is sent again"
                    );
                    tokio::time::sleep(pause).await;
                }
                _ => return Err(error),
            }
        }
    }

    /// Whether a request may stream. When the time without streaming is over, one request tries, and the others
    /// go on without until it has succeeded.
    fn may_stream(&self) -> bool {
        let mut failed_at = locked(&self.stream_failed_at);
        match *failed_at {
            Some(at) if at.elapsed() < UNSTREAMED_FOR => false,
            Some(_) => {
                *failed_at = Some(Instant::now());
                true
            }
            None => true,
        }
    }

    async fn draw_once(&self, request: &Body, show: &Show<'_>) -> Result<Generated, Error> {
        let call = self.begin(Operation::Image, &request.model);
        let drawn = self.send_and_read(request, show, call.headers()).await;
        let answered = |image: &Generated| Answered { model: None, tokens: image.usage.map(Usage::tokens) };
        call.end(drawn.as_ref().map(answered).map_err(Error::kind));
        drawn
    }

    async fn send_and_read(&self, request: &Body, show: &Show<'_>, trace: HeaderMap) -> Result<Generated, Error> {
        let response = self.post("images/generations", request, self.config.timeout, trace).await?;
        let content_type = response.headers().get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        // A server that does not know `stream` may answer with plain JSON.
        if content_type.starts_with(b"text/event-stream") {
            read_stream(response, &self.memory, show).await
        } else {
            let mut room = self.memory.room();
            let body = read_body(response, MAX_ANSWER_BYTES, Some(&mut room)).await?;
            Generated::read(&body, room)
        }
    }
}

/// Reads a streamed answer: shows the partial images and returns the final image.
async fn read_stream(response: Response, memory: &Memory, show: &Show<'_>) -> Result<Generated, Error> {
    let mut events = stream::events(response, memory);
    let (mut has_begun, mut shown) = (false, 0);
    while let Some((data, room)) = events.next().await? {
        let event: Event = match serde_json::from_slice(&data) {
            Ok(event) => event,
            // Some servers end a stream with `[DONE]`, which is not JSON.
            Err(_) => continue,
        };
        let kind = event.r#type.as_deref().unwrap_or_default();
        if event.error.is_some_and(|error| !error.is_null()) || kind == "error" {
            return Err(match Error::from_event(&data) {
                error @ Error::PromptRefused(_) => error,
                // A partial image came before, so the image may be billed.
                _ if has_begun => Error::LostAnswer(None),
                error => error,
            });
        }
        if kind.ends_with(".completed") {
            let item = Item { b64_json: event.b64_json, url: None, revised_prompt: event.revised_prompt };
            return Generated::of(item, event.size, event.quality, event.usage.as_ref(), room);
        }
        let is_partial = kind.ends_with(".partial_image");
        has_begun |= is_partial;
        if is_partial
            && shown < MAX_PARTIAL_IMAGES
            && let Some(text) = event.b64_json
            && let Ok(bytes) = text.decode()
            && let Ok(image) = Image::recognise(room.hold(bytes))
        {
            show(event.partial_image_index.and_then(|index| index.as_u64()).unwrap_or(shown), image);
            shown += 1;
        }
    }
    // The stream ended early, and the image may have been drawn.
    Err(Error::LostAnswer(None))
}
