//! `POST /moderations`: whether a prompt is one that the provider would rather not have. It is free.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::body::{MAX_ERROR_BYTES, read_body};
use super::client::OpenAi;
use super::error::Error;
use crate::prompt::Prompt;

const MODEL: &str = "omni-moderation-latest";
/// It is advice, so it is not waited for long.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    results: Vec<Verdict>,
}

#[derive(Deserialize)]
struct Verdict {
    flagged: bool,
    #[serde(default)]
    categories: BTreeMap<String, Option<bool>>,
}

impl OpenAi {
    /// The categories for which a prompt is flagged; `None` where it is not.
    ///
    /// # Errors
    /// There was no verdict.
    pub async fn moderate(&self, prompt: &Prompt) -> Result<Option<Vec<String>>, Error> {
        let body = Body { model: MODEL, input: prompt.as_str() };
        let response = self.post("moderations", &body, TIMEOUT).await?;
        let answer: Answer = serde_json::from_slice(&read_body(response, MAX_ERROR_BYTES).await?)
            .map_err(|_| Error::BadAnswer("it is not the JSON we know"))?;
        if answer.results.is_empty() {
            return Err(Error::BadAnswer("it has no verdict"));
        }
        let flagged = answer.results.into_iter().find(|verdict| verdict.flagged);
        Ok(flagged.map(|verdict| {
            let named = verdict.categories.into_iter().filter(|(_, flagged)| *flagged == Some(true));
            named.map(|(category, _)| category).filter(|category| is_category(category)).collect()
        }))
    }
}

/// As in `self-harm/intent`: shown to callers, so nothing else may come out of an answer.
fn is_category(name: &str) -> bool {
    (1..=40).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_".contains(&byte))
}
