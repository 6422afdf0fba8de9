//! The table of everything that several processes must agree on.
//!
//! An entity is a JSON text and the time from which it is worth nothing. Writers agree by ETag: who
//! comes second is told so and reads again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use azure_core::{Etag, StatusCode};
use azure_data_tables::clients::{EntityClient, TableClient, TableServiceClientBuilder};
use azure_data_tables::{IfMatchCondition, operations::QueryEntityResponse};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Notify;

use super::{Error, timely};
use crate::config::StorageConfig;

/// Created when it is missing.
const NAME: &str = "visionarystate";
/// For one operation, the SDK's retries included. A request waits for several of them, and for a
/// picture much longer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A property holds 32 Ki UTF-16 units
/// (<https://learn.microsoft.com/rest/api/storageservices/understanding-the-table-service-data-model>),
/// and a character is two at the most.
const MAX_PART_CHARACTERS: usize = 16_000;
/// A page holds 1,000 entities at most.
const MAX_PAGES: usize = 100;

/// The table, as far as it belongs to one container of pictures.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    client: TableClient,
    container: String,
    /// Told when an entity was added.
    added: Arc<Notify>,
}

/// Where an entity is. Keys are digests, dates and words of this program: the SDK does not escape
/// quotation marks in them, so nothing that a caller wrote may get here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) partition: String,
    pub(crate) row: String,
}

/// An entity's ETag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Version(String);

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Written<'a> {
    partition_key: String,
    row_key: &'a str,
    expires: String,
    #[serde(flatten)]
    state: WrittenState,
}

/// The JSON text in as many properties as it takes: `State00`, `State01` and so on. On the way it is
/// ASCII: Azurite 3.35 reads a request piece by piece and loses characters that are cut.
#[derive(Serialize)]
struct WrittenState {
    #[serde(flatten)]
    properties: BTreeMap<String, Box<RawValue>>,
}

/// The same, as it comes back.
#[derive(Deserialize)]
struct State {
    #[serde(flatten)]
    properties: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    partition_key: String,
    row_key: String,
    #[serde(rename = "odata.etag")]
    etag: String,
    #[serde(flatten)]
    state: State,
}

impl Table {
    pub(crate) fn new(config: &StorageConfig, http: reqwest::Client) -> Self {
        let location = super::location(&config.account, &config.table_endpoint);
        let client =
            TableServiceClientBuilder::with_location(location, super::credentials(&config.account, &config.key))
                .transport(super::transport(http))
                .retry(super::retry())
                .build()
                .table_client(NAME);
        Self { client, container: config.container.clone(), added: Arc::default() }
    }

