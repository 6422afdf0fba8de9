//! The contract, `openapi.yaml`. Every answer that a test of this folder receives is held to it: the harness calls
//! [`check`] for each. An answer that the document does not have fails the test that received it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read as _;
use std::sync::{Arc, LazyLock, Mutex};

use flate2::read::GzDecoder;
use jsonschema::Validator;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use visionary::error::Code;
use visionary::functions::{FUNCTIONS, QUEUE_FUNCTIONS};

use crate::harness::Visionary;

const INVOCATION_ID: &str = "x-azure-functions-invocationid";
const ERROR_CODE: &str = "x-error-code";
/// Headers of the transport, which no operation lists.
const TRANSPORT: [&str; 8] =
    ["allow", "connection", "content-encoding", "content-length", "content-type", "date", "transfer-encoding", "vary"];
/// What the Functions host answers itself, without a body.
const OF_THE_HOST: [u16; 6] = [204, 401, 404, 413, 502, 503];
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// The document as the app serves it.
pub(crate) static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut text = String::new();
    let gzip: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json.gz"));
    GzDecoder::new(gzip).read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
});

/// The schemas, closed: an answer with a field that the document does not have is an error here. Callers must expect
/// such fields, because a later version may add some.
static CLOSED: LazyLock<Value> = LazyLock::new(|| closed(DOCUMENT["components"]["schemas"].clone()));

fn closed(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(entries) => {
            for (_, value) in entries.iter_mut() {
                *value = closed(value.take());
            }
            if entries.get("properties").is_some_and(Value::is_object) && !entries.contains_key("additionalProperties")
            {
                entries.insert("additionalProperties".to_owned(), json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = closed(item.take())),
        _ => {}
    }
    schema
}

/// Follows a reference within the document.
fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => resolved(DOCUMENT.pointer(reference.trim_start_matches('#')).expect(reference)),
        None => value,
    }
}

/// Why a value does not fit a schema; `None` if it does.
fn misfit(schema: &Value, value: &Value) -> Option<String> {
    static COMPILED: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let key = schema.to_string();
    let known = COMPILED.lock().unwrap().get(&key).cloned();
    let validator = known.unwrap_or_else(|| {
        let mut whole = closed(schema.clone());
        whole["components"] = json!({"schemas": *CLOSED});
        let options = jsonschema::draft202012::options().should_validate_formats(true);
        let validator = Arc::new(options.build(&whole).unwrap_or_else(|error| panic!("{key}: {error}")));
        COMPILED.lock().unwrap().insert(key, Arc::clone(&validator));
        validator
    });
    let errors: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{error} at {}", error.instance_path())).collect();
    (!errors.is_empty()).then(|| errors.join("; "))
}

/// An operation of the document.
struct Operation {
    id: &'static str,
    path: &'static str,
    method: &'static str,
    definition: &'static Value,
}

fn operations() -> impl Iterator<Item = Operation> {
    let paths = DOCUMENT["paths"].as_object().unwrap().iter();
    paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter().filter(|(method, _)| METHODS.contains(&method.as_str()));
        methods.map(move |(method, definition)| {
            let id = definition["operationId"].as_str().expect("an operationId");
            Operation { id, path, method, definition }
        })
    })
}

/// The operation at a path as a client sends it: in any case, with or without a trailing slash. A HEAD at the handler
/// itself has the answer of GET.
fn operation(method: &Method, path: &str) -> Option<Operation> {
    let path = path.strip_suffix('/').unwrap_or(path).to_ascii_lowercase();
    let fits = |own: &str| {
        let own = own.strip_suffix('/').unwrap_or(own).to_ascii_lowercase();
        let pairs = || own.split('/').zip(path.split('/'));
        own.split('/').count() == path.split('/').count()
            && pairs().all(|(own, given)| own == given || own.starts_with('{') && !given.is_empty())
    };
    let here: Vec<Operation> = operations().filter(|operation| fits(operation.path)).collect();
    let takes = |wanted: &str| here.iter().position(|operation| operation.method.eq_ignore_ascii_case(wanted));
    let at = takes(method.as_str()).or_else(|| (*method == Method::HEAD).then(|| takes("get")).flatten())?;
    here.into_iter().nth(at)
}

/// What the body of an answer must be.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// The operation and the status, for messages.
    what: String,
    body: Body,
}

