//! The gallery lists all images, newest first, with stable links that only read.

use std::collections::HashMap;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use reqwest::Method;
use time::{Duration, OffsetDateTime};

use crate::harness::{Setup, Visionary, azurite, caption, http, masked, with_faults_before};

/// Uploads a blob with a token of generateSASToken.
pub(crate) async fn put(visionary: &Visionary, name: &str) {
    let token = visionary.get("/api/generateSASToken").await.body;
    let container = container_url(visionary).await;
    let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    let request = http().put(format!("{container}/{name}?{token}")).header("x-ms-blob-type", "BlockBlob");
    let answer = request.body("x").send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
}

/// The names in an answer of getImages.
pub(crate) fn image_names(answer: &serde_json::Value) -> Vec<String> {
    let images = answer["imageUrls"].as_array().unwrap().iter();
    images.map(|image| image["name"].as_str().unwrap().to_owned()).collect()
}

async fn container_url(visionary: &Visionary) -> String {
    let answer = visionary.request(Method::GET, "/api/generateSASToken").accept_json().send().await;
    answer.json()["containerUrl"].as_str().unwrap().to_owned()
}

async fn names(visionary: &Visionary) -> Vec<String> {
    visionary.list().await.into_iter().map(|(name, _)| name).collect()
}

#[tokio::test]
async fn a_missing_container_is_an_empty_gallery() {
    let visionary = Visionary::start().await;
    assert!(visionary.list().await.is_empty());
}

