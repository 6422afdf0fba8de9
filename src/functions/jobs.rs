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

use super::accept::{self, Accept};
use super::{events, generate_image};
use crate::app::App;
use crate::error::Problem;
use crate::generate::{Generated, Outcome};
use crate::jobs::{Cancelled, End, Job};
use crate::work;

pub(super) use crate::jobs::QUEUE;
/// Where the host puts what was delivered in vain.
pub(super) const POISON_QUEUE: &str = "visionary-jobs-poison";

/// In seconds: when another look is worth it.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");
/// While a request waits for the end of a job.
const FIRST_LOOK_AFTER: Duration = Duration::from_millis(250);
const LOOKED_AFTER: Duration = Duration::from_secs(1);

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
pub(super) async fn accepted(app: &Arc<App>, id: &str) -> Response {
    let job = work::look(app, id, (app.clock)()).await.ok().flatten();
    let status = job.as_ref().map_or("queued", Job::status);
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

/// What the request would have been answered, if the job ends within that time; else 202.
pub(super) async fn ended_within(app: &Arc<App>, accept: Accept, id: &str, wait: Duration) -> Response {
    let ended = async {
        let mut pause = FIRST_LOOK_AFTER;
        loop {
            if let Ok(Some(Job { prompt, end: Some(end), .. })) = work::look(app, id, (app.clock)()).await {
                return (prompt, end);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOKED_AFTER);
        }
    };
    let ended = tokio::select! {
        ended = tokio::time::timeout(wait, ended) => ended.ok(),
        // Another process, or the next one, tells the rest.
        () = app.stopping.cancelled() => None,
    };
    let Some((prompt, end)) = ended else { return accepted(app, id).await };
    match outcome(app, Job::new("", prompt, None, (app.clock)()), end).await {
        Ok(outcome) => generate_image::answer(app, accept, outcome).await,
        Err(problem) => problem.into_response(),
    }
}

/// As the generation itself would have ended.
pub(super) async fn outcome(app: &App, job: Job, end: End) -> Result<Outcome, Problem> {
    match end {
        End::Stored(stored) => {
            let url = app.gallery.link(&stored.name, (app.clock)()).await?;
            Ok(Outcome::Stored(Box::new(Generated { url, prompt: job.prompt, stored })))
        }
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
    let ended = job.end.clone();
    let goes_on = ended.is_none();
    match ended {
        None | Some(End::Cancelled) => {}
        Some(end) => match outcome(app, job, end).await {
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
