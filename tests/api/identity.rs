//! An app without any key: its managed identity opens storage and Azure OpenAI.

use std::time::Duration;

use devkit::queue::Queue;
use devkit::stand_ins::azurite::KEY;
use devkit::stand_ins::identity::{Identity, OPENAI, Role, STORAGE};
use devkit::stand_ins::keyless::{KeylessAccount, Proof, Service};
use devkit::stand_ins::openai::Endpoint;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Client, Setup, USER_HEADER, Visionary, eventually, http, now};
use crate::tokens;

/// The roles that the storage account checks.
const STORAGE_ROLES: [Role; 4] =
    [Role::BlobDataContributor, Role::BlobDelegator, Role::QueueDataContributor, Role::TableDataContributor];

async fn identity() -> Identity {
    Identity::start().await.expect("the identity endpoint starts")
}

async fn start(identity: &Identity) -> Visionary {
    Setup::identity(identity).start().await
}

fn account(visionary: &Visionary) -> &KeylessAccount {
    visionary.keyless.as_ref().expect("an account without shared keys")
}

/// Every request that the account answered had a token of the identity or a link of the app, and none was refused.
fn assert_keyless(visionary: &Visionary) {
    for seen in account(visionary).requests() {
        let is_good = matches!(seen.proof, Proof::Token | Proof::Delegation) && ![401, 403].contains(&seen.status);
        assert!(is_good, "{seen:?}");
    }
    for endpoint in [Endpoint::Images, Endpoint::Responses, Endpoint::Models] {
        for request in visionary.openai.requests(endpoint) {
            assert!(!request.headers.contains_key("api-key"));
            assert!(request.headers["authorization"].to_str().unwrap().starts_with("Bearer "));
        }
    }
}

/// Resolves when the app works.
async fn works(visionary: &Visionary) {
    let look = async || visionary.get("/api/health").await.json();
    eventually("the app works", look, |health| health["status"] == "ok").await;
}

async fn draw(client: &Client, prompt: &str) -> Value {
    let answer = client.post(prompt).accept_json().send().await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no {member} in {value}"))
}

async fn status_of(url: &str) -> u16 {
    http().get(url).send().await.expect("the link answers").status().as_u16()
}

/// As [`tokens::judge`], on another thread: the account's proxies run on this one.
async fn judge(container: &str, token: &str) -> Value {
    let (container, token) = (container.to_owned(), token.to_owned());
    tokio::task::spawn_blocking(move || tokens::judge(&container, &token)).await.expect("a verdict")
}

#[tokio::test]
async fn an_image_is_drawn_in_each_way_to_wait_without_a_key() {
    let identity = identity().await;
    let setup = Setup { queues: true, ..Setup::identity(&identity) };
    let visionary = setup.set("DAILY_IMAGE_QUOTA", "10").start().await;

    assert_eq!(visionary.generate("a plain fox").await.body, "Image uploaded successfully");
    let mut events = visionary.post("a live fox").events().stream().await;
    let live = events.until("image").await;
    let job = visionary.post("a patient fox").prefer("respond-async").send().await;
    let waited = visionary.post("a fox that is waited for").prefer("wait=170").accept_json().send().await;

    assert_eq!((job.status, waited.status), (202, 200), "{} {}", job.body, waited.body);
    let look = async || visionary.get(job.header("location")).await.json();
    let done = eventually("the job is done", look, |job| job["status"] == "done").await;
    assert_eq!(status_of(text(&live, "url")).await, 200);
    assert_eq!(status_of(text(&done["result"], "url")).await, 200);
    visionary.used(4).await;
    assert_eq!(visionary.list().await.len(), 4);
    assert_eq!(visionary.get("/api/getChatGPTSuggestion").await.header("x-suggestion-source"), "model");
    let queue = Queue::open(&account(&visionary).connection_string(), "visionary-jobs").unwrap();
    eventually("the queue is empty", async || queue.peek().await.unwrap(), Vec::is_empty).await;
    works(&visionary).await;
    assert_keyless(&visionary);
    for service in Service::ALL {
        assert!(account(&visionary).requests().iter().any(|seen| seen.service == service), "{service:?}");
    }
}

