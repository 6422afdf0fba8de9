//! Starts everything for one test; Azurite is shared by the tests of this process.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use devkit::chaos::Chaos;
use devkit::stand_ins::azurite::Azurite;
use devkit::stand_ins::faults::Faults;
use devkit::stand_ins::host::{FunctionsHost, Options, Wire};
use devkit::stand_ins::openai::{self, OpenAi, Reply};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use visionary::app::{App, Clock};
use visionary::config::Config;
use visionary::server;

pub(crate) const WIRES: [Wire; 2] = [Wire::Proxying, Wire::Forwarding];

/// Never dropped; `kill_on_exit` ends it with this process.
pub(crate) fn azurite() -> &'static Azurite {
    static AZURITE: OnceLock<Azurite> = OnceLock::new();
    AZURITE.get_or_init(|| Azurite::start().expect("Azurite starts"))
}

/// A line to a service of Azurite's that can be made to fail, and the connection string that leads
/// through it.
pub(crate) async fn with_faults_before(port: u16) -> (Faults, String) {
    let mut through = azurite().connection_string();
    let faults = before(&mut through, port).await;
    (faults, through)
}

/// A line to the service on that port; what is set to reach the service leads through the line then.
async fn before(setting: &mut String, port: u16) -> Faults {
    let faults = Faults::before(port).await.expect("a proxy");
    *setting = setting.replace(&format!(":{port}/"), &format!(":{}/", faults.port()));
    faults
}

/// A container that no other test uses.
pub(crate) fn new_container() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) struct Visionary {
    pub(crate) host: FunctionsHost,
    pub(crate) openai: OpenAi,
    pub(crate) settings: Vec<(String, String)>,
    /// Its account, if it has its own.
    pub(crate) azurite: Option<Azurite>,
    /// Its lines to other services, if [`Setup::lines`] says so.
    pub(crate) lines: Option<Lines>,
    handlers: usize,
    http: reqwest::Client,
    // Removed when the test ends.
    _spool: TempDir,
}

/// The lines of one handler, each of which can be made to fail.
pub(crate) struct Lines {
    pub(crate) blobs: Faults,
    pub(crate) provider: Faults,
}

#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) wire: Wire,
    pub(crate) settings: Vec<(&'static str, String)>,
    pub(crate) openai: openai::Options,
    pub(crate) keys: Vec<String>,
    pub(crate) cors: Vec<String>,
    pub(crate) handlers: usize,
    /// With an account of its own, because it is hard on it.
    pub(crate) own_account: bool,
    /// The same, and the host listens to its queue.
    pub(crate) queues: bool,
    /// Blobs and provider are reached by lines that can be made to fail.
    pub(crate) lines: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            wire: Wire::Proxying,
            settings: Vec::new(),
            openai: openai::Options::default(),
            keys: Vec::new(),
            cors: Vec::new(),
            handlers: 1,
            own_account: false,
            queues: false,
            lines: false,
        }
    }
}

impl Setup {
    pub(crate) fn wire(wire: Wire) -> Self {
        Self { wire, ..Self::default() }
    }

    pub(crate) fn set(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.settings.push((name, value.into()));
        self
    }

    pub(crate) async fn start(self) -> Visionary {
        let spool = TempDir::new().expect("a temporary folder");
        let own = if self.own_account || self.queues {
            Some(tokio::task::spawn_blocking(Azurite::start).await.expect("a thread").expect("Azurite starts"))
        } else {
            None
        };
        let openai = OpenAi::start_with(self.openai).await.expect("the stand-in for OpenAI starts");
        let account = own.as_ref().unwrap_or_else(|| azurite());
        let (mut storage, mut provider) = (account.connection_string(), openai.base_url());
        let lines = if self.lines {
            let lines = Lines {
                blobs: before(&mut storage, account.blob_port()).await,
                provider: before(&mut provider, openai.port()).await,
            };
            Some(lines)
        } else {
            None
        };
        let mut settings: Vec<(String, String)> = vec![
            ("AzureWebJobsStorage".into(), storage),
            ("IMAGE_CONTAINER".into(), new_container()),
            ("SPOOL_DIR".into(), spool.path().join("spool").to_str().expect("UTF-8").into()),
            // Far away, so that each test passes the reservations and few meet a limit.
            ("DAILY_IMAGE_QUOTA".into(), "100000".into()),
            ("DAILY_BUDGET_USD".into(), "100000".into()),
            ("OPENAI_API_KEY".into(), API_KEY.into()),
            ("OPENAI_BASE_URL".into(), provider),
        ];
        for (name, value) in self.settings {
            settings.retain(|(known, _)| known != name);
            settings.push((name.to_owned(), value));
        }
        let options = Options {
            handler: Some(handler()),
            settings: settings.clone(),
            keys: self.keys,
            cors: self.cors,
            handlers: self.handlers,
            queues: self.queues,
            ..Options::new(root(), self.wire)
        };
        let host = FunctionsHost::start(options).await.expect("the host and the handler start");
        Visionary { host, openai, settings, azurite: own, lines, handlers: self.handlers, http: http(), _spool: spool }
    }
}

