//! The stand-in for OpenAI refuses requests that the real API refuses, and breaks connections as scripted.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use devkit::stand_ins::artist;
use devkit::stand_ins::openai::{Dialect, Endpoint, Hold, OpenAi, Options, Reply};
use reqwest::Response;
use serde_json::{Value, json};

async fn post(openai: &OpenAi, path: &str, body: &Value) -> reqwest::Result<Response> {
    let request = reqwest::Client::new().post(format!("{}/{path}", openai.base_url()));
    request.bearer_auth("key").json(body).send().await
}

async fn verdict(openai: &OpenAi, path: &str, body: &Value) -> (u16, String) {
    let answer = post(openai, path, body).await.unwrap();
    assert!(answer.headers().contains_key("x-request-id"));
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
}

/// A request for an image of a fox, with `more` fields.
fn image(model: &str, more: &Value) -> Value {
    let mut body = json!({"model": model, "prompt": "a fox"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn each_model_family_accepts_only_its_own_fields_and_values() {
    let openai = OpenAi::start().await.unwrap();
    let (dall_e, first, second, fine) = ("dall-e-3", "gpt-image-1.5", "gpt-image-2", "gpt-image-2.5-flare");
    for (model, more) in [
        (dall_e, json!({"response_format": "url", "style": "vivid", "quality": "hd", "size": "1792x1024"})),
        (first, json!({"quality": "high", "size": "1536x1024", "output_format": "webp", "output_compression": 50})),
        (second, json!({"size": "1280x720", "background": "opaque", "moderation": "low"})),
        (fine, json!({"quality": "max", "size": "auto", "n": 10})),
    ] {
        assert_eq!(verdict(&openai, "images/generations", &image(model, &more)).await.0, 200, "{model} {more}");
    }
    for (model, more, code) in [
        (fine, json!({"response_format": "b64_json"}), "unknown_parameter"),
        (fine, json!({"style": "vivid"}), "unknown_parameter"),
        (dall_e, json!({"background": "auto"}), "unknown_parameter"),
        (dall_e, json!({"n": 2}), "invalid_value"),
        (dall_e, json!({"size": "1536x1024"}), "invalid_value"),
        (dall_e, json!({"quality": "high"}), "invalid_value"),
        (first, json!({"size": "1792x1024"}), "invalid_value"),
        (first, json!({"quality": "hd"}), "invalid_value"),
        (second, json!({"quality": "xhigh"}), "invalid_value"),
        (second, json!({"size": "1000x1000"}), "invalid_value"),
        (second, json!({"size": "4096x1024"}), "invalid_value"),
        (fine, json!({"output_compression": 50}), "invalid_value"),
        (fine, json!({"background": "transparent", "output_format": "jpeg"}), "invalid_value"),
        (fine, json!({"prompt": ""}), "missing_required_parameter"),
        (dall_e, json!({"prompt": "x".repeat(4_001)}), "string_above_max_length"),
        (fine, json!({"prompt": "forbidden"}), "moderation_blocked"),
    ] {
        let (status, actual) = verdict(&openai, "images/generations", &image(model, &more)).await;
        assert_eq!((status, actual.as_str()), (400, code), "{model} {more}");
    }
    let unknown = verdict(&openai, "images/generations", &image("dall-e-2", &json!({}))).await;
    assert_eq!(unknown, (404, "model_not_found".to_owned()));
    assert_eq!(openai.images_drawn().len(), 4, "a refused request draws no image");
}

#[tokio::test]
async fn a_request_without_a_key_or_without_json_is_refused() {
    let openai = OpenAi::start().await.unwrap();
    let url = format!("{}/images/generations", openai.base_url());
    let body = image("gpt-image-2", &json!({}));
    let no_key = reqwest::Client::new().post(&url).json(&body).send().await.unwrap();
    assert_eq!(no_key.status(), 401);
    let no_json = reqwest::Client::new().post(&url).bearer_auth("key").body(body.to_string()).send().await.unwrap();
    assert_eq!(no_json.status(), 400);
}

/// Each case: dialect, path below the base URL, header of the key, query, JSON fields, and the expected status.
#[tokio::test]
async fn each_dialect_accepts_only_its_own_key_header_and_urls() {
    const DRAW: &str = "images/generations";
    for (dialect, path, header, version, more, status) in [
        (Dialect::OpenAi, DRAW, "authorization", "", json!({}), 200),
        (Dialect::OpenAi, DRAW, "api-key", "", json!({}), 401),
        (Dialect::OpenAi, "models/gpt-image-2", "authorization", "", json!(null), 200),
        (Dialect::OpenAi, "models/gone", "authorization", "", json!(null), 404),
        (Dialect::Azure, DRAW, "api-key", "?api-version=preview", json!({}), 200),
        (Dialect::Azure, DRAW, "api-key", "", json!({}), 404),
        (Dialect::Azure, DRAW, "authorization", "?api-version=preview", json!({}), 401),
        (Dialect::Azure, DRAW, "api-key", "?api-version=preview", json!({"output_format": "webp"}), 400),
        (Dialect::Azure, DRAW, "api-key", "?api-version=preview", json!({"response_format": "b64_json"}), 400),
        (Dialect::Azure, DRAW, "api-key", "?api-version=preview", json!({"prompt": "forbidden"}), 400),
        (Dialect::Azure, "models/gpt-image-2", "api-key", "?api-version=preview", json!(null), 404),
        (Dialect::Compatible, DRAW, "authorization", "", json!({}), 200),
        (Dialect::Compatible, "models/gpt-image-2", "authorization", "", json!(null), 404),
    ] {
        let openai = OpenAi::start_with(Options { dialect, ..Options::default() }).await.unwrap();
        let base = openai.base_url();
        let url = format!("{}/{path}{version}", base.split('?').next().unwrap().trim_end_matches('/'));
        let http = reqwest::Client::new();
        let request = if more.is_null() { http.get(url) } else { http.post(url).json(&image("gpt-image-2", &more)) };
        let key = if header == "authorization" { "Bearer key" } else { "key" };
        let answer = request.header(header, key).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{dialect:?} {path}{version} {header} {more}");
        let filtered = more["prompt"] == "forbidden";
        let code = answer.json::<Value>().await.unwrap()["error"]["code"].clone();
        assert_eq!(code == "contentFilter", filtered, "{dialect:?} {more}");
    }
}

#[tokio::test]
async fn the_text_endpoints_refuse_fields_that_their_models_do_not_accept() {
    let openai = OpenAi::start().await.unwrap();
    let messages = json!([{"role": "user", "content": "x"}]);
    for (path, body, status) in [
        ("responses", json!({"model": "gpt-6-luna", "input": "x", "reasoning": {"effort": "none"}}), 200),
        ("responses", json!({"model": "gpt-6-luna", "input": "x", "temperature": 1}), 400),
        ("responses", json!({"model": "gpt-4.1-mini", "input": "x", "reasoning": {"effort": "none"}}), 400),
        ("responses", json!({"model": "gpt-6-luna", "prompt": "x"}), 400),
        ("chat/completions", json!({"model": "gpt-6-luna", "messages": messages, "reasoning_effort": "none"}), 200),
        ("chat/completions", json!({"model": "gpt-6-luna", "messages": messages, "max_tokens": 9}), 400),
        ("completions", json!({"model": "gpt-3.5-turbo-instruct", "prompt": "x", "max_tokens": 9}), 200),
        ("completions", json!({"model": "gpt-6-luna", "prompt": "x"}), 404),
        ("moderations", json!({"input": "forbidden"}), 200),
        ("moderations", json!({}), 400),
    ] {
        assert_eq!(verdict(&openai, path, &body).await.0, status, "{path} {body}");
    }
}

#[tokio::test]
async fn a_client_gets_each_reply_and_fault_as_scripted() {
    let openai = OpenAi::start().await.unwrap();
    let body = image("gpt-image-2", &json!({}));
    let path = "images/generations";

    openai.script(
        Endpoint::Images,
        Reply::error(503, "server_error", "server_is_overloaded", "x").header("retry-after", "2"),
    );
    let answer = post(&openai, path, &body).await.unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["retry-after"]), (503, &"2".parse().unwrap()));

    openai.script(Endpoint::Images, Reply::normal().cut_before_answer());
    assert!(post(&openai, path, &body).await.is_err(), "the connection closes before the status");

    openai.script(Endpoint::Images, Reply::normal().cut_inside_body());
    let answer = post(&openai, path, &body).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.bytes().await.is_err(), "the connection closes inside the body");

    openai.script(Endpoint::Images, Reply::normal().patch(|answer| answer["data"] = json!([])));
    let answer: Value = post(&openai, path, &body).await.unwrap().json().await.unwrap();
    assert_eq!(answer["data"], json!([]));

    let hold = Hold::new();
    openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let release = async {
        hold.reached(1).await;
        hold.release();
    };
    let (answer, ()) = tokio::join!(post(&openai, path, &body), release);
    assert_eq!(answer.unwrap().status(), 200);
    openai.wait_for_requests(Endpoint::Images, 5).await;
    assert_eq!(openai.images_drawn().len(), 4, "an image counts as drawn even if its answer was lost");
}

#[test]
fn any_prompt_always_gives_the_same_image_of_the_requested_size() {
    let long = "word ".repeat(500);
    let wide = "x".repeat(3_000);
    for prompt in ["a fox", "🦊 ثعلب \u{0} 狐", long.as_str(), wide.as_str(), ""] {
        let image = artist::draw(prompt, 448, 256).unwrap();
        assert_eq!(image, artist::draw(prompt, 448, 256).unwrap());
        assert_eq!(image[16..24], [[0, 0, 1, 192], [0, 0, 1, 0]].concat());
    }
    assert_ne!(artist::draw("a fox", 64, 64).unwrap(), artist::draw("a cat", 64, 64).unwrap());
}
