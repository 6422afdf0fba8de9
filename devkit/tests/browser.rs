//! The page (`web/`): its types, its states in Chromium against a scripted API, and a visit to the whole app.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use devkit::stand_ins::azurite::Azurite;
use devkit::stand_ins::host::{FunctionsHost, Options, Wire};
use devkit::stand_ins::openai::{self, Endpoint, OpenAi, Painting};
use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};

/// Where `devkit/browser/browser.mjs` looks for a browser, too.
const CHROMIUM: [&str; 3] = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
/// Time limit of a program.
const BOUND: Duration = Duration::from_secs(8 * 60);
/// Drawing time of the stand-in, with two previews on the way. A debug build needs a part of a second for a preview.
const DRAWING_TAKES: Duration = Duration::from_secs(4);

/// Two browsers at once make each other slow, so these tests run one by one.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

async fn modules() -> PathBuf {
    let installed = tokio::task::spawn_blocking(|| devkit::npm::modules("browser")).await.unwrap();
    installed.unwrap_or_else(|error| panic!("{error:#}"))
}

fn require_chromium() {
    let is_there = match std::env::var_os("CHROMIUM") {
        Some(named) => Path::new(&named).exists(),
        None => CHROMIUM.iter().any(|path| Path::new(path).exists()),
    };
    assert!(is_there, "Chromium is missing: install it (Debian: `apt-get install chromium`), or name it in CHROMIUM.");
}

/// Runs Node.js in `devkit/browser`. A failure shows the whole output.
async fn node(arguments: &[&str], environment: &[(&str, String)]) {
    let mut command = Command::new("node");
    command.args(arguments).current_dir(devkit::root().join("devkit/browser"));
    command.env("VISIONARY_BROWSER_MODULES", modules().await).envs(environment.iter().cloned());
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(BOUND, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("`node {}` did not end within {BOUND:?}", arguments.join(" ")));
    let output = output.expect("`node` starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "`node {}` failed:\n{}{}",
        arguments.join(" "),
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[tokio::test]
async fn the_types_of_the_page_are_right() {
    let _alone = alone().await;
    let compiler = modules().await.join("typescript/bin/tsc");

    node(&[compiler.to_str().unwrap(), "-p", "tsconfig.json"], &[]).await;
}

#[tokio::test]
async fn the_page_keeps_its_promises_in_every_state() {
    let _alone = alone().await;
    require_chromium();

    let files = ["files", "drawing", "gallery", "lightbox", "access"].map(|name| format!("{name}.test.mjs"));
    let arguments: Vec<&str> = std::iter::once("--test").chain(files.iter().map(String::as_str)).collect();
    node(&arguments, &[]).await;
}

#[tokio::test]
async fn a_visitor_of_the_whole_app_draws_deletes_and_meets_refusals_and_faults() {
    let _alone = alone().await;
    require_chromium();
    // This crate does not depend on the app, so cargo has not built it for this test.
    assert!(devkit::cargo().args(["build", "--bin", "handler"]).status().unwrap().success());
    let azurite = tokio::task::spawn_blocking(Azurite::start).await.unwrap().expect("Azurite starts");
    let options = openai::Options { painting: Painting::Artist, delay: DRAWING_TAKES, ..openai::Options::default() };
    let openai = OpenAi::start_with(options).await.expect("the stand-in for OpenAI starts");
    let spool = tempfile::tempdir().unwrap();
    let settings = [
        ("AzureWebJobsStorage", azurite.connection_string()),
        ("SPOOL_DIR", spool.path().to_str().unwrap().to_owned()),
        ("OPENAI_API_KEY", "a-key".to_owned()),
        ("OPENAI_BASE_URL", openai.base_url()),
        ("DAILY_IMAGE_QUOTA", "4".to_owned()),
    ];
    let mut host = FunctionsHost::start(Options {
        handler: Some(devkit::target_dir().join("debug/handler")),
        settings: settings.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        queues: true,
        ..Options::new(devkit::root(), Wire::Proxying)
    })
    .await
    .expect("the host and the handler start");

    let blobs = format!("http://127.0.0.1:{}", azurite.blob_port());
    let addresses = [("VISIONARY_URL", host.url()), ("VISIONARY_BLOBS", blobs)];
    let visit = node(&["--test", "journey.mjs"], &addresses);
    let killer = async {
        // The visitor's fourth prompt: the second one is refused.
        openai.wait_for_requests(Endpoint::Images, 4).await;
        host.kill_handler(0).await;
        host.start_handler(0).await.expect("the handler starts again");
    };
    tokio::join!(visit, killer);

    assert_eq!(openai.images_drawn().len(), 4, "each image is paid once");
    host.stop().await;
}
