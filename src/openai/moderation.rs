//! `POST /moderations`: whether a prompt violates the provider's content policy. The endpoint is free
//! (<https://platform.openai.com/docs/guides/moderation>).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::body::{MAX_ERROR_BYTES, read_body};
use super::client::OpenAi;
use super::error::Error;
use crate::logs;
use crate::prompt::Prompt;

const MODEL: &str = "omni-moderation-latest";
/// Short, because the caller waits and a prompt may be drawn without a moderation result.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<Moderation>,
}

#[derive(Deserialize)]
struct Moderation {
    flagged: bool,
    #[serde(default)]
    categories: BTreeMap<String, Option<bool>>,
}

impl OpenAi {
    /// Returns the categories for which a prompt is flagged; `None` if it is not flagged.
    ///
    /// # Errors
    /// The provider gave no moderation result.
    pub async fn moderate(&self, prompt: &Prompt) -> Result<Option<Vec<String>>, Error> {
        let body = Body { model: MODEL, input: prompt.as_str() };
        let response = self.post("moderations", &body, TIMEOUT, logs::trace_headers()).await?;
        let answer: Answer = serde_json::from_slice(&read_body(response, MAX_ERROR_BYTES, None).await?)
            .map_err(|_| Error::BadAnswer("the JSON has an unknown structure"))?;
        if answer.results.is_empty() {
            return Err(Error::BadAnswer("it contains no moderation result"));
        }
        let flagged = answer.results.into_iter().find(|moderation| moderation.flagged);
        Ok(flagged.map(|moderation| {
            let named = moderation.categories.into_iter().filter(|(_, flagged)| *flagged == Some(true));
            named.map(|(category, _)| category).filter(|category| is_category(category)).collect()
        }))
    }
}

/// Whether a text looks like a category, such as `self-harm/intent`. Categories are shown to callers, so no
/// other text of the answer may pass.
fn is_category(name: &str) -> bool {
    (1..=40).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_".contains(&byte))
}
