//! What each test starts with: the app behind the stand-ins, a client with one request builder, and
//! `eventually`. The tests of this process share one Azurite.

use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use devkit::chaos::Chaos;
use devkit::stand_ins::azurite::Azurite;
use devkit::stand_ins::faults::Faults;
use devkit::stand_ins::host::{FunctionsHost, Options, Wire};
use devkit::stand_ins::identity::Identity;
use devkit::stand_ins::keyless::KeylessAccount;
use devkit::stand_ins::openai::{self, Dialect, Endpoint, Hold, OpenAi, Reply};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use visionary::app::{App, Clock};
use visionary::config::Config;
use visionary::server;

use crate::contract::{self, Expected};
use crate::sse::Events;

pub(crate) const WIRES: [Wire; 2] = [Wire::Proxying, Wire::Forwarding];

/// The shared Azurite. It is never dropped; `kill_on_exit` ends it with this process.
pub(crate) fn azurite() -> &'static Azurite {
    static AZURITE: OnceLock<Azurite> = OnceLock::new();
    AZURITE.get_or_init(|| Azurite::start().expect("Azurite starts"))
}

/// A line that can fail to the Azurite service on this port, and the connection string that uses it.
pub(crate) async fn with_faults_before(port: u16) -> (Faults, String) {
    let mut through = azurite().connection_string();
    let faults = before(&mut through, port).await;
    (faults, through)
}

/// Puts a line that can fail before the service on this port, and leads the setting through it.
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
    /// The storage account of this app alone, with [`Setup::own_account`] or [`Setup::queues`].
    pub(crate) azurite: Option<Azurite>,
    /// The storage account of an app with [`Setup::identity`].
    pub(crate) keyless: Option<KeylessAccount>,
    /// The lines to other services, with [`Setup::lines`].
    pub(crate) lines: Option<Lines>,
    handlers: usize,
    /// A client of the host.
    pub(crate) client: Client,
    // The folder is removed when the test ends.
    _spool: TempDir,
}

/// The lines between the app and other services. Each can fail.
pub(crate) struct Lines {
    pub(crate) blobs: Faults,
    pub(crate) tables: Faults,
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
    /// A storage account for this app alone, because the test loads it heavily.
    pub(crate) own_account: bool,
    /// A storage account for this app alone, whose queue the host listens to.
    pub(crate) queues: bool,
    /// Lines that can fail before the blobs, the tables and the provider.
    pub(crate) lines: bool,
    /// No key is set: the storage account and Azure OpenAI take the tokens of this identity only.
    pub(crate) identity: Option<Identity>,
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
            identity: None,
        }
    }
}

impl Setup {
    /// An app without a key, for this identity.
    pub(crate) fn identity(identity: &Identity) -> Self {
        let openai =
            openai::Options { dialect: Dialect::Azure, identity: Some(identity.clone()), ..Default::default() };
        Self { identity: Some(identity.clone()), openai, ..Self::default() }
    }

    pub(crate) fn wire(wire: Wire) -> Self {
        Self { wire, ..Self::default() }
    }

    pub(crate) fn set(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.settings.push((name, value.into()));
        self
    }

    pub(crate) async fn start(self) -> Visionary {
        let spool = TempDir::new().expect("a temporary folder");
        let keyless = match &self.identity {
            Some(identity) => Some(KeylessAccount::start(identity).await.expect("an account without shared keys")),
            None => None,
        };
        let own = if keyless.is_none() && (self.own_account || self.queues) {
            Some(tokio::task::spawn_blocking(Azurite::start).await.expect("a thread").expect("Azurite starts"))
        } else {
            None
        };
        let openai = OpenAi::start_with(self.openai).await.expect("the stand-in for OpenAI starts");
        let mut provider = openai.base_url();
        let account = || own.as_ref().unwrap_or_else(|| azurite());
        let mut storage = if keyless.is_none() { account().connection_string() } else { String::new() };
        let lines = if self.lines {
            let lines = Lines {
                blobs: before(&mut storage, account().blob_port()).await,
                tables: before(&mut storage, account().table_port()).await,
                provider: before(&mut provider, openai.port()).await,
            };
            Some(lines)
        } else {
            None
        };
        let mut settings: Vec<(String, String)> = vec![
            ("IMAGE_CONTAINER".into(), new_container()),
            ("SPOOL_DIR".into(), spool.path().join("spool").to_str().expect("UTF-8").into()),
            // Each request makes its reservations, and only tests of a limit reach it.
            ("DAILY_IMAGE_QUOTA".into(), "100000".into()),
            ("DAILY_BUDGET_USD".into(), "100000".into()),
            ("OPENAI_BASE_URL".into(), provider),
        ];
        let access = match (&self.identity, &keyless) {
            (Some(identity), Some(keyless)) => {
                let auth = [("OPENAI_AUTH", "identity".to_owned())];
                [&identity.variables()[..], &keyless.settings(), &auth].concat()
            }
            _ => vec![("AzureWebJobsStorage", storage.clone()), ("OPENAI_API_KEY", API_KEY.to_owned())],
        };
        settings.extend(access.into_iter().map(|(name, value)| (name.to_owned(), value)));
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
            queue_storage: keyless.as_ref().map(KeylessAccount::connection_string),
            ..Options::new(root(), self.wire)
        };
        let host = FunctionsHost::start(options).await.expect("the host and the handler start");
        let client = Client::of(&host.url());
        Visionary {
            host,
            openai,
            settings,
            azurite: own,
            keyless,
            lines,
            handlers: self.handlers,
            client,
            _spool: spool,
        }
    }
}

