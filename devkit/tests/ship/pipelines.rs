//! azd, GitHub Actions and Azure Pipelines.

use std::collections::BTreeSet;
use std::process::Command;

use devkit::pip::Environment;
use serde_json::Value;

use crate::{json, read, run, succeeds, text, yaml};

/// `check-jsonschema`, which has the schemas of workflows and pipelines built in.
fn check(arguments: &[&str]) -> Command {
    let mut command = Environment::of("checkers").unwrap().module("check_jsonschema");
    command.args(arguments);
    command
}

#[test]
fn workflows_and_pipelines_have_the_shape_of_their_schema() {
    for path in crate::files(".github/workflows", "yml") {
        succeeds(&mut check(&["--builtin-schema", "vendor.github-workflows", &path]));
    }
    succeeds(&mut check(&["--builtin-schema", "vendor.dependabot", ".github/dependabot.yml"]));
    // A pattern of this schema is no Unicode expression.
    let pipelines = ["--regex-variant", "nonunicode", "--builtin-schema", "vendor.azure-pipelines"];
    succeeds(check(&pipelines).arg("azure-pipelines.yml"));

    // The check can fail.
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.yml");
    std::fs::write(&broken, read("azure-pipelines.yml").replace("scriptType:", "scriptTyp:")).unwrap();
    assert!(!run(check(&pipelines).arg(&broken)).status.success());
}

#[test]
fn each_function_has_the_shape_of_its_schema() {
    let schema = devkit::npm::modules("checkers").unwrap().join("schemastore/schemas/json/function.json");
    succeeds(check(&["--schemafile", schema.to_str().unwrap()]).args(crate::function_files()));

    // The check can fail.
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("function.json");
    std::fs::write(&broken, read("health/function.json").replace("anonymous", "anybody")).unwrap();
    assert!(!run(check(&["--schemafile", schema.to_str().unwrap()]).arg(&broken)).status.success());
}

#[test]
fn zizmor_finds_nothing_in_the_workflows() {
    let zizmor = Environment::of("checkers").unwrap();
    succeeds(zizmor.program("zizmor").args(["--offline", "--no-progress", "--quiet", "."]));

    // The check can fail.
    let folder = tempfile::tempdir().unwrap();
    let workflows = folder.path().join(".github/workflows");
    std::fs::create_dir_all(&workflows).unwrap();
    let unpinned = |line: &str| match line.split_once("uses: ") {
        Some((before, action)) => format!("{before}uses: {}@v4\n", action.split('@').next().unwrap()),
        None => format!("{line}\n"),
    };
    let workflow: String = read(".github/workflows/ci.yml").lines().map(unpinned).collect();
    std::fs::write(workflows.join("ci.yml"), workflow).unwrap();
    let output = run(zizmor.program("zizmor").args(["--offline", "--no-progress"]).arg(folder.path()));
    assert!(text(&output.stdout).contains("unpinned-uses") && !output.status.success(), "{output:?}");
}

/// The commands of the steps of one job.
fn commands(job: &Value) -> Vec<String> {
    let steps = job["steps"].as_array().unwrap();
    steps.iter().filter_map(|step| step["run"].as_str().or(step["script"].as_str())).map(str::to_owned).collect()
}

/// Fails unless each of these parts is in the text, after the one before.
fn in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        rest = rest.split_once(part).unwrap_or_else(|| panic!("{part} is missing or too early in:\n{text}")).1;
    }
}

