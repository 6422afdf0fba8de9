//! Serves requests, and passes them on to Azurite, for several stand-ins.

use anyhow::Context as _;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

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

/// A parameter of a query.
pub(super) fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let mut all = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    all.find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

/// Serves on a free port of 127.0.0.1, which is returned, until the sender is dropped.
pub(super) async fn serve(router: Router) -> anyhow::Result<(u16, oneshot::Sender<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("a stand-in cannot bind a port")?;
    let port = listener.local_addr()?.port();
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! { _ = axum::serve(listener, router) => {}, _ = stopped => {} }
    });
    Ok((port, stop))
}

/// The headers without those that belong to one connection or follow from the body.
fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    headers
}
