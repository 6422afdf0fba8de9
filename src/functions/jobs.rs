//! `GET /api/generateImage/jobs/{id}`: a job's state, as JSON or as server-sent events. `DELETE`:
//! cancels a job.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use time::format_description::well_known::Rfc3339;

use super::{accept, answers, events};
use crate::app::App;
use crate::error::{Code, Problem};
use crate::generation::{Address, Advanced, Error, Progress};

/// The id in the path. One that is not UTF-8 once decoded is a rejection.
type Id = Result<Path<String>, PathRejection>;

pub(super) async fn look(State(app): State<Arc<App>>, headers: HeaderMap, id: Id) -> Response {
    let Some(address) = parse(id) else { return unknown().into_response() };
    let progress = match app.generations.watch(&address).await {
        Ok(Some(progress)) => progress,
        Ok(None) => return unknown().into_response(),
        Err(error) => return Problem::from(error).into_response(),
    };
    if accept::wants_events(&headers) && events::pass_through(&headers) {
        return match events::open(&app, &app.callers.identify(&headers)) {
            Ok(stream) => events::respond(&app, progress, false, stream, &headers),
            Err(problem) => problem.into_response(),
        };
    }
    let progress = progress.borrow().clone();
    view(&app, &progress, &answers::invocation_id(&headers)).await
}

pub(super) async fn cancel(State(app): State<Arc<App>>, headers: HeaderMap, id: Id) -> Response {
    let Some(address) = parse(id) else { return unknown().into_response() };
    match app.generations.cancel(&address).await {
        Ok(Advanced::Done(cancelled)) => {
            view(&app, &Progress::of_record(&cancelled), &answers::invocation_id(&headers)).await
        }
        Ok(Advanced::Refused(..)) => {
            Problem::new(Code::JobHasBegun, "This job has already begun or ended, so it cannot be cancelled.")
                .into_response()
        }
        Ok(Advanced::Unknown) => unknown().into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

/// The state of a job as JSON.
async fn view(app: &App, progress: &Progress, invocation_id: &str) -> Response {
    let order = &progress.order;
    // Milliseconds, as in an image's `createdAt`.
    let created_at = order.created_at.replace_millisecond(order.created_at.millisecond()).unwrap_or(order.created_at);
    let mut body = json!({
        "id": order.address,
        "status": answers::status(progress),
        "statusUrl": answers::job_path(&order.address),
        "createdAt": created_at.format(&Rfc3339).unwrap_or_default(),
        "elapsedSeconds": ((app.clock)() - order.created_at).whole_seconds().max(0),
        "estimateSeconds": order.estimate,
    });
    if let Some(ended) = &progress.ended
        && !matches!(ended.result, Err(Error::Cancelled))
    {
        match answers::image(app, &order.prompt, ended).await {
            Ok(image) => body["result"] = image.json,
            Err(problem) => body["problem"] = answers::document(&problem, invocation_id),
        }
    }
    let mut response = answers::json(&body);
    if progress.ended.is_none() {
        response.headers_mut().insert(header::RETRY_AFTER, answers::LOOK_AGAIN_AFTER);
    }
    response
}

fn parse(id: Id) -> Option<Address> {
    let Path(id) = id.ok()?;
    Address::parse(&id)
}

fn unknown() -> Problem {
    Problem::new(Code::NotFound, "This job does not exist. Jobs are kept for 24 hours.")
}
