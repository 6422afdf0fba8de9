//! A table in memory, for tests: versions and transactions as Azure has them, with a latency, and with
//! failures whose outcome the writer does not learn.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::azure::{self, Change, Columns, Failed, Operation, Version};
use crate::generation::commit::Store;
use crate::lock::locked;

/// The table as one process reaches it.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    table: Arc<Mutex<Rows>>,
    latency: Latency,
    /// Of a hundred calls, so many of each kind fail.
    pub(crate) failures: Failures,
    /// A process that has died hears nothing any more.
    is_alive: Arc<AtomicBool>,
    random: Arc<Mutex<fastrand::Rng>>,
}

#[derive(Debug, Default)]
struct Rows {
    rows: BTreeMap<String, (Columns, u64)>,
    /// All that each row has ever been.
    history: BTreeMap<String, Vec<Columns>>,
    last_version: u64,
    counts: Counts,
}

/// What happened to transactions.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) written: u64,
    pub(crate) conflicts: u64,
}

/// How long a call takes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Latency {
    /// A random time up to this.
    UpTo(Duration),
    /// This for each call, half of it on the way there, and so much more for each row of a transaction.
    Network { call: Duration, row: Duration },
}

/// Of a hundred calls.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Failures {
    /// Do nothing, and nobody knows.
    pub(crate) lost_requests: u32,
    /// Do their work, and nobody knows.
    pub(crate) lost_answers: u32,
    /// Do their work much later.
    pub(crate) late: u32,
}

impl Model {
    pub(crate) fn new(latency: Latency, failures: Failures, seed: u64) -> Self {
        Self {
            table: Arc::default(),
            latency,
            failures,
            is_alive: Arc::new(AtomicBool::new(true)),
            random: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
        }
    }

    /// The same table for another process.
    pub(crate) fn for_another(&self) -> Self {
        Self { is_alive: Arc::new(AtomicBool::new(true)), ..self.clone() }
    }

    /// The process that has this dies: nothing that it began is heard of again, and what it was about
    /// to write is not written.
    pub(crate) fn kill(&self) {
        self.is_alive.store(false, Ordering::SeqCst);
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.is_alive.load(Ordering::SeqCst)
    }

    pub(crate) fn counts(&self) -> Counts {
        locked(&self.table).counts
    }

    /// All rows.
    pub(crate) fn rows(&self) -> BTreeMap<String, Columns> {
        locked(&self.table).rows.iter().map(|(key, (columns, _))| (key.clone(), columns.clone())).collect()
    }

    /// All that a row has been so far, the oldest first.
    pub(crate) fn history(&self, row: &str) -> Vec<Columns> {
        locked(&self.table).history.get(row).cloned().unwrap_or_default()
    }

    /// Writes a row past everybody.
    pub(crate) fn put(&self, row: &str, columns: Columns) {
        let change = Change::Upsert(columns);
        let put = locked(&self.table).transact(&[Operation { row: row.to_owned(), change }]);
        assert!(put.is_ok(), "{put:?}");
    }

    async fn wait(&self, rows: u32) {
        let pause = match self.latency {
            Latency::UpTo(longest) => longest.mul_f64(locked(&self.random).f64()),
            Latency::Network { call, row } => call / 2 + row * rows,
        };
        tokio::time::sleep(pause).await;
        if !self.is_alive() {
            std::future::pending::<()>().await;
        }
    }

    fn chance(&self, percent: u32) -> bool {
        locked(&self.random).u32(0..100) < percent
    }
}

fn lost() -> Failed {
    Failed::Unknown { cause: azure::Error::Unreachable, retry_after: None }
}

impl Store for Model {
    async fn get(&self, row: &str) -> Result<Option<(Columns, Version)>, azure::Error> {
        self.wait(0).await;
        if self.chance(self.failures.lost_requests) {
            return Err(azure::Error::Unreachable);
        }
        let found = locked(&self.table).rows.get(row).cloned();
        self.wait(0).await;
        Ok(found.map(|(columns, version)| (columns, Version(version.to_string()))))
    }

    async fn transact(&self, operations: &[Operation]) -> Result<Vec<Version>, Failed> {
        self.wait(0).await;
        if self.chance(self.failures.lost_requests) {
            return Err(lost());
        }
        if self.chance(self.failures.late) {
            let (table, operations) = (Arc::clone(&self.table), operations.to_vec());
            let delay = Duration::from_millis(locked(&self.random).u64(0..20_000));
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let _ = locked(&table).transact(&operations);
            });
            return Err(lost());
        }
        let written = locked(&self.table).transact(operations);
        let is_lost = self.chance(self.failures.lost_answers);
        // The first row is locked and compared first: who is too late learns it there.
        let rows = if written.is_ok() { operations.len() } else { 1 };
        self.wait(u32::try_from(rows).unwrap_or(u32::MAX)).await;
        if is_lost { Err(lost()) } else { written }
    }
}

impl Rows {
    fn transact(&mut self, operations: &[Operation]) -> Result<Vec<Version>, Failed> {
        let mut rows = BTreeMap::new();
        for (index, Operation { row, change }) in operations.iter().enumerate() {
            assert!(!rows.contains_key(row), "a transaction changes each row once: {row}");
            let found = self.rows.get(row);
            let is_current = |version: &Version| found.is_some_and(|(_, found)| found.to_string() == version.0);
            let columns = match change {
                Change::Insert(columns) if found.is_none() => Some(columns.clone()),
                Change::Merge(version, columns) if is_current(version) => {
                    let mut merged = found.map(|(columns, _)| columns.clone()).unwrap_or_default();
                    merged.extend(columns.clone());
                    Some(merged)
                }
                Change::Replace(version, columns) if is_current(version) => Some(columns.clone()),
                Change::Upsert(columns) => Some(columns.clone()),
                Change::Delete if found.is_some() => None,
                _ => {
                    self.counts.conflicts += 1;
                    return Err(Failed::Conflict(index));
                }
            };
            rows.insert(row.clone(), columns);
        }
        self.counts.written += 1;
        let mut versions = Vec::new();
        for Operation { row, .. } in operations {
            self.last_version += 1;
            match rows.remove(row).flatten() {
                Some(columns) => {
                    self.history.entry(row.clone()).or_default().push(columns.clone());
                    self.rows.insert(row.clone(), (columns, self.last_version));
                }
                None => drop(self.rows.remove(row)),
            }
            versions.push(Version(self.last_version.to_string()));
        }
        Ok(versions)
    }
}
