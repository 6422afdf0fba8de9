//! Installs the pinned Python packages of a folder of `devkit/`, each version of its lock file once.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::install;

/// A virtual environment of Python with the packages of `devkit/<folder>/requirements.txt`.
#[derive(Debug)]
pub struct Environment {
    bin: PathBuf,
}

impl Environment {
    /// The environment of `devkit/<folder>`. The first call installs it below `target/`, which takes up to a minute.
    /// pip checks each package against the hashes of `requirements.txt`.
    ///
    /// # Errors
    /// Fails if Python or its module `venv` is missing, or pip cannot install the packages.
    pub fn of(folder: &str) -> anyhow::Result<Self> {
        let requirements = crate::root().join("devkit").join(folder).join("requirements.txt");
        let installed = install::once(folder, "requirements.txt", |scratch| {
            let venv = Command::new("python3").args(["-m", "venv"]).arg(scratch).stdin(Stdio::null()).output();
            let venv = venv.context("Python is missing: install Python 3.10 or later (Debian: `python3-venv`)")?;
            let error = String::from_utf8_lossy(&venv.stderr).into_owned() + &String::from_utf8_lossy(&venv.stdout);
            ensure!(
                venv.status.success(),
                "Python has no module venv (Debian: `apt-get install python3-venv`):\n{error}"
            );
            let pip = python(&scratch.join("bin"))
                .args(["-m", "pip", "--disable-pip-version-check", "install", "--quiet"])
                .args(["--no-deps", "--require-hashes", "--only-binary=:all:", "--requirement"])
                .arg(&requirements)
                .output()?;
            ensure!(
                pip.status.success(),
                "pip could not install {}:\n{}",
                requirements.display(),
                String::from_utf8_lossy(&pip.stderr)
            );
            Ok(())
        })?;
        Ok(Self { bin: installed.join("bin") })
    }

    /// The interpreter of this environment.
    #[must_use]
    pub fn python(&self) -> Command {
        python(&self.bin)
    }

    /// `python -m <module>` in this environment. A script of `bin/` would name the folder that pip installed into,
    /// which has been renamed since.
    #[must_use]
    pub fn module(&self, module: &str) -> Command {
        let mut command = self.python();
        command.args(["-m", module]);
        command
    }

    /// A program of this environment that is no Python script.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.stdin(Stdio::null());
        command
    }
}

fn python(bin: &Path) -> Command {
    let mut command = Command::new(bin.join("python"));
    // The machine's own settings do not change what is installed or how it runs.
    command.env_remove("PYTHONPATH").env_remove("PYTHONHOME").stdin(Stdio::null());
    command
}
