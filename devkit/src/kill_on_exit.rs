//! Child processes that end when this process ends, even by SIGKILL.
//!
//! A small shell, the watcher, reads `hold PID` and `free PID` lines from a pipe. The system closes the
//! pipe when this process ends, however it ends. The watcher then kills the processes that are still
//! held.

use std::io::Write as _;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Context as _;

/// The watcher's script. The `trap` ignores the signals that a terminal sends to all processes of a
/// command, because the watcher must outlive the others.
const WATCHER: &str = r#"
trap '' INT TERM HUP
held=
while read -r verb pid; do
    kept=
    for other in $held; do [ "$other" = "$pid" ] || kept="$kept $other"; done
    held=$kept
    [ "$verb" = free ] || held="$held $pid"
done
[ -z "$held" ] || kill -9 $held
"#;

static PIPE: OnceLock<Mutex<Option<ChildStdin>>> = OnceLock::new();

/// A child process that ends with this process.
#[derive(Debug)]
pub struct Held(u32);

/// Holds a child process until the returned value is dropped. Wait for the child before you drop the
/// value: a child that still runs is no longer killed afterwards.
///
/// # Errors
/// Fails if `sh` cannot be started or the watcher has ended.
pub fn hold(pid: u32) -> anyhow::Result<Held> {
    send("hold", pid)?;
    Ok(Held(pid))
}

impl Drop for Held {
    fn drop(&mut self) {
        // If the watcher has ended, it cannot kill the process either.
        let _ = send("free", self.0);
    }
}

fn send(verb: &str, pid: u32) -> anyhow::Result<()> {
    let pipe = PIPE.get_or_init(|| Mutex::new(None));
    let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
    if pipe.is_none() {
        let watcher = Command::new("sh")
            .args(["-c", WATCHER])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("`sh` cannot be started; it is needed to end child processes")?;
        *pipe = watcher.stdin;
    }
    let pipe = pipe.as_mut().context("the watcher has no stdin")?;
    writeln!(pipe, "{verb} {pid}").context("the watcher has ended")
}
