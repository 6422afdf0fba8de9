//! The host's two modes of passing an HTTP request to the handler.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// The host's limit for a request body: 100 MiB.
const BODY_LIMIT: usize = 104_857_600;
const HOST_VERSION: &str = "4.1040.300";
const INVOCATION_ID: HeaderName = HeaderName::from_static("x-azure-functions-invocationid");
const VERSION: HeaderName = HeaderName::from_static("x-azure-functions-hostversion");
const MS_INVOCATION_ID: HeaderName = HeaderName::from_static("x-ms-invocation-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// Attempts to connect to the handler, over about two seconds.
const CONNECT_TRIES: u32 = 10;
const CONNECT_PAUSE: Duration = Duration::from_millis(200);
/// The app's functionTimeout of 10 minutes, plus one minute.
const FORWARDING_LIMIT: Duration = Duration::from_secs(11 * 60);

/// `enableProxyingHttpRequest`: streams request and answer, and drops the call when the client
/// disconnects.
pub(super) async fn proxy(request: Request, client: SocketAddr, port: u16, id: &str) -> Response {
    let (mut parts, body) = request.into_parts();
    if is_too_large(&parts) {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    let original_host = parts.headers.get(header::HOST).cloned();
    drop_hop_by_hop(&mut parts.headers);
    parts.headers.remove(header::FORWARDED);
    set(&mut parts.headers, header::HOST, &format!("127.0.0.1:{port}"));
    set(&mut parts.headers, FORWARDED_FOR, &client.ip().to_string());
    set(&mut parts.headers, HeaderName::from_static("x-forwarded-proto"), "http");
    if let Some(host) = original_host {
        parts.headers.insert(HeaderName::from_static("x-forwarded-host"), host);
    }
    set(&mut parts.headers, INVOCATION_ID, id);
    set(&mut parts.headers, VERSION, HOST_VERSION);
    set(&mut parts.headers, MS_INVOCATION_ID, id);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await;
    for _ in 1..CONNECT_TRIES {
        if stream.is_err() {
            tokio::time::sleep(CONNECT_PAUSE).await;
            stream = TcpStream::connect(("127.0.0.1", port)).await;
        }
    }
    let Ok(stream) = stream else { return StatusCode::BAD_GATEWAY.into_response() };
    match send(stream, Request::from_parts(parts, body)).await {
        Ok((response, connection)) => {
            let (mut parts, body) = response.into_parts();
            drop_hop_by_hop(&mut parts.headers);
            // The body owns the connection, so both end when the client disconnects.
            let body = body.into_data_stream().map(move |chunk| {
                let _ = &connection;
                chunk
            });
            Response::from_parts(parts, Body::from_stream(body))
        }
        Err(_) => StatusCode::BAD_GATEWAY.into_response(),
    }
}

/// `enableForwardingHttpRequest`: buffers request and answer. The call goes on when the client
/// disconnects.
pub(super) async fn forward(request: Request, client: SocketAddr, port: u16, id: &str) -> Response {
    let (mut parts, body) = request.into_parts();
    if is_too_large(&parts) {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    }
    let length = content_length(&parts.headers);
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let body = if length > 0 { body } else { bytes::Bytes::new() };
    drop_hop_by_hop(&mut parts.headers);
    let kept = [header::CONTENT_TYPE, header::CONTENT_LENGTH];
    let content: Vec<HeaderName> =
        parts.headers.keys().filter(|name| name.as_str().starts_with("content-")).cloned().collect();
    for name in content.iter().filter(|name| !kept.contains(name)) {
        parts.headers.remove(name);
    }
    // Azure's front end appends the client's address as the last entry.
    let before = parts.headers.get(FORWARDED_FOR).and_then(|value| value.to_str().ok());
    let addresses = before.map_or(client.to_string(), |before| format!("{before}, {client}"));
    set(&mut parts.headers, FORWARDED_FOR, &addresses);
    for (name, value) in [(INVOCATION_ID, id), (VERSION, HOST_VERSION)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            parts.headers.append(name, value);
        }
    }
    parts.uri = reencode(&collapse_dots(&parts.uri));
    // A separate task also runs to its end when the client disconnects and this future is dropped.
    let call = tokio::spawn(async move {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|_| ())?;
        let (response, _connection) =
            send(stream, Request::from_parts(parts, Body::from(body))).await.map_err(|_| ())?;
        let (mut parts, body) = response.into_parts();
        drop_hop_by_hop(&mut parts.headers);
        let body = to_bytes(body, usize::MAX).await.map_err(|_| ())?;
        Ok::<_, ()>(Response::from_parts(parts, Body::from(body)))
    });
    match tokio::time::timeout(FORWARDING_LIMIT, call).await {
        Ok(Ok(Ok(response))) => response,
        Ok(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Err(_) => StatusCode::GATEWAY_TIMEOUT.into_response(),
    }
}

/// The task of a connection. The task ends when the value is dropped.
struct Connection(JoinHandle<()>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn send(stream: TcpStream, mut request: Request) -> hyper::Result<(Response, Connection)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = Connection(tokio::spawn(async move {
        // `send_request` returns the connection's errors.
        let _ = connection.await;
    }));
    // An HTTP/1.1 request to an origin server has only path and query in its request line (RFC 9112, 3.2.1).
    *request.uri_mut() = request.uri().path_and_query().map_or_else(Uri::default, |path| Uri::from(path.clone()));
    *request.version_mut() = hyper::Version::HTTP_11;
    let response = sender.send_request(request).await?;
    Ok((response.map(Body::new), connection))
}

/// The path as the host rebuilds it in this mode: ASP.NET decodes the path once, and then .NET's `Uri`
/// takes `%2e%2e` for `..` and removes the segment before it.
fn collapse_dots(uri: &Uri) -> Uri {
    let mut kept: Vec<String> = Vec::new();
    for segment in uri.path().split('/').skip(1) {
        let decoded = segment.replace("%25", "%");
        match decoded.to_ascii_lowercase().replace("%2e", ".").as_str() {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment.to_owned()),
        }
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("/{}{query}", kept.join("/")).parse().unwrap_or_else(|_| uri.clone())
}

/// The query as the host rebuilds it: duplicate keys are joined by a comma, `?flag` becomes `flag=`, an
/// empty query is removed.
fn reencode(uri: &Uri) -> Uri {
    let mut joined: Vec<(String, String)> = Vec::new();
    for (key, value) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match joined.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => *values = format!("{values},{value}"),
            None => joined.push((key.into_owned(), value.into_owned())),
        }
    }
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(joined).finish();
    let text = if query.is_empty() { uri.path().to_owned() } else { format!("{}?{query}", uri.path()) };
    text.parse().unwrap_or_else(|_| uri.clone())
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn content_length(headers: &HeaderMap) -> usize {
    headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
}

fn is_too_large(parts: &Parts) -> bool {
    content_length(&parts.headers) > BODY_LIMIT
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}
