//! generateSASToken's token, judged by Azure's own JavaScript SDK.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::harness::{Answer, Setup, Visionary, http};

/// What the SDK can do with a token: `{"put": 201, "get": 200, "delete": 403, "list": 403}`.
fn judge(container_url: &str, token: &str) -> Value {
    let script = crate::harness::root().join("devkit/npm/judge-token.cjs");
    let modules = devkit::stand_ins::azurite::npm_modules().expect("the npm packages are there");
    let output = Command::new("node")
        .arg(script)
        .args([container_url, token])
        .env("NODE_PATH", modules)
        .output()
        .expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

async fn token_at(address: &str) -> Value {
    let request = http().get(format!("{address}/api/generateSASToken")).header("accept", "application/json");
    request.send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn the_token_reads_creates_and_writes_until_it_expires() {
    let visionary = Visionary::start().await;
    visionary.generate("so that the container is there").await;
    let token = visionary.get("/api/generateSASToken").await;
    assert!(token.header("content-type").starts_with("text/plain"));
    assert!(token.body.starts_with("sv=") && token.body.contains("&sp=rcw&sr=c&"), "a query string without `?`");

    let details = token_at(&visionary.host.url()).await;
    let container = details["containerUrl"].as_str().unwrap();
    assert_eq!(details["permissions"], "rcw");
    let allowed = json!({"put": 201, "overwrite": 201, "get": 200, "delete": 403, "list": 403});
    assert_eq!(judge(container, &token.body), allowed);

    #[expect(clippy::disallowed_methods, reason = "Azurite judges by the real time")]
    let now = OffsetDateTime::now_utc();
    let expires = details["expiresOn"].as_str().unwrap();
    let expires = OffsetDateTime::parse(expires, &time::format_description::well_known::Rfc3339).unwrap();
    assert!(expires - now <= Duration::minutes(30) && expires - now >= Duration::minutes(29));

    // One that was handed out 31 minutes ago.
    let then = visionary.serve_at(now - Duration::minutes(31)).await;
    let expired = token_at(&then).await;
    let nothing = json!({"put": 403, "overwrite": 403, "get": 403, "delete": 403, "list": 403});
    assert_eq!(judge(container, expired["sasToken"].as_str().unwrap()), nothing);
}

#[tokio::test]
async fn permissions_and_lifetime_are_settings_and_a_token_opens_one_container() {
    let setup = Setup::default().set("SAS_PERMISSIONS", "lr").set("SAS_MINUTES", "5");
    let visionary = setup.start().await;
    visionary.generate("so that the container is there").await;
    let details = token_at(&visionary.host.url()).await;
    let token = details["sasToken"].as_str().unwrap();
    assert!(token.contains("&sp=rl&"), "in Azure's order");
    let container = details["containerUrl"].as_str().unwrap();
    let wanted = json!({"put": 403, "overwrite": 403, "get": 404, "delete": 403, "list": 200});
    assert_eq!(judge(container, token), wanted);

    let other = Visionary::start().await;
    other.generate("so that its container is there").await;
    let other = token_at(&other.host.url()).await;
    let nothing = json!({"put": 403, "overwrite": 403, "get": 403, "delete": 403, "list": 403});
    assert_eq!(judge(other["containerUrl"].as_str().unwrap(), token), nothing);
}

#[tokio::test]
async fn a_token_for_an_https_endpoint_is_for_https_alone() {
    let account = Setup::default()
        .set("AzureWebJobsStorage", "")
        .set("accountName", "visionarytest")
        .set("accountKey", "c2VjcmV0");
    let visionary = account.start().await;
    let request = visionary.request(Method::GET, "/api/generateSASToken");
    let token = Answer::of(request.send().await.unwrap()).await.body;
    assert!(token.contains("&spr=https"), "https alone");
    let details = token_at(&visionary.host.url()).await;
    assert!(details["containerUrl"].as_str().unwrap().starts_with("https://visionarytest.blob.core.windows.net/"));
}
