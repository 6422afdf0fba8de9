//! The documents say what the code does: links, names, settings, codes, headers, events and words.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use visionary::config::Config;
use visionary::error::Code;
use visionary::functions::FUNCTIONS;

/// Words that stand for something which has another name, and that name.
const UNUSED_WORDS: [(&str, &str); 6] = [
    ("picture", "image"),
    ("trouble", "failure"),
    ("wish", "image option"),
    ("leash", "kill_on_exit"),
    ("whoever", "the process, the caller"),
    ("settle", "end, account"),
];

fn root() -> PathBuf {
    devkit::root()
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every file of the repository, by its path from the root.
fn files() -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = entry.file_name();
            if entry.path().is_dir() {
                if !["target", ".git", "node_modules"].map(Some).contains(&name.to_str()) {
                    folders.push(entry.path());
                }
            } else {
                files.insert(entry.path().strip_prefix(root()).unwrap().display().to_string());
            }
        }
    }
    files
}

/// The documents and their texts.
fn documents() -> BTreeMap<String, String> {
    files().into_iter().filter(|path| path.ends_with(".md")).map(|path| (path.clone(), read(&path))).collect()
}

/// The contract, which is no document but has texts.
fn contract() -> (String, String) {
    ("openapi.yaml".to_owned(), read("openapi.yaml"))
}

fn sources(folder: &str) -> BTreeMap<String, String> {
    let ours = |path: &String| path.starts_with(folder) && path.ends_with(".rs");
    files().into_iter().filter(ours).map(|path| (path.clone(), read(&path))).collect()
}

/// What stands between backquotes outside of code blocks.
fn code_spans(text: &str) -> Vec<String> {
    let outside = text.split("```").step_by(2);
    outside.flat_map(|part| part.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The rows of the tables whose first column's heading is `heading`, as lists of cells.
fn rows<'a>(text: &'a str, heading: &str) -> Vec<Vec<&'a str>> {
    let cells = |line: &'a str| line.trim_matches('|').split('|').map(str::trim).collect::<Vec<_>>();
    let mut found = Vec::new();
    let mut in_table = false;
    for line in text.lines() {
        if !line.starts_with('|') {
            in_table = false;
        } else if cells(line)[0] == heading {
            in_table = true;
        } else if in_table && !line.starts_with("| ---") {
            found.push(cells(line));
        }
    }
    found
}

/// As GitHub makes an anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    for (path, text) in documents() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http://") || target.starts_with("https://") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let folder = Path::new(&path).parent().unwrap();
            let file = if file.is_empty() { root().join(&path) } else { root().join(folder).join(file) };
            assert!(file.exists(), "{path} links to {target}, which does not exist");
            let linked = fs::read_to_string(&file).unwrap_or_default();
            let mut anchors = linked
                .lines()
                .filter_map(|line| line.strip_prefix('#'))
                .map(|line| anchor(line.trim_start_matches('#').trim()));
            assert!(fragment.is_empty() || anchors.any(|anchor| anchor == fragment), "{path}: no heading for {target}");
        }
    }
}

#[test]
fn every_file_that_a_document_names_exists() {
    let files = files();
    let ends = [".rs", ".md", ".json", ".toml", ".example", ".yml", ".kql"];
    let folders = ["src/", "tests/", "devkit/", "docs/", "ops/", ".ci/", ".github/"];
    for (path, text) in documents() {
        for name in code_spans(&text) {
            let looks_like_one = !name.contains(' ')
                && !name.contains('{')
                && (ends.iter().any(|end| name.ends_with(end))
                    || folders.iter().any(|folder| name.starts_with(folder)));
            let is_route = FUNCTIONS
                .iter()
                .any(|function| function.route.trim_start_matches("api/") == name.trim_start_matches("/api/"));
            // `functions/` in a table of modules is `src/functions/`; `local.settings.json` is the reader's own.
            if !looks_like_one || is_route || name.starts_with("target/") || name == "local.settings.json" {
                continue;
            }
            let exists = files.iter().any(|file| {
                file == &name
                    || file.ends_with(&format!("/{name}"))
                    || name.ends_with('/') && format!("/{file}").contains(&format!("/{name}"))
            });
            assert!(exists, "{path} names {name}, which does not exist");
        }
    }
}

#[test]
fn every_test_that_a_document_names_exists() {
    let sources: String =
        ["src/", "tests/", "devkit/tests/"].into_iter().flat_map(|folder| sources(folder).into_values()).collect();
    for (path, text) in documents() {
        for name in code_spans(&text).into_iter().filter(|name| name.matches('_').count() >= 6) {
            let is_test = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            assert!(!is_test || sources.contains(&format!("fn {name}()")), "{path}: there is no test {name}");
        }
    }
}

