//! Values that expire and are fetched again in time, such as tokens.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::lock::locked;

/// After a failed fetch the next one begins after this time. Until then its error is the answer.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(2);
/// The time for which a failed request is repeated.
const REPEAT_FOR: Duration = Duration::from_secs(5);

/// A value that expires. One task fetches it at a time, and all that need it share the result. Clones share the value.
#[derive(Debug)]
pub(super) struct Renewed<T, E>(Arc<Shared<T, E>>);

/// A fetched value.
#[derive(Debug)]
pub(super) struct Fetched<T> {
    pub(super) value: T,
    /// From then on the value is fetched again in the background, and still used.
    pub(super) renew_in: Duration,
    /// From then on the value is not used.
    pub(super) expires_in: Duration,
}

#[derive(Debug)]
struct Shared<T, E> {
    state: Mutex<State<T, E>>,
    ended: Notify,
}

#[derive(Debug)]
struct State<T, E> {
    value: Option<(T, Instant, Instant)>,
    failed: Option<(E, Instant)>,
    is_fetching: bool,
}

impl<T, E> Clone for Renewed<T, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T, E> Default for Renewed<T, E> {
    fn default() -> Self {
        let state = State { value: None, failed: None, is_fetching: false };
        Self(Arc::new(Shared { state: Mutex::new(state), ended: Notify::new() }))
    }
}

impl<T: Clone + Send + 'static, E: Clone + Send + 'static> Renewed<T, E> {
    /// The value. It is fetched when there is none, and in the background when it is to be renewed.
    ///
    /// # Errors
    /// There is no value, and the fetch failed.
    pub(super) async fn get<F>(&self, fetch: impl Fn() -> F) -> Result<T, E>
    where
        F: Future<Output = Result<Fetched<T>, E>> + Send + 'static,
    {
        loop {
            let ended = self.0.ended.notified();
            tokio::pin!(ended);
            // A fetch that ends before the await below is noticed, too.
            ended.as_mut().enable();
            {
                let now = Instant::now();
                let mut state = locked(&self.0.state);
                let current = state.value.as_ref().filter(|(_, _, until)| now < *until);
                let is_fresh = current.is_some_and(|(_, renew_at, _)| now < *renew_at);
                let current = current.map(|(value, ..)| value.clone());
                let failed = state.failed.as_ref().filter(|(_, at)| now < *at + PAUSE_AFTER_FAILURE);
                let failed = failed.map(|(error, _)| error.clone());
                if !is_fresh && !state.is_fetching && failed.is_none() {
                    state.is_fetching = true;
                    self.spawn(fetch());
                }
                match (current, failed) {
                    (Some(value), _) => return Ok(value),
                    (None, Some(error)) if !state.is_fetching => return Err(error),
                    (None, _) => {}
                }
            }
            ended.await;
        }
    }

    /// A task of its own: a caller that leaves does not end what others wait for.
    fn spawn<F>(&self, fetch: F)
    where
        F: Future<Output = Result<Fetched<T>, E>> + Send + 'static,
    {
        let fetching = Fetching(Arc::clone(&self.0));
        tokio::spawn(async move {
            // A task of its own again: after a panic those that wait begin the next fetch, and not at once.
            let Ok(fetched) = tokio::spawn(fetch).await else {
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                return;
            };
            let now = Instant::now();
            let mut state = locked(&fetching.0.state);
            match fetched {
                Ok(Fetched { value, renew_in, expires_in }) => {
                    state.value = Some((value, now + renew_in, now + expires_in));
                    state.failed = None;
                }
                Err(error) => state.failed = Some((error, now)),
            }
            drop(state);
            drop(fetching);
        });
    }
}

/// Asks, and asks again for some seconds after an error that may pass. The first pause is `pause`; each further one is
/// twice as long.
///
/// # Errors
/// The last error.
pub(super) async fn repeated<T, E, F>(
    mut pause: Duration,
    ask: impl Fn() -> F,
    may_pass: impl Fn(&E) -> bool,
) -> Result<T, E>
where
    F: Future<Output = Result<T, E>>,
{
    let began = Instant::now();
    loop {
        match ask().await {
            Err(error) if may_pass(&error) && began.elapsed() + pause <= REPEAT_FOR => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            result => return result,
        }
    }
}