#[test]
fn a_deployment_follows_the_tests_of_the_same_commit_and_ends_with_the_health_of_the_app() {
    let release = &yaml(".github/workflows/release.yml")["jobs"]["release"];
    let before = commands(release).join("\n");
    in_order(&before, &[".ci/run", "cargo deny check", "cargo package-app", "gh release create"]);
    // A release that the token of a workflow publishes starts no workflow: a person publishes the draft.
    assert!(before.contains(" --draft "), "{before}");
    let attests = |step: &Value| step["uses"].as_str().is_some_and(|uses| uses.contains("/attest-build-provenance@"));
    assert!(release["steps"].as_array().unwrap().iter().any(attests));

    let workflow = yaml(".github/workflows/deploy.yml");
    assert_eq!(workflow["on"]["release"]["types"], serde_json::json!(["published"]));
    assert_eq!(workflow["on"]["workflow_dispatch"]["inputs"]["tag"]["required"], true);
    assert_eq!(workflow["on"].as_object().unwrap().len(), 2, "only a release is deployed");
    let deploy = &workflow["jobs"]["deploy"];
    assert_eq!(deploy["environment"], "production");
    assert_eq!(
        (&deploy["permissions"]["id-token"], &deploy["permissions"]["attestations"]),
        (&"write".into(), &"read".into())
    );
    assert!(!read(".github/workflows/deploy.yml").contains("secrets."), "the deployment needs no secret");
    let verified = ["gh release download \"$TAG\"", "gh attestation verify visionary.zip", "config-zip"];
    in_order(&commands(deploy).join("\n"), &verified);
    assert!(commands(deploy)[0].contains("/release.yml@refs/tags/$TAG\""), "release.yml built it, for this tag");

    let pipeline = yaml("azure-pipelines.yml");
    in_order(&commands(&pipeline["stages"][0]["jobs"][0]).join("\n"), &[".ci/run", "cargo package-app"]);
    let stage = &pipeline["stages"][1];
    assert_eq!(stage["dependsOn"], "Package");
    let steps = stage["jobs"][0]["strategy"]["runOnce"]["deploy"]["steps"].as_array().unwrap();
    let script = steps.last().unwrap()["inputs"]["inlineScript"].as_str().unwrap().to_owned();

    for commands in [commands(deploy).join("\n"), script] {
        in_order(&commands, &["az functionapp deployment source config-zip", "infra/check-health.sh"]);
    }
}

#[test]
fn the_package_of_one_commit_is_built_twice_and_compared() {
    let package = commands(&yaml(".github/workflows/ci.yml")["jobs"]["package"]).join("\n");
    assert_eq!(package.matches("cargo package-app").count(), 2, "{package}");
    assert!(package.contains("sha256sum --check"), "{package}");
}

#[test]
fn azd_deploys_the_zip_that_its_hook_builds() {
    let azd = yaml("azure.yaml");
    assert_eq!(azd["requiredVersions"]["azd"], ">= 1.20.0");
    let service = &azd["services"]["app"];
    assert_eq!((&service["host"], &service["language"]), (&"function".into(), &"custom".into()));
    // azd reads `dist` from the folder it runs in.
    assert_eq!((&service["project"], &service["dist"]), (&".".into(), &"target/visionary.zip".into()));
    assert_eq!(service["hooks"]["prepackage"]["run"], "cargo package-app");
    assert!(service["remoteBuild"].is_null(), "azd knows remoteBuild for other languages only");
    assert_eq!(azd["infra"]["path"], "infra");
    let hooks = azd["hooks"].as_object().unwrap();
    let scripts: BTreeSet<&str> = hooks.values().map(|hook| hook["run"].as_str().unwrap()).collect();
    assert_eq!(scripts, crate::files("infra", "sh").iter().map(String::as_str).collect());
}

#[test]
fn dependabot_looks_at_each_lock_file() {
    let config = yaml(".github/dependabot.yml");
    let updates = config["updates"].as_array().unwrap();
    let of = |ecosystem: &str| {
        let update = updates.iter().find(|one| one["package-ecosystem"] == ecosystem).unwrap();
        let many = update["directories"].as_array().into_iter().flatten();
        let names = many.chain([&update["directory"]]).filter_map(Value::as_str);
        names.map(|name| name.trim_start_matches('/').to_owned()).collect::<BTreeSet<_>>()
    };
    let mut locks = BTreeSet::new();
    let mut requirements = BTreeSet::new();
    for entry in std::fs::read_dir(devkit::root().join("devkit")).unwrap() {
        let folder = entry.unwrap();
        let name = format!("devkit/{}", folder.file_name().to_str().unwrap());
        if folder.path().join("package-lock.json").is_file() {
            locks.insert(name.clone());
        }
        if folder.path().join("requirements.txt").is_file() {
            requirements.insert(name);
        }
    }
    assert_eq!((of("npm"), of("pip")), (locks, requirements));
    assert!(updates.iter().any(|one| one["package-ecosystem"] == "cargo"));
    assert!(updates.iter().any(|one| one["package-ecosystem"] == "github-actions"));
    // What pip installs is what the short list asks for.
    let pinned = read("devkit/checkers/requirements.txt");
    for line in read("devkit/checkers/requirements.in").lines() {
        assert!(pinned.contains(&format!("{line} \\\n")), "requirements.txt has no {line}");
    }
    assert_eq!(json("devkit/checkers/package.json")["private"], true);
}
