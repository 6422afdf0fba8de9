//! The queries in `ops/` are valid KQL, and read only what the handler logs.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use visionary::error::Code;
use visionary::functions::{FUNCTIONS, QUEUE_FUNCTIONS};

/// The queries by the names of their files.
fn queries() -> BTreeMap<String, String> {
    let files = fs::read_dir(devkit::root().join("ops")).unwrap().map(|entry| entry.unwrap().path());
    let queries = files.filter(|path| path.extension().is_some_and(|extension| extension == "kql"));
    queries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The query without its comments.
fn code(query: &str) -> String {
    query.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect()
}

/// The texts between `before` and the next quote.
fn quoted_after<'a>(text: &'a str, before: &str) -> BTreeSet<&'a str> {
    text.split(before).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

fn texts(folder: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            texts(&entry, into);
        } else {
            into.push(fs::read_to_string(entry).unwrap());
        }
    }
}

/// The arguments of each call of the macro, up to the parenthesis that closes it.
fn calls<'a>(source: &'a str, macro_name: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for rest in source.split(&format!("tracing::{macro_name}!(")).skip(1) {
        let (mut depth, mut in_text, mut escaped) = (1, false, false);
        let end = rest.find(|character| {
            match character {
                '"' if !escaped => in_text = !in_text,
                '(' | '{' | '[' if !in_text => depth += 1,
                ')' | '}' | ']' if !in_text => depth -= 1,
                _ => {}
            }
            escaped = character == '\\' && !escaped;
            depth == 0
        });
        found.push(&rest[..end.unwrap()]);
    }
    found
}

/// The names of the fields in a macro's arguments: `name = value`, `name`, `%name` or `?name`.
fn fields(arguments: &str) -> BTreeSet<String> {
    let (mut depth, mut in_text, mut parts) = (0, false, vec![String::new()]);
    for character in arguments.chars() {
        match character {
            '"' => in_text = !in_text,
            '(' | '{' | '[' if !in_text => depth += 1,
            ')' | '}' | ']' if !in_text => depth -= 1,
            ',' if depth == 0 && !in_text => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(character);
    }
    let names = parts.iter().map(|part| part.split(" = ").next().unwrap().trim().trim_start_matches(['%', '?']));
    let is_name = |name: &&str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.'))
    };
    names.filter(is_name).map(str::to_owned).collect()
}

/// What the sources log: the fields of each event, and those of the spans around them.
struct Logged {
    events: BTreeMap<String, BTreeSet<String>>,
    spans: BTreeSet<String>,
}

fn logged() -> Logged {
    let mut sources = Vec::new();
    texts(&devkit::root().join("src"), &mut sources);
    let mut logged = Logged { events: BTreeMap::new(), spans: BTreeSet::new() };
    for source in &sources {
        for call in ["error", "warn", "info"].iter().flat_map(|level| calls(source, level)) {
            if let Some(event) = quoted_after(call, "event = \"").first() {
                logged.events.entry((*event).to_owned()).or_default().extend(fields(call));
            }
        }
        logged.spans.extend(calls(source, "info_span").into_iter().flat_map(fields));
    }
    logged
}

/// The events that a query selects: the texts that its column `event`, or the field itself, is compared with.
fn events(query: &str) -> BTreeSet<&str> {
    let mut events = quoted_after(query, "event == \"");
    events.extend(quoted_after(query, "line[\"event\"]) == \""));
    for list in query.split("event in (").skip(1) {
        events
            .extend(quoted_after(list.split(')').next().unwrap(), "\"").into_iter().filter(|text| !text.contains(',')));
    }
    events.retain(|event| !event.trim().is_empty());
    events
}

#[test]
fn each_query_reads_only_events_and_fields_that_the_handler_logs() {
    let logged = logged();
    assert!(logged.events["image_lost"].contains("image.id") && logged.spans.contains("trace.id"));
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    for (file, query) in queries() {
        let query = code(&query);
        let selected = events(&query);
        assert_eq!(selected.is_empty(), !query.contains("parse_json"), "{file} selects events by their names");
        let mut known = BTreeSet::new();
        for event in &selected {
            known.extend(logged.events.get(*event).unwrap_or_else(|| panic!("{file}: no line has the event {event}")));
        }
        for field in quoted_after(&query, "line[\"") {
            assert!(known.iter().any(|known| *known == field), "{file}: {field} is in none of the lines {selected:?}");
        }
        for field in quoted_after(&query, "line.span[\"") {
            assert!(logged.spans.contains(field), "{file}: no span has the field {field}");
        }
        for code in quoted_after(&query, "code == \"") {
            assert!(codes.contains(&code), "{file}: there is no error code {code}");
        }
    }
}

/// The other direction: an error that an operator has to see is not left out of the queries by accident.
#[test]
fn the_queries_and_their_events_are_those_in_the_documents() {
    let operating = fs::read_to_string(devkit::root().join("docs/operating.md")).unwrap();
    let rows = operating.lines().filter_map(|line| line.strip_prefix("| `ops/")?.split_once('`'));
    let documented: BTreeMap<String, BTreeSet<String>> = rows
        .map(|(file, rest)| {
            let events = rest.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2);
            (file.to_owned(), events.map(str::to_owned).collect())
        })
        .collect();
    let of_queries = |(file, query): (String, String)| {
        let query = code(&query);
        (file, events(&query).into_iter().map(str::to_owned).collect())
    };
    assert_eq!(documented, queries().into_iter().map(of_queries).collect());
}

#[test]
fn each_function_that_a_query_names_exists() {
    let names: Vec<&str> =
        FUNCTIONS.iter().map(|function| function.name).chain(QUEUE_FUNCTIONS.map(|(name, _)| name)).collect();
    for (file, query) in queries() {
        let words = query.split(|character: char| !character.is_alphanumeric());
        let is_function =
            |word: &&str| word.strip_prefix("process").is_some_and(|rest| rest.starts_with(char::is_uppercase));
        for word in words.filter(is_function) {
            assert!(names.contains(&word), "{file}: there is no function {word}");
        }
    }
}

#[test]
fn each_query_is_valid_for_the_language_service_of_kusto() {
    let ops = devkit::root().join("ops");
    let output = Command::new("node")
        .arg(devkit::root().join("devkit/queries/check.cjs"))
        .args(queries().keys())
        .current_dir(ops)
        .env("NODE_PATH", devkit::npm::modules("queries").unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: BTreeMap<String, Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer.len(), queries().len());
    for (file, checked) in answer {
        assert_eq!(checked["problems"], serde_json::json!([]), "{file}");
        assert!(!checked["columns"].as_array().unwrap().is_empty(), "{file} has no columns");
    }
}
