//! Audits the state table: reads all its rows from storage and compares the sums in them with the sum of
//! the records.
//!
//! The row format is that of `docs/compatibility.md`. The module shares no code with the handler, so that
//! a bug of the handler is not repeated here.

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::hmac;
use serde_json::{Map, Value};

const TABLE: &str = "visionary";

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
    let rows = rows(connection_string, container).await?;
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

/// Parses the JSON text that is split over the columns `{name}00`, `{name}01` and so on.
fn json(entity: &Map<String, Value>, name: &str) -> anyhow::Result<Value> {
    let parts = (0..100).map_while(|number| entity.get(&format!("{name}{number:02}"))?.as_str());
    serde_json::from_str(&parts.collect::<String>()).with_context(|| format!("the columns {name} do not contain JSON"))
}

/// All rows of the container's partition, by row key.
async fn rows(connection_string: &str, container: &str) -> anyhow::Result<BTreeMap<String, Map<String, Value>>> {
    let part = |name: &str| {
        let mut parts = connection_string.split(';').filter_map(|part| part.split_once('='));
        parts
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
            .with_context(|| format!("the connection string has no {name}"))
    };
    let (account, endpoint) = (part("AccountName")?, part("TableEndpoint")?);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_STANDARD.decode(part("AccountKey")?)?);
    let http = reqwest::Client::new();
    let mut rows = BTreeMap::new();
    let mut after: Option<(String, String)> = None;
    loop {
        let mut url = reqwest::Url::parse(&format!("{endpoint}/{TABLE}()"))?;
        url.query_pairs_mut().append_pair("$filter", &format!("PartitionKey eq '{container}'"));
        if let Some((partition, row)) = &after {
            url.query_pairs_mut().append_pair("NextPartitionKey", partition).append_pair("NextRowKey", row);
        }
        let date = httpdate::fmt_http_date(SystemTime::now());
        let signature = hmac::sign(&key, format!("{date}\n/{account}{}", url.path()).as_bytes());
        let signature = BASE64_STANDARD.encode(signature.as_ref());
        let answer = http
            .get(url)
            .header("x-ms-date", date)
            .header("x-ms-version", "2020-12-06")
            .header("accept", "application/json;odata=nometadata")
            .header("authorization", format!("SharedKeyLite {account}:{signature}"))
            .send()
            .await?;
        let next = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        after = next("x-ms-continuation-nextpartitionkey")
            .map(|partition| (partition, next("x-ms-continuation-nextrowkey").unwrap_or_default()));
        ensure!(answer.status().is_success(), "Table Storage answered {}", answer.status());
        let page: Value = answer.json().await?;
        for entity in page["value"].as_array().context("the answer has no value")? {
            let entity = entity.as_object().context("an entity is no JSON object")?;
            let row = entity["RowKey"].as_str().context("an entity has no RowKey")?.to_owned();
            rows.insert(row, entity.clone());
        }
        if after.is_none() {
            return Ok(rows);
        }
    }
}
