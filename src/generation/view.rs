//! What a step sees of the rows, and what it writes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::time::Instant;

use super::record::{Address, Generation};
use super::rows::{KeyRow, LeaseRow, Row, RowKey};
use crate::azure::{Columns, Version};
use crate::caller::Caller;
use crate::spending::{CallerTotals, Contribution, Day, DayTotals};

/// A row as it was last seen.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) row: Option<Row>,
    pub(crate) columns: Columns,
    /// `None` where there is no such row.
    pub(crate) version: Option<Version>,
    pub(crate) at: Instant,
}

/// The rows, as far as they are known, and a step's changes.
///
/// A step that asks for a row which is not known gets none, and runs again once the row was read:
/// what it wrote and said until then is forgotten.
pub(crate) struct View<'a> {
    known: &'a HashMap<RowKey, Known>,
    /// By the steps before, in the same transaction.
    before: &'a BTreeMap<RowKey, Row>,
    pub(crate) read: BTreeSet<RowKey>,
    pub(crate) missing: BTreeSet<RowKey>,
    pub(crate) written: BTreeMap<RowKey, Row>,
    /// Whether the step refuses what was wanted: then what it read must be as it is now.
    pub(crate) refuses: bool,
    /// Whether what the step wrote in an earlier round may have been written, or may yet be.
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

    /// A day's sums.
    pub(crate) fn day(&mut self, day: Day) -> DayTotals {
        match self.get(&RowKey::Day(day)) {
            Some(Row::Day(totals)) => totals.clone(),
            _ => DayTotals::default(),
        }
    }

    pub(crate) fn set_day(&mut self, day: Day, totals: DayTotals) {
        self.written.insert(RowKey::Day(day), Row::Day(totals));
    }

    /// What a caller has had of a day.
    pub(crate) fn caller(&mut self, day: Day, caller: &Caller) -> CallerTotals {
        match self.get(&RowKey::Caller(day, caller.clone())) {
            Some(Row::Caller(totals)) => *totals,
            _ => CallerTotals::default(),
        }
    }

    /// What an Idempotency-Key stands for.
    pub(crate) fn key(&mut self, digest: &str) -> Option<KeyRow> {
        match self.get(&RowKey::Key(digest.to_owned())) {
            Some(Row::Key(row)) => Some(row.clone()),
            _ => None,
        }
    }

    pub(crate) fn set_key(&mut self, digest: &str, row: KeyRow) {
        self.written.insert(RowKey::Key(digest.to_owned()), Row::Key(row));
    }

    /// A generation's record.
    pub(crate) fn generation(&mut self, address: &Address) -> Option<Generation> {
        match self.get(&RowKey::Generation(address.clone())) {
            Some(Row::Generation(generation)) => Some(generation.as_ref().clone()),
            _ => None,
        }
    }

    /// The record of a generation that is to be new: one that is not known is not read first, because
    /// writing it fails where it is there.
    pub(crate) fn new_generation(&mut self, address: &Address) -> Option<Generation> {
        let key = RowKey::Generation(address.clone());
        let is_known = self.known.contains_key(&key) || self.before.contains_key(&key);
        if is_known { self.generation(address) } else { None }
    }

    /// Writes a generation's record, and the difference of what it counts for.
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
        let is_moved = before.used != after.used;
        if !is_moved && (before.counts_caller || !after.counts_caller) {
            return false;
        }
        let mut totals = self.caller(day, caller);
        let is_new = totals.change(before, after);
        // Written even where it looks the same: what is remembered of it may be old, and a write finds
        // that out. Being counted never ends, so that may be remembered.
        if is_moved || is_new {
            self.written.insert(RowKey::Caller(day, caller.clone()), Row::Caller(totals));
        }
        is_new
    }

    /// Says that a process is alive.
    pub(crate) fn set_process(&mut self, lease: LeaseRow) {
        self.written.insert(RowKey::Process(lease.process.clone()), Row::Process(lease));
    }

    /// The process that looks after what others left.
    pub(crate) fn sweeper(&mut self) -> Option<LeaseRow> {
        match self.get(&RowKey::Sweeper) {
            Some(Row::Sweeper(lease)) => Some(lease.clone()),
            _ => None,
        }
    }

    pub(crate) fn set_sweeper(&mut self, lease: LeaseRow) {
        self.written.insert(RowKey::Sweeper, Row::Sweeper(lease));
    }
}
