//! `POST /api/generateImage`:
//! `{prompt, size?, quality?, style?, enhance?, background?, outputFormat?, partialImages?}`.
//!
//! The caller waits for the answer, reads server-sent events, or gets a job. All three are the same
//! kind of generation and watch its progress in the same way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::accept::{self, Accept};
use super::body::{self, NotRead};
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

/// The time for an optional read of the records before an answer. It is short because Azure's front
/// end closes a request after 230 s.
const READ_WITHIN: Duration = Duration::from_secs(2);
/// The default number of partial images in an event stream.
const PARTIAL_IMAGES: u8 = 2;
/// In KiB. The longest prompt, 32,000 characters, fits even if each is written as two JSON escapes.
const MAX_BODY_KIB: usize = 400;

pub(super) async fn handle(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let caller = app.callers.identify(&headers);
    let (mut response, quota_status) = match respond(&app, &headers, &caller, body).await {
        Ok(answered) => answered,
        Err((problem, quota_status)) => (problem.into_response(), quota_status),
    };
    let now = (app.clock)();
    // The quota status is of no use if its day ended while the image was drawn.
    let mut quota_status = quota_status.filter(|quota_status| quota_status.resets_in(now).is_some());
    // After a 503, the records are probably still unreachable.
    if quota_status.is_none() && response.status() != StatusCode::SERVICE_UNAVAILABLE {
        let read = tokio::time::timeout(READ_WITHIN, app.generations.quota_status(&caller, Day::of(now)));
        quota_status = read.await.ok().and_then(Result::ok).flatten();
    }
    rate_limit::insert(response.headers_mut(), app.generations.daily_images(), quota_status, now);
    response
}

/// An answer and the caller's quota status, if it is known.
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
    let stream = is_watched.then(|| events::open(app, caller)).transpose().map_err(|problem| (problem, None))?;
    if let Some(asynchronous) = asynchronous {
        let accepted = app.generations.accept_job(request).await.map_err(|error| refused(&error))?;
        return Ok(respond_async(app, accept, caller, asynchronous, accepted, began).await);
    }
    let (mut progress, is_new) = match app.generations.admit(request).await.map_err(|error| refused(&error))? {
        Accepted::New(admitted) => (app.generations.start(*admitted), true),
        Accepted::Before(address) => (watch(app, &address).await?, false),
    };
    if let Some(stream) = stream {
        return Ok((events::respond(app, progress, is_new, stream, headers), None));
    }
    if is_new {
        let ended = progress.wait_for(|progress| progress.ended.is_some());
        let limit = app.sync_limit.saturating_sub(began.elapsed());
        if tokio::time::timeout(limit, ended).await.is_err() {
            // Only an accepted generation can be handed over, because it has no record before.
            let _ = progress.wait_for(|progress| progress.accepted.is_some() || progress.ended.is_some()).await;
        }
    }
    let progress = progress.borrow().clone();
    Ok((answers::of_progress(app, accept, &progress).await, quota_status_of(&progress)))
}