#[test]
fn every_command_that_a_document_names_exists() {
    let aliases = read(".cargo/config.toml");
    let tests: String = sources("tests/").into_values().chain(sources("src/").into_values()).collect();
    for (path, text) in documents() {
        let blocks = text.split("```sh").skip(1).filter_map(|rest| rest.split("```").next());
        let lines = blocks.flat_map(str::lines).map(str::to_owned).chain(code_spans(&text));
        for line in lines {
            let command = line.split('#').next().unwrap().trim();
            let Some(at) = command.find("cargo ") else { continue };
            let mut words = command[at..].split_whitespace().skip(1);
            let Some(verb) = words.next() else { continue };
            let known = ["build", "test"].contains(&verb) || aliases.contains(&format!("\n{verb} = "));
            assert!(known, "{path}: cargo has no command {verb}");
            if verb == "test" {
                let mut words = words.filter(|word| *word != "--locked");
                while let Some(word) = words.next() {
                    match word {
                        "--test" => assert!(words.next().is_some()),
                        "--lib" => {}
                        "--" => break,
                        "NAME" => {}
                        filter => assert!(tests.contains(filter), "{path}: no test has {filter} in its name"),
                    }
                }
            }
        }
    }
}

#[test]
fn the_settings_that_are_read_are_those_in_the_documents_and_in_the_example() {
    let asked = RefCell::new(BTreeSet::new());
    // Enough for every setting to be read.
    let known = |name: &str| {
        asked.borrow_mut().insert(name.to_owned());
        match name {
            "OPENAI_API_KEY" => Some("key".to_owned()),
            "AzureWebJobsStorage" => Some("UseDevelopmentStorage=true".to_owned()),
            _ => None,
        }
    };
    Config::from_vars(known).unwrap();
    let asked = asked.into_inner();

    let settings = read("docs/settings.md");
    let documented: BTreeSet<String> = rows(&settings, "name").iter().flat_map(|row| code_spans(row[0])).collect();
    assert_eq!(documented, asked, "docs/settings.md");

    let example: Value = serde_json::from_str(&read("local.settings.json.example")).unwrap();
    let of_the_host = |name: &&String| {
        *name == "FUNCTIONS_WORKER_RUNTIME"
            || name.starts_with("AzureFunctionsJobHost__")
            || *name == "AzureWebJobsDisableHomepage"
    };
    let in_example: BTreeSet<String> =
        example["Values"].as_object().unwrap().keys().filter(|name| !of_the_host(name)).cloned().collect();
    assert_eq!(in_example, asked, "local.settings.json.example");
    assert!(Config::from_vars(|name| example["Values"][name].as_str().map(str::to_owned)).is_ok());

    // A name in capitals is a setting, one of the tools' own, or a variable of a deployment.
    let others = [
        "FUNCTIONS_WORKER_RUNTIME",
        "INTERLEAVINGS",
        "INTERLEAVING",
        "VISIONARY_BROWSER_MODULES",
        // The OpenTelemetry SDK reads these.
        "OTEL_BSP_SCHEDULE_DELAY",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_SERVICE_NAME",
        "OTEL_TRACES_SAMPLER",
    ];
    let deployment =
        ["infra/main.parameters.json", "infra/main.bicep", ".github/workflows/deploy.yml"].map(read).concat();
    let of_a_deployment =
        |name: &str| deployment.split(|c: char| c != '_' && !c.is_ascii_uppercase()).any(|word| word == name);
    for (path, text) in documents().into_iter().chain([contract()]) {
        for span in code_spans(&text) {
            let name = span.split('=').next().unwrap();
            let is_setting = name.contains('_') && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
            let is_known = asked.contains(name) || others.contains(&name) || of_a_deployment(name);
            assert!(!is_setting || is_known, "{path} names the setting {name}");
        }
    }
}

#[test]
fn the_functions_are_those_in_the_documents() {
    let api = read("docs/api.md");
    let documented: BTreeMap<String, (BTreeSet<String>, &str)> = rows(&api, "function")
        .into_iter()
        .map(|row| {
            let methods = row[1].split(", ").map(|method| method.to_lowercase()).collect();
            (code_spans(row[0])[0].clone(), (methods, if row[2].is_empty() { "anonymous" } else { "function" }))
        })
        .collect();
    let mut known = BTreeSet::new();
    for function in FUNCTIONS {
        let route = function
            .route
            .trim_start_matches("api/")
            .replace(":length(75)", "")
            .replace(":length(46)", "")
            .replace("{page?}", "/");
        let (methods, auth_level) =
            documented.get(&route).cloned().unwrap_or_else(|| panic!("docs/api.md has no function {route}"));
        assert_eq!(methods, function.methods.iter().map(|method| (*method).to_owned()).collect(), "{route}");
        assert_eq!(auth_level, function.auth_level, "{route}");
        known.insert(route);
    }
    assert_eq!(documented.into_keys().collect::<BTreeSet<_>>(), known);
}

