//! Supervises the handler's process: starts it, collects its output and restarts it as the host does.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use super::{Level, LogLine};
use crate::kill_on_exit;
use crate::port::Port;

/// Time limit for a handler to become ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Pause between checks whether a handler is ready.
const ASK_EVERY: Duration = Duration::from_millis(25);
/// Time limit for a handler to stop after SIGINT; then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// The failure after which the handler is not restarted.
const MAX_FAILURES: usize = 3;

/// How a handler is started.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) executable: PathBuf,
    pub(super) root: PathBuf,
    pub(super) settings: Vec<(String, String)>,
    pub(super) echo: bool,
}

/// The state of a handler. `port` and `pid` are `None` while no process is ready.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) port: Option<u16>,
    pub(super) pid: Option<u32>,
    /// The exit codes of processes that ended by themselves; `None` for one that a signal ended.
    pub(super) exits: Vec<Option<i32>>,
    failure: Option<String>,
}

/// A supervised handler. Its process ends when the value is dropped.
#[derive(Debug)]
pub(super) struct Handler {
    pub(super) state: watch::Receiver<State>,
    orders: mpsc::Sender<(Order, oneshot::Sender<Option<ExitStatus>>)>,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Kill,
    Interrupt,
    Start,
}

impl Handler {
    /// Starts a handler and waits until it is ready.
    pub(super) async fn start(launch: Launch, logs: watch::Sender<Vec<LogLine>>) -> anyhow::Result<Self> {
        let (changed, state) = watch::channel(State::default());
        let (orders, received) = mpsc::channel(1);
        tokio::spawn(supervise(launch, logs, changed, received));
        let mut handler = Self { state, orders };
        handler.ready().await?;
        Ok(handler)
    }

    /// Kills the process with SIGKILL; it is not restarted.
    pub(super) async fn kill(&self) {
        self.order(Order::Kill).await;
    }

    /// Stops the process with SIGINT, as Ctrl-C does. Returns its exit status; `None` if it was killed.
    pub(super) async fn interrupt(&self) -> Option<ExitStatus> {
        self.order(Order::Interrupt).await
    }

    /// Starts the handler after it was killed or has ended, and waits until it is ready.
    pub(super) async fn start_again(&mut self) -> anyhow::Result<()> {
        self.order(Order::Start).await;
        self.ready().await
    }

    async fn order(&self, order: Order) -> Option<ExitStatus> {
        let (done, answer) = oneshot::channel();
        self.orders.send((order, done)).await.ok()?;
        answer.await.ok()?
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let state = self.state.wait_for(|state| state.port.is_some() || state.failure.is_some()).await;
        match &state.context("the supervisor of the handler has ended")?.failure {
            Some(failure) => bail!("{failure}"),
            None => Ok(()),
        }
    }
}

async fn supervise(
    launch: Launch,
    logs: watch::Sender<Vec<LogLine>>,
    state: watch::Sender<State>,
    mut orders: mpsc::Receiver<(Order, oneshot::Sender<Option<ExitStatus>>)>,
) {
    let mut failures = 0;
    loop {
        let ended = match Running::start(&launch, &logs).await {
            Ok(mut running) => {
                state.send_modify(|state| {
                    (state.port, state.pid, state.failure) = (Some(running.port.number()), running.child.id(), None);
                });
                let ended = running.attend(&mut orders).await;
                state.send_modify(|state| {
                    (state.port, state.pid) = (None, None);
                    if let End::Exited(status) = &ended {
                        state.exits.push(status.code());
                    }
                });
                ended
            }
            Err(error) => {
                state.send_modify(|state| state.failure = Some(format!("{error:#}")));
                End::Ordered
            }
        };
        // As in the host: code 0 is success and no reason to restart, code 200 is an intentional restart
        // (`IntentionalRestartExitCode`), any other code is a failure.
        let restart = match ended {
            End::Abandoned => return,
            End::Ordered => false,
            End::Exited(status) if status.code() == Some(0) => false,
            End::Exited(status) if status.code() == Some(200) => true,
            End::Exited(_) => {
                failures += 1;
                failures < MAX_FAILURES
            }
        };
        if restart {
            continue;
        }
        loop {
            match orders.recv().await {
                None => return,
                Some((Order::Start, done)) => {
                    state.send_modify(|state| state.failure = None);
                    let _ = done.send(None);
                    break;
                }
                Some((Order::Kill | Order::Interrupt, done)) => drop(done.send(None)),
            }
        }
    }
}

