//! `GET /models/{id}`: whether a model exists, and when the provider shuts it down.

use std::time::Duration;

use serde::Deserialize;
use time::Date;
use time::macros::format_description;

use super::body::{MAX_ERROR_BYTES, read_body, read_error};
use super::client::{OpenAi, endpoint};
use super::error::Error;
use crate::config::OpenAiAuth;

const TIMEOUT: Duration = Duration::from_secs(20);

/// The largest list of models, in bytes; OpenAI's takes some 20 KiB.
const MAX_LIST_BYTES: usize = 1024 * 1024;

/// Whether a model exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// The model exists.
    Available {
        /// The announced date from which the model does not exist any more.
        shutdown: Option<Date>,
    },
    /// The model does not exist (any more).
    Gone,
    /// The provider gave no usable answer.
    Unknown,
}

#[derive(Deserialize)]
struct Answer {
    id: String,
    #[serde(default)]
    shutdown_date: serde_json::Value,
}

#[derive(Deserialize)]
struct List {
    data: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    id: String,
}

impl OpenAi {
    /// Asks the provider about a model. A failed request and a server without this path mean
    /// [`ModelState::Unknown`].
    pub async fn model(&self, id: &str) -> ModelState {
        let mut url = endpoint(&self.config.base_url, "models");
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push(id);
        }
        let Ok(request) = self.authorized(self.http.get(url).timeout(TIMEOUT)).await else {
            return ModelState::Unknown;
        };
        let Ok(response) = request.send().await else { return ModelState::Unknown };
        if !response.status().is_success() {
            return match read_error(response).await {
                // Azure OpenAI (`api-key`, `identity`) knows base models on this path, while the settings name deployments.
                Error::ModelGone(answer) if matches!(self.config.auth, OpenAiAuth::Bearer(_)) => {
                    // A gateway answers 404 without a code, and so does a server without this path.
                    let is_gone = answer.code() == "model_not_found" || self.lists_models_without(id).await;
                    if is_gone { ModelState::Gone } else { ModelState::Unknown }
                }
                _ => ModelState::Unknown,
            };
        }
        let body = read_body(response, MAX_ERROR_BYTES, None).await.unwrap_or_default();
        match serde_json::from_slice::<Answer>(&body) {
            Ok(answer) if answer.id == id => {
                ModelState::Available { shutdown: answer.shutdown_date.as_str().and_then(date) }
            }
            _ => ModelState::Unknown,
        }
    }
}

impl OpenAi {
    /// Whether `GET /models` lists models, and not this one.
    async fn lists_models_without(&self, id: &str) -> bool {
        let url = endpoint(&self.config.base_url, "models");
        let Ok(request) = self.authorized(self.http.get(url).timeout(TIMEOUT)).await else { return false };
        let Ok(response) = request.send().await else { return false };
        if !response.status().is_success() {
            return false;
        }
        let body = read_body(response, MAX_LIST_BYTES, None).await.unwrap_or_default();
        let models = serde_json::from_slice::<List>(&body).map(|list| list.data).unwrap_or_default();
        !models.is_empty() && models.iter().all(|model| model.id != id)
    }
}

/// Parses a text that begins with a date such as `2026-12-01`.
fn date(text: &str) -> Option<Date> {
    Date::parse(text.get(..10)?, format_description!("[year]-[month]-[day]")).ok()
}
