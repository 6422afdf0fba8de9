//! Short texts from the text model: `POST /responses`, `/chat/completions` or `/completions`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::read_body;
use super::client::OpenAi;
use super::error::{Error, FASTEST_TEXT};
use crate::config::TextApi;
use crate::logs::{Answered, Operation};
use crate::spending::{MAX_TEXT_TOKENS, Usage};

/// The largest JSON answer, in bytes; a short text takes a few KiB.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Output tokens: enough for five suggestions, or for a rewritten prompt of 120 words in any language.
const MAX_TOKENS: u64 = MAX_TEXT_TOKENS;

/// A text of the text model.
#[derive(Debug)]
pub(crate) struct Written {
    /// `None` if the text is unfinished, refused or empty.
    pub(crate) text: Option<String>,
    /// The reported tokens.
    pub(crate) usage: Option<Usage>,
}

impl OpenAi {
    /// The name of the text model.
    pub(crate) fn text_model(&self) -> &str {
        &self.config.text_model
    }

    /// Writes a short text from an instruction (the system message) and an input (the user message). `timeout`
    /// limits each request; a second request follows only if the model rejects the reasoning field.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn write(&self, instruction: &str, input: &str, timeout: Duration) -> Result<Written, Error> {
        let model = self.config.text_model.as_str();
        let api = match self.config.text_api {
            TextApi::Auto if model.ends_with("-instruct") => TextApi::Completions,
            TextApi::Auto => TextApi::Responses,
            chosen => chosen,
        };
        let body = |reasons| match api {
            TextApi::Auto | TextApi::Responses => ("responses", responses_body(model, instruction, input, reasons)),
            TextApi::Chat => ("chat/completions", chat_body(model, instruction, input, reasons)),
            TextApi::Completions => ("completions", completions_body(model, instruction, input)),
        };
        let reasons = can_reason(model) && !self.rejects_reasoning.load(Ordering::Relaxed);
        let (path, first) = body(reasons);
        let answer = match self.ask(path, &first, timeout).await {
            // The name of a deployment does not show whether its model can reason.
            Err(Error::ReasoningRefused(_)) if reasons => {
                self.rejects_reasoning.store(true, Ordering::Relaxed);
                self.ask(path, &body(false).1, timeout).await?
            }
            result => result?,
        };
        let body = answer.body;
        let text = match api {
            TextApi::Auto | TextApi::Responses => {
                serde_json::from_slice::<ResponsesAnswer>(&body).map(ResponsesAnswer::text)
            }
            TextApi::Chat => serde_json::from_slice::<ChatAnswer>(&body).map(ChatAnswer::text),
            TextApi::Completions => serde_json::from_slice::<CompletionsAnswer>(&body).map(CompletionsAnswer::text),
        };
        let text = text.map_err(|_| Error::BadAnswer("the JSON has an unknown structure"))?;
        Ok(Written { text: text.filter(|text| !text.trim().is_empty()), usage: answer.usage })
    }

    /// Sends one request and reads its answer.
    async fn ask(&self, path: &str, body: &Value, timeout: Duration) -> Result<Answer, Error> {
        let operation = if path == "completions" { Operation::Completion } else { Operation::Chat };
        let call = self.begin(operation, self.text_model());
        let answer = self.send_and_read_text(path, body, timeout, call.headers()).await;
        call.end(answer.as_ref().map(Answer::answered).map_err(Error::kind));
        answer
    }

    /// A server error that comes late is [`Error::FailedLate`]: the text may be billed.
    async fn send_and_read_text(
        &self,
        path: &str,
        body: &Value,
        timeout: Duration,
        trace: HeaderMap,
    ) -> Result<Answer, Error> {
        let began = Instant::now();
        let sent = self.post(path, body, timeout, trace).await;
        let response = sent.map_err(|error| error.after(began.elapsed(), FASTEST_TEXT))?;
        let body = read_body(response, MAX_ANSWER_BYTES, None).await?;
        let Billed { model, usage } = serde_json::from_slice(&body).unwrap_or_default();
        let usage = usage.map(|usage| Usage { text_input: usage.input, image_input: 0, output: usage.output });
        Ok(Answer { body, model: model.as_str().filter(|name| is_model(name)).map(str::to_owned), usage })
    }
}

