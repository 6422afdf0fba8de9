//! How far a generation has come, for whoever wants to watch.
//!
//! Only the latest state is kept, so that one who watches slowly, or has left, costs nothing: of two
//! previews in a row such a one may miss the first.

use std::sync::{Arc, Mutex};

use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use super::error::Ended;
use super::preview;
use super::record::{Generation, Order, State};
use crate::image::Image;
use crate::lock::locked;
use crate::spending::QuotaStatus;

/// What a generation is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// It waits for a turn, or for its prompt to be enhanced.
    Queued,
    /// The provider is asked.
    Drawing,
    /// The image has come, and is stored.
    Saving,
}

/// A generation that was let in.
#[derive(Debug, Clone)]
pub(crate) struct Acceptance {
    /// How its caller stands, if that is known.
    pub(crate) quota_status: Option<QuotaStatus>,
}

/// An image that is not finished.
#[derive(Debug, Clone)]
pub(crate) struct Preview {
    /// Counted from 0.
    pub(crate) index: u64,
    /// Of bounded size.
    pub(crate) data_url: Arc<str>,
}

/// How far a generation has come.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    /// What was asked for.
    pub(crate) order: Arc<Order>,
    /// Once it was accepted.
    pub(crate) accepted: Option<Acceptance>,
    /// What it is doing.
    pub(crate) phase: Phase,
    /// The last that has come.
    pub(crate) preview: Option<Preview>,
    /// How it ended.
    pub(crate) ended: Option<Arc<Ended>>,
}

/// One at a time in a process: each takes memory for a whole image.
static MAKING: Semaphore = Semaphore::const_new(1);

/// Tells whoever watches.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    progress: watch::Sender<Progress>,
    /// The newest that is to be made a preview of, with its number.
    waiting: Arc<Mutex<Option<(u64, Image)>>>,
}

impl Progress {
    /// Of a request that is not accepted yet.
    pub(crate) fn new(order: Arc<Order>) -> Self {
        Self { order, accepted: None, phase: Phase::Queued, preview: None, ended: None }
    }

    /// Of a job that was accepted.
    pub(crate) fn queued(order: Arc<Order>, quota_status: Option<QuotaStatus>) -> Self {
        Self { accepted: Some(Acceptance { quota_status }), ..Self::new(order) }
    }

    /// As a record says.
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

    pub(crate) fn accepted(&self, quota_status: Option<QuotaStatus>) {
        self.progress.send_modify(|progress| progress.accepted = Some(Acceptance { quota_status }));
    }

    /// Says how it ended; nothing comes after that. What gave an image was accepted.
    pub(crate) fn ended(&self, ended: Ended) {
        self.progress.send_modify(|progress| {
            if ended.result.is_ok() {
                progress.accepted.get_or_insert(Acceptance { quota_status: None });
            }
            progress.ended = Some(Arc::new(ended));
        });
    }

    pub(crate) fn phase(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    /// Shows an image that is not finished; in the background, because nobody waits for it.
    pub(crate) fn preview(&self, index: u64, image: Image) {
        let next = locked(&self.waiting).replace((index, image));
        if next.is_some() {
            // An older one waited for its turn, which is this one's now.
            return;
        }
        let Self { progress, waiting } = self.clone();
        tokio::spawn(async move {
            let Ok(_turn) = MAKING.acquire().await else { return };
            let next = locked(&waiting).take();
            let Some((index, image)) = next.filter(|_| !progress.is_closed()) else { return };
            let made = tokio::task::spawn_blocking(move || preview::data_url(&image)).await;
            if let Ok(Some(data_url)) = made {
                progress.send_modify(|progress| progress.preview = Some(Preview { index, data_url: data_url.into() }));
            }
        });
    }

    /// Follows what is told.
    pub(crate) fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }
}