/// Why the supervision of a process ended.
enum End {
    /// The process ended by itself.
    Exited(ExitStatus),
    /// An order ended the process, or it did not start.
    Ordered,
    /// The `Handler` was dropped.
    Abandoned,
}

struct Running {
    child: Child,
    port: Port,
    _held: kill_on_exit::Held,
}

impl Running {
    async fn start(launch: &Launch, logs: &watch::Sender<Vec<LogLine>>) -> anyhow::Result<Self> {
        let port = Port::reserve()?;
        let mut command = Command::new(&launch.executable);
        command.current_dir(&launch.root).env_clear();
        for name in ["PATH", "HOME", "TMPDIR"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command
            .envs(launch.settings.iter().map(|(name, value)| (name, value)))
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.number().to_string())
            .env("FUNCTIONS_HTTPWORKER_PORT", port.number().to_string())
            .env("FUNCTIONS_CUSTOMHANDLER_WORKER_ID", "00000000-0000-0000-0000-000000000001")
            .env("FUNCTIONS_APP_ROOT_PATH", &launch.root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let name = launch.executable.display();
        let mut child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
        let held = kill_on_exit::hold(child.id().context("the handler has already ended")?)?;
        let output = child.stdout.take().context("the handler has no stdout")?;
        let errors = child.stderr.take().context("the handler has no stderr")?;
        tokio::spawn(follow(output, Level::Information, launch.echo, logs.clone()));
        let errors = tokio::spawn(follow(errors, Level::Error, launch.echo, logs.clone()));
        let mut running = Self { child, port, _held: held };
        tokio::select! {
            ready = wait_until_ready(running.port.number()) => ready?,
            status = running.child.wait() => {
                // The reader ends when the pipe closes, so all lines have been read.
                errors.await?;
                let logs = logs.borrow();
                let lines = logs.iter().filter(|line| line.level != Level::Information);
                let lines: Vec<&str> = lines.map(|line| line.text.as_str()).collect();
                bail!("{name} ended before it was ready ({}): {}", status?, lines.join("\n"));
            }
        }
        Ok(running)
    }

    /// Waits until the process ends or an order ends it.
    async fn attend(&mut self, orders: &mut mpsc::Receiver<(Order, oneshot::Sender<Option<ExitStatus>>)>) -> End {
        loop {
            tokio::select! {
                Ok(status) = self.child.wait() => return End::Exited(status),
                order = orders.recv() => match order {
                    None => {
                        let _ = self.child.kill().await;
                        return End::Abandoned;
                    }
                    Some((Order::Start, done)) => drop(done.send(None)),
                    Some((Order::Kill, done)) => {
                        let _ = self.child.kill().await;
                        let _ = done.send(None);
                        return End::Ordered;
                    }
                    Some((Order::Interrupt, done)) => {
                        let _ = done.send(self.interrupt().await);
                        return End::Ordered;
                    }
                },
            }
        }
    }

    /// Sends SIGINT, and SIGKILL after [`STOP_WITHIN`].
    async fn interrupt(&mut self) -> Option<ExitStatus> {
        signal(self.child.id()?, "INT");
        if let Ok(status) = tokio::time::timeout(STOP_WITHIN, self.child.wait()).await {
            return status.ok();
        }
        let _ = self.child.kill().await;
        None
    }
}

/// Sends a signal. A failure means that the process has ended, so it is ignored.
pub(super) fn signal(pid: u32, name: &str) {
    let _ = std::process::Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
}

/// Waits for an HTTP answer of any status to `GET /`, as the host does.
async fn wait_until_ready(port: u16) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().timeout(READY_WITHIN).build()?;
    let ask = async {
        while http.get(format!("http://127.0.0.1:{port}/")).send().await.is_err() {
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    tokio::time::timeout(READY_WITHIN, ask).await.context("the handler did not answer GET / within 30 s")
}

/// Collects the lines of an output. As in the host, a line on stderr that contains "warn" is a warning.
async fn follow(output: impl AsyncRead + Unpin, level: Level, echo: bool, logs: watch::Sender<Vec<LogLine>>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(text)) = lines.next_line().await {
        let warning = level == Level::Error && text.to_ascii_lowercase().contains("warn");
        let level = if warning { Level::Warning } else { level };
        if echo {
            println!("{text}");
        }
        logs.send_modify(|all| all.push(LogLine { level, text }));
    }
}
