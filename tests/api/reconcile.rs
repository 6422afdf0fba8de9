//! The comparison of the gallery's index with the container, against a stand-in for the Blob service whose
//! listings have small pages and can end early.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Method, Request, Response, StatusCode};
use devkit::stand_ins::azurite::ACCOUNT;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::gallery::image_names;
use crate::harness::{Client, Setup, Visionary, azurite, eventually, now};
use crate::pages::{indexed_names, state};

/// Blobs on a page of the stand-in's listings.
const PAGE: usize = 3;

/// How the stand-in answers a request for a page of the listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    Whole,
    /// The connection ends in the middle of this page and of all later ones.
    CutAt(usize),
    /// The listing ends before this page, as if it were complete.
    ShortAt(usize),
}

/// A stand-in for the Blob service with one container. It panics on a request that the app does not send.
#[derive(Debug)]
struct Blobs {
    names: Mutex<BTreeSet<String>>,
    listing: Mutex<Listing>,
    /// The first blob of each page that was listed.
    listed: Mutex<Vec<usize>>,
}

impl Blobs {
    async fn start(names: impl IntoIterator<Item = String>) -> (Arc<Self>, u16) {
        let blobs = Arc::new(Self {
            names: Mutex::new(names.into_iter().collect()),
            listing: Mutex::new(Listing::Whole),
            listed: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&blobs));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (blobs, port)
    }

    fn set(&self, listing: Listing) {
        *self.listing.lock().unwrap() = listing;
    }

    fn listed(&self) -> Vec<usize> {
        self.listed.lock().unwrap().clone()
    }

    fn page(&self, marker: usize) -> Response<Body> {
        self.listed.lock().unwrap().push(marker);
        let listing = *self.listing.lock().unwrap();
        let names = self.names.lock().unwrap();
        let blobs: String = names
            .iter()
            .skip(marker)
            .take(PAGE)
            .map(|name| format!("<Blob><Name>{name}</Name><Metadata><prompt>of%20{name}</prompt></Metadata></Blob>"))
            .collect();
        let next = marker + PAGE;
        let is_last = next >= names.len() || listing == Listing::ShortAt(next / PAGE);
        let next = if is_last { String::new() } else { next.to_string() };
        let xml =
            format!("<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>");
        if matches!(listing, Listing::CutAt(page) if marker / PAGE >= page) {
            let half = bytes::Bytes::from(xml[..xml.len() / 2].to_owned());
            let parts = futures_util::stream::iter([Ok(half), Err(std::io::Error::other("the connection ends"))]);
            return response(StatusCode::OK, Body::from_stream(parts));
        }
        response(StatusCode::OK, Body::from(xml))
    }
}

fn response(status: StatusCode, body: Body) -> Response<Body> {
    let response = Response::builder().status(status).header("content-type", "application/xml");
    response.header("x-ms-error-code", if status == 404 { "BlobNotFound" } else { "" }).body(body).unwrap()
}

async fn answer(State(blobs): State<Arc<Blobs>>, request: Request<Body>) -> Response<Body> {
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()).into_owned().collect();
    let path = request.uri().path().splitn(4, '/').nth(3);
    let path = path.map(|path| percent_encoding::percent_decode_str(path).decode_utf8().unwrap().into_owned());
    match (request.method().clone(), path) {
        (Method::GET, None) => {
            assert_eq!(query.get("comp").map(String::as_str), Some("list"));
            blobs.page(query.get("marker").map_or(0, |marker| marker.parse().unwrap()))
        }
        (Method::HEAD, Some(name)) if blobs.names.lock().unwrap().contains(&name) => Response::builder()
            .header("content-length", "1")
            .header("content-type", "image/png")
            .header("last-modified", "Thu, 26 Nov 2026 01:00:00 GMT")
            .header("date", "Thu, 26 Nov 2026 01:00:00 GMT")
            .header("etag", "0x1")
            .header("x-ms-blob-type", "BlockBlob")
            .header("x-ms-creation-time", "Thu, 26 Nov 2026 01:00:00 GMT")
            .header("x-ms-lease-status", "unlocked")
            .header("x-ms-lease-state", "available")
            .header("x-ms-server-encrypted", "true")
            .header("x-ms-request-id", "00000000-0000-0000-0000-000000000000")
            .header("x-ms-version", "2022-11-02")
            .body(Body::empty())
            .unwrap(),
        // No blob has contents or a thumbnail.
        (Method::HEAD | Method::GET | Method::DELETE, Some(_)) => response(StatusCode::NOT_FOUND, Body::empty()),
        (method, path) => panic!("the app sent {method} {path:?} {query:?}"),
    }
}

fn blob(number: usize) -> String {
    format!("blob {number:02}_{}.png", 1_600_000_000_000 + number)
}

struct Parts {
    visionary: Visionary,
    blobs: Arc<Blobs>,
}

impl Parts {
    /// The app, whose blobs are these.
    async fn start(count: usize, handlers: usize) -> Self {
        Self::start_with(count, handlers, Listing::Whole).await
    }

