//! Memory, CPU time and open files of a process, from Linux's `/proc` (see `proc(5)`).

use std::time::Duration;

use anyhow::{Context as _, ensure};

/// The largest resident memory that a process has had, in bytes.
///
/// # Errors
/// Fails if there is no such process.
pub fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    status_bytes(pid, "VmHWM:")
}

/// The current resident memory of a process, in bytes.
///
/// # Errors
/// Fails if there is no such process.
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

/// The CPU time that a process has used, user and system, in steps of 10 ms.
///
/// # Errors
/// Fails if there is no such process.
pub fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name is in parentheses and may contain any character, so fields are counted after
    // the last `)`: the 12th is the user time, the 13th the system time, both in clock ticks.
    let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat has no program name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
    // Linux has 100 clock ticks per second (`getconf CLK_TCK`).
    Ok(Duration::from_millis(ticks * 10))
}

/// The number of files that a process has open, with its sockets.
///
/// # Errors
/// Fails if there is no such process.
pub fn open_files(pid: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}
