//! A table in memory for tests: versions and transactions like those of Azure Table storage, with latency
//! and with failures whose result the writer does not learn.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::azure::{self, Change, Columns, Failed, Operation, Version};
use crate::generation::store::Store;
use crate::lock::locked;

/// The table, as one process sees it.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    table: Arc<Mutex<Rows>>,
    latency: Latency,
    /// The failure rates.
    pub(crate) failures: Failures,
    /// Whether the process lives. Calls of a dead process never return.
    is_alive: Arc<AtomicBool>,
    random: Arc<Mutex<fastrand::Rng>>,
}

#[derive(Debug, Default)]
struct Rows {
    rows: BTreeMap<String, (Columns, u64)>,
    /// All earlier and current versions of each row.
    history: BTreeMap<String, Vec<Columns>>,
    last_version: u64,
    counts: Counts,
}

/// The numbers of transactions, by result.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) written: u64,
    pub(crate) conflicts: u64,
}

/// The latency of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Latency {
    /// A random time up to this duration, for each direction.
    UpTo(Duration),
    /// `call` for each call, half of it for each direction, and `row` for each row of a transaction.
    Network { call: Duration, row: Duration },
}

/// Failure rates, in percent of the calls.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Failures {
    /// The request is lost: nothing is written, and the result is unknown.
    pub(crate) lost_requests: u32,
    /// The answer is lost: the transaction is written, and the result is unknown.
    pub(crate) lost_answers: u32,
    /// The transaction is written up to 20 s later, and the result is unknown.
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

    /// The same table, for another process.
    pub(crate) fn for_another(&self) -> Self {
        Self { is_alive: Arc::new(AtomicBool::new(true)), ..self.clone() }
    }

    /// Kills the process: its calls never return. A call that is still on its way is not written.
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

    /// All versions of a row, the oldest first.
    pub(crate) fn history(&self, row: &str) -> Vec<Columns> {
        locked(&self.table).history.get(row).cloned().unwrap_or_default()
    }

    /// Writes a row at once, without the committer.
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
        // The service compares the first row first, so a conflict costs the time of one row.
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
                Change::DeleteVersion(version) if is_current(version) => None,
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
