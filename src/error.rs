//! Maps every failure to an HTTP status, a stable error code and a sentence. The layers below do not
//! know HTTP.
//!
//! An answer contains nothing else about a failure; its cause goes to the log.

mod code;

use std::time::Duration;

pub use self::code::Code;
use crate::gallery::NoListing;
use crate::generation::{Error, Failure, NotDelivered};
use crate::logs::chain;
use crate::spending::Refusal;
use crate::{azure, openai};

/// Logs the failure of a request whose event stream has already begun, so that its status is 200.
pub(crate) fn log(problem: &Problem) {
    let Problem { code, cause: Some(cause), .. } = problem else { return };
    if code.needs_operator() {
        tracing::error!(
            event = "stream_failed",
            error.code = code.as_str(),
            cause,
            "a request with an event stream failed"
        );
    } else {
        tracing::warn!(
            event = "stream_failed",
            error.code = code.as_str(),
            cause,
            "a request with an event stream failed"
        );
    }
}

/// The answer to a request that failed.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The error code, which has one HTTP status.
    pub code: Code,
    /// A sentence or two for the user.
    pub sentence: String,
    /// The wait after which a retry can succeed, for `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The provider's names of the moderation categories for which it flagged the prompt.
    pub categories: Vec<String>,
    /// The chain of causes, for the log. It contains no secret, prompt or link.
    pub cause: Option<String>,
}

impl Problem {
    pub(crate) fn new(code: Code, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into(), retry_after: None, categories: Vec::new(), cause: None }
    }

    pub(crate) fn invalid_request(sentence: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, sentence)
    }

    pub(crate) fn too_large(limit_kib: usize) -> Self {
        let sentence = format!("The request is too large. The limit for its body is {limit_kib} KiB.");
        Self::new(Code::TooLarge, sentence)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(Code::NotFound, "This path does not exist.")
    }

    pub(crate) fn cross_site() -> Self {
        let sentence = "This page is on another site, which may not act for signed-in users. The operator can add its \
                        origin to ALLOWED_ORIGINS.";
        Self::new(Code::CrossSiteRefused, sentence)
    }

    pub(crate) fn method_not_allowed() -> Self {
        let sentence = "This path does not support this HTTP method.";
        Self::new(Code::MethodNotAllowed, sentence)
    }

    pub(crate) fn internal(cause: &str) -> Self {
        let sentence = "The server failed. Please try again.";
        Self { cause: Some(cause.to_owned()), ..Self::new(Code::Internal, sentence) }
    }

    /// The records cannot be reached, so quota and budget cannot be checked.
    pub(crate) fn records_unavailable(error: &azure::Error) -> Self {
        let sentence = error.advice().unwrap_or(
            "Today's usage cannot be read at the moment, and no image is drawn until it can be. Please try again later.",
        );
        Self::new(Code::QuotaUnavailable, sentence).caused_by(error)
    }

    /// The process has no room for another answer of this kind; the sentence says why.
    pub(crate) fn busy(sentence: &'static str) -> Self {
        Self::new(Code::Busy, sentence).after(Duration::from_secs(10))
    }

    fn after(self, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..self }
    }

    fn caused_by(self, error: &dyn std::error::Error) -> Self {
        Self { cause: Some(chain(error)), ..self }
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        match error {
            Error::Prompt(error) => Self::invalid_request(error.to_string()),
            Error::InvalidOption(error) => Self::invalid_request(error.to_string()),
            Error::Flagged(categories) => {
                let named = if categories.is_empty() { String::new() } else { format!(" ({})", categories.join(", ")) };
                let sentence =
                    format!("The content check refused this prompt{named}. Nothing was drawn. Please rephrase it.");
                let rejected = Self::new(Code::PromptRejected, sentence);
                Self { categories: categories.clone(), ..rejected }
            }
            Error::Refused(refusal, left) => Self::from(*refusal).after(*left),
            Error::KeyInProgress => Self::new(
                Code::InProgress,
                "A request with this Idempotency-Key is in progress. Please send it again in a moment.",
            )
            .after(Duration::from_secs(5)),
            Error::KeyReused => Self::new(
                Code::IdempotencyKeyReused,
                "This Idempotency-Key was used for another request. Please send a new key with each new request.",
            ),
            Error::KeyUnknown(cause) => Self {
                sentence: "The Idempotency-Key cannot be checked at the moment, so no image is drawn. Please try \
                           again later with the same key."
                    .to_owned(),
                ..Self::from(cause.clone())
            },
            Error::RecordsUnavailable(cause) => Self::records_unavailable(cause),
            Error::QueueUnavailable(cause) => cause.clone().into(),
            Error::NoRecord => Self::new(
                Code::StorageUnavailable,
                "The state of this request cannot be read at the moment. Please send it again in a moment.",
            ),
            Error::NoQueue => Self::new(
                Code::JobsUnavailable,
                "Jobs are not available here. Please send the request without the Prefer header. The operator can \
                 enable jobs with AzureWebJobsStorage or AzureWebJobsStorage__accountName.",
            ),
            Error::Cancelled => Self::new(Code::JobCancelled, "The job was cancelled. Nothing was drawn."),
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
            Refusal::QuotaExceeded(_) => {
                Self::new(Code::QuotaExceeded, "Daily image quota reached. It resets at midnight UTC.")
            }
            Refusal::RefusalsExceeded => Self::new(
                Code::RefusalsExceeded,
                "Too many of your prompts were refused today. You can draw again after midnight UTC.",
            ),
            Refusal::JobsExceeded => Self::new(
                Code::JobsExceeded,
                "You have made as many jobs as you can in a day. You can make new ones after midnight UTC.",
            ),
            Refusal::CallerBudgetReached => Self::new(
                Code::CallerBudgetReached,
                "This image would go beyond what one user may draw in a day. Please choose a smaller size or a lower \
                 quality, or try again later.",
            ),
            Refusal::BudgetReserved => Self::new(
                Code::BudgetReached,
                "Today's remaining budget is reserved for images that are being drawn. Please try again in a minute.",
            ),
            Refusal::TooDear => Self::new(
                Code::BudgetReached,
                "This image may cost more than today's remaining budget. Choose a lower quality or a smaller size, \
                 or come back tomorrow.",
            ),
            Refusal::BudgetSpent => {
                Self::new(Code::BudgetReached, "No more images can be drawn today. Please come back tomorrow.")
            }
        }
    }
}