/// A fetch under way. It ends when this is dropped.
struct Fetching<T, E>(Arc<Shared<T, E>>);

impl<T, E> Drop for Fetching<T, E> {
    fn drop(&mut self) {
        locked(&self.0.state).is_fetching = false;
        self.0.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    /// A source whose fetches take a second. Their values are numbered; those in `failing` fail.
    struct Source {
        renewed: Renewed<usize, &'static str>,
        begun: Arc<AtomicUsize>,
        failing: std::ops::Range<usize>,
    }

    impl Source {
        fn new(failing: std::ops::Range<usize>) -> Self {
            Self { renewed: Renewed::default(), begun: Arc::default(), failing }
        }

        async fn get(&self) -> Result<usize, &'static str> {
            let fetch = || {
                let (begun, failing) = (Arc::clone(&self.begun), self.failing.clone());
                async move {
                    let number = begun.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    if failing.contains(&number) {
                        return Err("failed");
                    }
                    let (renew_in, expires_in) = (Duration::from_secs(60), Duration::from_secs(100));
                    Ok(Fetched { value: number, renew_in, expires_in })
                }
            };
            self.renewed.get(fetch).await
        }

        fn begun(&self) -> usize {
            self.begun.load(Ordering::SeqCst)
        }
    }

    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_need_a_value_share_one_fetch_and_a_caller_that_leaves_does_not_end_it() {
        let source = Source::new(0..0);
        let left = tokio::time::timeout(Duration::from_millis(500), source.get());
        let (left, stayed) = tokio::join!(left, join_all((0..50).map(|_| source.get())));
        assert!(left.is_err());
        assert!(stayed.iter().all(|value| *value == Ok(0)));
        assert_eq!(source.begun(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_renewed_in_the_background_before_it_expires() {
        let source = Source::new(0..0);
        assert_eq!(source.get().await, Ok(0));
        pass(59).await;
        assert_eq!((source.get().await, source.begun()), (Ok(0), 1));
        pass(1).await;
        let began = Instant::now();
        for _ in 0..10 {
            assert_eq!(source.get().await, Ok(0), "the old value is still used");
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits");
        pass(2).await;
        assert_eq!((source.get().await, source.begun()), (Ok(1), 2));
        pass(101).await;
        assert_eq!((source.get().await, source.begun()), (Ok(2), 3), "an expired value is not used");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_keeps_the_old_value_until_it_expires_and_is_tried_again_after_a_pause() {
        let source = Source::new(1..4);
        assert_eq!(source.get().await, Ok(0));
        pass(60).await;
        assert_eq!(source.get().await, Ok(0));
        pass(2).await;
        assert_eq!((source.get().await, source.begun()), (Ok(0), 2), "no fetch right after a failure");
        pass(2).await;
        assert_eq!(source.get().await, Ok(0));
        pass(50).await;
        assert_eq!(source.begun(), 3);
        assert_eq!((source.get().await, source.begun()), (Err("failed"), 4));
        let began = Instant::now();
        assert_eq!((source.get().await, source.begun()), (Err("failed"), 4), "the failure is the answer for a time");
        assert_eq!(began.elapsed(), Duration::ZERO);
        pass(2).await;
        assert_eq!((source.get().await, source.begun()), (Ok(4), 5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fetch_that_panics_is_followed_by_another_one_after_a_pause() {
        let renewed = Renewed::<usize, &'static str>::default();
        let tries = Arc::new(AtomicUsize::new(0));
        let fetch = || {
            let tries = Arc::clone(&tries);
            async move {
                assert!(tries.fetch_add(1, Ordering::SeqCst) > 0, "the first fetch panics");
                let (renew_in, expires_in) = (Duration::from_secs(1), Duration::from_secs(1));
                Ok(Fetched { value: 7, renew_in, expires_in })
            }
        };
        let began = Instant::now();
        assert_eq!(renewed.get(fetch).await, Ok(7));
        assert_eq!(began.elapsed(), PAUSE_AFTER_FAILURE);
    }
}
