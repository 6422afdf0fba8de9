//! The crates of `Cargo.lock` keep the rules of `deny.toml`, and each exception in it is still needed.
//!
//! cargo-deny checks the same rules in the public workflow, and new advisories, which need the network.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

fn rules() -> Value {
    let text = fs::read_to_string(devkit::root().join("deny.toml")).unwrap();
    toml::from_str(&text).unwrap()
}

fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).unwrap_or_else(|| panic!("no list at {path}"))
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

/// The output of a `cargo` command.
fn cargo(arguments: &[&str]) -> String {
    let output = devkit::cargo().args(arguments).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What `cargo metadata` says about the packages of `Cargo.lock`.
fn metadata() -> Value {
    serde_json::from_str(&cargo(&["metadata", "--locked", "--format-version=1"])).unwrap()
}

/// `name@version` of a package. The build metadata of a version, after `+`, says nothing that a rule needs.
fn package(name: &str, version: &str) -> String {
    format!("{name}@{}", version.split('+').next().unwrap())
}

/// The packages that are built on any platform, as [`package`] names them. `Cargo.lock` has more: optional
/// dependencies that nothing switches on.
fn tree() -> BTreeSet<String> {
    let scope = ["--locked", "--workspace", "--target=all", "--all-features", "--edges=normal,build,dev"];
    let lines = cargo(&[&["tree"], &scope[..], &["--prefix=none", "--format={p}"]].concat());
    let mut tree = BTreeSet::new();
    for line in lines.lines().filter(|line| !line.is_empty()) {
        let (name, version) = line.split_once(" v").unwrap_or_else(|| panic!("no package: {line}"));
        tree.insert(package(name, version.split(' ').next().unwrap()));
    }
    assert!(tree.len() > 100, "cargo tree lists the dependencies");
    tree
}

/// The operands of `operator` outside of parentheses.
fn operands<'a>(expression: &'a str, operator: &str) -> Vec<&'a str> {
    let mut operands = vec![];
    let (mut depth, mut start) = (0, 0);
    for (at, character) in expression.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && expression[at..].starts_with(operator) => {
                operands.push(expression[start..at].trim());
                start = at + operator.len();
            }
            _ => {}
        }
    }
    operands.push(expression[start..].trim());
    operands
}

/// Whether the licences that are allowed satisfy an SPDX expression
/// (<https://spdx.github.io/spdx-spec/v2.3/SPDX-license-expressions/>). Cargo once took `/` for `OR`.
fn is_satisfied(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let expression = expression.replace('/', " OR ");
    operands(&expression, " OR ").into_iter().any(|choice| {
        operands(choice, " AND ").into_iter().all(|part| {
            let inner = part.strip_prefix('(').and_then(|part| part.strip_suffix(')'));
            inner.map_or_else(|| allowed.contains(part), |inner| is_satisfied(inner, allowed))
        })
    })
}

fn allowed(rules: &Value) -> BTreeSet<&str> {
    list(rules, "/licenses/allow").iter().map(|licence| licence.as_str().unwrap()).collect()
}

/// The packages with a licence expression that is not satisfied, without the exceptions.
fn refused<'a>(metadata: &'a Value, allowed: &BTreeSet<&str>) -> BTreeMap<&'a str, &'a str> {
    let packages = list(metadata, "/packages").iter();
    let licences = packages.map(|package| (text(package, "name"), package["license"].as_str().unwrap_or("none")));
    licences.filter(|(_, licence)| !is_satisfied(licence, allowed)).collect()
}

#[test]
fn every_crate_has_a_licence_that_is_allowed() {
    let (rules, metadata) = (rules(), metadata());
    let allowed = allowed(&rules);
    let mut refused = refused(&metadata, &allowed);
    for exception in list(&rules, "/licenses/exceptions") {
        let name = text(exception, "crate");
        let licence = refused.remove(name).unwrap_or_else(|| panic!("the exception for {name} is not needed"));
        let more = list(exception, "/allow").iter().map(|licence| licence.as_str().unwrap());
        assert!(is_satisfied(licence, &allowed.iter().copied().chain(more).collect()), "{name}: {licence}");
    }
    assert!(refused.is_empty(), "not allowed: {refused:?}");
}

