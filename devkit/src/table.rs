//! A client of the Table service, and the state table from outside: [`audit`] reads all rows and compares the sums in
//! them with the sum of the records; [`add_expired`] fills it with rows that the app deletes.
//!
//! The row format is that of `docs/compatibility.md`. The module shares no code with the handler, so that
//! a bug of the handler is not repeated here.

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Method, StatusCode, Url};
use ring::hmac;
use serde_json::{Map, Value, json};

const TABLE: &str = "visionary";
/// The beginning of the row keys of [`add_expired`].
const EXPIRED: &str = "generation-2020-01-01-";

/// The result of an audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audit {
    /// Generations without an outcome.
    pub open: usize,
    /// Reserved part of the budget, in millionths of a US dollar.
    pub reserved: u64,
    /// Whether each day's reserved and spent money and each caller's used images equal the sums over the
    /// records and the texts.
    pub agrees: bool,
}

/// Audits the app whose images are in `container`.
///
/// # Errors
/// Fails if the table cannot be read or a row is malformed.
pub async fn audit(connection_string: &str, container: &str) -> anyhow::Result<Audit> {
    let found = Tables::of(connection_string)?.rows(TABLE, &format!("PartitionKey eq '{container}'")).await?;
    let mut rows = BTreeMap::new();
    for entity in found {
        rows.insert(entity["RowKey"].as_str().context("an entity has no RowKey")?.to_owned(), entity);
    }
    // Reserved and spent money by day, in millionths of a US dollar.
    let mut money: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    // Used images by the row of a day and a caller.
    let mut used: BTreeMap<String, u64> = BTreeMap::new();
    let mut audit = Audit { open: 0, reserved: 0, agrees: true };
    for (row, entity) in rows.iter().filter(|(row, _)| row.starts_with("generation-")) {
        let day = row.get(11..21).context("the row key of a record has no day")?.to_owned();
        let (order, state) = (json(entity, "Order")?, json(entity, "State")?);
        let most = order["most_cost"].as_u64().context("a record has no most_cost")?;
        let outcome = &state["ended"]["outcome"];
        let cost = |name: &str| outcome[name]["cost"]["micro_usd"].as_u64();
        let (reserved, spent, images) = if state.get("ended").is_none() {
            audit.open += 1;
            (if order["in_budget"] == true { most } else { 0 }, 0, 1)
        } else if let Some(cost) = cost("stored").or_else(|| cost("stored_later")) {
            (0, cost, 1)
        } else if outcome.get("lost").is_some() {
            (0, most, 1)
        } else {
            (0, 0, 0)
        };
        let sums = money.entry(day.clone()).or_default();
        *sums = (sums.0 + reserved, sums.1 + spent);
        if order["in_quota"] == true {
            let caller = order["caller"].as_str().context("a record has no caller")?;
            *used.entry(format!("caller-{day}-{caller}")).or_default() += images;
        }
    }
    for (row, entity) in rows.iter().filter(|(row, _)| row.starts_with("text-")) {
        let day = row.get(5..15).context("the row key of texts has no day")?.to_owned();
        let spent = json(entity, "Data")?["totals"]["spent"].as_u64().context("a row of texts has no cost")?;
        money.entry(day).or_default().1 += spent;
    }
    for (day, sums) in money {
        let totals = rows.get(&format!("day-{day}")).map_or(Ok(Value::Null), |entity| json(entity, "Data"))?;
        let number = |name: &str| totals[name].as_u64().unwrap_or_default();
        audit.agrees &= (number("reserved"), number("spent")) == sums;
        audit.reserved += number("reserved");
    }
    for (row, used) in used {
        let totals = rows.get(&row).map_or(Ok(Value::Null), |entity| json(entity, "Data"))?;
        audit.agrees &= totals["used"].as_u64().unwrap_or_default() == used;
    }
    Ok(audit)
}

