//! `POST /api/generateImage`:
//! `{prompt, size?, quality?, style?, enhance?, background?, outputFormat?}`.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value, json};

use super::accept::Accept;
use super::rate_limit;
use crate::app::App;
use crate::caller::Caller;
use crate::config::PromptEnhancement;
use crate::director::{self, Direction};
use crate::error::Problem;
use crate::generate::{self, Outcome, Request, generate};
use crate::openai::Wishes;
use crate::quota;

const STORED_LATER: &str =
    "The image was drawn and is safe. It will appear in the gallery as soon as storage can be reached again.";
/// The longest prompt of any model fits, in any script.
const MAX_BODY_KIB: usize = 64;

pub(super) async fn handle(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let caller = app.callers.identify(&headers);
    let mut unavailable = false;
    let (mut response, standing) = match read(&app, &headers, &caller, body).await {
        Ok(request) => {
            let answered = generate(&app, request).await;
            unavailable = matches!(&answered.result, Err(generate::Error::Quota(quota::Error::Unavailable(_))));
            let answer = answered.result.map(|outcome| answer(Accept::of(&headers), outcome));
            (answer.unwrap_or_else(|error| Problem::from(error).into_response()), answered.standing)
        }
        Err(problem) => (problem.into_response(), None),
    };
    let now = (app.clock)();
    let standing = match standing {
        // The day may have ended while the picture was drawn.
        Some(standing) if standing.resets_in(now).is_some() => Some(standing),
        // It was asked for a moment ago.
        _ if unavailable => None,
        // An answer that has not counted: how the caller stands is found out for it alone.
        _ => app.quota.standing(&caller, now).await.ok().flatten(),
    };
    rate_limit::insert(response.headers_mut(), app.quota.daily_images(), standing, now);
    response
}

async fn read(app: &App, headers: &HeaderMap, caller: &Caller, body: Body) -> Result<Request, Problem> {
    let bytes = to_bytes(body, MAX_BODY_KIB * 1024).await.map_err(|_| Problem::too_large(MAX_BODY_KIB))?;
    let request = parse(&bytes)?;
    let Some(Value::String(prompt)) = request.get("prompt") else {
        return Err(Problem::invalid_request(
            "The request has no prompt. Send JSON such as {\"prompt\": \"a red fox\"}.",
        ));
    };
    let key = idempotency_key(headers)?;
    let (direction, style) = direction(app, &request)?;
    Ok(Request {
        prompt: prompt.clone(),
        direction,
        wishes: Wishes {
            size: wish(&request, "size")?,
            quality: wish(&request, "quality")?,
            style,
            background: wish(&request, "background")?,
            output_format: wish(&request, "outputFormat")?,
        },
        caller: caller.clone(),
        repeatable: key.map(|key| app.claims.repeatable(key, caller, &bytes)),
    })
}

fn answer(accept: Accept, outcome: Outcome) -> Response {
    match outcome {
        Outcome::Stored(generated) => match accept {
            Accept::Text => super::text("Image uploaded successfully"),
            Accept::Json => super::json(&generated),
        },
        // Not an error, which would invite a second, paid try.
        Outcome::StoredLater { name } => {
            let mut response = match accept {
                Accept::Text => super::text(STORED_LATER),
                Accept::Json => super::json(&json!({"code": "stored_later", "name": name, "detail": STORED_LATER})),
            };
            *response.status_mut() = StatusCode::ACCEPTED;
            response
        }
    }
}

/// The draft's quoted string, or the same without quotes, as most clients send it.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if (1..=255).contains(&key.len()) && values.next().is_none() {
        Ok(Some(key))
    } else {
        Err(Problem::invalid_request(
            "Idempotency-Key must be one text of 1 to 255 ASCII characters, a UUID for example.",
        ))
    }
}

/// JSON whatever the Content-Type says: front ends send all sorts of it.
fn parse(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    match serde_json::from_slice(body) {
        Ok(Value::Object(request)) => Ok(request),
        Ok(_) | Err(_) => Err(Problem::invalid_request(
            "The request is not a JSON object. Send JSON such as {\"prompt\": \"a red fox\"}.",
        )),
    }
}

/// `enhance`, and a preset in `style`; what else is in `style` is dall-e's own.
fn direction(app: &App, request: &Map<String, Value>) -> Result<(Direction, Option<String>), Problem> {
    let style = wish(request, "style")?;
    let preset = style.as_deref().and_then(director::named);
    let style = style.filter(|_| preset.is_none());
    if let Some(style) = &style
        && !["vivid", "natural"].contains(&style.as_str())
    {
        let names: Vec<&str> = director::STYLES.iter().map(|style| style.name).collect();
        let names = names.join(", ");
        return Err(Problem::invalid_request(format!("style must be one of: vivid, natural, {names}.")));
    }
    let enhancement = match wish(request, "enhance")?.as_deref() {
        Some("off") => PromptEnhancement::Off,
        Some("style") => PromptEnhancement::Style,
        Some("rewrite") => PromptEnhancement::Rewrite,
        Some(_) => return Err(Problem::invalid_request("enhance must be one of: off, style, rewrite.")),
        // Who names a preset wishes it.
        None if preset.is_some() && app.enhancement == PromptEnhancement::Off => PromptEnhancement::Style,
        None => app.enhancement,
    };
    Ok((Direction { enhancement, style: preset }, style))
}

fn wish(request: &Map<String, Value>, field: &str) -> Result<Option<String>, Problem> {
    match request.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Problem::invalid_request(format!("{field} must be a string, or left out."))),
    }
}