#[tokio::test]
async fn the_gallery_works_without_a_key() {
    let visionary = start(&identity().await).await;
    let (image, other) = (draw(&visionary.client, "a fox").await, draw(&visionary.client, "an owl").await);
    let path = format!("/api/images/{}", text(&image, "id"));

    // The forms of getImages.
    assert_eq!(visionary.list().await.len(), 2);
    let first = visionary.get("/api/getImages?limit=1").await.json();
    let second = visionary.get(text(&first, "next")).await.json();
    let ids = [&first, &second].map(|page| text(&page["imageUrls"][0], "id").to_owned());
    assert_eq!(ids, [text(&other, "id"), text(&image, "id")]);

    // Details, thumbnail and download.
    let look = async || visionary.get(&path).await.json();
    let details = eventually("the image has a thumbnail", look, |details| details["thumbnailUrl"].is_string()).await;
    for link in ["url", "thumbnailUrl", "downloadUrl"] {
        assert_eq!(status_of(text(&details, link)).await, 200, "{link}");
    }
    let download = visionary.open(text(&details, "downloadUrl")).await;
    assert_eq!(download.headers()["content-disposition"], "attachment");

    // Deletion and restoration.
    let change = async |method, path: &str| {
        let request = visionary.request(method, path).header("x-delete-token", text(&image, "deleteToken"));
        request.accept_json().send().await.status
    };
    assert_eq!(change(Method::DELETE, &path).await, 200);
    assert_eq!(status_of(text(&details, "url")).await, 404);
    assert_eq!(visionary.list().await.len(), 1);
    assert_eq!(change(Method::POST, &format!("{path}/restore")).await, 200);
    assert_eq!(visionary.list().await.len(), 2);
    assert_keyless(&visionary);
}

#[tokio::test]
async fn an_image_that_another_app_uploads_with_a_token_is_found() {
    let mut visionary = start(&identity().await).await;
    visionary.generate("a fox").await;
    let token = visionary.get("/api/generateSASToken").await.body;
    let details = visionary.request(Method::GET, "/api/generateSASToken").accept_json().send().await.json();
    let url = format!("{}/an owl_1700000000000.png?{token}", text(&details, "containerUrl"));
    let upload = http().put(url).header("x-ms-blob-type", "BlockBlob").body("an owl").send().await.unwrap();
    assert_eq!(upload.status(), 201);

    // A process compares the index with the container at its start.
    visionary.restart_handler().await;

    let look = async || visionary.get("/api/getImages?limit=60").await.json();
    let is_found = |page: &Value| page["imageUrls"].as_array().is_some_and(|images| images.len() == 2);
    eventually("the page has both images", look, is_found).await;
    assert_eq!(visionary.list().await.len(), 2);
    assert_keyless(&visionary);
}

/// The front ends keep what is before `?sv=` of a link, and put a token of generateSASToken behind it.
#[tokio::test]
async fn front_ends_can_split_links_and_tokens_with_a_key_and_with_an_identity() {
    for setup in [Setup::default(), Setup::identity(&identity().await)] {
        let visionary = setup.start().await;
        visionary.generate("a fox").await;

        let (_, link) = visionary.list().await.remove(0);
        let token = visionary.get("/api/generateSASToken").await.body;

        let parts: Vec<&str> = link.split("?sv=").collect();
        assert_eq!(parts.len(), 2, "{link}");
        assert!(token.starts_with("sv="), "{token}");
        assert_eq!(status_of(&format!("{}?{token}", parts[0])).await, 200);
        assert_eq!(status_of(parts[0]).await / 100, 4, "the container is private");
    }
}

