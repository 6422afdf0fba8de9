//! The arrows between the modules, and the files that must agree with each other.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use visionary::config::Config;
use visionary::functions::{FUNCTIONS, QUEUE_FUNCTIONS};

/// Top to bottom. A module uses those on lines below its own, and itself.
const LAYERS: [&[&str]; 18] = [
    &["main"],
    &["server"],
    &["functions"],
    &["work"],
    &["error"],
    &["generate", "recover", "cleanup", "lifecycle"],
    &["app"],
    &["director", "suggest"],
    &["idempotency", "quota", "jobs"],
    &["spool"],
    &["openai", "gallery"],
    &["progress"],
    &["preview", "estimate"],
    &["ledger"],
    &["azure"],
    &["prompt", "image", "turns", "logs", "caller", "price", "wording"],
    &["digest", "lock"],
    &["config"],
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn layer(module: &str) -> usize {
    LAYERS
        .iter()
        .position(|layer| layer.contains(&module))
        .unwrap_or_else(|| panic!("{module} has no layer: put it into LAYERS"))
}

/// The top-level modules that a source names, in `use crate::{a, b}` too.
fn modules_named(source: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for after in source.split("crate::").skip(1) {
        let list = match after.strip_prefix('{') {
            Some(list) => list.split('}').next().unwrap_or_default(),
            None => after.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap_or_default(),
        };
        named.extend(list.split(',').map(|name| name.trim().split("::").next().unwrap_or_default().to_owned()));
    }
    named.retain(|name| !name.is_empty());
    named
}

#[test]
fn no_module_calls_up() {
    let src = root().join("src");
    let files = rust_files(&src);
    assert!(files.len() > 15, "the sources were found");
    for file in files {
        let relative = file.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
        let module = relative.split(['/', '.']).next().unwrap().to_owned();
        if module == "lib" {
            continue;
        }
        for used in modules_named(&fs::read_to_string(&file).unwrap()) {
            let allowed = used == module || layer(&used) > layer(&module);
            assert!(allowed, "src/{relative} uses {used}, which is not below {module}");
        }
    }
}

#[test]
fn sdk_types_stay_in_one_folder() {
    let src = root().join("src");
    let with_sdk: BTreeSet<_> =
        rust_files(&src).into_iter().filter(|file| fs::read_to_string(file).unwrap().contains("azure_")).collect();
    assert_eq!(
        with_sdk,
        ["azure.rs", "azure/container.rs", "azure/queue.rs", "azure/table.rs"].map(|file| src.join(file)).into()
    );
}

#[test]
fn each_function_folder_agrees_with_the_route_table() {
    let mut folders: Vec<String> = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let path = entry.unwrap().path();
        if path.join("function.json").is_file() {
            folders.push(path.file_name().unwrap().to_str().unwrap().to_owned());
        }
    }
    folders.sort();
    let mut names: Vec<&str> = FUNCTIONS.iter().map(|function| function.name).collect();
    names.extend(QUEUE_FUNCTIONS.map(|(name, _)| name));
    names.sort_unstable();
    assert_eq!(folders, names);
    for function in &FUNCTIONS {
        let text = fs::read_to_string(root().join(function.name).join("function.json")).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        let trigger = &json["bindings"][0];
        assert_eq!(trigger["type"], "httpTrigger", "{}", function.name);
        assert_eq!(trigger["authLevel"], function.auth_level, "{}", function.name);
        let mut methods: Vec<&str> =
            trigger["methods"].as_array().unwrap().iter().map(|method| method.as_str().unwrap()).collect();
        methods.sort_unstable();
        assert_eq!(methods, function.methods, "{}", function.name);
        let below = format!("{}/{{*rest}}", function.name);
        let route = trigger["route"].as_str();
        assert!(route.is_none_or(|route| route == below), "the address is the folder's name: {}", function.name);
    }
    for (name, queue) in QUEUE_FUNCTIONS {
        let text = fs::read_to_string(root().join(name).join("function.json")).unwrap();
        let trigger = serde_json::from_str::<Value>(&text).unwrap()["bindings"][0].clone();
        assert_eq!(
            trigger,
            serde_json::json!({
                "type": "queueTrigger", "direction": "in", "name": "job", "queueName": queue,
                "connection": "AzureWebJobsStorage",
            })
        );
    }
}

#[test]
fn the_readme_and_the_example_name_exactly_the_settings_that_are_read() {
    let asked = RefCell::new(BTreeSet::new());
    // Enough for every setting to be asked for.
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

    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let table = readme.split("## Settings").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let in_readme: BTreeSet<String> =
        rows.flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2).map(str::to_owned)).collect();
    assert_eq!(in_readme, asked, "README.md, Settings");

    let example = fs::read_to_string(root().join("local.settings.json.example")).unwrap();
    let example: Value = serde_json::from_str(&example).unwrap();
    let hosts = |name: &String| name == "FUNCTIONS_WORKER_RUNTIME" || name.starts_with("AzureFunctionsJobHost__");
    let in_example: BTreeSet<String> =
        example["Values"].as_object().unwrap().keys().filter(|name| !hosts(name)).cloned().collect();
    assert_eq!(in_example, asked, "local.settings.json.example");
    assert!(Config::from_vars(|name| example["Values"][name].as_str().map(str::to_owned)).is_ok());
}
