//! The index: a table with one row for each image, from which pages of the gallery are read.
//!
//! The container is the truth. The index can be dropped at any time; [`super::reconcile`] rebuilds it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::id::{ImageId, fingerprint};
use super::row::Row;
use super::state::State;
use crate::azure::{Change, Columns, Continuation, Error, Http, Page, Purpose, Query, Table};
use crate::config::ServiceConfig;
use crate::lock::locked;
use crate::logs::chain;

/// The table. Apps with different containers share it.
const TABLE: &str = "visionaryimages";
/// The longest time that an answer of generateImage waits for its row.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);
/// Rows that wait to be written again. Each takes 1 KiB of memory. More are left to the next pass.
const MAX_PENDING: usize = 10_000;
/// The pause before a row is written again; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The most rows of one answer of the service.
const MAX_TOP: usize = 1_000;
/// A service may answer with an empty page and a continuation. A read follows this number of pages without a
/// row, one after the other.
const MAX_EMPTY_PAGES: usize = 100;
/// A container with more blobs than one page of its listing holds is listed from the index.
pub(super) const SMALL: usize = 5_000;
/// How often a read is repeated while the index is being rebuilt.
const READS: usize = 3;

/// The index of one container.
#[derive(Debug)]
pub(crate) struct Index {
    /// The partition of the state row.
    table: Table,
    container: String,
    /// A random id of this process.
    pub(super) process: String,
    /// Rows that may not be in the table yet. This process lists them nevertheless.
    pending: Mutex<BTreeMap<ImageId, Columns>>,
    /// Notified when a row could not be written; wakes [`Self::keep_writing`].
    left_pending: Notify,
    /// The build that this process last saw complete, see [`State::build`].
    build: Mutex<Option<String>>,
    /// Whether the last pass saw more than [`SMALL`] blobs.
    is_large: AtomicBool,
    /// The fingerprints of a small index, by which a listing of the container finds images without a row.
    fingerprints: Mutex<Option<HashSet<u64>>>,
    /// Wakes the next pass.
    pub(super) wanted: Notify,
    /// The number of passes of this process that have ended, with or without success.
    pub(super) passes: watch::Sender<usize>,
}

/// Rows in the order of their ids.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) rows: Vec<Row>,
    /// Whether more rows follow.
    pub(super) has_more: bool,
}

impl Index {
    pub(super) fn new(config: &ServiceConfig, container: &str, http: Http) -> Self {
        Self {
            table: Table::new(config, TABLE, &format!("{container}_state"), http),
            container: container.to_owned(),
            process: format!("{:032x}", fastrand::u128(..)),
            pending: Mutex::default(),
            left_pending: Notify::new(),
            build: Mutex::default(),
            is_large: AtomicBool::new(false),
            fingerprints: Mutex::default(),
            wanted: Notify::new(),
            passes: watch::Sender::default(),
        }
    }

    /// Writes the row of an image that is in the container, or merges its columns into the row. If that fails,
    /// the row is written again in the background, and this process lists the image meanwhile.
    pub(super) async fn put(&self, id: ImageId, columns: Columns) {
        let (is_kept, columns) = {
            let mut pending = locked(&self.pending);
            if pending.len() < MAX_PENDING || pending.contains_key(&id) {
                let all = pending.entry(id.clone()).or_default();
                all.extend(columns);
                (true, all.clone())
            } else {
                (false, columns)
            }
        };
        let written = tokio::time::timeout(WRITTEN_WITHIN, self.merge(&id, &columns)).await;
        match written.unwrap_or(Err(Error::Unreachable)) {
            Ok(()) => self.written(&id, &columns),
            Err(error) => {
                tracing::warn!(
                    event = "index_row_pending",
                    cause = chain(&error),
                    is_kept,
                    "the index row of a stored image could not be written; it is tried again"
                );
                if is_kept { self.left_pending.notify_one() } else { self.wanted.notify_one() }
            }
        }
    }

