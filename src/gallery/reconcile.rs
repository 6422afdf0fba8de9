//! Compares the index with the container, which is the truth, and adds what is missing.
//!
//! A pass reads the keys of all rows, then lists the container page by page. It removes a row only if the whole
//! listing did not have its blob and the blob itself is not found.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use time::OffsetDateTime;

use super::Gallery;
use super::fingerprints::Fingerprints;
use super::id::ImageId;
use super::index::SMALL;
use super::listing::Entry;
use super::row::{NAME_COLUMN, columns_of_entry};
use super::state::{Complete, State, UnderWay};
use super::thumbnails;
use crate::azure::{Change, Columns, Error, Failed, Operation, Purpose, Query};
use crate::logs::chain;

/// The columns of a query that reads keys only.
const KEYS_ONLY: &[&str] = &["PartitionKey"];
/// The most rows of one transaction, a limit of Table storage
/// (<https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions>).
const ROWS_AT_ONCE: usize = 100;
/// Transactions that a pass sends at the same time.
const TRANSACTIONS_AT_ONCE: usize = 4;
/// The pause after a failed pass; it doubles with each failure.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 60);
/// The shortest pause between two passes is ten times as long as the last pass, within these bounds.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_SHORTEST_PAUSE: Duration = Duration::from_secs(20);
/// A process that has not renewed its pass for this time has died; another one goes on with the pass.
const OWNER_DIED_AFTER: Duration = Duration::from_secs(30);
/// How often a process looks at the pass of another one.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Returns the current time.
pub(super) type Now<'a> = &'a (dyn Fn() -> OffsetDateTime + Send + Sync);

/// What a pass has done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    added: usize,
    removed: usize,
    blobs: u64,
}

impl Gallery {
    /// Keeps the index: writes pending rows, and compares it with the container at the start, after
    /// `RECONCILE_HOURS`, and when a listing finds it incomplete. Runs until the future is dropped.
    pub(crate) async fn keep_index(&self, now: Now<'_>) {
        tokio::join!(self.keep_writing_index(), self.keep_reconciling(now));
    }

    /// Writes pending rows until the future is dropped.
    pub(crate) async fn keep_writing_index(&self) {
        self.index.keep_writing().await;
    }

