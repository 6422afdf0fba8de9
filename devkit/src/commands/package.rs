//! `cargo package-app`: builds the release handler and the zip that is deployed to Azure.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const USAGE: &str = "usage: cargo package-app [--target TRIPLE] [--profile release|dev]";
/// A musl build is static, so it runs on every Linux plan of Azure Functions.
const DEFAULT_TARGET: &str = "x86_64-unknown-linux-musl";

/// The paths of the handler and the zip that were built.
pub(crate) struct Package {
    pub(crate) handler: PathBuf,
    pub(crate) zip: PathBuf,
}

pub(crate) fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let (mut target, mut profile) = (DEFAULT_TARGET, "release");
    let mut rest = arguments;
    while let [name, value, others @ ..] = rest {
        match *name {
            "--target" => target = value,
            "--profile" => profile = value,
            _ => anyhow::bail!(USAGE),
        }
        rest = others;
    }
    ensure!(rest.is_empty(), USAGE);
    let package = build(target, profile)?;
    // `func azure functionapp publish` uploads from the root; .funcignore includes ./handler.
    fs::copy(&package.handler, devkit::root().join("handler")).context("cannot write ./handler")?;
    let size = fs::metadata(&package.zip)?.len();
    println!(
        "Wrote {} ({:.1} MB) for a zip deployment, and ./handler for `func azure functionapp publish`.",
        package.zip.display(),
        mb(size)
    );
    Ok(())
}

/// The build that the measurements use: release, for musl if that target is installed, else for glibc.
pub(crate) fn release() -> anyhow::Result<Package> {
    build(if is_installed(DEFAULT_TARGET)? { DEFAULT_TARGET } else { "x86_64-unknown-linux-gnu" }, "release")
}

/// Builds the handler for `target` as a static binary, and the zip that contains it.
pub(crate) fn build(target: &str, profile: &str) -> anyhow::Result<Package> {
    ensure!(
        is_installed(target)?,
        "The target {target} is not installed. Run `rustup target add {target}`, or choose an installed target: \
         `cargo package-app --target x86_64-unknown-linux-gnu` makes a static build on most Linux machines."
    );
    let built = devkit::cargo()
        .args(["build", "--package", "visionary", "--bin", "handler", "--target", target, "--profile", profile])
        // Links the C library statically, because the host's image may have another version of it.
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
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

fn is_installed(target: &str) -> anyhow::Result<bool> {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output()?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(output.status.success() && Path::new(&folder).is_dir())
}

pub(crate) fn mb(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX)) / 1_000_000.0
}

fn write_zip(root: &Path, handler: &Path, path: &Path) -> anyhow::Result<()> {
    let mut zip = ZipWriter::new(File::create(path)?);
    let file = SimpleFileOptions::default().unix_permissions(0o644);
    zip.start_file("host.json", file)?;
    zip.write_all(&fs::read(root.join("host.json"))?)?;
    let mut folders: Vec<PathBuf> =
        fs::read_dir(root)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    folders.sort();
    for folder in folders.iter().filter(|folder| folder.join("function.json").is_file()) {
        let name =
            folder.file_name().and_then(|name| name.to_str()).context("the name of a function folder is not UTF-8")?;
        zip.start_file(format!("{name}/function.json"), file)?;
        zip.write_all(&fs::read(folder.join("function.json"))?)?;
    }
    // The host executes the handler. Some deployments mount the zip read-only, so the mode must be right here.
    zip.start_file("handler", file.unix_permissions(0o755))?;
    zip.write_all(&fs::read(handler)?)?;
    zip.finish()?;
    Ok(())
}
