//! So many at a time, so many in a queue before them, and the queue has an end in time, too.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// So many requests are let in: they wait for the table first, which may take seconds.
const MAX_REQUESTS: usize = 1_000;
/// For each one that works, so many wait.
const WAITING_PER_TURN: usize = 4;
/// Whoever waits longer is told to come back.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// A job has ten minutes in all, the provider's time in them.
const LONGEST_PATIENCE: Duration = Duration::from_secs(4 * 60);

/// The right to ask the provider.
pub(crate) struct Turn<'a> {
    _working: SemaphorePermit<'a>,
    _inside: Option<SemaphorePermit<'a>>,
}

/// The right to be in the process at all, until it is dropped.
pub(crate) struct Entry<'a> {
    _entry: SemaphorePermit<'a>,
}

/// Hands out turns, in the order in which they were asked for.
#[derive(Debug)]
pub(crate) struct Turns {
    entries: Semaphore,
    working: Semaphore,
    waiting: Semaphore,
}

/// No turn is free, and none will be soon.
#[derive(Debug, thiserror::Error)]
#[error("as many generations are under way and waiting as this process takes")]
pub struct Busy;

impl Turns {
    pub(crate) fn new(at_a_time: usize) -> Self {
        Self {
            entries: Semaphore::new(MAX_REQUESTS),
            working: Semaphore::new(at_a_time),
            waiting: Semaphore::new(at_a_time.saturating_mul(1 + WAITING_PER_TURN)),
        }
    }

    /// Hands out no more turns, and sends away who waits for one.
    pub(crate) fn close(&self) {
        self.working.close();
    }

    /// Lets a request in.
    pub(crate) fn enter(&self) -> Result<Entry<'_>, Busy> {
        Ok(Entry { _entry: self.entries.try_acquire().map_err(|_| Busy)? })
    }

    /// Waits for a turn, which lasts until this is dropped.
    pub(crate) async fn take(&self) -> Result<Turn<'_>, Busy> {
        // Everybody inside has one of these, whether working or waiting.
        let inside = self.waiting.try_acquire().map_err(|_| Busy)?;
        let working = self.wait(LONGEST_WAIT).await?;
        Ok(Turn { _working: working, _inside: Some(inside) })
    }

    /// The same for work that comes through a queue of its own: however many wait, and for longer.
    pub(crate) async fn take_patiently(&self) -> Result<Turn<'_>, Busy> {
        Ok(Turn { _working: self.wait(LONGEST_PATIENCE).await?, _inside: None })
    }

    async fn wait(&self, limit: Duration) -> Result<SemaphorePermit<'_>, Busy> {
        match tokio::time::timeout(limit, self.working.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_queue_has_an_end_in_number_and_in_time() {
        let turns = Turns::new(1);
        let first = turns.take().await.expect("it is free");
        let waiting: Vec<_> = (0..WAITING_PER_TURN).map(|_| turns.take()).collect();
        let (began, waiting) = (Instant::now(), futures_util::future::join_all(waiting));
        let late = async {
            tokio::task::yield_now().await;
            assert!(turns.take().await.is_err(), "the queue is full");
            assert_eq!(began.elapsed(), Duration::ZERO, "that is said at once");
        };
        let (waited, ()) = tokio::join!(waiting, late);
        assert!(waited.iter().all(Result::is_err));
        assert_eq!(began.elapsed(), LONGEST_WAIT);
        drop(first);
        assert!(turns.take().await.is_ok());
    }

    #[test]
    fn no_more_are_let_in_than_the_process_holds() {
        let turns = Turns::new(1);
        let mut entries: Vec<_> = (0..MAX_REQUESTS).map(|_| turns.enter().expect("there is room")).collect();
        assert!(turns.enter().is_err());
        entries.pop();
        assert!(turns.enter().is_ok());
    }
}
