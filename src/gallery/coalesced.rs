//! Shares one expensive read among the requests that want it at the same time.

use std::sync::{Arc, Mutex};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};

use crate::lock::locked;

/// A read of which at most one runs at a time. A request that comes while one runs shares the next one, which
/// begins after the request came: what was written before the request is in its answer.
#[derive(Debug)]
pub(crate) struct Coalesced<T: Clone> {
    /// The read that has not begun.
    next: Arc<Mutex<Option<Shared<BoxFuture<'static, T>>>>>,
    running: Arc<tokio::sync::Mutex<()>>,
}

impl<T: Clone> Default for Coalesced<T> {
    fn default() -> Self {
        Self { next: Arc::default(), running: Arc::default() }
    }
}

impl<T: Clone + Send + Sync + 'static> Coalesced<T> {
    /// The result of a read that begins after this call.
    pub(crate) async fn get<F: Future<Output = T> + Send + 'static>(
        &self,
        read: impl FnOnce() -> F + Send + 'static,
    ) -> T {
        let shared = {
            let mut next = locked(&self.next);
            let (waiting, running) = (Arc::clone(&self.next), Arc::clone(&self.running));
            next.get_or_insert_with(|| {
                let read = async move {
                    let _running = running.lock().await;
                    // Requests that come from here on share the one after this.
                    locked(&waiting).take();
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
            coalesced.get(move || async move {
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
        let left = tokio::time::timeout(Duration::from_millis(10), coalesced.get(slow));
        let (left, stayed) = tokio::join!(left, coalesced.get(slow));
        assert!(left.is_err() && stayed == 1);
        assert_eq!(coalesced.get(slow).await, 1);
    }
}
