//! The client of the provider: base URL, authorization, and the remembered failure.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, Response, Url, header};
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::body::read_error;
use super::error::Error;
use super::memory::Memory;
use super::remembered::RememberedFailure;
use crate::azure::Credential;
use crate::config::{OpenAiAuth, OpenAiConfig};
use crate::lock::locked;
use crate::logs::{Operation, ProviderCall};

/// The client of the provider's API. Clones share the connection pool and the remembered failure.
#[derive(Debug, Clone)]
pub struct OpenAi {
    pub(super) config: OpenAiConfig,
    pub(super) http: reqwest::Client,
    /// The app's identity, with which [`OpenAiAuth::Identity`] authorizes requests.
    credential: Option<Credential>,
    pub(super) remembered: Arc<Mutex<RememberedFailure>>,
    /// True once the text model has rejected the reasoning field; later requests leave the field out.
    pub(super) rejects_reasoning: Arc<AtomicBool>,
    /// The memory for answers with images.
    pub(super) memory: Memory,
    /// When a streamed request last failed late, before its first event.
    pub(super) stream_failed_at: Arc<Mutex<Option<Instant>>>,
}

impl OpenAi {
    pub(crate) fn new(config: OpenAiConfig, credential: Option<Credential>, http: reqwest::Client) -> Self {
        Self {
            config,
            http,
            credential,
            remembered: Arc::default(),
            rejects_reasoning: Arc::default(),
            memory: Memory::default(),
            stream_failed_at: Arc::default(),
        }
    }

    /// The configured models, each with the setting that names it.
    pub(crate) fn models(&self) -> impl Iterator<Item = (&'static str, String)> {
        let fallbacks = self.config.image_fallbacks.iter().map(|model| ("OPENAI_IMAGE_FALLBACKS", model));
        std::iter::once(("OPENAI_IMAGE_MODEL", &self.config.image_model))
            .chain(fallbacks)
            .chain(std::iter::once(("OPENAI_TEXT_MODEL", &self.config.text_model)))
            .map(|(setting, model)| (setting, model.clone()))
    }

    /// Whether a failure of the key or the account is remembered.
    pub(crate) fn is_failing(&self) -> bool {
        self.check().is_err()
    }

    /// Returns the remembered failure of the key or the account.
    ///
    /// # Errors
    /// `Denied` or `OutOfCredit`, while it is remembered.
    pub(crate) fn check(&self) -> Result<(), Error> {
        locked(&self.remembered).check(Instant::now())
    }

    /// The telemetry of a call, from its beginning on.
    pub(super) fn begin(&self, operation: Operation, model: &str) -> ProviderCall {
        let provider = match self.config.auth {
            OpenAiAuth::Bearer(_) => "openai",
            OpenAiAuth::ApiKey(_) | OpenAiAuth::Identity { .. } => "azure.ai.openai",
        };
        ProviderCall::start(operation, provider, model, &self.config.base_url)
    }

    /// Sends a JSON body with POST, and the header of the trace. Returns a 2xx response with its body unread; any
    /// other status is an error.
    pub(super) async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Duration,
        trace: HeaderMap,
    ) -> Result<Response, Error> {
        let request = self.http.post(endpoint(&self.config.base_url, path)).headers(trace);
        let request = request.json(body).timeout(timeout);
        let response = self.authorized(request).await?.send().await.map_err(Error::from_sending)?;
        if response.status().is_success() { Ok(response) } else { Err(read_error(response).await) }
    }

    /// Adds the headers that say who asks and who pays.
    ///
    /// # Errors
    /// `NoToken`, and nothing was sent.
    pub(super) async fn authorized(&self, request: RequestBuilder) -> Result<RequestBuilder, Error> {
        let mut request = match &self.config.auth {
            OpenAiAuth::Bearer(key) => request.bearer_auth(key.expose_secret()),
            OpenAiAuth::ApiKey(key) => {
                let key = key.expose_secret();
                let mut value = header::HeaderValue::from_str(key).unwrap_or(header::HeaderValue::from_static(""));
                value.set_sensitive(true);
                request.header("api-key", value)
            }
            OpenAiAuth::Identity { .. } => request.header(header::AUTHORIZATION, self.identity().await?),
        };
        if let Some(organization) = &self.config.organization {
            request = request.header("OpenAI-Organization", organization);
        }
        if let Some(project) = &self.config.project {
            request = request.header("OpenAI-Project", project);
        }
        Ok(request)
    }

    /// The Authorization header of the app's identity.
    async fn identity(&self) -> Result<header::HeaderValue, Error> {
        // The settings rule out that there is none.
        let credential = self.credential.as_ref().ok_or(Error::BadAnswer("there is no identity to ask with"))?;
        credential.authorization().await.map_err(Error::NoToken)
    }

    /// Whether the app can authorize requests. Only with its identity it may be unable to.
    ///
    /// # Errors
    /// `NoToken`.
    pub(crate) async fn check_identity(&self) -> Result<(), Error> {
        match self.config.auth {
            OpenAiAuth::Identity { .. } => self.identity().await.map(drop),
            OpenAiAuth::Bearer(_) | OpenAiAuth::ApiKey(_) => Ok(()),
        }
    }
}

/// Appends a path to the base URL. The query stays, because Azure OpenAI needs `?api-version=` in each request.
pub(super) fn endpoint(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{path}", base.path().trim_end_matches('/')));
    url
}
