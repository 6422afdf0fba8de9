//! The committer: writes the steps of a process in batches, one transaction at a time.
//!
//! A step is a function on rows. Steps that arrive during a transaction are composed into the next one;
//! each step sees the changes of the steps before it. Without a clean success, the result of a
//! transaction is unknown: the committer reads the rows again and runs each step again. So a step must
//! detect from the rows that it was written before.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::batch::{GaveUp, MAX_ROWS, Pending, compose};
use super::record::State;
use super::rows::{Row, RowKey};
use super::store::Store;
use super::view::{Known, View};
use crate::azure::{self, Columns, Failed, Operation};
use crate::lock::locked;

/// The conflict window: a process pauses for a random part of it before it writes, and collects more
/// steps meanwhile. A conflict enlarges the window, a success shrinks it.
const FIRST_WINDOW: Duration = Duration::from_millis(30);
const LONGEST_WINDOW: Duration = Duration::from_secs(1);
const WINDOW_AFTER_CONFLICT: f64 = 1.5;
const WINDOW_AFTER_SUCCESS: f64 = 0.7;
/// A pause takes at most a quarter of the time that is left until the earliest deadline.
const TIME_LEFT_DIVISOR: u32 = 4;
/// A step with [`Patience::Endless`] pauses as if it had this deadline. The deadline takes effect when
/// the process stops.
const ENDLESS_DEADLINE: Duration = Duration::from_secs(10);
/// The pause between tries while the table fails: a random part of this, which doubles with each try.
const FIRST_PAUSE: Duration = Duration::from_millis(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Above this number of cached rows, the rows of callers and days are dropped.
const MAX_CACHED_ROWS: usize = 1_000;
/// The longest `Retry-After` of the table service that is respected.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(10);
/// The number of characters of a row key in a log line.
const LOGGED_CHARACTERS: usize = 32;

/// Writes the steps of one process. Clones share the same queue.
#[derive(Debug)]
pub(crate) struct Committer<S>(Arc<Inner<S>>);

impl<S> Clone for Committer<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Inner<S> {
    store: S,
    /// The id of this process. The records that it draws stay cached.
    process: String,
    tasks: TaskTracker,
    /// Cancelled when the process stops. Then steps with endless patience get a deadline, too.
    stopping: CancellationToken,
    queue: Mutex<Queue>,
    /// The cached rows. The writer takes them while it runs.
    rows: Mutex<HashMap<RowKey, Known>>,
    /// The conflict window. The writer takes it while it runs.
    window: Mutex<Duration>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Pending>,
    /// Whether a writer task runs.
    has_writer: bool,
}

/// How long the committer tries to write a step.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    /// Until this time has passed, because a caller waits.
    For(Duration),
    /// Until the step is written, or the process stops.
    Endless,
}

impl<S: Store> Committer<S> {
    pub(crate) fn new(store: S, process: String, tasks: TaskTracker, stopping: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            store,
            process,
            tasks,
            stopping,
            queue: Mutex::default(),
            rows: Mutex::default(),
            window: Mutex::default(),
        }))
    }

    pub(crate) fn store(&self) -> &S {
        &self.0.store
    }

    /// The id of this process.
    pub(crate) fn process(&self) -> &str {
        &self.0.process
    }

    /// Writes a step and returns the result of the run that was written. The work goes on if this
    /// future is dropped.
    ///
    /// # Errors
    /// [`GaveUp`] if the step was not written in time, a row is malformed, or the writer panicked.
    pub(crate) async fn step<R: Send + 'static>(
        &self,
        patience: Patience,
        mut step: impl FnMut(&mut View<'_>) -> R + Send + 'static,
    ) -> Result<R, GaveUp> {
        let result = Arc::new(Mutex::new(None));
        let (done, written) = oneshot::channel();
        let run = {
            let result = Arc::clone(&result);
            Box::new(move |view: &mut View<'_>| *locked(&result) = Some(step(view)))
        };
        let since = Instant::now();
        let deadline = match patience {
            Patience::For(time) => Some(since + time),
            Patience::Endless => None,
        };
        self.submit(Pending { run, since, deadline, conflicts: 0, may_be_written: false, done });
        let writer_gone = GaveUp { may_be_written: true, is_rejected: false, cause: azure::Error::Unreachable };
        written.await.unwrap_or(Err(writer_gone.clone()))?;
        locked(&result).take().ok_or(writer_gone)
    }

    fn submit(&self, pending: Pending) {
        let mut queue = locked(&self.0.queue);
        queue.waiting.push_back(pending);
        if !std::mem::replace(&mut queue.has_writer, true) {
            let inner = Arc::clone(&self.0);
            self.0.tasks.spawn(async move { inner.write_all().await });
        }
    }
}

