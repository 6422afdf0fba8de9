//! How a request ends.

use std::time::Duration;

use super::admission::Busy;
use super::outcome::{Failure, Outcome};
use super::spool;
use crate::azure;
use crate::gallery::{self, Stored};
use crate::openai::{self, InvalidOption};
use crate::prompt;
use crate::spending::{QuotaStatus, Refusal};

/// There is no image for a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The prompt is none.
    #[error(transparent)]
    Prompt(#[from] prompt::Error),
    /// The model cannot do what is wished.
    #[error(transparent)]
    InvalidOption(#[from] InvalidOption),
    /// The provider's moderation flagged the prompt, for these categories.
    #[error("the provider's moderation flagged the prompt")]
    Flagged(Vec<String>),
    /// A limit is reached, for so long.
    #[error("{0}")]
    Refused(Refusal, Duration),
    /// The first request with this Idempotency-Key has no answer yet.
    #[error("a request with this Idempotency-Key is under way")]
    KeyInProgress,
    /// The Idempotency-Key was used with another body.
    #[error("the Idempotency-Key was used for another request")]
    KeyReused,
    /// What an Idempotency-Key stands for cannot be read.
    #[error("the records of Idempotency-Keys cannot be reached")]
    KeyUnknown(#[source] azure::Error),
    /// The records cannot be read or written.
    #[error("the records of generations cannot be reached")]
    RecordsUnavailable(#[source] azure::Error),
    /// The queue or the record of a job cannot be reached.
    #[error("a job could not be queued")]
    QueueUnavailable(#[source] azure::Error),
    /// The record of a generation that was accepted cannot be read at the moment.
    #[error("the record of a generation cannot be read")]
    NoRecord,
    /// There is no queue.
    #[error("there is no queue for jobs")]
    NoQueue,
    /// No turn is free. The provider was not asked.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// No image can be kept safe. The provider was not asked.
    #[error(transparent)]
    Spool(#[from] spool::Error),
    /// The provider gave no image.
    #[error(transparent)]
    Provider(#[from] openai::Error),
    /// There is an image, and it could not be stored.
    #[error(transparent)]
    Storage(#[from] gallery::Error),
    /// The generation panicked.
    #[error("the generation panicked")]
    Panicked,
    /// As the record of the generation says.
    #[error("the generation ended without an image: {0:?}")]
    Recorded(Failure),
    /// The job was cancelled.
    #[error("the job was cancelled")]
    Cancelled,
}

/// An image that was drawn, and is safe.
#[derive(Debug, Clone)]
pub(crate) enum Drawn {
    /// It is in the gallery.
    Stored(Box<Stored>),
    /// It will be in the gallery under this name.
    StoredLater {
        /// The blob's name.
        name: String,
    },
}

/// How a generation ended, for whoever watches it.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) result: Result<Drawn, Error>,
    /// How the caller stands then, as far as that was found out.
    pub(crate) quota_status: Option<QuotaStatus>,
}

impl Error {
    /// What a record says of a generation that ended like this; `None` where none was begun.
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

    /// How the caller stands, as far as the error says.
    pub(crate) fn quota_status(&self) -> Option<QuotaStatus> {
        match self {
            Self::Refused(Refusal::QuotaExceeded(quota_status), _) => Some(*quota_status),
            _ => None,
        }
    }

    /// Whether another try may do better, later: nothing was drawn.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Provider(error) => error.is_passing(),
            Self::Busy(_) | Self::Spool(_) => true,
            _ => false,
        }
    }
}

impl Ended {
    /// As this process knows.
    pub(crate) fn of_result(result: Result<Outcome, Error>, quota_status: Option<QuotaStatus>) -> Self {
        match result {
            Ok(outcome) => Self { quota_status, ..Self::of_record(&outcome) },
            Err(error) => Self { result: Err(error), quota_status },
        }
    }

    /// As a record says.
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
