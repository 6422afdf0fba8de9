//! The catalogue of errors: which status, which stable code, which sentence. It alone knows HTTP.
//!
//! A caller gets no more than that; the cause goes to the log.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::StatusCode;

use crate::jobs::Trouble;
use crate::logs::chain;
use crate::{gallery, generate, idempotency, openai, quota};

/// What a caller is told when a request fails.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// Stable: a front end may test for it.
    pub code: Cow<'static, str>,
    /// One sentence or two for a person.
    pub sentence: String,
    /// When another try is worth it.
    pub retry_after: Option<Duration>,
    /// For which a prompt was refused, in the provider's words.
    pub categories: Vec<String>,
    /// For the log: the chain of causes, free of secrets, prompts and links.
    pub cause: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, sentence: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            sentence: sentence.into(),
            retry_after: None,
            categories: Vec::new(),
            cause: None,
        }
    }

    pub(crate) fn invalid_request(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", sentence)
    }

    pub(crate) fn too_large(limit_kib: usize) -> Self {
        let sentence = format!("The request is too large: {limit_kib} KiB at most.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", sentence)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "There is nothing at this address.")
    }

    pub(crate) fn method_not_allowed() -> Self {
        let sentence = "This address does not take this method.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", sentence)
    }

    pub(crate) fn internal(cause: &str) -> Self {
        let sentence = "Something went wrong on our side. Please try again.";
        Self { cause: Some(cause.to_owned()), ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", sentence) }
    }

    fn caused_by(self, error: &dyn std::error::Error) -> Self {
        Self { cause: Some(chain(error)), ..self }
    }
}

impl From<Trouble> for Problem {
    fn from(trouble: Trouble) -> Self {
        let status = StatusCode::from_u16(trouble.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { categories: trouble.categories, ..Self::new(status, trouble.code, trouble.sentence) }
    }
}

impl From<generate::Error> for Problem {
    fn from(error: generate::Error) -> Self {
        match error {
            generate::Error::Prompt(error) => Self::invalid_request(error.to_string()),
            generate::Error::Wish(error) => Self::invalid_request(error.to_string()),
            generate::Error::Provider(error) => error.into(),
            generate::Error::Idempotency(error) => error.into(),
            generate::Error::Flagged(categories) => {
                let sentence = if categories.is_empty() {
                    "The prompt was refused before anything was drawn. Please put it differently.".to_owned()
                } else {
                    let named = categories.join(", ");
                    format!("The prompt was refused before anything was drawn ({named}). Please put it differently.")
                };
                let rejected = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "prompt_rejected", sentence);
                Self { categories, ..rejected }
            }
            generate::Error::Quota(error) => error.into(),
            generate::Error::Busy(error) => Self {
                retry_after: Some(Duration::from_secs(10)),
                ..Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "busy",
                    "Many pictures are being drawn right now. Please try again in a moment.",
                )
                .caused_by(&error)
            },
            generate::Error::Spool(error) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "storage_unavailable",
                "Pictures cannot be saved at the moment, so none is drawn. Please try again later.",
            )
            .caused_by(&error),
            generate::Error::Panicked => Self::internal("the generation panicked"),
            generate::Error::Jobs(error) => error.into(),
            generate::Error::Withdrawn => Self::internal("a job was cancelled while it was worked on"),
            generate::Error::Storage(error) => {
                let sentence = "The picture was drawn but could not be saved, so it is lost. Please try again later.";
                Self { sentence: sentence.to_owned(), ..error.into() }
            }
        }
    }
}

impl From<quota::Error> for Problem {
    fn from(error: quota::Error) -> Self {
        match &error {
            quota::Error::Exceeded { retry_after, .. } => Self {
                retry_after: Some(*retry_after),
                ..Self::new(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", "Daily image quota reached.")
            },
            quota::Error::Reserved { retry_after } => Self {
                retry_after: Some(*retry_after),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "budget_reached",
                    "What may be spent today is reserved for pictures that are being drawn. Please try again in a minute.",
                )
            },
            quota::Error::TooDear { retry_after } => Self {
                retry_after: Some(*retry_after),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "budget_reached",
                    "This picture may cost more than is left of what may be spent today. Choose a lower quality or a \
                     smaller size, or come back tomorrow.",
                )
            },
            quota::Error::Spent { retry_after } => Self {
                retry_after: Some(*retry_after),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "budget_reached",
                    "No more pictures can be drawn today. Please come back tomorrow.",
                )
            },
            quota::Error::Unavailable(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "quota_unavailable",
                "What was used today cannot be found out at the moment, so nothing is drawn. Please try again later.",
            )
            .caused_by(&error),
        }
    }
}

