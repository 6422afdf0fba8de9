//! The client of a table whose rows several processes change.
//!
//! The SDK's client for tables is not used: it is frozen, its transactions do not work, and it does not escape
//! keys. API reference: <https://learn.microsoft.com/rest/api/storageservices/table-service-rest-api>.

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Method, Response, StatusCode, Url, header};
use serde_json::{Map, Value, json};

use super::authorization::Authorization;
use super::error::{Error, code_in_header};
use super::http::{Http, Purpose};
use super::transaction::{Change, Columns, Failed, Operation, Version, code_of, read_answer, unknown};
use crate::config::ServiceConfig;

/// The table of the app's state. Its partition is the name of the images' container.
pub(crate) const STATE_TABLE: &str = "visionary";
/// The version of the service, sent as `x-ms-version`.
const VERSION: &str = "2020-12-06";
/// Limit for one request other than a transaction.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Limit for one transaction. It is short, so that the caller's request has time left to find out whether a
/// transaction without an answer was written.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(5);
/// The time for which a failed read is repeated. A transaction is not repeated here.
const REPEAT_READS_FOR: Duration = Duration::from_secs(5);
/// The pause before the first repeated read; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Azurite accepts only boundaries that begin with `batch_`.
const BOUNDARY: &str = "batch_visionary";
const CHANGES: &str = "changeset_visionary";

/// One partition of a table. The first write creates the table if it is missing.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    name: &'static str,
    http: Http,
    endpoint: Url,
    authorization: Authorization,
    partition: String,
}

/// The keys of the rows to read.
#[derive(Debug)]
pub(crate) enum Keys<'a> {
    /// Rows of this partition.
    Rows { from: &'a str, until: &'a str },
    /// All rows of the partitions between these two.
    Partitions { after: &'a str, until: &'a str },
}

/// The rows to read, see [`Query::rows`] and [`Query::partitions`].
#[derive(Debug)]
pub(crate) struct Query<'a> {
    pub(crate) keys: Keys<'a>,
    /// A further OData condition. It is not escaped, so it must not contain text from a caller.
    pub(crate) condition: Option<&'a str>,
    /// The columns to return besides the row key. An empty list returns all columns.
    pub(crate) columns: &'a [&'a str],
    /// The most rows of a page, 1 to 1000; `None` for as many as the service returns.
    pub(crate) top: Option<usize>,
}

impl<'a> Query<'a> {
    /// The rows of the table's partition from one key (inclusive) until another one (exclusive).
    pub(crate) fn rows(from: &'a str, until: &'a str) -> Self {
        Self { keys: Keys::Rows { from, until }, condition: None, columns: &[], top: None }
    }

    /// The rows of all partitions between two keys (both exclusive).
    pub(crate) fn partitions(after: &'a str, until: &'a str) -> Self {
        Self { keys: Keys::Partitions { after, until }, condition: None, columns: &[], top: None }
    }
}

/// The rows of a page, and where the next page begins; `None` after the last page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) rows: Vec<(String, Columns)>,
    pub(crate) next: Option<Continuation>,
}

/// Where the next page of a query begins, exactly as the service sent it
/// (<https://learn.microsoft.com/rest/api/storageservices/query-timeout-and-pagination>).
#[derive(Debug, Clone)]
pub(crate) struct Continuation {
    partition: String,
    row: Option<String>,
}

impl Table {
    pub(crate) fn new(config: &ServiceConfig, name: &'static str, partition: &str, http: Http) -> Self {
        Self {
            name,
            http,
            endpoint: config.endpoint.clone(),
            authorization: Authorization::new(config),
            partition: partition.to_owned(),
        }
    }

    /// Another partition of the same table.
    pub(crate) fn partition(&self, partition: &str) -> Self {
        Self { partition: partition.to_owned(), ..self.clone() }
    }

