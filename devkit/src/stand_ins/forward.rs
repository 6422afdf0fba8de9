//! Passes requests on, for the stand-ins before Azurite.

use anyhow::Context as _;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use axum::response::Response;

/// The most bytes of a request that is passed on.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// The answer of the service at `base`, such as `http://127.0.0.1:10000`, to this request.
pub(super) async fn pass_on(http: &reqwest::Client, base: &str, request: Request) -> anyhow::Result<Response> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().context("a request has no path")?;
    let upstream = http.request(parts.method.clone(), format!("{base}{path}"));
    let body = to_bytes(body, MAX_BODY).await?;
    let answer = upstream.headers(end_to_end(&parts.headers)).body(body).send().await?;
    let (status, mut headers) = (answer.status(), end_to_end(answer.headers()));
    // The length of an answer to HEAD does not follow from its body.
    if let Some(length) = answer.headers().get(header::CONTENT_LENGTH).filter(|_| parts.method == Method::HEAD) {
        headers.insert(header::CONTENT_LENGTH, length.clone());
    }
    let mut response = Response::new(Body::from(answer.bytes().await?));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    Ok(response)
}

/// Reads a request's body. Some clients fail if it is not read before the answer.
pub(super) async fn read(request: Request) {
    let _ = to_bytes(request.into_body(), MAX_BODY).await;
}

/// The headers without those that belong to one connection or follow from the body.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    headers
}
