//! The development kit. [`stand_ins`] replaces the services that the app meets in production; the
//! other modules are helpers that the tests and the commands (`main.rs`) share.

mod install;

pub mod chaos;
pub mod contract;
pub mod kill_on_exit;
pub mod memory;
pub mod npm;
pub mod pip;
pub mod port;
pub mod queue;
pub mod stand_ins;
pub mod table;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// The bound of each wait for an event in a test: longer than any event takes on a busy machine.
pub const LONGEST_WAIT: Duration = Duration::from_secs(180);

/// The repository's root.
pub fn root() -> PathBuf {
    let devkit = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    devkit.parent().map_or(devkit.clone(), PathBuf::from)
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, or `target/` at the repository's root.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A `cargo` command that runs at the repository's root, as if typed in a terminal.
///
/// The outer cargo sets variables such as `CARGO_PKG_NAME` for this program. The command does not
/// inherit them: a build script that depends on one would run again and rebuild half of the
/// dependencies.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let outer = ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| outer.iter().any(|prefix| name.starts_with(prefix))) {
            cargo.env_remove(name);
        }
    }
    cargo.current_dir(root());
    cargo
}
