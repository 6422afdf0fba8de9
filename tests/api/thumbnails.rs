//! An image gets a thumbnail after its upload, and no image waits for it or fails with it.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use devkit::stand_ins::azurite::{ACCOUNT, KEY};
use devkit::stand_ins::faults::{Faults, Line};
use devkit::stand_ins::openai::{self, Painting};
use reqwest::Url;
use reqwest::header::HeaderMap;
use ring::hmac;
use time::Duration;
use time::format_description::well_known::Rfc3339;

use crate::harness::{Setup, Visionary, azurite, eventually, http, now, with_faults_before};

const THUMBNAILS: &str = "-thumbnails";

/// A URL of the app's container with this suffix, with a token that may do everything. The test signs it by itself.
pub(crate) fn url(visionary: &Visionary, suffix: &str, name: &str) -> Url {
    let container = format!("{}{suffix}", visionary.setting("IMAGE_CONTAINER"));
    let until = (now() + Duration::hours(1)).replace_nanosecond(0).unwrap().format(&Rfc3339).unwrap();
    let signed = format!("rdl\n\n{until}\n/blob/{ACCOUNT}/{container}\n\n\n\n2022-11-02\nc\n\n\n\n\n\n\n");
    let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_STANDARD.decode(KEY).unwrap());
    let signature = BASE64_STANDARD.encode(hmac::sign(&key, signed.as_bytes()).as_ref());
    let base = format!("http://127.0.0.1:{}/{ACCOUNT}/{container}/{name}", azurite().blob_port());
    let mut url = Url::parse(base.trim_end_matches('/')).unwrap();
    url.query_pairs_mut().extend_pairs([
        ("sv", "2022-11-02"),
        ("sp", "rdl"),
        ("sr", "c"),
        ("se", &until),
        ("sig", &signature),
    ]);
    url
}

/// The stored thumbnails: name, headers and bytes.
async fn stored(visionary: &Visionary) -> BTreeMap<String, (HeaderMap, bytes::Bytes)> {
    let mut stored = BTreeMap::new();
    for name in blobs(visionary, THUMBNAILS).await {
        let opened = http().get(url(visionary, THUMBNAILS, &name)).send().await.unwrap();
        stored.insert(name, (opened.headers().clone(), opened.bytes().await.unwrap()));
    }
    stored
}