/// Adds generations that expired long ago, with a text of `bytes` bytes each. Creates the table if it is missing.
///
/// # Errors
/// Fails if the table does not take the rows.
pub async fn add_expired(connection_string: &str, container: &str, count: usize, bytes: usize) -> anyhow::Result<()> {
    let tables = Tables::of(connection_string)?;
    tables.create_table(TABLE).await?;
    let text = "x".repeat(bytes);
    let row = |number: usize| {
        let key = format!("{EXPIRED}{number:064x}");
        json!({"PartitionKey": container, "RowKey": key, "Order00": text, "Status": "ended"})
    };
    // One transaction at a time, which has at most 4 MiB.
    let at_once = (3_500_000 / (bytes + 1_000)).clamp(1, ROWS_AT_ONCE);
    for first in (0..count).step_by(at_once) {
        let rows: Vec<Value> = (first..count.min(first + at_once)).map(row).collect();
        tables.insert(TABLE, &rows).await?;
    }
    Ok(())
}

/// Whether rows of [`add_expired`] are left.
///
/// # Errors
/// Fails if the table cannot be read.
pub async fn has_expired(connection_string: &str, container: &str) -> anyhow::Result<bool> {
    let filter = format!("PartitionKey eq '{container}' and RowKey ge '{EXPIRED}' and RowKey lt '{EXPIRED}g'");
    Tables::of(connection_string)?.has_rows(TABLE, &filter).await
}

/// Parses the JSON text that is split over the columns `{name}00`, `{name}01` and so on.
fn json(entity: &Map<String, Value>, name: &str) -> anyhow::Result<Value> {
    let parts = (0..100).map_while(|number| entity.get(&format!("{name}{number:02}"))?.as_str());
    serde_json::from_str(&parts.collect::<String>()).with_context(|| format!("the columns {name} do not contain JSON"))
}

/// A client of the Table service of one account.
#[derive(Debug, Clone)]
pub struct Tables {
    http: reqwest::Client,
    endpoint: String,
    account: String,
    key: hmac::Key,
}

/// The boundary of a transaction. Azurite accepts only names that begin with `batch_`.
const BATCH: &str = "batch_devkit";
const CHANGES: &str = "changeset_devkit";
/// The most rows of a transaction.
const ROWS_AT_ONCE: usize = 100;

