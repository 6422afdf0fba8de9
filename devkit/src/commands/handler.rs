//! A handler's process that receives requests directly, without a host.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use devkit::kill_on_exit::{self, Held};
use devkit::port::Port;

/// The time limit for the first answer.
const STARTED_WITHIN: Duration = Duration::from_secs(10);

/// What the system gives to a process at most (`setrlimit(2)`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of memory that are not backed by a file (`RLIMIT_DATA`). A request for more fails, and the process aborts.
    pub(crate) data_bytes: u64,
    /// Open files (`RLIMIT_NOFILE`).
    pub(crate) files: u64,
}

/// A running handler. It ends when the value is dropped.
pub(crate) struct Handler {
    process: Child,
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    _port: Port,
    _held: Held,
}

impl Handler {
    /// Starts a handler with these settings and no others. Returns also the time until its first answer.
    ///
    /// # Errors
    /// Fails if the process cannot be started, or has not answered after [`STARTED_WITHIN`].
    pub(crate) async fn start(
        program: &Path,
        settings: &[(&str, &str)],
        limits: Option<Limits>,
    ) -> anyhow::Result<(Self, Duration)> {
        let port = Port::reserve()?;
        let http = reqwest::Client::new();
        let mut command = match limits {
            None => Command::new(program),
            Some(Limits { data_bytes, files }) => {
                // `exec` keeps the process id. `ulimit -d` counts in KiB.
                let script = format!("ulimit -d {} && ulimit -n {files} && exec \"$0\"", data_bytes / 1024);
                let mut shell = Command::new("/bin/sh");
                shell.arg("-c").arg(script).arg(program);
                shell
            }
        };
        command
            .env_clear()
            .envs(settings.iter().copied())
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.number().to_string())
            .stdout(Stdio::null());
        let started = Instant::now();
        let process = command.spawn().context("the handler cannot be started")?;
        let held = kill_on_exit::hold(process.id())?;
        let handler =
            Self { process, url: format!("http://127.0.0.1:{}", port.number()), http, _port: port, _held: held };
        while handler.http.get(&handler.url).send().await.is_err() {
            ensure!(started.elapsed() < STARTED_WITHIN, "the handler has not answered within {STARTED_WITHIN:?}");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        Ok((handler, started.elapsed()))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|status| status.is_some())
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
