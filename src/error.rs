//! The catalogue of errors: which status, which stable code, which sentence. It alone knows HTTP.
//!
//! A caller gets no more than that; the cause goes to the log.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::StatusCode;

use crate::generation::{Error, Failure, NotDelivered};
use crate::logs::chain;
use crate::spending::Refusal;
use crate::{azure, openai};

/// Errors that do not end by themselves.
const OPERATOR_MUST_LOOK: [&str; 4] =
    ["internal", "provider_misconfigured", "quota_unavailable", "storage_unavailable"];

/// Logs the failure of a request whose answer had begun.
pub(crate) fn log(problem: &Problem, invocation_id: &str) {
    let Problem { code, cause: Some(cause), .. } = problem else { return };
    let _span = tracing::info_span!("invocation", invocation.id = invocation_id).entered();
    if problem.is_for_operator() {
        tracing::error!(error.code = &**code, cause, "a watched request failed");
    } else {
        tracing::warn!(error.code = &**code, cause, "a watched request failed");
    }
}

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

    /// What a caller may have used cannot be found out.
    pub(crate) fn records_unavailable(error: &azure::Error) -> Self {
        unavailable(
            "quota_unavailable",
            "What was used today cannot be found out at the moment, so nothing is drawn. Please try again later.",
        )
        .caused_by(error)
    }

    /// Whether the operator must look: it does not end by itself.
    pub(crate) fn is_for_operator(&self) -> bool {
        OPERATOR_MUST_LOOK.contains(&&*self.code)
    }

    fn after(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    fn caused_by(self, error: &dyn std::error::Error) -> Self {
        Self { cause: Some(chain(error)), ..self }
    }
}

fn unavailable(code: &'static str, sentence: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, sentence)
}

fn too_many(code: &'static str, sentence: &str) -> Problem {
    Problem::new(StatusCode::TOO_MANY_REQUESTS, code, sentence)
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        match error {
            Error::Prompt(error) => Self::invalid_request(error.to_string()),
            Error::InvalidOption(error) => Self::invalid_request(error.to_string()),
            Error::Flagged(categories) => {
                let named = if categories.is_empty() { String::new() } else { format!(" ({})", categories.join(", ")) };
                let sentence =
                    format!("The prompt was refused before anything was drawn{named}. Please put it differently.");
                let rejected = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "prompt_rejected", sentence);
                Self { categories: categories.clone(), ..rejected }
            }
            Error::Refused(refusal, left) => Self::from(*refusal).after(*left),
            Error::KeyInProgress => Self::new(
                StatusCode::CONFLICT,
                "in_progress",
                "A request with this Idempotency-Key is being worked on. Please ask again in a moment.",
            )
            .after(Duration::from_secs(5)),
            Error::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "This Idempotency-Key was used for another request. Send a new key with a new request.",
            ),
            Error::KeyUnknown(cause) => Self {
                sentence: "Whether this request was sent before cannot be found out at the moment, so nothing is \
                           drawn. Please try again later."
                    .to_owned(),
                ..Self::from(cause.clone())
            },
            Error::RecordsUnavailable(cause) => Self::records_unavailable(cause),
            Error::QueueUnavailable(cause) => cause.clone().into(),
            Error::NoRecord => unavailable(
                "storage_unavailable",
                "How this request stands cannot be found out at the moment. Please ask again in a moment.",
            ),
            Error::NoQueue => Self::new(
                StatusCode::NOT_IMPLEMENTED,
                "jobs_unavailable",
                "Jobs need a queue: the operator should set AzureWebJobsStorage to a connection string with an \
                 account key. Leave the Prefer header out.",
            ),
            Error::Cancelled => {
                Self::new(StatusCode::CONFLICT, "job_cancelled", "The job was cancelled. Nothing was drawn.")
            }
            Error::Recorded(failure) => failure.into(),
            Error::Provider(openai) => {
                let failed = Self::from(&Failure::from(openai)).caused_by(openai);
                let waits = matches!(openai, openai::Error::RateLimited(_));
                Self { retry_after: openai.retry_after().filter(|_| waits), ..failed }
            }
            Error::Busy(cause) => Self::from(&Failure::Busy).after(Duration::from_secs(10)).caused_by(cause),
            Error::Spool(cause) => Self::from(&Failure::SpoolFull).caused_by(cause),
            Error::Storage(cause) => Self::from(&Failure::NotSaved).caused_by(cause),
            Error::Panicked => Self::internal("the generation panicked"),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::QuotaExceeded(_) => too_many("quota_exceeded", "Daily image quota reached."),
            Refusal::BudgetReserved => too_many(
                "budget_reached",
                "What may be spent today is reserved for images that are being drawn. Please try again in a minute.",
            ),
            Refusal::TooDear => too_many(
                "budget_reached",
                "This image may cost more than is left of what may be spent today. Choose a lower quality or a \
                 smaller size, or come back tomorrow.",
            ),
            Refusal::BudgetSpent => {
                too_many("budget_reached", "No more images can be drawn today. Please come back tomorrow.")
            }
        }
    }
}

