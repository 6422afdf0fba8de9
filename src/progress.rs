//! How far a generation has come, for whoever wants to watch.
//!
//! Only the latest state is kept, so that one who watches slowly, or has left, costs nothing: of two
//! previews in a row such a one may miss the first.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use crate::image::Image;
use crate::lock::locked;
use crate::preview;

/// What a generation is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It waits for a turn, or for its prompt to be enhanced.
    Queued,
    /// The provider is asked.
    Drawing,
    /// The picture has come, and is stored.
    Saving,
}

/// A request that was let in.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The caption that the picture will have in the gallery; its name begins with it.
    pub name: String,
    /// Pictures that the caller may still have today, if there is a quota.
    pub remaining: Option<u32>,
    /// How long such pictures took lately, if there were any.
    pub estimate: Option<Duration>,
}

/// A picture that is not finished.
#[derive(Debug, Clone)]
pub struct Preview {
    /// Counted from 0.
    pub index: u64,
    /// Of bounded size.
    pub data_url: Arc<str>,
}

/// How far a generation has come.
#[derive(Debug, Clone)]
pub struct Progress {
    /// When it began.
    pub started: Instant,
    /// Once it was let in.
    pub accepted: Option<Accepted>,
    /// What it is doing.
    pub phase: Phase,
    /// The last that has come.
    pub preview: Option<Preview>,
}

/// One at a time in a process: each takes memory for a whole picture.
static MAKING: Semaphore = Semaphore::const_new(1);

/// Tells whoever watches.
#[derive(Debug, Clone)]
pub(crate) struct Reporter {
    progress: watch::Sender<Progress>,
    /// The newest that is to be made a preview of, with its number.
    waiting: Arc<Mutex<Option<(u64, Image)>>>,
}

impl Reporter {
    pub(crate) fn new() -> (Self, watch::Receiver<Progress>) {
        let progress = Progress { started: Instant::now(), accepted: None, phase: Phase::Queued, preview: None };
        let (sender, receiver) = watch::channel(progress);
        (Self { progress: sender, waiting: Arc::default() }, receiver)
    }

    pub(crate) fn accepted(&self, accepted: Accepted) {
        self.progress.send_modify(|progress| progress.accepted = Some(accepted));
    }

    pub(crate) fn phase(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    /// Shows a picture that is not finished; in the background, because nobody waits for it.
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
