//! The custom handler's process: it reads the settings, starts the log, binds the port and serves.
//!
//! The Functions host does not restart a handler that exits with 0. The process exits with 0 only
//! after SIGINT or SIGTERM, and with 1 after any failure.

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use visionary::app::App;
use visionary::config::Config;
use visionary::logs::Telemetry;
use visionary::{logs, server};

/// Signals within this time of another one are the same request to stop.
const SAME_SIGNAL_WITHIN: Duration = Duration::from_secs(2);

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

/// Raises the number of files that the process may have open to the most that the system allows. Without it, the
/// limits of the code hold with the usual 1,024 files, too.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

#[expect(clippy::disallowed_methods, reason = "only main reads the environment and the clock")]
async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_vars(|name| std::env::var(name).ok())?;
    logs::start(&config.log_filter)?;
    for ignored in &config.ignored {
        tracing::warn!(
            event = "setting_ignored",
            setting = ignored.name,
            because = ignored.because,
            "a setting has no effect"
        );
    }
    raise_file_limit();
    let telemetry = Telemetry::start(&config.telemetry)?;
    let app = App::new(&config, Arc::new(time::OffsetDateTime::now_utc))?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, config.port))
        .await
        .map_err(|error| format!("FUNCTIONS_CUSTOMHANDLER_PORT: port {} cannot be bound: {error}", config.port))?;
    tracing::info!(
        event = "process_ready",
        port = listener.local_addr()?.port(),
        version = env!("CARGO_PKG_VERSION"),
        "the process is ready"
    );
    let (stop, mut stopping) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            stop.send_modify(|signals| *signals += 1);
            // Ctrl-C in a terminal reaches the handler twice: by itself and through the host.
            tokio::time::sleep(SAME_SIGNAL_WITHIN).await;
        }
    });
    let mut hurrying = stopping.clone();
    let shutdown = async move {
        let _ = stopping.wait_for(|signals| *signals >= 1).await;
        tracing::info!(
            event = "process_stopping",
            "the process was asked to stop; it finishes the requests under way first"
        );
    };
    let hurry = async move {
        let _ = hurrying.wait_for(|signals| *signals >= 2).await;
        tracing::warn!(
            event = "process_hurried",
            "the process was asked to stop twice; it ends without its requests, and images being drawn are lost"
        );
    };
    server::run(listener, app, shutdown, hurry).await;
    telemetry.stop().await;
    tracing::info!(event = "process_stopped", "the process has stopped");
    Ok(())
}
