//! Checks of `openapi.yaml` by tools of others: two linters, and schemathesis. Schemathesis sends requests that the
//! document allows, and requests that it does not allow, to the whole app, and compares each answer with the document.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::npm;
use crate::pip::Environment;
use crate::stand_ins::azurite::Azurite;
use crate::stand_ins::host::{FunctionsHost, Options, Wire};
use crate::stand_ins::openai::OpenAi;

/// The folder of `devkit/` with the tools' versions and settings.
const FOLDER: &str = "contract";
/// The function key of the app under test.
const KEY: &str = "the-key-of-the-contract";
/// Limit for one request of schemathesis, in seconds.
const REQUEST_SECONDS: &str = "60";

/// Lints `openapi.yaml` with redocly and spectral.
///
/// # Errors
/// A linter finds something, or it cannot be installed.
pub fn lint() -> anyhow::Result<()> {
    let modules = npm::modules(FOLDER)?;
    let settings = crate::root().join("devkit").join(FOLDER);
    let linters = [
        ("@redocly/cli/bin/cli.js", "--config", "redocly.yaml"),
        ("@stoplight/spectral-cli/dist/index.js", "--ruleset", "spectral.yaml"),
    ];
    for (program, option, file) in linters {
        let mut command = Command::new("node");
        command.arg(modules.join(program)).args(["lint", "openapi.yaml", option]).arg(settings.join(file));
        if program.contains("spectral") {
            command.args(["--fail-severity", "hint"]);
        }
        // Redocly ends with 0 after warnings, and counts them: "You have 2 warnings".
        // It would report its use and look for a new version.
        command.env("REDOCLY_TELEMETRY", "off").env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true");
        let output = command.current_dir(crate::root()).stdin(Stdio::null()).output()?;
        let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
        ensure!(output.status.success() && !text.contains("You have"), "{program} has findings:\n{text}");
    }
    Ok(())
}

/// The whole app, with stand-ins, for schemathesis.
pub struct App {
    host: FunctionsHost,
    tools: Environment,
    // They end when the value is dropped.
    _openai: OpenAi,
    _azurite: Azurite,
}

impl App {
    /// Starts the app with this handler. The limits for a day are off, because each call may draw.
    ///
    /// # Errors
    /// A part does not start, or schemathesis cannot be installed.
    pub async fn start(handler: &Path) -> anyhow::Result<Self> {
        let tools = tokio::task::spawn_blocking(|| Environment::of(FOLDER)).await??;
        let azurite = tokio::task::spawn_blocking(Azurite::start).await??;
        let openai = OpenAi::start().await?;
        let spool = crate::target_dir().join(format!("devkit/contract-spool-{}", std::process::id()));
        let mut settings = vec![
            ("AzureWebJobsStorage".to_owned(), azurite.connection_string()),
            ("SPOOL_DIR".to_owned(), spool.display().to_string()),
            ("OPENAI_API_KEY".to_owned(), "cargo-contract".to_owned()),
            ("OPENAI_BASE_URL".to_owned(), openai.base_url()),
            ("RUST_LOG".to_owned(), "warn".to_owned()),
        ];
        let limits = ["DAILY_IMAGE_QUOTA", "DAILY_BUDGET_USD", "DAILY_JOBS", "DAILY_REFUSALS"];
        settings.extend(limits.map(|name| (name.to_owned(), "0".to_owned())));
        let host = FunctionsHost::start(Options {
            handler: Some(handler.to_owned()),
            settings,
            keys: vec![KEY.to_owned()],
            queues: true,
            ..Options::new(crate::root(), Wire::Proxying)
        })
        .await?;
        Ok(Self { host, tools, _openai: openai, _azurite: azurite })
    }

    /// Sends calls, at most `examples` for each operation and phase, and returns their number. All checks run at the
    /// handler, which knows nothing of keys; the check of keys runs at the host.
    ///
    /// # Errors
    /// A check fails, or schemathesis has not ended after `bound`.
    pub async fn explore(&self, examples: u32, seed: u64, bound: Duration) -> anyhow::Result<u64> {
        let handler = self.host.handler_url(0).context("the handler listens")?;
        let at_handler = self.run(&handler, &["--exclude-checks", "ignored_auth"], examples, seed, bound).await?;
        let host = self.host.url();
        let checks = ["--checks", "ignored_auth,not_a_server_error"];
        let at_host = self.run(&host, &checks, examples.min(10), seed, bound).await?;
        Ok(at_handler + at_host)
    }

    async fn run(&self, url: &str, checks: &[&str], examples: u32, seed: u64, bound: Duration) -> anyhow::Result<u64> {
        let mut command = self.tools.module("schemathesis.cli");
        let settings = crate::root().join("devkit").join(FOLDER).join("schemathesis.toml");
        command.args(["--no-color", "--config-file"]).arg(settings);
        command.arg("run").arg(format!("{url}/api/openapi.json")).args(checks);
        command.args(["--max-examples", &examples.to_string(), "--seed", &seed.to_string()]);
        command.args(["--request-timeout", REQUEST_SECONDS, "--header", &format!("x-functions-key:{KEY}")]);
        // schemathesis keeps what it found in the working directory.
        let folder = crate::target_dir().join("devkit/schemathesis");
        std::fs::create_dir_all(&folder)?;
        command.current_dir(&folder);
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(bound, command.output()).await;
        let output = output.with_context(|| format!("schemathesis did not end within {bound:?}"))??;
        let text = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
        ensure!(output.status.success(), "schemathesis has findings with the seed {seed} at {url}:\n{text}");
        let count = text.lines().find_map(|line| line.trim().split_once(" generated")?.0.parse().ok());
        count.with_context(|| format!("schemathesis does not say what it sent:\n{text}"))
    }
}
