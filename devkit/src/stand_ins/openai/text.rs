//! The endpoints for text, moderations and models.

use serde_json::{Map, Value, json};

use super::{Refusal, Server};

const IDEAS: [&str; 4] = [
    "A copper kettle on a snowy windowsill, oil painting, steam in morning light",
    "Three cranes above a flooded rice field, watercolour, wide and quiet",
    "A night bus full of houseplants, photo-realistic, 4K, green neon",
    "A staircase made of books, black and white photograph, strong shadows",
];

/// The tokens of each text.
const INPUT_TOKENS: u64 = 200;
const OUTPUT_TOKENS: u64 = 100;

/// The usage as the older APIs name it.
fn tokens() -> Value {
    json!({
        "prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
    })
}

pub(super) fn responses(server: &Server, body: &Map<String, Value>) -> Result<Value, Refusal> {
    let fields = ["model", "instructions", "input", "reasoning", "max_output_tokens", "store", "temperature"];
    super::only(body, &fields)?;
    let model = server.known_model(body)?;
    required(body, "input")?;
    check_reasoning(model, body, body.get("reasoning").and_then(|reasoning| reasoning.get("effort")))?;
    Ok(json!({
        "id": "resp_1", "object": "response", "status": "completed", "model": model,
        "output": [
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": ideas(server, body.get("input")), "annotations": []}]},
        ],
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS, "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS},
    }))
}

pub(super) fn chat(server: &Server, body: &Map<String, Value>) -> Result<Value, Refusal> {
    let fields = ["model", "messages", "max_completion_tokens", "max_tokens", "reasoning_effort", "temperature"];
    super::only(body, &fields)?;
    let model = server.known_model(body)?;
    required(body, "messages")?;
    if body.contains_key("max_tokens") && is_reasoning(model) {
        return Err(Refusal::value("max_tokens", "unsupported_parameter"));
    }
    check_reasoning(model, body, body.get("reasoning_effort"))?;
    let input = body.get("messages").and_then(Value::as_array).and_then(|messages| messages.last()?.get("content"));
    Ok(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "model": model,
        "choices": [{"index": 0, "finish_reason": "stop",
                     "message": {"role": "assistant", "content": ideas(server, input), "refusal": null}}],
        "usage": tokens(),
    }))
}

pub(super) fn completions(server: &Server, body: &Map<String, Value>) -> Result<Value, Refusal> {
    super::only(body, &["model", "prompt", "max_tokens", "temperature"])?;
    let model = server.known_model(body)?;
    if !model.ends_with("-instruct") {
        return Err(Refusal::model_not_found(model));
    }
    required(body, "prompt")?;
    let text = format!("\n\n\"{}\"", idea(server));
    Ok(json!({
        "id": "cmpl-1", "object": "text_completion", "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "text": text, "logprobs": null}],
        "usage": tokens(),
    }))
}

pub(super) fn moderations(body: &Map<String, Value>) -> Result<Value, Refusal> {
    super::only(body, &["model", "input"])?;
    required(body, "input")?;
    let flagged = body.get("input").is_some_and(|input| input.to_string().to_lowercase().contains("forbidden"));
    let result = json!({
        "flagged": flagged,
        "categories": {"violence": flagged},
        "category_scores": {"violence": if flagged { 0.98 } else { 0.01 }},
    });
    Ok(json!({"id": "modr-1", "model": "omni-moderation-latest", "results": [result]}))
}

pub(super) fn models(server: &Server, id: Option<&str>) -> Result<Value, Refusal> {
    let shutdown = |id: &String| server.options.shutdown_dates.get(id);
    let describe =
        |id: &String| json!({"id": id, "object": "model", "owned_by": "system", "shutdown_date": shutdown(id)});
    let known = &server.options.models;
    match id {
        None => Ok(json!({"object": "list", "data": known.iter().map(describe).collect::<Vec<_>>()})),
        Some(id) => known.iter().find(|known| *known == id).map(describe).ok_or_else(|| Refusal::model_not_found(id)),
    }
}

/// The text for the app's requests, which are JSON. An input with `prompt` gets that prompt rewritten, an
/// input with several `themes` gets a JSON array with an idea for each, any other input gets one idea.
fn ideas(server: &Server, input: Option<&Value>) -> String {
    let input: Value =
        input.and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    if let Some(prompt) = input["prompt"].as_str() {
        return format!("{prompt}, seen from a low angle, soft side light, 35mm lens, oil painting");
    }
    match input["themes"].as_array() {
        Some(themes) if themes.len() > 1 => json!(themes.iter().map(|_| idea(server)).collect::<Vec<_>>()).to_string(),
        _ => idea(server).to_owned(),
    }
}

fn idea(server: &Server) -> &'static str {
    let number = server.next_number();
    IDEAS.get(usize::try_from(number).unwrap_or(0) % IDEAS.len()).copied().unwrap_or_default()
}

fn required(body: &Map<String, Value>, field: &'static str) -> Result<(), Refusal> {
    if body.get(field).is_some_and(|value| !value.is_null()) { Ok(()) } else { Err(Refusal::missing(field)) }
}

/// Whether a model reasons. An Azure deployment has a name of its own, so one that ends in `4.1` is also
/// taken for a model without reasoning.
fn is_reasoning(model: &str) -> bool {
    !(model.ends_with("4.1") || model.starts_with("gpt-4") || model.starts_with("gpt-3"))
}

/// Refuses `reasoning` for a model that does not reason, and `temperature` for one that does.
fn check_reasoning(model: &str, body: &Map<String, Value>, effort: Option<&Value>) -> Result<(), Refusal> {
    if effort.is_some() && !is_reasoning(model) {
        return Err(Refusal::value("reasoning", "unsupported_parameter"));
    }
    let reasons = is_reasoning(model) && effort.and_then(Value::as_str) != Some("none");
    if reasons && body.contains_key("temperature") {
        return Err(Refusal::value("temperature", "unsupported_parameter"));
    }
    Ok(())
}
