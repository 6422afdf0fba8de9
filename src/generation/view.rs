//! The view of a step: the rows that it reads, and its changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;

use super::record::{Address, Generation};
use super::rows::{KeyRow, LeaseRow, Row, RowKey, TextRow, Work};
use crate::azure::{Columns, Version};
use crate::caller::Caller;
use crate::spending::{CallerTotals, Contribution, Day, DayTotals};

/// A cached row, as it was last read or written.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) row: Option<Row>,
    pub(crate) columns: Columns,
    /// `None` if the row does not exist.
    pub(crate) version: Option<Version>,
    /// When the row was read or written.
    pub(crate) at: Instant,
}

/// The cached rows, and the changes of a step.
///
/// For a row outside the cache, the view returns the default and notes the row as missing. The committer
/// then reads the row, drops the step's changes and result, and runs the step again.
pub(crate) struct View<'a> {
    known: &'a HashMap<RowKey, Known>,
    /// Changes of the earlier steps in the same transaction.
    before: &'a BTreeMap<RowKey, Row>,
    pub(crate) read: BTreeSet<RowKey>,
    pub(crate) missing: BTreeSet<RowKey>,
    pub(crate) written: BTreeMap<RowKey, Row>,
    /// Whether the step refuses the request. A refusal needs rows that were read after the request came.
    pub(crate) refuses: bool,
    /// Whether an earlier transaction with this step has an unknown result.
    pub(crate) may_be_written: bool,
}

impl<'a> View<'a> {
    pub(crate) fn new(
        known: &'a HashMap<RowKey, Known>,
        before: &'a BTreeMap<RowKey, Row>,
        may_be_written: bool,
    ) -> Self {
        Self {
            known,
            before,
            read: BTreeSet::new(),
            missing: BTreeSet::new(),
            written: BTreeMap::new(),
            refuses: false,
            may_be_written,
        }
    }

    fn get(&mut self, key: &RowKey) -> Option<&Row> {
        self.read.insert(key.clone());
        if let Some(row) = self.written.get(key).or_else(|| self.before.get(key)) {
            return Some(row);
        }
        match self.known.get(key) {
            Some(known) => known.row.as_ref(),
            None => {
                self.missing.insert(key.clone());
                None
            }
        }
    }

    /// The sums of a day.
    pub(crate) fn day(&mut self, day: Day) -> DayTotals {
        match self.get(&RowKey::Day(day)) {
            Some(Row::Day(totals)) => totals.clone(),
            _ => DayTotals::default(),
        }
    }

    pub(crate) fn set_day(&mut self, day: Day, totals: DayTotals) {
        self.written.insert(RowKey::Day(day), Row::Day(totals));
    }

    /// The sums of a caller on a day.
    pub(crate) fn caller(&mut self, day: Day, caller: &Caller) -> CallerTotals {
        match self.get(&RowKey::Caller(day, caller.clone())) {
            Some(Row::Caller(totals)) => *totals,
            _ => CallerTotals::default(),
        }
    }

    /// The row of an idempotency key.
    pub(crate) fn key(&mut self, digest: &str) -> Option<KeyRow> {
        match self.get(&RowKey::Key(digest.to_owned())) {
            Some(Row::Key(row)) => Some(row.clone()),
            _ => None,
        }
    }

    pub(crate) fn set_key(&mut self, digest: &str, row: KeyRow) {
        self.written.insert(RowKey::Key(digest.to_owned()), Row::Key(row));
    }

    /// The record of a generation.
    pub(crate) fn generation(&mut self, address: &Address) -> Option<Generation> {
        match self.get(&RowKey::Generation(address.clone())) {
            Some(Row::Generation(generation)) => Some(generation.as_ref().clone()),
            _ => None,
        }
    }

    /// The cached record of a generation that should be new. No read is needed: if the record exists in the
    /// table, its insertion causes a conflict.
    pub(crate) fn new_generation(&mut self, address: &Address) -> Option<Generation> {
        let key = RowKey::Generation(address.clone());
        let is_known = self.known.contains_key(&key) || self.before.contains_key(&key);
        if is_known { self.generation(address) } else { None }
    }

    /// Writes a record, and changes the sums by the difference of the two contributions.
    pub(crate) fn record(&mut self, old: Option<&Generation>, new: &Generation) {
        let (day, caller) = (new.order.address.day(), &new.order.caller);
        let before = old.map(Generation::contribution).unwrap_or_default();
        let after = new.contribution();
        let is_new_caller = self.change_caller(day, caller, &before, &after);
        if is_new_caller || (before.reserved, before.totals) != (after.reserved, after.totals) {
            let mut totals = self.day(day);
            totals.callers += u64::from(is_new_caller);
            totals.change(&before, &after);
            self.set_day(day, totals);
        }
        self.written.insert(RowKey::Generation(new.order.address.clone()), Row::Generation(Box::new(new.clone())));
    }

    fn change_caller(&mut self, day: Day, caller: &Caller, before: &Contribution, after: &Contribution) -> bool {
        let is_moved = before.differs_for_caller(after);
        if !is_moved && (before.counts_caller || !after.counts_caller) {
            return false;
        }
        let mut totals = self.caller(day, caller);
        let is_new = totals.change(before, after);
        // A change of the quota is written even if the row looks unchanged, because the write detects a
        // stale cache. `is_counted` never goes back to false, so a cached `true` is safe.
        if is_moved || is_new {
            self.written.insert(RowKey::Caller(day, caller.clone()), Row::Caller(totals));
        }
        is_new
    }

    /// Writes the lease of a process.
    pub(crate) fn set_process(&mut self, lease: LeaseRow) {
        self.written.insert(RowKey::Process(lease.process.clone()), Row::Process(lease));
    }

    /// Replaces the sums of a process's texts, and changes the sums of the day by the difference.
    pub(crate) fn set_texts(&mut self, day: Day, process: &str, new: TextRow) -> DayTotals {
        let key = RowKey::Text(day, process.to_owned());
        let old = match self.get(&key) {
            Some(Row::Text(old)) => old.clone(),
            _ => TextRow::default(),
        };
        let mut totals = self.day(day);
        if old != new {
            totals.change(
                &Contribution::of_texts(&old.model, old.totals),
                &Contribution::of_texts(&new.model, new.totals),
            );
            self.set_day(day, totals.clone());
            self.written.insert(key, Row::Text(new));
        }
        totals
    }

    /// The lease of the process that does this work.
    pub(crate) fn lease(&mut self, work: Work) -> Option<LeaseRow> {
        match self.get(&RowKey::Lease(work)) {
            Some(Row::Lease(lease)) => Some(lease.clone()),
            _ => None,
        }
    }

    pub(crate) fn set_lease(&mut self, work: Work, lease: LeaseRow) {
        self.written.insert(RowKey::Lease(work), Row::Lease(lease));
    }
}
