//! A stand-in for the [Azure Functions host](https://github.com/Azure/azure-functions-host). It reads the
//! app's `host.json` and `function.json` files, runs the custom handler, and passes HTTP requests and
//! queue messages to it as the real host does.

mod manifest;
mod process;
mod proxy;
mod trigger;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use anyhow::Context as _;
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use manifest::{Function, Manifest};
use process::{Handler, Launch};
use trigger::Handlers;

use crate::LONGEST_WAIT;
use crate::queue::Queue;

/// The mode in which HTTP requests reach the handler, named after its flag in `host.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// `enableProxyingHttpRequest`, the mode of current hosts: requests and answers are streamed.
    Proxying,
    /// `enableForwardingHttpRequest`, the mode of older hosts: requests and answers are buffered.
    Forwarding,
}

/// How the host is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of the app, with `host.json`.
    pub root: PathBuf,
    /// The handler's executable, instead of `defaultExecutablePath` in `host.json`.
    pub handler: Option<PathBuf>,
    /// The mode in which HTTP requests reach the handler.
    pub wire: Wire,
    /// The app settings, which become the handler's environment.
    pub settings: Vec<(String, String)>,
    /// The port on 127.0.0.1; 0 selects a free port.
    pub port: u16,
    /// Whether the lines that the handlers write are printed to stdout.
    pub echo: bool,
    /// The allowed CORS origins, or `*` (`Host.CORS` in `local.settings.json`).
    pub cors: Vec<String>,
    /// The function keys. An empty list disables the check, as in Core Tools.
    pub keys: Vec<String>,
    /// The number of handlers. Requests go to them round-robin, as while a host restarts.
    pub handlers: usize,
    /// Whether queue triggers run. Use a separate storage account then, because queue names are fixed.
    pub queues: bool,
    /// The connection string of the queues. `None` takes it from the app settings, which have none in an app that
    /// opens its account with an identity.
    pub queue_storage: Option<String>,
}

impl Options {
    /// Options for the app in `root`: a free port, one handler, no keys, no queue triggers, no output.
    pub fn new(root: PathBuf, wire: Wire) -> Self {
        Self {
            root,
            handler: None,
            wire,
            settings: Vec::new(),
            port: 0,
            echo: false,
            cors: Vec::new(),
            keys: Vec::new(),
            handlers: 1,
            queues: false,
            queue_storage: None,
        }
    }
}

/// The log level that the host gives to a line of the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A line on stdout.
    Information,
    /// A line on stderr that contains "warn", in any case.
    Warning,
    /// Any other line on stderr.
    Error,
}

/// A line that the handler wrote.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// The log level.
    pub level: Level,
    /// The line without its line break.
    pub text: String,
}

/// A running host. The host and its handlers end when the value is dropped, or when this process ends
/// without dropping it.
#[derive(Debug)]
pub struct FunctionsHost {
    shared: Arc<Shared>,
    handlers: Vec<Handler>,
    logs: watch::Receiver<Vec<LogLine>>,
    port: u16,
    _stop: oneshot::Sender<()>,
    _listeners: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    manifest: Manifest,
    wire: Wire,
    has_homepage: bool,
    cors: Vec<String>,
    keys: Vec<String>,
    handlers: Arc<Handlers>,
    invocations: AtomicU64,
}

