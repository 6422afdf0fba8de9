//! The codes of errors: stable names, each with its HTTP status. `docs/api.md` lists them for callers,
//! `docs/operating.md` for operators.

use axum::http::StatusCode;
use serde::{Serialize, Serializer};

/// A stable code that a front end may compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The image is drawn and on disk, and waits for storage.
    StoredLater,
    /// The request is not one that this function takes.
    InvalidRequest,
    /// A page on another site sent the request for a signed-in user.
    CrossSiteRefused,
    /// The token does not delete this image.
    DeleteTokenRefused,
    /// No function, job or image has this address.
    NotFound,
    /// The function does not take this method.
    MethodNotAllowed,
    /// The first request with this Idempotency-Key is under way.
    InProgress,
    /// The job cannot be cancelled any more.
    JobHasBegun,
    /// The job was cancelled.
    JobCancelled,
    /// Another image has the name of the image to restore.
    NameTaken,
    /// The image costs more than the job reserved, or its model is gone.
    JobOutdated,
    /// The request's body is too large.
    TooLarge,
    /// The Idempotency-Key was used with another body.
    IdempotencyKeyReused,
    /// The provider refuses the prompt.
    PromptRejected,
    /// The caller has had the day's images.
    QuotaExceeded,
    /// The provider has refused too many of the caller's prompts today.
    RefusalsExceeded,
    /// The caller has made too many jobs today.
    JobsExceeded,
    /// The image may cost more than the rest of the caller's own budget for the day.
    CallerBudgetReached,
    /// The app's budget for the day does not pay for the image.
    BudgetReached,
    /// The provider limits the rate.
    ProviderRateLimited,
    /// A fault of this app.
    Internal,
    /// There is no queue for jobs.
    JobsUnavailable,
    /// The provider failed, and nothing was drawn.
    ProviderFailed,
    /// The provider refuses the key, the account or the model.
    ProviderMisconfigured,
    /// The image may have been drawn and billed, and is lost.
    ProviderAnswerLost,
    /// The job could not be drawn in its time.
    JobFailed,
    /// This process takes no more generations at the moment.
    Busy,
    /// The state table cannot be reached.
    QuotaUnavailable,
    /// Storage cannot be reached.
    StorageUnavailable,
    /// The provider did not answer in time; the image may have been billed.
    ProviderTimeout,
}

impl Code {
    /// Every code, by its status.
    pub const ALL: [Self; 30] = [
        Self::StoredLater,
        Self::InvalidRequest,
        Self::CrossSiteRefused,
        Self::DeleteTokenRefused,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::InProgress,
        Self::JobHasBegun,
        Self::JobCancelled,
        Self::NameTaken,
        Self::JobOutdated,
        Self::TooLarge,
        Self::IdempotencyKeyReused,
        Self::PromptRejected,
        Self::QuotaExceeded,
        Self::RefusalsExceeded,
        Self::JobsExceeded,
        Self::CallerBudgetReached,
        Self::BudgetReached,
        Self::ProviderRateLimited,
        Self::Internal,
        Self::JobsUnavailable,
        Self::ProviderFailed,
        Self::ProviderMisconfigured,
        Self::ProviderAnswerLost,
        Self::JobFailed,
        Self::Busy,
        Self::QuotaUnavailable,
        Self::StorageUnavailable,
        Self::ProviderTimeout,
    ];

    /// The code as it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::StoredLater => "stored_later",
            Self::InvalidRequest => "invalid_request",
            Self::DeleteTokenRefused => "delete_token_refused",
            Self::CrossSiteRefused => "cross_site_refused",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::InProgress => "in_progress",
            Self::JobHasBegun => "job_has_begun",
            Self::JobCancelled => "job_cancelled",
            Self::NameTaken => "name_taken",
            Self::JobOutdated => "job_outdated",
            Self::TooLarge => "too_large",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::PromptRejected => "prompt_rejected",
            Self::QuotaExceeded => "quota_exceeded",
            Self::RefusalsExceeded => "refusals_exceeded",
            Self::JobsExceeded => "jobs_exceeded",
            Self::CallerBudgetReached => "caller_budget_reached",
            Self::BudgetReached => "budget_reached",
            Self::ProviderRateLimited => "provider_rate_limited",
            Self::Internal => "internal",
            Self::JobsUnavailable => "jobs_unavailable",
            Self::ProviderFailed => "provider_failed",
            Self::ProviderMisconfigured => "provider_misconfigured",
            Self::ProviderAnswerLost => "provider_answer_lost",
            Self::JobFailed => "job_failed",
            Self::Busy => "busy",
            Self::QuotaUnavailable => "quota_unavailable",
            Self::StorageUnavailable => "storage_unavailable",
            Self::ProviderTimeout => "provider_timeout",
        }
    }

    /// The HTTP status of answers with this code.
    pub fn status(self) -> StatusCode {
        match self {
            Self::StoredLater => StatusCode::ACCEPTED,
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::CrossSiteRefused | Self::DeleteTokenRefused => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::InProgress | Self::JobHasBegun | Self::JobCancelled | Self::NameTaken | Self::JobOutdated => {
                StatusCode::CONFLICT
            }
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::IdempotencyKeyReused | Self::PromptRejected => StatusCode::UNPROCESSABLE_ENTITY,
            Self::QuotaExceeded
            | Self::RefusalsExceeded
            | Self::JobsExceeded
            | Self::CallerBudgetReached
            | Self::BudgetReached
            | Self::ProviderRateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::JobsUnavailable => StatusCode::NOT_IMPLEMENTED,
            Self::ProviderFailed | Self::ProviderMisconfigured | Self::ProviderAnswerLost | Self::JobFailed => {
                StatusCode::BAD_GATEWAY
            }
            Self::Busy | Self::QuotaUnavailable | Self::StorageUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::ProviderTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Whether an operator must look: the error may not pass by itself.
    pub(crate) fn needs_operator(self) -> bool {
        matches!(self, Self::Internal | Self::ProviderMisconfigured | Self::QuotaUnavailable | Self::StorageUnavailable)
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
