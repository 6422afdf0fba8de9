use std::io::Read as _;

use flate2::read::GzDecoder;
use serde_json::{Value, json};

use super::view;
use crate::config::PromptEnhancement;
use crate::error::Code;
use crate::functions::get_images::MAX_LIMIT;
use crate::generation::Phase;
use crate::generation::usage::MAX_DAYS;
use crate::prompts::enhance::STYLES;

const JSON: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json.gz"));
const JSON_3_1: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi-3.1.json.gz"));

fn unpacked(gzip: &[u8]) -> Value {
    let mut text = String::new();
    GzDecoder::new(gzip).read_to_string(&mut text).expect("gzip");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_views_of_the_binary_are_those_of_the_file() {
    let yaml = include_str!("../../../openapi.yaml");
    let document = view::Value::parse(yaml).expect("YAML");
    assert_eq!(unpacked(JSON).to_string(), serde_json::from_str::<Value>(&document.json()).expect("JSON").to_string());
    let view = unpacked(JSON_3_1);
    assert_eq!(view["openapi"], "3.1.1");
    assert!(!view.to_string().contains("itemSchema"));
    assert_eq!(
        view["paths"]["/api/generateImage"]["post"]["responses"]["200"]["content"]["text/event-stream"]["schema"],
        json!({"$ref": "#/components/schemas/GenerationEvent"})
    );
}

#[test]
fn the_lists_of_the_document_are_the_constants_of_the_code() {
    let document = unpacked(JSON);
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["ErrorCode"]["enum"], json!(Code::ALL));
    assert_eq!(schemas["StyleName"]["enum"], json!(STYLES.map(|style| style.name)));
    let enhancements = [PromptEnhancement::Off, PromptEnhancement::Style, PromptEnhancement::Rewrite];
    assert_eq!(schemas["Enhancement"]["enum"], json!(enhancements));
    let phases = [Phase::Queued, Phase::Drawing, Phase::Saving];
    assert_eq!(schemas["Phase"]["enum"], json!(phases));
    let statuses = schemas["JobStatus"]["enum"].as_array().expect("a list");
    assert!(statuses.starts_with(schemas["Phase"]["enum"].as_array().expect("a list")));

    let parameter = |path: &str, at: usize| document["paths"][path]["get"]["parameters"][at]["schema"].clone();
    assert_eq!(parameter("/api/getImages", 0)["maximum"], json!(MAX_LIMIT));
    assert_eq!(schemas["ImagePage"]["properties"]["imageUrls"]["maxItems"], json!(MAX_LIMIT));
    assert_eq!(parameter("/api/usage", 0)["maximum"], json!(MAX_DAYS));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}
