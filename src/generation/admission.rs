//! Admission: at most `MAX_CONCURRENT_GENERATIONS` draw in this process, four times as many wait for a
//! turn, and none waits for long.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that are looked at at the same time: they wait for the table, which may take seconds.
const MAX_REQUESTS: usize = 1_000;
/// For each generation that draws, so many wait.
const WAITING_PER_GENERATION: usize = 4;

/// Hands out turns, in the order in which they were asked for.
#[derive(Debug)]
pub(crate) struct Admission {
    requests: Arc<Semaphore>,
    drawing: Arc<Semaphore>,
    inside: Arc<Semaphore>,
}

/// Room for one request while it is looked at.
#[derive(Debug)]
pub(crate) struct RequestPermit {
    _request: OwnedSemaphorePermit,
}

/// A place among those who draw and those who wait.
#[derive(Debug)]
pub(crate) struct QueuePermit {
    _inside: OwnedSemaphorePermit,
}

/// The right to ask the provider.
#[derive(Debug)]
pub(crate) struct DrawPermit {
    _drawing: OwnedSemaphorePermit,
}

/// No turn is free, and none will be soon.
#[derive(Debug, thiserror::Error)]
#[error("as many generations are under way and waiting as this process takes")]
pub struct Busy;

impl Admission {
    pub(crate) fn new(at_a_time: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            drawing: Arc::new(Semaphore::new(at_a_time)),
            inside: Arc::new(Semaphore::new(at_a_time.saturating_mul(1 + WAITING_PER_GENERATION))),
        }
    }

    /// Hands out no more turns, and sends away who waits for one.
    pub(crate) fn close(&self) {
        self.drawing.close();
    }

    /// Lets a request be looked at.
    pub(crate) fn acquire_request_permit(&self) -> Result<RequestPermit, Busy> {
        let request = Arc::clone(&self.requests).try_acquire_owned();
        Ok(RequestPermit { _request: request.map_err(|_| Busy)? })
    }

    /// Takes a place, if there is one. Whoever has it may wait for a turn.
    pub(crate) fn acquire_queue_permit(&self) -> Result<QueuePermit, Busy> {
        if self.drawing.is_closed() {
            return Err(Busy);
        }
        let inside = Arc::clone(&self.inside).try_acquire_owned();
        Ok(QueuePermit { _inside: inside.map_err(|_| Busy)? })
    }

    /// Waits for a turn, for so long at most. It lasts until it is dropped.
    pub(crate) async fn acquire_draw_permit(&self, longest_wait: Duration) -> Result<DrawPermit, Busy> {
        match tokio::time::timeout(longest_wait, Arc::clone(&self.drawing).acquire_owned()).await {
            Ok(Ok(drawing)) => Ok(DrawPermit { _drawing: drawing }),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    const LONGEST_WAIT: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn the_queue_has_an_end_in_number_and_in_time() {
        let admission = Admission::new(1);
        let places: Vec<_> =
            (0..=WAITING_PER_GENERATION).map(|_| admission.acquire_queue_permit().expect("there is room")).collect();
        assert!(admission.acquire_queue_permit().is_err(), "the queue is full");
        let first = admission.acquire_draw_permit(LONGEST_WAIT).await.expect("it is free");
        let began = Instant::now();
        let waited = futures_util::future::join_all(
            (0..WAITING_PER_GENERATION).map(|_| admission.acquire_draw_permit(LONGEST_WAIT)),
        )
        .await;
        assert!(waited.iter().all(Result::is_err));
        assert_eq!(began.elapsed(), LONGEST_WAIT);
        drop((first, places));
        assert!(admission.acquire_draw_permit(LONGEST_WAIT).await.is_ok() && admission.acquire_queue_permit().is_ok());
        admission.close();
        assert!(
            admission.acquire_draw_permit(LONGEST_WAIT).await.is_err() && admission.acquire_queue_permit().is_err()
        );
    }

    #[test]
    fn no_more_are_let_in_than_the_process_holds() {
        let admission = Admission::new(1);
        let mut entries: Vec<_> =
            (0..MAX_REQUESTS).map(|_| admission.acquire_request_permit().expect("there is room")).collect();
        assert!(admission.acquire_request_permit().is_err());
        entries.pop();
        assert!(admission.acquire_request_permit().is_ok());
    }
}
