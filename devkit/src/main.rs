//! `cargo dev`, `cargo package-app`, `cargo figures` and `cargo chaos`.

mod commands;

use std::process::ExitCode;

use commands::{chaos, dev, figures, package};

const USAGE: &str = "\
cargo dev            everything on http://127.0.0.1:7071, with no key and no account
cargo package-app    a zip that Azure takes as it is
cargo figures        the README's figures, measured now; --beside HANDLER: and of another build
cargo chaos          SIGKILLs in the middle of the work and a rush, and what came of it";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["dev", options @ ..] => dev::run(options).await,
        ["package-app", options @ ..] => package::run(options),
        ["figures"] => figures::run(None).await,
        ["figures", "--beside", handler] => figures::run(Some(handler)).await,
        ["chaos"] => chaos::run().await,
        _ => Err(anyhow::anyhow!("usage:\n{USAGE}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