impl From<idempotency::Error> for Problem {
    fn from(error: idempotency::Error) -> Self {
        match error {
            idempotency::Error::InProgress => Self {
                retry_after: Some(Duration::from_secs(5)),
                ..Self::new(
                    StatusCode::CONFLICT,
                    "in_progress",
                    "A request with this Idempotency-Key is being worked on. Please ask again in a moment.",
                )
            },
            idempotency::Error::Reused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "This Idempotency-Key was used for another request. Send a new key with a new request.",
            ),
            idempotency::Error::Table(error) => Self {
                sentence: "Whether this request was sent before cannot be found out at the moment, so nothing is \
                           drawn. Please try again later."
                    .to_owned(),
                ..error.into()
            },
        }
    }
}

impl From<gallery::Error> for Problem {
    fn from(error: gallery::Error) -> Self {
        let problem = match &error {
            gallery::Error::Signing => {
                let sentence = "Storage is not set up: the operator should look at the account key.";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", sentence)
            }
            gallery::Error::Answered { .. } | gallery::Error::Unreachable | gallery::Error::Malformed => {
                let sentence = "Storage cannot be reached at the moment. Please try again later.";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", sentence)
            }
        };
        problem.caused_by(&error)
    }
}

impl From<openai::Error> for Problem {
    fn from(error: openai::Error) -> Self {
        let bad_gateway = |code: &'static str, sentence: &str| Self::new(StatusCode::BAD_GATEWAY, code, sentence);
        let misconfigured = |sentence| bad_gateway("provider_misconfigured", sentence);
        let failed = || bad_gateway("provider_failed", "The image provider failed. Please try again later.");
        let problem = match &error {
            openai::Error::PromptRefused(_) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "prompt_rejected",
                "The image provider refused this prompt. Please put it differently.",
            ),
            openai::Error::WishRefused(field, _) => Self::invalid_request(format!(
                "The image provider does not take this {field}. Choose another one, or leave it out."
            )),
            openai::Error::RateLimited(answer) => Self {
                retry_after: answer.retry_after(),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "provider_rate_limited",
                    "The image provider is busy. Please try again in a moment.",
                )
            },
            openai::Error::Timeout => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "provider_timeout",
                "The image provider did not answer in time. The picture may have been drawn and billed all the same, so \
                 it was not asked for again.",
            ),
            openai::Error::LostAnswer(_) | openai::Error::GatewayTimeout(_) => bad_gateway(
                "provider_answer_lost",
                "The image provider's answer was lost on the way. The picture may have been drawn and billed all the \
                 same, so it was not asked for again.",
            ),
            openai::Error::Denied(_) => misconfigured(
                "The image provider denied access: the operator should look at OPENAI_API_KEY and OPENAI_ORG_ID.",
            ),
            openai::Error::ModelGone(_) => misconfigured(
                "The image provider does not have this model: the operator should look at OPENAI_IMAGE_MODEL and \
                 OPENAI_BASE_URL.",
            ),
            openai::Error::OutOfCredit(_) => misconfigured(
                "The image provider's account is out of credit: the operator should look at its billing and at \
                 OPENAI_PROJECT_ID.",
            ),
            openai::Error::BadRequest(_) | openai::Error::ReasoningRefused(_) | openai::Error::StreamRefused(_) => {
                misconfigured(
                    "The image provider did not take the request: the operator should look at OPENAI_IMAGE_MODEL and \
                 OPENAI_IMAGE_WIRE.",
                )
            }
            openai::Error::Unreachable(_) | openai::Error::Failed(_) | openai::Error::BadAnswer(_) => failed(),
        };
        problem.caused_by(&error)
    }
}