#[tokio::test]
async fn the_gallery_is_a_list_of_names_and_links() {
    let visionary = Visionary::start().await;
    visionary.generate("a fox").await;

    let gallery = visionary.get("/api/getImages").await.json();

    assert_eq!(caption(gallery["imageUrls"][0]["name"].as_str().unwrap()), "a fox");
    insta::assert_json_snapshot!(masked(gallery, &["imageUrls/0/name", "imageUrls/0/url"]), @r#"
    {
      "imageUrls": [
        {
          "name": "[name]",
          "url": "[url]"
        }
      ]
    }
    "#);
}

/// A name without a time is sorted by the blob's Last-Modified.
#[tokio::test]
async fn the_newest_image_comes_first_by_the_time_in_its_name() {
    let visionary = Visionary::start().await;
    visionary.generate("now").await;
    for name in ["old_1500000000000.png", "older_1400000000000.webp", "cat_5.png", "future_9000000000000.png"] {
        put(&visionary, name).await;
    }

    let names = names(&visionary).await;

    assert_eq!(names[0], "future_9000000000000.png");
    // `cat_5.png` has no time in its name. It was uploaded just after the image was drawn.
    let recent: Vec<&str> = names[1..3].iter().map(|name| name.split('_').next().unwrap()).collect();
    assert!(recent.contains(&"now") && recent.contains(&"cat"), "{names:?}");
    assert_eq!(names[3..], ["old_1500000000000.png", "older_1400000000000.webp"]);
}

#[tokio::test]
async fn foreign_blobs_are_listed_and_their_links_open() {
    let visionary = Visionary::start().await;
    visionary.generate("first").await;
    let odd = ["no type", "a&b<c>'\"", "100% + #1 ?", "folder/inside/🦊", "  spaces  ", "ends.with.dots.x"];
    for name in odd {
        put(&visionary, name).await;
    }

    let listed: HashMap<String, String> = visionary.list().await.into_iter().collect();

    assert_eq!(listed.len(), odd.len() + 1);
    for name in odd.iter().filter(|name| name.trim() == **name) {
        let url = listed.get(*name).unwrap_or_else(|| panic!("{name} is not in {:?}", listed.keys()));
        assert_eq!(visionary.open(url).await.status(), 200, "{name}");
    }
}

/// Uploads blobs with these names, 32 at a time.
pub(crate) async fn put_all(visionary: &Visionary, names: impl IntoIterator<Item = String>) {
    let token = visionary.get("/api/generateSASToken").await.body;
    let (container, http) = (container_url(visionary).await, http());
    let upload = async |name: String| {
        let request = http.put(format!("{container}/{name}?{token}")).header("x-ms-blob-type", "BlockBlob");
        request.body("x").send().await.unwrap().status().as_u16()
    };
    let statuses: Vec<u16> = stream::iter(names).map(upload).buffer_unordered(32).collect().await;
    assert!(statuses.iter().all(|status| *status == 201));
}

/// The name of the numbered blob. A higher number is newer.
pub(crate) fn blob(number: usize) -> String {
    format!("blob_{:013}.png", 1_000_000_000_000 + number)
}

#[tokio::test]
async fn up_to_5000_images_are_listed_and_a_link_leads_to_the_rest() {
    let visionary = Setup { own_account: true, ..Setup::default() }.start().await;
    visionary.generate("first").await;
    put_all(&visionary, (1..5_000).map(blob)).await;

    let whole = visionary.get("/api/getImages").await;
    let listed = names(&visionary).await;
    assert!(listed[0].starts_with("first_"));
    assert_eq!(listed[1..], (1..5_000).rev().map(blob).collect::<Vec<_>>());
    assert_eq!(whole.header("link"), "");

    put_all(&visionary, [blob(0)]).await;
    // The same from the container, and from the index after its next comparison with the container.
    for _ in 0..2 {
        let cut = visionary.get("/api/getImages").await;
        let listed: Vec<String> = image_names(&cut.json());
        assert_eq!(listed[1..], (1..5_000).rev().map(blob).collect::<Vec<_>>());
        let next = cut.header("link").strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned();
        // Pages have what others uploaded after the next comparison.
        visionary.host.wait_for_log(|line| line.text.contains("\"blobs\":5001")).await;
        let rest = visionary.get(&next).await;
        assert_eq!(image_names(&rest.json()), [blob(0)]);
        assert_eq!((rest.header("link"), rest.json()["next"].as_str()), ("", None));
    }
    let cuts = visionary.host.logs().into_iter().filter(|line| line.text.contains("listing_cut"));
    assert_eq!(cuts.count(), 1, "the log says it once");
}

#[tokio::test]
async fn all_images_are_listed_without_a_limit() {
    let visionary = Setup { own_account: true, ..Setup::default() }.set("LISTING_LIMIT", "0").start().await;
    visionary.generate("first").await;
    put_all(&visionary, (0..5_050).map(blob)).await;

    assert_eq!(names(&visionary).await[1..], (0..5_050).rev().map(blob).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_link_only_reads() {
    let visionary = Visionary::start().await;
    visionary.generate("a fox").await;
    let (_, url) = visionary.list().await.remove(0);
    assert_eq!(visionary.open(&url).await.status(), 200);
    let query = url.split_once('?').unwrap().1;
    assert!(query.starts_with("sv=") && query.contains("&sp=r&"), "{query}");

    let list = format!("{}?restype=container&comp=list&{query}", container_url(&visionary).await);
    let new = url.replace("a%20fox", "new");
    for (method, url) in [(Method::PUT, &url), (Method::PUT, &new), (Method::DELETE, &url), (Method::GET, &list)] {
        let answer = http().request(method.clone(), url).header("x-ms-blob-type", "BlockBlob").body("x").send().await;
        assert_eq!(answer.unwrap().status(), 403, "{method}");
    }

    assert_eq!(visionary.list().await.len(), 1);
}

#[tokio::test]
async fn a_download_link_opens_as_a_file_and_only_reads_until_it_expires() {
    let visionary = Setup::default().set("SAS_MINUTES", "30").start().await;
    let details = visionary.post("50% of a fox").accept_json().send().await.json();
    let of_time = async |now| visionary.serve_at(now).await.post("a fox").accept_json().send().await.json();
    let past = of_time(crate::harness::now() - Duration::minutes(62)).await;
    let link = |details: &serde_json::Value, name: &str| details[name].as_str().unwrap().to_owned();
    let url = link(&details, "downloadUrl");

    let (shown, saved) = (visionary.open(&link(&details, "url")).await, visionary.open(&url).await);

    assert_eq!((shown.status().as_u16(), saved.status().as_u16()), (200, 200));
    assert_eq!(
        (shown.headers().get("content-disposition"), &saved.headers()["content-disposition"]),
        (None, &"attachment".parse().unwrap())
    );
    for header in ["cache-control", "content-type", "etag"] {
        assert_eq!(shown.headers()[header], saved.headers()[header]);
    }
    assert_eq!(saved.bytes().await.unwrap(), visionary.openai.images_drawn()[0].bytes);
    assert_eq!(url.split('?').next(), link(&details, "url").split('?').next());
    assert!(url.contains("?sv=") && url.contains("&sp=r&"), "{url}");
    let write = http().put(&url).header("x-ms-blob-type", "BlockBlob").body("x").send().await.unwrap();
    assert_eq!(write.status(), 403);
    let shown_as = url.replace("rscd=attachment", "rscd=inline");
    for refused in [shown_as, link(&past, "downloadUrl")] {
        assert_eq!(visionary.open(&refused).await.status(), 403, "{refused}");
    }
}

#[tokio::test]
async fn a_link_is_stable_for_sas_minutes_and_valid_for_at_least_as_long() {
    let visionary = Setup::default().set("SAS_MINUTES", "30").start().await;
    let start = time::macros::datetime!(2026-11-21 12:00:00.5 UTC);
    let mut tokens: Vec<String> = Vec::new();

    for minutes in 0..65 {
        let now = start + Duration::minutes(minutes);
        let answer = visionary.serve_at(now).await.post("a fox").accept_json().send().await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let url = reqwest::Url::parse(answer.json()["url"].as_str().unwrap()).unwrap();
        let parameters: HashMap<_, _> = url.query_pairs().into_owned().collect();
        let time = |name: &str| {
            let format = &time::format_description::well_known::Rfc3339;
            OffsetDateTime::parse(&parameters[name], format).unwrap()
        };
        assert!(time("se") >= now + Duration::minutes(30), "{now}: {}", parameters["se"]);
        assert!(time("se") <= now + Duration::minutes(61), "{now}: {}", parameters["se"]);
        assert!(time("st") <= now - Duration::minutes(5), "{now}: {}", parameters["st"]);
        tokens.push(url.query().unwrap().to_owned());
    }

    tokens.dedup();
    assert_eq!(tokens.len(), 3, "65 minutes overlap three windows of 30 minutes");
}

/// Each listing of a large container takes seconds and megabytes.
#[tokio::test]
async fn requests_at_the_same_time_share_a_listing_and_each_sees_its_own_image() {
    let (faults, through) = with_faults_before(azurite().blob_port()).await;
    let visionary = Setup::default().set("AzureWebJobsStorage", through).start().await;
    visionary.generate("a fox").await;
    let before = faults.requests();

    let answers = join_all((0..50).map(|_| visionary.get("/api/getImages"))).await;

    assert!(answers.iter().all(|answer| answer.body == answers[0].body && answer.status == 200));
    let requests = faults.requests() - before;
    assert!(requests <= 10, "{requests} requests to storage for 50 answers");

    // Who generates while others list sees the own image right after the answer.
    join_all((0..5).map(|number| {
        let visionary = &visionary;
        async move {
            let prompt = format!("fox {number}");
            assert_eq!(visionary.generate(&prompt).await.status, 200);
            assert!(names(visionary).await.iter().any(|name| caption(name) == prompt), "{prompt} is not listed");
        }
    }))
    .await;
}