#[tokio::test]
async fn a_link_opens_and_cannot_write_and_both_links_and_tokens_expire() {
    let visionary = start(&identity().await).await;
    visionary.generate("a fox").await;

    let (_, link) = visionary.list().await.remove(0);
    let token = visionary.get("/api/generateSASToken").await.body;
    let details = visionary.request(Method::GET, "/api/generateSASToken").accept_json().send().await.json();
    let past = visionary.serve_at(now() - time::Duration::hours(3)).await;
    let expired = past.get("/api/getImages?limit=60").await.json();
    let expired_token = past.get("/api/generateSASToken").await.body;

    let write = || http().put(&link).header("x-ms-blob-type", "BlockBlob").body("a cat").send();
    assert_eq!((status_of(&link).await, write().await.unwrap().status().as_u16()), (200, 403));
    assert_eq!(http().delete(&link).send().await.unwrap().status(), 403);
    assert_eq!(status_of(text(&expired["imageUrls"][0], "url")).await, 403);
    let container = text(&details, "containerUrl");
    let allowed = json!({"put": 201, "overwrite": 201, "get": 200, "delete": 403, "list": 403});
    assert_eq!(judge(container, &token).await, allowed);
    let nothing = json!({"put": 403, "overwrite": 403, "get": 403, "delete": 403, "list": 403});
    assert_eq!(judge(container, &expired_token).await, nothing);
}

#[tokio::test]
async fn all_processes_hand_out_the_same_links() {
    let visionary = start(&identity().await).await;
    let image = draw(&visionary.client, "a fox").await;
    let path = format!("/api/images/{}", text(&image, "id"));
    let look = async || visionary.get(&path).await.json();
    eventually("the image has a thumbnail", look, |details| details["thumbnailUrl"].is_string()).await;

    // Two times of one window. The processes have different user delegation keys, because a key begins with the time.
    let minute = time::Duration::minutes(1);
    let first = if now().unix_timestamp() % 1_800 < 60 { now() } else { now() - minute };
    let processes = [visionary.serve_at(first).await, visionary.serve_at(first + minute).await];
    let links = processes.iter().map(async |process| {
        let mut texts = vec![];
        for path in ["/api/getImages", "/api/getImages?limit=60", &path] {
            texts.push(process.get(path).await.body);
        }
        texts
    });
    // Both begin at once, so both may want to store the window's token.
    let links = join_all(links).await;

    assert_eq!(links[0], links[1]);
    assert!(links[0][2].contains("thumbnailUrl"), "{}", links[0][2]);
    assert_keyless(&visionary);
}

#[tokio::test]
async fn an_app_that_gets_its_roles_late_serves_degraded_and_then_works() {
    let identity = identity().await;
    for role in STORAGE_ROLES {
        identity.revoke(role);
    }
    let visionary = start(&identity).await;

    let look = async || visionary.get("/api/health").await.json();
    let is_named = |health: &Value| health["reason"].as_str().is_some_and(|reason| reason.contains("Contributor"));
    let health = eventually("the health names the roles", look, is_named).await;
    assert_eq!(health["status"], "degraded");
    let refused = visionary.post("a fox").send().await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(["storage_unavailable", "quota_unavailable"].contains(&refused.header("x-error-code")), "{refused:?}");
    assert!(visionary.openai.requests(Endpoint::Images).is_empty(), "nothing is drawn");
    assert_eq!(visionary.get("/api/getImages").await.status, 503);

    for role in STORAGE_ROLES {
        identity.grant(role);
    }

    works(&visionary).await;
    draw(&visionary.client, "a fox").await;
    assert_eq!(visionary.list().await.len(), 1);
}

