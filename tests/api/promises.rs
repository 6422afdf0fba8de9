//! What callers may rely on: `docs/compatibility.md`. The contract is compared with that of the last release, which is
//! `released.json`: the answer of `GET /api/openapi.json`, as it was then.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::contract::DOCUMENT;

/// The lists that may grow, as the contract says.
const GROWING: [&str; 1] = ["ErrorCode"];
/// What restricts a value. A change of one is a break.
const RESTRICTIONS: [&str; 7] =
    ["pattern", "format", "minimum", "maximum", "minLength", "maxLength", "contentMediaType"];

/// Who writes a value: a caller must go on being understood, and must go on understanding.
#[derive(Clone, Copy, PartialEq)]
enum Written {
    ByCaller,
    ByApp,
}

/// Two versions of the document, and the changes between them that break a caller.
struct Comparison<'a> {
    old: &'a Value,
    new: &'a Value,
    breaks: Vec<String>,
}

fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut comparison = Comparison { old, new, breaks: Vec::new() };
    comparison.paths();
    comparison.breaks
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn texts(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Null => BTreeSet::new(),
        Value::Array(items) => items.iter().map(Value::to_string).collect(),
        one => [one.to_string()].into(),
    }
}

fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => resolved(document, document.pointer(reference.trim_start_matches('#')).expect(reference)),
        None => value,
    }
}

impl<'a> Comparison<'a> {
    fn found(&mut self, at: &str, what: &str) {
        self.breaks.push(format!("{at}: {what}"));
    }

    fn paths(&mut self) {
        for (path, item) in entries(&self.old["paths"]) {
            for (method, operation) in entries(item).filter(|(_, value)| value.get("operationId").is_some()) {
                let at = format!("{method} {path}");
                match self.new["paths"][path].get(method) {
                    Some(new) => self.operation(
                        &at,
                        (operation, &item["parameters"]),
                        (new, &self.new["paths"][path]["parameters"]),
                    ),
                    None => self.found(&at, "the operation is gone"),
                }
            }
        }
    }

    /// An operation and the parameters of its path.
    fn operation(&mut self, at: &str, old: (&'a Value, &'a Value), new: (&'a Value, &'a Value)) {
        let ((old, of_old_path), (new, of_new_path)) = (old, new);
        if old["operationId"] != new["operationId"] {
            self.found(at, "operationId has changed, which names functions of clients");
        }
        if old.get("security").unwrap_or(&self.old["security"]) != new.get("security").unwrap_or(&self.new["security"])
        {
            self.found(at, "security has changed");
        }
        let parameters = |document: &'a Value, own: &'a Value, of_path: &'a Value| -> Vec<&'a Value> {
            let listed =
                own["parameters"].as_array().into_iter().flatten().chain(of_path.as_array().into_iter().flatten());
            listed.map(|parameter| resolved(document, parameter)).collect()
        };
        let before = parameters(self.old, old, of_old_path);
        let after = parameters(self.new, new, of_new_path);
        let same = |one: &Value, other: &Value| one["name"] == other["name"] && one["in"] == other["in"];
        for parameter in &after {
            let known = before.iter().find(|known| same(known, parameter));
            if parameter["required"] == true && known.is_none_or(|known| known["required"] != true) {
                self.found(at, &format!("the parameter {} is required now", parameter["name"]));
            }
        }
        for parameter in before {
            let at = format!("{at} {}", parameter["name"]);
            match after.iter().find(|known| same(known, parameter)) {
                Some(new) => self.schema(&at, &parameter["schema"], &new["schema"], Written::ByCaller),
                None => self.found(&at, "the parameter is gone"),
            }
        }
        if let Some(body) = old.get("requestBody") {
            self.content(at, &body["content"], &new["requestBody"]["content"], Written::ByCaller);
        }
        for (status, response) in entries(&old["responses"]) {
            let at = format!("{at} {status}");
            let Some(new) = new["responses"].get(status) else {
                self.found(&at, "the status is gone");
                continue;
            };
            let (response, new) = (resolved(self.old, response), resolved(self.new, new));
            for (name, header) in entries(&response["headers"]) {
                let at = format!("{at} {name}");
                let header = resolved(self.old, header);
                match new["headers"].get(name).map(|header| resolved(self.new, header)) {
                    Some(new) if header["required"] == true && new["required"] != true => {
                        self.found(&at, "the header may be missing now");
                    }
                    Some(new) => self.schema(&at, &header["schema"], &new["schema"], Written::ByApp),
                    None => self.found(&at, "the header is gone"),
                }
            }
            self.content(&at, &response["content"], &new["content"], Written::ByApp);
        }
    }