#[test]
fn the_error_codes_are_those_in_the_documents() {
    let codes: BTreeSet<(u16, String)> =
        Code::ALL.iter().map(|code| (code.status().as_u16(), code.as_str().to_owned())).collect();
    let api = read("docs/api.md");
    let documented: BTreeSet<(u16, String)> =
        rows(&api, "status").into_iter().map(|row| (row[0].parse().unwrap(), code_spans(row[1])[0].clone())).collect();
    assert_eq!(documented, codes, "docs/api.md");
    let operating = read("docs/operating.md");
    let for_operators: BTreeSet<String> = rows(&operating, "code").iter().flat_map(|row| code_spans(row[0])).collect();
    assert_eq!(for_operators, codes.into_iter().map(|(_, code)| code).collect(), "docs/operating.md");
}

#[test]
fn the_headers_that_are_written_are_those_in_the_documents() {
    let sources: String = sources("src/functions").into_values().collect::<String>().to_lowercase();
    let api = read("docs/api.md");
    let named = code_spans(&api).into_iter().map(|span| span.split(':').next().unwrap().to_lowercase());
    let named: BTreeSet<String> = named.collect();
    for header in [
        "x-error-code",
        "x-image-name",
        "x-suggestion-source",
        "x-azure-functions-invocationid",
        "ratelimit",
        "ratelimit-policy",
        "preference-applied",
        "idempotency-key",
        "prefer",
        "x-robots-tag",
    ] {
        assert!(sources.contains(&format!("\"{header}\"")), "no code has the header {header}");
        assert!(named.contains(header), "docs/api.md does not name the header {header}");
    }
    let ours = sources.split("\"x-").skip(1).map(|rest| format!("x-{}", rest.split('"').next().unwrap()));
    for header in ours.filter(|header| header != "x-ms-invocation-id") {
        assert!(named.contains(&header), "docs/api.md does not name the header {header}");
    }
}

/// Each line that an operator may filter by: its name and its level.
fn log_events() -> BTreeSet<(String, String)> {
    let mut events = BTreeSet::new();
    for (path, text) in sources("src/") {
        for level in ["error", "warn", "info"] {
            for call in text.split(&format!("tracing::{level}!(")).skip(1) {
                let first = call.trim_start();
                let name = first.strip_prefix("event = \"").and_then(|rest| rest.split('"').next());
                match name {
                    Some(name) => drop(events.insert((name.to_owned(), level.to_owned()))),
                    None => assert!(level == "info", "{path}: a line of the log has no event: {first:.80}"),
                }
            }
        }
    }
    events
}

#[test]
fn the_events_of_the_log_are_those_in_the_documents() {
    let operating = read("docs/operating.md");
    let documented: BTreeSet<(String, String)> =
        rows(&operating, "event").into_iter().map(|row| (code_spans(row[0])[0].clone(), row[1].to_owned())).collect();
    assert_eq!(documented, log_events(), "docs/operating.md");
}

#[test]
fn the_version_is_the_same_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    for (path, line) in [
        ("devkit/Cargo.toml", format!("version = \"{version}\"")),
        ("openapi.yaml", format!("version: {version}")),
        ("azure.yaml", format!("template: visionary@{version}")),
        ("client/package.json", format!("\"version\": \"{version}\",")),
    ] {
        assert!(read(path).lines().any(|found| found.trim() == line), "{path} has no line `{line}`");
    }
}

#[test]
fn words_that_have_another_name_are_not_used() {
    let texts = sources("src/").into_iter().chain(sources("devkit/")).chain(sources("tests/")).chain(documents());
    let texts = texts.chain([contract()]);
    for (path, text) in texts.filter(|(path, _)| path != "tests/documents.rs") {
        for (number, line) in text.lines().enumerate() {
            // The element of HTML has this name.
            let line = line.to_lowercase().replace("<picture>", "").replace("</picture>", "");
            for (word, better) in UNUSED_WORDS {
                let is_used = line
                    .split(|c: char| !c.is_alphanumeric())
                    .any(|found| found.strip_prefix(word).is_some_and(|end| ["", "s", "d", "ed"].contains(&end)));
                assert!(!is_used, "{path}:{}: \"{word}\"; this project says {better}", number + 1);
            }
        }
    }
}
