//! `POST /v1/images/generations` with the rules of the dall-e and gpt-image model families
//! (<https://platform.openai.com/docs/api-reference/images/create>).

use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::{Map, Value, json};

use super::script::{Fault, Reply};
use super::{Cut, Dialect, Painting, Refusal, Server};
use crate::stand_ins::artist;

/// An image that was drawn. A provider charges for it, delivered or not.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// The prompt of the request.
    pub prompt: String,
    /// The size, such as `1024x1024`.
    pub size: String,
    /// The bytes of the image file.
    pub bytes: Bytes,
}

const DALL_E_FIELDS: [&str; 8] = ["model", "prompt", "n", "size", "quality", "response_format", "style", "user"];
const GPT_IMAGE_FIELDS: [&str; 13] = [
    "model",
    "prompt",
    "n",
    "size",
    "quality",
    "output_format",
    "output_compression",
    "background",
    "moderation",
    "stream",
    "partial_images",
    "user",
    "safety_identifier",
];

pub(super) fn generate(server: &Server, body: &Map<String, Value>) -> Result<Value, Refusal> {
    let model = server.known_model(body)?;
    let dall_e = model.starts_with("dall-e");
    let fields: &[&str] = if dall_e { &DALL_E_FIELDS } else { &GPT_IMAGE_FIELDS };
    super::only(body, fields)?;
    let prompt = body.get("prompt").and_then(Value::as_str).filter(|prompt| !prompt.is_empty());
    let prompt = prompt.ok_or_else(|| Refusal::missing("prompt"))?;
    if prompt.chars().count() > if dall_e { 4_000 } else { 32_000 } {
        return Err(Refusal::value("prompt", "string_above_max_length"));
    }
    let n = body.get("n").map_or(Some(1), Value::as_u64);
    if !n.is_some_and(|n| (1..=if dall_e { 1 } else { 10 }).contains(&n)) {
        return Err(Refusal::value("n", "invalid_value"));
    }
    let size = text(body, "size")?.unwrap_or("auto");
    let quality = text(body, "quality")?.unwrap_or("auto");
    let valid_size = if dall_e {
        ["auto", "1024x1024", "1792x1024", "1024x1792"].contains(&size)
    } else if model.starts_with("gpt-image-1") {
        ["auto", "1024x1024", "1536x1024", "1024x1536"].contains(&size)
    } else {
        size == "auto" || is_free_size(size)
    };
    if !valid_size {
        return Err(Refusal::value("size", "invalid_value"));
    }
    let finer = !model.starts_with("gpt-image-1") && model != "gpt-image-2";
    let valid_quality = match quality {
        "auto" => true,
        "standard" | "hd" => dall_e,
        "low" | "medium" | "high" => !dall_e,
        "xhigh" | "max" => !dall_e && finer,
        _ => false,
    };
    if !valid_quality {
        return Err(Refusal::value("quality", "invalid_value"));
    }
    among(body, "style", &["vivid", "natural"])?;
    among(body, "response_format", &["url", "b64_json"])?;
    among(body, "background", &["transparent", "opaque", "auto"])?;
    among(body, "moderation", &["auto", "low"])?;
    let format = among(body, "output_format", &["png", "jpeg", "webp"])?.unwrap_or("png");
    if format == "jpeg" && text(body, "background")? == Some("transparent") {
        return Err(Refusal::value("background", "invalid_value"));
    }
    if body.contains_key("output_compression") && format == "png" {
        return Err(Refusal::value("output_compression", "invalid_value"));
    }
    let streams = body.get("stream").is_some_and(|stream| stream == true);
    if body.contains_key("stream") && (!body["stream"].is_boolean() || server.options.dialect == Dialect::Compatible) {
        return Err(Refusal::value("stream", "unsupported_value"));
    }
    let partial_images = body.get("partial_images").map_or(Some(0), Value::as_u64).filter(|count| *count <= 3);
    if partial_images.is_none_or(|count| count > 0 && !streams) {
        return Err(Refusal::value("partial_images", "invalid_value"));
    }
    if server.options.dialect == Dialect::Azure {
        if format == "webp" {
            return Err(Refusal::value("output_format", "invalid_value"));
        }
        if prompt.to_lowercase().contains("forbidden") {
            return Err(Refusal::invalid("prompt", "contentFilter", format!("Your prompt was filtered: {prompt}")));
        }
    }
    if prompt.to_lowercase().contains("forbidden") {
        return Err(Refusal {
            status: 400,
            kind: "image_generation_user_error",
            code: "moderation_blocked",
            param: None,
            message: format!("Your request was rejected by the safety system: {prompt}"),
        });
    }
    let size = if size == "auto" { "1024x1024" } else { size };
    let bytes = paint(server, prompt, size, format)?;
    let drawn = Drawn { prompt: prompt.to_owned(), size: size.to_owned(), bytes: bytes.clone() };
    let number = server.remember_drawn(drawn);
    if dall_e {
        let revised = format!("{prompt}, in more words");
        let item = if text(body, "response_format")? == Some("b64_json") {
            json!({"b64_json": BASE64_STANDARD.encode(&bytes), "revised_prompt": revised})
        } else {
            json!({"url": server.offer_file(number, bytes), "revised_prompt": revised})
        };
        return Ok(json!({"created": 1_795_000_000, "data": [item]}));
    }
    let quality = if quality == "auto" { "medium" } else { quality };
    let text_tokens = prompt.split_whitespace().count() + 8;
    let image_tokens = match quality {
        "low" => 196,
        "medium" => 1_756,
        _ => 7_024,
    };
    Ok(json!({
        "created": 1_795_000_000,
        "data": [{"b64_json": BASE64_STANDARD.encode(&bytes)}],
        "size": size, "quality": quality, "output_format": format, "background": "opaque",
        "usage": {
            "input_tokens": text_tokens,
            "input_tokens_details": {"text_tokens": text_tokens, "image_tokens": 0},
            "output_tokens": image_tokens,
            "total_tokens": text_tokens + image_tokens,
        },
    }))
}