    fn content(&mut self, at: &str, old: &'a Value, new: &'a Value, written: Written) {
        for (media_type, media) in entries(old) {
            let at = format!("{at} {media_type}");
            let Some(new) = new.get(media_type) else {
                self.found(&at, "the media type is gone");
                continue;
            };
            for key in ["schema", "itemSchema"] {
                if let Some(schema) = media.get(key) {
                    self.schema(&at, schema, &new[key], written);
                }
            }
        }
    }

    fn schema(&mut self, at: &str, old: &'a Value, new: &'a Value, written: Written) {
        let grows = old["$ref"].as_str().is_some_and(|name| GROWING.iter().any(|growing| name.ends_with(growing)));
        let (old, new) = (resolved(self.old, old), resolved(self.new, new));
        for key in ["type", "enum", "const"] {
            let (before, after) = (texts(&old[key]), texts(&new[key]));
            // A caller's value stays allowed; the app sends no value that a caller does not know.
            let fits = match written {
                _ if before == after => true,
                _ if grows => before.is_subset(&after),
                Written::ByCaller => after.is_empty() || !before.is_empty() && before.is_subset(&after),
                Written::ByApp => before.is_empty() || !after.is_empty() && after.is_subset(&before),
            };
            if !fits {
                self.found(at, &format!("{key} was {} and is {}", old[key], new[key]));
            }
        }
        for key in RESTRICTIONS {
            if old[key] != new[key] {
                self.found(at, &format!("{key} was {} and is {}", old[key], new[key]));
            }
        }
        let (before, after) = (texts(&old["required"]), texts(&new["required"]));
        let missing = match written {
            Written::ByCaller => after.difference(&before),
            Written::ByApp => before.difference(&after),
        };
        let missing: Vec<&String> = missing.collect();
        if !missing.is_empty() {
            let word = if written == Written::ByCaller { "required now" } else { "not always there any more" };
            self.found(at, &format!("{missing:?} is {word}"));
        }
        for (name, field) in entries(&old["properties"]) {
            match new["properties"].get(name) {
                Some(new) => self.schema(&format!("{at}.{name}"), field, new, written),
                None => self.found(at, &format!("the field {name} is gone")),
            }
        }
        for key in ["items", "contentSchema"] {
            if let Some(inner) = old.get(key) {
                self.schema(&format!("{at} {key}"), inner, &new[key], written);
            }
        }
        for key in ["oneOf", "anyOf"] {
            let list = |of: &'a Value| of[key].as_array().map(Vec::as_slice).unwrap_or_default();
            let (before, after) = (list(old), list(new));
            if after.len() < before.len() || written == Written::ByApp && after.len() != before.len() {
                self.found(at, &format!("{key} had {} shapes and has {}", before.len(), after.len()));
            }
            for (number, (old, new)) in before.iter().zip(after).enumerate() {
                self.schema(&format!("{at} {key} {number}"), old, new, written);
            }
        }
    }
}

#[test]
fn no_change_since_the_last_release_breaks_a_caller() {
    let released: Value = serde_json::from_str(include_str!("released.json")).unwrap();
    let breaks = breaks(&released, &DOCUMENT);
    assert!(breaks.is_empty(), "docs/compatibility.md promises that none of this changes:\n{}", breaks.join("\n"));
}

