//! Installs the pinned npm packages of a folder of `devkit/`, each version of its lock file once.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// The `node_modules` folder with the packages of `devkit/<folder>/package-lock.json`. The first call installs
/// them below `target/`, which takes up to a minute.
///
/// # Errors
/// Fails if Node.js is missing or too old, or npm cannot install the packages.
pub fn modules(folder: &str) -> anyhow::Result<PathBuf> {
    require_node()?;
    let pinned = crate::root().join("devkit").join(folder);
    let lock = pinned.join("package-lock.json");
    let lock = fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let home = crate::target_dir().join("devkit");
    fs::create_dir_all(&home)?;
    // Each version of the lock file has its own folder.
    let modules = home.join(format!("{folder}-{:016x}", fingerprint(&lock))).join("node_modules");
    // Several test processes may start at once; only one of them installs.
    let install_lock = File::create(home.join(format!("{folder}.lock")))?;
    install_lock.lock().with_context(|| format!("cannot lock devkit/{folder}.lock below the target directory"))?;
    if !modules.exists() {
        eprintln!("Installing the npm packages of devkit/{folder}. This happens once and takes up to a minute …");
        let scratch = home.join(format!("{folder}-unfinished"));
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        fs::create_dir_all(&scratch)?;
        for file in ["package.json", "package-lock.json"] {
            fs::copy(pinned.join(file), scratch.join(file))?;
        }
        let output = Command::new("npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .current_dir(&scratch)
            .stdin(Stdio::null())
            .output()
            .context("`npm` is missing: install Node.js 20 or later, which brings it, from https://nodejs.org")?;
        if !output.status.success() {
            bail!("`npm ci` failed in {}:\n{}", scratch.display(), String::from_utf8_lossy(&output.stderr));
        }
        // The rename is atomic, so an incomplete folder is never used.
        fs::rename(&scratch, modules.parent().context("the folder has a parent")?)?;
    }
    Ok(modules)
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

/// FNV-1a hash. Unlike the hash of the standard library, it is the same in every Rust version.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
