//! The watched generations of this process.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::watch;

use super::progress::Progress;
use super::record::Address;
use crate::lock::locked;

/// One progress channel for each generation that this process draws or that has watchers here.
#[derive(Debug, Default)]
pub(crate) struct Watches(pub(super) Mutex<HashMap<Address, Watched>>);

#[derive(Debug)]
pub(super) struct Watched {
    pub(super) progress: watch::Sender<Progress>,
    /// The number of deliveries and requests of this process that draw it. With 0, a poller runs.
    pub(super) holders: usize,
}

impl Watches {
    /// Whether this process draws the generation.
    pub(crate) fn is_drawn_here(&self, address: &Address) -> bool {
        locked(&self.0).get(address).is_some_and(|watched| watched.holders > 0)
    }

    /// Whether this process draws any generation.
    pub(crate) fn is_drawing_any(&self) -> bool {
        locked(&self.0).values().any(|watched| watched.holders > 0)
    }

    pub(super) fn subscribe(&self, address: &Address) -> Option<watch::Receiver<Progress>> {
        locked(&self.0).get(address).map(|watched| watched.progress.subscribe())
    }

    /// Ends the polling of a generation without watchers, or one that this process draws now. Returns
    /// whether the poller must stop.
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
