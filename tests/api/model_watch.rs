//! The watch over the models' shutdown dates, and the app's health and status.

use devkit::stand_ins::host::LogLine;
use devkit::stand_ins::openai::{self, Dialect, Endpoint, Reply};
use serde_json::{Value, json};
use time::Duration;

use crate::harness::{self, Setup, Visionary, eventually, masked};

/// The app with two image models and one text model: `days` until their shutdown, and models that are
/// gone.
async fn start(days: &[(&str, i64)], gone: &[&str], dialect: Dialect) -> Visionary {
    let mut openai = openai::Options { dialect, ..openai::Options::default() };
    for (model, days) in days {
        let date = (harness::now() + Duration::days(*days)).date().to_string();
        openai.shutdown_dates.insert((*model).to_owned(), date);
    }
    openai.models.retain(|model| !gone.contains(&model.as_str()));
    let setup = Setup { openai, keys: vec!["the-key".into()], ..Setup::default() };
    setup.set("OPENAI_IMAGE_MODEL", "gpt-image-2").set("OPENAI_IMAGE_FALLBACKS", "gpt-image-1.5").start().await
}

/// The log line about a model, once it is there.
async fn warning(visionary: &Visionary, model: &str) -> Value {
    let of_model = |line: &LogLine| line.text.contains("change the setting") && line.text.contains(model);
    visionary.host.wait_for_log(of_model).await;
    let line = visionary.host.logs().into_iter().find(of_model).expect("the line is there");
    serde_json::from_str(&line.text).expect("a line of JSON")
}

async fn states(visionary: &Visionary) -> Vec<(String, Value)> {
    let status = visionary.get("/api/status?code=the-key").await.json();
    let models = status["models"].as_array().expect("models").clone();
    models.into_iter().map(|model| (model["model"].as_str().unwrap().to_owned(), model["state"].clone())).collect()
}

#[tokio::test]
async fn a_coming_shutdown_is_logged_with_the_setting_and_the_fallbacks() {
    let days = [("gpt-image-2", 10), ("gpt-image-1.5", 60), ("gpt-6-luna", 91)];
    let visionary = start(&days, &[], Dialect::OpenAi).await;

    let soon = warning(&visionary, "\"gpt-image-2\"").await;
    let later = warning(&visionary, "OPENAI_IMAGE_FALLBACKS").await;

    assert_eq!(soon["level"], "ERROR");
    assert_eq!((&soon["setting"], &soon["fallbacks"]), (&json!("OPENAI_IMAGE_MODEL"), &json!("gpt-image-1.5")));
    assert_eq!(soon["shutdown_date"], (harness::now() + Duration::days(10)).date().to_string());
    assert_eq!((&later["level"], &later["model"]), (&json!("WARN"), &json!("gpt-image-1.5")));
    // 91 days are enough.
    assert!(!visionary.host.logs().iter().any(|line| line.text.contains("gpt-6-luna")));
    let available = |model: &str| (model.to_owned(), json!("available"));
    assert_eq!(states(&visionary).await, ["gpt-image-2", "gpt-image-1.5", "gpt-6-luna"].map(available));
    visionary.healthy().await;
}

#[tokio::test]
async fn a_model_that_is_gone_is_an_error_and_the_app_is_degraded() {
    let visionary = start(&[], &["gpt-image-2"], Dialect::OpenAi).await;

    let gone = warning(&visionary, "\"gpt-image-2\"").await;

    assert_eq!((&gone["level"], &gone["setting"]), (&json!("ERROR"), &json!("OPENAI_IMAGE_MODEL")));
    assert_eq!(gone["fallbacks"], "gpt-image-1.5");
    assert_eq!(states(&visionary).await[0], ("gpt-image-2".to_owned(), json!("gone")));
    assert_eq!(visionary.get("/api/health").await.json()["status"], "degraded");
    // The fallback draws.
    let answer = visionary.post("a fox").accept_json().send().await;
    assert_eq!(answer.json()["model"], "gpt-image-1.5");
}

#[tokio::test]
async fn without_a_model_list_the_state_is_unknown_and_nothing_is_logged() {
    let visionary = start(&[], &["gpt-image-2"], Dialect::Compatible).await;

    visionary.openai.wait_for_requests(Endpoint::Models, 3).await;

    assert_eq!(states(&visionary).await[0], ("gpt-image-2".to_owned(), json!("unknown")));
    visionary.healthy().await;
    assert!(!visionary.host.logs().iter().any(|line| line.text.contains("change the setting")));
}

#[tokio::test]
async fn requests_do_not_wait_for_the_models_endpoint() {
    let hold = openai::Hold::new();
    let mut visionary = Visionary::start().await;
    visionary.openai.script_always(Endpoint::Models, Reply::normal().held_by(&hold));

    visionary.restart_handler().await;
    hold.reached(1).await;

    assert_eq!(visionary.generate("a fox").await.status, 200);
    visionary.healthy().await;
    hold.release();
}

#[tokio::test]
async fn health_is_public_and_status_needs_the_key() {
    let setup = Setup { keys: vec!["the-key".into()], ..Setup::default() };
    let visionary = setup.start().await;
    visionary.openai.wait_for_requests(Endpoint::Models, 2).await;

    let health = visionary.healthy().await;
    let without_key = visionary.get("/api/status").await;
    let known = |status: &Value| {
        let models = status["models"].as_array().unwrap();
        models.iter().all(|model| model["state"] != "unknown")
    };
    let look = async || visionary.get("/api/status?code=the-key").await.json();
    let status = eventually("the state of the models is known", look, known).await;

    assert_eq!(health.header("cache-control"), "no-store");
    assert_eq!(health.json()["version"], env!("CARGO_PKG_VERSION"));
    insta::assert_json_snapshot!(masked(health.json(), &["version"]), @r#"
    {
      "status": "ok",
      "version": "[version]"
    }
    "#);
    assert_eq!(without_key.status, 401);
    insta::assert_json_snapshot!(masked(status, &["build", "uptimeSeconds", "version"]), @r#"
    {
      "build": "[build]",
      "models": [
        {
          "model": "gpt-image-2.5-flare",
          "setting": "OPENAI_IMAGE_MODEL",
          "shutdownDate": null,
          "state": "available"
        },
        {
          "model": "gpt-6-luna",
          "setting": "OPENAI_TEXT_MODEL",
          "shutdownDate": null,
          "state": "available"
        }
      ],
      "provider": "ok",
      "status": "ok",
      "storage": "reachable",
      "uptimeSeconds": "[uptimeSeconds]",
      "version": "[version]",
      "waitingInSpool": 0
    }
    "#);
}

#[tokio::test]
async fn a_refused_key_makes_the_app_degraded() {
    let visionary = Visionary::start().await;

    visionary.openai.script(Endpoint::Images, Reply::error(401, "invalid_request_error", "invalid_api_key", "no"));
    assert_eq!(visionary.generate("a fox").await.status, 502);
    assert_eq!(visionary.get("/api/health").await.json()["status"], "degraded");
}

#[tokio::test]
async fn unreachable_storage_makes_the_app_degraded() {
    // No server listens on this port.
    let storage = "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=c2VjcmV0;\
                   BlobEndpoint=http://127.0.0.1:9/devstoreaccount1;TableEndpoint=http://127.0.0.1:9/devstoreaccount1";
    let visionary = Setup::default().set("AzureWebJobsStorage", storage).start().await;
    assert_eq!(visionary.get("/api/health").await.json()["status"], "degraded");
    assert_eq!(visionary.get("/api/status").await.json()["storage"], "unreachable");
}