    async fn keep_reconciling(&self, now: Now<'_>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let reconciled = self.reconcile(now).await;
            self.index.passes.send_modify(|passes| *passes += 1);
            let took = began.elapsed();
            if let Err(error) = reconciled {
                tracing::warn!(
                    event = "reconcile_failed",
                    cause = chain(&error),
                    delay_s = pause.as_secs(),
                    "the gallery's index could not be compared with the container; it is tried again after the delay"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
            pause = FIRST_PAUSE;
            let next = async {
                match self.settings.reconcile_every {
                    Some(every) => tokio::time::sleep(every).await,
                    None => std::future::pending().await,
                }
            };
            let woken = async {
                tokio::time::sleep((took * 10).clamp(SHORTEST_PAUSE, LONGEST_SHORTEST_PAUSE)).await;
                self.index.wanted.notified().await;
            };
            tokio::select! { () = next => {}, () = woken => {} }
        }
    }

    /// Returns when a pass has ended that began after this call, by this process or by another one.
    async fn reconcile(&self, now: Now<'_>) -> Result<(), Error> {
        let called_at = now();
        loop {
            let state = State::read_or_insert(self.index.state_table()).await?;
            let is_of_another =
                |pass: &UnderWay| pass.owner != self.index.process && now() - pass.renewed_at < OWNER_DIED_AFTER;
            if state.under_way.as_ref().is_some_and(is_of_another) {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            if state.complete.as_ref().is_some_and(|complete| complete.began_at >= called_at) {
                self.index.note_complete(&state, None);
                return Ok(());
            }
            let began = Instant::now();
            let is_first = state.complete.is_none();
            let pass_began_at = state.under_way.as_ref().map_or_else(now, |pass| pass.began_at);
            let counts = self.pass(state, now).await?;
            if is_first && counts.blobs > 0 || counts.added + counts.removed > 0 {
                tracing::info!(
                    event = "gallery_reconciled",
                    added = counts.added,
                    removed = counts.removed,
                    blobs = counts.blobs,
                    duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "the gallery's index was compared with the container"
                );
            }
            // A pass that another process began before this call may have missed an image.
            if pass_began_at >= called_at {
                return Ok(());
            }
        }
    }

    /// Compares the index with the container, or goes on with the comparison of a process that died.
    async fn pass(&self, state: State, now: Now<'_>) -> Result<Counts, Error> {
        let is_taken_over = state.under_way.is_some();
        let mut pass = state.under_way.unwrap_or_else(|| UnderWay::new(now()));
        pass.owner.clone_from(&self.index.process);
        if is_taken_over {
            self.note_progress(&state.build, &mut pass, now()).await?;
        }
        let mut counts = Counts::default();
        let known = loop {
            // A row that is read here was written before the listing begins, and its blob before the row. So the
            // listing has the blob, unless it was deleted or another process began the listing.
            let is_whole = pass.marker.is_none();
            let mut rows = self.fingerprints(pass.lowest).await?;
            let mut known: HashSet<u64> = rows.iter().take(SMALL + 1).collect();
            loop {
                let listing = self.listing(now()).await?.with_metadata();
                let page = match listing.page(pass.marker.as_deref()).await {
                    // The service no longer takes the marker of an earlier process.
                    Err(Error::Answered { status: 400, .. }) if !is_whole => {
                        self.begin_anew(&state.build).await?;
                        return Err(Error::Malformed);
                    }
                    page => page?,
                };
                pass.blobs += page.entries.len() as u64;
                let missing: Vec<(ImageId, Columns)> = page
                    .entries
                    .iter()
                    .map(|entry| (id_of(entry), entry))
                    .filter(|(id, _)| rows.is_missing(id.fingerprint()))
                    .map(|(id, entry)| (id, columns_of_entry(entry)))
                    .collect();
                if known.len() <= SMALL {
                    known.extend(missing.iter().map(|(id, _)| id.fingerprint()));
                }
                counts.added += missing.len();
                let added: Vec<ImageId> = missing.iter().map(|(id, _)| id.clone()).collect();
                self.add(missing).await?;
                self.remove_deleted(&added).await?;
                pass.marker = page.next_marker;
                if pass.marker.is_none() {
                    break;
                }
                self.note_progress(&state.build, &mut pass, now()).await?;
            }
            if is_whole && rows.has_unseen() {
                counts.removed += self.remove_unseen(&rows).await?;
            }
            counts.blobs = pass.blobs;
            let Some(lowest) = rows.next_lowest() else { break known };
            (pass.lowest, pass.blobs) = (lowest, 0);
            self.note_progress(&state.build, &mut pass, now()).await?;
        };
        let ended_at = now();
        let complete = Complete { began_at: pass.began_at, ended_at, blobs: counts.blobs };
        let ended = |state: &State| State {
            build: state.build.clone(),
            complete: Some(complete.clone()),
            under_way: state.under_way.clone().filter(|pass| pass.owner != self.index.process),
        };
        let state = State::update(self.index.state_table(), &state.build, ended).await?;
        self.index.note_complete(&state, Some(known).filter(|known| known.len() <= SMALL && pass.lowest == 0));
        Ok(counts)
    }

    /// Writes how far a pass is, so that another process can go on with it.
    async fn note_progress(&self, build: &str, pass: &mut UnderWay, now: OffsetDateTime) -> Result<(), Error> {
        pass.renewed_at = now;
        let under_way = |state: &State| State { under_way: Some(pass.clone()), ..state.clone() };
        State::update(self.index.state_table(), build, under_way).await.map(drop)
    }

    async fn begin_anew(&self, build: &str) -> Result<(), Error> {
        let without = |state: &State| State { under_way: None, ..state.clone() };
        State::update(self.index.state_table(), build, without).await.map(drop)
    }

    /// Reads the fingerprints of all rows from `lowest` on, as many as fit.
    async fn fingerprints(&self, lowest: u64) -> Result<Fingerprints, Error> {
        let mut rows = Fingerprints::from(lowest);
        let mut next = None;
        loop {
            let page = self.index.scan(KEYS_ONLY, next.as_ref()).await?;
            for (row, _) in &page.rows {
                if let Some(id) = ImageId::parse(row) {
                    rows.add(id.fingerprint());
                }
            }
            next = page.next;
            if next.is_none() {
                rows.finish();
                return Ok(rows);
            }
        }
    }

    /// Adds rows, up to 100 of one partition in a transaction.
    async fn add(&self, rows: Vec<(ImageId, Columns)>) -> Result<(), Error> {
        let mut partitions: BTreeMap<String, Vec<Operation>> = BTreeMap::new();
        for (id, columns) in rows {
            let operations = partitions.entry(self.index.partition_of(&id)).or_default();
            operations.push(Operation { row: id.as_str().to_owned(), change: Change::InsertOrMerge(columns) });
        }
        let transactions: Vec<(&String, &[Operation])> = partitions
            .iter()
            .flat_map(|(partition, rows)| rows.chunks(ROWS_AT_ONCE).map(move |rows| (partition, rows)))
            .collect();
        let writes = transactions.into_iter().map(|(partition, rows)| self.add_together(partition, rows));
        stream::iter(writes.collect::<Vec<_>>()).buffer_unordered(TRANSACTIONS_AT_ONCE).try_collect().await
    }

    async fn add_together(&self, partition: &str, rows: &[Operation]) -> Result<(), Error> {
        let table = self.index.partition(partition);
        match table.transact(rows).await {
            Ok(_) => return Ok(()),
            Err(Failed::Conflict(_)) => return Err(Error::Unreachable),
            Err(Failed::Unknown { cause, .. }) => return Err(cause),
            Err(Failed::Rejected(_)) => {}
        }
        // One odd blob must not keep the others out.
        for row in rows {
            match table.transact(std::slice::from_ref(row)).await {
                Ok(_) => {}
                Err(Failed::Rejected(error)) => tracing::error!(
                    event = "index_row_refused",
                    cause = chain(&error),
                    row.key = row.row,
                    "the table refuses the index row of a blob; the blob is not in pages of the gallery"
                ),
                Err(Failed::Conflict(_)) => return Err(Error::Unreachable),
                Err(Failed::Unknown { cause, .. }) => return Err(cause),
            }
        }
        Ok(())
    }

    /// Removes the rows that were not seen and whose blob is not found. Returns their number.
    async fn remove_unseen(&self, rows: &Fingerprints) -> Result<usize, Error> {
        let (mut removed, mut next) = (0, None);
        loop {
            let page = self.index.scan(&[NAME_COLUMN], next.as_ref()).await?;
            for (row, columns) in &page.rows {
                let Some(id) = ImageId::parse(row).filter(|id| rows.is_unseen(id.fingerprint())) else { continue };
                let is_gone = match columns.get(NAME_COLUMN) {
                    Some(name) => self.is_gone(name).await?,
                    // A row without a name leads to no blob.
                    None => true,
                };
                if is_gone {
                    self.thumbnails.container().delete(&thumbnails::blob_name(id.as_str())).await?;
                    self.index.remove(&id).await?;
                    removed += 1;
                }
            }
            next = page.next;
            if next.is_none() {
                return Ok(removed);
            }
        }
    }

    /// Removes the rows of images that were deleted after the listing began. A deletion writes its own row first and
    /// removes the row of the index after the blob, so one of both finds the other.
    async fn remove_deleted(&self, added: &[ImageId]) -> Result<(), Error> {
        if added.is_empty() {
            return Ok(());
        }
        let added: HashSet<&str> = added.iter().map(ImageId::as_str).collect();
        let mut after = None;
        loop {
            let query = Query { columns: &[NAME_COLUMN], ..Query::rows("", ":") };
            let page = self.index.deleted().query(&query, after.as_ref()).await?;
            for (row, columns) in page.rows.iter().filter(|(row, _)| added.contains(row.as_str())) {
                let name = columns.get(NAME_COLUMN).map(String::as_str).unwrap_or_default();
                // An image that is there is being restored, or its deletion removes the row itself.
                if let Some(id) = ImageId::parse(row)
                    && self.is_gone(name).await?
                {
                    self.index.remove(&id).await?;
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Whether the container has no blob with this name.
    pub(super) async fn is_gone(&self, name: &str) -> Result<bool, Error> {
        Ok(self.container.find(name, Purpose::Caller).await?.is_none())
    }
}

pub(super) fn id_of(entry: &Entry) -> ImageId {
    ImageId::of(&entry.name, entry.last_modified)
}
