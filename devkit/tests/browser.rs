//! The page (`web/`): its types, its states in Chromium against a scripted API, and a visit to the whole app.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

mod support;

use devkit::stand_ins::faults::Line;
use devkit::stand_ins::openai::Endpoint;
use tokio::sync::{Mutex, MutexGuard};

use support::{WholeApp, modules, node, require_chromium};

/// Three browsers at once make each other slow, so these tests run one by one. The visit to the whole app runs beside them,
/// because it mostly waits.
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

    let files = ["files", "drawing", "gallery", "lightbox", "access", "aria"].map(|name| format!("{name}.test.mjs"));
    let arguments: Vec<&str> = std::iter::once("--test").chain(files.iter().map(String::as_str)).collect();
    node("browser", &arguments, &[]).await;
}

#[tokio::test]
async fn a_visitor_of_the_whole_app_draws_deletes_and_meets_refusals_and_faults() {
    require_chromium();
    // One image at a time: a few more requests make the app busy.
    let settings = [("DAILY_IMAGE_QUOTA", "6"), ("MAX_CONCURRENT_GENERATIONS", "1")];
    let mut app = WholeApp::start(&settings, &[]).await;

    let addresses = app.addresses();
    let visit = node("browser", &["--test", "journey.mjs"], &addresses);
    let faults = async {
        // The visitor's fourth prompt: the second one is refused.
        app.openai.wait_for_requests(Endpoint::Images, 4).await;
        app.host.kill_handler(0).await;
        app.host.start_handler(0).await.expect("the handler starts again");
        // The fifth one: storage is away when its image comes.
        app.openai.wait_for_requests(Endpoint::Images, 5).await;
        app.storage.set(Line::Answers(503, "ServerBusy"));
        app.host.wait_for_log(|line| line.text.contains("image_not_uploaded")).await;
        app.storage.set(Line::Whole);
    };
    tokio::join!(visit, faults);

    let paid = app.openai.images_drawn().iter().filter(|image| !image.prompt.contains("somebody else")).count();
    assert_eq!(paid, 6, "each image is paid once");
    app.host.stop().await;
}

#[tokio::test]
async fn the_page_of_the_contract_shows_it_and_asks_nobody_else() {
    let _alone = alone().await;
    require_chromium();
    let app = WholeApp::start(&[], &[]).await;

    node("browser", &["--test", "docs.mjs"], &app.addresses()).await;

    app.host.stop().await;
}
