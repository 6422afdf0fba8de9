//! Writes steps together: one transaction at a time for each process.
//!
//! A step is a function on rows. Steps that come while a transaction is under way are composed into
//! the next one, each on what those before it have left. What is not a clean success is unknown: the
//! rows are read again, and each step runs again on what is there. So a step must find out from the
//! rows whether it was written already.

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
use super::view::{Known, View};
use crate::azure::{self, Columns, Failed, Operation, Table, Version};
use crate::lock::locked;

/// Where processes fight over a row, each pauses for a random part of a window before it writes, and
/// gathers steps meanwhile. A conflict makes the window larger, a success smaller.
const FIRST_WINDOW: Duration = Duration::from_millis(30);
const LONGEST_WINDOW: Duration = Duration::from_secs(1);
const WINDOW_AFTER_CONFLICT: f64 = 1.5;
const WINDOW_AFTER_SUCCESS: f64 = 0.7;
/// A step that has waited for long pauses for at most this part of the time that it has left.
const PART_OF_TIME_LEFT: u32 = 4;
/// An end has no deadline, and hurries as if it had this; it has it when the process is to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Between tries while the table fails: a random part of this, doubled with each try.
const FIRST_PAUSE: Duration = Duration::from_millis(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Callers' rows that are remembered.
const MAX_CALLERS: usize = 1_000;
/// The service is obeyed when it wants to be left alone, for so long.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(10);
/// Of a row's key: enough to find it.
const LOGGED_CHARACTERS: usize = 32;

/// Where rows are.
pub(crate) trait Store: Send + Sync + 'static {
    /// Reads a row; `None` where there is none.
    fn get(&self, row: &str) -> impl Future<Output = Result<Option<(Columns, Version)>, azure::Error>> + Send;
    /// Changes several rows, each once, or none.
    fn transact(&self, operations: &[Operation]) -> impl Future<Output = Result<Vec<Version>, Failed>> + Send;
}

impl Store for Table {
    async fn get(&self, row: &str) -> Result<Option<(Columns, Version)>, azure::Error> {
        Self::get(self, row).await
    }

    async fn transact(&self, operations: &[Operation]) -> Result<Vec<Version>, Failed> {
        Self::transact(self, operations).await
    }
}

/// Writes the steps of one process.
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
    /// This process, whose own drawing generations are remembered.
    process: String,
    tasks: TaskTracker,
    /// Cancelled when the process is to end: then nothing is written with endless patience any more.
    stopping: CancellationToken,
    queue: Mutex<Queue>,
    /// Rows as they were last seen, while nobody writes.
    rows: Mutex<HashMap<RowKey, Known>>,
    /// How long the pauses before a write are at the most, likewise.
    window: Mutex<Duration>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Pending>,
    /// Whether somebody writes them.
    is_written: bool,
}

/// How long a step is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patience {
    /// Somebody waits.
    For(Duration),
    /// It must be written, as long as the process lives.
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

    /// This process's id.
    pub(crate) fn process(&self) -> &str {
        &self.0.process
    }

    /// Writes a step, and gives back what it said when it was written. It is written, or given up,
    /// also when nobody waits for it any more.
    ///
    /// # Errors
    /// It was not written in its time.
    pub(crate) async fn step<R: Send + 'static>(
        &self,
        patience: Patience,
        mut step: impl FnMut(&mut View<'_>) -> R + Send + 'static,
    ) -> Result<R, GaveUp> {
        let said = Arc::new(Mutex::new(None));
        let (done, written) = oneshot::channel();
        let run = {
            let said = Arc::clone(&said);
            Box::new(move |view: &mut View<'_>| *locked(&said) = Some(step(view)))
        };
        let since = Instant::now();
        let deadline = match patience {
            Patience::For(time) => Some(since + time),
            Patience::Endless => None,
        };
        self.submit(Pending { run, since, deadline, conflicts: 0, may_be_written: false, done });
        let gone = GaveUp { may_be_written: true, cause: azure::Error::Unreachable };
        written.await.unwrap_or(Err(gone.clone()))?;
        locked(&said).take().ok_or(gone)
    }

    fn submit(&self, pending: Pending) {
        let mut queue = locked(&self.0.queue);
        queue.waiting.push_back(pending);
        if !std::mem::replace(&mut queue.is_written, true) {
            let inner = Arc::clone(&self.0);
            self.0.tasks.spawn(async move { inner.write_all().await });
        }
    }
}

