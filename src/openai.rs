//! The provider of pictures and texts: OpenAI, or a server that speaks its API.
//!
//! The API's reference: <https://platform.openai.com/docs/api-reference>.

mod download;
mod error;
mod family;
mod images;
mod models;
mod moderation;
mod stream;
mod text;
mod trouble;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use reqwest::{RequestBuilder, Response, Url, header};
use secrecy::ExposeSecret as _;
use serde::Serialize;

use crate::config::{OpenAiAuth, OpenAiConfig};
use crate::lock::locked;
use trouble::Trouble;

pub use error::{Answer, Error};
pub(crate) use family::DALL_E_STYLES;
pub use family::{InvalidWish, Wishes};
pub use images::{Drawing, Drawn};
pub use models::ModelState;

/// The largest picture that is taken, in bytes.
const MAX_IMAGE_BYTES: usize = 64 * 1024 * 1024;
/// The largest JSON answer: such a picture in base64, and some room for the rest.
const MAX_ANSWER_BYTES: usize = MAX_IMAGE_BYTES / 3 * 4 + 1024 * 1024;
/// An error's body is read for its code alone.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// The provider's client.
#[derive(Debug, Clone)]
pub struct OpenAi {
    config: OpenAiConfig,
    http: reqwest::Client,
    trouble: Arc<Mutex<Trouble>>,
    /// Whether the text model has refused to be told not to reason.
    rejects_reasoning: Arc<AtomicBool>,
}

impl OpenAi {
    pub(crate) fn new(config: OpenAiConfig, http: reqwest::Client) -> Self {
        Self { config, http, trouble: Arc::default(), rejects_reasoning: Arc::default() }
    }

    /// The models that are configured, each with its setting.
    pub(crate) fn models(&self) -> impl Iterator<Item = (&'static str, String)> {
        let fallbacks = self.config.image_fallbacks.iter().map(|model| ("OPENAI_IMAGE_FALLBACKS", model));
        std::iter::once(("OPENAI_IMAGE_MODEL", &self.config.image_model))
            .chain(fallbacks)
            .chain(std::iter::once(("OPENAI_TEXT_MODEL", &self.config.text_model)))
            .map(|(setting, model)| (setting, model.clone()))
    }

    /// Whether the key or the account was refused a moment ago.
    pub(crate) fn is_in_trouble(&self) -> bool {
        self.check().is_err()
    }

    /// Says again why the key or the account was refused a moment ago.
    pub(crate) fn check(&self) -> Result<(), Error> {
        locked(&self.trouble).check(std::time::Instant::now())
    }

    /// Sends JSON and gives back a successful answer, its body still to be read.
    async fn post(&self, path: &str, body: &impl Serialize, timeout: Duration) -> Result<Response, Error> {
        let request = self.http.post(endpoint(&self.config.base_url, path)).json(body).timeout(timeout);
        let response = self.authorized(request).send().await.map_err(Error::from_sending)?;
        if response.status().is_success() { Ok(response) } else { Err(Error::from_answer(response).await) }
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        let key = self.config.api_key.expose_secret();
        let mut request = match self.config.auth {
            OpenAiAuth::Bearer => request.bearer_auth(key),
            OpenAiAuth::ApiKey => {
                let mut value = header::HeaderValue::from_str(key).unwrap_or(header::HeaderValue::from_static(""));
                value.set_sensitive(true);
                request.header("api-key", value)
            }
        };
        if let Some(organization) = &self.config.organization {
            request = request.header("OpenAI-Organization", organization);
        }
        if let Some(project) = &self.config.project {
            request = request.header("OpenAI-Project", project);
        }
        request
    }
}

/// The base URL with a path behind its own; its query stays, as Azure's `?api-version=` has to.
fn endpoint(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}

/// Reads a body that may not be larger than `limit` bytes.
async fn read_body(response: Response, limit: usize) -> Result<Bytes, Error> {
    let announced = response.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limit) {
        return Err(Error::BadAnswer("its body is too large"));
    }
    let mut body = BytesMut::with_capacity(announced.unwrap_or(0));
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(Error::from_reading)?;
        if body.len() + chunk.len() > limit {
            return Err(Error::BadAnswer("its body is too large"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}