impl FunctionsHost {
    /// Starts the handlers, waits until they are ready, and then listens.
    ///
    /// # Errors
    /// Fails if the app's files are invalid, the port is in use, or a handler does not become ready. If a
    /// handler ends early, the error contains what it wrote to stderr.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let manifest = Manifest::read(&options.root, options.wire, &options.settings)?;
        let launch = Launch {
            executable: options.handler.unwrap_or_else(|| options.root.join(&manifest.executable)),
            root: options.root,
            settings: options.settings,
            echo: options.echo,
        };
        let settings: HashMap<String, String> = launch.settings.iter().cloned().collect();
        let (written, logs) = watch::channel(Vec::new());
        let mut handlers = Vec::new();
        for _ in 0..options.handlers {
            handlers.push(Handler::start(launch.clone(), written.clone()).await?);
        }
        let listener = TcpListener::bind(("127.0.0.1", options.port))
            .await
            .with_context(|| format!("cannot listen on port {}; another host may be running", options.port))?;
        let port = listener.local_addr()?.port();
        let targets = Arc::new(Handlers {
            states: handlers.iter().map(|handler| handler.state.clone()).collect(),
            turn: AtomicUsize::new(0),
        });
        let mut listeners = JoinSet::new();
        for trigger in manifest.triggers.iter().filter(|_| options.queues) {
            let of_app = settings.get(&trigger.connection);
            let connection = options.queue_storage.as_ref().or(of_app).map_or("", String::as_str);
            let queue = Queue::open(connection, &trigger.queue).context(trigger.connection.clone())?;
            let poison = Queue::open(connection, &format!("{}-poison", trigger.queue))?;
            let (targets, written) = (Arc::clone(&targets), written.clone());
            listeners.spawn(trigger::listen(trigger.clone(), (queue, poison), manifest.queues, targets, written));
        }
        let shared = Arc::new(Shared {
            manifest,
            has_homepage: !settings
                .get("AzureWebJobsDisableHomepage")
                .is_some_and(|value| value.eq_ignore_ascii_case("true")),
            wire: options.wire,
            cors: options.cors,
            keys: options.keys,
            handlers: targets,
            invocations: AtomicU64::new(1),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            tokio::select! { _ = axum::serve(listener, service) => {}, _ = stopped => {} }
        });
        Ok(Self { shared, handlers, logs, port, _stop: stop, _listeners: listeners })
    }

    /// The base URL of the host.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The base URL of a running handler.
    pub fn handler_url(&self, index: usize) -> Option<String> {
        let port = self.handlers.get(index)?.state.borrow().port?;
        Some(format!("http://127.0.0.1:{port}"))
    }

    /// The process id of a running handler.
    pub fn handler_pid(&self, index: usize) -> Option<u32> {
        self.handlers.get(index)?.state.borrow().pid
    }

    /// The names of the functions with an HTTP trigger, in the order in which they are matched.
    pub fn functions(&self) -> Vec<&str> {
        self.shared.manifest.functions.iter().map(Function::name).collect()
    }

    /// The paths of the functions with an HTTP trigger.
    pub fn paths(&self) -> Vec<String> {
        self.shared.manifest.functions.iter().map(Function::path).collect()
    }

    /// Kills a handler with SIGKILL, as the platform may do at any time. The host does not restart it.
    pub async fn kill_handler(&self, index: usize) {
        if let Some(handler) = self.handlers.get(index) {
            handler.kill().await;
        }
    }

    /// Sends SIGTERM to a handler, as the platform does to stop it, and does not wait for its end.
    pub fn terminate_handler(&self, index: usize) {
        if let Some(pid) = self.handler_pid(index) {
            process::signal(pid, "TERM");
        }
    }

    /// Starts a handler that was killed or has ended, and waits until it is ready.
    ///
    /// # Errors
    /// Fails if the handler does not become ready.
    pub async fn start_handler(&mut self, index: usize) -> anyhow::Result<()> {
        self.handlers.get_mut(index).context("there is no such handler")?.start_again().await
    }

    /// The exit codes of a handler's processes that ended by themselves; `None` for one that a signal ended.
    pub fn exits(&self, index: usize) -> Vec<Option<i32>> {
        self.handlers.get(index).map(|handler| handler.state.borrow().exits.clone()).unwrap_or_default()
    }

    /// Waits until `count` processes of a handler have ended by themselves.
    pub async fn wait_for_exits(&self, index: usize, count: usize) {
        if let Some(handler) = self.handlers.get(index) {
            // The wait cannot fail: the supervisor, which sends, lives as long as `self`.
            let _ = handler.state.clone().wait_for(|state| state.exits.len() >= count).await;
        }
    }

    /// Waits until a handler accepts requests.
    pub async fn wait_until_ready(&self, index: usize) {
        if let Some(handler) = self.handlers.get(index) {
            let _ = handler.state.clone().wait_for(|state| state.port.is_some()).await;
        }
    }

    /// All lines that the handlers have written.
    pub fn logs(&self) -> Vec<LogLine> {
        self.logs.borrow().clone()
    }

    /// Waits until a handler has written a line that matches `wanted`.
    pub async fn wait_for_log(&self, wanted: impl Fn(&LogLine) -> bool) {
        self.wait_for_logs(1, wanted).await;
    }

    /// Waits until the handlers have written `count` lines that match `wanted`.
    ///
    /// # Panics
    /// After [`LONGEST_WAIT`], with the number of lines that match and the last lines.
    #[expect(clippy::panic, reason = "a test that waits in vain fails and says what it saw")]
    pub async fn wait_for_logs(&self, count: usize, wanted: impl Fn(&LogLine) -> bool) {
        let matching = |lines: &Vec<LogLine>| lines.iter().filter(|line| wanted(line)).count();
        let mut logs = self.logs.clone();
        let waited = logs.wait_for(|lines| matching(lines) >= count);
        if tokio::time::timeout(LONGEST_WAIT, waited).await.is_err() {
            let lines = self.logs();
            let last: Vec<&str> = lines.iter().rev().take(10).map(|line| line.text.as_str()).collect();
            panic!(
                "waited {LONGEST_WAIT:?} for {count} log lines; {} matched; the last lines: {last:#?}",
                matching(&lines)
            );
        }
    }

    /// Stops the handlers with SIGINT, as Ctrl-C does. Returns their exit statuses; `None` for a handler
    /// that did not stop in time and was killed.
    pub async fn stop(self) -> Vec<Option<ExitStatus>> {
        let mut statuses = Vec::new();
        for handler in &self.handlers {
            statuses.push(handler.interrupt().await);
        }
        statuses
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let origin = request.headers().get(header::ORIGIN).and_then(|origin| shared.allowed_origin(origin));
    let mut response = if shared.cors.is_empty() || !is_preflight(&request) {
        shared.invoke(request, client).await
    } else {
        preflight(&request, origin.is_some())
    };
    let headers = response.headers_mut();
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if shared.cors.len() > 1 {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
    }
    response
}

