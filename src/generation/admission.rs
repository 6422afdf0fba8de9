//! Admission of this process: with N = `MAX_CONCURRENT_GENERATIONS`, at most N generations draw and 4 N
//! requests wait for a draw permit, and jobs of one caller are accepted eight at a time. Each wait has a time limit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::caller::Caller;
use crate::lock::locked;

/// The largest number of requests in checks at the same time. A check may wait seconds for the table.
const MAX_REQUESTS: usize = 1_000;
/// Waiting requests for each drawing generation.
const WAITING_PER_GENERATION: usize = 4;

/// Jobs of one caller that are accepted at the same time. Each puts its message into the queue before a limit can
/// refuse it.
const JOBS_PER_CALLER: usize = 8;

/// The permits of this process. Draw permits are given in the order of the requests.
#[derive(Debug)]
pub(crate) struct Admission {
    requests: Arc<Semaphore>,
    drawing: Arc<Semaphore>,
    drawing_or_waiting: Arc<Semaphore>,
    /// The job permits of each caller.
    jobs: Mutex<HashMap<Caller, Arc<Semaphore>>>,
}

/// A request permit: the right to check one request.
#[derive(Debug)]
pub(crate) struct RequestPermit {
    _request: OwnedSemaphorePermit,
}

/// A job permit: the right to accept one job of its caller.
#[derive(Debug)]
pub(crate) struct JobPermit {
    _job: OwnedSemaphorePermit,
}

/// A queue permit: the right to draw or to wait for a draw permit.
#[derive(Debug)]
pub(crate) struct QueuePermit {
    _drawing_or_waiting: OwnedSemaphorePermit,
}

/// A draw permit: the right to call the provider.
#[derive(Debug)]
pub(crate) struct DrawPermit {
    _drawing: OwnedSemaphorePermit,
}

/// No permit is free, or the wait for one took too long.
#[derive(Debug, thiserror::Error)]
#[error("this process has no free permit for another generation")]
pub struct Busy;

impl Admission {
    pub(crate) fn new(max_drawing: usize) -> Self {
        Self {
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            drawing: Arc::new(Semaphore::new(max_drawing)),
            drawing_or_waiting: Arc::new(Semaphore::new(max_drawing.saturating_mul(1 + WAITING_PER_GENERATION))),
            jobs: Mutex::default(),
        }
    }

    /// Refuses further draw permits, also to the waiting requests.
    pub(crate) fn close(&self) {
        self.drawing.close();
    }

    /// Takes a request permit.
    ///
    /// # Errors
    /// [`Busy`] if none is free.
    pub(crate) fn acquire_request_permit(&self) -> Result<RequestPermit, Busy> {
        let request = Arc::clone(&self.requests).try_acquire_owned();
        Ok(RequestPermit { _request: request.map_err(|_| Busy)? })
    }

    /// Waits at most `longest_wait` until few enough jobs of this caller are being accepted.
    ///
    /// # Errors
    /// [`Busy`] if the wait takes too long.
    pub(crate) async fn acquire_job_permit(&self, caller: &Caller, longest_wait: Duration) -> Result<JobPermit, Busy> {
        let job = {
            let mut jobs = locked(&self.jobs);
            // Permits and waiting requests hold a clone. The number of callers is at most that of request permits.
            jobs.retain(|_, permits| Arc::strong_count(permits) > 1);
            let permits = jobs.entry(caller.clone()).or_insert_with(|| Arc::new(Semaphore::new(JOBS_PER_CALLER)));
            Arc::clone(permits).acquire_owned()
        };
        match tokio::time::timeout(longest_wait, job).await {
            Ok(Ok(job)) => Ok(JobPermit { _job: job }),
            Ok(Err(_)) | Err(_) => Err(Busy),
        }
    }

    /// Takes a queue permit, which allows to wait for a draw permit.
    ///
    /// # Errors
    /// [`Busy`] if none is free or the process stops.
    pub(crate) fn acquire_queue_permit(&self) -> Result<QueuePermit, Busy> {
        if self.drawing.is_closed() {
            return Err(Busy);
        }
        let permit = Arc::clone(&self.drawing_or_waiting).try_acquire_owned();
        Ok(QueuePermit { _drawing_or_waiting: permit.map_err(|_| Busy)? })
    }

    /// Waits at most `longest_wait` for a draw permit, which is valid until it is dropped.
    ///
    /// # Errors
    /// [`Busy`] if the wait takes too long or the process stops.
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
    async fn waiting_is_limited_in_number_and_in_time() {
        let admission = Admission::new(1);
        let queue_permits: Vec<_> =
            (0..=WAITING_PER_GENERATION).map(|_| admission.acquire_queue_permit().expect("there is room")).collect();
        assert!(admission.acquire_queue_permit().is_err(), "the queue is full");
        let first = admission.acquire_draw_permit(LONGEST_WAIT).await.expect("a draw permit is free");
        let began = Instant::now();
        let waited = futures_util::future::join_all(
            (0..WAITING_PER_GENERATION).map(|_| admission.acquire_draw_permit(LONGEST_WAIT)),
        )
        .await;
        assert!(waited.iter().all(Result::is_err));
        assert_eq!(began.elapsed(), LONGEST_WAIT);
        drop((first, queue_permits));
        assert!(admission.acquire_draw_permit(LONGEST_WAIT).await.is_ok() && admission.acquire_queue_permit().is_ok());
        admission.close();
        assert!(
            admission.acquire_draw_permit(LONGEST_WAIT).await.is_err() && admission.acquire_queue_permit().is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn jobs_of_one_caller_wait_for_each_other_and_not_for_those_of_another() {
        let admission = Admission::new(1);
        let (anna, bob) = (Caller::named("anna"), Caller::named("bob"));
        let acquire = |caller| admission.acquire_job_permit(caller, LONGEST_WAIT);
        let mut annas: Vec<_> = futures_util::future::join_all((0..JOBS_PER_CALLER).map(|_| acquire(&anna))).await;
        assert!(annas.iter().all(Result::is_ok));
        let began = Instant::now();
        assert!(acquire(&bob).await.is_ok());
        assert!(acquire(&anna).await.is_err());
        assert_eq!(began.elapsed(), LONGEST_WAIT);
        annas.pop();
        assert!(acquire(&anna).await.is_ok());
        drop(annas);
        assert!(acquire(&bob).await.is_ok());
        assert_eq!(locked(&admission.jobs).len(), 1, "callers without a job are forgotten");
    }

    #[test]
    fn the_number_of_requests_in_checks_is_limited() {
        let admission = Admission::new(1);
        let mut request_permits: Vec<_> =
            (0..MAX_REQUESTS).map(|_| admission.acquire_request_permit().expect("there is room")).collect();
        assert!(admission.acquire_request_permit().is_err());
        request_permits.pop();
        assert!(admission.acquire_request_permit().is_ok());
    }
}