/// The provider's key. Tests search logs and answers for it.
pub(crate) const API_KEY: &str = "sk-test-0123456789-secret";

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn handler() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_handler"))
}

#[expect(clippy::disallowed_methods, reason = "Azurite uses the real clock")]
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

    pub(crate) fn request(&self, method: Method, path: &str) -> Request {
        self.client.request(method, path)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.client.get(path).await
    }

    /// The answer of `health` once the app is healthy. On a busy machine storage may take longer than the second that
    /// `health` waits for it.
    pub(crate) async fn healthy(&self) -> Answer {
        let look = async || self.get("/api/health").await;
        eventually("the app is healthy", look, |answer| answer.json()["status"] == "ok").await
    }

    /// See [`Client::post`].
    pub(crate) fn post(&self, prompt: &str) -> Request {
        self.client.post(prompt)
    }

    /// See [`Client::post_json`].
    pub(crate) fn post_json(&self, body: &Value) -> Request {
        self.client.post_json(body)
    }

    /// See [`Client::post_raw`].
    pub(crate) fn post_raw(&self, body: &str) -> Request {
        self.client.post_raw(body)
    }

    /// A generation as the front ends request it.
    pub(crate) async fn generate(&self, prompt: &str) -> Answer {
        self.post(prompt).send().await
    }

    /// A client of one handler, without the host.
    pub(crate) fn handler(&self, index: usize) -> Client {
        Client::of(&self.host.handler_url(index).expect("the handler listens"))
    }

    /// A raw connection to the first handler, for requests that no client sends.
    pub(crate) async fn connect(&self) -> TcpStream {
        let url = reqwest::Url::parse(&self.host.handler_url(0).unwrap()).unwrap();
        TcpStream::connect(("127.0.0.1", url.port().unwrap())).await.unwrap()
    }

    /// The provider holds its answer to the next image request until the hold is released.
    pub(crate) fn hold_next_image(&self) -> Hold {
        let hold = Hold::new();
        self.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
        hold
    }

    /// The provider holds its answers to all image requests until the hold is released.
    pub(crate) fn hold_all_images(&self) -> Hold {
        let hold = Hold::new();
        self.openai.script_always(Endpoint::Images, Reply::normal().held_by(&hold));
        hold
    }

    /// Kills the first handler and starts it again.
    pub(crate) async fn restart_handler(&mut self) {
        self.host.kill_handler(0).await;
        self.host.start_handler(0).await.expect("the handler starts");
    }

    /// The gallery as `(name, url)`, in its order.
    pub(crate) async fn list(&self) -> Vec<(String, String)> {
        let answer = self.get("/api/getImages").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let images = answer.json()["imageUrls"].as_array().expect("imageUrls").clone();
        images.iter().map(|image| (text(&image["name"]), text(&image["url"]))).collect()
    }

    /// Today's sums once nothing is reserved: the app writes the outcome after its answer. All fields are
    /// null if nothing was reserved today.
    pub(crate) async fn accounted(&self) -> Value {
        eventually("nothing is reserved", async || self.today().await, is_accounted).await
    }

    /// Today's sums in the usage.
    pub(crate) async fn today(&self) -> Value {
        self.get("/api/usage?days=1").await.json()["days"][0].clone()
    }

    /// Resolves when the quota status shows this count.
    pub(crate) async fn used(&self, wanted: u64) {
        let look = async || self.get("/api/quota").await.json()["used"].clone();
        eventually(&format!("{wanted} images are used"), look, |used| *used == wanted).await;
    }

    /// The names of the files in the spool.
    pub(crate) fn spool(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.setting("SPOOL_DIR")).expect("the spool's folder");
        files.map(|file| file.expect("a file").file_name().into_string().expect("UTF-8")).collect()
    }

    /// Resolves when a paid image is in the spool.
    pub(crate) async fn spooled(&self) {
        let has_image = |files: &Vec<String>| files.iter().any(|file| file.ends_with(".image"));
        eventually("an image is in the spool", async || self.spool(), has_image).await;
    }

    /// Opens a link as a browser does.
    pub(crate) async fn open(&self, url: &str) -> Response {
        self.client.http.get(url).send().await.expect("the link answers")
    }

    pub(crate) fn setting(&self, name: &str) -> String {
        self.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).expect("it is set")
    }

    /// The same parts for a chaos run. The second value keeps the spool and the account alive.
    pub(crate) fn into_chaos(self) -> (Chaos, (TempDir, Option<Azurite>)) {
        let spool = self.setting("SPOOL_DIR").into();
        let (connection_string, container) = (self.setting("AzureWebJobsStorage"), self.setting("IMAGE_CONTAINER"));
        let Self { host, openai, handlers, azurite, _spool: held, .. } = self;
        (Chaos { host, openai, handlers, spool, connection_string, container }, (held, azurite))
    }

    /// Serves the same app from this process, with a clock that stands at `now`.
    pub(crate) async fn serve_at(&self, now: OffsetDateTime) -> Client {
        self.serve_by(Arc::new(move || now)).await
    }

    /// Serves the same app from this process, with this clock.
    pub(crate) async fn serve_by(&self, clock: Clock) -> Client {
        self.serve(&[], clock).await
    }

    /// Serves the app from this process with these settings in place of its own. An empty one is absent.
    pub(crate) async fn serve_with(&self, changes: &[(&str, &str)]) -> Client {
        self.serve(changes, Arc::new(now)).await
    }

    async fn serve(&self, changes: &[(&str, &str)], clock: Clock) -> Client {
        let own = || self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let lookup = |name: &str| {
            let mut all = changes.iter().copied().chain(own());
            all.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
        };
        let config = Config::from_vars(lookup).expect("the settings are right");
        let app = App::new(&config, clock).expect("the app starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        // The server ends with the test's runtime.
        tokio::spawn(server::run(listener, app, std::future::pending(), std::future::pending()));
        Client::of(&format!("http://{address}"))
    }
}

