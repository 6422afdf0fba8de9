//! Child processes that end when we end, however we end.
//!
//! One small shell waits on a pipe from us. It is told which processes we hold; when the pipe
//! closes, and a SIGKILL closes it too, it kills what is still held.

use std::io::Write as _;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Context as _;

/// Ignores the signals that a terminal sends to all of us: it has to outlive the rest.
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

/// A process that ends with us.
#[derive(Debug)]
pub struct Held(u32);

/// Holds a process until the value is dropped, which is to happen after the process was waited for.
///
/// # Errors
/// If there is no `sh`.
pub fn hold(pid: u32) -> anyhow::Result<Held> {
    tell("hold", pid)?;
    Ok(Held(pid))
}

impl Drop for Held {
    fn drop(&mut self) {
        // A watcher that is gone cannot be told, and cannot kill either.
        let _ = tell("free", self.0);
    }
}

fn tell(verb: &str, pid: u32) -> anyhow::Result<()> {
    let pipe = PIPE.get_or_init(|| Mutex::new(None));
    let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
    if pipe.is_none() {
        let watcher = Command::new("sh")
            .args(["-c", WATCHER])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("`sh` is needed to end what was started")?;
        *pipe = watcher.stdin;
    }
    let pipe = pipe.as_mut().context("the watcher has no stdin")?;
    writeln!(pipe, "{verb} {pid}").context("the watcher is gone")
}
