//! The state table as an auditor sees it: every row, read past the handler, and whether the sums in it
//! are those of the records. It knows the rows by `docs/compatibility.md` and shares no code with the
//! handler.

use std::collections::BTreeMap;
use std::time::SystemTime;

use anyhow::{Context as _, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::hmac;
use serde_json::{Map, Value};

const TABLE: &str = "visionary";

/// What the records of an app say, and whether the sums beside them say the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audit {
    /// Generations that have not ended.
    pub open: usize,
    /// Money that is held, in millionths of a US dollar.
    pub reserved: u64,
    /// Whether each day's money and each caller's images are those of the records.
    pub agrees: bool,
}

/// Reads an app's rows and adds its records up.
///
/// # Errors
/// If the table cannot be read.
pub async fn audit(connection_string: &str, container: &str) -> anyhow::Result<Audit> {
    let rows = rows(connection_string, container).await?;
    // By day and by caller: held, spent, used.
    let mut wanted: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut used: BTreeMap<String, u64> = BTreeMap::new();
    let mut audit = Audit { open: 0, reserved: 0, agrees: true };
    for (row, entity) in rows.iter().filter(|(row, _)| row.starts_with("generation-")) {
        let day = row.get(11..21).context("a day")?.to_owned();
        let (order, state) = (json(entity, "Order")?, json(entity, "State")?);
        let most = order["most_cost"].as_u64().context("most_cost")?;
        let outcome = &state["ended"]["outcome"];
        let cost = |name: &str| outcome[name]["cost"]["micro_usd"].as_u64();
        let (held, spent, counts) = if state.get("ended").is_none() {
            audit.open += 1;
            (if order["in_budget"] == true { most } else { 0 }, 0, 1)
        } else if let Some(cost) = cost("stored").or_else(|| cost("stored_later")) {
            (0, cost, 1)
        } else if outcome.get("lost").is_some() {
            (0, most, 1)
        } else {
            (0, 0, 0)
        };
        let sums = wanted.entry(day.clone()).or_default();
        *sums = (sums.0 + held, sums.1 + spent);
        if order["in_quota"] == true {
            let caller = order["caller"].as_str().context("caller")?;
            *used.entry(format!("caller-{day}-{caller}")).or_default() += counts;
        }
    }
    for (day, sums) in wanted {
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

/// A JSON text that is kept in several columns.
fn json(entity: &Map<String, Value>, name: &str) -> anyhow::Result<Value> {
    let parts = (0..100).map_while(|number| entity.get(&format!("{name}{number:02}"))?.as_str());
    serde_json::from_str(&parts.collect::<String>()).with_context(|| format!("{name} is JSON"))
}

async fn rows(connection_string: &str, container: &str) -> anyhow::Result<BTreeMap<String, Map<String, Value>>> {
    let part = |name: &str| {
        let mut parts = connection_string.split(';').filter_map(|part| part.split_once('='));
        parts.find(|(known, _)| *known == name).map(|(_, value)| value).with_context(|| name.to_owned())
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
        ensure!(answer.status().is_success(), "the table answered {}", answer.status());
        let page: Value = answer.json().await?;
        for entity in page["value"].as_array().context("value")? {
            let entity = entity.as_object().context("an entity")?;
            let row = entity["RowKey"].as_str().context("RowKey")?.to_owned();
            rows.insert(row, entity.clone());
        }
        if after.is_none() {
            return Ok(rows);
        }
    }
}