fn is_accounted(today: &Value) -> bool {
    today["reservedUsd"].as_f64().unwrap_or(0.0) == 0.0
}

/// A client of the host, of one handler, or of an app that this process serves.
#[derive(Clone)]
pub(crate) struct Client {
    base: String,
    http: reqwest::Client,
}

impl Client {
    pub(crate) fn of(base: &str) -> Self {
        Self { base: base.to_owned(), http: http() }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> Request {
        Request(self.http.request(method, format!("{}{path}", self.base)))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path).send().await
    }

    /// A request to generateImage with this prompt.
    pub(crate) fn post(&self, prompt: &str) -> Request {
        self.post_json(&json!({"prompt": prompt}))
    }

    /// A request to generateImage with this JSON.
    pub(crate) fn post_json(&self, body: &Value) -> Request {
        self.request(Method::POST, "/api/generateImage").json(body)
    }

    /// A request to generateImage with this body and without a content type.
    pub(crate) fn post_raw(&self, body: &str) -> Request {
        let request = self.request(Method::POST, "/api/generateImage");
        Request(request.0.body(body.to_owned()))
    }
}

/// The header of [`Request::as_user`]; a test sets it as `QUOTA_USER_HEADER`.
pub(crate) const USER_HEADER: &str = "x-user";

/// One request, put together step by step.
#[must_use]
pub(crate) struct Request(RequestBuilder);

