//! `GET /models/{id}`: whether a model exists, and for how long.

use std::time::Duration;

use serde::Deserialize;
use time::Date;
use time::macros::format_description;

use super::body::{MAX_ERROR_BYTES, read_body, read_error};
use super::client::{OpenAi, endpoint};
use super::error::Error;
use crate::config::OpenAiAuth;

const TIMEOUT: Duration = Duration::from_secs(20);

/// What is known of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// It is there, until its end if one is announced.
    Available {
        /// The day from which it is gone.
        shutdown: Option<Date>,
    },
    /// It is not there (any more).
    Gone,
    /// The provider does not say.
    Unknown,
}

#[derive(Deserialize)]
struct Answer {
    id: String,
    #[serde(default)]
    shutdown_date: serde_json::Value,
}

impl OpenAi {
    /// Asks for a model. A server without that address, or without an answer, is no news.
    pub async fn model(&self, id: &str) -> ModelState {
        let mut url = endpoint(&self.config.base_url, "models");
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push(id);
        }
        let request = self.authorized(self.http.get(url).timeout(TIMEOUT));
        let Ok(response) = request.send().await else { return ModelState::Unknown };
        if !response.status().is_success() {
            return match read_error(response).await {
                // Azure lists models there, and ours are its deployments.
                Error::ModelGone(answer)
                    if answer.code() == "model_not_found" && self.config.auth == OpenAiAuth::Bearer =>
                {
                    ModelState::Gone
                }
                _ => ModelState::Unknown,
            };
        }
        let body = read_body(response, MAX_ERROR_BYTES).await.unwrap_or_default();
        match serde_json::from_slice::<Answer>(&body) {
            Ok(answer) if answer.id == id => {
                ModelState::Available { shutdown: answer.shutdown_date.as_str().and_then(date) }
            }
            _ => ModelState::Unknown,
        }
    }
}

/// `2026-12-01`, whatever follows.
fn date(text: &str) -> Option<Date> {
    Date::parse(text.get(..10)?, format_description!("[year]-[month]-[day]")).ok()
}
