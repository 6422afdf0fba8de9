//! The files that create and deploy the app on Azure: Bicep, azd, pipelines, VS Code.
//!
//! Nothing here reaches Azure. docs/deploy.md lists what these checks cannot see.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

mod bicep;
mod editor;
mod hooks;
mod infra;
mod pipelines;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn read(path: impl AsRef<Path>) -> String {
    let path = devkit::root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn json(path: &str) -> Value {
    serde_json::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A YAML file as JSON.
fn yaml(path: &str) -> Value {
    let script = "import json, sys; from ruamel.yaml import YAML; \
                  print(json.dumps(YAML(typ='safe').load(sys.stdin)))";
    let python = devkit::pip::Environment::of("checkers").unwrap();
    let mut command = python.python();
    command.args(["-c", script]).stdin(fs::File::open(devkit::root().join(path)).unwrap());
    serde_json::from_str(&succeeds(&mut command)).unwrap()
}

/// What a command prints. It must succeed.
fn succeeds(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn run(command: &mut Command) -> Output {
    command.current_dir(devkit::root()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The files of a folder with this extension, by their path from the repository's root.
fn files(folder: &str, extension: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(devkit::root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let wanted = entries.filter(|path| path.extension().is_some_and(|found| found == extension));
    wanted.map(|path| path.strip_prefix(devkit::root()).unwrap().to_str().unwrap().to_owned()).collect()
}

/// Each `function.json`, by its path from the repository's root.
fn function_files() -> Vec<PathBuf> {
    let folders = fs::read_dir(devkit::root()).unwrap().map(|entry| entry.unwrap().path().join("function.json"));
    let mut found: Vec<PathBuf> = folders.filter(|path| path.is_file()).collect();
    found.sort();
    assert!(found.len() > 10);
    found
}