impl From<&Failure> for Problem {
    fn from(failure: &Failure) -> Self {
        let misconfigured = |sentence| Self::new(Code::ProviderMisconfigured, sentence);
        match failure {
            Failure::PromptRefused => {
                Self::new(Code::PromptRejected, "The image provider refused this prompt. Please rephrase it.")
            }
            Failure::OptionRefused(field) => Self::invalid_request(format!(
                "The image provider does not support this {field}. Please choose another one or omit it."
            )),
            Failure::RateLimited => {
                Self::new(Code::ProviderRateLimited, "The image provider is busy. Please try again in a moment.")
            }
            Failure::Timeout => Self::new(
                Code::ProviderTimeout,
                "The image provider did not answer in time. It may have drawn and billed the image, so the request \
                 was not repeated.",
            ),
            Failure::AnswerLost => Self::new(
                Code::ProviderAnswerLost,
                "The image provider's answer was lost. The provider may have drawn and billed the image, so the \
                 request was not repeated.",
            ),
            Failure::Denied => misconfigured(
                "The image provider denied access. The operator should check OPENAI_API_KEY and OPENAI_ORG_ID, or, with \
                 OPENAI_AUTH=identity, the app's identity and its role Cognitive Services OpenAI User.",
            ),
            Failure::ModelGone => misconfigured(
                "The image provider does not have this model. The operator should check OPENAI_IMAGE_MODEL and \
                 OPENAI_BASE_URL.",
            ),
            Failure::OutOfCredit => misconfigured(
                "The image provider's account has no credit left. The operator should check its billing and \
                 OPENAI_PROJECT_ID.",
            ),
            Failure::BadRequest => misconfigured(
                "The image provider rejected the request as invalid. The operator should check OPENAI_IMAGE_MODEL \
                 and OPENAI_IMAGE_WIRE.",
            ),
            Failure::ProviderFailed | Failure::BadAnswer => {
                Self::new(Code::ProviderFailed, "The image provider failed. Please try again later.")
            }
            Failure::NotSaved => Self::new(
                Code::StorageUnavailable,
                "The image was drawn, but it could not be saved and is lost. Please try again later.",
            ),
            Failure::SpoolFull => Self::new(
                Code::StorageUnavailable,
                "Images cannot be saved at the moment, so no image is drawn. Please try again later.",
            ),
            Failure::Busy => {
                Self::new(Code::Busy, "The server is drawing as many images as it can. Please try again in a moment.")
            }
            Failure::Outdated => Self::new(
                Code::JobOutdated,
                "Since the job was accepted, its image has become more expensive or can no longer be drawn. Nothing \
                 was drawn. Please send the request again.",
            ),
            Failure::GivenUp => Self::new(
                Code::JobFailed,
                "The image could not be drawn after several attempts. It does not count against the daily quota. \
                 Please try again later.",
            ),
            Failure::TooOld => Self::new(
                Code::JobFailed,
                "The image could not be drawn within 2 hours. It does not count against the daily quota. Please try \
                 again later.",
            ),
            Failure::NotAccepted => Self::new(
                Code::QuotaUnavailable,
                "The request could not be accepted. Nothing was drawn. Please send it again.",
            ),
            Failure::Panicked => Self::internal("the generation panicked"),
        }
    }
}

impl From<NoListing> for Problem {
    fn from(error: NoListing) -> Self {
        match error {
            NoListing::Storage(error) => error.into(),
            NoListing::TooMany(_) => Self::busy("Too many listings are being sent. Please try again in a moment."),
        }
    }
}

impl From<azure::Error> for Problem {
    fn from(error: azure::Error) -> Self {
        let sentence = error.advice().unwrap_or("Storage cannot be reached at the moment. Please try again later.");
        Self::new(Code::StorageUnavailable, sentence).caused_by(&error)
    }
}

/// The Functions host reads only the status of this answer, and delivers the message again.
impl From<NotDelivered> for Problem {
    fn from(error: NotDelivered) -> Self {
        let sentence = "The job could not be processed. The queue delivers it again.";
        match &error {
            NotDelivered::Unknown | NotDelivered::Records(_) | NotDelivered::Queue(_) => {
                Self::new(Code::StorageUnavailable, sentence).caused_by(&error)
            }
            NotDelivered::TooLong | NotDelivered::Panicked => Self::internal("a job could not be processed"),
        }
    }
}