    /// Reads a row; `None` if the row or the table does not exist.
    pub(crate) async fn get(&self, row: &str, purpose: Purpose) -> Result<Option<(Columns, Version)>, Error> {
        let address = self.url(&self.entity(row));
        let Some((_, body)) = self.read(&address, purpose).await? else { return Ok(None) };
        let Value::Object(entity) = body else { return Err(Error::Malformed) };
        let version = entity.get("odata.etag").and_then(Value::as_str).ok_or(Error::Malformed)?.to_owned();
        Ok(Some((columns(entity), Version(version))))
    }

    /// Reads a page of rows in the order of their keys. An empty page may have a next page. A missing table has
    /// no rows.
    pub(crate) async fn query(&self, query: &Query<'_>, after: Option<&Continuation>) -> Result<Page, Error> {
        let mut filter = match query.keys {
            Keys::Rows { from, until } => {
                format!("PartitionKey eq '{}' and RowKey ge '{from}' and RowKey lt '{until}'", self.partition)
            }
            Keys::Partitions { after, until } => format!("PartitionKey gt '{after}' and PartitionKey lt '{until}'"),
        };
        if let Some(condition) = query.condition {
            // Writing to a string cannot fail.
            let _ = write!(filter, " and ({condition})");
        }
        let mut url = self.url(&format!("{}()", self.name));
        url.query_pairs_mut().append_pair("$filter", &filter);
        if !query.columns.is_empty() {
            url.query_pairs_mut().append_pair("$select", &format!("RowKey,{}", query.columns.join(",")));
        }
        if let Some(top) = query.top {
            url.query_pairs_mut().append_pair("$top", &top.to_string());
        }
        if let Some(Continuation { partition, row }) = after {
            url.query_pairs_mut().append_pair("NextPartitionKey", partition);
            if let Some(row) = row {
                url.query_pairs_mut().append_pair("NextRowKey", row);
            }
        }
        let Some((headers, mut body)) = self.read(&url, Purpose::Caller).await? else { return Ok(Page::default()) };
        let next = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let next = match (next("x-ms-continuation-nextpartitionkey"), next("x-ms-continuation-nextrowkey")) {
            // The row is missing where a page ends at the border of two servers.
            (Some(partition), row) => Some(Continuation { partition, row }),
            (None, _) => None,
        };
        let Value::Array(found) = body["value"].take() else { return Err(Error::Malformed) };
        let rows = found.into_iter().filter_map(|entity| match entity {
            Value::Object(entity) => Some((entity.get("RowKey")?.as_str()?.to_owned(), columns(entity))),
            _ => None,
        });
        Ok(Page { rows: rows.collect(), next })
    }

    /// Changes one row. Returns whether the change was written; `false` if the row, or its version, is not the one that
    /// the change needs.
    pub(crate) async fn change(&self, row: &str, change: Change) -> Result<bool, Error> {
        match self.transact(&[Operation { row: row.to_owned(), change }]).await {
            Ok(_) => Ok(true),
            Err(Failed::Conflict(_)) => Ok(false),
            Err(Failed::Rejected(cause) | Failed::Unknown { cause, .. }) => Err(cause),
        }
    }

    /// Inserts a row, or sets columns of an existing row in any version. Other columns stay. Creates the table if
    /// it is missing.
    pub(crate) async fn insert_or_merge(&self, row: &str, columns: &Columns) -> Result<(), Error> {
        match self.send_merge(row, columns, None).await {
            Err(error) if error.is("TableNotFound") => {
                self.create().await?;
                self.send_merge(row, columns, None).await
            }
            result => result,
        }
    }

