//! Installs the pinned packages of a folder of `devkit/`, each version of its lock file once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The folder below `target/` with what `install` writes into its argument. Only the first call for a version of
/// `devkit/<folder>/<lock_file>` installs.
pub(crate) fn once(
    folder: &str,
    lock_file: &str,
    install: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let lock = crate::root().join("devkit").join(folder).join(lock_file);
    let lock = fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
    let home = crate::target_dir().join("devkit");
    fs::create_dir_all(&home)?;
    // Each version of the lock file has its own folder.
    let installed = home.join(format!("{folder}-{:016x}", fingerprint(&lock)));
    // Several test processes may start at once; only one of them installs.
    let install_lock = File::create(home.join(format!("{folder}.lock")))?;
    install_lock.lock().with_context(|| format!("cannot lock devkit/{folder}.lock below the target directory"))?;
    if !installed.exists() {
        eprintln!(
            "Installing the packages of devkit/{folder}/{lock_file}. This happens once and takes up to a minute …"
        );
        let scratch = home.join(format!("{folder}-unfinished"));
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        fs::create_dir_all(&scratch)?;
        install(&scratch)?;
        // The rename is atomic, so an incomplete folder is never used.
        fs::rename(&scratch, &installed)?;
    }
    Ok(installed)
}

/// FNV-1a hash. Unlike the hash of the standard library, it is the same in every Rust version.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