impl From<&Failure> for Problem {
    fn from(failure: &Failure) -> Self {
        let bad_gateway = |code: &'static str, sentence: &str| Self::new(StatusCode::BAD_GATEWAY, code, sentence);
        let misconfigured = |sentence| bad_gateway("provider_misconfigured", sentence);
        match failure {
            Failure::PromptRefused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "prompt_rejected",
                "The image provider refused this prompt. Please put it differently.",
            ),
            Failure::OptionRefused(field) => Self::invalid_request(format!(
                "The image provider does not take this {field}. Choose another one, or leave it out."
            )),
            Failure::RateLimited => {
                too_many("provider_rate_limited", "The image provider is busy. Please try again in a moment.")
            }
            Failure::Timeout => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "provider_timeout",
                "The image provider did not answer in time. The image may have been drawn and billed all the same, so \
                 it was not asked for again.",
            ),
            Failure::AnswerLost => bad_gateway(
                "provider_answer_lost",
                "The image provider's answer was lost on the way. The image may have been drawn and billed all the \
                 same, so it was not asked for again.",
            ),
            Failure::Denied => misconfigured(
                "The image provider denied access: the operator should look at OPENAI_API_KEY and OPENAI_ORG_ID.",
            ),
            Failure::ModelGone => misconfigured(
                "The image provider does not have this model: the operator should look at OPENAI_IMAGE_MODEL and \
                 OPENAI_BASE_URL.",
            ),
            Failure::OutOfCredit => misconfigured(
                "The image provider's account is out of credit: the operator should look at its billing and at \
                 OPENAI_PROJECT_ID.",
            ),
            Failure::BadRequest => misconfigured(
                "The image provider did not take the request: the operator should look at OPENAI_IMAGE_MODEL and \
                 OPENAI_IMAGE_WIRE.",
            ),
            Failure::ProviderFailed | Failure::BadAnswer => {
                bad_gateway("provider_failed", "The image provider failed. Please try again later.")
            }
            Failure::NotSaved => unavailable(
                "storage_unavailable",
                "The image was drawn but could not be saved, so it is lost. Please try again later.",
            ),
            Failure::SpoolFull => unavailable(
                "storage_unavailable",
                "Images cannot be saved at the moment, so none is drawn. Please try again later.",
            ),
            Failure::Busy => {
                unavailable("busy", "Many images are being drawn right now. Please try again in a moment.")
            }
            Failure::Outdated => Self::new(
                StatusCode::CONFLICT,
                "job_outdated",
                "The image would cost more than when the job was accepted, or cannot be drawn any more. Nothing was \
                 drawn. Please send it again.",
            ),
            Failure::GivenUp => bad_gateway(
                "job_failed",
                "The image could not be drawn, after several tries. It does not count. Please try again later.",
            ),
            Failure::TooOld => bad_gateway(
                "job_failed",
                "The image could not be drawn within 2 hours. It does not count. Please try again later.",
            ),
            Failure::NotAccepted => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "quota_unavailable",
                "The request could not be accepted. Nothing was drawn. Please send it again.",
            ),
            Failure::Panicked => Self::internal("the generation panicked"),
        }
    }
}

impl From<azure::Error> for Problem {
    fn from(error: azure::Error) -> Self {
        let sentence = match &error {
            azure::Error::Signing => "Storage is not set up: the operator should look at the account key.",
            azure::Error::Answered { .. } | azure::Error::Unreachable | azure::Error::Malformed => {
                "Storage cannot be reached at the moment. Please try again later."
            }
        };
        unavailable("storage_unavailable", sentence).caused_by(&error)
    }
}

/// The Functions host reads no more of this than its status: it delivers the message again.
impl From<NotDelivered> for Problem {
    fn from(error: NotDelivered) -> Self {
        let sentence = "The job could not be delivered; it is delivered again.";
        match &error {
            NotDelivered::Unknown | NotDelivered::Records(_) | NotDelivered::Queue(_) => {
                unavailable("storage_unavailable", sentence).caused_by(&error)
            }
            NotDelivered::TooLong | NotDelivered::Panicked => Self::internal("a job could not be delivered"),
        }
    }
}
