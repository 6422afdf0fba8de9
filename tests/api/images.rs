//! One image: its details, its deletion by its creator or by the operator, and its restoration.

use std::time::Duration;

use bytes::Bytes;
use devkit::stand_ins::faults::Line;
use devkit::table::Tables;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::harness::{Answer, Setup, Visionary, azurite, eventually, http, masked, now};
use crate::thumbnails::blobs;

/// The answer of generateImage for a new image.
async fn draw(visionary: &Visionary, prompt: &str) -> Value {
    let answer = visionary.post(prompt).accept_json().send().await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn text<'a>(image: &'a Value, member: &str) -> &'a str {
    image[member].as_str().unwrap_or_else(|| panic!("no {member} in {image}"))
}

fn path(image: &Value) -> String {
    format!("/api/images/{}", text(image, "id"))
}

async fn details(visionary: &Visionary, image: &Value) -> Answer {
    visionary.request(Method::GET, &path(image)).accept_json().send().await
}

async fn delete(visionary: &Visionary, image: &Value, token: &str) -> Answer {
    let request = visionary.request(Method::DELETE, &path(image));
    request.header("x-delete-token", token).accept_json().send().await
}

async fn restore(visionary: &Visionary, image: &Value) -> Answer {
    let request = visionary.request(Method::POST, &format!("{}/restore", path(image)));
    request.header("x-delete-token", text(image, "deleteToken")).accept_json().send().await
}

async fn status_of(url: &str) -> u16 {
    http().get(url).send().await.expect("the link answers").status().as_u16()
}

/// The link to an image's thumbnail, which is made after the upload.
async fn thumbnail(visionary: &Visionary, image: &Value) -> String {
    let look = async || details(visionary, image).await.json();
    let found = eventually("the image has a thumbnail", look, |details| details["thumbnailUrl"].is_string()).await;
    text(&found, "thumbnailUrl").to_owned()
}

