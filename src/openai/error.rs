//! Errors of the provider. No variant holds a key, a prompt, a URL or the provider's message, because a
//! message may quote any of them.

mod kind;
mod words;

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use crate::azure::NoToken;

/// Why the provider returned no image or no text. OpenAI's error codes:
/// <https://platform.openai.com/docs/guides/error-codes>.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no token of the app's identity for the provider, so the request was not sent.
    #[error("there is no token of the app's identity for the provider")]
    NoToken(#[source] NoToken),
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
    /// The provider failed after a time in which it may have drawn an image or written a text. A gateway does this,
    /// for example, when it cannot pass on an image that the provider has drawn. The image may have been billed.
    #[error("the provider failed late, when an image or a text may have been billed")]
    FailedLate(#[source] Answer),
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
    /// The key is wrong (401), or the key, the account or the model lacks a permission (403).
    #[error("the provider rejected the key or denied access")]
    Denied(#[source] Answer),
    /// Access to this request is denied (403), and the answer names neither the key nor the account nor the
    /// model: a filter in front of the provider, for example. Other requests may succeed.
    #[error("the provider or a filter in front of it denied the request")]
    Blocked(#[source] Answer),
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
    /// Whether words of the message, and no code, gave the answer its meaning. A message may quote the prompt,
    /// so such a meaning counts for this request only.
    by_words: bool,
}

impl Answer {
    /// Whether the answer says something about every request, and not only about its own.
    pub(super) fn concerns_all(&self) -> bool {
        !self.by_words
    }

    /// The provider's error code, or `unknown`.
    pub(super) fn code(&self) -> &str {
        &self.code
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    error: ErrorObject,
    /// FastAPI's list of fields that are invalid (<https://fastapi.tiangolo.com/tutorial/handling-errors/>).
    detail: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ErrorObject {
    r#type: Value,
    code: Value,
    param: Value,
    innererror: Value,
    /// Only searched for the words below: it may quote the prompt or the key.
    message: Value,
}

/// The shortest time in which a provider can draw an image. A server error that comes sooner means that
/// nothing was drawn.
pub(super) const FASTEST_IMAGE: Duration = Duration::from_secs(3);
/// The shortest time in which a provider can write a text.
pub(super) const FASTEST_TEXT: Duration = Duration::from_millis(500);

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
const OUT_OF_CREDIT: [&str; 7] = [
    "insufficient_quota",
    "budget_exceeded",
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
        self.pause(0).is_some() || matches!(self, Self::NoToken(_) | Self::Denied(_) | Self::OutOfCredit(_))
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

    /// The error of an answer that came after `elapsed`: a server error, a rate limit (429) or a timeout (408) of a
    /// gateway counts as a lost answer if an image or a text, which takes `fastest` at least, may be complete by then.
    pub(super) fn after(self, elapsed: Duration, fastest: Duration) -> Self {
        match self {
            Self::Failed(answer)
                if elapsed >= fastest
                    && (answer.status.is_server_error()
                        || answer.status == StatusCode::REQUEST_TIMEOUT
                        || answer.status.is_success()) =>
            {
                Self::FailedLate(answer)
            }
            // A gateway may pass on its own 429 after the provider has drawn and billed an image.
            Self::RateLimited(answer) if elapsed >= fastest => Self::FailedLate(answer),
            error => error,
        }
    }

    /// Whether the error was a server's failure to answer, and neither an event in a stream nor a rate limit.
    pub(super) fn is_before_the_stream(&self) -> bool {
        matches!(self, Self::FailedLate(answer)
            if !answer.status.is_success() && answer.status != StatusCode::TOO_MANY_REQUESTS)
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
            by_words: false,
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
        let id = ["x-request-id", "x-litellm-call-id"].into_iter().find_map(|name| headers.get(name)?.to_str().ok());
        let request_id = printable(id);
        let retry_after = retry_after(headers);
        let should_retry = headers.get("x-should-retry").and_then(|value| value.to_str().ok()?.parse().ok());
        let Body { error, detail } = serde_json::from_slice::<Body>(body).unwrap_or_default();
        let (code, has_code) = (error.code(), |known| error.has_code(known));
        let answer = Answer { status, code, request_id, retry_after, should_retry, by_words: false };
        let by_words = |has_code: bool| Answer { by_words: !has_code, ..answer.clone() };
        let fields = detail.as_array().into_iter().flatten().filter_map(|field| field["loc"].as_array()?.last());
        let param = error.param.as_str().or_else(|| fields.filter_map(Value::as_str).next()).unwrap_or_default();
        let option = OPTIONS.iter().find(|(provider_name, _)| param == *provider_name);
        let is_bad_request = matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY);
        match status {
            // OpenAI answers 403 if the project may not use the model.
            _ if status.is_client_error() && has_code(&["model_not_found"]) => Self::ModelGone(answer),
            _ if status.is_client_error() && (has_code(&OUT_OF_CREDIT) || error.says(&words::OUT_OF_CREDIT)) => {
                Self::OutOfCredit(by_words(has_code(&OUT_OF_CREDIT)))
            }
            _ if is_bad_request && (param == "model" || error.says(&words::MODEL_GONE)) => Self::ModelGone(answer),
            _ if is_bad_request && (error.is_refusal() || error.says(&words::REFUSED)) => Self::PromptRefused(answer),
            _ if is_bad_request && (has_code(&["no_db_connection"]) || error.says(&words::DENIED)) => {
                Self::Denied(by_words(has_code(&["no_db_connection"])))
            }
            StatusCode::UNAUTHORIZED => Self::Denied(answer),
            StatusCode::FORBIDDEN if error.has_access_code() || error.says(&words::ACCESS) => {
                Self::Denied(by_words(error.has_access_code()))
            }
            StatusCode::FORBIDDEN => Self::Blocked(answer),
            StatusCode::NOT_FOUND => Self::ModelGone(answer),
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited(answer),
            _ if is_bad_request => match option {
                Some((_, name)) => Self::OptionRefused(name, answer),
                None if matches!(param, "stream" | "partial_images") => Self::StreamRefused(answer),
                None if param.starts_with("reasoning")
                    || error.says(&words::REASONING) && error.says(&["not supported"]) =>
                {
                    Self::ReasoningRefused(answer)
                }
                None => Self::BadRequest(answer),
            },
            // Cloudflare answers 520 and 524: https://developers.cloudflare.com/support/troubleshooting/http-status-codes/
            _ if matches!(status.as_u16(), 504 | 520 | 524) => Self::GatewayTimeout(answer),
            _ => Self::Failed(answer),
        }
    }
}

impl ErrorObject {
    /// Gateways put the status into `code`, which says nothing more.
    fn codes(&self) -> impl Iterator<Item = &str> {
        let code = self.code.as_str().filter(|code| !code.bytes().all(|byte| byte.is_ascii_digit()));
        [code, self.r#type.as_str(), self.innererror["code"].as_str()].into_iter().flatten()
    }

    /// Whether the message contains one of these words.
    fn says(&self, words: &[&str]) -> bool {
        self.message.as_str().is_some_and(|message| words.iter().any(|word| message.contains(word)))
    }

    /// Whether the error is about the key, the account or the model, and so concerns every request.
    fn has_access_code(&self) -> bool {
        const ABOUT: [&str; 10] = [
            "key",
            "account",
            "organization",
            "project",
            "model",
            "permission",
            "country",
            "region",
            "auth",
            "verified",
        ];
        let mut texts = self.codes().chain(self.param.as_str()).map(str::to_ascii_lowercase);
        texts.any(|text| ABOUT.iter().any(|word| text.contains(word)))
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
        let has_no_code = self.code.as_str().is_none_or(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
        let is_about_the_prompt = has_no_code && (is_empty(&self.param) || self.param == "prompt");
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The meaning of an answer, in one word.
    fn meaning(status: u16, body: &str) -> String {
        let status = StatusCode::from_u16(status).expect("a status");
        let error = Error::from_answer(status, &HeaderMap::new(), body.as_bytes());
        match error {
            Error::OptionRefused(field, _) => format!("option {field}"),
            error => format!("{error:?}").split(['(', ' ']).next().unwrap_or_default().to_owned(),
        }
    }

    fn litellm(status: u16, message: &str, kind: &str, param: &str) -> (u16, String) {
        let param = if param.is_empty() { Value::Null } else { param.into() };
        let error = serde_json::json!({"message": message, "type": kind, "param": param, "code": status.to_string()});
        (status, serde_json::json!({"error": error}).to_string())
    }

    /// The bodies of LiteLLM 1.106, which drops codes and says the same in messages.
    #[test]
    fn a_gateways_words_mean_what_the_providers_codes_mean() {
        for ((status, body), wanted) in [
            (
                litellm(
                    400,
                    "litellm.BadRequestError: OpenAIException - Your request was rejected by the safety system.",
                    "image_generation_user_error",
                    "",
                ),
                "PromptRefused",
            ),
            (
                litellm(
                    400,
                    "litellm.BadRequestError: litellm.ContentPolicyViolationError: ContentPolicyViolationError: \
                     OpenAIException - Your request was rejected as a result of our safety system.",
                    "invalid_request_error",
                    "",
                ),
                "PromptRefused",
            ),
            (
                litellm(
                    400,
                    "litellm.BadRequestError: OpenAIException - The response was filtered due to the prompt triggering \
                     Azure OpenAI's content management policy.",
                    "invalid_request_error",
                    "prompt",
                ),
                "PromptRefused",
            ),
            (
                litellm(
                    400,
                    "litellm.BadRequestError: OpenAIException - Invalid value: 'webp'.",
                    "invalid_request_error",
                    "output_format",
                ),
                "option outputFormat",
            ),
            (
                litellm(
                    400,
                    "400: {'error': '/image/generations: Invalid model name passed in model=nope. Call `/v1/models` \
                     to view available models for your key.'}",
                    "invalid_request_error",
                    "",
                ),
                "ModelGone",
            ),
            (
                litellm(404, "litellm.NotFoundError: The model `x` does not exist", "invalid_request_error", ""),
                "ModelGone",
            ),
            (litellm(400, "No connected db.", "no_db_connection", ""), "Denied"),
            (litellm(401, "Authentication Error", "token_not_found_in_db", "key"), "Denied"),
            (litellm(403, "key not allowed to access model.", "key_model_access_denied", "model"), "Denied"),
            (
                litellm(422, "Budget has been exceeded! Current cost: 12.5, Max budget: 10.0", "budget_exceeded", ""),
                "OutOfCredit",
            ),
            (
                litellm(
                    429,
                    "No deployments available - crossed budget: Exceeded budget for provider openai: 0.04 >= 1e-06",
                    "internal_server_error",
                    "",
                ),
                "OutOfCredit",
            ),
            (
                litellm(
                    429,
                    "litellm.RateLimitError: OpenAIException - You exceeded your current quota",
                    "throttling_error",
                    "",
                ),
                "OutOfCredit",
            ),
            (
                litellm(
                    400,
                    "litellm.BadRequestError: OpenAIException - Billing hard limit has been reached",
                    "invalid_request_error",
                    "",
                ),
                "OutOfCredit",
            ),
            (
                litellm(429, "litellm.RateLimitError: Limit resets at: 2026-11-21", "throttling_error", ""),
                "RateLimited",
            ),
            (
                litellm(
                    400,
                    "litellm.UnsupportedParamsError: reasoning.effort=none is not supported for gpt-5-mini.",
                    "invalid_request_error",
                    "",
                ),
                "ReasoningRefused",
            ),
            (litellm(500, "litellm.InternalServerError: x", "internal_server_error", ""), "Failed"),
            (litellm(408, "litellm.Timeout: APITimeoutError", "invalid_request_error", ""), "Failed"),
            // A schema's complaint (FastAPI).
            ((422, r#"{"detail":[{"loc":["body","quality"],"msg":"x","type":"enum"}]}"#.to_owned()), "option quality"),
            // A filter in front of the provider.
            ((403, "<html>Request blocked</html>".to_owned()), "Blocked"),
            ((403, r#"{"error":{"message":"blocked","type":"waf","code":"rule_7"}}"#.to_owned()), "Blocked"),
            ((403, r#"{"error":{"code":"unsupported_country_region_territory"}}"#.to_owned()), "Denied"),
            (
                (403, r#"{"error":{"message":"Your organization must be verified to use the model."}}"#.to_owned()),
                "Denied",
            ),
        ] {
            assert_eq!(meaning(status, &body), wanted, "{status} {body}");
        }
    }

    #[test]
    fn a_late_failure_of_a_server_counts_as_a_lost_answer() {
        let failed =
            |status| Error::from_answer(StatusCode::from_u16(status).expect("a status"), &HeaderMap::new(), b"");
        for status in [408, 429, 500, 502, 503] {
            assert!(matches!(failed(status).after(FASTEST_IMAGE, FASTEST_IMAGE), Error::FailedLate(_)), "{status}");
            let early = failed(status).after(FASTEST_IMAGE / 2, FASTEST_IMAGE);
            assert!(matches!(early, Error::Failed(_) | Error::RateLimited(_)), "{status}");
        }
        // A rate limit says nothing about streams.
        assert!(!failed(429).after(FASTEST_IMAGE, FASTEST_IMAGE).is_before_the_stream());
        assert_eq!(failed(500).after(FASTEST_IMAGE, FASTEST_IMAGE).pause(0), None, "it is not repeated");
    }
}