impl<S: Store> Inner<S> {
    /// Writes until no step waits.
    async fn write_all(&self) {
        let _guard = WriterGuard(&self.queue);
        let mut rows = std::mem::take(&mut *locked(&self.rows));
        let mut window = std::mem::take(&mut *locked(&self.window));
        let (mut failures, mut limit) = (0, MAX_ROWS);
        let mut cause = azure::Error::Unreachable;
        let mut steps = VecDeque::new();
        loop {
            {
                let mut queue = locked(&self.queue);
                steps.append(&mut queue.waiting);
                if steps.is_empty() {
                    queue.has_writer = false;
                    (*locked(&self.rows), *locked(&self.window)) = (rows, window);
                    return;
                }
            }
            if !window.is_zero() {
                tokio::time::sleep(pause_in(window, &steps)).await;
                steps.append(&mut locked(&self.queue).waiting);
                // Other processes have probably changed the day's row during the pause.
                rows.retain(|key, _| !matches!(key, RowKey::Day(_)));
            }
            give_up_overdue(&mut steps, &cause, self.stopping.is_cancelled());
            match self.round(&mut steps, &mut rows, limit).await {
                Round::Done => {
                    (failures, limit) = (0, MAX_ROWS);
                    window = window.mul_f64(WINDOW_AFTER_SUCCESS);
                    if window < FIRST_WINDOW / 4 {
                        window = Duration::ZERO;
                    }
                }
                Round::Conflict => {
                    cause = azure::Error::Answered { status: 412, code: "UpdateConditionNotSatisfied".to_owned() };
                    window = window.mul_f64(WINDOW_AFTER_CONFLICT).clamp(FIRST_WINDOW, LONGEST_WINDOW);
                }
                Round::Failed(error, retry_after) => {
                    cause = error;
                    let longest = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE);
                    let wanted = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
                    let pause = longest.mul_f64(fastrand::f64()).max(wanted);
                    failures += 1;
                    let deadline = steps.iter().filter_map(|step| step.deadline).min();
                    let until = Instant::now() + pause;
                    tokio::time::sleep_until(deadline.map_or(until, |deadline| deadline.min(until))).await;
                }
                Round::TooLarge(steps_in_batch) => limit = steps_in_batch / 2,
            }
        }
    }

    /// Composes as many steps as fit into one transaction and writes it. Unwritten steps stay in `steps`.
    async fn round(&self, steps: &mut VecDeque<Pending>, rows: &mut HashMap<RowKey, Known>, limit: usize) -> Round {
        let batch = loop {
            match compose(steps, rows, limit) {
                Ok(batch) => break batch,
                Err(missing) => {
                    let read = join_all(missing.into_iter().map(|key| async {
                        let found = self.read(&key).await;
                        (key, found)
                    }));
                    for (key, found) in read.await {
                        match found {
                            Ok(known) => drop(rows.insert(key, known)),
                            Err(azure::Error::Malformed) => {
                                rows.remove(&key);
                                give_up_on_malformed(&key, steps, rows);
                            }
                            Err(error) => return Round::Failed(error, None),
                        }
                    }
                }
            }
        };
        if batch.operations.is_empty() {
            batch.finish();
            self.evict(rows);
            return Round::Done;
        }
        let operations: Vec<Operation> = batch.operations.iter().map(|(_, operation, _)| operation.clone()).collect();
        // The age of the rows counts from before the call: another process may change them before the
        // answer arrives.
        let at = Instant::now();
        match self.store.transact(&operations).await {
            Ok(versions) => {
                let mut changed = batch.changed.clone();
                for ((key, _, columns), version) in batch.operations.iter().zip(versions) {
                    let row = changed.remove(key);
                    rows.insert(key.clone(), Known { row, columns: columns.clone(), version: Some(version), at });
                }
                batch.finish();
                self.evict(rows);
                Round::Done
            }
            Err(Failed::Conflict(index)) => {
                let key = batch.operations.get(index).map(|(key, ..)| key.clone());
                let key = key.filter(|key| !matches!(key, RowKey::Day(_)));
                rows.retain(|known, _| !matches!(known, RowKey::Day(_)) && Some(known) != key.as_ref());
                // A stale caller row suggests that the others are stale, too: other processes serve the same
                // callers. Dropping all of them avoids one conflict for each.
                let read = batch.steps.iter().flat_map(|(_, read)| read);
                for caller in read.filter(|read| key.is_some() && matches!(read, RowKey::Caller(..))) {
                    rows.remove(caller);
                }
                batch.put_back(steps, |pending, read| {
                    pending.conflicts += u32::from(key.as_ref().is_some_and(|key| read.contains(key)));
                });
                // An inserted row may exist already, perhaps from an earlier write of the same step.
                if let Some(key) = key
                    && let Ok(known) = self.read(&key).await
                {
                    rows.insert(key, known);
                }
                Round::Conflict
            }
            Err(Failed::Unknown { cause, retry_after }) => {
                for (key, ..) in &batch.operations {
                    rows.remove(key);
                }
                batch.put_back(steps, |pending, _| pending.may_be_written = true);
                Round::Failed(cause, retry_after)
            }
            Err(Failed::Rejected(cause)) => {
                let count = batch.steps.len();
                if count > 1 {
                    batch.put_back(steps, |_, _| {});
                    return Round::TooLarge(count);
                }
                for (pending, _) in batch.steps {
                    let Pending { done, may_be_written, .. } = pending;
                    let _ = done.send(Err(GaveUp { may_be_written, is_rejected: true, cause: cause.clone() }));
                }
                Round::Done
            }
        }
    }

    async fn read(&self, key: &RowKey) -> Result<Known, azure::Error> {
        let at = Instant::now();
        Ok(match self.store.get(&key.text()).await? {
            None => Known { row: None, columns: Columns::new(), version: None, at },
            Some((columns, version)) => Known { row: Some(key.read(&columns)?), columns, version: Some(version), at },
        })
    }

    /// Keeps only the rows in the cache that this process writes often. A row outside the cache is read
    /// before the next step that needs it.
    fn evict(&self, rows: &mut HashMap<RowKey, Known>) {
        rows.retain(|key, known| match (key, &known.row) {
            (RowKey::Day(_) | RowKey::Caller(..), _) => true,
            (RowKey::Generation(_), Some(Row::Generation(generation))) => {
                matches!(&generation.state, State::Drawing(attempt) if attempt.process == self.process)
            }
            _ => false,
        });
        if rows.len() > MAX_CACHED_ROWS {
            rows.retain(|key, _| !matches!(key, RowKey::Caller(..) | RowKey::Day(_)));
        }
    }
}

