//! Azure OpenAI and compatible servers need settings only.

use devkit::stand_ins::openai::{self, Dialect, Endpoint, Reply};
use serde_json::json;

use crate::harness::{API_KEY, Setup, Visionary};

/// An app on Azure OpenAI. The deployments' names do not contain their models' names.
async fn azure() -> Visionary {
    let models = vec!["images".to_owned(), "texts".to_owned()];
    let openai = openai::Options { dialect: Dialect::Azure, models, ..openai::Options::default() };
    let setup = Setup { openai, ..Setup::default() };
    setup
        .set("OPENAI_AUTH", "api-key")
        .set("OPENAI_IMAGE_MODEL", "images")
        .set("OPENAI_IMAGE_WIRE", "gpt-image")
        .set("OPENAI_TEXT_MODEL", "texts")
        .start()
        .await
}

#[tokio::test]
async fn azure_draws_and_suggests_with_its_key_and_its_query() {
    let visionary = azure().await;

    let body = json!({"prompt": "a fox", "enhance": "rewrite"});
    let image = visionary.post_json(&body).accept_json().send().await;
    let suggestion = visionary.get("/api/getChatGPTSuggestion").await;

    assert_eq!((image.status, &image.json()["model"]), (200, &json!("images")), "{}", image.body);
    assert_eq!(image.json()["enhancement"], "rewrite");
    assert_eq!(suggestion.header("x-suggestion-source"), "model");
    visionary.openai.wait_for_requests(Endpoint::Models, 2).await;
    let requests =
        [Endpoint::Images, Endpoint::Responses, Endpoint::Models].map(|part| visionary.openai.requests(part));
    for request in requests.iter().flatten() {
        assert_eq!(request.headers["api-key"], API_KEY);
        assert!(!request.headers.contains_key("authorization"));
        assert!(request.uri.starts_with("/openai/v1/"), "{}", request.uri);
        assert!(request.uri.ends_with("?api-version=preview"), "{}", request.uri);
    }
    assert!(visionary.openai.requests(Endpoint::Images)[0].body.get("response_format").is_none());
    let is_logged = visionary.host.logs().iter().any(|line| line.text.contains(API_KEY));
    assert!(!is_logged, "the key is logged");
}

#[tokio::test]
async fn azures_refusals_have_the_same_codes_as_openais() {
    let visionary = azure().await;

    let filtered = visionary.generate("a forbidden fox").await;
    let webp = visionary.post_json(&json!({"prompt": "a fox", "outputFormat": "webp"})).send().await;

    assert_eq!(filtered.status_and_code(), (422, "prompt_rejected"));
    assert_eq!(webp.status_and_code(), (400, "invalid_request"));
    assert!(webp.body.contains("does not support this outputFormat"), "{}", webp.body);
    assert!(visionary.openai.images_drawn().is_empty());
    assert_eq!(visionary.get("/api/quota").await.json()["used"], 0, "neither counts");
}

/// The app cannot know the model behind a deployment. A model that refuses the reasoning parameter gets
/// no such parameter from then on, and a deployment that the model list lacks is not gone.
#[tokio::test]
async fn a_deployment_of_an_older_model_writes_and_draws() {
    let openai = openai::Options {
        dialect: Dialect::Azure,
        models: vec!["images".to_owned(), "texts-4.1".to_owned()],
        ..openai::Options::default()
    };
    let visionary = Setup { openai, ..Setup::default() }
        .set("OPENAI_AUTH", "api-key")
        .set("OPENAI_IMAGE_MODEL", "images")
        .set("OPENAI_TEXT_MODEL", "texts-4.1")
        .start()
        .await;

    for _ in 0..2 {
        let answer = visionary.get("/api/getChatGPTSuggestion?about=a%20fox").await;
        assert_eq!(answer.header("x-suggestion-source"), "model", "{}", answer.body);
    }
    assert_eq!(visionary.openai.requests(Endpoint::Responses).len(), 3, "the first request is refused and repeated");
    visionary.openai.wait_for_requests(Endpoint::Models, 2).await;
    visionary.healthy().await;
}

#[tokio::test]
async fn a_size_that_the_deployments_model_does_not_support_is_400() {
    let visionary = azure().await;
    visionary.openai.script(
        Endpoint::Images,
        Reply::json(
            400,
            &json!({"error": {"code": "invalid_value", "param": "size", "type": "invalid_request_error"}}),
        ),
    );

    let answer = visionary.post_json(&json!({"prompt": "a fox", "size": "1792x1024"})).send().await;

    assert_eq!(answer.status_and_code(), (400, "invalid_request"), "{}", answer.body);
}

#[tokio::test]
async fn each_form_of_the_content_filters_refusal_is_prompt_rejected() {
    let visionary = azure().await;

    for error in [
        json!({"code": "contentFilter", "param": "prompt", "type": null}),
        json!({"code": "content_filter", "innererror": {"code": "ResponsibleAIPolicyViolation"}}),
        json!({"code": 400, "param": ["prompt"], "innererror": {"code": "ResponsibleAIPolicyViolation"}}),
        json!({"type": "image_generation_user_error", "code": "moderation_blocked"}),
    ] {
        visionary.openai.script(Endpoint::Images, Reply::json(400, &json!({"error": error})));
        let answer = visionary.generate("a fox").await;
        assert_eq!(answer.status_and_code(), (422, "prompt_rejected"), "{error}");
    }
}

#[tokio::test]
async fn a_compatible_server_with_dall_e_and_the_old_text_api_needs_settings_only() {
    let openai = openai::Options {
        dialect: Dialect::Compatible,
        models: vec!["dall-e-3".to_owned(), "gpt-3.5-turbo-instruct".to_owned()],
        ..openai::Options::default()
    };
    let visionary = Setup { openai, ..Setup::default() }
        .set("OPENAI_IMAGE_MODEL", "dall-e-3")
        .set("OPENAI_TEXT_MODEL", "gpt-3.5-turbo-instruct")
        .start()
        .await;

    let body = json!({"prompt": "a fox", "quality": "hd", "style": "vivid"});
    let image = visionary.post_json(&body).accept_json().send().await;
    let suggestion = visionary.get("/api/getChatGPTSuggestion").await;

    assert_eq!((image.status, &image.json()["quality"]), (200, &json!("hd")), "{}", image.body);
    assert_eq!(suggestion.header("x-suggestion-source"), "model");
}

#[tokio::test]
async fn a_key_in_the_wrong_header_names_the_setting() {
    let visionary = Setup::default().set("OPENAI_AUTH", "api-key").start().await;
    let answer = visionary.generate("a fox").await;
    assert_eq!(answer.status_and_code(), (502, "provider_misconfigured"));
    assert!(answer.body.contains("OPENAI_API_KEY"), "{}", answer.body);
}
