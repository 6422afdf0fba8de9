//! The stand-ins for identity refuse requests that Azure refuses: the token endpoint, and the services that take its
//! tokens.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use devkit::queue::Queue;
use devkit::stand_ins::azurite::ACCOUNT;
use devkit::stand_ins::identity::{CLIENT_ID, Identity, OPENAI, Role, STORAGE};
use devkit::stand_ins::keyless::{KeylessAccount, Proof, Service};
use devkit::stand_ins::openai::{self, Dialect, OpenAi};
use devkit::table::Tables;
use reqwest::{Client, Method, RequestBuilder};
use ring::hmac;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, Time};

/// A request for a token as the handler sends it.
fn ask(identity: &Identity, resource: &str) -> RequestBuilder {
    let [(_, endpoint), (_, header)] = identity.variables();
    let query = [("api-version", "2019-08-01"), ("resource", resource), ("client_id", CLIENT_ID)];
    Client::new().get(endpoint).query(&query).header("X-IDENTITY-HEADER", header)
}

async fn token(identity: &Identity, resource: &str) -> String {
    let answer: Value = ask(identity, resource).send().await.unwrap().json().await.unwrap();
    answer["access_token"].as_str().expect("a token").to_owned()
}

async fn status(request: RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

/// The status and the error code of a request to the account.
async fn verdict(request: RequestBuilder) -> (u16, String) {
    let answer = request.send().await.unwrap();
    assert!(answer.headers().contains_key("x-ms-request-id"));
    let code = answer.headers().get("x-ms-error-code").map(|code| code.to_str().unwrap().to_owned());
    (answer.status().as_u16(), code.unwrap_or_default())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// A request below the account at the guarded entrance.
fn request(account: &KeylessAccount, service: Service, method: Method, path: &str) -> RequestBuilder {
    let port = account.ports()[Service::ALL.iter().position(|one| *one == service).unwrap()];
    let request = Client::new().request(method, format!("http://127.0.0.1:{port}/{ACCOUNT}{path}"));
    request.header("x-ms-version", "2022-11-02").header("accept", "application/json;odata=nometadata")
}

#[tokio::test]
async fn the_endpoint_issues_tokens_to_a_request_with_the_header_version_resource_and_client_id() {
    let identity = Identity::start().await.unwrap();
    let [(_, endpoint), (_, header)] = identity.variables();
    let answer: Value = ask(&identity, STORAGE).send().await.unwrap().json().await.unwrap();
    assert_eq!((&answer["token_type"], &answer["resource"]), (&json!("Bearer"), &json!(STORAGE)));
    assert!(answer["expires_on"].as_str().unwrap().parse::<i64>().unwrap() > 0, "seconds as a string");

    let with = |query: &[(&str, &str)], header: &str| {
        Client::new().get(&endpoint).query(query).header("X-IDENTITY-HEADER", header)
    };
    let (version, resource, client) = (("api-version", "2019-08-01"), ("resource", STORAGE), ("client_id", CLIENT_ID));
    assert_eq!(status(with(&[version, resource, client], "wrong")).await, 401);
    assert_eq!(status(with(&[("api-version", "2017-09-01"), resource, client], &header)).await, 400);
    assert_eq!(status(with(&[version, ("resource", "https://example.com"), client], &header)).await, 400);
    assert_eq!(status(with(&[version, resource], &header)).await, 400, "there is no system-assigned identity");
    assert_eq!(status(with(&[version, resource, ("client_id", "another")], &header)).await, 400);
    assert_eq!(identity.requests().resources, [STORAGE, "", "", "", "", ""]);

    identity.fail(&[429, 500]);
    for wanted in [429, 500, 200] {
        assert_eq!(status(ask(&identity, OPENAI)).await, wanted);
    }
    assert_eq!(identity.requests().most_at_once, 1);
}

#[tokio::test]
async fn the_account_takes_tokens_of_its_identity_with_the_role_and_nothing_else() {
    let identity = Identity::start().await.unwrap();
    let account = KeylessAccount::start(&identity).await.unwrap();
    let good = token(&identity, STORAGE).await;
    let wrong = token(&identity, OPENAI).await;
    identity.let_tokens_live(Duration::ZERO);
    let old = token(&identity, STORAGE).await;

    let container = || request(&account, Service::Blob, Method::PUT, "/box?restype=container");
    assert_eq!(verdict(container()).await, refused(401, "NoAuthenticationInformation"));
    for key in ["SharedKey devstoreaccount1:c2ln", "SharedKeyLite devstoreaccount1:c2ln"] {
        let signed = container().header("authorization", key);
        assert_eq!(verdict(signed).await, refused(403, "KeyBasedAuthenticationNotPermitted"));
    }
    let signed = request(&account, Service::Blob, Method::GET, "/box/fox.png?sv=2022-11-02&sp=r&sig=c2ln");
    assert_eq!(verdict(signed).await, refused(403, "KeyBasedAuthenticationNotPermitted"));
    for token in [&wrong, &old] {
        assert_eq!(verdict(container().bearer_auth(token)).await, refused(401, "InvalidAuthenticationInfo"));
    }
    assert_eq!(verdict(container().bearer_auth("e30.e30.e30")).await.0, 401);
    let without_version = Client::new().put(format!("http://127.0.0.1:{}/{ACCOUNT}/box", account.ports()[0]));
    assert_eq!(verdict(without_version.bearer_auth(&good)).await, refused(403, "AuthenticationFailed"));

    let queue = || request(&account, Service::Queue, Method::PUT, "/jobs").bearer_auth(&good);
    let table = || {
        let create = request(&account, Service::Table, Method::POST, "/Tables").bearer_auth(&good);
        create.json(&json!({"TableName": "things"}))
    };
    let blob = || request(&account, Service::Blob, Method::PUT, "/box/fox.png").header("x-ms-blob-type", "BlockBlob");
    let blob = || blob().body("a fox").bearer_auth(&good);
    for (role, request) in [
        (Role::BlobDataContributor, &(|| container().bearer_auth(&good)) as &dyn Fn() -> RequestBuilder),
        (Role::BlobDataContributor, &blob),
        (Role::QueueDataContributor, &queue),
        (Role::TableDataContributor, &table),
    ] {
        identity.revoke(role);
        assert_eq!(verdict(request()).await, refused(403, "AuthorizationPermissionMismatch"), "{role:?}");
        identity.grant(role);
        assert_eq!(verdict(request()).await, refused(201, ""), "{role:?}");
    }
    let head = request(&account, Service::Blob, Method::HEAD, "/box/fox.png").bearer_auth(&good);
    assert_eq!(head.send().await.unwrap().headers()["content-length"], "5");
    let shared = account.requests().iter().filter(|seen| seen.proof == Proof::SharedKey).count();
    assert_eq!(shared, 3);

    // The second entrance has no guard.
    let tables = Tables::of(&account.connection_string()).unwrap();
    tables.insert("things", &[json!({"PartitionKey": "a", "RowKey": "b"})]).await.unwrap();
    assert!(tables.has_rows("things", "PartitionKey eq 'a'").await.unwrap());
    let queue = Queue::open(&account.connection_string(), "jobs").unwrap();
    queue.put("a job").await.unwrap();
    assert_eq!(queue.peek().await.unwrap(), ["a job"]);
    assert_eq!(account.requests().iter().filter(|seen| seen.proof == Proof::SharedKey).count(), shared);
}

#[tokio::test]
async fn a_link_with_a_user_delegation_key_lives_as_long_as_the_role() {
    let identity = Identity::start().await.unwrap();
    let account = KeylessAccount::start(&identity).await.unwrap();
    let token = token(&identity, STORAGE).await;
    let blob = |method, path: &str| request(&account, Service::Blob, method, path);
    let create = blob(Method::PUT, "/box?restype=container").bearer_auth(&token);
    assert_eq!(verdict(create).await, refused(201, ""));
    let upload = blob(Method::PUT, "/box/fox.png").bearer_auth(&token).header("x-ms-blob-type", "BlockBlob");
    assert_eq!(verdict(upload.body("a fox")).await, refused(201, ""));

    let midnight = OffsetDateTime::now_utc().replace_time(Time::MIDNIGHT);
    let (start, end) = (midnight - time::Duration::days(1), midnight + time::Duration::days(2));
    let (start, end) = (start.format(&Rfc3339).unwrap(), end.format(&Rfc3339).unwrap());
    let wanted = format!("<KeyInfo><Start>{start}</Start><Expiry>{end}</Expiry></KeyInfo>");
    let ask = || {
        let ask = blob(Method::POST, "/?restype=service&comp=userdelegationkey").bearer_auth(&token);
        ask.body(wanted.clone())
    };
    identity.revoke(Role::BlobDelegator);
    assert_eq!(verdict(ask()).await, refused(403, "AuthorizationPermissionMismatch"));
    identity.grant(Role::BlobDelegator);
    let key = ask().send().await.unwrap().text().await.unwrap();
    let part = |name: &str| {
        let (_, rest) = key.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("no {name} in {key}"));
        rest.split('<').next().unwrap().to_owned()
    };
    let (oid, tid, version) = (part("SignedOid"), part("SignedTid"), part("SignedVersion"));
    let (sv, path) = ("2022-11-02", format!("/blob/{ACCOUNT}/box"));
    let signed = [
        &["r", &start, &end, &path, &oid, &tid, &start, &end, "b", &version, "", "", ""][..],
        &["", "https,http", sv, "c", "", "", "", "", "", "", ""],
    ];
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_STANDARD.decode(part("Value")).unwrap());
    let signature = BASE64_STANDARD.encode(hmac::sign(&secret, signed.concat().join("\n").as_bytes()));
    let query = [
        ("sv", sv),
        ("spr", "https,http"),
        ("st", &start),
        ("se", &end),
        ("skoid", &oid),
        ("sktid", &tid),
        ("skt", &start),
        ("ske", &end),
        ("sks", "b"),
        ("skv", &version),
        ("sr", "c"),
        ("sp", "r"),
        ("sig", &signature),
    ];
    let open = || blob(Method::GET, "/box/fox.png").query(&query);
    assert_eq!(open().send().await.unwrap().text().await.unwrap(), "a fox");
    let write = blob(Method::PUT, "/box/fox.png").query(&query).header("x-ms-blob-type", "BlockBlob").body("a cat");
    assert_eq!(verdict(write).await.0, 403);
    identity.revoke(Role::BlobDataContributor);
    assert_eq!(verdict(open()).await, refused(403, "AuthorizationPermissionMismatch"));
}

#[tokio::test]
async fn azure_openai_takes_tokens_of_the_identity_with_the_role_and_no_key() {
    let identity = Identity::start().await.unwrap();
    let options = openai::Options { dialect: Dialect::Azure, identity: Some(identity.clone()), ..Default::default() };
    let openai = OpenAi::start_with(options).await.unwrap();
    let (good, wrong) = (token(&identity, OPENAI).await, token(&identity, STORAGE).await);
    let draw = || {
        let url = format!("http://127.0.0.1:{}/openai/v1/images/generations?api-version=preview", openai.port());
        Client::new().post(url).json(&json!({"model": "gpt-image-2", "prompt": "a fox"}))
    };
    assert_eq!(status(draw()).await, 401);
    assert_eq!(status(draw().header("api-key", "key")).await, 403);
    assert_eq!(status(draw().bearer_auth(wrong)).await, 401);
    identity.revoke(Role::OpenAiUser);
    assert_eq!(status(draw().bearer_auth(&good)).await, 401);
    identity.grant(Role::OpenAiUser);
    assert_eq!(status(draw().bearer_auth(&good)).await, 200);
}
