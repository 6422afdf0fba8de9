//! Azurite, Microsoft's own storage emulator: installed once from npm, started in memory.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};

use crate::kill_on_exit;

/// The account that every Azurite has.
pub const ACCOUNT: &str = "devstoreaccount1";
/// Its key, which is public
/// (<https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>).
pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running Azurite. It ends when this is dropped, and when our process ends without dropping it.
#[derive(Debug)]
pub struct Azurite {
    process: Child,
    ports: [u16; 3],
    // After `process` in `drop`: `kill_on_exit` lets go once the process is gone.
    _held: kill_on_exit::Held,
}

impl Azurite {
    /// Starts it on free ports; the first time on a machine it is installed below `target/`, which
    /// takes a minute. Blocks.
    ///
    /// # Errors
    /// If Node is missing, in one sentence; if npm cannot install.
    pub fn start() -> anyhow::Result<Self> {
        let program = npm_modules()?.join("azurite/dist/src/azurite.js");
        let mut command = Command::new("node");
        command.arg(program).args(["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]);
        for service in ["blob", "queue", "table"] {
            command.args([format!("--{service}Host"), "127.0.0.1".into(), format!("--{service}Port"), "0".into()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = command.spawn().context("Azurite cannot be started with `node`")?;
        let held = kill_on_exit::hold(process.id())?;
        let output = process.stdout.take().context("Azurite has no stdout")?;
        let mut lines = BufReader::new(output).lines();
        let mut azurite = Self { process, ports: [0; 3], _held: held };
        for (port, service) in azurite.ports.iter_mut().zip(["Blob", "Queue", "Table"]) {
            *port = listening_port(&mut lines, service)?;
        }
        // It must always find somebody who reads.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(azurite)
    }

    /// What `AzureWebJobsStorage` is set to.
    pub fn connection_string(&self) -> String {
        let [blob, queue, table] = self.ports.map(|port| format!("http://127.0.0.1:{port}/{ACCOUNT}"));
        format!(
            "DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={blob};\
             QueueEndpoint={queue};TableEndpoint={table};"
        )
    }

    /// The ports of all its services on 127.0.0.1.
    pub fn ports(&self) -> [u16; 3] {
        self.ports
    }

    /// The table service's port on 127.0.0.1.
    pub fn table_port(&self) -> u16 {
        self.ports[2]
    }

    /// The blob service's port on 127.0.0.1.
    pub fn blob_port(&self) -> u16 {
        self.ports[0]
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        // It is in memory, so there is nothing to finish.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn listening_port(lines: &mut impl Iterator<Item = std::io::Result<String>>, service: &str) -> anyhow::Result<u16> {
    let wanted = format!("Azurite {service} service is successfully listening at");
    for line in lines {
        let line = line.context("Azurite's output broke off")?;
        if line.starts_with(&wanted) {
            let port = line.rsplit(':').next().unwrap_or_default().trim();
            return port.parse().with_context(|| format!("Azurite named no port: {line}"));
        }
    }
    bail!("Azurite ended before its {service} service listened")
}

/// The folder of the npm packages that `devkit/npm` pins, installed once below `target/`.
///
/// # Errors
/// If Node is missing, in one sentence; if npm cannot install.
pub fn npm_modules() -> anyhow::Result<PathBuf> {
    require_node()?;
    let pinned = Path::new(env!("CARGO_MANIFEST_DIR")).join("npm");
    let lock = fs::read(pinned.join("package-lock.json")).context("devkit/npm/package-lock.json")?;
    let home = crate::target_dir().join("devkit");
    fs::create_dir_all(&home)?;
    // Several test processes may start at once; a change of the versions makes a folder of its own.
    let modules = home.join(format!("npm-{:016x}", fingerprint(&lock))).join("node_modules");
    let turn = File::create(home.join("npm.lock"))?;
    turn.lock().context("waiting for another process to install Azurite")?;
    if !modules.exists() {
        eprintln!("Installing Azurite from npm (once, about a minute) …");
        let scratch = home.join("npm-unfinished");
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
        // The whole folder appears at once, so a half one is never taken for it.
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

/// FNV-1a: tells two lock files apart, and is the same in every build.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
