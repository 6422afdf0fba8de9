//! Shares expensive reads among the requests that want them at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use crate::lock::locked;

/// Reads by key, of which at most one for each key runs at a time. A request that comes while one runs shares the
/// next one, which begins after the request came: what was written before the request is in its answer.
#[derive(Debug)]
pub(crate) struct Coalesced<K, T: Clone>(Mutex<HashMap<K, Arc<Reads<T>>>>);

/// The reads of one key.
#[derive(Debug)]
struct Reads<T: Clone> {
    /// The read that has not begun.
    next: Mutex<Option<Shared<BoxFuture<'static, T>>>>,
    running: Arc<tokio::sync::Mutex<()>>,
}

impl<K, T: Clone> Default for Coalesced<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, T: Clone + Send + Sync + 'static> Coalesced<K, T> {
    /// The result of a read that begins after this call.
    pub(crate) async fn get<F: Future<Output = T> + Send + 'static>(
        &self,
        key: K,
        read: impl FnOnce() -> F + Send + 'static,
    ) -> T {
        let reads = {
            let mut keys = locked(&self.0);
            // Each request holds its reads until it has its answer.
            keys.retain(|_, reads| Arc::strong_count(reads) > 1);
            Arc::clone(
                keys.entry(key).or_insert_with(|| Arc::new(Reads { next: Mutex::default(), running: Arc::default() })),
            )
        };
        let shared = {
            let mut next = locked(&reads.next);
            // The read does not hold its own place: if all who wait for it leave, both go.
            let (place, running) = (Arc::downgrade(&reads), Arc::clone(&reads.running));
            next.get_or_insert_with(|| {
                let read = async move {
                    let _running = running.lock_owned().await;
                    // Requests that come from here on share the one after this.
                    if let Some(place) = place.upgrade() {
                        locked(&place.next).take();
                    }
                    read().await
                };
                read.boxed().shared()
            })
            .clone()
        };
        shared.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_share_a_read_that_begins_after_they_came() {
        let (coalesced, written) = (Coalesced::default(), Arc::new(AtomicUsize::new(0)));
        let begun = Arc::new(AtomicUsize::new(0));
        let get = || {
            let (written, begun) = (Arc::clone(&written), Arc::clone(&begun));
            coalesced.get((), move || async move {
                begun.fetch_add(1, Ordering::SeqCst);
                let seen = written.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
                seen
            })
        };
        let first = async { get().await };
        let later = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            written.store(1, Ordering::SeqCst);
            join_all((0..50).map(|_| get())).await
        };
        let (first, later) = tokio::join!(first, later);
        assert_eq!((first, begun.load(Ordering::SeqCst)), (0, 2), "one read for all that came meanwhile");
        assert!(later.iter().all(|seen| *seen == 1), "each sees what was written before it came");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_leaves_keeps_no_other_from_its_answer() {
        let coalesced = Coalesced::default();
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            1
        };
        let left = tokio::time::timeout(Duration::from_millis(10), coalesced.get(1, slow));
        let (left, stayed) = tokio::join!(left, coalesced.get(1, slow));
        assert!(left.is_err() && stayed == 1);
        assert_eq!(coalesced.get(1, slow).await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn different_reads_run_at_the_same_time_and_leave_nothing_behind() {
        let coalesced = Coalesced::default();
        let slow = |key| async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            key
        };
        let began = tokio::time::Instant::now();
        let found = join_all((0..100).map(|key| coalesced.get(key, move || slow(key)))).await;
        assert_eq!((found, began.elapsed()), ((0..100).collect(), Duration::from_millis(100)));
        coalesced.get(0, move || slow(0)).await;
        assert!(locked(&coalesced.0).len() <= 1);
    }

    #[tokio::test(start_paused = true)]
    async fn reads_that_all_requests_have_left_are_forgotten() {
        let coalesced = Coalesced::default();
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            1
        };
        let left = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            tokio::time::timeout(Duration::from_millis(10), coalesced.get("a", slow)).await
        };
        let (read, left) = tokio::join!(coalesced.get("a", slow), left);
        assert!(read == 1 && left.is_err());
        assert_eq!(coalesced.get("b", slow).await, 1);
        assert_eq!(locked(&coalesced.0).len(), 1, "only the last key is there");
    }
}
