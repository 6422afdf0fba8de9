//! Batches: composes several steps into one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::rows::{Row, RowKey};
use super::view::{Known, View};
use crate::azure::{self, Change, Columns, Operation};

/// Azure allows 100 operations and 4 MiB in a transaction
/// (<https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions>).
pub(super) const MAX_ROWS: usize = 100;
const MAX_BYTES: usize = 3 * 1024 * 1024;
/// After this number of conflicts outside the day's row, a step gets a transaction of its own.
const CONFLICTS_UNTIL_ALONE: u32 = 2;

/// A step that waits to be written.
pub(super) struct Pending {
    pub(super) run: Box<dyn FnMut(&mut View<'_>) + Send>,
    /// When the step was submitted.
    pub(super) since: Instant,
    pub(super) deadline: Option<Instant>,
    /// Conflicts so far on rows that the step reads, without those on the day's row.
    pub(super) conflicts: u32,
    /// Whether an earlier transaction with this step has an unknown result.
    pub(super) may_be_written: bool,
    pub(super) done: oneshot::Sender<Result<(), GaveUp>>,
}

impl std::fmt::Debug for Pending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

/// The committer stopped trying to write a step.
#[derive(Debug, Clone, thiserror::Error)]
#[error("a step could not be written to the state table")]
pub(crate) struct GaveUp {
    /// Whether a transaction with the step may still be written, or already was.
    pub(crate) may_be_written: bool,
    /// Whether the table rejects the step itself: another try fails, too.
    pub(crate) is_rejected: bool,
    /// The last error.
    #[source]
    pub(crate) cause: azure::Error,
}

/// The steps of one transaction, and its changes.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) steps: Vec<(Pending, BTreeSet<RowKey>)>,
    pub(super) changed: BTreeMap<RowKey, Row>,
    pub(super) operations: Vec<(RowKey, Operation, Columns)>,
}

impl Batch {
    /// Reports success to the submitter of each step.
    pub(super) fn finish(self) {
        for (pending, _) in self.steps {
            // The submitter may have stopped waiting.
            let _ = pending.done.send(Ok(()));
        }
    }

    /// Puts the steps back at the front of the queue, in their order.
    pub(super) fn put_back(self, steps: &mut VecDeque<Pending>, note: impl Fn(&mut Pending, &BTreeSet<RowKey>)) {
        for (mut pending, read) in self.steps.into_iter().rev() {
            note(&mut pending, &read);
            steps.push_front(pending);
        }
    }
}

/// Takes as many steps as fit into one transaction, at most `limit`.
///
/// # Errors
/// The rows that must be read first. All steps are back in `steps` then.
pub(super) fn compose(
    steps: &mut VecDeque<Pending>,
    rows: &HashMap<RowKey, Known>,
    limit: usize,
) -> Result<Batch, BTreeSet<RowKey>> {
    let mut batch = Batch::default();
    let (mut missing, mut bytes) = (BTreeSet::new(), 0);
    let mut left = VecDeque::new();
    let mut must_be_current = Vec::new();
    while let Some(mut pending) = steps.pop_front() {
        let is_alone = pending.conflicts >= CONFLICTS_UNTIL_ALONE;
        if batch.steps.len() >= limit.max(1) || is_alone && !batch.steps.is_empty() {
            left.push_back(pending);
            continue;
        }
        let mut view = View::new(rows, &batch.changed, pending.may_be_written);
        (pending.run)(&mut view);
        let View { missing: lacks, read, written, refuses, .. } = view;
        if !lacks.is_empty() {
            missing.extend(lacks);
            left.push_back(pending);
            continue;
        }
        let size: usize = written.values().map(|row| size(&row.columns())).sum();
        let count = batch.changed.keys().chain(written.keys()).collect::<BTreeSet<_>>().len();
        if !batch.steps.is_empty() && (count > MAX_ROWS || bytes + size > MAX_BYTES) {
            left.push_back(pending);
            break;
        }
        bytes += size;
        if refuses || written.is_empty() {
            must_be_current.push((pending.since, read.clone()));
        }
        batch.changed.extend(written);
        batch.steps.push((pending, read));
        if is_alone {
            break;
        }
    }
    left.append(steps);
    *steps = left;
    // A step that refuses or only reads needs rows that were read after it was submitted, or that this
    // transaction compares.
    for (since, read) in must_be_current {
        let is_stale =
            |key: &&RowKey| !batch.changed.contains_key(key) && rows.get(key).is_none_or(|known| known.at < since);
        missing.extend(read.iter().filter(is_stale).cloned());
    }
    if !missing.is_empty() {
        batch.put_back(steps, |_, _| {});
        return Err(missing);
    }
    batch.operations = batch.changed.iter().map(|(key, row)| operation(key, row, rows.get(key))).collect();
    Ok(batch)
}

/// The operation that turns a row as it is known into its new contents. An unchanged row is written,
/// too, because that compares its version.
fn operation(key: &RowKey, row: &Row, known: Option<&Known>) -> (RowKey, Operation, Columns) {
    let columns = row.columns();
    let change = match known.and_then(|known| Some((&known.columns, known.version.clone()?))) {
        // Only the process itself writes its row.
        _ if matches!(key, RowKey::Process(_)) => Change::Upsert(columns.clone()),
        None => Change::Insert(columns.clone()),
        Some((old, version)) if old.keys().all(|name| columns.contains_key(name)) => {
            let changed = columns.iter().filter(|(name, text)| old.get(*name) != Some(text));
            Change::Merge(version, changed.map(|(name, text)| (name.clone(), text.clone())).collect())
        }
        Some((_, version)) => Change::Replace(version, columns.clone()),
    };
    (key.clone(), Operation { row: key.text(), change }, columns)
}

/// The upper bound of a row's size in the request, in bytes. JSON escapes characters outside ASCII.
fn size(columns: &Columns) -> usize {
    const OVERHEAD: usize = 600;
    columns.values().flat_map(|text| text.chars()).map(|c| if c.is_ascii() { 1 } else { 12 }).sum::<usize>() + OVERHEAD
}
