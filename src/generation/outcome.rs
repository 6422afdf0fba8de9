//! The outcome of a generation, as its record stores it. `crate::error` maps failures to HTTP answers.

use serde::{Deserialize, Serialize};

use crate::azure::NoToken;
use crate::gallery::Stored;
use crate::openai;
use crate::spending::Cost;

/// The end of a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The image is in the gallery.
    Stored {
        /// The image's name and metadata in the gallery.
        stored: Box<Stored>,
        /// The cost of the image.
        cost: Cost,
    },
    /// The image is in a spool; recovery uploads it to the gallery.
    StoredLater {
        /// The name that the blob will have.
        name: String,
        /// The model that drew the image.
        model: String,
        /// The cost of the image.
        cost: Cost,
    },
    /// No image was drawn.
    NotDrawn(Failure),
    /// An image may have been drawn and billed, and the app does not have it.
    Lost(Failure),
    /// The caller cancelled the job before it was drawn.
    Cancelled,
}

/// Why a generation has no image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The provider refused the prompt.
    PromptRefused,
    /// The provider refused the value of this request field.
    OptionRefused(String),
    /// The provider answered with a rate limit.
    RateLimited,
    /// The provider did not answer in time.
    Timeout,
    /// The connection broke, or a gateway timed out, before the answer arrived.
    AnswerLost,
    /// The provider refused the API key or its permissions.
    Denied,
    /// The provider does not have the model any more.
    ModelGone,
    /// The provider's account is out of credit.
    OutOfCredit,
    /// The provider rejected the request as malformed.
    BadRequest,
    /// The provider was unreachable or failed.
    ProviderFailed,
    /// The provider's answer contains no usable image.
    BadAnswer,
    /// The image could neither be uploaded nor put into the spool.
    NotSaved,
    /// The spool cannot take another image.
    SpoolFull,
    /// No permit was free.
    Busy,
    /// The settings have changed: the options are invalid now, or the cost may exceed the reservation.
    Outdated,
    /// All deliveries of the job have failed.
    GivenUp,
    /// The job has waited too long in the queue.
    TooOld,
    /// The generation was refused or withdrawn before the provider was called.
    NotAccepted,
    /// The generation panicked.
    Panicked,
}

impl Failure {
    /// Whether the provider may have drawn and billed an image.
    pub(crate) fn is_loss(&self) -> bool {
        match self {
            Self::Timeout | Self::AnswerLost | Self::BadAnswer | Self::NotSaved | Self::Panicked => true,
            Self::PromptRefused
            | Self::OptionRefused(_)
            | Self::RateLimited
            | Self::Denied
            | Self::ModelGone
            | Self::OutOfCredit
            | Self::BadRequest
            | Self::ProviderFailed
            | Self::SpoolFull
            | Self::Busy
            | Self::Outdated
            | Self::GivenUp
            | Self::TooOld
            | Self::NotAccepted => false,
        }
    }

    /// Whether the failure counts as a failure of the provider. A refused prompt counts as a refusal.
    pub(crate) fn is_of_provider(&self) -> bool {
        match self {
            Self::OptionRefused(_)
            | Self::RateLimited
            | Self::Timeout
            | Self::AnswerLost
            | Self::Denied
            | Self::ModelGone
            | Self::OutOfCredit
            | Self::BadRequest
            | Self::ProviderFailed
            | Self::BadAnswer
            | Self::NotSaved
            | Self::Panicked => true,
            Self::PromptRefused
            | Self::SpoolFull
            | Self::Busy
            | Self::Outdated
            | Self::GivenUp
            | Self::TooOld
            | Self::NotAccepted => false,
        }
    }

    /// The outcome of a generation with this failure.
    pub(crate) fn into_outcome(self) -> Outcome {
        if self.is_loss() { Outcome::Lost(self) } else { Outcome::NotDrawn(self) }
    }
}

impl From<&openai::Error> for Failure {
    fn from(error: &openai::Error) -> Self {
        match error {
            openai::Error::NoToken(NoToken::Unassigned) | openai::Error::Denied(_) => Self::Denied,
            // The identity endpoint fails for a while, and nothing was sent.
            openai::Error::NoToken(NoToken::Answered(_) | NoToken::Unreachable | NoToken::Malformed)
            | openai::Error::Unreachable(_)
            | openai::Error::Failed(_)
            | openai::Error::Blocked(_) => Self::ProviderFailed,
            openai::Error::Timeout => Self::Timeout,
            openai::Error::LostAnswer(_) | openai::Error::GatewayTimeout(_) | openai::Error::FailedLate(_) => {
                Self::AnswerLost
            }
            openai::Error::PromptRefused(_) => Self::PromptRefused,
            openai::Error::OptionRefused(field, _) => Self::OptionRefused((*field).to_owned()),
            openai::Error::ReasoningRefused(_) | openai::Error::StreamRefused(_) | openai::Error::BadRequest(_) => {
                Self::BadRequest
            }
            openai::Error::ModelGone(_) => Self::ModelGone,
            openai::Error::OutOfCredit(_) => Self::OutOfCredit,
            openai::Error::RateLimited(_) => Self::RateLimited,
            openai::Error::BadAnswer(_) => Self::BadAnswer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_identity_is_a_misconfiguration() {
        let failure = |no_token| Failure::from(&openai::Error::NoToken(no_token));
        assert_eq!(failure(NoToken::Unassigned), Failure::Denied);
        for no_token in [NoToken::Answered(429), NoToken::Answered(500), NoToken::Unreachable, NoToken::Malformed] {
            assert_eq!(failure(no_token), Failure::ProviderFailed);
        }
    }
}
