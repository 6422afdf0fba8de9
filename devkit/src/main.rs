//! The developer commands, which are aliases in `.cargo/config.toml`.

mod commands;

use std::process::ExitCode;

use commands::{attack, chaos, contract, dev, figures, package, page};

const USAGE: &str = "\
cargo dev            run the whole app on http://127.0.0.1:7071; needs no key and no account; --port PORT, --delay
                     SECONDS, --keep (images and state for the next run), --real (your provider instead of a stand-in)
cargo package-app    build the zip that is deployed to Azure
cargo figures        measure speed, size and memory; --beside HANDLER also measures another build,
                     --full a gallery of a million images, --only PART (start, images, listings, load, pages,
                     requests) one part
cargo chaos          kill the app while it draws, overload it, and report what was lost
cargo attack         attack the app with the memory of a small instance, and report what was reached
cargo contract       hold the app to openapi.yaml with schemathesis; --calls NUMBER, --seed NUMBER
cargo screenshots    draw the README's images of the page; --states [NAME…] shows every state of the page instead
cargo page-figures   measure the page in Chromium: Lighthouse, and a gallery of 10,000 images that is scrolled";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["dev", options @ ..] => dev::run(options).await,
        ["package-app", options @ ..] => package::run(options),
        ["figures", options @ ..] if let Some(options) = figures::Options::parse(options) => {
            figures::run(options).await
        }
        ["chaos"] => chaos::run().await,
        ["contract", options @ ..] => contract::run(options).await,
        ["attack"] => attack::run(None).await,
        ["attack", "--only", name] => attack::run(Some(name)).await,
        ["screenshots"] => page::screenshots().await,
        ["screenshots", "--states", names @ ..] => page::states(names).await,
        ["page-figures"] => page::figures().await,
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
