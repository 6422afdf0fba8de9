//! The state row of the index: whether it is complete, and the pass that compares it with the container.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::azure::{Change, Columns, Error, Purpose, Table, Version};

/// The row key, in the partition `{container}_state`.
const ROW: &str = "reconcile";
const DATA: &str = "Data00";
/// Compare-and-swap attempts; a lost race means that another process has written.
const ATTEMPTS: usize = 10;

/// The state of an index. It is lost with the table, so an index whose table was deleted is not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// A random id of this table's rows: a table that is deleted and created again has another one.
    pub(super) build: String,
    /// `None` if no pass has ended since the table was created.
    pub(super) complete: Option<Complete>,
    /// The pass that has begun and not ended, if it takes more than one page.
    pub(super) under_way: Option<UnderWay>,
}

/// The last pass that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Complete {
    #[serde(with = "time::serde::rfc3339")]
    pub(super) began_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) ended_at: OffsetDateTime,
    /// The number of blobs that the pass saw.
    pub(super) blobs: u64,
}

/// A pass under way. Another process goes on with it if its owner has died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UnderWay {
    /// The process that works on it.
    pub(super) owner: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) renewed_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) began_at: OffsetDateTime,
    /// Where the next page of the container begins; `None` for the first page.
    pub(super) marker: Option<String>,
    /// The lowest fingerprint of the round under way.
    pub(super) lowest: u64,
    /// The blobs that this round has seen.
    pub(super) blobs: u64,
}

impl UnderWay {
    /// A pass at its beginning.
    pub(super) fn new(now: OffsetDateTime) -> Self {
        Self { owner: String::new(), renewed_at: now, began_at: now, marker: None, lowest: 0, blobs: 0 }
    }
}

impl State {
    /// Reads the state; `None` if there is none, or if it cannot be parsed.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(super) async fn read(table: &Table) -> Result<Option<Self>, Error> {
        Ok(Self::read_with_version(table).await?.and_then(|(state, _)| state))
    }

    /// Reads the state, or inserts the state of an index without rows.
    ///
    /// # Errors
    /// The table cannot be read or written.
    pub(super) async fn read_or_insert(table: &Table) -> Result<Self, Error> {
        for _ in 0..ATTEMPTS {
            let change = match Self::read_with_version(table).await? {
                Some((Some(state), _)) => return Ok(state),
                found => {
                    let state = Self { build: format!("{:032x}", fastrand::u128(..)), complete: None, under_way: None };
                    match found {
                        Some((_, version)) => Change::Replace(version, state.columns()?),
                        None => Change::Insert(state.columns()?),
                    }
                }
            };
            table.change(ROW, change).await?;
        }
        Err(Error::Unreachable)
    }

    /// Changes the state of this build.
    ///
    /// # Errors
    /// The table cannot be read or written, or it was deleted: its state has another build, or there is none.
    pub(super) async fn update(table: &Table, build: &str, change: impl Fn(&Self) -> Self) -> Result<Self, Error> {
        for _ in 0..ATTEMPTS {
            let Some((Some(state), version)) = Self::read_with_version(table).await? else { break };
            if state.build != build {
                break;
            }
            let changed = change(&state);
            if table.change(ROW, Change::Replace(version, changed.columns()?)).await? {
                return Ok(changed);
            }
        }
        Err(Error::Answered { status: 404, code: "TableNotFound".to_owned() })
    }

    async fn read_with_version(table: &Table) -> Result<Option<(Option<Self>, Version)>, Error> {
        let parse = |columns: &Columns| columns.get(DATA).and_then(|json| serde_json::from_str(json).ok());
        Ok(table.get(ROW, Purpose::Caller).await?.map(|(columns, version)| (parse(&columns), version)))
    }

    fn columns(&self) -> Result<Columns, Error> {
        let json = serde_json::to_string(self).map_err(|_| Error::Malformed)?;
        Ok(Columns::from([(DATA.to_owned(), json)]))
    }
}
