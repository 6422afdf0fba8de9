//! Models that go away, and what the app says of its state.

use devkit::stand_ins::host::LogLine;
use devkit::stand_ins::openai::{self, Dialect, Endpoint, Reply};
use serde_json::{Value, json};
use time::Duration;

use crate::harness::{self, Setup, Visionary};

/// Two models that draw and one that writes; these days are left to them.
async fn start(days: &[(&str, i64)], without: &[&str], dialect: Dialect) -> Visionary {
    let mut openai = openai::Options { dialect, ..openai::Options::default() };
    for (model, days) in days {
        let date = (harness::now() + Duration::days(*days)).date().to_string();
        openai.shutdown_dates.insert((*model).to_owned(), date);
    }
    openai.models.retain(|model| !without.contains(&model.as_str()));
    let setup = Setup { openai, keys: vec!["the-key".into()], ..Setup::default() };
    setup.set("OPENAI_IMAGE_MODEL", "gpt-image-2").set("OPENAI_IMAGE_FALLBACKS", "gpt-image-1.5").start().await
}

/// What the log says of a model, once it does.
async fn told(visionary: &Visionary, model: &str) -> Value {
    let of_model = |line: &LogLine| line.text.contains("change the setting") && line.text.contains(model);
    visionary.host.wait_for_log(of_model).await;
    let line = visionary.host.logs().into_iter().find(of_model).expect("it was there a moment ago");
    serde_json::from_str(&line.text).expect("a line of JSON")
}

async fn states(visionary: &Visionary) -> Vec<(String, Value)> {
    let status = visionary.get("/api/status?code=the-key").await.json();
    let models = status["models"].as_array().expect("models").clone();
    models.into_iter().map(|model| (model["model"].as_str().unwrap().to_owned(), model["state"].clone())).collect()
}

#[tokio::test]
async fn a_model_that_dies_soon_is_told_with_its_setting_and_the_fallbacks() {
    let days = [("gpt-image-2", 10), ("gpt-image-1.5", 60), ("gpt-6-luna", 91)];
    let visionary = start(&days, &[], Dialect::OpenAi).await;
    let soon = told(&visionary, "\"gpt-image-2\"").await;
    assert_eq!(soon["level"], "ERROR");
    assert_eq!((&soon["setting"], &soon["fallbacks"]), (&json!("OPENAI_IMAGE_MODEL"), &json!("gpt-image-1.5")));
    assert_eq!(soon["shutdown_date"], (harness::now() + Duration::days(10)).date().to_string());
    let later = told(&visionary, "OPENAI_IMAGE_FALLBACKS").await;
    assert_eq!((&later["level"], &later["model"]), (&json!("WARN"), &json!("gpt-image-1.5")));
    // Enough time is left to the third.
    assert!(!visionary.host.logs().iter().any(|line| line.text.contains("gpt-6-luna")));
    let available = |model: &str| (model.to_owned(), json!("available"));
    assert_eq!(states(&visionary).await, ["gpt-image-2", "gpt-image-1.5", "gpt-6-luna"].map(available));
    assert_eq!(visionary.get("/api/health").await.json()["status"], "ok", "it still draws");
}

#[tokio::test]
async fn a_model_that_is_gone_is_an_error_and_the_app_degraded() {
    let visionary = start(&[], &["gpt-image-2"], Dialect::OpenAi).await;
    let gone = told(&visionary, "\"gpt-image-2\"").await;
    assert_eq!((&gone["level"], &gone["setting"]), (&json!("ERROR"), &json!("OPENAI_IMAGE_MODEL")));
    assert_eq!(gone["fallbacks"], "gpt-image-1.5");
    assert_eq!(states(&visionary).await[0], ("gpt-image-2".to_owned(), json!("gone")));
    assert_eq!(visionary.get("/api/health").await.json()["status"], "degraded");
    // The fallback draws.
    assert_eq!(visionary.generate_json(&json!({"prompt": "a fox"})).await.json()["model"], "gpt-image-1.5");
}

#[tokio::test]
async fn a_model_that_cannot_be_asked_for_is_unknown_and_nobody_is_troubled() {
    let visionary = start(&[], &["gpt-image-2"], Dialect::Compatible).await;
    visionary.openai.wait_for_requests(Endpoint::Models, 3).await;
    assert_eq!(states(&visionary).await[0], ("gpt-image-2".to_owned(), json!("unknown")));
    assert_eq!(visionary.get("/api/health").await.json()["status"], "ok");
    assert!(!visionary.host.logs().iter().any(|line| line.text.contains("change the setting")));
}

/// Requests do not wait for the look at the models, and it does not fail with the provider.
#[tokio::test]
async fn a_provider_that_hangs_is_in_nobodys_way() {
    let hold = openai::Hold::new();
    let visionary = Visionary::start().await;
    visionary.openai.script_always(Endpoint::Models, Reply::normal().held_by(&hold));
    let mut visionary = visionary;
    visionary.host.kill_handler(0).await;
    visionary.host.start_handler(0).await.unwrap();
    hold.reached(1).await;
    assert_eq!(visionary.generate("a fox").await.status, 200);
    assert_eq!(visionary.get("/api/health").await.json()["status"], "ok");
    hold.release();
}

#[tokio::test]
async fn health_says_little_to_everybody_and_status_everything_to_the_operator() {
    let setup = Setup { keys: vec!["the-key".into()], ..Setup::default() };
    let visionary = setup.start().await;
    let health = visionary.get("/api/health").await;
    assert_eq!(health.json(), json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}));
    assert_eq!(health.header("cache-control"), "no-store");
    assert_eq!(visionary.get("/api/status").await.status, 401);
    let status = visionary.get("/api/status?code=the-key").await.json();
    let fields: Vec<&String> = status.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        ["build", "models", "provider", "status", "storage", "uptimeSeconds", "version", "waitingInSpool"]
    );
    assert_eq!((&status["storage"], &status["waitingInSpool"]), (&json!("reachable"), &json!(0)));
    // A key that is refused is the operator's to change.
    visionary.openai.script(Endpoint::Images, Reply::error(401, "invalid_request_error", "invalid_api_key", "no"));
    assert_eq!(visionary.generate("a fox").await.status, 502);
    assert_eq!(visionary.get("/api/health").await.json()["status"], "degraded");
}

#[tokio::test]
async fn an_app_whose_storage_cannot_be_reached_is_degraded() {
    // Nobody listens there.
    let storage = "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=c2VjcmV0;\
                   BlobEndpoint=http://127.0.0.1:9/devstoreaccount1;TableEndpoint=http://127.0.0.1:9/devstoreaccount1";
    let visionary = Setup::default().set("AzureWebJobsStorage", storage).start().await;
    assert_eq!(visionary.get("/api/health").await.json()["status"], "degraded");
    assert_eq!(visionary.get("/api/status").await.json()["storage"], "unreachable");
}