/// Each role is needed, and a sentence names the one that is missing.
#[tokio::test]
async fn the_health_names_each_role_that_is_missing() {
    for (role, name) in [
        (Role::BlobDataContributor, "Storage Blob Data Contributor"),
        (Role::BlobDelegator, "Storage Blob Delegator"),
        (Role::QueueDataContributor, "Storage Queue Data Contributor"),
        (Role::TableDataContributor, "Storage Table Data Contributor"),
    ] {
        let identity = identity().await;
        identity.revoke(role);
        let visionary = start(&identity).await;

        let look = async || visionary.get("/api/health").await.json();
        let is_named = |health: &Value| health["reason"].as_str().is_some_and(|reason| reason.contains(name));
        let health = eventually(&format!("the health names {name}"), look, is_named).await;

        assert_eq!(health["status"], "degraded");
        identity.grant(role);
        works(&visionary).await;
    }
}

#[tokio::test]
async fn a_role_for_azure_openai_that_is_missing_is_named() {
    let identity = identity().await;
    identity.revoke(Role::OpenAiUser);
    let visionary = start(&identity).await;

    let refused = visionary.generate("a fox").await;

    assert_eq!(refused.status_and_code(), (502, "provider_misconfigured"));
    assert!(refused.body.contains("Cognitive Services OpenAI User"), "{}", refused.body);
    assert_keyless(&visionary);
}

#[tokio::test]
async fn the_app_answers_before_it_has_a_token() {
    let identity = identity().await;
    identity.delay(Duration::from_secs(3_600));

    // The host waits for the first answer.
    let visionary = start(&identity).await;

    identity.wait_for_requests(1).await;
    assert_eq!(visionary.get("/").await.status, 200);
    assert!(account(&visionary).requests().is_empty(), "no request is sent without a token");
}

#[tokio::test]
async fn an_identity_endpoint_that_fails_for_a_moment_is_asked_again() {
    let identity = identity().await;
    identity.fail(&[500, 429, 404]);
    let visionary = start(&identity).await;

    draw(&visionary.client, "a fox").await;

    assert_keyless(&visionary);
}

#[tokio::test]
async fn an_identity_endpoint_that_refuses_degrades_the_app_until_it_answers() {
    for (status, wanted) in [(400, "AzureWebJobsStorage__clientId"), (500, "identity")] {
        let identity = identity().await;
        identity.fail_always(Some(status));
        let visionary = start(&identity).await;

        let look = async || visionary.get("/api/health").await.json();
        let is_named = |health: &Value| health["reason"].as_str().is_some_and(|reason| reason.contains(wanted));
        let health = eventually("the health says why", look, is_named).await;
        assert_eq!(health["status"], "degraded");
        let refused = visionary.generate("a fox").await;
        assert_eq!(refused.status, 503, "{}", refused.body);

        identity.fail_always(None);
        works(&visionary).await;
        draw(&visionary.client, "a fox").await;
        let [_, (_, header)] = identity.variables();
        let is_secret = |line: &str| line.contains(&header) || line.contains("eyJ");
        assert!(!visionary.host.logs().iter().any(|line| is_secret(&line.text)), "a log line has a secret");
    }
}

/// The endpoint fails during the first renewal. The old token serves until the next one is there.
#[tokio::test]
async fn tokens_that_live_for_seconds_are_renewed_and_no_request_fails() {
    let identity = identity().await;
    identity.let_tokens_live(Duration::from_secs(12));
    let visionary = start(&identity).await;
    draw(&visionary.client, "a fox").await;
    let of_storage = || identity.requests().resources.iter().filter(|resource| *resource == STORAGE).count();
    let before = of_storage();
    identity.fail(&[500, 429]);

    let look = async || {
        assert_eq!(visionary.list().await.len(), 1);
        assert_eq!(visionary.get("/api/getImages?limit=60").await.status, 200);
        of_storage() - before
    };
    eventually("two renewals have succeeded", look, |more| *more >= 4).await;

    draw(&visionary.client, "an owl").await;
    assert_keyless(&visionary);
}