    /// Writes a new entity; `None` where there is one already.
    pub(crate) async fn insert<T: Serialize>(
        &self,
        key: &Key,
        value: &T,
        expires: OffsetDateTime,
    ) -> Result<Option<Version>, Error> {
        let entity = self.written(key, value, expires)?;
        let insert = || async {
            // The second type is of an answer that is not asked for.
            Ok(self.client.insert::<_, serde_json::Value>(&entity)?.await?.etag)
        };
        let result = match timely(TIMEOUT, insert()).await {
            Err(error) if error.is("TableNotFound") => {
                timely(TIMEOUT, self.create()).await?;
                timely(TIMEOUT, insert()).await
            }
            result => result,
        };
        match result {
            Ok(etag) => {
                self.added.notify_one();
                Ok(Some(Version(etag.to_string())))
            }
            Err(error) if error.is("EntityAlreadyExists") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads an entity; `None` where there is none.
    pub(crate) async fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<(T, Version)>, Error> {
        match timely(TIMEOUT, async { Ok(self.entity(key).get::<State>().await?) }).await {
            Ok(answer) => Ok(Some((answer.entity.parse()?, Version(answer.etag.to_string())))),
            Err(Error::Answered { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes over the version that was read; `None` where somebody else has written since.
    pub(crate) async fn replace<T: Serialize>(
        &self,
        key: &Key,
        value: &T,
        expires: OffsetDateTime,
        version: &Version,
    ) -> Result<Option<Version>, Error> {
        let entity = self.written(key, value, expires)?;
        let condition = IfMatchCondition::Etag(Etag::from(version.0.clone()));
        match timely(TIMEOUT, async { Ok(self.entity(key).update(&entity, condition)?.await?) }).await {
            Ok(answer) => Ok(Some(Version(answer.etag.to_string()))),
            Err(Error::Answered { status: 404 | 412, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes the version that was read; whether it was there to be deleted.
    pub(crate) async fn delete(&self, key: &Key, version: &Version) -> Result<bool, Error> {
        self.delete_entity(&self.entity(key), &version.0).await
    }

    /// Resolves when an entity was added since the last time.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }

    /// All of a partition, by row.
    pub(crate) async fn list<T: DeserializeOwned>(&self, partition: &str) -> Result<Vec<(String, T)>, Error> {
        let found = self.query(format!("PartitionKey eq '{}'", self.partition(partition))).await?;
        found.into_iter().map(|entity| Ok((entity.row_key, entity.state.parse()?))).collect()
    }

    /// Deletes what has expired by `now`, and says how much it was.
    pub(crate) async fn sweep(&self, now: OffsetDateTime) -> Result<usize, Error> {
        // A slash is the character after the dot that ends a container's name in a partition key.
        let (first, after) = (self.partition(""), format!("{}/", self.container));
        let expired = format!(
            "PartitionKey ge '{first}' and PartitionKey lt '{after}' and Expires lt '{}'",
            timestamp(now).ok_or(Error::Malformed)?
        );
        let mut deleted = 0;
        for entity in self.query(expired).await? {
            let client = self.client.partition_key_client(entity.partition_key).entity_client(entity.row_key);
            // What was written to since has not expired.
            deleted += usize::from(self.delete_entity(&client, &entity.etag).await?);
        }
        Ok(deleted)
    }

    async fn query(&self, filter: String) -> Result<Vec<Listed>, Error> {
        let mut entities = Vec::new();
        let mut pages = self.client.query().filter(filter).into_stream::<Listed>();
        for _ in 0..MAX_PAGES {
            let page = timely(TIMEOUT, async { pages.next().await.transpose().map_err(Error::from) }).await;
            match page {
                Ok(Some(QueryEntityResponse { entities: some, .. })) => entities.extend(some),
                Ok(None) => return Ok(entities),
                Err(error) if error.is("TableNotFound") => return Ok(entities),
                Err(error) => return Err(error),
            }
        }
        Ok(entities)
    }

    async fn delete_entity(&self, client: &EntityClient, etag: &str) -> Result<bool, Error> {
        let condition = IfMatchCondition::Etag(Etag::from(etag.to_owned()));
        match timely(TIMEOUT, async { Ok(client.delete().if_match(condition).await?) }).await {
            Ok(_) => Ok(true),
            Err(Error::Answered { status: 404 | 412, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn create(&self) -> Result<(), Error> {
        match self.client.create().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_http_error().is_some_and(|answer| answer.status() == StatusCode::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn entity(&self, key: &Key) -> EntityClient {
        self.client.partition_key_client(self.partition(&key.partition)).entity_client(&key.row)
    }

    /// Two apps of one account share the table: a container's name has no dot in it.
    fn partition(&self, name: &str) -> String {
        format!("{}.{name}", self.container)
    }

    fn written<'a, T: Serialize>(
        &self,
        key: &'a Key,
        value: &T,
        expires: OffsetDateTime,
    ) -> Result<Written<'a>, Error> {
        Ok(Written {
            partition_key: self.partition(&key.partition),
            row_key: &key.row,
            expires: timestamp(expires).ok_or(Error::Malformed)?,
            state: WrittenState::of(value)?,
        })
    }
}

impl WrittenState {
    fn of(value: &impl Serialize) -> Result<Self, Error> {
        let text = serde_json::to_string(value).map_err(|_| Error::Malformed)?;
        let mut properties = BTreeMap::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let end = rest.char_indices().nth(MAX_PART_CHARACTERS).map_or(rest.len(), |(at, _)| at);
            let (part, after) = rest.split_at(end);
            properties.insert(format!("State{:02}", properties.len()), ascii(part)?);
            rest = after;
        }
        Ok(Self { properties })
    }
}

/// A text as JSON, all else than ASCII escaped (RFC 8259, 7).
fn ascii(text: &str) -> Result<Box<RawValue>, Error> {
    let json = serde_json::to_string(text).map_err(|_| Error::Malformed)?;
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    RawValue::from_string(escaped).map_err(|_| Error::Malformed)
}

impl State {
    fn parse<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let parts = self.properties.iter().filter(|(name, _)| name.starts_with("State"));
        let text: String = parts.filter_map(|(_, part)| part.as_str()).collect();
        serde_json::from_str(&text).map_err(|_| Error::Malformed)
    }
}

/// Texts that sort as the times do.
fn timestamp(at: OffsetDateTime) -> Option<String> {
    at.to_offset(time::UtcOffset::UTC).replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_ascii_and_comes_back_as_it_was() {
        let text = "\"🦊\" \\ Füchse\n".repeat(5_000);
        let written = serde_json::to_string(&WrittenState::of(&text).expect("it is text")).expect("it is JSON");
        assert!(written.is_ascii());
        let state: State = serde_json::from_str(&written).expect("it is JSON");
        assert!(state.properties.len() > 2, "it takes several properties");
        assert!(state.parse::<String>().expect("it is whole") == text);
    }
}
