//! `cargo dev`: runs the whole app on this machine, with no key and no account.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use devkit::stand_ins::azurite::Azurite;
use devkit::stand_ins::host::{FunctionsHost, Options, Wire};
use devkit::stand_ins::openai::{self, OpenAi, Painting};
use serde_json::Value;

const USAGE: &str = "usage: cargo dev [--port PORT] [--delay SECONDS]";
/// Default drawing time of the stand-in. Real providers take 10 s or more, too long for trying things out.
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
    let settings: Value = serde_json::from_str(&settings).context("local.settings.json.example is not JSON")?;
    let local_port = settings["Host"]["LocalHttpPort"].as_u64().and_then(|port| u16::try_from(port).ok());
    let cors = settings["Host"]["CORS"].as_str().unwrap_or_default();

    let azurite = tokio::task::spawn_blocking(Azurite::start).await??;
    let provider = openai::Options { painting: Painting::Artist, delay: arguments.delay, ..openai::Options::default() };
    let provider = OpenAi::start_with(provider).await?;
    let of_stand_ins = [
        ("AzureWebJobsStorage", azurite.connection_string()),
        ("accountName", String::new()),
        ("accountKey", String::new()),
        ("OPENAI_API_KEY", "cargo-dev".to_owned()),
        ("OPEN_AI_KEY", String::new()),
        ("OPENAI_BASE_URL", provider.base_url()),
        ("SPOOL_DIR", devkit::target_dir().join("devkit/spool").display().to_string()),
    ];
    // All requests of a developer count for one caller, so the quota is higher than the app's default.
    let defaults = [("DAILY_IMAGE_QUOTA", "100".to_owned()), ("RUST_LOG", "info".to_owned())];
    let names = settings["Values"].as_object().into_iter().flat_map(|values| values.keys());
    let of_environment = names.filter_map(|name| Some((name.as_str(), std::env::var(name).ok()?)));
    let mut app_settings = HashMap::new();
    // A later value replaces an earlier one of the same name.
    app_settings.extend(defaults.into_iter().chain(of_environment).chain(of_stand_ins));
    let host = FunctionsHost::start(Options {
        handler: Some(devkit::target_dir().join("debug/handler")),
        settings: app_settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        port: arguments.port.or(local_port).unwrap_or(7071),
        echo: true,
        queues: true,
        cors: cors.split(',').map(|origin| origin.trim().to_owned()).filter(|origin| !origin.is_empty()).collect(),
        ..Options::new(root, Wire::Proxying)
    })
    .await?;
    let mut functions = host.functions();
    functions.sort_unstable();
    println!(
        "\nVisionary runs on {} with Azurite as storage and a stand-in for OpenAI. Press Ctrl-C to stop.",
        host.url()
    );
    for function in functions {
        println!("  {}/api/{function}", host.url());
    }
    println!("Azurite keeps the images in memory: they are deleted when this command ends.\n");
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
