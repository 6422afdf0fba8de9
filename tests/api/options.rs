//! `GET /api/options`: what a front end can offer.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Setup, Visionary};

/// The sizes, each with its qualities, then all qualities and formats. The default has a star.
fn shown(options: &Value) -> String {
    let list = |name: &str| options[name].as_array().unwrap().clone();
    let star = |entry: &Value| if entry["isDefault"] == true { "*" } else { "" };
    let named = |entry: &Value| format!("{}{}", entry["name"].as_str().unwrap(), star(entry));
    let mut lines: Vec<String> = Vec::new();
    for size in list("sizes") {
        let qualities: Vec<&str> = size["qualities"].as_array().unwrap().iter().map(|q| q.as_str().unwrap()).collect();
        assert_eq!(size["name"], format!("{}x{}", size["width"], size["height"]));
        lines.push(format!("{}: {}", named(&size), qualities.join(" ")));
    }
    for name in ["qualities", "formats"] {
        lines.push(format!("{name}: {}", list(name).iter().map(named).collect::<Vec<_>>().join(" ")));
    }
    lines.join("\n")
}

async fn with_model(model: &str, max_image_usd: &str) -> (Visionary, Value) {
    let setup = Setup::default().set("OPENAI_IMAGE_MODEL", model).set("MAX_IMAGE_USD", max_image_usd);
    let visionary = setup.start().await;
    let options = visionary.get("/api/options").await;
    assert_eq!(options.status, 200, "{}", options.body);
    assert!(!options.body.to_lowercase().contains("usd") && !options.body.contains('$'), "no price is named");
    (visionary, options.json())
}

#[tokio::test]
async fn the_options_are_those_of_the_configured_model() {
    let (_, options) = with_model("gpt-image-2.5-flare", "").await;
    insta::assert_snapshot!(shown(&options), @r"
    1024x1024*: low medium high
    1024x1792: low medium high
    1792x1024: low medium high
    qualities: low medium* high
    formats: png* jpeg webp
    ");
    assert_eq!(options["maxPromptCharacters"], 32_000);

    let (_, options) = with_model("gpt-image-1.5", "0").await;
    insta::assert_snapshot!(shown(&options), @r"
    1024x1024*: low medium high
    1024x1536: low medium high
    1536x1024: low medium high
    qualities: low medium* high
    formats: png* jpeg webp
    ");

    let (_, options) = with_model("dall-e-3", "").await;
    insta::assert_snapshot!(shown(&options), @r"
    1024x1024*: standard hd
    1024x1792: standard hd
    1792x1024: standard hd
    qualities: standard* hd
    formats: png*
    ");
    assert_eq!(options["maxPromptCharacters"], 4_000);
}

#[tokio::test]
async fn what_the_ceiling_refuses_is_not_offered() {
    let (visionary, options) = with_model("gpt-image-2.5-flare", "0.07").await;
    insta::assert_snapshot!(shown(&options), @r"
    1024x1024*: low medium
    1024x1792: low
    1792x1024: low
    qualities: low medium*
    formats: png* jpeg webp
    ");
    for (size, quality, status) in [
        ("1024x1024", "medium", 200),
        ("1024x1792", "low", 200),
        ("1024x1792", "medium", 400),
        ("1024x1024", "high", 400),
    ] {
        let body = json!({"prompt": "a fox", "size": size, "quality": quality});
        assert_eq!(visionary.post_json(&body).send().await.status, status, "{size} {quality}");
    }

    let (_, options) = with_model("gpt-image-2.5-flare", "0.03").await;
    assert!(shown(&options).contains("\nqualities: low*\n"), "{}", shown(&options));
    let (_, options) = with_model("gpt-image-2.5-flare", "0.001").await;
    assert_eq!((&options["sizes"], &options["qualities"]), (&json!([]), &json!([])));
}

#[tokio::test]
async fn the_other_options_follow_from_the_settings_and_a_client_keeps_the_answer() {
    let visionary = Visionary::start().await;
    let answer = visionary.get("/api/options").await;
    assert_eq!(answer.header("cache-control"), "public, max-age=300");
    let etag = answer.header("etag");
    let again = visionary.request(Method::GET, "/api/options").header("if-none-match", etag).send().await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    let options = answer.json();
    assert_eq!(options["enhancements"], json!(["off", "style", "rewrite"]));
    assert_eq!(options["styles"][0], json!({"name": "cinematic", "title": "Cinematic"}));
    let of = |options: &Value| ["defaultEnhancement", "variations", "jobs", "signIn"].map(|name| options[name].clone());
    assert_eq!(of(&options), [json!("off"), json!([1, 2, 4]), json!(true), json!(false)]);

    let setup = Setup::default().set("DAILY_IMAGE_QUOTA", "3").set("PROMPT_ENHANCEMENT", "style");
    let other = setup.set("WEBSITE_AUTH_ENABLED", "True").start().await.get("/api/options").await;
    assert_eq!(of(&other.json()), [json!("style"), json!([1, 2]), json!(true), json!(true)]);
    assert_ne!(other.header("etag"), etag);
}