impl Tables {
    /// The Table service of a connection string with `TableEndpoint`.
    ///
    /// # Errors
    /// Fails if a part of the connection string is missing or malformed.
    pub fn of(connection_string: &str) -> anyhow::Result<Self> {
        let part = |name: &str| {
            let mut parts = connection_string.split(';').filter_map(|part| part.split_once('='));
            parts
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.to_owned())
                .with_context(|| format!("the connection string has no {name}"))
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_STANDARD.decode(part("AccountKey")?)?);
        let (endpoint, account) = (part("TableEndpoint")?, part("AccountName")?);
        Ok(Self { http: reqwest::Client::new(), endpoint, account, key })
    }

    /// The rows that a filter selects, in the order of the service. A missing table has no rows.
    ///
    /// # Errors
    /// Fails if the service answers with an error.
    pub async fn rows(&self, table: &str, filter: &str) -> anyhow::Result<Vec<Map<String, Value>>> {
        let mut rows = Vec::new();
        let mut after: Option<(String, String)> = None;
        loop {
            let mut url = self.url(&format!("{table}()"))?;
            url.query_pairs_mut().append_pair("$filter", filter);
            if let Some((partition, row)) = &after {
                url.query_pairs_mut().append_pair("NextPartitionKey", partition).append_pair("NextRowKey", row);
            }
            let answer = self.request(Method::GET, url).send().await?;
            if answer.status() == StatusCode::NOT_FOUND {
                return Ok(rows);
            }
            let next = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
            after = next("x-ms-continuation-nextpartitionkey")
                .map(|partition| (partition, next("x-ms-continuation-nextrowkey").unwrap_or_default()));
            ensure!(answer.status().is_success(), "Table Storage answered {}", answer.status());
            let page: Value = answer.json().await?;
            for entity in page["value"].as_array().context("the answer has no value")? {
                rows.push(entity.as_object().context("an entity is no JSON object")?.clone());
            }
            if after.is_none() {
                return Ok(rows);
            }
        }
    }

    /// Inserts rows, in transactions of 100. Each row has `PartitionKey` and `RowKey`; rows of one partition follow
    /// each other. Only ASCII is written right.
    ///
    /// # Errors
    /// Fails if a row exists already, or the service answers with an error.
    pub async fn insert(&self, table: &str, rows: &[Value]) -> anyhow::Result<()> {
        for partition in rows.chunk_by(|one, other| one["PartitionKey"] == other["PartitionKey"]) {
            for rows in partition.chunks(ROWS_AT_ONCE) {
                let mut body = format!("--{BATCH}\r\nContent-Type: multipart/mixed; boundary={CHANGES}\r\n\r\n");
                let url = self.url(table)?;
                for row in rows {
                    body.push_str(&format!(
                        "--{CHANGES}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n\
                         POST {url} HTTP/1.1\r\nAccept: application/json;odata=minimalmetadata\r\n\
                         Prefer: return-no-content\r\nDataServiceVersion: 3.0;\r\nContent-Type: application/json\r\n\r\n\
                         {row}\r\n"
                    ));
                }
                body.push_str(&format!("--{CHANGES}--\r\n--{BATCH}--\r\n"));
                let request = self
                    .request(Method::POST, self.url("$batch")?)
                    .header("content-type", format!("multipart/mixed; boundary={BATCH}"));
                let answer = request.body(body).send().await?;
                let (status, text) = (answer.status(), answer.text().await?);
                let is_written = text.matches("HTTP/1.1 204").count() == rows.len();
                ensure!(status == StatusCode::ACCEPTED && is_written, "Table Storage answered {status}: {text}");
            }
        }
        Ok(())
    }

    /// The first rows that a filter selects, in one request.
    ///
    /// # Errors
    /// Fails if the service answers with an error.
    pub async fn first(&self, table: &str, filter: &str, count: usize) -> anyhow::Result<usize> {
        let mut url = self.url(&format!("{table}()"))?;
        url.query_pairs_mut().append_pair("$filter", filter).append_pair("$top", &count.to_string());
        let page: Value = self.request(Method::GET, url).send().await?.error_for_status()?.json().await?;
        Ok(page["value"].as_array().context("the answer has no value")?.len())
    }

    /// Whether a filter selects a row.
    ///
    /// # Errors
    /// Fails if the service answers with an error.
    pub async fn has_rows(&self, table: &str, filter: &str) -> anyhow::Result<bool> {
        let mut url = self.url(&format!("{table}()"))?;
        url.query_pairs_mut().append_pair("$filter", filter).append_pair("$top", "1").append_pair("$select", "RowKey");
        let page: Value = self.request(Method::GET, url).send().await?.error_for_status()?.json().await?;
        Ok(!page["value"].as_array().context("the answer has no value")?.is_empty())
    }

    /// Creates a table. One that exists is left unchanged.
    ///
    /// # Errors
    /// Fails if the service answers with an error.
    pub async fn create_table(&self, table: &str) -> anyhow::Result<()> {
        let create = self.request(Method::POST, self.url("Tables")?).json(&json!({"TableName": table}));
        let created = create.send().await?.status();
        ensure!(created.is_success() || created == StatusCode::CONFLICT, "the table cannot be created: {created}");
        Ok(())
    }

    /// Deletes a table with all its rows.
    ///
    /// # Errors
    /// Fails if the service answers with an error.
    pub async fn delete_table(&self, table: &str) -> anyhow::Result<()> {
        let answer = self.request(Method::DELETE, self.url(&format!("Tables('{table}')"))?).send().await?;
        ensure!(answer.status().is_success(), "Table Storage answered {}", answer.status());
        Ok(())
    }

    fn url(&self, path: &str) -> anyhow::Result<Url> {
        Ok(Url::parse(&format!("{}/{path}", self.endpoint))?)
    }

    fn request(&self, method: Method, url: Url) -> reqwest::RequestBuilder {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let signature = hmac::sign(&self.key, format!("{date}\n/{}{}", self.account, url.path()).as_bytes());
        let signature = BASE64_STANDARD.encode(signature.as_ref());
        self.http
            .request(method, url)
            .header("x-ms-date", date)
            .header("x-ms-version", "2020-12-06")
            .header("accept", "application/json;odata=nometadata")
            .header("authorization", format!("SharedKeyLite {}:{signature}", self.account))
    }
}
