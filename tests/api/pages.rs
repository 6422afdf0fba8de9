//! Pages of the gallery, and the index from which they are read.

use std::collections::BTreeSet;
use std::io::Read as _;

use devkit::stand_ins::faults::{Faults, Line};
use devkit::table::Tables;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::gallery::{blob, image_names, put, put_all};
use crate::harness::{Answer, Setup, Visionary, caption, eventually, masked};

const TABLE: &str = "visionaryimages";

fn account(visionary: &Visionary) -> String {
    visionary.azurite.as_ref().expect("an account of its own").connection_string()
}

fn tables(visionary: &Visionary) -> Tables {
    Tables::of(&account(visionary)).unwrap()
}

/// The names in the index of a container, newest first.
pub(crate) async fn indexed_names(account: &str, container: &str) -> Vec<String> {
    let filter = format!("PartitionKey gt '{container}_' and PartitionKey lt '{container}_:'");
    let rows = Tables::of(account).unwrap().rows(TABLE, &filter).await.unwrap();
    rows.iter().map(|row| row["Name"].as_str().unwrap().to_owned()).collect()
}

/// The state of the index of a container; null if there is none.
pub(crate) async fn state(account: &str, container: &str) -> Value {
    let filter = format!("PartitionKey eq '{container}_state'");
    let rows = Tables::of(account).unwrap().rows(TABLE, &filter).await.unwrap();
    rows.first().map_or(Value::Null, |row| serde_json::from_str(row["Data00"].as_str().unwrap()).unwrap())
}

async fn indexed(visionary: &Visionary) -> Vec<String> {
    indexed_names(&account(visionary), &visionary.setting("IMAGE_CONTAINER")).await
}

/// Adds rows without blobs to a complete index: the numbers of [`blob`], each a minute newer than the last.
async fn seed(visionary: &Visionary, count: usize) {
    let container = visionary.setting("IMAGE_CONTAINER");
    let row = |number: usize| {
        let ms = 1_600_000_000_000 + 60_000 * number as u64;
        json!({
            "PartitionKey": format!("{container}_{:06}", 999_999 - ms / 86_400_000),
            "RowKey": format!("{:013}-{number:032x}", 9_999_999_999_999 - ms),
            "Name": blob(number), "Prompt": format!("number {number}"), "Width": "1024", "Height": "1536",
        })
    };
    let rows: Vec<Value> = (0..count).map(row).collect();
    tables(visionary).insert(TABLE, &rows).await.unwrap();
}

/// Resolves when the first comparison of the index with the container has ended.
async fn complete(visionary: &Visionary) {
    let look = async || state(&account(visionary), &visionary.setting("IMAGE_CONTAINER")).await;
    eventually("the index is complete", look, |state| state["complete"].is_object()).await;
}

async fn own_account() -> Visionary {
    let visionary = Setup { own_account: true, lines: true, ..Setup::default() }.start().await;
    complete(&visionary).await;
    visionary
}

/// The line to the tables.
fn line(visionary: &Visionary) -> &Faults {
    &visionary.lines.as_ref().expect("lines").tables
}

/// The names of all pages from a path on.
async fn walk(visionary: &Visionary, first: &str) -> Vec<String> {
    let (mut names, mut next) = (Vec::new(), Some(first.to_owned()));
    while let Some(path) = next {
        let page = visionary.get(&path).await;
        assert_eq!(page.status, 200, "{}", page.body);
        names.extend(image_names(&page.json()));
        next = page.json()["next"].as_str().map(str::to_owned);
        let link = next.as_ref().map(|next| format!("<{next}>; rel=\"next\"")).unwrap_or_default();
        assert_eq!(page.header("link"), link);
    }
    names
}

