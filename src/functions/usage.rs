//! `GET /api/usage?days=30`: images, failures, tokens and dollars by day and model, as JSON or CSV.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use serde_json::{Value, json};

use super::{accept, answers};
use crate::app::App;
use crate::error::Problem;
use crate::generation::usage::MAX_DAYS;
use crate::spending::{Day, DayTotals, ModelTotals, usd};

const USUAL_DAYS: u16 = 30;
const CSV_HEADER: &str = "date,model,images,unpriced,refusals,failures,textInputTokens,imageInputTokens,outputTokens,usd,callersOfTheDay,lost,texts\n";

pub(super) async fn handle(
    State(app): State<Arc<App>>,
    query: Result<Query<HashMap<String, String>>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|_| Problem::invalid_request("The query string cannot be parsed."))?;
    let days = match query.get("days").map(|days| days.parse()) {
        None => USUAL_DAYS,
        Some(Ok(days)) if (1..=MAX_DAYS).contains(&days) => days,
        Some(_) => return Err(Problem::invalid_request(format!("days must be a whole number from 1 to {MAX_DAYS}."))),
    };
    let usage = app.generations.usage(days).await.map_err(|error| Problem::records_unavailable(&error))?;
    if !accept::prefers_csv(&headers) {
        return Ok(answers::json(&json!({"days": usage.iter().map(day).collect::<Vec<_>>()})));
    }
    let mut response = answers::text(csv(&usage));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    Ok(response)
}

fn day((date, day): &(Day, DayTotals)) -> Value {
    let models = day.models.iter().map(|(name, model)| {
        json!({
            "model": name,
            "images": model.images,
            "texts": model.texts,
            "unpriced": model.unpriced,
            "refusals": model.refusals,
            "failures": model.failures,
            "lost": model.lost,
            "tokens": {
                "textInput": model.usage.text_input,
                "imageInput": model.usage.image_input,
                "output": model.usage.output,
            },
            "usd": usd(model.spent),
        })
    });
    let sum = |count: fn(&ModelTotals) -> u64| day.models.values().map(count).sum::<u64>();
    json!({
        "date": date,
        "images": sum(|model| model.images),
        "texts": sum(|model| model.texts),
        "unpriced": sum(|model| model.unpriced),
        "refusals": sum(|model| model.refusals),
        "failures": sum(|model| model.failures),
        "lost": sum(|model| model.lost),
        "callers": day.callers,
        "usd": usd(day.spent),
        "reservedUsd": usd(day.reserved),
        "models": models.collect::<Vec<_>>(),
    })
}

/// The usage as CSV (RFC 4180).
fn csv(usage: &[(Day, DayTotals)]) -> String {
    let mut text = CSV_HEADER.to_owned();
    for (date, day) in usage {
        for (name, model) in &day.models {
            let ModelTotals { images, texts, unpriced, refusals, failures, lost, usage, spent } = model;
            let (usd, callers, name) = (usd(*spent), day.callers, quoted(name));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{date},{name},{images},{unpriced},{refusals},{failures},{},{},{},{usd:.6},{callers},{lost},{texts}",
                usage.text_input, usage.image_input, usage.output
            );
        }
    }
    text
}

/// Quotes a CSV field if needed. The operator chooses the models' names, so they may contain any
/// character.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
