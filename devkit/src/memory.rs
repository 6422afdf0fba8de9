//! How much memory and time a process takes.

use std::time::Duration;

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

/// The processor's time that a process has taken.
///
/// # Errors
/// If there is no such process.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Behind the name, which is in parentheses and may hold anything: user time is the 12th, system time the 13th.
    let (_, fields) = stat.rsplit_once(')').context("stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
    // `getconf CLK_TCK` is 100 on Linux.
    Ok(Duration::from_millis(ticks * 10))
}
