//! `POST /api/generateImage`:
//! `{prompt, size?, quality?, style?, enhance?, background?, outputFormat?, partialImages?}`.
//!
//! The caller waits for the answer, watches events, or takes a job; it is one and the same generation,
//! which is watched in the same way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::accept::{self, Accept};
use super::prefer::Asynchronous;
use super::{answers, events, rate_limit};
use crate::app::App;
use crate::caller::Caller;
use crate::config::PromptEnhancement;
use crate::error::Problem;
use crate::generation::{Accepted, Address, Error, Progress, Request};
use crate::openai::{DALL_E_STYLES, ImageOptions};
use crate::prompts::enhance::{self, EnhanceOptions};
use crate::spending::{Day, QuotaStatus};

/// For what an answer is better with, but not late: the platform's front end may be about to end it.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// Unfinished images that are shown to who watches.
const PARTIAL_IMAGES: u8 = 2;
/// The longest prompt of any model fits, in any script.
const MAX_BODY_KIB: usize = 64;

pub(super) async fn handle(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let caller = app.callers.identify(&headers);
    let (mut response, quota_status) = match respond(&app, &headers, &caller, body).await {
        Ok(answered) => answered,
        Err((problem, quota_status)) => (problem.into_response(), quota_status),
    };
    let now = (app.clock)();
    // The day may have ended while the image was drawn.
    let mut quota_status = quota_status.filter(|quota_status| quota_status.resets_in(now).is_some());
    // Where the records could not be reached a moment ago, they are not asked again.
    if quota_status.is_none() && response.status() != StatusCode::SERVICE_UNAVAILABLE {
        let look = tokio::time::timeout(LOOK_WITHIN, app.generations.quota_status(&caller, Day::of(now)));
        quota_status = look.await.ok().and_then(Result::ok).flatten();
    }
    rate_limit::insert(response.headers_mut(), app.generations.daily_images(), quota_status, now);
    response
}

/// An answer, and how its caller stands, as far as that is known.
type Answered = (Response, Option<QuotaStatus>);

async fn respond(
    app: &Arc<App>,
    headers: &HeaderMap,
    caller: &Caller,
    body: Body,
) -> Result<Answered, (Problem, Option<QuotaStatus>)> {
    let began = Instant::now();
    let accept = Accept::of(headers);
    let asynchronous = Asynchronous::of(headers);
    if asynchronous.is_some() && !app.generations.can_queue() {
        return Err(refused(&Error::NoQueue));
    }
    let is_watched = asynchronous.is_none() && accept::wants_events(headers) && events::pass_through(headers);
    let request = read(app, headers, caller, is_watched, body).await.map_err(|problem| (problem, None))?;
    if let Some(asynchronous) = asynchronous {
        let accepted = app.generations.accept_job(request).await.map_err(|error| refused(&error))?;
        return Ok(respond_async(app, accept, asynchronous, accepted, began).await);
    }
    let (mut progress, is_new) = match app.generations.admit(request).await.map_err(|error| refused(&error))? {
        Accepted::New(admitted) => (app.generations.start(*admitted), true),
        Accepted::Before(address) => (watch(app, &address).await?, false),
    };
    if is_watched {
        return Ok((events::respond(app, progress, is_new, headers), None));
    }
    if is_new {
        let ended = progress.wait_for(|progress| progress.ended.is_some());
        let limit = app.sync_limit.saturating_sub(began.elapsed());
        if tokio::time::timeout(limit, ended).await.is_err() {
            // There is no job before it was accepted.
            let _ = progress.wait_for(|progress| progress.accepted.is_some() || progress.ended.is_some()).await;
        }
    }
    let progress = progress.borrow().clone();
    Ok((answers::of_progress(app, accept, &progress).await, standing_of(&progress)))
}

/// A job: its end, if it comes within the time that its caller waits; 202 until then.
async fn respond_async(
    app: &Arc<App>,
    accept: Accept,
    asynchronous: Asynchronous,
    accepted: Accepted<Progress>,
    began: Instant,
) -> Answered {
    let (address, mut known) = match accepted {
        Accepted::New(progress) => (progress.order.address.clone(), Some(progress)),
        Accepted::Before(address) => (address, None),
    };
    let is_new = known.is_some();
    if (!is_new || asynchronous.wait.is_some())
        && let Ok(mut progress) = watch(app, &address).await
    {
        let wait = asynchronous.wait.unwrap_or_default().saturating_sub(began.elapsed());
        let ended = progress.wait_for(|progress| progress.ended.is_some());
        tokio::select! {
            _ = tokio::time::timeout(wait, ended) => {}
            // Another process tells the rest.
            () = app.generations.stopping.cancelled() => {}
        }
        let quota_status = known.as_ref().and_then(standing_of);
        let progress = progress.borrow().clone();
        return applied(answers::of_progress(app, accept, &progress).await, quota_status, asynchronous);
    }
    match known.take() {
        Some(progress) => {
            applied(answers::of_progress(app, accept, &progress).await, standing_of(&progress), asynchronous)
        }
        None => applied(Problem::from(&Error::NoRecord).into_response(), None, asynchronous),
    }
}