    /// Adds columns to the row of an image. An image without a row gets none: it was deleted, or a pass adds it later.
    /// Returns whether there is a row.
    ///
    /// # Errors
    /// The columns may not be written.
    pub(super) async fn add(&self, id: &ImageId, columns: Columns) -> Result<bool, Error> {
        if locked(&self.pending).contains_key(id) {
            self.put(id.clone(), columns).await;
            return Ok(true);
        }
        self.table.partition(&id.partition(&self.container)).merge(id.as_str(), &columns).await
    }

    /// Forgets pending columns that were written, unless others have joined them.
    fn written(&self, id: &ImageId, columns: &Columns) {
        let mut pending = locked(&self.pending);
        if pending.get(id) == Some(columns) {
            pending.remove(id);
        }
    }

    /// The columns of an image's row; `None` if it has none.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(super) async fn columns(&self, id: &ImageId) -> Result<Option<Columns>, Error> {
        let pending = locked(&self.pending).get(id).cloned();
        let found = self.table.partition(&id.partition(&self.container)).get(id.as_str(), Purpose::Caller).await?;
        Ok(match (found, pending) {
            (Some((mut columns, _)), pending) => {
                columns.extend(pending.unwrap_or_default());
                Some(columns)
            }
            (None, pending) => pending,
        })
    }

    /// Removes the row of an image.
    ///
    /// # Errors
    /// The row may still be there.
    pub(super) async fn remove(&self, id: &ImageId) -> Result<(), Error> {
        locked(&self.pending).remove(id);
        remove_row(&self.table.partition(&id.partition(&self.container)), id).await
    }

    /// The partition with the rows of deleted images.
    pub(super) fn deleted(&self) -> Table {
        self.table.partition(&format!("{}_deleted", self.container))
    }

    /// Merges columns into the row of an image, or inserts the row.
    ///
    /// # Errors
    /// The columns may not be written.
    pub(super) async fn merge(&self, id: &ImageId, columns: &Columns) -> Result<(), Error> {
        self.table.partition(&id.partition(&self.container)).insert_or_merge(id.as_str(), columns).await?;
        if let Some(known) = &mut *locked(&self.fingerprints) {
            known.insert(id.fingerprint());
        }
        Ok(())
    }

    /// Writes pending rows until the future is dropped.
    pub(super) async fn keep_writing(&self) {
        loop {
            self.left_pending.notified().await;
            let mut pause = FIRST_PAUSE;
            while !locked(&self.pending).is_empty() {
                tokio::time::sleep(pause).await;
                pause = if self.write_pending().await.is_ok() { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
            }
        }
    }

    /// Tries once to write each pending row.
    async fn write_pending(&self) -> Result<(), Error> {
        let rows: Vec<(ImageId, Columns)> =
            locked(&self.pending).iter().map(|(id, columns)| (id.clone(), columns.clone())).collect();
        for (id, columns) in rows {
            match self.merge(&id, &columns).await {
                Ok(()) => {}
                Err(error @ Error::Answered { status: 400 | 413, .. }) => tracing::error!(
                    event = "index_row_refused",
                    cause = chain(&error),
                    "the table refuses the index row of an image; the image is not in pages of the gallery"
                ),
                Err(error) => return Err(error),
            }
            self.written(&id, &columns);
        }
        Ok(())
    }

    /// Reads rows that follow an id, or the newest ones; `None` if the index is not complete.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(super) async fn read(
        &self,
        after: Option<&ImageId>,
        count: usize,
        columns: &[&str],
    ) -> Result<Option<Rows>, Error> {
        for _ in 0..READS {
            // The rows are complete if one build was complete before and after they were read: a table that is
            // deleted and created again in between has another build.
            let before = locked(&self.build).clone();
            let rows = self.read_rows(after, count, columns).await?;
            let state = State::read(&self.table).await?;
            let build = state.filter(|state| state.complete.is_some()).map(|state| state.build);
            locked(&self.build).clone_from(&build);
            if build.is_none() {
                return Ok(None);
            }
            if before == build {
                return Ok(Some(rows));
            }
        }
        Ok(None)
    }

    async fn read_rows(&self, after: Option<&ImageId>, count: usize, columns: &[&str]) -> Result<Rows, Error> {
        // A row leaves the pending ones when it is in the table, so it is in at least one of both.
        let pending = self.pending_after(after);
        // One row more shows whether more follow.
        let (wanted, mut rows) = (count.saturating_add(1), Vec::new());
        let mut is_end = true;
        let end = format!("{}_:", self.container);
        let mut partition = format!("{}_", self.container);
        if let Some(id) = after {
            partition = id.partition(&self.container);
            // Keys have one length, so the lowest key above this id is above the id with one more character.
            let from = format!("{}-", id.as_str());
            let query = Query { columns, ..Query::rows(&from, ":") };
            is_end = self.collect(&self.table.partition(&partition), query, wanted, &mut rows).await?;
        }
        if is_end && rows.len() < wanted {
            let query = Query { columns, ..Query::partitions(&partition, &end) };
            is_end = self.collect(&self.table, query, wanted, &mut rows).await?;
        }
        let last = rows.last().map(|row| row.id.clone()).filter(|_| !is_end);
        rows.extend(pending.into_iter().filter(|row| last.as_ref().is_none_or(|last| row.id < *last)));
        rows.sort_by(|one, other| one.id.cmp(&other.id));
        // A row that is pending and in the table is there twice; the stable sort has the table's first.
        rows.dedup_by(|later, earlier| later.id == earlier.id);
        let has_more = !is_end || rows.len() > count;
        rows.truncate(count);
        Ok(Rows { rows, has_more })
    }

    /// Adds the rows of a query until there are `wanted`. Returns whether the query has no more rows.
    async fn collect(
        &self,
        table: &Table,
        query: Query<'_>,
        wanted: usize,
        rows: &mut Vec<Row>,
    ) -> Result<bool, Error> {
        let (mut next, mut empty_pages) = (None, 0);
        let mut query = query;
        while rows.len() < wanted {
            query.top = Some((wanted - rows.len()).min(MAX_TOP));
            let page = table.query(&query, next.as_ref()).await?;
            empty_pages = if page.rows.is_empty() { empty_pages + 1 } else { 0 };
            rows.extend(page.rows.iter().filter_map(|(row, columns)| Row::read(row, columns)));
            next = page.next;
            if next.is_none() {
                return Ok(true);
            }
            if empty_pages > MAX_EMPTY_PAGES {
                return if rows.is_empty() { Err(Error::Unreachable) } else { Ok(false) };
            }
        }
        Ok(false)
    }

    fn pending_after(&self, after: Option<&ImageId>) -> Vec<Row> {
        let pending = locked(&self.pending);
        let follows = pending.iter().filter(|(id, _)| after.is_none_or(|after| *id > after));
        follows.filter_map(|(id, columns)| Row::read(id.as_str(), columns)).collect()
    }

    /// A page of the keys of all rows, with these columns.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(super) async fn scan(&self, columns: &[&str], after: Option<&Continuation>) -> Result<Page, Error> {
        let (from, until) = (format!("{}_", self.container), format!("{}_:", self.container));
        self.table.query(&Query { columns, ..Query::partitions(&from, &until) }, after).await
    }

    /// The table's partition with the row of an image.
    pub(super) fn partition(&self, key: &str) -> Table {
        self.table.partition(key)
    }

    /// The key of the partition with the row of an image.
    pub(super) fn partition_of(&self, id: &ImageId) -> String {
        id.partition(&self.container)
    }

    /// The table's partition with the state.
    pub(super) fn state_table(&self) -> &Table {
        &self.table
    }

    /// Notes a pass that has ended: its state, and the fingerprints of all rows if it has read them.
    pub(super) fn note_complete(&self, state: &State, fingerprints: Option<HashSet<u64>>) {
        let Some(complete) = &state.complete else { return };
        *locked(&self.build) = Some(state.build.clone());
        self.is_large.store(complete.blobs > SMALL as u64, Ordering::Relaxed);
        *locked(&self.fingerprints) = fingerprints;
    }

    /// Whether the last pass saw more blobs than one page of a listing holds.
    pub(super) fn is_large(&self) -> bool {
        self.is_large.load(Ordering::Relaxed)
    }

    /// Compares the names of a small container with the known rows, and wakes a pass if one has no row.
    pub(super) fn note_names<'a>(&self, mut names: impl Iterator<Item = &'a str>) {
        let is_unknown = match &*locked(&self.fingerprints) {
            Some(known) => names.any(|name| !known.contains(&fingerprint(name))),
            None => false,
        };
        if is_unknown {
            self.wanted.notify_one();
        }
    }
}

