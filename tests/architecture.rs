//! The dependencies between the modules, and the files that must agree with each other.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use visionary::functions::{FUNCTIONS, QUEUE_FUNCTIONS};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("tests") || path.ends_with("tests.rs") {
            // Unit tests may use all modules.
        } else if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The modules of each layer, top to bottom, from the list in `lib.rs`.
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

/// The modules that a source file declares.
fn declared(source: &str) -> BTreeSet<String> {
    let declaration = |line: &str| {
        let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
    };
    source.lines().filter_map(declaration).collect()
}

/// A file of `src`.
struct File {
    /// The path of its module.
    module: Vec<String>,
    /// The source without comments and tests.
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
    /// The paths of the `use` declarations, and whether each is a re-export.
    fn uses(&self) -> Vec<(String, bool)> {
        let mut uses = Vec::new();
        for statement in self.code.split(';') {
            let Some(at) = statement.find("use ").filter(|at| {
                let before = statement[..*at].trim();
                before.is_empty() || before.ends_with("pub") || before.ends_with("pub(crate)") || before.ends_with('}')
            }) else {
                continue;
            };
            let is_reexport = statement[..at].trim().ends_with("pub") || statement[..at].trim().ends_with("pub(crate)");
            uses.extend(expand(&statement[at + 4..]).into_iter().map(|path| (path, is_reexport)));
        }
        uses
    }

    /// The paths in the code, inside and outside of `use` declarations.
    fn paths(&self) -> Vec<String> {
        let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let words = self.code.split(|c: char| !is_path(c)).filter(|word| word.contains("::"));
        let words = words.filter(|word| !word.ends_with("::"));
        words.map(str::to_owned).collect()
    }

    /// A path from the root of the crate; `None` if it leads to another crate.
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

/// The files that each file uses. A re-exported name counts as a use of the file that defines it.
fn edges(files: &[File]) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let mut reexported = BTreeMap::new();
    for file in files {
        for (path, _) in file.uses().into_iter().filter(|(_, is_reexport)| *is_reexport) {
            if let (Some(name), Some(target)) = (path.split("::").last(), file.absolute(&path)) {
                let mut public = file.module.clone();
                public.push(name.to_owned());
                reexported.insert(public, target);
            }
        }
    }
    let resolve = |mut path: Vec<String>| {
        for length in (0..=path.len()).rev() {
            if let Some(target) = reexported.get(&path[..length]) {
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
        let imported = file.uses().into_iter().filter(|(_, is_reexport)| !is_reexport).map(|(path, _)| path);
        let targets = imported.chain(file.paths()).filter_map(|path| Some(resolve(file.absolute(&path)?)));
        let targets = targets.filter(|target| *target != file.module && !target.is_empty());
        let reexports: BTreeSet<Vec<String>> = file
            .uses()
            .into_iter()
            .filter(|(_, is_reexport)| *is_reexport)
            .filter_map(|(path, _)| Some(resolve(file.absolute(&path)?)))
            .collect();
        let mentioned: BTreeSet<Vec<String>> = targets.collect();
        // A re-export alone does not count as a use.
        let used = mentioned.into_iter().filter(|target| {
            let name = format!("{}::", target.last().unwrap());
            !reexports.contains(target)
                || file.uses().iter().any(|(path, is_reexport)| {
                    !is_reexport && file.absolute(path).map(&resolve) == Some(target.clone())
                })
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
        found.unwrap_or_else(|| panic!("{module} is in no layer: add it to the list in src/lib.rs"))
    };
    let edges = edges(&files());
    assert!(edges.len() > 30, "at least 30 source files must be found");
    for (file, used) in &edges {
        for target in used {
            let allowed = target[0] == file[0] || layer(&target[0]) > layer(&file[0]);
            assert!(allowed, "{} uses {}, which is not below it", file.join("/"), target.join("/"));
        }
    }
    assert!(layers.iter().map(BTreeSet::len).sum::<usize>() <= 20, "src may have at most 20 modules");
}

#[test]
fn no_file_depends_on_itself_through_other_files() {
    let edges = edges(&files());
    let mut done = BTreeSet::new();
    fn follow<'a>(
        file: &'a Vec<String>,
        edges: &'a BTreeMap<Vec<String>, BTreeSet<Vec<String>>>,
        path: &mut Vec<&'a Vec<String>>,
        done: &mut BTreeSet<&'a Vec<String>>,
    ) {
        if let Some(at) = path.iter().position(|before| *before == file) {
            let cycle: Vec<String> = path[at..].iter().map(|module| module.join("/")).collect();
            panic!("a dependency cycle: {} and back", cycle.join(" uses "));
        }
        if !done.contains(file) {
            path.push(file);
            for target in edges.get(file).into_iter().flatten() {
                follow(target, edges, path, done);
            }
            path.pop();
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
fn only_the_azure_folder_uses_the_storage_sdk() {
    let src = root().join("src");
    let with_sdk: BTreeSet<_> =
        rust_files(&src).into_iter().filter(|file| fs::read_to_string(file).unwrap().contains("azure_")).collect();
    assert_eq!(
        with_sdk,
        ["client", "container", "credential", "error", "queue"]
            .map(|file| src.join("azure").join(file).with_extension("rs"))
            .into()
    );
}

/// The host matches functions in the order of their names, and `web` takes each path of one segment.
#[test]
fn the_page_comes_after_all_other_functions() {
    let names = FUNCTIONS.iter().map(|function| function.name.to_ascii_lowercase());
    assert_eq!(names.max().as_deref(), Some("web"));
    for function in FUNCTIONS.iter().filter(|function| function.name != "web") {
        assert!(function.route.starts_with("api/"), "{} is beside the page", function.name);
        assert!(!function.route.contains("{*") && !function.route.contains("?}"), "{} is too wide", function.name);
    }
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
        assert_eq!(trigger["route"], function.route, "{}", function.name);
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