#[tokio::test]
async fn requests_at_once_share_one_request_for_a_token() {
    let identity = identity().await;
    identity.delay(Duration::from_millis(500));
    let visionary = start(&identity).await;

    let answers = join_all((0..20).map(|number| visionary.post(&format!("fox {number}")).send())).await;

    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200; 20], "{answers:?}");
    let requests = identity.requests();
    assert_eq!(requests.most_at_once, 1);
    for resource in [STORAGE, OPENAI] {
        assert_eq!(requests.resources.iter().filter(|one| *one == resource).count(), 1, "{resource}");
    }
}

/// Idempotency-Keys, jobs and callers are stored as digests. Both processes start at once and want to make the key.
#[tokio::test]
async fn all_processes_make_the_same_digests() {
    let setup = Setup { handlers: 2, ..Setup::identity(&identity().await) };
    let mut visionary = setup.set("QUOTA_USER_HEADER", USER_HEADER).set("DAILY_IMAGE_QUOTA", "3").start().await;
    let [one, other] = [visionary.handler(0), visionary.handler(1)];

    let drawn = one.post("a fox").key("k-1").as_user("ada").accept_json().send().await;
    let repeated = other.post("a fox").key("k-1").as_user("ada").accept_json().send().await;

    assert_eq!((drawn.status, repeated.status), (200, 200), "{} {}", drawn.body, repeated.body);
    assert_eq!(drawn.json()["id"], repeated.json()["id"]);
    assert_eq!(visionary.openai.images_drawn().len(), 1);
    visionary.restart_handler().await;
    let again = visionary.handler(0).post("a fox").key("k-1").as_user("ada").accept_json().send().await;
    assert_eq!(again.json()["id"], drawn.json()["id"]);
    let quota = visionary.handler(0).request(Method::GET, "/api/quota").as_user("ada").send().await.json();
    assert_eq!(quota["used"], 1);
    assert_keyless(&visionary);
}

/// The old key makes the digests further, and is needed at the first start only.
#[tokio::test]
async fn a_switch_from_key_to_identity_keeps_callers_jobs_and_rights_to_delete() {
    let setup = Setup { handlers: 0, ..Setup::identity(&identity().await) };
    let visionary = setup.set("QUOTA_USER_HEADER", USER_HEADER).start().await;
    let with_key = account(&visionary).connection_string();
    let old = visionary
        .serve_with(&[
            ("AzureWebJobsStorage", &with_key),
            ("AzureWebJobsStorage__blobServiceUri", ""),
            ("AzureWebJobsStorage__queueServiceUri", ""),
            ("AzureWebJobsStorage__tableServiceUri", ""),
        ])
        .await;
    let drawn = old.post("a fox").key("k-1").as_user("ada").accept_json().send().await;
    assert_eq!(drawn.status, 200, "{}", drawn.body);
    let job = old.post("a job").as_user("ada").prefer("respond-async").send().await;
    assert_eq!(job.status, 202, "{}", job.body);

    for digest_key in [KEY, ""] {
        let new = visionary.serve_with(&[("DIGEST_KEY", digest_key)]).await;
        let look = async || new.get("/api/health").await.json();
        eventually("the app works", look, |health| health["status"] == "ok").await;

        let repeated = new.post("a fox").key("k-1").as_user("ada").accept_json().send().await;
        assert_eq!(repeated.json()["id"], drawn.json()["id"], "{}", repeated.body);
        assert_eq!(new.get(job.header("location")).await.json()["status"], "queued", "the job is known");
        let quota = new.request(Method::GET, "/api/quota").as_user("ada").send().await.json();
        assert_eq!(quota["used"], 2);
    }
    let new = visionary.serve_with(&[]).await;
    let drawn = drawn.json();
    let delete = new.request(Method::DELETE, &format!("/api/images/{}", text(&drawn, "id")));
    assert_eq!(delete.header("x-delete-token", text(&drawn, "deleteToken")).send().await.status, 200);
    assert_eq!(visionary.openai.images_drawn().len(), 1);
}