/// The names of the blobs in the app's container with this suffix.
pub(crate) async fn blobs(visionary: &Visionary, suffix: &str) -> Vec<String> {
    let mut list = url(visionary, suffix, "");
    list.query_pairs_mut().extend_pairs([("restype", "container"), ("comp", "list")]);
    let answer = http().get(list).send().await.unwrap().text().await.unwrap();
    answer.split("<Name>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
}

/// Resolves when this many thumbnails are stored.
async fn until_stored(visionary: &Visionary, count: usize) -> BTreeMap<String, (HeaderMap, bytes::Bytes)> {
    let look = async || stored(visionary).await;
    eventually(&format!("{count} thumbnails are stored"), look, |stored| stored.len() == count).await
}

#[tokio::test]
async fn an_image_gets_a_thumbnail_named_by_its_id() {
    let openai = openai::Options { painting: Painting::Artist, ..openai::Options::default() };
    let visionary = Setup { openai, ..Setup::default() }.start().await;
    visionary.post_json(&serde_json::json!({"prompt": "a fox", "size": "1792x1024"})).send().await;
    let page = visionary.get("/api/getImages?limit=60").await.json();
    let id = page["imageUrls"][0]["id"].as_str().unwrap().to_owned();

    let (name, (headers, file)) = until_stored(&visionary, 1).await.pop_first().unwrap();

    assert_eq!(name, format!("{id}.jpg"));
    assert_eq!((&file[..3], &headers["content-type"]), (&[0xFF, 0xD8, 0xFF][..], &"image/jpeg".parse().unwrap()));
    assert_eq!(headers["cache-control"], "private, max-age=31536000, immutable");
    let numbers =
        ["width", "height", "thumbnail_width", "thumbnail_height"].map(|name| &headers[format!("x-ms-meta-{name}")]);
    assert_eq!(numbers, ["1792", "1024", "512", "293"]);
    assert!(BASE64_STANDARD.decode(&headers["x-ms-meta-placeholder"]).unwrap().len() > 15);
    assert_eq!(visionary.list().await.len(), 1, "the gallery lists no thumbnail");
}

#[tokio::test]
async fn each_of_40_images_at_once_gets_its_thumbnail() {
    let visionary = Setup::default().set("MAX_CONCURRENT_GENERATIONS", "40").start().await;
    let hold = visionary.hold_all_images();
    let requests: Vec<_> = (0..40).map(|_| visionary.post("a fox").spawn()).collect();
    hold.reached(40).await;
    hold.release();
    for request in requests {
        assert_eq!(request.await.unwrap().status, 200);
    }

    until_stored(&visionary, 40).await;

    let look = async || visionary.get("/api/getImages?limit=60").await.json()["imageUrls"].clone();
    let all_have_one = |images: &serde_json::Value| {
        images
            .as_array()
            .is_some_and(|images| images.len() == 40 && images.iter().all(|image| image["thumbnailUrl"].is_string()))
    };
    eventually("each image has a thumbnail", look, all_have_one).await;
}

#[tokio::test]
async fn an_image_whose_thumbnail_cannot_be_made_is_stored_and_listed() {
    let damaged = bytes::Bytes::from_static(b"\x89PNG\r\n\x1a\n and no more");
    let openai = openai::Options { painting: Painting::Fixed(damaged.clone()), ..openai::Options::default() };
    let visionary = Setup { openai, ..Setup::default() }.start().await;

    assert_eq!(visionary.generate("a fox").await.body, "Image uploaded successfully");

    let (_, url) = visionary.list().await.remove(0);
    assert_eq!(visionary.open(&url).await.bytes().await.unwrap(), damaged);
    let is_logged = |line: &devkit::stand_ins::host::LogLine| line.text.contains("thumbnail_not_stored");
    visionary.host.wait_for_log(is_logged).await;
    assert!(stored(&visionary).await.is_empty());
}

/// Draws an image. The line to the service on this port is cut before the image is there. Returns the status.
async fn drawn_before_a_cut(port: u16) -> (Faults, Visionary, u16) {
    let (faults, through) = with_faults_before(port).await;
    let visionary = Setup::default().set("AzureWebJobsStorage", through).start().await;
    let hold = visionary.hold_next_image();
    let request = visionary.post("a fox").spawn();
    hold.reached(1).await;
    faults.set(Line::Cut);
    hold.release();
    let status = request.await.unwrap().status;
    (faults, visionary, status)
}

#[tokio::test]
async fn an_image_that_is_stored_later_gets_its_thumbnail_then() {
    let (faults, visionary, status) = drawn_before_a_cut(azurite().blob_port()).await;
    assert_eq!(status, 202);
    assert!(stored(&visionary).await.is_empty());

    faults.set(Line::Whole);

    until_stored(&visionary, 1).await;
}

/// The process dies after the upload, before the thumbnail is stored and the record is written.
#[tokio::test]
async fn an_image_that_a_dead_process_stored_gets_its_thumbnail_from_the_sweep() {
    let (faults, visionary, status) = drawn_before_a_cut(azurite().table_port()).await;
    assert_eq!(status, 200);
    let (name, _) = until_stored(&visionary, 1).await.pop_first().unwrap();
    visionary.host.kill_handler(0).await;
    let removed = http().delete(url(&visionary, THUMBNAILS, &name)).send().await.unwrap();
    assert_eq!(removed.status(), 202);
    std::fs::remove_dir_all(visionary.setting("SPOOL_DIR")).unwrap();
    faults.set(Line::Whole);

    visionary.serve_at(now() + Duration::seconds(200)).await;

    assert!(until_stored(&visionary, 1).await.contains_key(&name));
}
