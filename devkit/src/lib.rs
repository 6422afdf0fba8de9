//! The development kit: stand-ins for the services that the app uses, and helpers that the tests and
//! the commands share.

pub mod chaos;
pub mod kill_on_exit;
pub mod memory;
pub mod port;
pub mod queue;
pub mod stand_ins;
pub mod table;

use std::path::PathBuf;
use std::process::Command;

/// The repository's root.
pub fn root() -> PathBuf {
    let devkit = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    devkit.parent().map_or(devkit.clone(), PathBuf::from)
}

/// Where builds go.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Cargo at the repository's root, as if typed in a terminal.
///
/// What the outer cargo tells its program (`CARGO_PKG_NAME` and the like) is taken away: build
/// scripts that look at it would be run again, and half of all dependencies with them.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let told = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| told.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(name);
        }
    }
    cargo.current_dir(root());
    cargo
}
