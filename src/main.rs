//! The custom handler: settings, log, bind, serve, stop.
//!
//! The Functions host never restarts a handler that exits with 0, so every end that was not asked
//! for exits with 1.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use visionary::app::App;
use visionary::config::Config;
use visionary::{logs, server};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the edge: the environment and the clock are read here")]
async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_vars(|name| std::env::var(name).ok())?;
    logs::start(&config.log_filter)?;
    let app = App::new(&config, Arc::new(time::OffsetDateTime::now_utc))?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port))
        .await
        .map_err(|error| format!("FUNCTIONS_CUSTOMHANDLER_PORT: port {} cannot be bound: {error}", config.port))?;
    tracing::info!(port = listener.local_addr()?.port(), version = env!("CARGO_PKG_VERSION"), "ready");
    let shutdown = async move {
        tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        tracing::info!("asked to stop; requests under way are finished first");
    };
    server::run(listener, app, shutdown).await?;
    tracing::info!("stopped");
    Ok(())
}
