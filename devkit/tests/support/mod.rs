//! Node.js, Chromium and the whole app, for the tests of the page and of the client.

use std::path::{Path, PathBuf};
use std::time::Duration;

use devkit::stand_ins::azurite::Azurite;
use devkit::stand_ins::faults::Faults;
use devkit::stand_ins::host::{FunctionsHost, Options, Wire};
use devkit::stand_ins::openai::{self, OpenAi, Painting};
use tempfile::TempDir;
use tokio::process::Command;

/// Where `devkit/browser/browser.mjs` looks for a browser, too.
const CHROMIUM: [&str; 3] = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
/// Time limit of a program.
const BOUND: Duration = Duration::from_secs(8 * 60);
/// Drawing time of the stand-in, with two previews on the way. A debug build needs a part of a second for a preview.
const DRAWING_TAKES: Duration = Duration::from_secs(4);

/// The npm packages of a folder of `devkit/`.
pub(crate) async fn modules(folder: &'static str) -> PathBuf {
    let installed = tokio::task::spawn_blocking(move || devkit::npm::modules(folder)).await.unwrap();
    installed.unwrap_or_else(|error| panic!("{error:#}"))
}

pub(crate) fn require_chromium() {
    let is_there = match std::env::var_os("CHROMIUM") {
        Some(named) => Path::new(&named).exists(),
        None => CHROMIUM.iter().any(|path| Path::new(path).exists()),
    };
    assert!(is_there, "Chromium is missing: install it (Debian: `apt-get install chromium`), or name it in CHROMIUM.");
}

/// Runs Node.js in a folder of `devkit/`. A failure shows the whole output.
pub(crate) async fn node(folder: &str, arguments: &[&str], environment: &[(&str, String)]) {
    let mut command = Command::new("node");
    command.args(arguments).current_dir(devkit::root().join("devkit").join(folder));
    command.env("VISIONARY_BROWSER_MODULES", modules("browser").await).envs(environment.iter().cloned());
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(BOUND, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("`node {}` did not end within {BOUND:?}", arguments.join(" ")));
    let output = output.expect("`node` starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "`node {}` failed:\n{}{}",
        arguments.join(" "),
        text(&output.stdout),
        text(&output.stderr)
    );
}

/// The handler with Azurite and the stand-ins for the host and OpenAI.
pub(crate) struct WholeApp {
    /// A proxy before the images.
    pub(crate) storage: Faults,
    pub(crate) openai: OpenAi,
    pub(crate) host: FunctionsHost,
    _azurite: Azurite,
    // The folder is removed when the test ends.
    _spool: TempDir,
}

impl WholeApp {
    /// Starts the app with more settings, for pages of its own origin and of the origins `cors`.
    pub(crate) async fn start(more: &[(&str, &str)], cors: &[String]) -> Self {
        // This crate does not depend on the app, so cargo has not built it for this test.
        assert!(devkit::cargo().args(["build", "--bin", "handler"]).status().unwrap().success());
        let azurite = tokio::task::spawn_blocking(Azurite::start).await.unwrap().expect("Azurite starts");
        let options =
            openai::Options { painting: Painting::Artist, delay: DRAWING_TAKES, ..openai::Options::default() };
        let openai = OpenAi::start_with(options).await.expect("the stand-in for OpenAI starts");
        let spool = tempfile::tempdir().unwrap();
        let storage = Faults::before(azurite.blob_port()).await.expect("a proxy before storage");
        let port = |number: u16| format!(":{number}/");
        let through = azurite.connection_string().replace(&port(azurite.blob_port()), &port(storage.port()));
        let settings = [
            ("AzureWebJobsStorage", through),
            ("SPOOL_DIR", spool.path().to_str().unwrap().to_owned()),
            ("OPENAI_API_KEY", "a-key".to_owned()),
            ("OPENAI_BASE_URL", openai.base_url()),
        ];
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let settings = settings.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value));
        let host = FunctionsHost::start(Options {
            handler: Some(devkit::target_dir().join("debug/handler")),
            settings: settings.collect(),
            queues: true,
            cors: cors.to_vec(),
            ..Options::new(devkit::root(), Wire::Proxying)
        })
        .await
        .expect("the host and the handler start");
        Self { storage, openai, host, _azurite: azurite, _spool: spool }
    }

    /// What the programs in Node.js read: the app's address and that of its images.
    pub(crate) fn addresses(&self) -> [(&'static str, String); 2] {
        let blobs = format!("http://127.0.0.1:{}", self.storage.port());
        [("VISIONARY_URL", self.host.url()), ("VISIONARY_BLOBS", blobs)]
    }
}
