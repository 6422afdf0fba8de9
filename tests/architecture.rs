//! The arrows between the modules, and the files that must agree with each other.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use visionary::config::Config;
use visionary::functions::{FUNCTIONS, QUEUE_FUNCTIONS};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("tests") || path.ends_with("tests.rs") {
            // They may look anywhere.
        } else if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The modules of each floor, top to bottom, as the list in `lib.rs` has them.
fn layers() -> Vec<BTreeSet<String>> {
    let library = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let declared: BTreeSet<String> = declared(&library);
    let mut layers: Vec<BTreeSet<String>> = Vec::new();
    for line in library.lines().filter_map(|line| line.strip_prefix("//! ")) {
        let named = line.split('`').skip(1).step_by(2).map(str::to_owned);
        let named: Vec<String> = named.filter(|name| declared.contains(name) || name == "main").collect();
        if line.starts_with(|c: char| c.is_ascii_digit()) {
            layers.push(named.into_iter().collect());
        }
    }
    layers
}

/// The modules that a source declares.
fn declared(source: &str) -> BTreeSet<String> {
    let declaration = |line: &str| {
        let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
    };
    source.lines().filter_map(declaration).collect()
}

/// A file of `src`, by the path of its module.
struct File {
    module: Vec<String>,
    /// Without comments and tests.
    code: String,
    declared: BTreeSet<String>,
}

/// All files of `src`.
fn files() -> Vec<File> {
    let src = root().join("src");
    let parse = |path: PathBuf| {
        let relative = path.strip_prefix(&src).unwrap().with_extension("");
        let mut module: Vec<String> = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if module == ["lib"] {
            module.clear();
        }
        let source = fs::read_to_string(&path).unwrap();
        let code: Vec<&str> = source.split("#[cfg(test)]\nmod tests").next().unwrap().lines().collect();
        let code: String = code
            .into_iter()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| [line, "\n"])
            .collect();
        File { module, declared: declared(&code), code }
    };
    rust_files(&src).into_iter().map(parse).collect()
}

/// `a::{b, c::{d, e}}` as `a::b`, `a::c::d`, `a::c::e`.
fn expand(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let rest = &rest[..rest.rfind('}').unwrap()];
    let (mut depth, mut parts) = (0, vec![String::new()]);
    for character in rest.chars() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().unwrap().push(character);
    }
    let parts = parts.iter().filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| expand(part)).map(|part| format!("{}{part}", prefix.trim())).collect()
}

impl File {
    /// The `use` declarations, and whether each only passes names on.
    fn uses(&self) -> Vec<(String, bool)> {
        let mut uses = Vec::new();
        for statement in self.code.split(';') {
            let Some(at) = statement.find("use ").filter(|at| {
                let before = statement[..*at].trim();
                before.is_empty() || before.ends_with("pub") || before.ends_with("pub(crate)") || before.ends_with('}')
            }) else {
                continue;
            };
            let passes_on = statement[..at].trim().ends_with("pub") || statement[..at].trim().ends_with("pub(crate)");
            uses.extend(expand(&statement[at + 4..]).into_iter().map(|path| (path, passes_on)));
        }
        uses
    }

    /// Paths in the code, outside of `use` declarations too.
    fn paths(&self) -> Vec<String> {
        let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let words = self.code.split(|c: char| !is_path(c)).filter(|word| word.contains("::"));
        let words = words.filter(|word| !word.ends_with("::"));
        words.map(str::to_owned).collect()
    }

    /// A path from the root of the crate; `None` where it does not lead to a file of ours.
    fn absolute(&self, path: &str) -> Option<Vec<String>> {
        let segments: Vec<String> = path.split("::").map(str::to_owned).collect();
        let (first, rest) = segments.split_first()?;
        let mut module = self.module.clone();
        match first.as_str() {
            "crate" => module.clear(),
            "self" => {}
            "super" => drop(module.pop()),
            name if self.declared.contains(name) => module.push(name.to_owned()),
            _ => return None,
        }
        module.extend(rest.iter().cloned());
        Some(module)
    }
}

