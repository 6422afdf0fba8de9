//! The provider's client: its address, its key, and what it remembers.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::{RequestBuilder, Response, Url, header};
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::body::read_error;
use super::error::Error;
use super::remembered::RememberedFailure;
use crate::config::{OpenAiAuth, OpenAiConfig};
use crate::lock::locked;

/// The provider's client.
#[derive(Debug, Clone)]
pub struct OpenAi {
    pub(super) config: OpenAiConfig,
    pub(super) http: reqwest::Client,
    pub(super) remembered: Arc<Mutex<RememberedFailure>>,
    /// Whether the text model has refused to be told not to reason.
    pub(super) rejects_reasoning: Arc<AtomicBool>,
}

impl OpenAi {
    pub(crate) fn new(config: OpenAiConfig, http: reqwest::Client) -> Self {
        Self { config, http, remembered: Arc::default(), rejects_reasoning: Arc::default() }
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
    pub(crate) fn is_failing(&self) -> bool {
        self.check().is_err()
    }

    /// Says again why the key or the account was refused a moment ago.
    pub(crate) fn check(&self) -> Result<(), Error> {
        locked(&self.remembered).check(std::time::Instant::now())
    }

    /// Sends JSON and gives back a successful answer, its body still to be read.
    pub(super) async fn post(&self, path: &str, body: &impl Serialize, timeout: Duration) -> Result<Response, Error> {
        let request = self.http.post(endpoint(&self.config.base_url, path)).json(body).timeout(timeout);
        let response = self.authorized(request).send().await.map_err(Error::from_sending)?;
        if response.status().is_success() { Ok(response) } else { Err(read_error(response).await) }
    }

    pub(super) fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
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
pub(super) fn endpoint(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}
