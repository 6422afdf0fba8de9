//! `POST /api/generateImage`:
//! `{prompt, size?, quality?, style?, enhance?, background?, outputFormat?, partialImages?}`.
//!
//! The caller waits for the answer, watches events, or takes a job; it is one and the same generation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot::error::RecvError;

use super::accept::{self, Accept};
use super::prefer::Asynchronous;
use super::{events, jobs, rate_limit};
use crate::app::App;
use crate::caller::Caller;
use crate::config::PromptEnhancement;
use crate::director::{self, Direction};
use crate::error::Problem;
use crate::generate::{self, Answered, Outcome, Request, Running};
use crate::jobs::Job;
use crate::logs::chain;
use crate::openai::{DALL_E_STYLES, Wishes};
use crate::quota::{self, Standing};
use crate::work;

/// Where a picture is going to be, percent-encoded: who reads text gets it, too.
const IMAGE_NAME: HeaderName = HeaderName::from_static("x-image-name");
/// For what an answer is better with, but not late: the platform's front end may be about to end it.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
const STORED_LATER: &str =
    "The image was drawn and is safe. It will appear in the gallery as soon as storage can be reached again.";
/// Unfinished pictures that are shown to who watches.
const PARTIAL_IMAGES: u8 = 2;
/// The longest prompt of any model fits, in any script.
const MAX_BODY_KIB: usize = 64;

pub(super) async fn handle(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let caller = app.callers.identify(&headers);
    let (mut response, standing) = respond(&app, &headers, &caller, body).await;
    let now = (app.clock)();
    let standing = match standing {
        // The day may have ended while the picture was drawn.
        Known::Standing(standing) if standing.resets_in(now).is_some() => Some(standing),
        // It was asked for a moment ago.
        Known::Unavailable => None,
        // An answer that has not counted: how the caller stands is found out for it alone.
        Known::Standing(_) | Known::Nothing => {
            let standing = tokio::time::timeout(LOOK_WITHIN, app.quota.standing(&caller, now));
            standing.await.ok().and_then(Result::ok).flatten()
        }
    };
    rate_limit::insert(response.headers_mut(), app.quota.daily_images(), standing, now);
    response
}

/// What is known of how the caller stands.
enum Known {
    Standing(Standing),
    Nothing,
    Unavailable,
}

async fn respond(app: &Arc<App>, headers: &HeaderMap, caller: &Caller, body: Body) -> (Response, Known) {
    let began = Instant::now();
    let accept = Accept::of(headers);
    let asynchronous = Asynchronous::of(headers);
    if asynchronous.is_some() && !app.jobs.can_queue() {
        return (jobs_unavailable().into_response(), Known::Nothing);
    }
    let watched = asynchronous.is_none() && accept::wants_events(headers) && events::pass_through(headers);
    let request = match read(app, headers, caller, watched, body).await {
        Ok(request) => request,
        Err(problem) => return (problem.into_response(), Known::Nothing),
    };
    if let Some(asynchronous) = asynchronous {
        let answered = work::accept(app, request).await;
        if let (Ok(Outcome::Job { id }), Some(wait)) = (&answered.result, asynchronous.wait) {
            jobs::wait_for_end(app, id, wait.saturating_sub(began.elapsed())).await;
        }
        let (response, known) = conclude(app, accept, answered).await;
        return (applied(response, asynchronous), known);
    }
    let mut running = match generate::start(app, request) {
        Ok(running) => running,
        Err(error) => return (Problem::from(error).into_response(), Known::Nothing),
    };
    if watched {
        return match events::of_generation(running, super::invocation_id(headers)).await {
            Ok(response) => (response, Known::Nothing),
            Err(answered) => conclude(app, accept, answered).await,
        };
    }
    let answered = match tokio::time::timeout(app.sync_limit, &mut running.answered).await {
        Ok(answered) => answered,
        Err(_) => hand_over(app, running).await,
    };
    conclude(app, accept, answered.unwrap_or_else(|_| generate::Error::Panicked.into())).await
}

/// How a request ended, in the form that the caller reads.
async fn conclude(app: &Arc<App>, accept: Accept, answered: Answered) -> (Response, Known) {
    let known = Known::of(&answered);
    let response = match answered.result {
        Ok(Outcome::Job { id }) => answer_job(app, accept, &id).await,
        Ok(outcome) => answer(accept, &outcome),
        Err(error) => Problem::from(error).into_response(),
    };
    (response, known)
}

