//! The rows of the state table: their keys, what they hold, and how that is written in columns.
//! `docs/compatibility.md` says what a later version must still read.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::record::{Address, Generation, State};
use crate::azure::{self, Columns};
use crate::caller::Caller;
use crate::spending::{CallerTotals, Day, DayTotals};

/// A property holds 32 Ki UTF-16 units
/// (<https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model>),
/// and a character is two at the most.
const MAX_PART_CHARACTERS: usize = 16_000;

/// How long an Idempotency-Key stands for its generation.
const KEY_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Columns of a generation that queries select and filter by.
pub(crate) const STATUS: &str = "Status";
pub(crate) const PROCESS: &str = "Process";
pub(crate) const CREATED_AT: &str = "CreatedAt";
/// The column by which keys and processes are found that are past.
pub(crate) const TIME: &str = "Time";

/// Where a row is. The day's comes first in a transaction: it is the one that writers fight over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum RowKey {
    Day(Day),
    Caller(Day, Caller),
    /// By the digest of the Idempotency-Key and its caller.
    Key(String),
    Generation(Address),
    /// By the process's id.
    Process(String),
    /// The process that looks after what others left.
    Sweeper,
}

/// What a row holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Row {
    Day(DayTotals),
    Caller(CallerTotals),
    Key(KeyRow),
    Generation(Box<Generation>),
    Process(LeaseRow),
    Sweeper(LeaseRow),
}

/// The generation that an Idempotency-Key stands for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeyRow {
    pub(crate) address: Address,
    /// A digest of the request's body.
    pub(crate) fingerprint: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) used_at: OffsetDateTime,
}

/// Something that a process says of itself, and that ends with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LeaseRow {
    pub(crate) process: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) until: OffsetDateTime,
}

impl KeyRow {
    /// Whether the key still stands for its generation.
    pub(crate) fn is_current(&self, now: OffsetDateTime) -> bool {
        self.used_at + KEY_KEPT > now
    }
}

impl RowKey {
    /// Digests, dates and words of this program: nothing that a caller wrote gets into a row key.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Day(day) => format!("day-{day}"),
            Self::Caller(day, caller) => format!("caller-{day}-{}", caller.as_str()),
            Self::Key(digest) => format!("key-{digest}"),
            Self::Generation(address) => format!("generation-{address}"),
            Self::Process(id) => format!("process-{id}"),
            Self::Sweeper => "sweeper".to_owned(),
        }
    }

    /// Reads what [`Row::columns`] wrote.
    pub(crate) fn read(&self, columns: &Columns) -> Result<Row, azure::Error> {
        Ok(match self {
            Self::Day(_) => Row::Day(parse(columns, "Data")?),
            Self::Caller(..) => Row::Caller(parse(columns, "Data")?),
            Self::Key(_) => Row::Key(parse(columns, "Data")?),
            Self::Generation(_) => Row::Generation(Box::new(read_generation(columns)?)),
            Self::Process(_) => Row::Process(parse(columns, "Data")?),
            Self::Sweeper => Row::Sweeper(parse(columns, "Data")?),
        })
    }
}

impl Row {
    /// What is written of a row.
    pub(crate) fn columns(&self) -> Columns {
        let mut columns = Columns::new();
        match self {
            Self::Day(totals) => write(&mut columns, "Data", totals),
            Self::Caller(totals) => write(&mut columns, "Data", totals),
            Self::Key(key) => {
                write(&mut columns, "Data", key);
                columns.insert(TIME.to_owned(), timestamp(key.used_at));
            }
            Self::Generation(generation) => {
                // Apart, because the order may be long and never changes.
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
            Self::Process(lease) | Self::Sweeper(lease) => {
                write(&mut columns, "Data", lease);
                columns.insert(TIME.to_owned(), timestamp(lease.until));
            }
        }
        columns
    }
}

/// Reads a generation out of its row.
pub(crate) fn read_generation(columns: &Columns) -> Result<Generation, azure::Error> {
    Ok(Generation { order: parse(columns, "Order")?, state: parse(columns, "State")? })
}

/// Reads a day out of its row.
pub(crate) fn read_day(columns: &Columns) -> Result<DayTotals, azure::Error> {
    parse(columns, "Data")
}

/// Texts that sort as the times do.
pub(crate) fn timestamp(at: OffsetDateTime) -> String {
    let at = at.to_offset(time::UtcOffset::UTC);
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

/// A value as JSON, in as many columns as that takes: `Data00`, `Data01` and so on.
fn write(columns: &mut Columns, name: &str, value: &impl Serialize) {
    // Everything here can be written as JSON.
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
    fn a_long_text_takes_several_columns_and_comes_back_as_it_was() {
        let text = "\"🦊\" \\ Füchse\n".repeat(5_000);
        let mut columns = Columns::new();
        write(&mut columns, "Data", &text);
        assert!(columns.len() > 2 && columns.values().all(|part| part.encode_utf16().count() <= 32 * 1024));
        assert!(parse::<String>(&columns, "Data").expect("it is whole") == text);
    }
}