/// Held by the writer. If a step panics, the waiting steps fail, and the next step starts a new writer.
struct WriterGuard<'a>(&'a Mutex<Queue>);

impl Drop for WriterGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *locked(self.0) = Queue::default();
        }
    }
}

/// The result of a round.
enum Round {
    Done,
    Conflict,
    Failed(azure::Error, Option<Duration>),
    /// The service rejected a transaction of this many steps.
    TooLarge(usize),
}

/// Gives up the steps that need a malformed row: a retry would fail again.
fn give_up_on_malformed(row: &RowKey, steps: &mut VecDeque<Pending>, rows: &HashMap<RowKey, Known>) {
    // A whole record address would let readers of the log watch the job.
    let begins_with: String = row.text().chars().take(LOGGED_CHARACTERS).collect();
    tracing::error!(
        event = "row_malformed",
        row.begins_with = begins_with,
        "a row of the state table is malformed; the steps that need it are given up"
    );
    let nothing = BTreeMap::new();
    for mut step in std::mem::take(steps) {
        let mut view = View::new(rows, &nothing, step.may_be_written);
        (step.run)(&mut view);
        if view.missing.contains(row) {
            let Pending { done, may_be_written, .. } = step;
            let _ = done.send(Err(GaveUp { may_be_written, is_rejected: false, cause: azure::Error::Malformed }));
        } else {
            steps.push_back(step);
        }
    }
}

/// Gives up the steps whose deadline has passed.
fn give_up_overdue(steps: &mut VecDeque<Pending>, cause: &azure::Error, is_stopping: bool) {
    let now = Instant::now();
    let is_overdue = |step: &Pending| match step.deadline {
        Some(at) => at <= now,
        // The spool has the outcome, or a sweep finds it.
        None => is_stopping && step.since + ENDLESS_DEADLINE <= now,
    };
    let (overdue, rest): (VecDeque<Pending>, VecDeque<Pending>) =
        std::mem::take(steps).into_iter().partition(is_overdue);
    *steps = rest;
    for Pending { done, may_be_written, .. } in overdue {
        let _ = done.send(Err(GaveUp { may_be_written, is_rejected: false, cause: cause.clone() }));
    }
}

/// A random part of the window, limited by the earliest deadline of the steps.
fn pause_in(window: Duration, steps: &VecDeque<Pending>) -> Duration {
    let now = Instant::now();
    let deadlines = steps.iter().map(|step| step.deadline.unwrap_or(step.since + ENDLESS_DEADLINE));
    let left = deadlines.min().map_or(window, |deadline| deadline.saturating_duration_since(now));
    window.mul_f64(fastrand::f64()).min(left / TIME_LEFT_DIVISOR)
}
