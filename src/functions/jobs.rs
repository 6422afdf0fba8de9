//! `GET` and `DELETE /api/generateImage/jobs/{id}`: how a job stands, its events, and its end before
//! its time.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::accept;
use super::{events, generate_image};
use crate::app::App;
use crate::error::Problem;
use crate::generate::{self, Outcome};
use crate::jobs::{Cancelled, End, Job};
use crate::prompt::Prompt;
use crate::work;

pub(super) use crate::jobs::QUEUE;
/// Where the host puts what was delivered in vain.
pub(super) const POISON_QUEUE: &str = "visionary-jobs-poison";

/// In seconds: when another look is worth it.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");
/// Between looks at a job whose end is waited for; the first may come soon.
const FIRST_LOOK_AFTER: Duration = Duration::from_millis(250);
pub(super) const LOOKED_AFTER: Duration = Duration::from_secs(1);

pub(super) async fn look(State(app): State<Arc<App>>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let job = match work::look(&app, &id, (app.clock)()).await {
        Ok(Some(job)) => job,
        Ok(None) => return unknown().into_response(),
        Err(error) => return Problem::from(error).into_response(),
    };
    if accept::wants_events(&headers) && events::pass_through(&headers) {
        return events::of_job(app, id, super::invocation_id(&headers));
    }
    view(&app, &id, job, &super::invocation_id(&headers)).await
}

pub(super) async fn cancel(State(app): State<Arc<App>>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    match work::cancel(&app, &id).await {
        Ok(Cancelled::Yes(job)) => view(&app, &id, *job, &super::invocation_id(&headers)).await,
        Ok(Cancelled::TooLate) => Problem::new(
            StatusCode::CONFLICT,
            "job_has_begun",
            "This job has begun or ended, so it cannot be cancelled.",
        )
        .into_response(),
        Ok(Cancelled::Unknown) => unknown().into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

/// The address of a job.
pub(super) fn path(id: &str) -> String {
    format!("/api/generateImage/jobs/{id}")
}

/// 202: the work goes on, and the answer is to be fetched.
pub(super) fn accepted(id: &str, job: Option<&Job>) -> Response {
    let status = job.map_or("queued", Job::status);
    let estimate = job.and_then(|job| job.estimate);
    let body = json!({"id": id, "status": status, "statusUrl": path(id), "estimateSeconds": estimate});
    let mut response = super::json(&body);
    *response.status_mut() = StatusCode::ACCEPTED;
    if let Ok(location) = HeaderValue::from_str(&path(id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    response
}

/// Until the job has ended, that time is over, or the server stops: another process tells the rest.
pub(super) async fn wait_for_end(app: &Arc<App>, id: &str, wait: Duration) {
    let ended = async {
        let mut pause = FIRST_LOOK_AFTER;
        while !matches!(work::look(app, id, (app.clock)()).await, Ok(Some(Job { end: Some(_), .. }))) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOKED_AFTER);
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(wait, ended) => {}
        () = app.stopping.cancelled() => {}
    }
}

/// As the generation itself would have ended.
pub(super) async fn outcome(app: &App, prompt: Prompt, end: End) -> Result<Outcome, Problem> {
    match end {
        End::Stored(stored) => Ok(generate::linked(app, prompt, stored).await?),
        End::StoredLater { name } => Ok(Outcome::StoredLater { name }),
        End::Failed { trouble, .. } => Err(trouble.into()),
        End::Cancelled => {
            Err(Problem::new(StatusCode::CONFLICT, "job_cancelled", "The job was cancelled. Nothing was drawn."))
        }
    }
}

/// How a job stands.
async fn view(app: &App, id: &str, job: Job, invocation_id: &str) -> Response {
    // As fine as a picture's own.
    let created_at = job.created_at.replace_millisecond(job.created_at.millisecond()).unwrap_or(job.created_at);
    let created_at = created_at.format(&Rfc3339).unwrap_or_default();
    let mut body = json!({
        "id": id,
        "status": job.status(),
        "statusUrl": path(id),
        "createdAt": created_at,
        "elapsedSeconds": elapsed(&job, (app.clock)()),
        "estimateSeconds": job.estimate,
    });
    let goes_on = job.end.is_none();
    match job.end {
        None | Some(End::Cancelled) => {}
        Some(end) => match outcome(app, job.prompt, end).await {
            Ok(outcome) => body["result"] = generate_image::details(&outcome),
            Err(problem) => body["problem"] = super::document(&problem, invocation_id),
        },
    }
    let mut response = super::json(&body);
    if goes_on {
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
    }
    response
}

/// In whole seconds.
pub(super) fn elapsed(job: &Job, now: OffsetDateTime) -> Value {
    json!((now - job.created_at).whole_seconds().max(0))
}

fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", "There is no such job. Jobs are kept for 24 hours.")
}
