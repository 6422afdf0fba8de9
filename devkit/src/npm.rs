//! Installs the pinned npm packages of a folder of `devkit/`, each version of its lock file once.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::install;

/// The `node_modules` folder with the packages of `devkit/<folder>/package-lock.json`. The first call installs
/// them below `target/`, which takes up to a minute.
///
/// # Errors
/// Fails if Node.js is missing or too old, or npm cannot install the packages.
pub fn modules(folder: &str) -> anyhow::Result<PathBuf> {
    require_node()?;
    let pinned = crate::root().join("devkit").join(folder);
    let installed = install::once(folder, "package-lock.json", |scratch| {
        for file in ["package.json", "package-lock.json"] {
            fs::copy(pinned.join(file), scratch.join(file))?;
        }
        let output = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(scratch)
            .stdin(Stdio::null())
            .output()
            .context("`npm` is missing: install Node.js 20 or later, which brings it, from https://nodejs.org")?;
        if !output.status.success() {
            bail!("`npm ci` failed in {}:\n{}", scratch.display(), String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    })?;
    Ok(installed.join("node_modules"))
}

fn require_node() -> anyhow::Result<()> {
    let output = Command::new("node").arg("--version").stdin(Stdio::null()).output();
    let output = output.context("Node.js is missing: install version 20 or later from https://nodejs.org")?;
    let version = String::from_utf8_lossy(&output.stdout);
    let major = version.trim().trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_some_and(|major| major >= 20) {
        Ok(())
    } else {
        bail!("Node.js {} is too old: install version 20 or later from https://nodejs.org", version.trim())
    }
}
