//! `cargo package-app`: builds the release handler and the zip that is deployed to Azure.
//!
//! The build is reproducible: one commit gives the same bytes in each folder and at each time, with the same Rust
//! version and C library.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

const USAGE: &str = "usage: cargo package-app [--target TRIPLE] [--profile release|dev] [--features otlp]";
/// The target that tests run and measurements measure. Its build is static, so it runs on every Linux plan of Azure
/// Functions, which all have this architecture.
const DEFAULT_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The paths of the handler and the zip that were built.
pub(crate) struct Package {
    pub(crate) handler: PathBuf,
    pub(crate) zip: PathBuf,
}

pub(crate) fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let (mut target, mut profile, mut features) = (DEFAULT_TARGET, "release", "");
    let mut rest = arguments;
    while let [name, value, others @ ..] = rest {
        match *name {
            "--target" => target = value,
            "--profile" => profile = value,
            "--features" => features = value,
            _ => anyhow::bail!(USAGE),
        }
        rest = others;
    }
    ensure!(rest.is_empty(), USAGE);
    let package = build(target, profile, features)?;
    // `func azure functionapp publish` uploads from the root; .funcignore includes ./handler.
    fs::copy(&package.handler, devkit::root().join("handler")).context("cannot write ./handler")?;
    if target != DEFAULT_TARGET {
        println!("Note: the tests run and the documents measure a build for {DEFAULT_TARGET}, not this one.");
    }
    let size = fs::metadata(&package.zip)?.len();
    println!(
        "Wrote {} ({:.1} MB) for a zip deployment, and ./handler for `func azure functionapp publish`.",
        package.zip.display(),
        mb(size)
    );
    Ok(())
}

/// The build that the measurements use: the one that `cargo package-app` packs, for the architecture of this machine.
pub(crate) fn release() -> anyhow::Result<Package> {
    build(&format!("{}-unknown-linux-gnu", std::env::consts::ARCH), "release", "")
}

/// Builds the handler for `target` as a static binary with these cargo features, and the zip that contains it.
pub(crate) fn build(target: &str, profile: &str, features: &str) -> anyhow::Result<Package> {
    ensure!(
        is_installed(target)?,
        "The target {target} is not installed. Run `rustup target add {target}`, or choose another one with --target."
    );
    // Without the sources, their folder would not be known yet.
    ensure!(devkit::cargo().args(["fetch", "--locked"]).status()?.success(), "the dependencies could not be fetched");
    let built = devkit::cargo()
        .args(["build", "--locked", "--package", "visionary", "--bin", "handler"])
        .args(["--target", target, "--profile", profile, "--features", features])
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags()?)
        .status()?;
    ensure!(built.success(), "the handler could not be built for {target}");
    let folder = if profile == "dev" { "debug" } else { profile };
    let handler = devkit::target_dir().join(target).join(folder).join("handler");
    let zip = devkit::target_dir().join("visionary.zip");
    // The rename is atomic, so a reader never sees an incomplete zip.
    let unfinished = zip.with_extension("unfinished");
    write_zip(&devkit::root(), &handler, &unfinished)?;
    fs::rename(&unfinished, &zip)?;
    Ok(Package { handler, zip })
}

/// The flags of rustc, as Cargo expects them in `CARGO_ENCODED_RUSTFLAGS`.
fn rust_flags() -> anyhow::Result<OsString> {
    // Links the C library statically, because the host's image may have another version of it.
    let mut flags = OsString::from("-Ctarget-feature=+crt-static");
    // Messages of panics name source files. A path of this machine would differ on another one.
    for (path, name) in source_folders()? {
        flags.push("\x1f--remap-path-prefix=");
        flags.push(path);
        flags.push("=");
        flags.push(name);
    }
    Ok(flags)
}

/// The folders of this machine that have sources, and the names that stand for them in the binary.
fn source_folders() -> anyhow::Result<Vec<(PathBuf, &'static str)>> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output()?;
    let sysroot = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    let mut folders = vec![(sysroot.join("lib/rustlib/src/rust"), "/rust"), (devkit::root(), "/visionary")];
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo"))).context("the home folder is not known")?;
    // The folder of a registry is named after its address, which a mirror changes.
    if let Ok(registries) = fs::read_dir(home.join("registry/src")) {
        for registry in registries {
            folders.push((registry?.path(), "/crates"));
        }
    }
    Ok(folders)
}

fn is_installed(target: &str) -> anyhow::Result<bool> {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output()?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(output.status.success() && Path::new(&folder).is_dir())
}

pub(crate) fn mb(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1_000_000.0
}

/// Writes the zip. Its bytes follow from the files alone: the entries are in the order of their names, and their time
/// is the first one that a zip knows.
fn write_zip(root: &Path, handler: &Path, path: &Path) -> anyhow::Result<()> {
    // The host executes the handler. Some deployments mount the zip read-only, so the mode must be right here.
    let mut entries = BTreeMap::from([
        ("handler".to_owned(), (handler.to_owned(), 0o755)),
        ("host.json".to_owned(), (root.join("host.json"), 0o644)),
    ]);
    for folder in fs::read_dir(root)? {
        let file = folder?.path().join("function.json");
        if file.is_file() {
            let name = file.strip_prefix(root)?.to_str().context("the name of a function folder is not UTF-8")?;
            entries.insert(name.to_owned(), (file.clone(), 0o644));
        }
    }
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default());
    let mut zip = ZipWriter::new(File::create(path)?);
    for (name, (file, mode)) in entries {
        zip.start_file(name, options.unix_permissions(mode))?;
        zip.write_all(&fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?)?;
    }
    zip.finish()?;
    Ok(())
}
