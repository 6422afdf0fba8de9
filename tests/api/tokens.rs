//! The token of generateSASToken, used by Azure's JavaScript SDK.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use crate::harness::{Client, Setup, Visionary, now};

/// The statuses of the SDK's operations with a token, as in
/// `{"put": 201, "overwrite": 201, "get": 200, "delete": 403, "list": 403}`.
pub(crate) fn judge(container_url: &str, token: &str) -> Value {
    let script = crate::harness::root().join("devkit/npm/judge-token.cjs");
    let modules = devkit::npm::modules("npm").expect("the npm packages are there");
    let output = Command::new("node")
        .arg(script)
        .args([container_url, token])
        .env("NODE_PATH", modules)
        .output()
        .expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The JSON answer of generateSASToken.
async fn token_of(app: &Client) -> Value {
    app.request(Method::GET, "/api/generateSASToken").accept_json().send().await.json()
}

#[tokio::test]
async fn the_token_reads_creates_and_writes_until_it_expires() {
    let visionary = Visionary::start().await;
    // The first image creates the container.
    visionary.generate("a fox").await;

    let token = visionary.get("/api/generateSASToken").await;
    let details = token_of(&visionary.client).await;
    let now = now();
    let expired = token_of(&visionary.serve_at(now - Duration::minutes(31)).await).await;

    assert!(token.header("content-type").starts_with("text/plain"));
    assert!(token.body.starts_with("sv=") && token.body.contains("&sp=rcw&sr=c&"), "a query string without `?`");
    let container = details["containerUrl"].as_str().unwrap();
    assert_eq!(details["permissions"], "rcw");
    let allowed = json!({"put": 201, "overwrite": 201, "get": 200, "delete": 403, "list": 403});
    assert_eq!(judge(container, &token.body), allowed);
    let expires = details["expiresOn"].as_str().unwrap();
    let expires = OffsetDateTime::parse(expires, &Rfc3339).unwrap();
    assert!(expires - now <= Duration::minutes(30) && expires - now >= Duration::minutes(29));
    let nothing = json!({"put": 403, "overwrite": 403, "get": 403, "delete": 403, "list": 403});
    assert_eq!(judge(container, expired["sasToken"].as_str().unwrap()), nothing);
}

#[tokio::test]
async fn permissions_and_lifetime_are_settings_and_a_token_is_for_one_container() {
    let setup = Setup::default().set("SAS_PERMISSIONS", "lr").set("SAS_MINUTES", "5");
    let visionary = setup.start().await;
    visionary.generate("a fox").await;
    let other = Visionary::start().await;
    other.generate("a fox").await;

    let details = token_of(&visionary.client).await;
    let of_other = token_of(&other.client).await;

    let token = details["sasToken"].as_str().unwrap();
    assert!(token.contains("&sp=rl&"), "the permissions are in Azure's order");
    let container = details["containerUrl"].as_str().unwrap();
    let wanted = json!({"put": 403, "overwrite": 403, "get": 404, "delete": 403, "list": 200});
    assert_eq!(judge(container, token), wanted);
    let nothing = json!({"put": 403, "overwrite": 403, "get": 403, "delete": 403, "list": 403});
    assert_eq!(judge(of_other["containerUrl"].as_str().unwrap(), token), nothing);
}

#[tokio::test]
async fn a_token_for_an_https_endpoint_is_for_https_only() {
    let account = Setup::default()
        .set("AzureWebJobsStorage", "")
        .set("accountName", "visionarytest")
        .set("accountKey", "c2VjcmV0");
    let visionary = account.start().await;

    let token = visionary.get("/api/generateSASToken").await;
    let details = token_of(&visionary.client).await;

    assert!(token.body.contains("&spr=https"), "{}", token.body);
    assert!(details["containerUrl"].as_str().unwrap().starts_with("https://visionarytest.blob.core.windows.net/"));
}