/// Whether a text of the provider looks like the name of a model. No other text of an answer may reach telemetry.
fn is_model(name: &str) -> bool {
    (1..=100).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:/".contains(&byte))
}

fn responses_body(model: &str, instruction: &str, input: &str, reasons: bool) -> Value {
    let mut body = json!({
        "model": model, "instructions": instruction, "input": input,
        "max_output_tokens": MAX_TOKENS, "store": false,
    });
    if reasons {
        body["reasoning"] = json!({"effort": "none"});
    }
    body
}

fn chat_body(model: &str, instruction: &str, input: &str, reasons: bool) -> Value {
    let mut body = json!({
        "model": model,
        "messages": [{"role": "system", "content": instruction}, {"role": "user", "content": input}],
        "max_completion_tokens": MAX_TOKENS,
    });
    if reasons {
        body["reasoning_effort"] = json!("none");
    }
    body
}

fn completions_body(model: &str, instruction: &str, input: &str) -> Value {
    json!({"model": model, "prompt": format!("{instruction}\n\n{input}\n\n"), "max_tokens": MAX_TOKENS, "temperature": 0.9})
}

/// Whether a model accepts the reasoning field, which switches reasoning off. Only old models reject it, so
/// this list is complete.
fn can_reason(model: &str) -> bool {
    !(model.starts_with("gpt-3") || model.starts_with("gpt-4"))
}

/// A successful answer of any of the three APIs.
struct Answer {
    body: Bytes,
    model: Option<String>,
    /// The reported tokens.
    usage: Option<Usage>,
}

impl Answer {
    fn answered(&self) -> Answered<'_> {
        Answered { model: self.model.as_deref(), tokens: self.usage.map(Usage::tokens) }
    }
}

/// The model and the tokens in an answer of any of the three APIs.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Billed {
    // A value of an unexpected type must not make the tokens unreadable.
    model: Value,
    usage: Option<BilledTokens>,
}

#[derive(Deserialize)]
struct BilledTokens {
    #[serde(alias = "input_tokens", alias = "prompt_tokens")]
    input: u64,
    #[serde(alias = "output_tokens", alias = "completion_tokens")]
    output: u64,
}

#[derive(Deserialize)]
struct ResponsesAnswer {
    status: Option<String>,
    #[serde(default)]
    output: Vec<OutputItem>,
}

#[derive(Deserialize)]
struct OutputItem {
    r#type: String,
    #[serde(default)]
    content: Vec<Content>,
}

#[derive(Deserialize)]
struct Content {
    r#type: String,
    text: Option<String>,
}

impl ResponsesAnswer {
    fn text(self) -> Option<String> {
        if self.status.is_some_and(|status| status != "completed") {
            return None;
        }
        let contents = self.output.into_iter().filter(|item| item.r#type == "message").flat_map(|item| item.content);
        Some(contents.filter(|content| content.r#type == "output_text").filter_map(|content| content.text).collect())
    }
}

#[derive(Deserialize)]
struct ChatAnswer {
    choices: Vec<ChatChoice>,
}

#[derive(Deserialize)]
struct ChatChoice {
    finish_reason: Option<String>,
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
}

impl ChatAnswer {
    fn text(self) -> Option<String> {
        let choice = self.choices.into_iter().next()?;
        let finished = choice.finish_reason.is_none_or(|reason| reason == "stop");
        if finished && choice.message.refusal.is_none() { choice.message.content } else { None }
    }
}

#[derive(Deserialize)]
struct CompletionsAnswer {
    choices: Vec<CompletionsChoice>,
}

#[derive(Deserialize)]
struct CompletionsChoice {
    text: String,
}

impl CompletionsAnswer {
    fn text(self) -> Option<String> {
        Some(self.choices.into_iter().next()?.text)
    }
}
