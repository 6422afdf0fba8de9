//! The files of Visual Studio Code, as the Azure Functions extension reads them for a custom handler:
//! <https://github.com/microsoft/vscode-azurefunctions>.

use serde_json::Value;

use crate::{json, run};

#[test]
fn the_functions_extension_finds_the_app() {
    let settings = json(".vscode/settings.json");
    assert_eq!(settings["azureFunctions.projectLanguage"], "Custom");
    assert_eq!(settings["azureFunctions.projectRuntime"], "~4");
    assert_eq!(settings["azureFunctions.deploySubpath"], ".");
    let recommended = json(".vscode/extensions.json")["recommendations"].clone();
    for extension in ["ms-azuretools.vscode-azurefunctions", "rust-lang.rust-analyzer", "vadimcn.vscode-lldb"] {
        assert!(recommended.as_array().unwrap().contains(&extension.into()), "{extension}");
    }
}

#[test]
fn each_task_that_another_file_names_exists() {
    let tasks = json(".vscode/tasks.json")["tasks"].as_array().unwrap().clone();
    let task = |label: &Value| {
        let found = tasks.iter().find(|task| task["label"] == *label);
        found.unwrap_or_else(|| panic!("there is no task {label}")).clone()
    };
    let host = task(&"func: host start".into());
    assert_eq!((&host["type"], &host["command"]), (&"func".into(), &"host start".into()));
    assert_eq!((&host["problemMatcher"], &host["isBackground"]), (&"$func-watch".into(), &true.into()));
    // `func start` runs what local.settings.json.example names.
    assert_eq!(task(&host["dependsOn"])["command"], "cargo build");
    let deploy = &json(".vscode/settings.json")["azureFunctions.preDeployTask"];
    assert_eq!(task(deploy)["command"], "cargo package-app");

    let attach = json(".vscode/launch.json")["configurations"][0].clone();
    assert_eq!((&attach["type"], &attach["request"]), (&"lldb".into(), &"attach".into()));
    task(&attach["preLaunchTask"]);
    let built = &json("local.settings.json.example")["Values"]["AzureFunctionsJobHost__customHandler__description__defaultExecutablePath"];
    assert_eq!(attach["program"], format!("${{workspaceFolder}}/{}", built.as_str().unwrap()));
}

#[test]
fn the_files_of_the_editor_are_in_the_repository_and_those_of_azd_are_not() {
    let is_ignored = |path: &str| {
        let mut git = std::process::Command::new("git");
        run(git.args(["check-ignore", "--quiet", "--no-index", path])).status.success()
    };
    for path in crate::files(".vscode", "json") {
        assert!(!is_ignored(&path), "{path}");
    }
    // It has the names of an operator's resources.
    assert!(is_ignored(".azure/production/.env"));
}