impl Known {
    fn of(answered: &Answered) -> Self {
        match (&answered.result, answered.standing) {
            (_, Some(standing)) => Self::Standing(standing),
            (Err(generate::Error::Quota(quota::Error::Unavailable(_))), None) => Self::Unavailable,
            (_, None) => Self::Nothing,
        }
    }
}

/// A job, for a generation whose caller would be cut off.
async fn hand_over(app: &Arc<App>, running: Running) -> Result<Answered, RecvError> {
    match work::adopt(app, running).await {
        Ok(id) => Ok(Answered { result: Ok(Outcome::Job { id }), standing: None }),
        Err((error, running)) => {
            tracing::warn!(cause = chain(&error), "a generation that takes long could not be made a job");
            // It is not known as one, so its end is waited for.
            running.answered.await
        }
    }
}

fn applied(mut response: Response, asynchronous: Asynchronous) -> Response {
    if let Ok(value) = HeaderValue::from_str(&asynchronous.applied()) {
        response.headers_mut().insert("preference-applied", value);
    }
    response
}

fn jobs_unavailable() -> Problem {
    Problem::new(
        StatusCode::NOT_IMPLEMENTED,
        "jobs_unavailable",
        "Jobs need a queue: the operator should set AzureWebJobsStorage to a connection string with an account key. \
         Leave the Prefer header out.",
    )
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
            partial_images: partial_images(&request)?.filter(|_| watched).unwrap_or(0),
        },
        caller: caller.clone(),
        repeatable: key.map(|key| app.claims.repeatable(key, caller, &bytes)),
    })
}

fn answer(accept: Accept, outcome: &Outcome) -> Response {
    let (text, status) = match outcome {
        Outcome::Stored(_) => ("Image uploaded successfully", StatusCode::OK),
        // Not an error, which would invite a second, paid try. (A job is answered by `answer_job`.)
        Outcome::StoredLater { .. } | Outcome::Job { .. } => (STORED_LATER, StatusCode::ACCEPTED),
    };
    let mut response = match accept {
        Accept::Text => super::text(text),
        Accept::Json => super::json(&details(outcome)),
    };
    *response.status_mut() = status;
    if let Outcome::StoredLater { name } = outcome {
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
        response.headers_mut().insert(super::ERROR_CODE, HeaderValue::from_static("stored_later"));
        response.headers_mut().extend(HeaderValue::from_str(&name).map(|name| (IMAGE_NAME, name)));
    }
    response
}

/// A job that a request led to, now or the first time: its end, as the request's own would have been;
/// 202 until then.
async fn answer_job(app: &Arc<App>, accept: Accept, id: &str) -> Response {
    let look = tokio::time::timeout(LOOK_WITHIN, work::look(app, id, (app.clock)()));
    match look.await.ok().and_then(Result::ok).flatten() {
        Some(Job { prompt, end: Some(end), .. }) => match jobs::outcome(app, prompt, end).await {
            Ok(outcome) => answer(accept, &outcome),
            Err(problem) => problem.into_response(),
        },
        job => jobs::accepted(id, job.as_ref()),
    }
}

/// As JSON.
pub(super) fn details(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Stored(generated) => json!(generated),
        Outcome::StoredLater { name } => json!({"code": "stored_later", "name": name, "detail": STORED_LATER}),
        Outcome::Job { id } => json!({"id": id, "statusUrl": jobs::path(id)}),
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
        && !DALL_E_STYLES.contains(&style.as_str())
    {
        let presets = director::STYLES.iter().map(|style| style.name);
        let names: Vec<&str> = DALL_E_STYLES.into_iter().chain(presets).collect();
        return Err(Problem::invalid_request(format!("style must be one of: {}.", names.join(", "))));
    }
    let enhancement = match wish(request, "enhance")? {
        Some(wished) => PromptEnhancement::named(&wished)
            .ok_or_else(|| Problem::invalid_request("enhance must be one of: off, style, rewrite."))?,
        // Who names a preset wishes it.
        None if preset.is_some() && app.enhancement == PromptEnhancement::Off => PromptEnhancement::Style,
        None => app.enhancement,
    };
    Ok((Direction { enhancement, style: preset }, style))
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

fn wish(request: &Map<String, Value>, field: &str) -> Result<Option<String>, Problem> {
    match request.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Problem::invalid_request(format!("{field} must be a string, or left out."))),
    }
}
