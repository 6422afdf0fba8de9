//! The progress of a generation, for its watchers.
//!
//! A channel keeps only the latest progress, so a slow watcher needs no buffer. Such a watcher may miss
//! the first of two previews.

use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use super::error::Ended;
use super::preview;
use super::record::{Generation, Order, State};
use crate::image::Image;
use crate::lock::locked;
use crate::spending::QuotaStatus;

/// The phase of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// The generation waits for a permit or for the enhanced prompt.
    Queued,
    /// The provider draws.
    Drawing,
    /// The image has arrived and is being stored.
    Saving,
}

/// The acceptance of a generation.
#[derive(Debug, Clone)]
pub(crate) struct Acceptance {
    /// The caller's quota status, if it is known.
    pub(crate) quota_status: Option<QuotaStatus>,
}

/// A preview: a partial image that the provider sends while it draws.
#[derive(Debug, Clone)]
pub(crate) struct Preview {
    /// The number of the partial image, from 0.
    pub(crate) index: u64,
    /// A `data:` URL (RFC 2397) of at most 128 KiB.
    pub(crate) data_url: Arc<str>,
}

/// The progress of a generation.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// The order of the generation.
    pub(crate) order: Arc<Order>,
    /// `None` until the generation is accepted.
    pub(crate) accepted: Option<Acceptance>,
    /// The current phase.
    pub(crate) phase: Phase,
    /// The latest preview.
    pub(crate) preview: Option<Preview>,
    /// The end; `None` while the generation is in progress.
    pub(crate) ended: Option<Arc<Ended>>,
}

/// Limits the process to one preview conversion at a time, because each needs memory for a decoded image.
static CONVERSION: Semaphore = Semaphore::const_new(1);

/// Reports the progress of a generation to its watchers.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    progress: watch::Sender<Progress>,
    /// The newest partial image that waits for conversion, with its number.
    waiting: Arc<Mutex<Option<(u64, Image)>>>,
}

impl Progress {
    /// The progress of a request that is not accepted yet.
    pub(crate) fn new(order: Arc<Order>) -> Self {
        Self { order, accepted: None, phase: Phase::Queued, preview: None, ended: None }
    }

    /// The progress of an accepted job.
    pub(crate) fn queued(order: Arc<Order>, quota_status: Option<QuotaStatus>) -> Self {
        Self { accepted: Some(Acceptance { quota_status }), ..Self::new(order) }
    }

    /// The progress according to a record.
    pub(crate) fn of_record(generation: &Generation) -> Self {
        Self {
            order: Arc::new(generation.order.clone()),
            accepted: Some(Acceptance { quota_status: None }),
            phase: if generation.state == State::Queued { Phase::Queued } else { Phase::Drawing },
            preview: None,
            ended: generation.outcome().map(|outcome| Arc::new(Ended::of_record(outcome))),
        }
    }
}

impl Reporter {
    pub(crate) fn new(progress: watch::Sender<Progress>) -> Self {
        Self { progress, waiting: Arc::default() }
    }

    /// Reports the acceptance.
    pub(crate) fn accepted(&self, quota_status: Option<QuotaStatus>) {
        self.progress.send_modify(|progress| progress.accepted = Some(Acceptance { quota_status }));
    }

    /// Reports the end. No report may follow. A generation with an image also counts as accepted.
    pub(crate) fn ended(&self, ended: Ended) {
        self.progress.send_modify(|progress| {
            if ended.result.is_ok() {
                progress.accepted.get_or_insert(Acceptance { quota_status: None });
            }
            progress.ended = Some(Arc::new(ended));
        });
    }

    /// Reports a phase.
    pub(crate) fn phase(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    /// Reports a partial image. The conversion to a preview runs in the background.
    pub(crate) fn preview(&self, index: u64, image: Image) {
        let next = locked(&self.waiting).replace((index, image));
        if next.is_some() {
            // The task of the replaced image is still waiting and converts this image instead.
            return;
        }
        let Self { progress, waiting } = self.clone();
        tokio::spawn(async move {
            let Ok(_permit) = CONVERSION.acquire().await else { return };
            let next = locked(&waiting).take();
            let Some((index, image)) = next.filter(|_| !progress.is_closed()) else { return };
            let made = tokio::task::spawn_blocking(move || preview::data_url(&image)).await;
            if let Ok(Some(data_url)) = made {
                progress.send_modify(|progress| progress.preview = Some(Preview { index, data_url: data_url.into() }));
            }
        });
    }

    /// Subscribes to the progress.
    pub(crate) fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }
}
