//! So many at a time, so many in a queue before them, and the queue has an end in time, too.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

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

/// Hands out turns, in the order in which they were asked for.
#[derive(Debug)]
pub(crate) struct Turns {
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
            working: Semaphore::new(at_a_time),
            waiting: Semaphore::new(at_a_time.saturating_mul(1 + WAITING_PER_TURN)),
        }
    }

    /// Hands out no more turns, and sends away who waits for one.
    pub(crate) fn close(&self) {
        self.working.close();
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
