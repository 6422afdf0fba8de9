//! `cargo attack`: attacks the release build with the memory of a small instance, and prints what each attack reached.

mod load;
mod rows;
mod target;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use devkit::memory;
use devkit::stand_ins::azurite::Azurite;

use crate::commands::handler::Limits;
use crate::commands::package::{self, mb};
use load::WellBehaved;
use target::{Stage, Target};

/// The handler's limits: the memory of the smallest instances, and a common limit of open files.
const LIMITS: Limits = Limits { data_bytes: 512 * 1024 * 1024, files: 1_024 };
/// The files that this command itself opens at most.
const FILES: u64 = 4_000;

/// Runs all attacks. With `only`, runs those whose name contains it.
///
/// # Errors
/// Fails if an attack reached what it must not, or could not be run.
pub(crate) async fn run(only: Option<&str>) -> anyhow::Result<()> {
    require_files()?;
    let names = rows::ATTACKS.map(|(name, _)| name);
    let is_known = only.is_none_or(|only| names.iter().any(|name| name.contains(only)));
    ensure!(is_known, "no attack has this name; there are: {}", names.join(", "));
    let handler = package::release()?.handler;
    let azurite = tokio::task::spawn_blocking(Azurite::start).await??;
    let stage = Stage { handler, azurite };
    println!("\n| attack | answers | peak memory | image by another caller meanwhile: p50, p99, answers |");
    println!("| --- | --- | --- | --- |");
    let mut failures = Vec::new();
    for (name, attack) in rows::ATTACKS {
        if only.is_none_or(|only| name.contains(only)) {
            let row = attack(&stage).await.with_context(|| format!("the attack could not be run: {name}"))?;
            println!("{row}");
            failures.extend(row.failures.iter().map(|failure| format!("{name}: {failure}")));
        }
    }
    ensure!(failures.is_empty(), "\n{}", failures.join("\n"));
    Ok(())
}

/// Checks that this process may open enough connections.
fn require_files() -> anyhow::Result<()> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("Max open files")?;
    let soft = files.split_whitespace().next().context("Max open files")?;
    let is_enough = soft == "unlimited" || soft.parse::<u64>()? >= FILES;
    ensure!(is_enough, "this shell allows {soft} open files; run `ulimit -n {FILES}` first");
    Ok(())
}

/// The number of answers by status and error code.
#[derive(Default)]
struct Answers(BTreeMap<String, usize>);

impl Answers {
    fn add(&mut self, answer: &str) {
        *self.0.entry(answer.to_owned()).or_default() += 1;
    }

    fn count(&self, answer: &str) -> usize {
        self.0.get(answer).copied().unwrap_or_default()
    }

    fn all(&self) -> usize {
        self.0.values().sum()
    }
}

impl std::fmt::Display for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|(answer, count)| format!("{count} × {answer}")).collect();
        f.write_str(&parts.join(", "))
    }
}

/// What an attack did, and what it must not have reached.
#[derive(Default)]
struct Report {
    /// What was done, with its amounts.
    attack: String,
    answers: Answers,
    /// What else was seen.
    notes: Vec<String>,
    failures: Vec<String>,
}

impl Report {
    /// Adds a note, and a failure unless `is_right`.
    fn expect(&mut self, is_right: bool, note: String) {
        if !is_right {
            self.failures.push(note.clone());
        }
        self.notes.push(note);
    }
}

/// A row of the printed table.
struct Row {
    text: String,
    failures: Vec<String>,
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Attacks a target while a well-behaved caller uses it.
async fn measure(mut target: Target, attack: impl AsyncFnOnce(&Target) -> anyhow::Result<Report>) -> Row {
    let caller = WellBehaved::start(&target.handler);
    // An attack that ends the handler breaks its own requests, too.
    let mut report = attack(&target).await.unwrap_or_else(|error| Report {
        attack: "broken off".to_owned(),
        failures: vec![format!("{error:#}")],
        ..Report::default()
    });
    let mut seen = caller.stop().await;
    let memory = match memory::peak_bytes(target.handler.pid()) {
        Ok(bytes) if !target.handler.has_ended() => format!("{:.0} MB", mb(bytes)),
        _ => {
            report.failures.push("the handler has ended".to_owned());
            "the handler has ended".to_owned()
        }
    };
    if seen.answers.count("200") < seen.answers.all() || seen.answers.all() == 0 {
        report.failures.push(format!("another caller got {}", seen.answers));
    }
    let answers = std::iter::once(report.answers.to_string()).chain(report.notes);
    let answers: Vec<String> = answers.filter(|text| !text.is_empty()).collect();
    let [median, worst] = [50, 99].map(|percent| seconds(seen.percentile(percent)));
    let text =
        format!("| {} | {} | {memory} | {median}, {worst}, {} |", report.attack, answers.join("; "), seen.answers);
    Row { text, failures: report.failures }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}
