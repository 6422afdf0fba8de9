//! `cargo screenshots` and `cargo page-figures`: the page in a real Chromium, by the scripts of `devkit/browser/`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use devkit::npm;
use devkit::stand_ins::azurite::Azurite;
use devkit::stand_ins::host::{FunctionsHost, Options, Wire};
use devkit::stand_ins::openai::{self, OpenAi, Painting};
use tokio::process::Command;

/// Drawing time of the stand-in: an image must be under way while the page is shown.
const DRAWING_TAKES: Duration = Duration::from_secs(6);
/// Enough for the images of `fill.mjs`.
const QUOTA: &str = "40";

/// Draws `docs/page-light.jpg` and `docs/page-dark.jpg`, which the README shows.
pub(crate) async fn screenshots() -> anyhow::Result<()> {
    let folder = devkit::root().join("docs");
    let folder = folder.to_str().context("the path of docs/ is not UTF-8")?;
    with_app("debug", DRAWING_TAKES, &["readme.mjs", folder], &[]).await
}

/// Shows every state of the page, or the named ones, in `target/screenshots`.
pub(crate) async fn states(names: &[&str]) -> anyhow::Result<()> {
    let folder = devkit::target_dir().join("screenshots");
    let folder = folder.to_str().context("the path of the target directory is not UTF-8")?;
    let arguments: Vec<&str> = ["screenshots.mjs", folder].into_iter().chain(names.iter().copied()).collect();
    node(&arguments, &[]).await?;
    println!("The screenshots are in {folder}.");
    Ok(())
}

/// Prints the page's figures.
pub(crate) async fn figures() -> anyhow::Result<()> {
    let lighthouse = modules("lighthouse").await?;
    let variables = [("VISIONARY_LIGHTHOUSE_MODULES", lighthouse.as_str())];
    with_app("release", Duration::ZERO, &["lighthouse.mjs"], &variables).await?;
    node(&["--test", "--test-reporter=tap", "scrolling.test.mjs"], &[]).await
}

/// Runs a script against the whole app, with Azurite and the stand-ins.
async fn with_app(profile: &str, delay: Duration, script: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<()> {
    let release = (profile == "release").then_some("--release");
    let built = devkit::cargo().args(["build", "--bin", "handler"]).args(release).status()?;
    ensure!(built.success(), "the handler could not be built");
    let azurite = tokio::task::spawn_blocking(Azurite::start).await??;
    let options = openai::Options { painting: Painting::Artist, delay, ..openai::Options::default() };
    let provider = OpenAi::start_with(options).await?;
    let settings = [
        ("AzureWebJobsStorage", azurite.connection_string()),
        ("SPOOL_DIR", devkit::target_dir().join("devkit/page-spool").display().to_string()),
        ("OPENAI_API_KEY", "cargo-page".to_owned()),
        ("OPENAI_BASE_URL", provider.base_url()),
        ("DAILY_IMAGE_QUOTA", QUOTA.to_owned()),
    ];
    let host = FunctionsHost::start(Options {
        handler: Some(devkit::target_dir().join(profile).join("handler")),
        settings: settings.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        queues: true,
        ..Options::new(devkit::root(), Wire::Proxying)
    })
    .await?;
    let url = host.url();
    let variables: Vec<(&str, &str)> = variables.iter().copied().chain([("VISIONARY_URL", url.as_str())]).collect();
    let ran = node(script, &variables).await;
    host.stop().await;
    ran
}

/// Runs Node.js in `devkit/browser`, with its output in this terminal.
async fn node(arguments: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<()> {
    let mut command = Command::new("node");
    command.args(arguments).current_dir(devkit::root().join("devkit/browser")).kill_on_drop(true);
    command.env("VISIONARY_BROWSER_MODULES", modules("browser").await?).envs(variables.iter().copied());
    let status = command.status().await.context("`node` is missing: install Node.js 20 or later")?;
    ensure!(status.success(), "`node {}` failed", arguments.join(" "));
    Ok(())
}

/// The path of the npm packages of a folder of `devkit/`.
async fn modules(folder: &'static str) -> anyhow::Result<String> {
    let modules = tokio::task::spawn_blocking(move || npm::modules(folder)).await??;
    let modules: &Path = &modules;
    Ok(modules.to_str().context("the path of the npm packages is not UTF-8")?.to_owned())
}
