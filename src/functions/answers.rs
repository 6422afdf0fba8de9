//! Builds answers: text, JSON, problem documents, images and jobs.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::accept::Accept;
use crate::app::App;
use crate::error::{Code, Problem};
use crate::gallery::{ImageId, Stored};
use crate::generation::{Address, Drawn, Ended, Phase, Progress};
use crate::logs::chain;
use crate::prompt::Prompt;

/// The host's id of the invocation; every answer has it.
pub(super) const INVOCATION_ID: HeaderName = HeaderName::from_static("x-azure-functions-invocationid");
/// The stable error code.
pub(super) const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
/// The percent-encoded blob name of an image that is not uploaded yet. A text answer has no other
/// place for it.
const IMAGE_NAME: HeaderName = HeaderName::from_static("x-image-name");
/// The headers that a page of another origin may read
/// (<https://fetch.spec.whatwg.org/#http-access-control-expose-headers>). The platform answers preflight requests and
/// adds `Access-Control-Allow-Origin`, but names no header of the app. `*` would not do: browsers take it as the name
/// of a header when a request has cookies.
pub(super) const EXPOSED: HeaderValue = HeaderValue::from_static(
    "ETag, Link, Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, \
     X-Azure-Functions-InvocationId, X-Error-Code, X-Image-Name, X-Suggestion-Source",
);
const STORED_LATER: &str =
    "The image was drawn and is safe. It will appear in the gallery as soon as storage can be reached again.";
/// `Retry-After` for polling a job, in seconds.
pub(super) const LOOK_AGAIN_AFTER: HeaderValue = HeaderValue::from_static("2");

/// A text answer that must not be cached.
pub(super) fn text(body: impl Into<Body>) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (headers, body.into()).into_response()
}

/// A JSON answer that must not be cached.
pub(super) fn json(body: &impl serde::Serialize) -> Response {
    match serde_json::to_string(body) {
        Ok(body) => {
            let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
            (headers, body).into_response()
        }
        Err(_) => Problem::internal("an answer could not be written as JSON").into_response(),
    }
}

/// The problem document (RFC 9457).
pub(super) fn document(problem: &Problem, invocation_id: &str) -> Value {
    let mut body = json!({
        "type": "about:blank",
        "title": problem.code.status().canonical_reason(),
        "status": problem.code.status().as_u16(),
        "detail": problem.sentence,
        "code": problem.code,
        "invocationId": invocation_id,
    });
    if !problem.categories.is_empty() {
        body["categories"] = json!(problem.categories);
    }
    body
}

/// The invocation id: the last value of the host's header, because in forwarding mode a client's own
/// value comes before it. Without a valid value, a random id.
pub(super) fn invocation_id(headers: &HeaderMap) -> String {
    let id = headers.get_all(INVOCATION_ID).iter().next_back().and_then(|value| value.to_str().ok());
    match id {
        Some(id) if (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') => {
            id.to_owned()
        }
        _ => format!("{:032x}", fastrand::u128(..)),
    }
}

/// A drawn image, as an answer describes it.
pub(super) struct ImageAnswer {
    /// The JSON.
    pub(super) json: Value,
    /// The name that the image will have, if it has no link yet.
    later: Option<String>,
}

impl ImageAnswer {
    fn later(name: &str) -> Self {
        let json = json!({"code": Code::StoredLater, "name": name, "detail": STORED_LATER});
        Self { json, later: Some(name.to_owned()) }
    }
}

/// Describes an image.
///
/// # Errors
/// The generation failed.
pub(super) async fn image(app: &App, prompt: &Prompt, ended: &Ended) -> Result<ImageAnswer, Problem> {
    let stored = match &ended.result {
        Ok(Drawn::Stored(stored)) => stored,
        Ok(Drawn::StoredLater { name }) => return Ok(ImageAnswer::later(name)),
        Err(error) => return Err(error.into()),
    };
    let id = ImageId::of(&stored.name, None);
    match app.gallery.links_to(&stored.name, (app.clock)()).await {
        Ok((url, download_url)) => {
            let delete_token = app.gallery.delete_token(&id);
            let generated = Generated { id: id.as_str(), delete_token, url, download_url, prompt, stored };
            Ok(ImageAnswer { json: json!(generated), later: None })
        }
        Err(error) => {
            tracing::error!(
                event = "link_not_signed",
                cause = chain(&error),
                "an image is stored, but the app cannot sign a link to it; the answer says that it comes later"
            );
            Ok(ImageAnswer::later(&stored.name))
        }
    }
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Generated<'a> {
    /// The image's id, as in `/api/images/{id}`.
    id: &'a str,
    /// The token with which the caller deletes the image.
    delete_token: String,
    /// The read-only link.
    url: String,
    /// The read-only link with which a browser saves the image as a file.
    download_url: String,
    /// The prompt as the user typed it.
    prompt: &'a Prompt,
    #[serde(flatten)]
    stored: &'a Stored,
}

/// The answer to a request for an image: the outcome, or 202 while the generation is under way.
pub(super) async fn of_progress(app: &App, accept: Accept, progress: &Progress) -> Response {
    let Some(ended) = &progress.ended else { return accepted(progress) };
    if accept == Accept::Text && matches!(ended.result, Ok(Drawn::Stored(_))) {
        return text("Image uploaded successfully");
    }
    let image = match image(app, &progress.order.prompt, ended).await {
        Ok(image) => image,
        Err(problem) => return problem.into_response(),
    };
    let mut response = match accept {
        Accept::Json => json(&image.json),
        Accept::Text => text(STORED_LATER),
    };
    if let Some(name) = &image.later {
        // 202 and not an error: after an error, many callers would try again and pay for a second image.
        *response.status_mut() = StatusCode::ACCEPTED;
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC).to_string();
        response.headers_mut().insert(ERROR_CODE, HeaderValue::from_static(Code::StoredLater.as_str()));
        response.headers_mut().extend(HeaderValue::from_str(&name).map(|name| (IMAGE_NAME, name)));
    }
    response
}

/// 202 with the job's URL: the generation is under way.
fn accepted(progress: &Progress) -> Response {
    let address = &progress.order.address;
    let mut response = json(&json!({
        "id": address,
        "status": status(progress),
        "statusUrl": job_path(address),
        "estimateSeconds": progress.order.estimate,
    }));
    *response.status_mut() = StatusCode::ACCEPTED;
    if let Ok(location) = HeaderValue::from_str(&job_path(address)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response.headers_mut().insert(header::RETRY_AFTER, LOOK_AGAIN_AFTER);
    response
}

/// The path of a job.
pub(super) fn job_path(address: &Address) -> String {
    format!("/api/generateImage/jobs/{address}")
}

/// The job's `status`.
pub(super) fn status(progress: &Progress) -> &'static str {
    match progress.ended.as_ref().map(|ended| &ended.result) {
        Some(Ok(_)) => "done",
        Some(Err(crate::generation::Error::Cancelled)) => "cancelled",
        Some(Err(_)) => "failed",
        None => match progress.phase {
            Phase::Queued => "queued",
            Phase::Drawing => "drawing",
            Phase::Saving => "saving",
        },
    }
}