impl<S: Store> Inner<S> {
    /// Writes until nothing waits.
    async fn write_all(&self) {
        let _writing = Writing(&self.queue);
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
                    queue.is_written = false;
                    (*locked(&self.rows), *locked(&self.window)) = (rows, window);
                    return;
                }
            }
            if !window.is_zero() {
                tokio::time::sleep(pause_in(window, &steps)).await;
                steps.append(&mut locked(&self.queue).waiting);
                // What others fight over has changed meanwhile.
                rows.retain(|key, _| !matches!(key, RowKey::Day(_)));
            }
            give_up_late(&mut steps, &cause, self.stopping.is_cancelled());
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

    /// Composes what fits into one transaction and writes it. What was not written stays in `steps`.
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
                                give_up_on(&key, steps, rows);
                            }
                            Err(error) => return Round::Failed(error, None),
                        }
                    }
                }
            }
        };
        if batch.operations.is_empty() {
            batch.finish();
            self.forget(rows);
            return Round::Done;
        }
        let operations: Vec<Operation> = batch.operations.iter().map(|(_, operation, _)| operation.clone()).collect();
        // Others may change what is written before its answer is here.
        let at = Instant::now();
        match self.store.transact(&operations).await {
            Ok(versions) => {
                let mut changed = batch.changed.clone();
                for ((key, _, columns), version) in batch.operations.iter().zip(versions) {
                    let row = changed.remove(key);
                    rows.insert(key.clone(), Known { row, columns: columns.clone(), version: Some(version), at });
                }
                batch.finish();
                self.forget(rows);
                Round::Done
            }
            Err(Failed::Conflict(index)) => {
                let key = batch.operations.get(index).map(|(key, ..)| key.clone());
                let key = key.filter(|key| !matches!(key, RowKey::Day(_)));
                rows.retain(|known, _| !matches!(known, RowKey::Day(_)) && Some(known) != key.as_ref());
                // Who is late at one of them is late at most: others draw for the same callers.
                let read = batch.steps.iter().flat_map(|(_, read)| read);
                for caller in read.filter(|read| key.is_some() && matches!(read, RowKey::Caller(..))) {
                    rows.remove(caller);
                }
                batch.put_back(steps, |pending, read| {
                    pending.conflicts += u32::from(key.as_ref().is_some_and(|key| read.contains(key)));
                });
                // A row that was taken for new is there: what the step wrote before, perhaps.
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
                    let _ =
                        pending.done.send(Err(GaveUp { may_be_written: pending.may_be_written, cause: cause.clone() }));
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

    /// Remembers what is written often by this process, and nothing else: a row that is not
    /// remembered is read before the next step on it.
    fn forget(&self, rows: &mut HashMap<RowKey, Known>) {
        rows.retain(|key, known| match (key, &known.row) {
            (RowKey::Day(_) | RowKey::Caller(..), _) => true,
            (RowKey::Generation(_), Some(Row::Generation(generation))) => {
                matches!(&generation.state, State::Drawing(attempt) if attempt.process == self.process)
            }
            _ => false,
        });
        if rows.len() > MAX_CALLERS {
            rows.retain(|key, _| !matches!(key, RowKey::Caller(..) | RowKey::Day(_)));
        }
    }
}

/// While somebody writes. A step that panics takes those with it that wait, but not those that come
/// later.
struct Writing<'a>(&'a Mutex<Queue>);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *locked(self.0) = Queue::default();
        }
    }
}

/// What came of a round.
enum Round {
    Done,
    Conflict,
    Failed(azure::Error, Option<Duration>),
    /// With so many steps.
    TooLarge(usize),
}

/// Gives up the steps that need a row which cannot be read: that does not pass by itself.
fn give_up_on(row: &RowKey, steps: &mut VecDeque<Pending>, rows: &HashMap<RowKey, Known>) {
    // Who knows a record's whole address may watch it.
    let begins_with: String = row.text().chars().take(LOGGED_CHARACTERS).collect();
    tracing::error!(row.begins_with = begins_with, "a row of the table is not as this program writes it");
    let nothing = BTreeMap::new();
    for mut step in std::mem::take(steps) {
        let mut view = View::new(rows, &nothing, step.may_be_written);
        (step.run)(&mut view);
        if view.missing.contains(row) {
            let Pending { done, may_be_written, .. } = step;
            let _ = done.send(Err(GaveUp { may_be_written, cause: azure::Error::Malformed }));
        } else {
            steps.push_back(step);
        }
    }
}

fn give_up_late(steps: &mut VecDeque<Pending>, cause: &azure::Error, is_stopping: bool) {
    let now = Instant::now();
    let is_late = |step: &Pending| match step.deadline {
        Some(at) => at <= now,
        // What it was to write is in the spool, or is found out by whoever sweeps.
        None => is_stopping && step.since + ENDS_WITHIN <= now,
    };
    let (late, rest): (VecDeque<Pending>, VecDeque<Pending>) = std::mem::take(steps).into_iter().partition(is_late);
    *steps = rest;
    for Pending { done, may_be_written, .. } in late {
        let _ = done.send(Err(GaveUp { may_be_written, cause: cause.clone() }));
    }
}

/// A random part of the window, shorter where a step has waited for long.
fn pause_in(window: Duration, steps: &VecDeque<Pending>) -> Duration {
    let now = Instant::now();
    let deadlines = steps.iter().map(|step| step.deadline.unwrap_or(step.since + ENDS_WITHIN));
    let left = deadlines.min().map_or(window, |deadline| deadline.saturating_duration_since(now));
    window.mul_f64(fastrand::f64()).min(left / PART_OF_TIME_LEFT)
}
