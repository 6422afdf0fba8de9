//! Errors of the provider. No variant holds a key, a prompt, a URL or the provider's message, because a
//! message may quote any of them.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

/// Why the provider returned no image or no text. OpenAI's error codes:
/// <https://platform.openai.com/docs/guides/error-codes>.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection was made, so the request was not sent.
    #[error("the provider cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The time limit passed without an answer. An image may have been drawn and billed.
    #[error("the provider did not answer in time")]
    Timeout,
    /// The connection broke after the request was sent. An image may have been drawn and billed.
    #[error("the connection to the provider broke before its answer was complete")]
    LostAnswer(#[source] Option<reqwest::Error>),
    /// A gateway in front of the provider timed out. An image may have been drawn and billed.
    #[error("a gateway in front of the provider timed out")]
    GatewayTimeout(#[source] Answer),
    /// The provider's content policy does not allow the prompt.
    #[error("the provider refused the prompt")]
    PromptRefused(#[source] Answer),
    /// The provider rejected an image option. The first field is the option's name in this app's API.
    #[error("the provider rejected the image option {0}")]
    OptionRefused(&'static str, #[source] Answer),
    /// The model does not accept the field that switches reasoning off.
    #[error("the provider rejected the reasoning field")]
    ReasoningRefused(#[source] Answer),
    /// The provider does not stream images.
    #[error("the provider does not stream images")]
    StreamRefused(#[source] Answer),
    /// The provider rejected the request (400) for another reason.
    #[error("the provider rejected the request")]
    BadRequest(#[source] Answer),
    /// The key is wrong (401), or it lacks a permission (403).
    #[error("the provider rejected the key or denied access")]
    Denied(#[source] Answer),
    /// The model or deployment does not exist (any more), or the project may not use it.
    #[error("the provider does not have the model")]
    ModelGone(#[source] Answer),
    /// The account has no credit left or has reached its spending limit.
    #[error("the provider's account is out of credit or at its spending limit")]
    OutOfCredit(#[source] Answer),
    /// The provider limits the rate of requests (429).
    #[error("the provider limits the rate of requests")]
    RateLimited(#[source] Answer),
    /// A server error, or a status that no other variant covers.
    #[error("the provider failed")]
    Failed(#[source] Answer),
    /// The answer is complete and cannot be used, for this reason.
    #[error("the provider's answer cannot be used: {0}")]
    BadAnswer(&'static str),
}

/// An unsuccessful answer, reduced to the data that may be logged.
#[derive(Debug, Clone, thiserror::Error)]
#[error("status {status}, code {code}, request id {request_id}")]
pub struct Answer {
    status: StatusCode,
    code: String,
    request_id: String,
    retry_after: Option<Duration>,
    /// The header `x-should-retry`.
    should_retry: Option<bool>,
}

impl Answer {
    /// The provider's error code, or `unknown`.
    pub(super) fn code(&self) -> &str {
        &self.code
    }
}

#[derive(Deserialize, Default)]
struct Body {
    #[serde(default)]
    error: ErrorObject,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorObject {
    r#type: Value,
    code: Value,
    param: Value,
    innererror: Value,
}

/// Codes with which providers refuse a prompt.
const REFUSALS: [&str; 5] = [
    "moderation_blocked",
    "content_policy_violation",
    "content_filter",
    "contentFilter",
    "ResponsibleAIPolicyViolation",
];

/// Image options: the provider's name and the name in this app's API.
const OPTIONS: [(&str, &str); 5] = [
    ("size", "size"),
    ("quality", "quality"),
    ("style", "style"),
    ("background", "background"),
    ("output_format", "outputFormat"),
];

/// Codes for an account without credit. Most of them come with the type `insufficient_quota`.
const OUT_OF_CREDIT: [&str; 6] = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
];

impl Error {
    pub(super) fn from_sending(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if error.is_connect() {
            Self::Unreachable(error)
        } else if error.is_timeout() {
            Self::Timeout
        } else {
            Self::LostAnswer(Some(error))
        }
    }

    pub(super) fn from_reading(error: reqwest::Error) -> Self {
        if error.is_timeout() { Self::Timeout } else { Self::LostAnswer(Some(error.without_url())) }
    }

    /// Whether the same request may succeed later: nothing was drawn, and the cause may pass by itself or
    /// be fixed by the operator.
    pub(crate) fn is_passing(&self) -> bool {
        self.pause(0).is_some() || matches!(self, Self::Denied(_) | Self::OutOfCredit(_))
    }

    /// The wait that the provider asks for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited(answer) | Self::Failed(answer) => answer.retry_after,
            _ => None,
        }
    }

    /// The pause before the request may be sent again, with `tries` as the exponent of the backoff; `None`
    /// if it must not be sent again. Only a request that certainly drew nothing is repeated, because a drawn
    /// image is billed even if its answer is lost.
    pub(super) fn pause(&self, tries: u32) -> Option<Duration> {
        let answer = match self {
            Self::Unreachable(_) => None,
            Self::RateLimited(answer) => Some(answer),
            Self::Failed(answer) if matches!(answer.status.as_u16(), 500 | 502 | 503) => Some(answer),
            // `x-should-retry: true` overrides the status.
            Self::Failed(answer) if answer.should_retry == Some(true) => Some(answer),
            _ => return None,
        };
        if answer.is_some_and(|answer| answer.should_retry == Some(false)) {
            return None;
        }
        Some(answer.and_then(|answer| answer.retry_after).unwrap_or_else(|| backoff(tries)))
    }

    /// Reads an error event of a stream. The status of its response was a success.
    pub(super) fn from_event(data: &[u8]) -> Self {
        // The event holds an `error` object, or is one.
        let event: Value = serde_json::from_slice(data).unwrap_or_default();
        let inside = if event["error"].is_object() { event["error"].clone() } else { event };
        let error: ErrorObject = serde_json::from_value(inside).unwrap_or_default();
        let answer = Answer {
            status: StatusCode::OK,
            code: error.code(),
            request_id: "unknown".to_owned(),
            retry_after: None,
            // Drawing may have begun.
            should_retry: Some(false),
        };
        if error.is_refusal() {
            Self::PromptRefused(answer)
        } else if error.has_code(&OUT_OF_CREDIT) {
            Self::OutOfCredit(answer)
        } else if error.has_code(&["rate_limit_exceeded", "slow_down"]) {
            Self::RateLimited(answer)
        } else {
            Self::Failed(answer)
        }
    }

    /// Reads an unsuccessful answer. A body that is not JSON, such as a proxy's HTML page, counts as empty.
    pub(super) fn from_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let request_id = printable(headers.get("x-request-id").and_then(|id| id.to_str().ok()));
        let retry_after = retry_after(headers);
        let should_retry = headers.get("x-should-retry").and_then(|value| value.to_str().ok()?.parse().ok());
        let error = serde_json::from_slice::<Body>(body).unwrap_or_default().error;
        let (code, has_code) = (error.code(), |known| error.has_code(known));
        let answer = Answer { status, code, request_id, retry_after, should_retry };
        let option = OPTIONS.iter().find(|(provider_name, _)| error.param == *provider_name);
        match status {
            // OpenAI answers 403 if the project may not use the model.
            _ if status.is_client_error() && has_code(&["model_not_found"]) => Self::ModelGone(answer),
            StatusCode::BAD_REQUEST if error.param == "model" => Self::ModelGone(answer),
            StatusCode::BAD_REQUEST if error.is_refusal() => Self::PromptRefused(answer),
            _ if has_code(&OUT_OF_CREDIT) => Self::OutOfCredit(answer),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied(answer),
            StatusCode::NOT_FOUND => Self::ModelGone(answer),
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited(answer),
            StatusCode::BAD_REQUEST => match option {
                Some((_, name)) => Self::OptionRefused(name, answer),
                None => match error.param.as_str() {
                    Some("stream" | "partial_images") => Self::StreamRefused(answer),
                    Some(param) if param.starts_with("reasoning") => Self::ReasoningRefused(answer),
                    _ => Self::BadRequest(answer),
                },
            },
            // Cloudflare answers 520 and 524: https://developers.cloudflare.com/support/troubleshooting/http-status-codes/
            _ if matches!(status.as_u16(), 504 | 520 | 524) => Self::GatewayTimeout(answer),
            _ => Self::Failed(answer),
        }
    }
}

impl ErrorObject {
    fn codes(&self) -> impl Iterator<Item = &str> {
        [self.code.as_str(), self.r#type.as_str(), self.innererror["code"].as_str()].into_iter().flatten()
    }

    fn code(&self) -> String {
        printable(self.codes().next())
    }

    fn has_code(&self, known: &[&str]) -> bool {
        self.codes().any(|code| known.contains(&code))
    }

    /// Whether the provider refuses the prompt. The type `image_generation_user_error` stands for any mistake
    /// of the user, so it counts only if neither a code nor another parameter names the mistake.
    fn is_refusal(&self) -> bool {
        let is_empty = |value: &Value| value.as_str().is_none_or(str::is_empty);
        let is_about_the_prompt = is_empty(&self.code) && (is_empty(&self.param) || self.param == "prompt");
        self.has_code(&REFUSALS) || is_about_the_prompt && self.r#type == "image_generation_user_error"
    }
}

/// An identifier from the provider if it is safe to log, else `unknown`.
fn printable(identifier: Option<&str>) -> String {
    match identifier {
        Some(identifier)
            if (1..=80).contains(&identifier.len())
                && identifier
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')) =>
        {
            identifier.to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

/// The pause of OpenAI's SDKs: 0.5 s, doubled after each try, at most 8 s, minus up to a quarter at random
/// (<https://github.com/openai/openai-python/blob/main/src/openai/_base_client.py>).
fn backoff(tries: u32) -> Duration {
    let longest = Duration::from_millis(500).saturating_mul(2_u32.saturating_pow(tries)).min(Duration::from_secs(8));
    longest.mul_f64(1.0 - fastrand::f64() / 4.0)
}

/// Reads `retry-after-ms`, else `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3). A date is
/// compared with the answer's own `Date` header.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(milliseconds) = text("retry-after-ms").and_then(|value| value.parse().ok()) {
        return Some(Duration::from_millis(milliseconds));
    }
    let value = text("retry-after")?;
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let (then, now) = (httpdate::parse_http_date(value).ok()?, httpdate::parse_http_date(text("date")?).ok()?);
    Some(then.duration_since(now).unwrap_or_default())
}
