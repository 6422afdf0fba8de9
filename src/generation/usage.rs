//! The usage of the last days: the sums of their records.

use super::generations::Generations;
use super::rows::read_day;
use crate::azure::{self, Query};
use crate::spending::{Day, DayTotals};

/// The largest number of days in one request.
pub(crate) const MAX_DAYS: u16 = 92;

impl Generations {
    /// Reads the sums of the last `days` UTC days, today first. A day without a generation has no entry.
    ///
    /// # Errors
    /// The table cannot be read, or a row is malformed.
    pub(crate) async fn usage(&self, days: u16) -> Result<Vec<(Day, DayTotals)>, azure::Error> {
        let today = Day::of(self.now());
        let (from, until) = (format!("day-{}", today.before(days - 1)), format!("day-{today}."));
        let query = Query::rows(&from, &until);
        let mut found = Vec::new();
        let mut next = None;
        loop {
            let page = self.records.table().query(&query, next.as_ref()).await?;
            for (row, columns) in &page.rows {
                let day = row.strip_prefix("day-").and_then(Day::parse).ok_or(azure::Error::Malformed)?;
                found.push((day, read_day(columns)?));
            }
            next = page.next;
            if next.is_none() {
                found.reverse();
                return Ok(found);
            }
        }
    }
}
