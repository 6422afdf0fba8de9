//! The handler's process: started, watched, started again, as the host does it.

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

/// The host gives up on a handler that is not ready by then.
const READY_WITHIN: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(25);
/// A handler that was asked to stop is given so long.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// So many failures stop the host.
const MAX_FAILURES: usize = 3;

/// How a handler is started.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) executable: PathBuf,
    pub(super) root: PathBuf,
    pub(super) settings: Vec<(String, String)>,
    pub(super) echo: bool,
}

/// Where a handler is.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    pub(super) port: Option<u16>,
    pub(super) pid: Option<u32>,
    /// The exit codes so far; `None` where a signal ended it.
    pub(super) exits: Vec<Option<i32>>,
    failure: Option<String>,
}

/// One handler under supervision. Its process ends when this is dropped.
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
    /// Starts it and waits until it is ready.
    pub(super) async fn start(launch: Launch, logs: watch::Sender<Vec<LogLine>>) -> anyhow::Result<Self> {
        let (changed, state) = watch::channel(State::default());
        let (orders, received) = mpsc::channel(1);
        tokio::spawn(supervise(launch, logs, changed, received));
        let mut handler = Self { state, orders };
        handler.ready().await?;
        Ok(handler)
    }

    /// SIGKILL, and nothing starts it again.
    pub(super) async fn kill(&self) {
        self.order(Order::Kill).await;
    }

    /// SIGINT, as Ctrl-C sends it. The exit status; `None` if it had to be killed.
    pub(super) async fn interrupt(&self) -> Option<ExitStatus> {
        self.order(Order::Interrupt).await
    }

    /// Starts it after a kill, or after it ended.
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
        match &state.context("the handler's supervisor is gone")?.failure {
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
        // Exit 0 is never restarted; 200 is, without being counted; the third failure is the last.
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

/// Why a process is no longer.
enum End {
    Exited(ExitStatus),
    Ordered,
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
        let held = kill_on_exit::hold(child.id().context("the handler ended at once")?)?;
        let output = child.stdout.take().context("the handler has no stdout")?;
        let errors = child.stderr.take().context("the handler has no stderr")?;
        tokio::spawn(follow(output, Level::Information, launch.echo, logs.clone()));
        let errors = tokio::spawn(follow(errors, Level::Error, launch.echo, logs.clone()));
        let mut running = Self { child, port, _held: held };
        tokio::select! {
            ready = running_is_ready(running.port.number()) => ready?,
            status = running.child.wait() => {
                // The reader ends with the pipe, so the last words are there.
                errors.await?;
                let words: Vec<String> = logs.borrow().iter().filter(|line| line.level != Level::Information).map(|line| line.text.clone()).collect();
                bail!("{name} ended before it was ready ({}): {}", status?, words.join("\n"));
            }
        }
        Ok(running)
    }

    /// Waits for its end, or brings it about.
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

    async fn interrupt(&mut self) -> Option<ExitStatus> {
        signal(self.child.id()?, "INT");
        if let Ok(status) = tokio::time::timeout(STOP_WITHIN, self.child.wait()).await {
            return status.ok();
        }
        let _ = self.child.kill().await;
        None
    }
}

/// A process that has ended meanwhile does not need it.
pub(super) fn signal(pid: u32, name: &str) {
    let _ = std::process::Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
}

/// Ready is any HTTP answer to `GET /`.
async fn running_is_ready(port: u16) -> anyhow::Result<()> {
    let http = reqwest::Client::builder().timeout(READY_WITHIN).build()?;
    let asking = async {
        while http.get(format!("http://127.0.0.1:{port}/")).send().await.is_err() {
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    tokio::time::timeout(READY_WITHIN, asking).await.context("the handler did not answer GET / within 30 s")
}

/// Sorts lines as the host does: stdout is Information, stderr is Error, or Warning where it says so.
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
