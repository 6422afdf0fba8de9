//! `cargo chaos`: measures the reliability of the release build under SIGKILLs and overload.

use std::path::Path;
use std::time::Duration;

use devkit::chaos::Chaos;
use devkit::stand_ins::azurite::Azurite;
use devkit::stand_ins::host::{FunctionsHost, Options, Wire};
use devkit::stand_ins::openai::{self, OpenAi, Painting};

use crate::commands::package;

const HANDLERS: usize = 2;
/// The number of prompts and of SIGKILLs.
const KILLED: (usize, usize) = (2_000, 100);
/// The number of requests at once.
const RUSH: usize = 500;
/// The number of requests at once for large images.
const LARGE: usize = 16;
const LARGE_BYTES: usize = 8 * 1024 * 1024;

pub(crate) async fn run() -> anyhow::Result<()> {
    let handler = package::release()?.handler;
    let azurite = tokio::task::spawn_blocking(Azurite::start).await??;
    let spools = devkit::target_dir().join("devkit/chaos");
    if spools.exists() {
        std::fs::remove_dir_all(&spools)?;
    }
    let start = async |name: &str, delay, painting| {
        let provider = openai::Options { delay, painting, ..openai::Options::default() };
        start(&handler, &azurite, &spools, name, OpenAi::start_with(provider).await?).await
    };

    let (prompts, kills) = KILLED;
    println!("\nRun 1: {prompts} generations on {HANDLERS} handlers, which get {kills} SIGKILLs at random instants:");
    let mut chaos = start("killed", Duration::from_millis(40), Painting::Sketch).await?;
    println!("{}", chaos.kill(prompts, kills).await?);

    println!("\nRun 2: {RUSH} requests at once; the provider takes 1 s for an image:");
    let mut chaos = start("rush", Duration::from_secs(1), Painting::Sketch).await?;
    println!("{}", chaos.rush(RUSH).await?);

    println!("\nRun 3: {LARGE} requests at once; the provider takes 1 s for an image of 8 MiB:");
    let mut image = b"\x89PNG\r\n\x1a\n".to_vec();
    image.resize(LARGE_BYTES, 7);
    let mut chaos = start("large", Duration::from_secs(1), Painting::Fixed(image.into())).await?;
    println!("{}", chaos.rush(LARGE).await?);
    Ok(())
}

async fn start(handler: &Path, azurite: &Azurite, spools: &Path, name: &str, openai: OpenAi) -> anyhow::Result<Chaos> {
    let spool = spools.join(name);
    let host = FunctionsHost::start(Options {
        handler: Some(handler.to_owned()),
        settings: vec![
            ("AzureWebJobsStorage".to_owned(), azurite.connection_string()),
            ("IMAGE_CONTAINER".to_owned(), name.to_owned()),
            ("DAILY_IMAGE_QUOTA".to_owned(), "100000".to_owned()),
            ("DAILY_BUDGET_USD".to_owned(), "100000".to_owned()),
            ("OPENAI_API_KEY".to_owned(), "cargo-chaos".to_owned()),
            ("OPENAI_BASE_URL".to_owned(), openai.base_url()),
            ("SPOOL_DIR".to_owned(), spool.display().to_string()),
        ],
        handlers: HANDLERS,
        ..Options::new(devkit::root(), Wire::Proxying)
    })
    .await?;
    let connection_string = azurite.connection_string();
    Ok(Chaos { host, openai, handlers: HANDLERS, spool, connection_string, container: name.to_owned() })
}