#[tokio::test]
async fn a_page_has_what_is_known_of_each_image() {
    let visionary = own_account().await;
    visionary.generate("an earlier fox").await;
    visionary.post_json(&json!({"prompt": "a fox. In snow", "size": "1024x1536"})).send().await;

    let look = async || visionary.get("/api/getImages?limit=1").await.json();
    let has_thumbnail = |page: &Value| page["imageUrls"][0]["thumbnailUrl"].is_string();
    let page = eventually("the newest image has a thumbnail", look, has_thumbnail).await;
    let members = ["name", "url", "id", "createdAt", "downloadUrl", "thumbnailUrl", "placeholder"];
    let members = members.map(|member| format!("imageUrls/0/{member}"));
    let fields: Vec<&str> = members.iter().map(String::as_str).chain(["next"]).collect();
    insta::assert_json_snapshot!(masked(page, &fields), @r#"
    {
      "imageUrls": [
        {
          "createdAt": "[createdAt]",
          "downloadUrl": "[downloadUrl]",
          "height": 32,
          "id": "[id]",
          "name": "[name]",
          "placeholder": "[placeholder]",
          "prompt": "a fox. In snow",
          "thumbnailHeight": 32,
          "thumbnailUrl": "[thumbnailUrl]",
          "thumbnailWidth": 32,
          "url": "[url]",
          "width": 32
        }
      ],
      "next": "[next]"
    }
    "#);
}

#[tokio::test]
async fn a_wrong_limit_or_cursor_is_refused_and_named() {
    let visionary = Visionary::start().await;
    let cursor = "8299999999998-0e7c7f5e98bd200d8132c98c7c16fdfb";
    for (query, parameter) in [
        ("limit=0".to_owned(), "limit"),
        ("limit=201".to_owned(), "limit"),
        ("limit=ten".to_owned(), "limit"),
        ("limit=10&cursor=x".to_owned(), "cursor"),
        (format!("limit=10&cursor={cursor}'"), "cursor"),
        (format!("cursor={cursor}"), "cursor"),
    ] {
        let answer = visionary.get(&format!("/api/getImages?{query}")).await;
        assert_eq!(answer.status_and_code(), (400, "invalid_request"), "{query}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(parameter), "{query}: {}", answer.body);
        assert_eq!(answer.json()["imageUrls"], json!([]));
    }
    assert_eq!(visionary.get(&format!("/api/getImages?limit=10&cursor={cursor}&_=1")).await.status, 200);
}

/// The first page, the middle and the end, with the number of requests to the table.
#[tokio::test]
async fn a_page_takes_the_same_queries_and_rows_at_1000_and_at_100000_images() {
    let mut seen = Vec::new();
    for count in [1_000, 100_000] {
        let visionary = own_account().await;
        let faults = line(&visionary);
        seed(&visionary, count).await;
        // The first read of a process reads the state of the index, too.
        visionary.get("/api/getImages?limit=60").await;
        let mut requests = Vec::new();
        let mut page = async |path: &str| {
            let before = faults.requests();
            let page = visionary.get(path).await;
            requests.push(faults.requests() - before);
            page
        };

        let first = page("/api/getImages?limit=60").await;
        let second = page(first.json()["next"].as_str().unwrap()).await;
        let far = 9_999_999_999_999 - (1_600_000_000_000 + 60_000 * 500_u64);
        let cursor = format!("{far:013}-{:032x}", 500);
        let down = page(&format!("/api/getImages?limit=60&cursor={cursor}")).await;
        let last = page(&format!("/api/getImages?limit=60&cursor={:013}-{:032x}", far + 60_000 * 470, 30)).await;

        let numbers = |from: usize, until: usize| (until..from).rev().map(blob).collect::<Vec<_>>();
        assert_eq!(image_names(&first.json()), numbers(count, count - 60));
        assert_eq!(image_names(&second.json()), numbers(count - 60, count - 120));
        assert_eq!(image_names(&down.json()), numbers(500, 440));
        assert_eq!(image_names(&last.json()), numbers(30, 0));
        assert_eq!(last.json()["next"], Value::Null);
        seen.push(requests);
    }
    println!("requests to the table for each page: {seen:?}");
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].iter().all(|requests| *requests <= 3), "{seen:?}");
}

