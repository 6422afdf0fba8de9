//! Watching a generation: by its own progress where this process draws it, else by one poller for
//! each generation, however many watch.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::generations::Generations;
use super::progress::{Progress, Reporter};
use super::record::{Address, Generation};
use super::watches::Watched;
use crate::azure;
use crate::lock::locked;

/// Between two reads of a record that is watched; the first comes sooner.
const FIRST_READ_AFTER: Duration = Duration::from_millis(250);
const READ_EVERY: Duration = Duration::from_secs(1);

/// A generation that this process draws, until this is dropped. Whoever watches then, and was told of
/// no end, goes on by polling.
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
    /// Lets a generation be watched that this process draws.
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

    /// Watches a generation; `None` where there is none.
    ///
    /// # Errors
    /// It is not known.
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
        // Of several who come at once, the first has it polled.
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

    /// The record as it is now; one whose process has died has ended.
    ///
    /// # Errors
    /// It is not known.
    async fn find_record(&self, address: &Address) -> Result<Option<Generation>, azure::Error> {
        match self.records.get(address).await? {
            Some(found) => self.end_if_process_died(found).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads a record again and again, until it has ended, nobody watches any more, or this process
    /// draws it.
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
            // A read that failed is made again.
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
