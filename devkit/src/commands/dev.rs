//! `cargo dev`: runs the whole app on this machine, with no key and no account.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use devkit::stand_ins::azurite::Azurite;
use devkit::stand_ins::host::{FunctionsHost, Options, Wire};
use devkit::stand_ins::openai::{self, OpenAi, Painting};
use serde_json::Value;

const OPTIONS: &str = "\
  --port PORT        the port on 127.0.0.1
  --delay SECONDS    the time that the stand-in for OpenAI takes for an image
  --keep[=FOLDER]    keep images and state for the next run, in target/devkit/kept if no folder is given
  --real             ask the provider of the environment's settings, such as OPENAI_API_KEY; it costs money";
/// Default drawing time of the stand-in. Real providers take 10 s or more, too long for trying things out.
const DRAWING_TAKES: Duration = Duration::from_secs(2);
/// What the example of the settings has in place of a key.
const NO_KEY: &str = "put-your-key-here";

#[derive(Debug, Default)]
struct Arguments {
    port: Option<u16>,
    delay: Option<Duration>,
    /// The folder that keeps the images and the state.
    keep: Option<PathBuf>,
    real: bool,
}

pub(crate) async fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let arguments = parse(arguments).map_err(|error| anyhow::anyhow!("{error:#}\n\n`cargo dev` has:\n{OPTIONS}"))?;
    let root = devkit::root();
    let settings = fs::read_to_string(root.join("local.settings.json.example"))?;
    let settings: Value = serde_json::from_str(&settings).context("local.settings.json.example is not JSON")?;
    if arguments.real {
        say_what_it_costs(&settings["Values"], arguments.keep.is_some())?;
    }
    let built = devkit::cargo().args(["build", "--bin", "handler"]).status()?;
    ensure!(built.success(), "the handler could not be built");

    let local_port = settings["Host"]["LocalHttpPort"].as_u64().and_then(|port| u16::try_from(port).ok());
    let cors = settings["Host"]["CORS"].as_str().unwrap_or_default();

    let kept = arguments.keep.as_deref();
    let _held = kept.map(hold).transpose()?;
    let storage = kept.map(|folder| folder.join("azurite"));
    let start = move || storage.map_or_else(Azurite::start, |storage| Azurite::start_in(&storage));
    let azurite = tokio::task::spawn_blocking(start).await??;
    let spool = kept.map_or_else(|| devkit::target_dir().join("devkit/spool"), |folder| folder.join("spool"));
    let mut of_stand_ins = vec![
        ("AzureWebJobsStorage", azurite.connection_string()),
        ("accountName", String::new()),
        ("accountKey", String::new()),
        ("SPOOL_DIR", spool.display().to_string()),
    ];
    // The stand-in ends when the value is dropped.
    let mut _provider = None;
    if !arguments.real {
        let delay = arguments.delay.unwrap_or(DRAWING_TAKES);
        let options = openai::Options { painting: Painting::Artist, delay, ..openai::Options::default() };
        let provider = OpenAi::start_with(options).await?;
        of_stand_ins.extend([
            ("OPENAI_API_KEY", "cargo-dev".to_owned()),
            ("OPEN_AI_KEY", String::new()),
            ("OPENAI_BASE_URL", provider.base_url()),
        ]);
        _provider = Some(provider);
    }
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
    let mut paths = host.paths();
    paths.sort_unstable();
    let provider = if arguments.real { "the provider of your settings" } else { "a stand-in for OpenAI" };
    println!("\nVisionary runs on {} with Azurite as storage and {provider}. Press Ctrl-C to stop.", host.url());
    for path in paths {
        println!("  {}{path}", host.url());
    }
    match kept {
        Some(folder) => println!("The images and the state are kept in {}.\n", folder.display()),
        None => println!("Azurite keeps the images in memory: they are deleted when this command ends.\n"),
    }
    tokio::signal::ctrl_c().await?;
    host.stop().await;
    drop(azurite);
    Ok(())
}

/// Checks that the environment has a key, and says who is asked and what a day may cost.
fn say_what_it_costs(defaults: &Value, keep: bool) -> anyhow::Result<()> {
    let setting = |name: &str| {
        let of_environment = std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        of_environment.unwrap_or_else(|| defaults[name].as_str().unwrap_or_default().to_owned())
    };
    let has_key = ["OPENAI_API_KEY", "OPEN_AI_KEY"].map(setting).iter().any(|key| !["", NO_KEY].contains(&key.trim()));
    ensure!(
        has_key,
        "--real asks the provider of your settings, and there is no key: set OPENAI_API_KEY in the environment, and \
         OPENAI_BASE_URL if the provider is not OpenAI. Without --real, a stand-in draws for free."
    );
    let base = reqwest::Url::parse(&setting("OPENAI_BASE_URL")).context("OPENAI_BASE_URL is not a URL")?;
    let budget = setting("DAILY_BUDGET_USD");
    let limit = if budget.trim().parse() == Ok(0.0) {
        "nothing limits what a day costs (DAILY_BUDGET_USD=0)".to_owned()
    } else {
        format!("it may cost at most ${budget} in a UTC day (DAILY_BUDGET_USD)")
    };
    // Without its query string, its path and its user, which may be secret.
    println!("The provider {} draws and charges you: {limit}.", base.origin().ascii_serialization());
    if !keep {
        println!("The sum is kept in memory: the next run begins at $0 again. --keep counts on.");
    }
    Ok(())
}

/// Creates and locks a folder, because two storages in it would overwrite each other.
fn hold(folder: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
    let lock = File::create(folder.join("lock"))?;
    lock.try_lock()
        .with_context(|| format!("another `cargo dev --keep` runs on {}: end it first", folder.display()))?;
    Ok(lock)
}

fn parse(arguments: &[&str]) -> anyhow::Result<Arguments> {
    let mut parsed = Arguments::default();
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        let mut value = || rest.next().with_context(|| format!("{option} needs a value"));
        match *option {
            "--port" => parsed.port = Some(value()?.parse().context("--port needs a number of at most 65535")?),
            "--delay" => {
                let seconds = value()?.parse().context("--delay needs a number of seconds")?;
                let delay = Duration::try_from_secs_f64(seconds);
                parsed.delay = Some(delay.context("--delay needs a number of seconds")?);
            }
            "--keep" => parsed.keep = Some(devkit::target_dir().join("devkit/kept")),
            keep if keep.starts_with("--keep=") => parsed.keep = keep.split_once('=').map(|(_, folder)| folder.into()),
            "--real" => parsed.real = true,
            unknown => bail!("`cargo dev` has no option {unknown}"),
        }
    }
    ensure!(
        !(parsed.real && parsed.delay.is_some()),
        "--delay is for the stand-in for OpenAI: leave it out with --real, whose provider takes its own time"
    );
    Ok(parsed)
}
