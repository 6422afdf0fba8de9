//! How much memory a process takes.

use anyhow::{Context as _, ensure};

/// The largest resident memory that a process has had.
///
/// # Errors
/// If there is no such process.
pub fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    status_bytes(pid, "VmHWM:")
}

/// The resident memory that a process has.
///
/// # Errors
/// If there is no such process.
pub fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    status_bytes(pid, "VmRSS:")
}

fn status_bytes(pid: u32, field: &'static str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field)).context(field)?;
    let kib: u64 = line.split_whitespace().nth(1).context(field)?.parse()?;
    ensure!(kib > 0, field);
    Ok(kib * 1024)
}