#[tokio::test]
async fn images_that_others_put_there_are_in_pages_after_the_next_comparison() {
    let visionary = own_account().await;
    visionary.generate("a fox").await;
    let odd = ["foreign_1500000000000.png", "no time", "folder/inside/a&b<c>'\"🦊", "ends.with.dots.x"];
    for name in odd {
        put(&visionary, name).await;
    }
    // A listing of the container finds images without a row.
    let listed = visionary.list().await;
    assert_eq!(listed.len(), 5);

    let look = async || walk(&visionary, "/api/getImages?limit=2").await;
    let paged = eventually("all are in pages", look, |names| names.len() == 5).await;

    let sorted = |names: Vec<String>| names.into_iter().collect::<BTreeSet<String>>();
    assert_eq!(sorted(paged), sorted(listed.into_iter().map(|(name, _)| name).collect()));
}

#[tokio::test]
async fn pages_have_each_image_once_while_images_are_added_and_deleted_on_top() {
    const SEEDED: usize = 1_000;
    let visionary = own_account().await;
    seed(&visionary, SEEDED).await;

    let added = async {
        for batch in 0..5 {
            let prompts: Vec<String> = (0..8).map(|number| format!("fox {batch} {number}")).collect();
            let drawn = join_all(prompts.iter().map(|prompt| visionary.post(prompt).accept_json().send())).await;
            for image in drawn.iter().take(4).map(Answer::json) {
                let path = format!("/api/images/{}", image["id"].as_str().unwrap());
                let request = visionary.request(Method::DELETE, &path);
                let deleted = request.header("x-delete-token", image["deleteToken"].as_str().unwrap()).send().await;
                assert_eq!(deleted.status, 200, "{}", deleted.body);
            }
        }
    };
    let walks = join_all((0..32).map(|_| walk(&visionary, "/api/getImages?limit=37")));
    let (walks, ()) = tokio::join!(walks, added);

    let seeded: BTreeSet<String> = (0..SEEDED).map(blob).collect();
    for names in walks {
        let unique: BTreeSet<String> = names.iter().cloned().collect();
        assert_eq!(unique.len(), names.len(), "an image comes twice");
        assert!(unique.is_superset(&seeded), "an image is skipped");
    }
    assert_eq!(walk(&visionary, "/api/getImages?limit=200").await.len(), SEEDED + 20);
}

#[tokio::test]
async fn an_image_whose_row_cannot_be_written_is_listed_and_its_row_comes_later() {
    let visionary = own_account().await;
    visionary.generate("an earlier fox").await;
    for (number, fault) in [Line::Cut, Line::Answers(503, "ServerBusy"), Line::Stalled].into_iter().enumerate() {
        let prompt = format!("fox {number}");
        let hold = visionary.hold_next_image();
        let request = visionary.post(&prompt).spawn();
        hold.reached(1).await;
        line(&visionary).set(fault);
        hold.release();

        let answer = request.await.unwrap();

        assert_eq!(answer.status, 200, "{fault:?}: {}", answer.body);
        assert_eq!(caption(&visionary.list().await[0].0), prompt, "{fault:?}");
        let is_pending = |line: &devkit::stand_ins::host::LogLine| line.text.contains("index_row_pending");
        visionary.host.wait_for_logs(number + 1, is_pending).await;
        assert!(!indexed(&visionary).await.iter().any(|name| caption(name) == prompt));
        line(&visionary).set(Line::Whole);
        // This process lists the image while its row is pending.
        let page = visionary.get("/api/getImages?limit=1").await.json();
        assert_eq!(caption(&image_names(&page)[0]), prompt, "{fault:?}");
        let is_there = |names: &Vec<String>| names.first().is_some_and(|name| caption(name) == prompt);
        eventually("the row is written", async || indexed(&visionary).await, is_there).await;
    }
}

#[tokio::test]
async fn a_table_that_is_deleted_while_requests_run_is_rebuilt_and_no_image_is_missing() {
    const IMAGES: usize = 120;
    let visionary = own_account().await;
    visionary.generate("newest").await;
    put_all(&visionary, (1..IMAGES).map(blob)).await;
    let all: Vec<String> = visionary.list().await.into_iter().map(|(name, _)| name).collect();
    let look = async || indexed(&visionary).await.len();
    eventually("all images are in the index", look, |count| *count == IMAGES).await;

    let walks = join_all((0..8).map(|_| async {
        for _ in 0..10 {
            assert_eq!(walk(&visionary, "/api/getImages?limit=50").await, all);
        }
    }));
    let deleted = async {
        visionary.host.wait_for_logs(30, |line| line.text.contains("request_answered")).await;
        tables(&visionary).delete_table(TABLE).await.unwrap();
    };
    tokio::join!(walks, deleted);

    eventually("the index is rebuilt", look, |count| *count == IMAGES).await;
    complete(&visionary).await;
    assert_eq!(walk(&visionary, "/api/getImages?limit=50").await, all);
}

