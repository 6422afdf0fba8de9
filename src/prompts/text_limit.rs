//! Limits the calls of the text model that callers can cause: each call costs money.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::caller::Caller;
use crate::lock::locked;

/// Calls of one process at a time.
const AT_A_TIME: usize = 4;
/// Calls of one caller in a minute, for each process.
const PER_MINUTE: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);
/// The callers that are remembered. When there are more, those whose minute is over are forgotten, then all.
const MAX_CALLERS: usize = 10_000;

/// The limit of one process.
#[derive(Debug)]
pub(crate) struct TextLimit {
    calls: Arc<Semaphore>,
    /// The beginning of each caller's minute, and the calls since then.
    callers: Mutex<HashMap<Caller, (Instant, u32)>>,
}

impl TextLimit {
    pub(crate) fn new() -> Self {
        Self { calls: Arc::new(Semaphore::new(AT_A_TIME)), callers: Mutex::default() }
    }

    /// Allows one call, which lasts until the permit is dropped; `None` if a limit is reached.
    pub(crate) fn acquire(&self, caller: &Caller) -> Option<OwnedSemaphorePermit> {
        let permit = Arc::clone(&self.calls).try_acquire_owned().ok()?;
        let now = Instant::now();
        let mut callers = locked(&self.callers);
        if callers.len() >= MAX_CALLERS {
            callers.retain(|_, (since, _)| now.duration_since(*since) < MINUTE);
        }
        if callers.len() >= MAX_CALLERS {
            callers.clear();
        }
        let (since, count) = callers.entry(caller.clone()).or_insert((now, 0));
        if now.duration_since(*since) >= MINUTE {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        (*count <= PER_MINUTE).then_some(permit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_caller_has_ten_calls_a_minute_and_all_callers_four_at_a_time() {
        let limit = TextLimit::new();
        let (anna, bob) = (Caller::named("anna"), Caller::named("bob"));
        for _ in 0..PER_MINUTE {
            assert!(limit.acquire(&anna).is_some());
        }
        assert!(limit.acquire(&anna).is_none() && limit.acquire(&bob).is_some());
        tokio::time::advance(MINUTE).await;
        assert!(limit.acquire(&anna).is_some());

        let held: Vec<_> = (0..AT_A_TIME).map(|_| limit.acquire(&bob)).collect();
        assert!(held.iter().all(Option::is_some) && limit.acquire(&anna).is_none());
        drop(held);
        assert!(limit.acquire(&anna).is_some());
    }
}