/// Which file uses which. A name that a folder's own file passes on is used where it is from.
fn edges(files: &[File]) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let mut passed_on = BTreeMap::new();
    for file in files {
        for (path, _) in file.uses().into_iter().filter(|(_, passes_on)| *passes_on) {
            if let (Some(name), Some(target)) = (path.split("::").last(), file.absolute(&path)) {
                let mut public = file.module.clone();
                public.push(name.to_owned());
                passed_on.insert(public, target);
            }
        }
    }
    let resolve = |mut path: Vec<String>| {
        for length in (0..=path.len()).rev() {
            if let Some(target) = passed_on.get(&path[..length]) {
                path = target.clone();
                break;
            }
        }
        while !files.iter().any(|file| file.module == path) {
            path.pop();
        }
        path
    };
    let mut edges: BTreeMap<Vec<String>, BTreeSet<Vec<String>>> = BTreeMap::new();
    for file in files.iter().filter(|file| !file.module.is_empty()) {
        let imported = file.uses().into_iter().filter(|(_, passes_on)| !passes_on).map(|(path, _)| path);
        let targets = imported.chain(file.paths()).filter_map(|path| Some(resolve(file.absolute(&path)?)));
        let targets = targets.filter(|target| *target != file.module && !target.is_empty());
        let passes_on: BTreeSet<Vec<String>> = file
            .uses()
            .into_iter()
            .filter(|(_, passes_on)| *passes_on)
            .filter_map(|(path, _)| Some(resolve(file.absolute(&path)?)))
            .collect();
        let mentioned: BTreeSet<Vec<String>> = targets.collect();
        // What is passed on and not used otherwise is no use.
        let used = mentioned.into_iter().filter(|target| {
            let name = format!("{}::", target.last().unwrap());
            !passes_on.contains(target)
                || file
                    .uses()
                    .iter()
                    .any(|(path, passes_on)| !passes_on && file.absolute(path).map(&resolve) == Some(target.clone()))
                || file.code.lines().any(|line| !line.contains("use ") && line.contains(&name))
        });
        edges.insert(file.module.clone(), used.collect());
    }
    edges
}

#[test]
fn no_module_calls_up() {
    let layers = layers();
    let layer = |module: &str| {
        let found = layers.iter().position(|layer| layer.contains(module));
        found.unwrap_or_else(|| panic!("{module} is on no floor: put it into the list in src/lib.rs"))
    };
    let edges = edges(&files());
    assert!(edges.len() > 30, "the sources were found");
    for (file, used) in &edges {
        for target in used {
            let allowed = target[0] == file[0] || layer(&target[0]) > layer(&file[0]);
            assert!(allowed, "{} uses {}, which is not below it", file.join("/"), target.join("/"));
        }
    }
    assert!(layers.iter().map(BTreeSet::len).sum::<usize>() <= 20, "a newcomer can hold the names at the top in mind");
}

#[test]
fn no_file_uses_itself_in_a_circle() {
    let edges = edges(&files());
    let mut done = BTreeSet::new();
    fn follow<'a>(
        file: &'a Vec<String>,
        edges: &'a BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
        way: &mut Vec<&'a Vec<String>>,
        done: &mut BTreeSet<&'a Vec<String>>,
    ) {
        if let Some(at) = way.iter().position(|before| *before == file) {
            let circle: Vec<String> = way[at..].iter().map(|module| module.join("/")).collect();
            panic!("a circle: {} and back", circle.join(" uses "));
        }
        if !done.contains(file) {
            way.push(file);
            for target in edges.get(file).into_iter().flatten() {
                follow(target, edges, way, done);
            }
            way.pop();
            done.insert(file);
        }
    }
    for file in edges.keys() {
        follow(file, &edges, &mut Vec::new(), &mut done);
    }
}

#[test]
fn no_file_is_longer_than_400_lines() {
    for path in rust_files(&root().join("src")) {
        let source = fs::read_to_string(&path).unwrap();
        let lines = source.split("#[cfg(test)]\n").next().unwrap().lines().count();
        assert!(lines <= 400, "{} has {lines} lines", path.display());
    }
}

#[test]
fn sdk_types_stay_in_one_folder() {
    let src = root().join("src");
    let with_sdk: BTreeSet<_> =
        rust_files(&src).into_iter().filter(|file| fs::read_to_string(file).unwrap().contains("azure_")).collect();
    assert_eq!(
        with_sdk,
        ["client", "container", "error", "queue"].map(|file| src.join("azure").join(file).with_extension("rs")).into()
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