impl Request {
    /// Sets the header; an earlier value is replaced.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).expect("a header's name");
        let value = HeaderValue::try_from(value).expect("a header's value");
        Self(self.0.headers(HeaderMap::from_iter([(name, value)])))
    }

    /// The `Idempotency-Key`.
    pub(crate) fn key(self, key: &str) -> Self {
        self.header("idempotency-key", key)
    }

    /// `Prefer`, RFC 7240.
    pub(crate) fn prefer(self, preference: &str) -> Self {
        self.header("prefer", preference)
    }

    /// The user to whom the app counts the image, where [`USER_HEADER`] is set.
    #[expect(clippy::wrong_self_convention, reason = "a builder's step, not a conversion")]
    pub(crate) fn as_user(self, user: &str) -> Self {
        self.header(USER_HEADER, user)
    }

    pub(crate) fn accept(self, content_type: &str) -> Self {
        self.header("accept", content_type)
    }

    pub(crate) fn accept_json(self) -> Self {
        self.accept("application/json")
    }

    /// Asks for server-sent events.
    pub(crate) fn events(self) -> Self {
        self.accept("text/event-stream")
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        Self(self.0.json(body))
    }

    pub(crate) fn query(self, parameters: &[(&str, &str)]) -> Self {
        Self(self.0.query(parameters))
    }

    /// Sends the request and reads the whole answer.
    pub(crate) async fn send(self) -> Answer {
        Answer::of(self.response().await).await
    }

    /// Sends the request and reads the answer's events one by one.
    pub(crate) async fn stream(self) -> Events {
        Events::of(self.response().await)
    }

    /// Sends the request and leaves the body to the test.
    pub(crate) async fn response(self) -> Response {
        self.attempt().await.expect("an answer")
    }

    /// Sends the request to a server that may die before it answers.
    pub(crate) async fn attempt(self) -> reqwest::Result<Response> {
        let (client, request) = self.0.build_split();
        let request = request?;
        let method = request.method().clone();
        let mut response = client.execute(request).await?;
        // Whatever reads the body holds it to the contract, too.
        let expected = contract::check(&method, &response);
        response.extensions_mut().insert(expected);
        Ok(response)
    }

    /// Sends the request in a task of its own.
    pub(crate) fn spawn(self) -> JoinHandle<Answer> {
        tokio::spawn(self.send())
    }
}

/// Looks again and again until the value is the expected one, and returns it.
///
/// # Panics
///
/// After three minutes, with the description and the last value.
pub(crate) async fn eventually<T: Debug>(
    what: &str,
    look: impl AsyncFnMut() -> T,
    is_reached: impl Fn(&T) -> bool,
) -> T {
    eventually_within(Duration::from_secs(180), what, look, is_reached).await
}

/// [`eventually`] with another bound.
pub(crate) async fn eventually_within<T: Debug>(
    bound: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> T,
    is_reached: impl Fn(&T) -> bool,
) -> T {
    let mut last = None;
    let looking = async {
        loop {
            let seen = look().await;
            if is_reached(&seen) {
                return seen;
            }
            last = Some(seen);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = tokio::time::timeout(bound, looking).await;
    ended.unwrap_or_else(|_| match last {
        Some(last) => panic!("waited {bound:?} until {what}; the last value was {last:?}"),
        None => panic!("waited {bound:?} until {what}; no value was seen"),
    })
}

#[tokio::test]
#[should_panic(expected = "until the number is two; the last value was 1")]
async fn eventually_panics_with_its_description_and_the_last_value() {
    eventually_within(Duration::from_millis(50), "the number is two", async || 1, |number| *number == 2).await;
}

/// The beginning of an answer's first line, such as `HTTP/1.1 200`.
pub(crate) async fn status_line(connection: &mut TcpStream) -> String {
    let mut line = [0; 12];
    connection.read_exact(&mut line).await.unwrap();
    String::from_utf8(line.to_vec()).unwrap()
}

/// The value with `[name]` in place of each of these fields, which differ from run to run. A field is a
/// name, or a path as in `result/name`.
pub(crate) fn masked(mut value: Value, fields: &[&str]) -> Value {
    for field in fields {
        let whole = value.to_string();
        let slot = value.pointer_mut(&format!("/{field}")).filter(|slot| !slot.is_null());
        let name = field.rsplit('/').next().unwrap_or_default();
        *slot.unwrap_or_else(|| panic!("no {field} in {whole}")) = json!(format!("[{name}]"));
    }
    value
}

/// An answer of the text model.
pub(crate) fn says(text: &str) -> Reply {
    let content = json!([{"type": "output_text", "text": text}]);
    Reply::json(200, &json!({"status": "completed", "output": [{"type": "message", "content": content}]}))
}

/// An answer with its whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn of(response: Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let expected = response.extensions().get::<Expected>().cloned();
        let answer = Self { status, headers, body: response.text().await.expect("a body") };
        // A compressed body is for the test to read.
        if let Some(expected) = expected.filter(|_| answer.header("content-encoding").is_empty()) {
            expected.check(&answer.body);
        }
        answer
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The status and the error code, which is empty for a success.
    pub(crate) fn status_and_code(&self) -> (u16, &str) {
        (self.status, self.header("x-error-code"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.body))
    }
}

/// The caption in an image's name, as the front ends read it.
pub(crate) fn caption(name: &str) -> &str {
    name.split('_').next().unwrap_or_default().split('.').next().unwrap_or_default()
}

/// The Unix time in an image's name, in milliseconds, as the front ends read it.
pub(crate) fn timestamp(name: &str) -> i64 {
    let last = name.split('_').next_back().unwrap_or_default();
    last.split('.').next().unwrap_or_default().parse().unwrap_or_else(|_| panic!("no time in {name}"))
}
