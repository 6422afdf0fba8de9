//! Deletes expired rows. Only a process that adds rows deletes them, so an idle app sends no requests
//! to storage.

use std::time::Duration;

use crate::app::App;
use crate::azure::{self, Change, Failed, Operation, Query};
use crate::generation::{TIME, Work, timestamp};
use crate::logs::chain;
use crate::spending::Day;

/// The pause between two deletions. Expired rows do no harm, so it may be long.
const PAUSE: Duration = Duration::from_secs(6 * 60 * 60);
/// For this time no other process deletes rows. A deletion that takes longer does no harm.
const LEASE: Duration = Duration::from_secs(60 * 60);
/// Rows of generations and callers are deleted two days after their day: no request reads them later.
const DAYS_KEPT: u16 = 2;
/// Tokens of links are deleted this time after their window began. They live for 7 days at most.
const LINK_TOKENS_KEPT: Duration = Duration::from_secs(8 * 24 * 60 * 60);
/// Rows of days are deleted after this number of days. `GET /api/usage` reads the last 92.
const TOTALS_KEPT: u16 = 94;
/// The most rows of one transaction, a limit of Table storage
/// (<https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions>).
const ROWS_AT_ONCE: usize = 100;

/// Deletes expired rows after rows were added, until the future is dropped.
pub async fn run(app: &App) {
    loop {
        // An app that only shows its gallery adds tokens of links.
        tokio::select! {
            () = app.generations.added.notified() => {}
            () = app.gallery.link_token_added() => {}
        }
        match delete_expired(app).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(event = "expired_rows_deleted", count, "expired rows were deleted"),
            Err(error) => tracing::warn!(
                event = "expired_rows_kept",
                cause = chain(&error),
                "expired rows could not be deleted; the deletion is tried again later"
            ),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Deletes the expired rows and returns their number; 0 if another process deletes them.
async fn delete_expired(app: &App) -> Result<usize, azure::Error> {
    let now = (app.clock)();
    if !app.generations.take_lease(Work::Expiry, LEASE).await? {
        return Ok(0);
    }
    let day = |days| Day::of(now).before(days);
    let before = format!("Time lt '{}'", timestamp(now - Duration::from_secs(48 * 60 * 60)));
    let oldest_token = (now - LINK_TOKENS_KEPT).unix_timestamp();
    let mut deleted = 0;
    for (from, until, condition) in [
        ("generation-", format!("generation-{}", day(DAYS_KEPT)), None),
        ("text-", format!("text-{}", day(DAYS_KEPT)), None),
        ("caller-", format!("caller-{}", day(DAYS_KEPT)), None),
        ("day-", format!("day-{}", day(TOTALS_KEPT)), None),
        ("link-", format!("link-{oldest_token:012}"), None),
        ("key-", "key.".to_owned(), Some(before.as_str())),
        ("process-", "process.".to_owned(), Some(before.as_str())),
    ] {
        deleted += delete(app, &Query { condition, columns: &[TIME], ..Query::rows(from, &until) }).await?;
    }
    Ok(deleted)
}

/// Reads one page of row keys at a time and deletes it before it reads the next one, so that the memory does not
/// grow with the number of rows.
async fn delete(app: &App, query: &Query<'_>) -> Result<usize, azure::Error> {
    let table = app.generations.table();
    let (mut deleted, mut next) = (0, None);
    loop {
        let page = table.query(query, next.as_ref()).await?;
        for rows in page.rows.chunks(ROWS_AT_ONCE) {
            let operations: Vec<Operation> =
                rows.iter().map(|(row, _)| Operation { row: row.clone(), change: Change::Delete }).collect();
            match table.transact(&operations).await {
                Ok(_) => deleted += operations.len(),
                // Another process deletes the same rows. The next deletion takes the rest.
                Err(Failed::Conflict(_)) => {}
                Err(Failed::Rejected(cause) | Failed::Unknown { cause, .. }) => return Err(cause),
            }
        }
        next = page.next;
        if next.is_none() {
            return Ok(deleted);
        }
    }
}