    async fn start_with(count: usize, handlers: usize, listing: Listing) -> Self {
        let (blobs, port) = Blobs::start((0..count).map(blob)).await;
        blobs.set(listing);
        let real = azurite().connection_string();
        let before = format!(":{}/{ACCOUNT}", azurite().blob_port());
        let through = real.replace(&before, &format!(":{port}/{ACCOUNT}"));
        let setup = Setup { handlers, ..Setup::default() }.set("AzureWebJobsStorage", through);
        Self { visionary: setup.start().await, blobs }
    }

    async fn indexed(&self) -> BTreeSet<String> {
        let (account, container) = (self.visionary.setting("AzureWebJobsStorage"), self.container());
        indexed_names(&account, &container).await.into_iter().collect()
    }

    fn container(&self) -> String {
        self.visionary.setting("IMAGE_CONTAINER")
    }

    async fn has_indexed(&self, wanted: &BTreeSet<String>) {
        eventually("the index has these images", async || self.indexed().await, |found| found == wanted).await;
    }

    async fn state(&self) -> Value {
        state(&self.visionary.setting("AzureWebJobsStorage"), &self.container()).await
    }

    async fn is_complete(&self) {
        eventually("the index is complete", async || self.state().await, |state| state["complete"].is_object()).await;
    }

    /// Another process of the same app, which compares the index with the container at its start.
    async fn another(&self, after: Duration) -> Client {
        let now = now() + after;
        self.visionary.serve_at(now).await
    }
}

#[tokio::test]
async fn every_page_of_the_container_gets_its_rows() {
    let parts = Parts::start(20, 1).await;
    parts.is_complete().await;
    assert_eq!(parts.indexed().await, (0..20).map(blob).collect());
    let page = parts.visionary.get("/api/getImages?limit=2").await.json();
    assert_eq!(page["imageUrls"][0]["prompt"], format!("of {}", blob(19)));
}

#[tokio::test]
async fn two_processes_at_once_make_the_same_index() {
    let parts = Parts::start(20, 2).await;
    parts.is_complete().await;
    let all: BTreeSet<String> = (0..20).map(blob).collect();
    parts.has_indexed(&all).await;
    let (one, other) = (parts.visionary.handler(0), parts.visionary.handler(1));
    let [one, other] = [one.get("/api/getImages?limit=200").await, other.get("/api/getImages?limit=200").await];
    assert_eq!(image_names(&one.json()), (0..20).rev().map(blob).collect::<Vec<_>>());
    assert_eq!(one.body, other.body);
}

#[tokio::test]
async fn a_listing_that_ends_early_makes_no_image_disappear() {
    let parts = Parts::start(20, 1).await;
    parts.is_complete().await;
    let all: BTreeSet<String> = (0..20).map(blob).collect();
    for pages in [2, 5] {
        parts.blobs.set(Listing::ShortAt(pages));
        let _process = parts.another(Duration::from_secs(60)).await;
        let look = async || parts.state().await["complete"]["blobs"].clone();
        eventually("the short pass has ended", look, |blobs| *blobs == pages * PAGE).await;
        assert_eq!(parts.indexed().await, all);
    }
    parts.blobs.set(Listing::CutAt(3));
    let _process = parts.another(Duration::from_secs(120)).await;
    let look = async || parts.blobs.listed();
    let has_failed = |pages: &Vec<usize>| pages.iter().filter(|page| **page == 9).count() >= 4;
    eventually("a pass has failed in the middle, and again", look, has_failed).await;
    assert_eq!(parts.indexed().await, all);
}

#[tokio::test]
async fn only_the_row_of_a_blob_that_is_gone_is_removed() {
    let parts = Parts::start(20, 1).await;
    parts.is_complete().await;
    let gone: BTreeSet<String> = [blob(4), blob(17)].into();
    parts.blobs.names.lock().unwrap().retain(|name| !gone.contains(name));
    parts.blobs.names.lock().unwrap().insert(blob(50));

    let _process = parts.another(Duration::from_secs(60)).await;

    let wanted = (0..20).map(blob).filter(|name| !gone.contains(name)).chain([blob(50)]).collect();
    parts.has_indexed(&wanted).await;
}

/// The first process fails in the middle and dies. The next one, a minute later, goes on there.
#[tokio::test]
async fn a_pass_goes_on_where_a_dead_process_ended() {
    let parts = Parts::start_with(20, 1, Listing::CutAt(3)).await;
    let look = async || parts.blobs.listed();
    let has_failed = |pages: &Vec<usize>| pages.iter().filter(|page| **page == 9).count() >= 2;
    eventually("the pass has failed in the middle", look, has_failed).await;
    parts.visionary.host.kill_handler(0).await;
    assert_eq!(parts.state().await["complete"], Value::Null);
    let before = parts.blobs.listed().len();
    parts.blobs.set(Listing::Whole);

    let _process = parts.another(Duration::from_secs(60)).await;

    parts.is_complete().await;
    assert_eq!(parts.blobs.listed()[before..before + 4], [9, 12, 15, 18]);
    assert_eq!(parts.indexed().await, (0..20).map(blob).collect());
}
