//! What is watched in this process: one channel for each generation.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::watch;

use super::progress::Progress;
use super::record::Address;
use crate::lock::locked;

/// What is watched, or could be: one channel for each generation.
#[derive(Debug, Default)]
pub(crate) struct Watches(pub(super) Mutex<HashMap<Address, Watched>>);

#[derive(Debug)]
pub(super) struct Watched {
    pub(super) progress: watch::Sender<Progress>,
    /// How many of this process's deliveries or requests hold it. Where none does, it is polled.
    pub(super) holders: usize,
}

impl Watches {
    /// Whether this process draws it.
    pub(crate) fn is_drawn_here(&self, address: &Address) -> bool {
        locked(&self.0).get(address).is_some_and(|watched| watched.holders > 0)
    }

    /// Whether this process draws anything.
    pub(crate) fn is_drawing_any(&self) -> bool {
        locked(&self.0).values().any(|watched| watched.holders > 0)
    }

    pub(super) fn subscribe(&self, address: &Address) -> Option<watch::Receiver<Progress>> {
        locked(&self.0).get(address).map(|watched| watched.progress.subscribe())
    }

    /// Ends the polling of a generation that nobody watches, or that this process draws by now;
    /// whether it ended.
    pub(super) fn end_polling(&self, address: &Address) -> bool {
        let mut watches = locked(&self.0);
        match watches.get(address) {
            Some(watched) if watched.holders == 0 && watched.progress.receiver_count() > 0 => return false,
            Some(watched) if watched.holders == 0 => drop(watches.remove(address)),
            Some(_) | None => {}
        }
        true
    }
}
