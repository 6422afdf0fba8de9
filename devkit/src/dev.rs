//! `cargo dev`: the whole app on this machine, with no key and no account.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use devkit::azurite::Azurite;
use devkit::host::{FunctionsHost, Options, Wire};
use devkit::openai::{self, OpenAi, Painting};
use serde_json::Value;

const USAGE: &str = "usage: cargo dev [--port PORT] [--delay SECONDS]";
/// About the shortest that a real provider takes would try a developer's patience.
const DRAWING_TAKES: Duration = Duration::from_secs(2);

struct Arguments {
    port: Option<u16>,
    delay: Duration,
}

pub(crate) async fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let arguments = parse(arguments)?;
    let root = devkit::root();
    let built = devkit::cargo().args(["build", "--bin", "handler"]).status()?;
    ensure!(built.success(), "the handler could not be built");

    let settings = fs::read_to_string(root.join("local.settings.json.example"))?;
    let settings: Value = serde_json::from_str(&settings).context("local.settings.json.example")?;
    let local_port = settings["Host"]["LocalHttpPort"].as_u64().and_then(|port| u16::try_from(port).ok());
    let cors = settings["Host"]["CORS"].as_str().unwrap_or_default();

    let azurite = tokio::task::spawn_blocking(Azurite::start).await??;
    let provider = openai::Options { painting: Painting::Artist, delay: arguments.delay, ..openai::Options::default() };
    let provider = OpenAi::start_with(provider).await?;
    let host = FunctionsHost::start(Options {
        handler: Some(devkit::target_dir().join("debug/handler")),
        settings: vec![
            ("AzureWebJobsStorage".to_owned(), azurite.connection_string()),
            // Who tries things out is one caller for a long time.
            ("DAILY_IMAGE_QUOTA".to_owned(), "100".to_owned()),
            ("OPENAI_API_KEY".to_owned(), "cargo-dev".to_owned()),
            ("OPENAI_BASE_URL".to_owned(), provider.base_url()),
            ("SPOOL_DIR".to_owned(), devkit::target_dir().join("devkit/spool").display().to_string()),
            ("RUST_LOG".to_owned(), std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned())),
        ],
        port: arguments.port.or(local_port).unwrap_or(7071),
        echo: true,
        cors: cors.split(',').map(|origin| origin.trim().to_owned()).filter(|origin| !origin.is_empty()).collect(),
        ..Options::new(root, Wire::Proxying)
    })
    .await?;
    let mut functions = host.functions();
    functions.sort_unstable();
    println!("\nVisionary runs on {}, with Azurite and a stand-in for OpenAI. Ctrl-C ends it.", host.url());
    for function in functions {
        println!("  {}/api/{function}", host.url());
    }
    println!("Pictures are kept until it ends.\n");
    tokio::signal::ctrl_c().await?;
    host.stop().await;
    drop(azurite);
    Ok(())
}

fn parse(arguments: &[&str]) -> anyhow::Result<Arguments> {
    let mut parsed = Arguments { port: None, delay: DRAWING_TAKES };
    let mut rest = arguments;
    while let [name, value, others @ ..] = rest {
        match *name {
            "--port" => parsed.port = Some(value.parse().context(USAGE)?),
            "--delay" => parsed.delay = Duration::try_from_secs_f64(value.parse().context(USAGE)?).context(USAGE)?,
            _ => anyhow::bail!(USAGE),
        }
        rest = others;
    }
    ensure!(rest.is_empty(), USAGE);
    Ok(parsed)
}
