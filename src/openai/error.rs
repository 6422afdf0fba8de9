//! What can go wrong at the provider. Nothing here holds a key, a prompt, a URL or the provider's
//! own sentences: those may quote any of them.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

/// No image or text came. The table of codes:
/// <https://platform.openai.com/docs/guides/error-codes>.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection: nothing was sent.
    #[error("the provider cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The time was up. An image may have been drawn and billed.
    #[error("the provider did not answer in time")]
    Timeout,
    /// The connection broke after the request was sent. An image may have been drawn and billed.
    #[error("the provider's answer was lost")]
    LostAnswer(#[source] Option<reqwest::Error>),
    /// A gateway on the way gave up waiting. An image may have been drawn and billed.
    #[error("a gateway before the provider gave up waiting")]
    GatewayTimeout(#[source] Answer),
    /// The provider will not draw this prompt.
    #[error("the provider refused the prompt")]
    PromptRefused(#[source] Answer),
    /// The provider does not take what the caller wished in this field of ours.
    #[error("the provider does not take the wish for {0}")]
    OptionRefused(&'static str, #[source] Answer),
    /// The model cannot be told not to reason.
    #[error("the provider does not take the field for reasoning")]
    ReasoningRefused(#[source] Answer),
    /// The provider does not stream images.
    #[error("the provider does not stream images")]
    StreamRefused(#[source] Answer),
    /// The provider did not take the request as it was.
    #[error("the provider rejected the request")]
    BadRequest(#[source] Answer),
    /// The key is wrong, or may not do this.
    #[error("the provider rejected the key or denied access")]
    Denied(#[source] Answer),
    /// The model or deployment does not exist (any more).
    #[error("the provider does not have the model")]
    ModelGone(#[source] Answer),
    /// The account has run out of credit or reached its limit.
    #[error("the provider's account is out of credit or at its spending limit")]
    OutOfCredit(#[source] Answer),
    /// Too many requests for now.
    #[error("the provider is limiting the rate")]
    RateLimited(#[source] Answer),
    /// A passing fault of the provider's, or an answer that nobody foresaw.
    #[error("the provider failed")]
    Failed(#[source] Answer),
    /// The answer came, and is of no use.
    #[error("the provider's answer is of no use: {0}")]
    BadAnswer(&'static str),
}

/// An unsuccessful answer, reduced to what may be logged.
#[derive(Debug, Clone, thiserror::Error)]
#[error("status {status}, code {code}, request id {request_id}")]
pub struct Answer {
    status: StatusCode,
    code: String,
    request_id: String,
    retry_after: Option<Duration>,
    /// `x-should-retry`
    should_retry: Option<bool>,
}

impl Answer {
    /// The provider's code, or `unknown`.
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

/// How each provider says that a prompt is not to be drawn.
const REFUSALS: [&str; 5] = [
    "moderation_blocked",
    "content_policy_violation",
    "content_filter",
    "contentFilter",
    "ResponsibleAIPolicyViolation",
];

/// What callers choose: the provider's name, and ours.
const OPTIONS: [(&str, &str); 5] = [
    ("size", "size"),
    ("quality", "quality"),
    ("style", "style"),
    ("background", "background"),
    ("output_format", "outputFormat"),
];

/// How it says that there is no money; the type `insufficient_quota` comes with most of them.
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

    /// Whether another request may be drawn, later: nothing was drawn, and what is in the way may pass
    /// or be mended by the operator.
    pub(crate) fn is_passing(&self) -> bool {
        self.pause(0).is_some() || matches!(self, Self::Denied(_) | Self::OutOfCredit(_))
    }

    /// When the provider wants to be asked again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited(answer) | Self::Failed(answer) => answer.retry_after,
            _ => None,
        }
    }

    /// How long to wait before the request may be sent again, after so many tries; `None` where it
    /// may not be: only what was certainly not done is worth a second try, because an image that
    /// was drawn is billed whether its answer arrived or not.
    pub(super) fn pause(&self, tries: u32) -> Option<Duration> {
        let answer = match self {
            Self::Unreachable(_) => None,
            Self::RateLimited(answer) => Some(answer),
            Self::Failed(answer) if matches!(answer.status.as_u16(), 500 | 502 | 503) => Some(answer),
            // The provider knows better.
            Self::Failed(answer) if answer.should_retry == Some(true) => Some(answer),
            _ => return None,
        };
        if answer.is_some_and(|answer| answer.should_retry == Some(false)) {
            return None;
        }
        Some(answer.and_then(|answer| answer.retry_after).unwrap_or_else(|| backoff(tries)))
    }

    /// An error that came inside of an answer whose status was success.
    pub(super) fn from_event(data: &[u8]) -> Self {
        // An event of type `error` has it inside, or is it.
        let event: Value = serde_json::from_slice(data).unwrap_or_default();
        let inside = if event["error"].is_object() { event["error"].clone() } else { event };
        let error: ErrorObject = serde_json::from_value(inside).unwrap_or_default();
        let answer = Answer {
            status: StatusCode::OK,
            code: error.code(),
            request_id: "unknown".to_owned(),
            retry_after: None,
            // It may have begun to draw.
            should_retry: Some(false),
        };
        if error.is_refusal() {
            Self::PromptRefused(answer)
        } else if error.says(&OUT_OF_CREDIT) {
            Self::OutOfCredit(answer)
        } else if error.says(&["rate_limit_exceeded", "slow_down"]) {
            Self::RateLimited(answer)
        } else {
            Self::Failed(answer)
        }
    }

    /// An unsuccessful answer; a body that is no JSON (a proxy's page) counts as empty.
    pub(super) fn from_answer(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let request_id = printable(headers.get("x-request-id").and_then(|id| id.to_str().ok()));
        let retry_after = retry_after(headers);
        let should_retry = headers.get("x-should-retry").and_then(|value| value.to_str().ok()?.parse().ok());
        let error = serde_json::from_slice::<Body>(body).unwrap_or_default().error;
        let (code, says) = (error.code(), |known| error.says(known));
        let answer = Answer { status, code, request_id, retry_after, should_retry };
        let option = OPTIONS.iter().find(|(theirs, _)| error.param == *theirs);
        match status {
            // A model that a project may not use is 403.
            _ if status.is_client_error() && says(&["model_not_found"]) => Self::ModelGone(answer),
            StatusCode::BAD_REQUEST if error.param == "model" => Self::ModelGone(answer),
            StatusCode::BAD_REQUEST if error.is_refusal() => Self::PromptRefused(answer),
            _ if says(&OUT_OF_CREDIT) => Self::OutOfCredit(answer),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied(answer),
            StatusCode::NOT_FOUND => Self::ModelGone(answer),
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited(answer),
            StatusCode::BAD_REQUEST => match option {
                Some((_, ours)) => Self::OptionRefused(ours, answer),
                None => match error.param.as_str() {
                    Some("stream" | "partial_images") => Self::StreamRefused(answer),
                    Some(param) if param.starts_with("reasoning") => Self::ReasoningRefused(answer),
                    _ => Self::BadRequest(answer),
                },
            },
            // 520 and 524 are Cloudflare's: https://developers.cloudflare.com/support/troubleshooting/http-status-codes/
            _ if matches!(status.as_u16(), 504 | 520 | 524) => Self::GatewayTimeout(answer),
            _ => Self::Failed(answer),
        }
    }
}

impl ErrorObject {
    fn words(&self) -> impl Iterator<Item = &str> {
        [self.code.as_str(), self.r#type.as_str(), self.innererror["code"].as_str()].into_iter().flatten()
    }

    fn code(&self) -> String {
        printable(self.words().next())
    }

    fn says(&self, known: &[&str]) -> bool {
        self.words().any(|word| known.contains(&word))
    }

    /// The type says only that the user is to change something; the code says what, if there is one.
    fn is_refusal(&self) -> bool {
        let is_empty = |word: &Value| word.as_str().is_none_or(str::is_empty);
        let is_about_the_prompt = is_empty(&self.code) && (is_empty(&self.param) || self.param == "prompt");
        self.says(&REFUSALS) || is_about_the_prompt && self.r#type == "image_generation_user_error"
    }
}

/// An identifier of the provider's that is safe to log, or `unknown`.
fn printable(word: Option<&str>) -> String {
    match word {
        Some(word)
            if (1..=80).contains(&word.len())
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')) =>
        {
            word.to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

/// As the official SDKs wait: half a second, doubled each time, 8 s at most, less up to a quarter.
fn backoff(tries: u32) -> Duration {
    let longest = Duration::from_millis(500).saturating_mul(2_u32.saturating_pow(tries)).min(Duration::from_secs(8));
    longest.mul_f64(1.0 - fastrand::f64() / 4.0)
}

/// `retry-after-ms`, else `Retry-After` in seconds or as a date, which is read against the answer's
/// own `Date` (RFC 9110, 10.2.3).
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