/// The answer to a request for a job: its outcome if it ends within `Prefer: wait`, else 202.
async fn respond_async(
    app: &Arc<App>,
    accept: Accept,
    caller: &Caller,
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
        // A request that waits holds its connection like an event stream, so it counts as one. Beyond the
        // limit it is answered at once.
        let slot = asynchronous.wait.and_then(|_| app.streams.take(caller));
        let wait = asynchronous.wait.filter(|_| slot.is_some()).unwrap_or_default().saturating_sub(began.elapsed());
        let ended = progress.wait_for(|progress| progress.ended.is_some());
        tokio::select! {
            _ = tokio::time::timeout(wait, ended) => {}
            // This process stops, so the caller must poll another process.
            () = app.generations.stopping.cancelled() => {}
        }
        let quota_status = known.as_ref().and_then(quota_status_of);
        let progress = progress.borrow().clone();
        return applied(answers::of_progress(app, accept, &progress).await, quota_status, asynchronous);
    }
    match known.take() {
        Some(progress) => {
            applied(answers::of_progress(app, accept, &progress).await, quota_status_of(&progress), asynchronous)
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

/// The progress of the generation that an Idempotency-Key belongs to.
async fn watch(app: &Arc<App>, address: &Address) -> Result<watch::Receiver<Progress>, (Problem, Option<QuotaStatus>)> {
    let found = tokio::time::timeout(READ_WITHIN, app.generations.watch(address)).await;
    found.ok().and_then(Result::ok).flatten().ok_or_else(|| refused(&Error::NoRecord))
}

fn refused(error: &Error) -> (Problem, Option<QuotaStatus>) {
    (error.into(), error.quota_status())
}

/// The caller's quota status after the end of a generation, or else after its acceptance.
fn quota_status_of(progress: &Progress) -> Option<QuotaStatus> {
    match &progress.ended {
        Some(ended) if ended.result.is_err() || ended.quota_status.is_some() => ended.quota_status,
        _ => progress.accepted.as_ref().and_then(|accepted| accepted.quota_status),
    }
}

/// Reads the body. A client may announce a body that is too large and wait for `100 (Continue)`. Such a body is refused
/// without reading, because reading would send `100 (Continue)`.
async fn read_body(app: &App, headers: &HeaderMap, caller: &Caller, body: Body) -> Result<Bytes, Problem> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > MAX_BODY_KIB * 1024) {
        if !headers.contains_key(EXPECT) {
            body::discard(body.into_data_stream()).await;
        }
        return Err(Problem::too_large(MAX_BODY_KIB));
    }
    let read = body::read(body, MAX_BODY_KIB * 1024, || app.slow_bodies.take(caller)).await;
    read.map_err(|not_read| match not_read {
        NotRead::TooLarge => Problem::too_large(MAX_BODY_KIB),
        NotRead::Late => Problem::invalid_request("The request's body did not arrive in time. Please send it again."),
        NotRead::Broken => {
            Problem::invalid_request("The request's body is incomplete or malformed. Please send it again.")
        }
        NotRead::NoSlot => {
            Problem::busy("Too many requests with slow or long bodies are arriving. Please try again in a moment.")
        }
    })
}

async fn read(app: &App, headers: &HeaderMap, caller: &Caller, watched: bool, body: Body) -> Result<Request, Problem> {
    let bytes = read_body(app, headers, caller, body).await?;
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

/// The Idempotency-Key: a quoted string
/// (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>), or the same without
/// quotes, as most clients send it.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let key = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if (1..=255).contains(&key.len()) && values.next().is_none() {
        Ok(Some(key))
    } else {
        Err(Problem::invalid_request(
            "Send one Idempotency-Key header of 1 to 255 ASCII characters, for example a UUID.",
        ))
    }
}

/// Parses the body as JSON and ignores Content-Type, because many front ends send a wrong one.
fn parse(body: &[u8]) -> Result<Map<String, Value>, Problem> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    match serde_json::from_slice(body) {
        Ok(Value::Object(request)) => Ok(request),
        Ok(_) | Err(_) => Err(Problem::invalid_request(
            "The request body is not a JSON object. Send JSON such as {\"prompt\": \"a red fox\"}.",
        )),
    }
}

/// Reads `enhance` and `style`. `style` names either a style preset or a style of dall-e, which is
/// returned separately.
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
        Some(name) => PromptEnhancement::named(&name)
            .ok_or_else(|| Problem::invalid_request("enhance must be one of: off, style, rewrite."))?,
        // A style preset has no effect without enhancement, so it implies `style`.
        None if preset.is_some() && app.enhancement == PromptEnhancement::Off => PromptEnhancement::Style,
        None => app.enhancement,
    };
    Ok((EnhanceOptions { enhancement, style: preset }, style))
}

/// The field `partialImages`: 0 to 3, by default [`PARTIAL_IMAGES`].
fn partial_images(request: &Map<String, Value>) -> Result<Option<u8>, Problem> {
    match request.get("partialImages") {
        None | Some(Value::Null) => Ok(Some(PARTIAL_IMAGES)),
        Some(count) => match count.as_u64().and_then(|count| u8::try_from(count).ok()).filter(|count| *count <= 3) {
            Some(count) => Ok(Some(count)),
            None => {
                Err(Problem::invalid_request("partialImages must be a whole number from 0 to 3. It can be omitted."))
            }
        },
    }
}

fn option(request: &Map<String, Value>, field: &str) -> Result<Option<String>, Problem> {
    match request.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Problem::invalid_request(format!("{field} must be a string. It can be omitted."))),
    }
}
