//! The rows of the state table: their keys, their contents, and their columns.
//!
//! `docs/compatibility.md` lists the formats that later versions must still read.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::record::{Address, Generation, State};
use crate::azure::{self, Columns};
use crate::caller::Caller;
use crate::spending::{CallerTotals, Day, DayTotals, ModelTotals};

/// The length limit of a column. A property holds at most 32 Ki UTF-16 units, and a character takes one
/// or two
/// (<https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model>).
const MAX_PART_CHARACTERS: usize = 16_000;

/// How long an idempotency key leads to its generation.
const KEY_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Columns of a generation for queries.
pub(crate) const STATUS: &str = "Status";
pub(crate) const PROCESS: &str = "Process";
pub(crate) const CREATED_AT: &str = "CreatedAt";
/// The column that finds expired keys and processes.
pub(crate) const TIME: &str = "Time";

/// The key of a row. Operations in a transaction are sorted by it. The day comes first because most
/// conflicts happen there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum RowKey {
    Day(Day),
    Caller(Day, Caller),
    /// A digest of the Idempotency-Key header and its caller.
    Key(String),
    Generation(Address),
    /// The id of the process.
    Process(String),
    /// The texts of a day and of the process with this id.
    Text(Day, String),
    /// The lease of the process that does this work.
    Lease(Work),
}

/// Work for the whole app that one process at a time does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Work {
    /// Ends generations whose process has died.
    Sweep,
    /// Deletes expired rows.
    Expiry,
}

/// The contents of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Row {
    Day(DayTotals),
    Caller(CallerTotals),
    Key(KeyRow),
    Generation(Box<Generation>),
    Process(LeaseRow),
    Text(TextRow),
    Lease(LeaseRow),
}

/// The row of an idempotency key: the generation that it leads to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeyRow {
    pub(crate) address: Address,
    /// A keyed digest of the request's body.
    pub(crate) fingerprint: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) used_at: OffsetDateTime,
}

/// What the text model cost in one process on one day. The sums of the day have it, too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TextRow {
    pub(crate) model: String,
    pub(crate) totals: ModelTotals,
}

/// A lease of a process, which expires unless the process renews it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LeaseRow {
    pub(crate) process: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) until: OffsetDateTime,
}

impl KeyRow {
    /// Whether the key has not expired.
    pub(crate) fn is_current(&self, now: OffsetDateTime) -> bool {
        self.used_at + KEY_LIFETIME > now
    }
}

impl RowKey {
    /// The row key in the table: digests, dates and constants, never a caller's text.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Day(day) => format!("day-{day}"),
            Self::Caller(day, caller) => format!("caller-{day}-{}", caller.as_str()),
            Self::Key(digest) => format!("key-{digest}"),
            Self::Generation(address) => format!("generation-{address}"),
            Self::Process(id) => format!("process-{id}"),
            Self::Text(day, process) => format!("text-{day}-{process}"),
            Self::Lease(Work::Sweep) => "sweeper".to_owned(),
            Self::Lease(Work::Expiry) => "expiry".to_owned(),
        }
    }

    /// Parses columns that [`Row::columns`] wrote.
    ///
    /// # Errors
    /// [`azure::Error::Malformed`].
    pub(crate) fn read(&self, columns: &Columns) -> Result<Row, azure::Error> {
        Ok(match self {
            Self::Day(_) => Row::Day(parse(columns, "Data")?),
            Self::Caller(..) => Row::Caller(parse(columns, "Data")?),
            Self::Key(_) => Row::Key(parse(columns, "Data")?),
            Self::Generation(_) => Row::Generation(Box::new(read_generation(columns)?)),
            Self::Process(_) => Row::Process(parse(columns, "Data")?),
            Self::Text(..) => Row::Text(parse(columns, "Data")?),
            Self::Lease(_) => Row::Lease(parse(columns, "Data")?),
        })
    }
}

impl Row {
    /// The columns to write.
    pub(crate) fn columns(&self) -> Columns {
        let mut columns = Columns::new();
        match self {
            Self::Day(totals) => write(&mut columns, "Data", totals),
            Self::Caller(totals) => write(&mut columns, "Data", totals),
            Self::Text(text) => write(&mut columns, "Data", text),
            Self::Key(key) => {
                write(&mut columns, "Data", key);
                columns.insert(TIME.to_owned(), timestamp(key.used_at));
            }
            Self::Generation(generation) => {
                // Separate columns, so that a state change does not send the long order again.
                write(&mut columns, "Order", &generation.order);
                write(&mut columns, "State", &generation.state);
                columns.insert(CREATED_AT.to_owned(), timestamp(generation.order.created_at));
                let (status, process) = match &generation.state {
                    State::Queued => ("queued", ""),
                    State::Drawing(attempt) => ("drawing", attempt.process.as_str()),
                    State::Ended { .. } => ("ended", ""),
                };
                columns.insert(STATUS.to_owned(), status.to_owned());
                columns.insert(PROCESS.to_owned(), process.to_owned());
            }
            Self::Process(lease) | Self::Lease(lease) => {
                write(&mut columns, "Data", lease);
                columns.insert(TIME.to_owned(), timestamp(lease.until));
            }
        }
        columns
    }
}

/// Parses the columns of a generation.
///
/// # Errors
/// [`azure::Error::Malformed`].
pub(crate) fn read_generation(columns: &Columns) -> Result<Generation, azure::Error> {
    Ok(Generation { order: parse(columns, "Order")?, state: parse(columns, "State")? })
}

/// Parses the columns of a day.
///
/// # Errors
/// [`azure::Error::Malformed`].
pub(crate) fn read_day(columns: &Columns) -> Result<DayTotals, azure::Error> {
    parse(columns, "Data")
}

/// A time as RFC 3339 in UTC with whole seconds; such texts sort by time.
pub(crate) fn timestamp(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

/// Writes a value as JSON, split into numbered columns: `Data00`, `Data01` and so on.
fn write(columns: &mut Columns, name: &str, value: &impl Serialize) {
    // These types always serialize.
    let text = serde_json::to_string(value).unwrap_or_default();
    let mut rest = text.as_str();
    for number in 0.. {
        let end = rest.char_indices().nth(MAX_PART_CHARACTERS).map_or(rest.len(), |(at, _)| at);
        let (part, after) = rest.split_at(end);
        columns.insert(format!("{name}{number:02}"), part.to_owned());
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
}

fn parse<T: DeserializeOwned>(columns: &Columns, name: &str) -> Result<T, azure::Error> {
    let is_part = |column: &str| column.strip_prefix(name).is_some_and(|number| number.parse::<u8>().is_ok());
    let text: String = columns.iter().filter(|(column, _)| is_part(column)).map(|(_, part)| part.as_str()).collect();
    serde_json::from_str(&text).map_err(|_| azure::Error::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_split_into_columns_and_read_back_unchanged() {
        let text = "\"🦊\" \\ Füchse\n".repeat(5_000);
        let mut columns = Columns::new();
        write(&mut columns, "Data", &text);
        assert!(columns.len() > 2 && columns.values().all(|part| part.encode_utf16().count() <= 32 * 1024));
        assert!(parse::<String>(&columns, "Data").expect("it is whole") == text);
    }
}
