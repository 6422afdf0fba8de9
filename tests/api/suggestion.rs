//! A suggestion that cannot fail.

use std::collections::BTreeSet;
use std::time::Duration;

use devkit::openai::{Endpoint, Reply};
use serde_json::json;

use crate::harness::{Answer, Setup, Visionary, WIRES};

fn usable(answer: &Answer, source: &str) {
    assert_eq!((answer.status, answer.header("x-suggestion-source")), (200, source), "{}", answer.body);
    assert!(answer.header("content-type").starts_with("text/plain"));
    assert!(answer.body.len() > 30 && answer.body.trim() == answer.body, "{:?}", answer.body);
    assert!(!answer.body.contains(['"', '\n', '{']), "{:?}", answer.body);
}

#[tokio::test]
async fn each_text_api_gives_a_clean_suggestion() {
    for (model, api, endpoint) in [
        ("gpt-6-luna", "auto", Endpoint::Responses),
        ("gpt-4.1-mini", "responses", Endpoint::Responses),
        ("gpt-6-luna", "chat", Endpoint::ChatCompletions),
        ("gpt-4.1-mini", "chat", Endpoint::ChatCompletions),
        ("gpt-3.5-turbo-instruct", "auto", Endpoint::Completions),
    ] {
        let setup = Setup::default().set("OPENAI_TEXT_MODEL", model).set("OPENAI_TEXT_API", api);
        let visionary = setup.start().await;
        usable(&visionary.get("/api/getChatGPTSuggestion").await, "model");
        assert_eq!(visionary.openai.requests(endpoint).len(), 1, "{model} {api}");
    }
}

#[tokio::test]
async fn the_model_is_asked_about_another_theme_each_time() {
    let visionary = Visionary::start().await;
    for _ in 0..12 {
        visionary.get("/api/getChatGPTSuggestion").await;
    }
    let requests = visionary.openai.requests(Endpoint::Responses);
    let inputs: BTreeSet<String> = requests.iter().map(|request| request.body["input"].to_string()).collect();
    // Of 40 themes; that 12 draws name fewer than 4 has a chance of one in many millions.
    assert!(inputs.len() >= 4, "{inputs:?}");
}

#[tokio::test]
async fn whatever_happens_upstream_a_built_in_prompt_is_answered() {
    for wire in WIRES {
        let visionary = Setup::wire(wire).start().await;
        let refusal = json!({"status": "completed", "output": [
            {"type": "message", "content": [{"type": "refusal", "refusal": "I cannot."}]}]});
        let unfinished = json!({"status": "incomplete", "output": [
            {"type": "message", "content": [{"type": "output_text", "text": "A half"}]}]});
        let quotes = json!({"status": "completed", "output": [
            {"type": "message", "content": [{"type": "output_text", "text": " \"\" \n"}]}]});
        for reply in [
            Reply::error(401, "invalid_request_error", "invalid_api_key", "no"),
            Reply::error(429, "insufficient_quota", "insufficient_quota", "no"),
            Reply::error(500, "server_error", "server_error", "no"),
            Reply::body(200, "text/html", "<html>"),
            Reply::json(200, &refusal),
            Reply::json(200, &unfinished),
            Reply::json(200, &quotes),
            Reply::normal().cut_before_answer(),
            Reply::normal().cut_inside_body(),
        ] {
            visionary.openai.script(Endpoint::Responses, reply);
            usable(&visionary.get("/api/getChatGPTSuggestion").await, "built-in");
        }
    }
}

#[tokio::test]
async fn a_model_that_hangs_is_not_waited_for_longer_than_ten_seconds() {
    let visionary = Visionary::start().await;
    visionary.openai.script(Endpoint::Responses, Reply::normal().hang());
    let answer = tokio::time::timeout(Duration::from_secs(10), visionary.get("/api/getChatGPTSuggestion"));
    usable(&answer.await.expect("an answer within 10 s"), "built-in");
}
