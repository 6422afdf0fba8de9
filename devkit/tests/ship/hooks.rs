//! The scripts that azd and the pipelines run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use axum::Router;
use axum::routing::get;

use crate::{run, succeeds, text};

fn script(name: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg(devkit::root().join("infra").join(name));
    command
}

/// A folder with an `azd` that notes how it was called.
fn azd(folder: &Path) -> String {
    let program = folder.join("azd");
    fs::write(&program, "#!/bin/sh\necho \"$@\" >> \"$0.calls\"\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

#[test]
fn the_first_provision_waits_for_the_roles_and_later_ones_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = azd(folder.path());
    let hook = |ready_for: &str, seconds: &str| {
        let mut command = script("wait-for-roles.sh");
        command.env("PATH", &path).env("APP_PRINCIPAL_ID", "principal").env("ROLES_WAIT_SECONDS", seconds);
        succeeds(command.env("ROLES_READY_FOR", ready_for))
    };
    assert!(hook("", "0").starts_with("The roles of the app are new. Waiting 0 s"));
    assert_eq!(fs::read_to_string(folder.path().join("azd.calls")).unwrap(), "env set ROLES_READY_FOR principal\n");
    // An app that was created again has another identity.
    assert!(!hook("another", "0").is_empty());
    // An hour would end the test.
    assert_eq!(hook("principal", "3600"), "");
}

/// An app that answers `/api/health` with this text, and its address.
async fn app(answer: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/api/health", get(move || async move { answer }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_of_health_ends_when_the_app_is_healthy_and_fails_when_it_stays_degraded() {
    let check = |url: String| {
        let mut command = script("check-health.sh");
        command.env("PAGE_URL", url).env("HEALTH_TRIES", "2").env("HEALTH_PAUSE_SECONDS", "0");
        tokio::task::spawn_blocking(move || run(&mut command))
    };
    let healthy = check(app(r#"{"status":"ok","version":"0.1.0"}"#).await).await.unwrap();
    assert!(healthy.status.success() && text(&healthy.stdout).contains("is healthy"), "{healthy:?}");

    let degraded = check(app(r#"{"status":"degraded","version":"0.1.0"}"#).await).await.unwrap();
    assert_eq!(degraded.status.code(), Some(1));
    assert!(text(&degraded.stderr).contains(r#"Its last answer: {"status":"degraded""#), "{degraded:?}");

    let unreachable = check("http://127.0.0.1:9".to_owned()).await.unwrap();
    assert_eq!(unreachable.status.code(), Some(1));
}
