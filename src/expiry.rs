//! Deletes rows that are past. A process that adds rows also deletes: an app that nobody uses asks
//! storage for nothing.

use std::time::Duration;

use crate::app::App;
use crate::azure::{self, Change, Failed, Operation, Query};
use crate::generation::{TIME, timestamp};
use crate::logs::chain;
use crate::spending::Day;

/// What is past does no harm, so there is no hurry.
const PAUSE: Duration = Duration::from_secs(6 * 60 * 60);
/// Generations and callers go two days after their day: nobody asks for them any more.
const DAYS_KEPT: u16 = 2;
/// A day's sums can be asked for so long, and a little longer.
const TOTALS_KEPT: u16 = 94;
/// Rows of one transaction.
const ROWS_AT_ONCE: usize = 100;

/// Goes on until it is dropped.
pub async fn run(app: &App) {
    loop {
        app.generations.added.notified().await;
        match delete_past(app).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "expired rows were deleted"),
            Err(error) => tracing::warn!(cause = chain(&error), "expired rows cannot be deleted"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Deletes what is past, and says how much it was.
async fn delete_past(app: &App) -> Result<usize, azure::Error> {
    let now = (app.clock)();
    let day = |days| Day::of(now).before(days);
    let before = format!("Time lt '{}'", timestamp(now - Duration::from_secs(48 * 60 * 60)));
    let mut deleted = 0;
    for (from, until, condition) in [
        ("generation-", format!("generation-{}", day(DAYS_KEPT)), None),
        ("caller-", format!("caller-{}", day(DAYS_KEPT)), None),
        ("day-", format!("day-{}", day(TOTALS_KEPT)), None),
        ("key-", "key.".to_owned(), Some(before.as_str())),
        ("process-", "process.".to_owned(), Some(before.as_str())),
    ] {
        deleted += delete(app, &Query { from, until: &until, condition, columns: &[TIME] }).await?;
    }
    Ok(deleted)
}

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
                // Another process deletes the same rows; what is left goes next time.
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