/// Answers with an event stream: the requested partial images, spread over `delay`, and then the completed
/// image as the reply says
/// (<https://platform.openai.com/docs/api-reference/images-streaming>).
pub(super) fn stream(request: &Value, image: Value, reply: Reply, delay: Duration) -> Response {
    let count = request["partial_images"].as_u64().unwrap_or(0);
    let pause = delay / u32::try_from(count + 1).unwrap_or(1);
    let item = image["data"][0].clone();
    let partial = move |index: u64| {
        let event = json!({
            "type": "image_generation.partial_image", "b64_json": item["b64_json"], "partial_image_index": index,
        });
        format!("event: image_generation.partial_image\ndata: {event}\n\n")
    };
    let partials_hold = reply.partials_hold.clone();
    let partials = stream::iter(0..count).then(move |index| {
        let (event, hold) = (partial(index), partials_hold.clone());
        async move {
            tokio::time::sleep(pause).await;
            if let Some(hold) = hold {
                hold.wait().await;
            }
            Ok(event)
        }
    });
    let whole = stream::once(async move {
        tokio::time::sleep(pause + reply.delay).await;
        if let Some(hold) = &reply.hold {
            hold.wait().await;
        }
        match reply.fault {
            Fault::None | Fault::Endless => {}
            Fault::Hang => std::future::pending().await,
            Fault::CutBeforeAnswer | Fault::CutAfterHeaders | Fault::CutInsideBody => return Err(Cut),
        }
        let mut event = image;
        event["b64_json"] = event["data"][0]["b64_json"].clone();
        event["type"] = json!("image_generation.completed");
        event.as_object_mut().map(|event| event.remove("data"));
        if let Some(patch) = &reply.patch {
            patch(&mut event);
        }
        Ok(format!("event: image_generation.completed\ndata: {event}\n\n"))
    });
    let content_type = [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")];
    (content_type, Body::from_stream(partials.chain(whole))).into_response()
}

/// Makes the image file that [`Painting`] and the format ask for. The small JPEG and WebP files get a number
/// at their end, so that no two are equal.
fn paint(server: &Server, prompt: &str, size: &str, format: &str) -> Result<Bytes, Refusal> {
    let number = server.next_number();
    let numbered = |file: &[u8]| Bytes::from([file, format!("\n{number}").as_bytes()].concat());
    let (width, height) = size.split_once('x').unwrap_or(("1024", "1024"));
    let (width, height) = (width.parse().unwrap_or(1024), height.parse().unwrap_or(1024));
    let painted = match (&server.options.painting, format) {
        (Painting::Fixed(bytes), _) => Ok(bytes.clone()),
        (_, "jpeg") => Ok(numbered(include_bytes!("pixel.jpg"))),
        (_, "webp") => Ok(numbered(include_bytes!("pixel.webp"))),
        (Painting::Artist, _) => artist::draw(prompt, width, height).map(Bytes::from),
        (Painting::Sketch, _) => artist::sketch(number).map(Bytes::from),
    };
    painted.map_err(|_| Refusal::server_error())
}

/// The size rule of gpt-image-2 and later models: width and height are multiples of 16, their ratio is 1:3
/// to 3:1, and their product is 655,360 to 8,294,400 pixels.
fn is_free_size(size: &str) -> bool {
    let Some((width, height)) = size.split_once('x') else { return false };
    let (Ok(width), Ok(height)) = (width.parse::<u64>(), height.parse::<u64>()) else { return false };
    width % 16 == 0
        && height % 16 == 0
        && width <= 3 * height
        && height <= 3 * width
        && (655_360..=8_294_400).contains(&(width * height))
}

fn text<'a>(body: &'a Map<String, Value>, field: &'static str) -> Result<Option<&'a str>, Refusal> {
    match body.get(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Refusal::value(field, "invalid_type")),
    }
}

fn among<'a>(body: &'a Map<String, Value>, field: &'static str, allowed: &[&str]) -> Result<Option<&'a str>, Refusal> {
    match text(body, field)? {
        Some(value) if !allowed.contains(&value) => Err(Refusal::value(field, "invalid_value")),
        value => Ok(value),
    }
}
