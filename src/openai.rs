//! The provider of pictures and texts: OpenAI, or a server that speaks its API.
//!
//! The API's reference: <https://platform.openai.com/docs/api-reference>.

mod download;
mod error;
mod family;
mod images;
mod moderation;
mod text;
mod trouble;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use reqwest::{RequestBuilder, Response, Url, header};
use secrecy::ExposeSecret as _;
use serde::Serialize;

use crate::config::OpenAiConfig;
use trouble::Trouble;

pub use error::{Answer, Error};
pub use family::{InvalidWish, Wishes};
pub use images::{Drawing, Drawn};

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
}

impl OpenAi {
    pub(crate) fn new(config: OpenAiConfig, http: reqwest::Client) -> Self {
        Self { config, http, trouble: Arc::default() }
    }

    /// Sends JSON and gives back a successful answer, its body still to be read.
    async fn post(&self, path: &str, body: &impl Serialize, timeout: Duration) -> Result<Response, Error> {
        let request = self.http.post(endpoint(&self.config.base_url, path)).json(body).timeout(timeout);
        let response = self.authorized(request).send().await.map_err(Error::from_sending)?;
        if response.status().is_success() { Ok(response) } else { Err(Error::from_answer(response).await) }
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        let mut request = request.bearer_auth(self.config.api_key.expose_secret());
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
