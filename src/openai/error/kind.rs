//! The kinds of errors, for telemetry.

use super::Error;

impl Error {
    /// The value of `error.type` (<https://opentelemetry.io/docs/specs/semconv/registry/attributes/error/>).
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::NoToken(_) => "no_token",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::LostAnswer(_) => "lost_answer",
            Self::GatewayTimeout(_) => "gateway_timeout",
            Self::FailedLate(_) => "failed_late",
            Self::PromptRefused(_) => "prompt_refused",
            Self::OptionRefused(..) => "option_refused",
            Self::ReasoningRefused(_) => "reasoning_refused",
            Self::StreamRefused(_) => "stream_refused",
            Self::BadRequest(_) => "bad_request",
            Self::Denied(_) => "denied",
            Self::Blocked(_) => "blocked",
            Self::ModelGone(_) => "model_gone",
            Self::OutOfCredit(_) => "out_of_credit",
            Self::RateLimited(_) => "rate_limited",
            Self::Failed(_) => "failed",
            Self::BadAnswer(_) => "bad_answer",
        }
    }
}