#[test]
fn every_licence_that_is_allowed_is_needed() {
    let (rules, metadata) = (rules(), metadata());
    let all = allowed(&rules);
    for licence in &all {
        let others = all.iter().copied().filter(|other| other != licence).collect();
        assert!(refused(&metadata, &others) != refused(&metadata, &all), "no crate needs {licence}");
    }
}

#[test]
fn every_crate_comes_from_an_allowed_registry_or_this_repository() {
    let (rules, metadata) = (rules(), metadata());
    let members = list(&metadata, "/workspace_members");
    let registries: Vec<String> = list(&rules, "/sources/allow-registry")
        .iter()
        .map(|registry| format!("registry+{}", registry.as_str().unwrap()))
        .collect();
    for package in list(&metadata, "/packages") {
        let is_ours = members.contains(&package["id"]);
        let is_allowed = package["source"].as_str().is_some_and(|source| registries.iter().any(|own| own == source));
        assert!(is_ours || is_allowed, "{} comes from {}", package["id"], package["source"]);
    }
}

#[test]
fn no_crate_is_banned_and_each_second_version_is_listed() {
    let (rules, tree) = (rules(), tree());
    let name = |package: &str| package.split('@').next().unwrap().to_owned();
    for banned in list(&rules, "/bans/deny") {
        let wanted = text(banned, "crate");
        assert!(!tree.iter().any(|package| name(package) == wanted), "{wanted}: {}", text(banned, "reason"));
    }
    let skipped: BTreeSet<String> =
        list(&rules, "/bans/skip").iter().map(|skip| text(skip, "crate").to_owned()).collect();
    let mut versions: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for package in &tree {
        versions.entry(name(package)).or_default().push(package);
    }
    for packages in versions.values() {
        let unlisted = packages.iter().filter(|package| !skipped.contains(**package)).count();
        assert!(unlisted <= 1, "more than one version, and no skip in deny.toml: {packages:?}");
    }
    for skip in &skipped {
        let is_second = versions.get(&name(skip)).is_some_and(|packages| packages.len() > 1);
        assert!(tree.contains(skip) && is_second, "the skip of {skip} is not needed");
    }
}

#[test]
fn each_accepted_advisory_names_a_crate_of_the_tree_and_the_reason() {
    let (rules, tree) = (rules(), tree());
    let mut ids = BTreeSet::new();
    for ignored in list(&rules, "/advisories/ignore") {
        let (id, reason) = (text(ignored, "id"), text(ignored, "reason"));
        assert!(id.starts_with("RUSTSEC-") && ids.insert(id), "{id}");
        let (package, why) = reason.split_once(": ").unwrap_or_else(|| panic!("{id} names no crate: {reason}"));
        assert!(tree.contains(package), "{id} is about {package}, which is not in the tree: remove it");
        assert!(why.split_whitespace().count() >= 5, "{id} has no reason: {reason}");
    }
    // A document that repeats an id goes out of date: deny.toml is the list.
    for document in ["docs/design.md", "docs/security.md", "SECURITY.md", "README.md"] {
        let text = fs::read_to_string(devkit::root().join(document)).unwrap();
        assert!(!text.contains("RUSTSEC-"), "{document} names an advisory; deny.toml is the list of them");
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_defines_them() {
    let allowed = BTreeSet::from(["MIT", "ISC"]);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("GPL-3.0-only OR MIT", true),
        ("Apache-2.0/MIT", true),
        ("MIT AND GPL-3.0-only", false),
        ("(GPL-3.0-only OR MIT) AND ISC", true),
        ("(MIT OR ISC) AND GPL-3.0-only", false),
        ("GPL-3.0-only AND MIT OR ISC", true),
        ("Apache-2.0 WITH LLVM-exception", false),
    ] {
        assert_eq!(is_satisfied(expression, &allowed), expected, "{expression}");
    }
}
