//! The errors and results of a request for an image.

use std::time::Duration;

use super::admission::Busy;
use super::outcome::{Failure, Outcome};
use super::spool;
use crate::azure;
use crate::gallery::{self, Stored};
use crate::openai::{self, InvalidOption};
use crate::prompt;
use crate::spending::{QuotaStatus, Refusal};

/// Why a request gets no image. `crate::error` maps each variant to an HTTP answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The prompt is empty, too long or otherwise invalid.
    #[error(transparent)]
    Prompt(#[from] prompt::Error),
    /// The configured model does not support an image option.
    #[error(transparent)]
    InvalidOption(#[from] InvalidOption),
    /// The provider's moderation flagged the prompt for these categories.
    #[error("the provider's moderation flagged the prompt")]
    Flagged(Vec<String>),
    /// The quota or the budget is used up. A retry may succeed after this duration.
    #[error("{0}")]
    Refused(Refusal, Duration),
    /// The first request with this Idempotency-Key has not ended yet.
    #[error("a request with this Idempotency-Key is in progress")]
    KeyInProgress,
    /// An earlier request used this Idempotency-Key with another body.
    #[error("another request has used this Idempotency-Key")]
    KeyReused,
    /// The generation of an Idempotency-Key cannot be read.
    #[error("the table row of an Idempotency-Key cannot be read")]
    KeyUnknown(#[source] azure::Error),
    /// The table of the records cannot be read or written.
    #[error("the table of generation records cannot be read or written")]
    RecordsUnavailable(#[source] azure::Error),
    /// The message of a job could not be put into the queue.
    #[error("the message of a job could not be put into the queue")]
    QueueUnavailable(#[source] azure::Error),
    /// The record of an accepted generation cannot be read.
    #[error("the record of an accepted generation cannot be read")]
    NoRecord,
    /// No queue for jobs is configured.
    #[error("no queue for jobs is configured")]
    NoQueue,
    /// No permit is free. The provider was not called.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The spool cannot take another image. The provider was not called.
    #[error(transparent)]
    Spool(#[from] spool::Error),
    /// The provider returned no image.
    #[error(transparent)]
    Provider(#[from] openai::Error),
    /// The image was drawn and could neither be spooled nor uploaded.
    #[error(transparent)]
    Storage(#[from] gallery::Error),
    /// The generation panicked.
    #[error("the generation panicked")]
    Panicked,
    /// The record says that the generation has failed.
    #[error("the record says that the generation has failed: {0:?}")]
    Recorded(Failure),
    /// The job was cancelled.
    #[error("the job was cancelled")]
    Cancelled,
}

/// A drawn image that is in the gallery or in the spool.
#[derive(Debug, Clone)]
pub(crate) enum Drawn {
    /// The image is in the gallery.
    Stored(Box<Stored>),
    /// The image is in the spool; recovery uploads it to the gallery.
    StoredLater {
        /// The name that the blob will have.
        name: String,
    },
}

/// The end of a generation, as its watchers receive it.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) result: Result<Drawn, Error>,
    /// The caller's quota status after the end, if it is known.
    pub(crate) quota_status: Option<QuotaStatus>,
}

impl Error {
    /// The failure to record; `None` for errors before a generation begins and for a cancelled job.
    pub(crate) fn failure(&self) -> Option<Failure> {
        Some(match self {
            Self::Provider(error) => Failure::from(error),
            Self::Storage(_) => Failure::NotSaved,
            Self::Panicked => Failure::Panicked,
            Self::Busy(_) => Failure::Busy,
            Self::Spool(_) => Failure::SpoolFull,
            Self::Recorded(failure) => failure.clone(),
            Self::Prompt(_)
            | Self::InvalidOption(_)
            | Self::Flagged(_)
            | Self::Refused(..)
            | Self::KeyInProgress
            | Self::KeyReused
            | Self::KeyUnknown(_)
            | Self::RecordsUnavailable(_)
            | Self::QueueUnavailable(_)
            | Self::NoRecord
            | Self::NoQueue
            | Self::Cancelled => return None,
        })
    }

    /// The caller's quota status, if the error contains it.
    pub(crate) fn quota_status(&self) -> Option<QuotaStatus> {
        match self {
            Self::Refused(Refusal::QuotaExceeded(quota_status), _) => Some(*quota_status),
            _ => None,
        }
    }

    /// Whether a later attempt may succeed. No image was drawn.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Provider(error) => error.is_passing(),
            Self::Busy(_) | Self::Spool(_) => true,
            _ => false,
        }
    }
}

impl Ended {
    /// From the result of a generation that this process has drawn.
    pub(crate) fn of_result(result: Result<Outcome, Error>, quota_status: Option<QuotaStatus>) -> Self {
        match result {
            Ok(outcome) => Self { quota_status, ..Self::of_record(&outcome) },
            Err(error) => Self { result: Err(error), quota_status },
        }
    }

    /// From the outcome in a record, which has no quota status.
    pub(crate) fn of_record(outcome: &Outcome) -> Self {
        let result = match outcome {
            Outcome::Stored { stored, .. } => Ok(Drawn::Stored(stored.clone())),
            Outcome::StoredLater { name, .. } => Ok(Drawn::StoredLater { name: name.clone() }),
            Outcome::NotDrawn(failure) | Outcome::Lost(failure) => Err(Error::Recorded(failure.clone())),
            Outcome::Cancelled => Err(Error::Cancelled),
        };
        Self { result, quota_status: None }
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        Self { quota_status: error.quota_status(), result: Err(error) }
    }
}
