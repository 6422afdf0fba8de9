//! `cargo contract`: lints `openapi.yaml`, and holds the app to it with schemathesis, with at least the given number of
//! calls.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use devkit::contract::{self, App};

const USAGE: &str = "usage: cargo contract [--calls NUMBER] [--seed NUMBER]";
/// The calls of a short run.
const CALLS: u64 = 1_000;
/// The most calls for each operation and phase of a round.
const EXAMPLES: u32 = 50;
/// Limit for a round.
const BOUND: Duration = Duration::from_secs(20 * 60);

pub(crate) async fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let (mut calls, mut first) = (CALLS, 1);
    for option in arguments.chunks(2) {
        match option {
            ["--calls", number] => calls = number.parse().context(USAGE)?,
            ["--seed", number] => first = number.parse().context(USAGE)?,
            _ => anyhow::bail!(USAGE),
        }
    }
    tokio::task::spawn_blocking(contract::lint).await??;
    println!("redocly and spectral find nothing in openapi.yaml.");
    let built = devkit::cargo().args(["build", "--bin", "handler"]).status()?;
    ensure!(built.success(), "the handler could not be built");
    let app = App::start(&devkit::target_dir().join("debug/handler")).await?;
    let (mut sent, mut seed) = (0, first);
    while sent < calls {
        sent += app.explore(EXAMPLES, seed, BOUND).await?;
        println!("schemathesis: {sent} calls with the seeds {first} to {seed}, no finding.");
        seed += 1;
    }
    Ok(())
}