#[tokio::test]
async fn an_image_has_details_with_its_whole_prompt_and_a_download_link() {
    let visionary = Visionary::start().await;
    let prompt = "a fox in the snow ".repeat(30);
    let image = draw(&visionary, &prompt).await;
    thumbnail(&visionary, &image).await;

    let details = details(&visionary, &image).await;

    assert_eq!(details.status, 200, "{}", details.body);
    let details = details.json();
    assert_eq!((text(&details, "prompt"), &details["name"]), (prompt.trim(), &image["name"]));
    let download = visionary.open(text(&details, "downloadUrl")).await;
    assert_eq!(
        (download.status().as_u16(), download.headers()["content-disposition"].to_str().unwrap()),
        (200, "attachment")
    );
    let volatile = [
        "id",
        "url",
        "name",
        "createdAt",
        "thumbnailUrl",
        "downloadUrl",
        "placeholder",
        "prompt",
        "finalPrompt",
        "bytes",
    ];
    insta::assert_json_snapshot!(masked(details, &volatile), @r#"
    {
      "bytes": "[bytes]",
      "contentType": "image/png",
      "createdAt": "[createdAt]",
      "downloadUrl": "[downloadUrl]",
      "enhancement": "off",
      "finalPrompt": "[finalPrompt]",
      "height": 32,
      "id": "[id]",
      "model": "gpt-image-2.5-flare",
      "name": "[name]",
      "placeholder": "[placeholder]",
      "prompt": "[prompt]",
      "quality": "medium",
      "size": "1024x1024",
      "thumbnailHeight": 32,
      "thumbnailUrl": "[thumbnailUrl]",
      "thumbnailWidth": 32,
      "url": "[url]",
      "width": 32
    }
    "#);
    for unknown in ["0".repeat(46), format!("8299999999999-{}", "0".repeat(32))] {
        assert_eq!(visionary.get(&format!("/api/images/{unknown}")).await.status_and_code(), (404, "not_found"));
    }
}

#[tokio::test]
async fn a_deleted_image_is_gone_at_once_and_comes_back_when_it_is_restored() {
    let visionary = Visionary::start().await;
    let (image, other) = (draw(&visionary, "a fox").await, draw(&visionary, "an owl").await);
    let thumbnail = thumbnail(&visionary, &image).await;
    for token in ["", "0", text(&other, "deleteToken")] {
        assert_eq!(delete(&visionary, &image, token).await.status_and_code(), (403, "delete_token_refused"));
    }
    assert_eq!(status_of(text(&image, "url")).await, 200);

    let deleted = delete(&visionary, &image, text(&image, "deleteToken")).await;

    assert_eq!(deleted.status, 200, "{}", deleted.body);
    insta::assert_json_snapshot!(masked(deleted.json(), &["id", "restorableUntil"]), @r#"
    {
      "id": "[id]",
      "restorableUntil": "[restorableUntil]"
    }
    "#);
    assert_eq!((status_of(text(&image, "url")).await, status_of(&thumbnail).await), (404, 404));
    assert_eq!(details(&visionary, &image).await.status_and_code(), (404, "not_found"));
    assert_eq!(visionary.list().await.len(), 1);
    let page = visionary.get("/api/getImages?limit=60").await.json();
    assert_eq!((page["imageUrls"].as_array().unwrap().len(), &page["imageUrls"][0]["id"]), (1, &other["id"]));
    let again = delete(&visionary, &image, text(&image, "deleteToken")).await;
    assert_eq!(again.json(), deleted.json(), "a repeated deletion changes nothing");

    let restored = restore(&visionary, &image).await;

    assert_eq!((restored.status, &restored.json()["name"]), (200, &image["name"]), "{}", restored.body);
    assert_eq!((status_of(text(&image, "url")).await, status_of(&thumbnail).await), (200, 200));
    let page = visionary.get("/api/getImages?limit=60").await.json();
    assert_eq!((page["imageUrls"].as_array().unwrap().len(), &page["imageUrls"][1]["id"]), (2, &image["id"]));
    assert_eq!(restore(&visionary, &image).await.status_and_code(), (404, "not_found"));
    assert_eq!(restore(&visionary, &other).await.status_and_code(), (404, "not_found"));
}

#[tokio::test]
async fn a_pass_over_the_container_brings_no_deleted_image_back() {
    let mut visionary = Visionary::start().await;
    let (image, _) = (draw(&visionary, "a fox").await, draw(&visionary, "an owl").await);
    delete(&visionary, &image, text(&image, "deleteToken")).await;

    visionary.host.kill_handler(0).await;
    visionary.host.start_handler(0).await.unwrap();

    let page = visionary.get("/api/getImages?limit=60").await.json();
    assert_eq!(page["imageUrls"].as_array().unwrap().len(), 1, "{page}");
}

#[tokio::test]
async fn after_the_undo_time_a_deleted_image_is_purged() {
    let visionary = Setup::default().set("DELETE_UNDO_SECONDS", "30").start().await;
    let image = draw(&visionary, "a fox").await;
    let (metadata, bytes) = file(&visionary, &image).await;
    delete(&visionary, &image, text(&image, "deleteToken")).await;
    // A process has stored it again from its spool, and died then.
    upload(&visionary, text(&image, "name"), &metadata, bytes).await;

    let later = visionary.serve_at(now() + Duration::from_secs(300)).await;

    let restored = later.request(Method::POST, &format!("{}/restore", path(&image)));
    let restored = restored.header("x-delete-token", text(&image, "deleteToken")).accept_json().send().await;
    assert_eq!(restored.status_and_code(), (404, "not_found"));
    let look = async || blobs(&visionary, "-deleted").await;
    eventually("the private container is empty", look, |names| names.is_empty()).await;
    assert_eq!(status_of(text(&image, "url")).await, 404);
}

/// Writes the row that a process leaves when it dies while it moves an image: `more` comes to the columns that each row has.
async fn leave_row(visionary: &Visionary, image: &Value, stage: &str, more: &[(&str, OffsetDateTime)]) {
    let container = visionary.setting("IMAGE_CONTAINER");
    let mut row = json!({
        "PartitionKey": format!("{container}_deleted"), "RowKey": image["id"], "Name": image["name"], "Stage": stage,
        "RestorableUntil": "2026-11-01T00:00:00Z",
    });
    for (name, time) in more {
        row[*name] = json!(time.format(&Rfc3339).unwrap());
    }
    if !more.is_empty() {
        row["ClaimedBy"] = json!("another process");
    }
    let tables = Tables::of(&azurite().connection_string()).unwrap();
    tables.insert("visionaryimages", &[row]).await.unwrap();
}

async fn has_deleted_rows(visionary: &Visionary) -> bool {
    let filter = format!("PartitionKey eq '{}_deleted'", visionary.setting("IMAGE_CONTAINER"));
    let tables = Tables::of(&azurite().connection_string()).unwrap();
    tables.has_rows("visionaryimages", &filter).await.unwrap()
}

#[tokio::test]
async fn a_restoration_whose_process_died_is_finished_in_the_background() {
    let mut visionary = Visionary::start().await;
    let image = draw(&visionary, "a fox").await;
    let thumbnail = thumbnail(&visionary, &image).await;
    leave_row(&visionary, &image, "restoring", &[]).await;

    visionary.host.kill_handler(0).await;
    visionary.host.start_handler(0).await.unwrap();

    eventually("the row is removed", async || has_deleted_rows(&visionary).await, |has_rows| !has_rows).await;
    assert_eq!((status_of(text(&image, "url")).await, status_of(&thumbnail).await), (200, 200));
    assert!(details(&visionary, &image).await.json()["thumbnailUrl"].is_string());
}

#[tokio::test]
async fn an_image_whose_restoration_ended_half_way_can_be_deleted_and_restored_again() {
    let visionary = Visionary::start().await;
    let image = draw(&visionary, "a fox").await;
    leave_row(&visionary, &image, "restoring", &[]).await;

    let deleted = delete(&visionary, &image, text(&image, "deleteToken")).await;
    assert_eq!((deleted.status, status_of(text(&image, "url")).await), (200, 404), "{}", deleted.body);

    assert_eq!(restore(&visionary, &image).await.status, 200, "it has a new undo time");
    assert_eq!(status_of(text(&image, "url")).await, 200);
}

/// The undo time of such an image may be over when the next process finds it.
#[tokio::test]
async fn a_deletion_whose_process_died_is_finished_and_leaves_the_whole_undo_time() {
    let mut visionary = Visionary::start().await;
    let image = draw(&visionary, "a fox").await;
    leave_row(&visionary, &image, "deleting", &[]).await;

    visionary.host.kill_handler(0).await;
    visionary.host.start_handler(0).await.unwrap();

    let look = async || details(&visionary, &image).await.status;
    eventually("the image is deleted", look, |status| *status == 404).await;
    let look = async || restore(&visionary, &image).await.status;
    eventually("the image is restored", look, |status| *status == 200).await;
    assert_eq!(status_of(text(&image, "url")).await, 200);
}

#[tokio::test]
async fn an_image_that_another_process_moves_is_storage_unavailable_until_its_claim_ends() {
    let visionary = Visionary::start().await;
    let (claimed, left) = (draw(&visionary, "a fox").await, draw(&visionary, "an owl").await);
    leave_row(&visionary, &claimed, "deleting", &[("ClaimedUntil", now() + Duration::from_secs(3600))]).await;
    leave_row(&visionary, &left, "deleting", &[("ClaimedUntil", now() - Duration::from_secs(1))]).await;

    let (refused, deleted) = tokio::join!(
        delete(&visionary, &claimed, text(&claimed, "deleteToken")),
        delete(&visionary, &left, text(&left, "deleteToken")),
    );

    assert_eq!((refused.status_and_code(), deleted.status), ((503, "storage_unavailable"), 200));
    let until = OffsetDateTime::parse(text(&deleted.json(), "restorableUntil"), &Rfc3339).unwrap();
    assert!(until > now(), "it has its whole undo time: {until}");
    assert_eq!((status_of(text(&claimed, "url")).await, status_of(text(&left, "url")).await), (200, 404));
}

/// An image's file, with the headers that store it with the same metadata.
async fn file(visionary: &Visionary, image: &Value) -> (HeaderMap, Bytes) {
    let answer = visionary.open(text(image, "url")).await;
    let is_metadata = |name: &HeaderName| name.as_str().starts_with("x-ms-meta-") || name == "content-type";
    let headers = answer.headers().clone().into_iter();
    let metadata = headers.filter_map(|(name, value)| Some((name.filter(is_metadata)?, value))).collect();
    (metadata, answer.bytes().await.unwrap())
}

/// Uploads a file with the token of generateSASToken, as any program may.
async fn upload(visionary: &Visionary, name: &str, metadata: &HeaderMap, bytes: Bytes) {
    let answer = visionary.request(Method::GET, "/api/generateSASToken").accept_json().send().await.json();
    let (container, token) = (text(&answer, "containerUrl"), text(&answer, "sasToken"));
    let put = http().put(format!("{container}/{}?{token}", name.replace(' ', "%20"))).headers(metadata.clone());
    let put = put.header("x-ms-blob-type", "BlockBlob").body(bytes).send().await.unwrap();
    assert_eq!(put.status(), 201);
}

#[tokio::test]
async fn an_image_with_the_name_of_a_deleted_one_is_kept_and_so_is_the_deleted_one() {
    let mut visionary = Visionary::start().await;
    let image = draw(&visionary, "a fox").await;
    assert_eq!(delete(&visionary, &image, text(&image, "deleteToken")).await.status, 200);
    upload(&visionary, text(&image, "name"), &HeaderMap::new(), Bytes::from_static(b"another image")).await;
    visionary.host.kill_handler(0).await;
    visionary.host.start_handler(0).await.unwrap();
    let look = async || details(&visionary, &image).await.status;
    eventually("a pass has added the other image", look, |status| *status == 200).await;

    assert_eq!(restore(&visionary, &image).await.status_and_code(), (409, "name_taken"));
    let deleted = delete(&visionary, &image, text(&image, "deleteToken")).await;

    assert_eq!(deleted.status_and_code(), (409, "name_taken"));
    assert_eq!(visionary.open(text(&image, "url")).await.bytes().await.unwrap(), "another image");
    assert_eq!(blobs(&visionary, "-deleted").await.len(), 1);
}

#[tokio::test]
async fn an_operator_deletes_and_restores_any_image_with_the_function_key() {
    let setup = Setup { keys: vec!["key".to_owned()], ..Setup::default() };
    let visionary = setup.start().await;
    let image = draw(&visionary, "a fox").await;
    let managed = format!("/api/manage/images/{}", text(&image, "id"));
    assert_eq!(visionary.request(Method::DELETE, &managed).send().await.status, 401);

    let deleted = visionary.request(Method::DELETE, &format!("{managed}?code=key")).send().await;
    assert_eq!((deleted.status, status_of(text(&image, "url")).await), (200, 404), "{}", deleted.body);

    let restored = visionary.request(Method::POST, &format!("{managed}/restore?code=key")).send().await;
    assert_eq!((restored.status, status_of(text(&image, "url")).await), (200, 200), "{}", restored.body);
}

#[tokio::test]
async fn a_deletion_that_storage_interrupts_is_finished_in_the_background() {
    let visionary = Setup { lines: true, ..Setup::default() }.start().await;
    let image = draw(&visionary, "a fox").await;
    let lines = visionary.lines.as_ref().unwrap();
    lines.blobs.set(Line::Refused);
    let deleted = delete(&visionary, &image, text(&image, "deleteToken")).await;
    assert_eq!(deleted.status_and_code(), (503, "storage_unavailable"));

    lines.blobs.set(Line::Whole);

    let look = async || details(&visionary, &image).await.status;
    eventually("the image is deleted", look, |status| *status == 404).await;
    assert_eq!(restore(&visionary, &image).await.status, 200);
}

/// Another process of the same app, with a spool and lines of its own.
async fn another(visionary: &Visionary) -> Visionary {
    Setup::default().set("IMAGE_CONTAINER", visionary.setting("IMAGE_CONTAINER")).start().await
}

#[tokio::test]
async fn a_restoration_waits_for_the_deletion_of_another_process() {
    let slow = Setup { lines: true, ..Setup::default() }.start().await;
    let fast = another(&slow).await;
    let image = draw(&slow, "a fox").await;
    let thumbnail = thumbnail(&slow, &image).await;
    slow.lines.as_ref().unwrap().blobs.set(Line::Slow(Duration::from_millis(300)));
    let request = slow.request(Method::DELETE, &path(&image)).header("x-delete-token", text(&image, "deleteToken"));
    let deleting = request.accept_json().spawn();
    eventually("the deletion has begun", async || has_deleted_rows(&slow).await, |has_rows| *has_rows).await;

    let restored = restore(&fast, &image).await;

    assert_eq!((deleting.await.unwrap().status, restored.status), (200, 200), "{}", restored.body);
    assert_eq!((status_of(text(&image, "url")).await, status_of(&thumbnail).await), (200, 200));
    assert!(details(&fast, &image).await.json()["thumbnailUrl"].is_string());
    assert!(blobs(&fast, "-deleted").await.is_empty(), "nothing is left in the private container");
    assert!(!has_deleted_rows(&slow).await, "no row of a deleted image is left");
}

/// A process dies between the answer and the end of its generation, and its image is deleted before the next process
/// reads its spool.
#[tokio::test]
async fn recovery_brings_no_deleted_image_back() {
    let mut died = Setup { lines: true, ..Setup::default() }.start().await;
    let (lines, hold) = (died.lines.as_ref().unwrap(), died.hold_next_image());
    let request = died.post("a fox").accept_json().spawn();
    hold.reached(1).await;
    lines.tables.set(Line::Cut);
    hold.release();
    let image = request.await.unwrap().json();
    died.host.kill_handler(0).await;
    assert_eq!(died.spool().len(), 1);
    let (metadata, bytes) = file(&died, &image).await;
    // The first pass of another process adds the image to the index.
    let other = another(&died).await;
    let look = async || delete(&other, &image, text(&image, "deleteToken")).await.status;
    eventually("the image is deleted", look, |status| *status == 200).await;
    // A third process has stored it again from the spool, and died then.
    upload(&other, text(&image, "name"), &metadata, bytes).await;

    died.lines.as_ref().unwrap().tables.set(Line::Whole);
    died.host.start_handler(0).await.unwrap();

    eventually("the spool is empty", async || died.spool(), |files| files.is_empty()).await;
    assert_eq!(status_of(text(&image, "url")).await, 404);
    assert_eq!(details(&other, &image).await.status_and_code(), (404, "not_found"));
    assert_eq!(restore(&other, &image).await.status, 200);
    assert_eq!(status_of(text(&image, "url")).await, 200);
}

#[tokio::test]
async fn an_image_in_the_spool_is_stored_even_while_the_table_is_away() {
    let mut visionary = Setup { lines: true, ..Setup::default() }.start().await;
    let lines = visionary.lines.as_ref().unwrap();
    lines.blobs.set(Line::Refused);
    let answer = visionary.post("a fox").accept_json().send().await;
    assert_eq!(answer.status_and_code(), (202, "stored_later"));
    lines.tables.set(Line::Refused);

    lines.blobs.set(Line::Whole);
    visionary.host.kill_handler(0).await;
    visionary.host.start_handler(0).await.unwrap();

    let look = async || blobs(&visionary, "").await;
    eventually("the image is in the container", look, |names| names.len() == 1).await;
    assert_eq!(visionary.spool().len(), 1, "it is kept until it is known whether the image was deleted");
    visionary.lines.as_ref().unwrap().tables.set(Line::Whole);
    eventually("the spool is empty", async || visionary.spool(), |files| files.is_empty()).await;
    assert_eq!(blobs(&visionary, "").await.len(), 1);
}

#[tokio::test]
async fn images_older_than_ttl_days_are_deleted_in_the_background() {
    let visionary = Setup::default().set("TTL_DAYS", "30").start().await;
    let image = draw(&visionary, "a fox").await;

    let later = visionary.serve_at(now() + Duration::from_secs(31 * 24 * 60 * 60)).await;

    let look = async || later.get("/api/getImages?limit=60").await.json();
    eventually("the old image is deleted", look, |page| page["imageUrls"] == json!([])).await;
    assert_eq!(later.get(&path(&image)).await.status, 404);
}

/// An image that somebody uploads with the token of generateSASToken has no metadata and no thumbnail.
#[tokio::test]
async fn an_image_of_another_program_gets_a_size_and_a_thumbnail_after_the_next_pass() {
    let mut visionary = Visionary::start().await;
    let image = draw(&visionary, "a fox").await;
    let bytes = visionary.open(text(&image, "url")).await.bytes().await.unwrap();
    upload(&visionary, "foreign.png", &HeaderMap::new(), bytes).await;

    visionary.host.kill_handler(0).await;
    visionary.host.start_handler(0).await.unwrap();

    let look = async || visionary.get("/api/getImages?limit=60").await.json()["imageUrls"].clone();
    let has_thumbnail = |images: &Value| {
        let images = images.as_array().map(Vec::as_slice).unwrap_or_default();
        images.iter().any(|image| image["name"] == "foreign.png" && image["thumbnailUrl"].is_string())
    };
    let images = eventually("the foreign image has a thumbnail", look, has_thumbnail).await;
    let foreign = images.as_array().unwrap().iter().find(|image| image["name"] == "foreign.png").unwrap();
    assert_eq!((&foreign["width"], &foreign["height"]), (&json!(32), &json!(32)));
    assert_eq!(status_of(text(foreign, "thumbnailUrl")).await, 200);
}