#[tokio::test]
async fn five_hundred_pollers_share_one_read_at_a_time() {
    let visionary = own_account().await;
    seed(&visionary, 100).await;
    visionary.get("/api/getImages?limit=60").await;
    let before = line(&visionary).requests();

    let handler = visionary.handler(0);
    let answers = join_all((0..500).map(|_| handler.get("/api/getImages?limit=60"))).await;

    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    let requests = line(&visionary).requests() - before;
    println!("{requests} requests to the table for 500 answers");
    // 500 connections are opened over some time, so the answers are not all of one read.
    assert!(requests <= 60, "{requests} requests to the table for 500 answers");
}

/// Draws an image and waits for its thumbnail, which changes the page once more.
async fn generate_with_thumbnail(visionary: &Visionary, prompt: &str) {
    visionary.generate(prompt).await;
    let look = async || visionary.get("/api/getImages?limit=1").await.json()["imageUrls"][0].clone();
    eventually("the newest image has a thumbnail", look, |image| image["thumbnailUrl"].is_string()).await;
}

#[tokio::test]
async fn an_unchanged_answer_is_304_and_a_changed_one_is_not() {
    let visionary = own_account().await;
    seed(&visionary, 100).await;
    generate_with_thumbnail(&visionary, "a fox").await;
    for path in ["/api/getImages", "/api/getImages?limit=60"] {
        let whole = visionary.get(path).await;
        let tag = whole.header("etag").to_owned();
        assert!(tag.starts_with("W/\"") && whole.header("cache-control") == "private, no-cache", "{path}: {tag}");
        assert_eq!((whole.header("content-type"), whole.header("vary")), ("application/json", "Accept-Encoding"));
        let again = async |tag: &str| -> Answer {
            visionary.request(Method::GET, path).header("if-none-match", tag).send().await
        };

        for same in [tag.as_str(), "\"x\", *", &format!("\"x\", {tag}"), tag.strip_prefix("W/").unwrap()] {
            let unchanged = again(same).await;
            assert_eq!((unchanged.status, unchanged.body.as_str()), (304, ""), "{path}: {same}");
            assert_eq!((unchanged.header("etag"), unchanged.header("link")), (&*tag, whole.header("link")));
        }
        assert_eq!(again("\"x\"").await.body, whole.body);

        generate_with_thumbnail(&visionary, "another fox").await;
        let changed = again(&tag).await;
        assert!(changed.status == 200 && changed.header("etag") != tag, "{path}: {}", changed.status);
    }
}

#[tokio::test]
async fn an_answer_is_compressed_for_callers_that_take_gzip() {
    let visionary = own_account().await;
    seed(&visionary, 100).await;
    let plain = visionary.get("/api/getImages?limit=60").await;
    let get = async |encoding: &str| {
        let request = visionary.request(Method::GET, "/api/getImages?limit=60");
        request.header("accept-encoding", encoding).response().await
    };

    for encoding in ["gzip", "br, gzip;q=0.5", "deflate,GZIP"] {
        let answer = get(encoding).await;
        assert_eq!(
            (answer.status(), &answer.headers()["content-encoding"]),
            (200.try_into().unwrap(), &"gzip".parse().unwrap())
        );
        assert_eq!(answer.headers()["etag"], plain.headers["etag"]);
        let compressed = answer.bytes().await.unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(&compressed[..]).read_to_string(&mut text).unwrap();
        assert!(compressed.len() * 5 < text.len(), "{} of {} bytes", compressed.len(), text.len());
        assert_eq!(text, plain.body);
    }
    for encoding in ["identity", "gzip;q=0", "br"] {
        let answer = get(encoding).await;
        assert!(!answer.headers().contains_key("content-encoding"), "{encoding}");
        assert_eq!(answer.text().await.unwrap(), plain.body);
    }
}
