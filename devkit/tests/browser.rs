//! The page (`web/`): its types, its states in Chromium against a scripted API, and a visit to the whole app.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

mod support;

use devkit::stand_ins::openai::Endpoint;
use tokio::sync::{Mutex, MutexGuard};

use support::{WholeApp, modules, node, require_chromium};

/// Two browsers at once make each other slow, so these tests run one by one.
async fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::const_new(());
    ALONE.lock().await
}

#[tokio::test]
async fn the_types_of_the_page_are_right() {
    let _alone = alone().await;
    let compiler = modules("browser").await.join("typescript/bin/tsc");

    node("browser", &[compiler.to_str().unwrap(), "-p", "tsconfig.json"], &[]).await;
}

#[tokio::test]
async fn the_page_keeps_its_promises_in_every_state() {
    let _alone = alone().await;
    require_chromium();

    let files = ["files", "drawing", "gallery", "lightbox", "access"].map(|name| format!("{name}.test.mjs"));
    let arguments: Vec<&str> = std::iter::once("--test").chain(files.iter().map(String::as_str)).collect();
    node("browser", &arguments, &[]).await;
}

#[tokio::test]
async fn a_visitor_of_the_whole_app_draws_deletes_and_meets_refusals_and_faults() {
    let _alone = alone().await;
    require_chromium();
    let mut app = WholeApp::start(4, &[]).await;

    let addresses = app.addresses();
    let visit = node("browser", &["--test", "journey.mjs"], &addresses);
    let killer = async {
        // The visitor's fourth prompt: the second one is refused.
        app.openai.wait_for_requests(Endpoint::Images, 4).await;
        app.host.kill_handler(0).await;
        app.host.start_handler(0).await.expect("the handler starts again");
    };
    tokio::join!(visit, killer);

    assert_eq!(app.openai.images_drawn().len(), 4, "each image is paid once");
    app.host.stop().await;
}

#[tokio::test]
async fn the_page_of_the_contract_shows_it_and_asks_nobody_else() {
    let _alone = alone().await;
    require_chromium();
    let app = WholeApp::start(4, &[]).await;

    node("browser", &["--test", "docs.mjs"], &app.addresses()).await;

    app.host.stop().await;
}