/// Looked for in everything that leaves the service.
pub(crate) const API_KEY: &str = "sk-test-0123456789-secret";

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn handler() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_handler"))
}

#[expect(clippy::disallowed_methods, reason = "Azurite goes by the real clock")]
pub(crate) fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

pub(crate) fn http() -> reqwest::Client {
    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client")
}

impl Visionary {
    pub(crate) async fn start() -> Self {
        Setup::default().start().await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.host.url()))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path).send().await.expect("an answer")).await
    }

    /// As the front ends do it.
    pub(crate) async fn generate(&self, prompt: &str) -> Answer {
        self.post(&json!({"prompt": prompt})).await
    }

    pub(crate) async fn post(&self, body: &Value) -> Answer {
        let request = self.request(Method::POST, "/api/generateImage").json(body);
        Answer::of(request.send().await.expect("an answer")).await
    }

    /// As a caller that reads JSON alone.
    pub(crate) async fn generate_json(&self, body: &Value) -> Answer {
        let request = self.request(Method::POST, "/api/generateImage").header("accept", "application/json").json(body);
        Answer::of(request.send().await.expect("an answer")).await
    }

    /// `(name, url)`, as listed.
    pub(crate) async fn list(&self) -> Vec<(String, String)> {
        let answer = self.get("/api/getImages").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let images = answer.json()["imageUrls"].as_array().expect("imageUrls").clone();
        images.iter().map(|image| (text(&image["name"]), text(&image["url"]))).collect()
    }

    /// Today's sums, once nothing is reserved any more: what comes after an answer is soon done. They are
    /// null where nothing was reserved today.
    pub(crate) async fn accounted(&self) -> Value {
        let today = async || self.get("/api/usage?days=1").await.json()["days"][0].clone();
        eventually(async || Some(today().await).filter(|today| today["reservedUsd"].as_f64().unwrap_or(0.0) == 0.0))
            .await
    }

    /// Resolves when so many of the quota are used.
    pub(crate) async fn used(&self, wanted: u64) {
        eventually(async || (self.get("/api/quota").await.json()["used"] == wanted).then_some(())).await;
    }

    /// What a browser gets for a link.
    pub(crate) async fn open(&self, url: &str) -> Response {
        self.http.get(url).send().await.expect("the link answers")
    }

    pub(crate) fn setting(&self, name: &str) -> String {
        self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).expect("it is set")
    }

    /// The same parts, for a bad day. What they stand on goes with the second value.
    pub(crate) fn into_chaos(self) -> (Chaos, (TempDir, Option<Azurite>)) {
        let spool = self.setting("SPOOL_DIR").into();
        let (connection_string, container) = (self.setting("AzureWebJobsStorage"), self.setting("IMAGE_CONTAINER"));
        let Self { host, openai, handlers, azurite, _spool: held, .. } = self;
        (Chaos { host, openai, handlers, spool, connection_string, container }, (held, azurite))
    }

    /// The same app, served from this process at a time of the test's choosing; its address.
    pub(crate) async fn serve_at(&self, now: OffsetDateTime) -> String {
        self.serve_by(Arc::new(move || now)).await
    }

    /// The same, by a clock of the test's.
    pub(crate) async fn serve_by(&self, clock: Clock) -> String {
        let lookup = |name: &str| self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let config = Config::from_vars(lookup).expect("the settings are right");
        let app = App::new(&config, clock).expect("the app can be put together");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        // It ends with the test's runtime.
        tokio::spawn(server::run(listener, app, std::future::pending()));
        format!("http://{address}")
    }
}

/// What comes after an answer cannot be waited for, so it is asked for until it is there.
pub(crate) async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(180), looking).await.expect("it comes within three minutes")
}

/// A text model's answer.
pub(crate) fn says(text: &str) -> Reply {
    let content = json!([{"type": "output_text", "text": text}]);
    Reply::json(200, &json!({"status": "completed", "output": [{"type": "message", "content": content}]}))
}

/// An answer that was read to its end.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, body: response.text().await.expect("a body") }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }
}

/// The caption and the time, as the front ends cut them out of a name.
pub(crate) fn caption(name: &str) -> &str {
    name.split('_').next().unwrap_or_default().split('.').next().unwrap_or_default()
}

pub(crate) fn timestamp(name: &str) -> i64 {
    let last = name.split('_').next_back().unwrap_or_default();
    last.split('.').next().unwrap_or_default().parse().unwrap_or_else(|_| panic!("no time in {name}"))
}
