//! A large gallery: answers List Blobs for the whole container with invented blobs, and passes everything else
//! to Azurite, which needs minutes to take so many blobs and seconds to list them.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio::sync::oneshot;

use super::forward;

/// The blobs of a page, the most that Blob Storage returns
/// (<https://learn.microsoft.com/rest/api/storageservices/list-blobs>).
const PAGE: usize = 5_000;

/// A running stand-in. It ends when the value is dropped.
#[derive(Debug)]
pub struct Listing {
    port: u16,
    _stop: oneshot::Sender<()>,
}

struct Server {
    upstream: String,
    http: reqwest::Client,
    pages: Vec<Bytes>,
}

impl Listing {
    /// Starts a stand-in with `blobs` blobs before Azurite's blob service on the port `upstream`.
    ///
    /// # Errors
    /// Fails if no port can be bound.
    pub async fn before(upstream: u16, blobs: usize) -> anyhow::Result<Self> {
        let last = blobs.div_ceil(PAGE).max(1);
        let pages = (0..last).map(|number| page(number, blobs, number + 1 == last));
        let server = Server {
            upstream: format!("http://127.0.0.1:{upstream}"),
            http: reqwest::Client::new(),
            pages: pages.collect(),
        };
        let router = Router::new().fallback(answer).with_state(Arc::new(server));
        let (port, stop) = forward::serve(router).await?;
        Ok(Self { port, _stop: stop })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A page in the format of Blob Storage. The names and the properties have the length that real ones have.
fn page(number: usize, blobs: usize, is_last: bool) -> Bytes {
    let mut text =
        r#"<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="images"><Blobs>"#.to_owned();
    for blob in number * PAGE..blobs.min((number + 1) * PAGE) {
        text += &format!(
            "<Blob><Name>a red fox in the snow, number {blob:06}_{}.png</Name><Properties>\
             <Creation-Time>Tue, 14 Nov 2023 22:13:20 GMT</Creation-Time>\
             <Last-Modified>Tue, 14 Nov 2023 22:13:20 GMT</Last-Modified><Etag>0x8DBE56A1B2C3D4E</Etag>\
             <Content-Length>1500000</Content-Length><Content-Type>image/png</Content-Type>\
             <BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier><LeaseStatus>unlocked</LeaseStatus>\
             <LeaseState>available</LeaseState><ServerEncrypted>true</ServerEncrypted></Properties></Blob>",
            1_700_000_000_000 + blob
        );
    }
    let marker = if is_last { String::new() } else { format!("page-{}", number + 1) };
    text += &format!("</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>");
    text.into()
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let uri = request.uri().clone();
    let parameter = |name: &str| forward::parameter(&uri, name);
    if parameter("comp").as_deref() != Some("list") || parameter("prefix").is_some() {
        let answer = forward::pass_on(&server.http, &server.upstream, request).await;
        return answer.unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response());
    }
    if parameter("sig").is_none() && !request.headers().contains_key(header::AUTHORIZATION) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let number = parameter("marker").map_or(Some(0), |marker| marker.strip_prefix("page-")?.parse().ok());
    let page = number.and_then(|number: usize| server.pages.get(number));
    let is_container = parameter("restype").as_deref() == Some("container");
    match page.filter(|_| is_container && request.headers().contains_key("x-ms-version")) {
        Some(page) => ([(header::CONTENT_TYPE, "application/xml")], page.clone()).into_response(),
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}