#[test]
fn each_kind_of_a_breaking_change_is_found_and_an_addition_is_none() {
    let schema = |name: &str, rest: &str| format!("/components/schemas/{name}/{rest}");
    let drawing = |rest: &str| format!("/paths/~1api~1generateImage/post/{rest}");
    let page = |rest: &str| format!("/paths/~1api~1getImages/get/{rest}");
    // A place, its new value (null removes it), and the beginning of what is found; empty if nothing is.
    for (place, value, wanted) in [
        ("/paths/~1api~1quota/get".to_owned(), json!(null), "get /api/quota: the operation is gone"),
        (drawing("operationId"), json!("draw"), "post /api/generateImage: operationId"),
        ("/paths/~1api~1usage/get/security".to_owned(), json!([{"signIn": []}]), "get /api/usage: security"),
        (page("parameters/0/required"), json!(true), "get /api/getImages: the parameter \"limit\" is required"),
        (page("parameters/0/name"), json!("count"), "get /api/getImages \"limit\": the parameter is gone"),
        (page("parameters/0/schema/maximum"), json!(100), "get /api/getImages \"limit\": maximum was 200 and is 100"),
        (drawing("responses/202"), json!(null), "post /api/generateImage 202: the status is gone"),
        (drawing("responses/202/headers/Location"), json!(null), "post /api/generateImage 202 Location: the header"),
        (
            drawing("responses/200/content/text~1plain"),
            json!(null),
            "post /api/generateImage 200 text/plain: the media",
        ),
        (
            schema("GenerateImageRequest", "required"),
            json!(["prompt", "size"]),
            "post /api/generateImage application/json: [\"\\\"size\\\"\"] is required",
        ),
        (
            schema("GenerateImageRequest", "properties/style"),
            json!(null),
            "post /api/generateImage application/json: the field style",
        ),
        (
            schema("GenerateImageRequest", "properties/quality/enum"),
            json!(["hd"]),
            "post /api/generateImage application/json.quality: enum",
        ),
        (
            schema("GeneratedImage", "properties/url"),
            json!(null),
            "post /api/generateImage 200 application/json: the field url",
        ),
        (
            schema("Quota", "required"),
            json!(["limit", "used", "remaining"]),
            "get /api/quota 200 application/json: [\"\\\"resetsAt\\\"\"] is not always",
        ),
        (schema("Quota", "properties/used/type"), json!("string"), "get /api/quota 200 application/json.used: type"),
        (
            schema("Health", "properties/version/type"),
            json!(["string", "null"]),
            "get /api/health 200 application/json.version: type",
        ),
        (
            schema("HealthStatus", "enum"),
            json!(["ok", "degraded", "down"]),
            "get /api/health 200 application/json.status: enum",
        ),
        (schema("ProgressEvent", "properties/phase"), json!(null), "post /api/generateImage 200 text/event-stream"),
        (schema("ErrorCode", "enum"), json!(["busy"]), "post /api/generateImage 202 X-Error-Code: enum"),
        // Additions.
        (
            schema("ErrorCode", "enum"),
            {
                let mut codes = DOCUMENT["components"]["schemas"]["ErrorCode"]["enum"].clone();
                codes.as_array_mut().unwrap().push(json!("new"));
                codes
            },
            "",
        ),
        (schema("Quota", "properties/unit"), json!({"type": "string"}), ""),
        (schema("GenerateImageRequest", "properties/seed"), json!({"type": "integer"}), ""),
        (schema("Health", "properties/version/description"), json!("Another text."), ""),
        (drawing("responses/418"), json!({"description": "A teapot."}), ""),
        ("/paths/~1api~1new".to_owned(), json!({"get": {"operationId": "getNew", "responses": {}}}), ""),
    ] {
        let mut changed = DOCUMENT.clone();
        let (parent, key) = place.rsplit_once('/').unwrap();
        let key = key.replace("~1", "/");
        let parent = changed.pointer_mut(parent).unwrap_or_else(|| panic!("no {place}"));
        match parent {
            Value::Object(entries) if value.is_null() => assert!(entries.remove(&key).is_some(), "no {place}"),
            Value::Object(entries) => drop(entries.insert(key, value)),
            _ => panic!("{place} is in no object"),
        }
        let found = breaks(&DOCUMENT, &changed);
        match wanted {
            "" => assert!(found.is_empty(), "{place}: {found:?}"),
            wanted => assert!(found.iter().any(|found| found.starts_with(wanted)), "{place}: {found:?}"),
        }
    }
}