/// Removes a row that may be gone already.
pub(super) async fn remove_row(table: &Table, id: &ImageId) -> Result<(), Error> {
    table.change(id.as_str(), Change::Delete).await.map(drop)
}

#[cfg(test)]
mod tests {
    use axum::http::Uri;
    use axum::response::IntoResponse as _;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Access;
    use crate::gallery::row::NAME_COLUMN;

    /// An index on a Table service that answers queries with these pages of row numbers, one after the other. Each
    /// page but the last has a continuation, every second one without a row key.
    async fn index_on(pages: &'static [&'static [usize]]) -> Index {
        let answer = move |uri: Uri| async move {
            let query: BTreeMap<String, String> =
                url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
            if uri.path().contains("RowKey='reconcile'") {
                let state = json!({"build": "b", "complete": {
                    "began_at": "2026-11-26T00:00:00Z", "ended_at": "2026-11-26T00:00:01Z", "blobs": 9,
                }});
                return json!({"odata.etag": "1", "Data00": state.to_string()}).to_string().into_response();
            }
            let number = match query.get("NextPartitionKey").map(|key| key.split_at(1)) {
                Some(("p", number)) => number.parse().expect("our own token"),
                _ => 0,
            };
            let is_row_there = query.contains_key("NextRowKey");
            assert_eq!(is_row_there, number % 2 == 1, "the token comes back as it was sent");
            let top: usize = query["$top"].parse().expect("a number");
            assert!(pages[number].len() <= top);
            let rows: Vec<Value> = pages[number]
                .iter()
                .map(|n| json!({"RowKey": format!("{n:013}-{:032x}", 0), "Name": n.to_string()}))
                .collect();
            let body = json!({"value": rows}).to_string();
            let next = number + 1;
            let mut response = body.into_response();
            if next < pages.len() {
                let headers = response.headers_mut();
                headers.insert("x-ms-continuation-NextPartitionKey", format!("p{next}").parse().expect("a value"));
                if next % 2 == 1 {
                    headers.insert("x-ms-continuation-NextRowKey", "r".parse().expect("a value"));
                }
            }
            response
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}/account", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        let endpoint = endpoint.parse().expect("a URL");
        let config =
            ServiceConfig { account: "account".to_owned(), access: Access::Key(String::new().into()), endpoint };
        let index = Index::new(&config, "images", Http::new(reqwest::Client::new()));
        *locked(&index.build) = Some("b".to_owned());
        index
    }

    async fn read(index: &Index, count: usize) -> (Vec<String>, bool) {
        let rows = index.read(None, count, &[NAME_COLUMN]).await.expect("an answer").expect("a complete index");
        (rows.rows.into_iter().map(|row| row.name).collect(), rows.has_more)
    }

    #[tokio::test]
    async fn empty_pages_with_a_continuation_are_followed() {
        let index = index_on(&[&[], &[1], &[], &[], &[2, 3], &[]]).await;
        assert_eq!(read(&index, 2).await, (vec!["1".to_owned(), "2".to_owned()], true));
        assert_eq!(read(&index, 3).await, (vec!["1".to_owned(), "2".to_owned(), "3".to_owned()], false));
        assert_eq!(read(&index_on(&[&[], &[], &[]]).await, 3).await, (vec![], false));
    }

    #[tokio::test]
    async fn a_read_ends_after_many_empty_pages() {
        const EMPTY: [&[usize]; 200] = [&[]; 200];
        let index = index_on(&EMPTY).await;
        assert!(matches!(index.read(None, 3, &[NAME_COLUMN]).await, Err(Error::Unreachable)));
        const ONE: [&[usize]; 200] = {
            let mut pages: [&[usize]; 200] = [&[]; 200];
            pages[0] = &[1];
            pages
        };
        // A short page has a next one, which begins after its last image.
        assert_eq!(read(&index_on(&ONE).await, 3).await, (vec!["1".to_owned()], true));
    }
}
