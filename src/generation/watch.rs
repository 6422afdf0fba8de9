//! Watching a generation. If this process draws it, watchers follow the live progress. Otherwise one
//! poller for each generation reads its record for all watchers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::generations::Generations;
use super::progress::{Progress, Reporter};
use super::record::{Address, Generation};
use super::watches::Watched;
use crate::azure;
use crate::lock::locked;

/// The pause between two reads of a watched record; it doubles from the first to the second value.
const FIRST_READ_AFTER: Duration = Duration::from_millis(250);
const READ_EVERY: Duration = Duration::from_secs(1);

/// Marks a generation as drawn by this process until it is dropped. Then polling serves the watchers that
/// have not received an end.
pub(crate) struct Held {
    generations: Arc<Generations>,
    address: Address,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut watches = locked(&self.generations.watches.0);
        let Some(watched) = watches.get_mut(&self.address) else { return };
        watched.holders = watched.holders.saturating_sub(1);
        if watched.holders > 0 {
            return;
        }
        if watched.progress.receiver_count() == 0 || watched.progress.borrow().ended.is_some() {
            watches.remove(&self.address);
        } else {
            let progress = watched.progress.clone();
            self.generations.spawn_polling(self.address.clone(), progress);
        }
    }
}

impl Generations {
    /// Registers a generation that this process draws, so that it can be watched.
    pub(super) fn hold(self: &Arc<Self>, progress: Progress) -> (Reporter, Held) {
        let address = progress.order.address.clone();
        let mut watches = locked(&self.watches.0);
        let watched = watches
            .entry(address.clone())
            .or_insert_with(|| Watched { progress: watch::Sender::new(progress), holders: 0 });
        watched.holders += 1;
        let reporter = Reporter::new(watched.progress.clone());
        (reporter, Held { generations: Arc::clone(self), address })
    }

    /// Watches a generation; `None` if it does not exist.
    ///
    /// # Errors
    /// The record cannot be read, or [`Self::end_if_process_died`] fails.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        address: &Address,
    ) -> Result<Option<watch::Receiver<Progress>>, azure::Error> {
        if let Some(progress) = self.watches.subscribe(address) {
            return Ok(Some(progress));
        }
        let Some(found) = self.find_record(address).await? else { return Ok(None) };
        let progress = Progress::of_record(&found);
        if progress.ended.is_some() {
            return Ok(Some(watch::Sender::new(progress).subscribe()));
        }
        let mut watches = locked(&self.watches.0);
        // Another watcher may have started the poller in the meantime.
        if let Some(watched) = watches.get(address) {
            return Ok(Some(watched.progress.subscribe()));
        }
        let (progress, receiver) = watch::channel(progress);
        self.spawn_polling(address.clone(), progress.clone());
        watches.insert(address.clone(), Watched { progress, holders: 0 });
        Ok(Some(receiver))
    }

    fn spawn_polling(self: &Arc<Self>, address: Address, progress: watch::Sender<Progress>) {
        let polling = Arc::clone(self);
        self.tasks.spawn(async move { polling.poll(&address, &progress).await });
    }

    /// Reads a record, and ends its generation if the process has died.
    ///
    /// # Errors
    /// The record cannot be read, or [`Self::end_if_process_died`] fails.
    async fn find_record(&self, address: &Address) -> Result<Option<Generation>, azure::Error> {
        match self.records.get(address).await? {
            Some(found) => self.end_if_process_died(found).await.map(Some),
            None => Ok(None),
        }
    }

    /// Polls a record until the generation has ended, no watcher is left, this process draws it, or the
    /// process stops.
    async fn poll(&self, address: &Address, sender: &watch::Sender<Progress>) {
        let mut pause = FIRST_READ_AFTER;
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = sender.closed() => {}
                () = self.stopping.cancelled() => {
                    let mut watches = locked(&self.watches.0);
                    if watches.get(address).is_some_and(|watched| watched.holders == 0) {
                        watches.remove(address);
                    }
                    return;
                }
            }
            if self.watches.end_polling(address) {
                return;
            }
            pause = (pause * 2).min(READ_EVERY);
            // A failed read is repeated after the pause.
            let Ok(found) = self.find_record(address).await else { continue };
            let next = found.as_ref().map(Progress::of_record);
            let has_ended = next.as_ref().is_none_or(|next| next.ended.is_some());
            let mut watches = locked(&self.watches.0);
            if watches.get(address).is_none_or(|watched| watched.holders > 0) {
                return;
            }
            if let Some(next) = next {
                sender.send_if_modified(|progress| {
                    let is_new = has_ended || progress.phase != next.phase;
                    if is_new {
                        *progress = next;
                    }
                    is_new
                });
            }
            if has_ended {
                watches.remove(address);
                return;
            }
        }
    }
}