impl Shared {
    async fn invoke(&self, request: Request, client: SocketAddr) -> Response {
        let path = request.uri().path();
        let Some(function) = self.manifest.find(request.method().as_str(), path) else {
            return if path == "/" { self.homepage() } else { StatusCode::NOT_FOUND.into_response() };
        };
        if function.needs_key && !self.keys.is_empty() && !self.has_key(request.uri().query(), request.headers()) {
            return StatusCode::UNAUTHORIZED.into_response();
        }
        let Some(port) = self.handlers.next() else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        let number = self.invocations.fetch_add(1, Ordering::Relaxed);
        let id = format!("00000000-0000-4000-8000-{number:012x}");
        match self.wire {
            Wire::Proxying => proxy::proxy(request, client, port, &id).await,
            Wire::Forwarding => proxy::forward(request, client, port, &id).await,
        }
    }

    /// The host's own answer at `/`, where no function has answered (`HomepageMiddleware`).
    fn homepage(&self) -> Response {
        if self.has_homepage {
            axum::response::Html("<!DOCTYPE html><title>Your app is up and running</title>").into_response()
        } else {
            StatusCode::NO_CONTENT.into_response()
        }
    }

    fn has_key(&self, query: Option<&str>, headers: &HeaderMap) -> bool {
        let in_header = headers.get("x-functions-key").and_then(|key| key.to_str().ok());
        let mut parameters = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let in_query = parameters.find(|(name, _)| name == "code").map(|(_, key)| key);
        self.keys.iter().any(|key| in_header == Some(key) || in_query.as_deref() == Some(key))
    }

    /// The value of `Access-Control-Allow-Origin` for a page of this origin; `None` if it may not read the answer.
    fn allowed_origin(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.cors.iter().any(|allowed| allowed == "*") {
            return Some(HeaderValue::from_static("*"));
        }
        self.cors.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
    }
}

/// Whether a browser asks for permission to send another request.
fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ORIGIN)
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight request, which the handler does not receive: 204 from any origin, and the permission
/// for allowed ones only. Every method and every header is allowed, as the host's `CorsOptionsSetup` says
/// (<https://github.com/Azure/azure-functions-host/blob/dev/src/WebJobs.Script.WebHost/Configuration/CorsOptionsSetup.cs>).
fn preflight(request: &Request, is_allowed: bool) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let permissions = [
        (header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_ALLOW_METHODS),
        (header::ACCESS_CONTROL_REQUEST_HEADERS, header::ACCESS_CONTROL_ALLOW_HEADERS),
    ];
    for (asked, allowed) in permissions.into_iter().filter(|_| is_allowed) {
        if let Some(value) = request.headers().get(asked) {
            response.headers_mut().insert(allowed, value.clone());
        }
    }
    response
}