    /// Merges columns into a row, and returns whether the row exists.
    pub(crate) async fn merge(&self, row: &str, columns: &Columns) -> Result<bool, Error> {
        match self.send_merge(row, columns, Some("*")).await {
            Err(error) if error.is_not_found() => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Sends MERGE. With `If-Match` the row must exist
    /// (<https://learn.microsoft.com/rest/api/storageservices/insert-or-merge-entity>).
    async fn send_merge(&self, row: &str, columns: &Columns, if_match: Option<&'static str>) -> Result<(), Error> {
        let method = Method::from_bytes(b"MERGE").map_err(|_| Error::Malformed)?;
        let mut request = self.request(method, &self.url(&self.entity(row))).await?;
        if let Some(if_match) = if_match {
            request = request.header(header::IF_MATCH, if_match);
        }
        let request = request
            .timeout(TRANSACTION_TIMEOUT)
            .header(header::CONTENT_TYPE, "application/json")
            .body(self.row_json(row, columns));
        let _permit = self.http.permit(Purpose::Generation).await?;
        let response = request.send().await.map_err(|_| Error::Unreachable)?;
        if response.status().is_success() { Ok(()) } else { Err(error_of(response).await.1) }
    }

    /// Writes all operations, each on another row, or none. Creates the table if it is missing. Returns the new
    /// versions in the order of the operations.
    ///
    /// # Errors
    /// See [`Failed`].
    pub(crate) async fn transact(&self, operations: &[Operation]) -> Result<Vec<Version>, Failed> {
        match self.transact_once(operations).await {
            Err(Failed::Unknown { cause, .. } | Failed::Rejected(cause)) if cause.is("TableNotFound") => {
                self.create().await.map_err(unknown)?;
                self.transact_once(operations).await
            }
            result => result,
        }
    }

    async fn transact_once(&self, operations: &[Operation]) -> Result<Vec<Version>, Failed> {
        let url = self.url("$batch");
        let body = self.body(operations);
        // The token first: the fetch of one must not hold a permit.
        let request = self.request(Method::POST, &url).await.map_err(unknown)?;
        let request = request
            .timeout(TRANSACTION_TIMEOUT)
            .header(header::CONTENT_TYPE, format!("multipart/mixed; boundary={BOUNDARY}"))
            .body(body);
        let _permit = self.http.permit(Purpose::Generation).await.map_err(unknown)?;
        let response = request.send().await.map_err(|_| unknown(Error::Unreachable))?;
        let retry_after = retry_after(&response);
        if response.status() != StatusCode::ACCEPTED {
            let (status, error) = error_of(response).await;
            let is_rejected = matches!(status.as_u16(), 400 | 413);
            return Err(if is_rejected {
                Failed::Rejected(error)
            } else {
                Failed::Unknown { cause: error, retry_after }
            });
        }
        let text = response.text().await.map_err(|_| unknown(Error::Unreachable))?;
        read_answer(&text, operations.len()).map_err(|failed| match failed {
            Failed::Unknown { cause, .. } => Failed::Unknown { cause, retry_after },
            failed => failed,
        })
    }

    /// The request body of a transaction:
    /// <https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions>.
    fn body(&self, operations: &[Operation]) -> String {
        let mut body = format!("--{BOUNDARY}\r\nContent-Type: multipart/mixed; boundary={CHANGES}\r\n\r\n");
        for Operation { row, change } in operations {
            let entity = self.url(&self.entity(row));
            let (method, url, version, columns) = match change {
                Change::Insert(columns) => ("POST", self.url(self.name), None, Some(columns)),
                Change::Merge(version, columns) => ("MERGE", entity, Some(version.0.as_str()), Some(columns)),
                Change::Replace(version, columns) => ("PUT", entity, Some(version.0.as_str()), Some(columns)),
                Change::Upsert(columns) => ("PUT", entity, None, Some(columns)),
                Change::InsertOrMerge(columns) => ("MERGE", entity, None, Some(columns)),
                Change::Delete => ("DELETE", entity, Some("*"), None),
                Change::DeleteVersion(version) => ("DELETE", entity, Some(version.0.as_str()), None),
            };
            // Writing to a string cannot fail.
            let _ = write!(
                body,
                "--{CHANGES}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n\
                 {method} {url} HTTP/1.1\r\nAccept: application/json;odata=minimalmetadata\r\n\
                 Prefer: return-no-content\r\nDataServiceVersion: 3.0;\r\n"
            );
            if let Some(version) = version {
                let _ = write!(body, "If-Match: {version}\r\n");
            }
            if let Some(columns) = columns {
                let _ = write!(body, "Content-Type: application/json\r\n\r\n{}\r\n", self.row_json(row, columns));
            } else {
                body.push_str("\r\n\r\n");
            }
        }
        let _ = write!(body, "--{CHANGES}--\r\n--{BOUNDARY}--\r\n");
        body
    }

    /// A row as JSON in ASCII. Azurite 3.35 decodes each chunk of a request separately and loses a character
    /// that is split between two chunks.
    fn row_json(&self, row: &str, columns: &Columns) -> String {
        let mut entity = Map::from_iter(columns.iter().map(|(name, text)| (name.clone(), json!(text))));
        entity.insert("PartitionKey".to_owned(), json!(self.partition));
        entity.insert("RowKey".to_owned(), json!(row));
        let json = Value::Object(entity).to_string();
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
        escaped
    }

    /// Sends GET and repeats it after a 5xx or a broken connection. Returns the headers and the JSON of the
    /// successful response; `None` for 404 (no such row or table).
    async fn read(&self, url: &Url, purpose: Purpose) -> Result<Option<(HeaderMap, Value)>, Error> {
        let (began, mut pause) = (Instant::now(), FIRST_PAUSE);
        loop {
            let permit = self.http.permit(purpose).await?;
            let request = self.request(Method::GET, url).await?;
            let (status, error) = match request.send().await {
                Ok(response) if response.status().is_success() => {
                    let headers = response.headers().clone();
                    return Ok(Some((headers, json_of(response).await?)));
                }
                Ok(response) if response.status() == StatusCode::NOT_FOUND => return Ok(None),
                Ok(response) => error_of(response).await,
                Err(error) if error.is_timeout() => return Err(Error::Unreachable),
                Err(_) => (StatusCode::SERVICE_UNAVAILABLE, Error::Unreachable),
            };
            drop(permit);
            if !status.is_server_error() || began.elapsed() + pause > REPEAT_READS_FOR {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    async fn create(&self) -> Result<(), Error> {
        let _permit = self.http.permit(Purpose::Generation).await?;
        let request = self.request(Method::POST, &self.url("Tables")).await?.json(&json!({"TableName": self.name}));
        let response = request.send().await.map_err(|_| Error::Unreachable)?;
        if response.status().is_success() || response.status() == StatusCode::CONFLICT {
            return Ok(());
        }
        Err(error_of(response).await.1)
    }

    fn entity(&self, row: &str) -> String {
        format!("{}(PartitionKey='{}',RowKey='{row}')", self.name, self.partition)
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}/{path}", self.endpoint.path().trim_end_matches('/')));
        url
    }

    /// Builds an authorized request.
    #[expect(
        clippy::disallowed_methods,
        reason = "the service rejects a request whose signed time differs from its own clock"
    )]
    async fn request(&self, method: Method, url: &Url) -> Result<reqwest::RequestBuilder, Error> {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let authorization = self.authorization.header(&self.http, &date, url.path()).await?;
        let request = self
            .http
            .request(method, url)
            .timeout(TIMEOUT)
            .header("x-ms-date", date)
            .header("x-ms-version", VERSION)
            .header("DataServiceVersion", "3.0;")
            .header("MaxDataServiceVersion", "3.0;NetFx")
            .header(header::ACCEPT, "application/json;odata=minimalmetadata")
            .header(header::AUTHORIZATION, authorization);
        Ok(request)
    }
}

/// The string properties of an entity, without its keys and annotations.
fn columns(entity: Map<String, Value>) -> Columns {
    let is_column = |name: &str| !matches!(name, "PartitionKey" | "RowKey" | "Timestamp") && !name.contains("odata.");
    let texts = entity.into_iter().filter(|(name, _)| is_column(name));
    texts.filter_map(|(name, value)| Some((name, value.as_str()?.to_owned()))).collect()
}

async fn json_of(response: Response) -> Result<Value, Error> {
    let body: Bytes = response.bytes().await.map_err(|_| Error::Unreachable)?;
    serde_json::from_slice(&body).map_err(|_| Error::Malformed)
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

async fn error_of(response: Response) -> (StatusCode, Error) {
    let status = response.status();
    let code = match code_in_header(&response) {
        Some(code) => code,
        None => code_of(&response.text().await.unwrap_or_default()),
    };
    (status, Error::Answered { status: status.as_u16(), code })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns_of(text: &str) -> Columns {
        Columns::from([("Data00".to_owned(), text.to_owned())])
    }

    #[tokio::test]
    async fn a_transaction_is_written_as_a_whole_or_not_at_all() {
        let azurite = tokio::task::spawn_blocking(devkit::stand_ins::azurite::Azurite::start);
        let azurite = azurite.await.expect("a thread").expect("Azurite starts");
        let text = azurite.connection_string();
        let lookup = |name: &str| match name {
            "OPENAI_API_KEY" => Some("key".to_owned()),
            "AzureWebJobsStorage" => Some(text.clone()),
            _ => None,
        };
        let config = crate::config::Config::from_vars(lookup).expect("the settings are right");
        let table = Table::new(&config.state, "visionary", "images", Http::new(reqwest::Client::new()));
        let change = |row: &str, change| Operation { row: row.to_owned(), change };

        assert_eq!(table.get("a", Purpose::Caller).await.expect("a missing table has no row"), None);
        let inserts =
            [change("a", Change::Insert(columns_of("1"))), change("b", Change::Insert(columns_of("🦊 '\r\n")))];
        let versions = table.transact(&inserts).await.expect("both are inserted");
        let (found, version) = table.get("b", Purpose::Caller).await.expect("an answer").expect("a row");
        assert_eq!((found, &version), (columns_of("🦊 '\r\n"), &versions[1]));

        // The second row exists already, so the first row is not changed.
        let merged = Columns::from([("More00".to_owned(), "2".to_owned())]);
        let stale = [change("a", Change::Merge(versions[0].clone(), merged.clone())), inserts[1].clone()];
        assert!(matches!(table.transact(&stale).await, Err(Failed::Conflict(1))));
        assert_eq!(table.get("a", Purpose::Caller).await.expect("an answer").expect("a row").0, columns_of("1"));
        let merge = [change("a", Change::Merge(versions[0].clone(), merged))];
        table.transact(&merge).await.expect("the row is merged");
        assert!(matches!(table.transact(&merge).await, Err(Failed::Conflict(0))), "the version is an old one");
        assert_eq!(table.get("a", Purpose::Caller).await.expect("an answer").expect("a row").0.len(), 2);

        let upsert = [change("c", Change::Upsert(columns_of("3"))), change("a", Change::Delete)];
        table.transact(&upsert).await.expect("both operations are written");
        let query = Query { columns: &["Data00"], ..Query::rows("a", "d") };
        let page = table.query(&query, None).await.expect("a page");
        let rows: Vec<(&str, &str)> = page.rows.iter().map(|(row, found)| (&**row, &*found["Data00"])).collect();
        assert_eq!(rows, [("b", "🦊 '\r\n"), ("c", "3")]);

        // Rows of other partitions, in the order of their keys; a merge inserts a row or keeps its other columns.
        let others = [("images_2", "a"), ("images_1", "z"), ("images_1", "y")];
        for (partition, row) in others {
            table.partition(partition).insert_or_merge(row, &columns_of("4")).await.expect("the row is inserted");
        }
        let more = Columns::from([("More00".to_owned(), "5".to_owned())]);
        let merges = [change("z", Change::InsertOrMerge(more.clone())), change("x", Change::InsertOrMerge(more))];
        table.partition("images_1").transact(&merges).await.expect("both are merged");
        let query = Query { top: Some(3), ..Query::partitions("images_", "images_:") };
        let first = table.query(&query, None).await.expect("a page");
        let second = table.query(&query, first.next.as_ref()).await.expect("a page");
        let rows: Vec<(&str, usize)> =
            first.rows.iter().chain(&second.rows).map(|(row, found)| (&**row, found.len())).collect();
        assert_eq!((rows, second.next.is_none()), (vec![("x", 1), ("y", 1), ("z", 2), ("a", 1)], true));
    }
}