#[derive(Debug, Clone)]
enum Body {
    /// The document says nothing about it.
    Free,
    Empty,
    Text(&'static Value),
    Json(&'static Value),
    Events,
}

impl Expected {
    /// Holds a whole body to the document.
    pub(crate) fn check(&self, body: &str) {
        let misfit = match &self.body {
            Body::Free => None,
            Body::Empty => (!body.is_empty()).then(|| "the body is not empty".to_owned()),
            Body::Text(schema) => misfit(schema, &json!(body)),
            Body::Json(schema) => match serde_json::from_str(body) {
                Ok(value) => misfit(schema, &value),
                Err(error) => Some(error.to_string()),
            },
            Body::Events => {
                for block in body.split("\n\n") {
                    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                    if let (Some(event), Some(data)) = (field("event:"), field("data:")) {
                        check_event(event, &serde_json::from_str(data).expect("JSON"));
                    }
                }
                None
            }
        };
        if let Some(misfit) = misfit {
            panic!("openapi.yaml has another body for {}: {misfit}\n{body}", self.what);
        }
    }
}

/// Holds an event and its data to the document.
pub(crate) fn check_event(event: &str, data: &Value) {
    let schemas = &DOCUMENT["components"]["schemas"];
    let mut known = schemas["GenerationEvent"]["oneOf"].as_array().unwrap().iter();
    let known = known.find(|known| known["properties"]["event"]["const"] == event);
    let known = known.unwrap_or_else(|| panic!("openapi.yaml has no event {event}"));
    if let Some(misfit) = misfit(&known["properties"]["data"]["contentSchema"], data) {
        panic!("openapi.yaml has other data for the event {event}: {misfit}\n{data}");
    }
}

/// Holds the status and the headers of an answer to the document, and says what its body must be.
///
/// # Panics
/// The document does not have this answer. The message names the operation and the reason.
pub(crate) fn check(method: &Method, response: &Response) -> Expected {
    let (path, status, headers) = (response.url().path(), response.status().as_u16(), response.headers());
    let what = format!("{method} {path} with {status}");
    if !headers.contains_key(INVOCATION_ID) {
        assert!(OF_THE_HOST.contains(&status), "{what}: neither the host nor the app gives this answer: {headers:?}");
        return Expected { what, body: Body::Free };
    }
    let is_message =
        |(folder, _): &(&str, &str)| *method == Method::POST && path.eq_ignore_ascii_case(&format!("/{folder}"));
    if QUEUE_FUNCTIONS.iter().any(is_message) {
        return Expected { what, body: Body::Free };
    }
    let Some(operation) = operation(method, path) else {
        assert!([404, 405].contains(&status), "openapi.yaml has no operation for {what}");
        return Expected { what, body: Body::Free };
    };
    // The handler itself takes no HEAD for a function with a key.
    if *method == Method::HEAD && operation.method == "get" && status == 405 {
        return Expected { what, body: Body::Free };
    }
    let what = format!("{} with {status}", operation.id);
    let known = &operation.definition["responses"][status.to_string()];
    assert!(known.is_object(), "openapi.yaml has no {what}: {headers:?}");
    let known = resolved(known);
    check_headers(&what, known, headers);
    Expected { body: body(&what, known, headers, *method == Method::HEAD), what }
}

fn check_headers(what: &str, known: &'static Value, headers: &HeaderMap) {
    let listed = known["headers"].as_object().into_iter().flatten();
    let listed: BTreeMap<String, &Value> =
        listed.map(|(name, header)| (name.to_ascii_lowercase(), resolved(header))).collect();
    for (name, value) in headers {
        let (name, value) = (name.as_str(), value.to_str().expect("a header of ASCII"));
        let is_implied = TRANSPORT.contains(&name)
            || name.starts_with("access-control-")
            || (name, value) == ("cache-control", "no-store");
        let Some(header) = listed.get(name) else {
            assert!(is_implied, "openapi.yaml has no header {name} for {what}");
            continue;
        };
        let is_number = resolved(&header["schema"])["type"] == "integer";
        let value = if is_number { serde_json::from_str(value).unwrap_or(json!(value)) } else { json!(value) };
        if let Some(misfit) = misfit(&header["schema"], &value) {
            panic!("openapi.yaml has another value of {name} for {what}: {misfit}");
        }
    }
    for (name, header) in listed {
        // An error is never kept, so it has no header of the caches.
        assert!(header["required"] != true || headers.contains_key(&name), "{what} has no {name}");
    }
    if let Some(code) = headers.get(ERROR_CODE) {
        let codes = codes(known);
        assert!(codes.contains(code.to_str().unwrap()), "openapi.yaml has no code {code:?} for {what}, but {codes:?}");
    }
}

/// The error codes of a response: its examples are named by them.
fn codes(response: &'static Value) -> BTreeSet<&'static str> {
    let contents = response["content"].as_object().into_iter().flat_map(|content| content.values());
    contents
        .flat_map(|content| content["examples"].as_object().into_iter().flatten())
        .map(|(name, _)| &**name)
        .collect()
}

fn body(what: &str, known: &'static Value, headers: &HeaderMap, is_head: bool) -> Body {
    let Some(contents) = known["content"].as_object().filter(|_| !is_head) else { return Body::Empty };
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default();
    let content = contents.get(media_type);
    let schema = &content.unwrap_or_else(|| panic!("openapi.yaml has no {media_type:?} for {what}"))["schema"];
    match media_type {
        "text/event-stream" => Body::Events,
        _ if media_type.ends_with("json") => Body::Json(schema),
        // No YAML is parsed here. A test compares it with the file.
        "application/yaml" => Body::Free,
        _ => Body::Text(schema),
    }
}

#[test]
fn the_operations_are_those_of_the_functions() {
    let mut listed: BTreeMap<String, BTreeSet<(&str, bool)>> = BTreeMap::new();
    for operation in operations() {
        let needs_key = operation.definition["security"].to_string().contains("functionKey");
        listed.entry(operation.path.to_owned()).or_default().insert((operation.method, needs_key));
    }
    let mut known: BTreeMap<String, BTreeSet<(&str, bool)>> = BTreeMap::new();
    for function in FUNCTIONS {
        let methods: BTreeSet<(&str, bool)> =
            function.methods.iter().map(|method| (*method, function.auth_level != "anonymous")).collect();
        let route = function.route.replace(":length(75)", "").replace(":length(46)", "");
        // An optional parameter is two paths.
        if let Some(parent) = route.strip_suffix("{page?}") {
            known.insert(format!("/{parent}"), methods.clone());
        }
        known.insert(format!("/{}", route.replace("?}", "}")), methods);
    }
    assert_eq!(listed, known);
}

#[test]
fn the_error_codes_and_their_statuses_are_those_of_the_catalogue() {
    let mut listed: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for operation in operations() {
        for (status, response) in operation.definition["responses"].as_object().unwrap() {
            let response = resolved(response);
            let is_error = response["headers"].get("X-Error-Code").is_some();
            for code in codes(response).into_iter().filter(|code| is_error && *code != "job") {
                listed.entry(code).or_default().insert(status.clone());
            }
        }
    }
    let known: BTreeMap<&str, BTreeSet<String>> =
        Code::ALL.iter().map(|code| (code.as_str(), [code.status().as_u16().to_string()].into())).collect();
    assert_eq!(listed, known);
}

#[test]
fn each_example_of_an_answer_fits_its_schema_and_its_name() {
    let mut checked = 0;
    for operation in operations() {
        for (status, response) in operation.definition["responses"].as_object().unwrap() {
            let contents = resolved(response)["content"].as_object().into_iter().flatten();
            for (media_type, content) in contents {
                let named = content["examples"].as_object().into_iter().flatten();
                let named = named.map(|(name, example)| (name.as_str(), &resolved(example)["value"]));
                for (name, example) in named.chain(content.get("example").map(|example| ("example", example))) {
                    let what = format!("{} {status} {media_type} {name}", operation.id);
                    assert_eq!(misfit(&content["schema"], example), None, "{what}");
                    if let Some(code) = example["code"].as_str() {
                        assert_eq!(code, name, "{what}");
                    }
                    if media_type == "application/problem+json" {
                        assert_eq!(example["status"].to_string(), *status, "{what}");
                    }
                    for event in example.as_array().into_iter().flatten() {
                        let data = event["data"].as_str().unwrap();
                        check_event(event["event"].as_str().unwrap(), &serde_json::from_str(data).unwrap());
                    }
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 100, "{checked} examples");
}

/// The words of an answer that lists what is allowed.
fn allowed(sentence: &str) -> BTreeSet<String> {
    let list = sentence.rsplit_once("llowed: ").or_else(|| sentence.rsplit_once("one of: ")).expect(sentence).1;
    let list = list.replace(" means medium", "").replace(" means high", "");
    let is_letter = |c: char| c.is_alphanumeric() || c == '-';
    list.split(|c: char| !is_letter(c)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn the_values_of_a_request_are_those_that_the_app_names() {
    let visionary = Visionary::start().await;
    let fields = &DOCUMENT["components"]["schemas"]["GenerateImageRequest"]["properties"];
    for field in ["quality", "style", "enhance", "background", "outputFormat"] {
        let options: Vec<&'static Value> = match fields[field]["anyOf"].as_array() {
            Some(options) => options.iter().map(resolved).collect(),
            None => vec![&fields[field]],
        };
        let listed = options.iter().flat_map(|option| option["enum"].as_array().into_iter().flatten());
        let listed: BTreeSet<String> = listed.filter_map(Value::as_str).map(str::to_owned).collect();
        let request = json!({"prompt": "a fox", field: "nonsense"});
        let answer = visionary.post_json(&request).accept_json().send().await;
        assert_eq!(answer.status_and_code(), (400, "invalid_request"), "{field}");
        assert_eq!(allowed(answer.json()["detail"].as_str().unwrap()), listed, "{field}");
    }
}

#[tokio::test]
async fn each_example_of_a_request_is_answered_as_the_document_says() {
    let visionary = Visionary::start().await;
    let mut sent = BTreeMap::new();
    for operation in operations() {
        let parameters = |of: &'static Value| of["parameters"].as_array().into_iter().flatten().map(resolved);
        let parameters: Vec<&Value> =
            parameters(&DOCUMENT["paths"][operation.path]).chain(parameters(operation.definition)).collect();
        let named = |parameter: &Value| {
            let example = parameter.get("example").unwrap_or_else(|| &parameter["examples"]["wait"]["value"]);
            (parameter["name"].as_str().unwrap().to_owned(), example.to_string().trim_matches('"').replace('\\', ""))
        };
        let placed = |place: &'static str| {
            let placed = parameters.iter().filter(move |parameter| parameter["in"] == place);
            placed.map(|parameter| named(parameter)).collect::<Vec<_>>()
        };
        let path = placed("path")
            .into_iter()
            .fold(operation.path.to_owned(), |path, (name, value)| path.replace(&format!("{{{name}}}"), &value));
        let query: Vec<(String, String)> = placed("query").into_iter().filter(|(_, value)| value != "null").collect();
        let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (&**name, &**value)).collect();
        let bodies = operation.definition["requestBody"]["content"]["application/json"]["examples"].as_object();
        let bodies: Vec<Option<&Value>> =
            bodies.map_or(vec![None], |bodies| bodies.values().map(|example| Some(&example["value"])).collect());
        for body in bodies {
            for accept in ["*/*", "application/json", "text/event-stream"] {
                let method = Method::from_bytes(operation.method.to_ascii_uppercase().as_bytes()).unwrap();
                let mut request = visionary.request(method, &path).query(&query).accept(accept);
                if let Some(body) = body {
                    request = request.json(body);
                }
                let status = request.send().await.status;
                // The image and the job of the document are of another app. A page's file has a version.
                let wanted: &[u16] = match path.contains("/images/") || path.contains("/jobs/") {
                    true => &[403, 404],
                    false => &[200],
                };
                assert!(wanted.contains(&status), "{}: {status}", operation.id);
                *sent.entry(operation.id).or_insert(0) += 1;
            }
        }
    }
    assert_eq!((sent.len(), sent["generateImage"]), (operations().count(), 15));
}

#[tokio::test]
async fn the_contract_is_served_in_three_forms_compressed_and_not() {
    let visionary = Visionary::start().await;
    let yaml = std::fs::read_to_string(crate::harness::root().join("openapi.yaml")).unwrap();
    for (path, media_type) in [
        ("/api/openapi.json", "application/json"),
        ("/api/openapi-3.1.json", "application/json"),
        ("/api/openapi.yaml", "application/yaml"),
    ] {
        let plain = visionary.get(path).await;
        assert_eq!((plain.status, plain.header("content-type")), (200, media_type), "{path}");
        assert_eq!(plain.header("cache-control"), "public, max-age=300");
        match path.rsplit('.').next() {
            Some("yaml") => assert_eq!(plain.body, yaml),
            _ if path.contains("3.1") => assert_eq!(plain.json()["openapi"], "3.1.1"),
            _ => assert_eq!(plain.json(), *DOCUMENT),
        }
        let packed = visionary.request(Method::GET, path).header("accept-encoding", "gzip").response().await;
        assert_eq!(packed.headers()["content-encoding"], "gzip");
        let etag = packed.headers()["etag"].to_str().unwrap().to_owned();
        assert_ne!(etag, plain.header("etag"));
        let mut content = String::new();
        GzDecoder::new(&packed.bytes().await.unwrap()[..]).read_to_string(&mut content).unwrap();
        assert_eq!(content, plain.body, "{path}");
        let again = visionary.request(Method::GET, path).header("if-none-match", plain.header("etag")).send().await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
    }
}
