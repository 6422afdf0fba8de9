//! Runs Azurite, Microsoft's storage emulator: installs it from npm once and starts it with storage in memory or
//! in a folder.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::certificate::Certificate;
use crate::{kill_on_exit, npm};

/// The name of Azurite's default account.
pub const ACCOUNT: &str = "devstoreaccount1";
/// The public key of the default account
/// (<https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>).
pub const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Time limit for Azurite to write its storage and to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// A running Azurite. It ends when the value is dropped, or when this process ends without dropping it.
#[derive(Debug)]
pub struct Azurite {
    process: Child,
    ports: [u16; 3],
    /// Whether the storage is in a folder.
    is_kept: bool,
    // Fields are dropped after `Drop::drop`, so the process is held until it has ended.
    _held: kill_on_exit::Held,
}

impl Azurite {
    /// Starts Azurite on free ports with its storage in memory. The first call on a machine installs it below `target/`, which takes
    /// about a minute. The call blocks the thread.
    ///
    /// # Errors
    /// Fails if Node.js is missing or too old, npm cannot install Azurite, or Azurite does not start.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(None, None)
    }

    /// [`start`](Self::start) with https and OAuth (`--oauth basic`): the services take tokens of Microsoft Entra ID,
    /// too. Returns also the certificate of the services, in DER.
    ///
    /// # Errors
    /// As [`start`](Self::start), and if no certificate can be made.
    pub fn start_with_oauth() -> anyhow::Result<(Self, Vec<u8>)> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let certificate = Certificate::new()?;
        let folder = crate::target_dir().join("devkit");
        fs::create_dir_all(&folder)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let file = folder.join(format!("certificate-{}-{number}.pem", std::process::id()));
        fs::write(&file, certificate.pem)?;
        let started = Self::start_with(None, Some(&file));
        // Azurite reads the file before it listens.
        let _ = fs::remove_file(&file);
        Ok((started?, certificate.der))
    }

    /// [`start`](Self::start) with the storage in this folder, where the next start finds it. Azurite writes every
    /// 5 s and when the value is dropped; an earlier end loses the last seconds.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_in(folder: &Path) -> anyhow::Result<Self> {
        Self::start_with(Some(folder), None)
    }

    fn start_with(folder: Option<&Path>, certificate: Option<&Path>) -> anyhow::Result<Self> {
        let program = npm::modules("npm")?.join("azurite/dist/src/azurite.js");
        let mut command = Command::new("node");
        command.arg(program).args(["--skipApiVersionCheck", "--disableTelemetry", "--silent"]);
        match folder {
            Some(folder) => command.arg("--location").arg(folder),
            None => command.arg("--inMemoryPersistence"),
        };
        if let Some(file) = certificate {
            command.args(["--oauth", "basic", "--cert"]).arg(file).arg("--key").arg(file);
        }
        for service in ["blob", "queue", "table"] {
            command.args([format!("--{service}Host"), "127.0.0.1".into(), format!("--{service}Port"), "0".into()]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut process = command.spawn().context("Azurite cannot be started with `node`")?;
        let held = kill_on_exit::hold(process.id())?;
        let output = process.stdout.take().context("Azurite has no stdout")?;
        let mut lines = BufReader::new(output).lines();
        let mut azurite = Self { process, ports: [0; 3], is_kept: folder.is_some(), _held: held };
        for (port, service) in azurite.ports.iter_mut().zip(["Blob", "Queue", "Table"]) {
            *port = listening_port(&mut lines, service)?;
        }
        // Reads the rest of the output, because Azurite blocks once the pipe is full.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Ok(azurite)
    }

    /// The connection string for the setting `AzureWebJobsStorage`.
    pub fn connection_string(&self) -> String {
        connection_string(self.ports)
    }

    /// The ports of the blob, queue and table services on 127.0.0.1.
    pub fn ports(&self) -> [u16; 3] {
        self.ports
    }

    /// The port of the table service on 127.0.0.1.
    pub fn table_port(&self) -> u16 {
        self.ports[2]
    }

    /// The port of the blob service on 127.0.0.1.
    pub fn blob_port(&self) -> u16 {
        self.ports[0]
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        if self.is_kept {
            let _ = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
            let begun = Instant::now();
            while matches!(self.process.try_wait(), Ok(None)) && begun.elapsed() < ENDS_WITHIN {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        // A kill loses nothing of a storage in memory.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The connection string of the default account whose blob, queue and table services listen on these ports of 127.0.0.1.
pub(super) fn connection_string(ports: [u16; 3]) -> String {
    let [blob, queue, table] = ports.map(|port| format!("http://127.0.0.1:{port}/{ACCOUNT}"));
    format!(
        "DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={blob};\
         QueueEndpoint={queue};TableEndpoint={table};"
    )
}

fn listening_port(lines: &mut impl Iterator<Item = std::io::Result<String>>, service: &str) -> anyhow::Result<u16> {
    let wanted = format!("Azurite {service} service is successfully listening at");
    for line in lines {
        let line = line.context("cannot read Azurite's output")?;
        if line.starts_with(&wanted) {
            let port = line.rsplit(':').next().unwrap_or_default().trim();
            return port.parse().with_context(|| format!("Azurite printed no port: {line}"));
        }
    }
    bail!("Azurite ended before its {service} service had started")
}