fn applied(mut response: Response, quota_status: Option<QuotaStatus>, asynchronous: Asynchronous) -> Answered {
    if let Ok(value) = HeaderValue::from_str(&asynchronous.applied()) {
        response.headers_mut().insert("preference-applied", value);
    }
    (response, quota_status)
}

/// The generation that an Idempotency-Key stands for.
async fn watch(app: &Arc<App>, address: &Address) -> Result<watch::Receiver<Progress>, (Problem, Option<QuotaStatus>)> {
    let found = tokio::time::timeout(LOOK_WITHIN, app.generations.watch(address)).await;
    found.ok().and_then(Result::ok).flatten().ok_or_else(|| refused(&Error::NoRecord))
}

fn refused(error: &Error) -> (Problem, Option<QuotaStatus>) {
    (error.into(), error.quota_status())
}

/// How the caller stands once it has ended, or as it stood when it was accepted.
fn standing_of(progress: &Progress) -> Option<QuotaStatus> {
    match &progress.ended {
        Some(ended) if ended.result.is_err() || ended.quota_status.is_some() => ended.quota_status,
        _ => progress.accepted.as_ref().and_then(|accepted| accepted.quota_status),
    }
}

async fn read(app: &App, headers: &HeaderMap, caller: &Caller, watched: bool, body: Body) -> Result<Request, Problem> {
    let bytes = to_bytes(body, MAX_BODY_KIB * 1024).await.map_err(|_| Problem::too_large(MAX_BODY_KIB))?;
    let request = parse(&bytes)?;
    let Some(Value::String(prompt)) = request.get("prompt") else {
        return Err(Problem::invalid_request(
            "The request has no prompt. Send JSON such as {\"prompt\": \"a red fox\"}.",
        ));
    };
    let key = idempotency_key(headers)?;
    let (enhance_options, style) = enhance_options(app, &request)?;
    Ok(Request {
        prompt: prompt.clone(),
        enhance_options,
        options: ImageOptions {
            size: option(&request, "size")?,
            quality: option(&request, "quality")?,
            style,
            background: option(&request, "background")?,
            output_format: option(&request, "outputFormat")?,
            partial_images: partial_images(&request)?.filter(|_| watched).unwrap_or(0),
        },
        caller: caller.clone(),
        key: key.map(|key| app.generations.key(key, caller, &bytes)),
    })
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
fn enhance_options(app: &App, request: &Map<String, Value>) -> Result<(EnhanceOptions, Option<String>), Problem> {
    let style = option(request, "style")?;
    let preset = style.as_deref().and_then(enhance::named);
    let style = style.filter(|_| preset.is_none());
    if let Some(style) = &style
        && !DALL_E_STYLES.contains(&style.as_str())
    {
        let presets = enhance::STYLES.iter().map(|style| style.name);
        let names: Vec<&str> = DALL_E_STYLES.into_iter().chain(presets).collect();
        return Err(Problem::invalid_request(format!("style must be one of: {}.", names.join(", "))));
    }
    let enhancement = match option(request, "enhance")? {
        Some(wished) => PromptEnhancement::named(&wished)
            .ok_or_else(|| Problem::invalid_request("enhance must be one of: off, style, rewrite."))?,
        // Who names a preset wishes it.
        None if preset.is_some() && app.enhancement == PromptEnhancement::Off => PromptEnhancement::Style,
        None => app.enhancement,
    };
    Ok((EnhanceOptions { enhancement, style: preset }, style))
}

/// Two where nothing is said.
fn partial_images(request: &Map<String, Value>) -> Result<Option<u8>, Problem> {
    match request.get("partialImages") {
        None | Some(Value::Null) => Ok(Some(PARTIAL_IMAGES)),
        Some(count) => match count.as_u64().and_then(|count| u8::try_from(count).ok()).filter(|count| *count <= 3) {
            Some(count) => Ok(Some(count)),
            None => Err(Problem::invalid_request("partialImages must be a number from 0 to 3, or left out.")),
        },
    }
}

fn option(request: &Map<String, Value>, field: &str) -> Result<Option<String>, Problem> {
    match request.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Problem::invalid_request(format!("{field} must be a string, or left out."))),
    }
}
