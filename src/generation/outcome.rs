//! How a generation ends. Nothing here knows HTTP: `error.rs` alone makes answers of it.

use serde::{Deserialize, Serialize};

use crate::gallery::Stored;
use crate::openai;
use crate::spending::Cost;

/// The end of a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// The image is in the gallery.
    Stored {
        /// What is kept of it.
        stored: Box<Stored>,
        /// What it did cost.
        cost: Cost,
    },
    /// The image is in a spool, and will be in the gallery under this name.
    StoredLater {
        /// The blob's name.
        name: String,
        /// The model that drew it.
        model: String,
        /// What it did cost.
        cost: Cost,
    },
    /// No image was drawn.
    NotDrawn(Failure),
    /// An image may have been drawn and billed, and is lost.
    Lost(Failure),
    /// The caller did not want it any more.
    Cancelled,
}

/// Why there is no image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// The provider refused the prompt.
    PromptRefused,
    /// The provider does not take the wish in this field of a request.
    OptionRefused(String),
    /// The provider limits the rate.
    RateLimited,
    /// The provider did not answer in time.
    Timeout,
    /// The provider's answer was lost.
    AnswerLost,
    /// The provider denied access.
    Denied,
    /// The provider does not have the model.
    ModelGone,
    /// The provider's account is out of credit.
    OutOfCredit,
    /// The provider did not take the request.
    BadRequest,
    /// The provider failed.
    ProviderFailed,
    /// The provider's answer was of no use.
    BadAnswer,
    /// The image could neither be stored nor kept.
    NotSaved,
    /// No image can be kept safe at the moment.
    SpoolFull,
    /// All turns are taken.
    Busy,
    /// The image would cost more than what was reserved for it.
    Outdated,
    /// Its deliveries have all failed.
    GivenUp,
    /// It has waited for too long.
    TooOld,
    /// It could not be accepted.
    NotAccepted,
    /// The generation panicked.
    Panicked,
}

impl Failure {
    /// Whether an image may have been drawn and billed all the same.
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

    /// Whether the provider was asked and failed, in another way than by a refusal of the prompt.
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

    /// The end of a generation that failed like this.
    pub(crate) fn into_outcome(self) -> Outcome {
        if self.is_loss() { Outcome::Lost(self) } else { Outcome::NotDrawn(self) }
    }
}

impl From<&openai::Error> for Failure {
    fn from(error: &openai::Error) -> Self {
        match error {
            openai::Error::Unreachable(_) | openai::Error::Failed(_) => Self::ProviderFailed,
            openai::Error::Timeout => Self::Timeout,
            openai::Error::LostAnswer(_) | openai::Error::GatewayTimeout(_) => Self::AnswerLost,
            openai::Error::PromptRefused(_) => Self::PromptRefused,
            openai::Error::OptionRefused(field, _) => Self::OptionRefused((*field).to_owned()),
            openai::Error::ReasoningRefused(_) | openai::Error::StreamRefused(_) | openai::Error::BadRequest(_) => {
                Self::BadRequest
            }
            openai::Error::Denied(_) => Self::Denied,
            openai::Error::ModelGone(_) => Self::ModelGone,
            openai::Error::OutOfCredit(_) => Self::OutOfCredit,
            openai::Error::RateLimited(_) => Self::RateLimited,
            openai::Error::BadAnswer(_) => Self::BadAnswer,
        }
    }
}
