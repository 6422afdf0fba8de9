//! A stand-in for the Azure Functions host: it reads the app's own `host.json` and `function.json`
//! files, runs its handler, and passes requests on as the real one does.
//!
//! The real one: <https://github.com/Azure/azure-functions-host>.

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
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use manifest::{Function, Manifest};
use process::{Handler, Launch};
use trigger::Handlers;

use crate::queue::Queue;

/// How requests reach the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// `enableProxyingHttpRequest`: current hosts.
    Proxying,
    /// `enableForwardingHttpRequest`: older hosts.
    Forwarding,
}

/// What the host is started with.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder of the app.
    pub root: PathBuf,
    /// Overrides host.json's `defaultExecutablePath`, as an app setting can.
    pub handler: Option<PathBuf>,
    /// How requests reach the handler.
    pub wire: Wire,
    /// The app settings, which become the handler's environment.
    pub settings: Vec<(String, String)>,
    /// On 127.0.0.1; 0 takes a free one.
    pub port: u16,
    /// Whether the handler's lines are printed.
    pub echo: bool,
    /// `Host.CORS`: allowed origins, or `*`.
    pub cors: Vec<String>,
    /// The function keys; without any they are not checked, as Core Tools does not.
    pub keys: Vec<String>,
    /// How many handlers are alive at once, as while a host restarts; they take turns.
    pub handlers: usize,
    /// Whether queue triggers are driven; an account of its own is what they want then.
    pub queues: bool,
}

impl Options {
    /// For the app in `root`, on a free port, quiet.
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
        }
    }
}

/// How the host files a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// From stdout.
    Information,
    /// From stderr, with "warn" in it.
    Warning,
    /// From stderr.
    Error,
}

/// A line that the handler wrote.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// As the host files it.
    pub level: Level,
    /// Without its end.
    pub text: String,
}

/// A running host. It and its handlers end when this is dropped, and when our process ends without
/// dropping it.
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
    cors: Vec<String>,
    keys: Vec<String>,
    handlers: Arc<Handlers>,
    invocations: AtomicU64,
}

impl FunctionsHost {
    /// Starts the handlers, waits until they are ready, then listens.
    ///
    /// # Errors
    /// If the app's files are wrong, or a handler does not get ready; with its last words.
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
            .with_context(|| format!("port {} cannot be bound: is another host running?", options.port))?;
        let port = listener.local_addr()?.port();
        let places = Arc::new(Handlers {
            states: handlers.iter().map(|handler| handler.state.clone()).collect(),
            turn: AtomicUsize::new(0),
        });
        let mut listeners = JoinSet::new();
        for trigger in manifest.triggers.iter().filter(|_| options.queues) {
            let connection = settings.get(&trigger.connection).map_or("", String::as_str);
            let queue = Queue::open(connection, &trigger.queue).context(trigger.connection.clone())?;
            let poison = Queue::open(connection, &format!("{}-poison", trigger.queue))?;
            let (places, written) = (Arc::clone(&places), written.clone());
            listeners.spawn(trigger::listen(trigger.clone(), (queue, poison), manifest.queues, places, written));
        }
        let shared = Arc::new(Shared {
            manifest,
            wire: options.wire,
            cors: options.cors,
            keys: options.keys,
            handlers: places,
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

    /// Where clients find it.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Where the host finds a handler.
    pub fn handler_url(&self, index: usize) -> Option<String> {
        let port = self.handlers.get(index)?.state.borrow().port?;
        Some(format!("http://127.0.0.1:{port}"))
    }

    /// A handler's process id.
    pub fn handler_pid(&self, index: usize) -> Option<u32> {
        self.handlers.get(index)?.state.borrow().pid
    }

    /// The names of the functions that take requests.
    pub fn functions(&self) -> Vec<&str> {
        self.shared.manifest.functions.iter().map(Function::name).collect()
    }

    /// SIGKILL, without warning, as the platform does it.
    pub async fn kill_handler(&self, index: usize) {
        if let Some(handler) = self.handlers.get(index) {
            handler.kill().await;
        }
    }

    /// SIGTERM, as the platform asks a process to stop; its end is not waited for.
    pub fn terminate_handler(&self, index: usize) {
        if let Some(pid) = self.handler_pid(index) {
            process::signal(pid, "TERM");
        }
    }

    /// Starts a handler that was killed or ended.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn start_handler(&mut self, index: usize) -> anyhow::Result<()> {
        self.handlers.get_mut(index).context("there is no such handler")?.start_again().await
    }

    /// What a handler's ended processes exited with; `None` where a signal ended one.
    pub fn exits(&self, index: usize) -> Vec<Option<i32>> {
        self.handlers.get(index).map(|handler| handler.state.borrow().exits.clone()).unwrap_or_default()
    }

    /// Resolves when so many of a handler's processes have ended by themselves.
    pub async fn wait_for_exits(&self, index: usize, count: usize) {
        if let Some(handler) = self.handlers.get(index) {
            // Its supervisor, which reports, lives in `self`.
            let _ = handler.state.clone().wait_for(|state| state.exits.len() >= count).await;
        }
    }

    /// Resolves when a handler takes requests.
    pub async fn wait_until_ready(&self, index: usize) {
        if let Some(handler) = self.handlers.get(index) {
            let _ = handler.state.clone().wait_for(|state| state.port.is_some()).await;
        }
    }

    /// Every line that the handlers wrote so far.
    pub fn logs(&self) -> Vec<LogLine> {
        self.logs.borrow().clone()
    }

    /// Resolves when a line has been written for which `wanted` holds.
    pub async fn wait_for_log(&self, wanted: impl Fn(&LogLine) -> bool) {
        self.wait_for_logs(1, wanted).await;
    }

    /// Resolves when so many such lines have been written.
    pub async fn wait_for_logs(&self, count: usize, wanted: impl Fn(&LogLine) -> bool) {
        // The handlers' supervisors, which write, live in `self`.
        let enough = |lines: &Vec<LogLine>| lines.iter().filter(|line| wanted(line)).count() >= count;
        let _ = self.logs.clone().wait_for(enough).await;
    }

    /// Ctrl-C: asks the handlers to stop. Their exit statuses; `None` where one had to be killed.
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
    let origin = request.headers().get(header::ORIGIN).filter(|origin| shared.allows(origin)).cloned();
    if let Some(origin) = &origin
        && let Some(preflight) = preflight(&request, origin)
    {
        return preflight;
    }
    let mut response = shared.invoke(request, client).await;
    if let Some(origin) = origin {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.headers_mut().append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

impl Shared {
    async fn invoke(&self, request: Request, client: SocketAddr) -> Response {
        let path = request.uri().path();
        if path == "/" && request.method() == Method::GET {
            return "The Functions host is up and running.".into_response();
        }
        let Some(function) = self.manifest.find(request.method().as_str(), path) else {
            return StatusCode::NOT_FOUND.into_response();
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

    fn has_key(&self, query: Option<&str>, headers: &HeaderMap) -> bool {
        let in_header = headers.get("x-functions-key").and_then(|key| key.to_str().ok());
        let mut parameters = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        let in_query = parameters.find(|(name, _)| name == "code").map(|(_, key)| key);
        self.keys.iter().any(|key| in_header == Some(key) || in_query.as_deref() == Some(key))
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.cors.iter().any(|allowed| allowed == "*" || allowed.as_bytes() == origin.as_bytes())
    }
}

/// The handler never sees a preflight.
fn preflight(request: &Request, origin: &HeaderValue) -> Option<Response> {
    const ALLOW_METHODS: HeaderName = header::ACCESS_CONTROL_ALLOW_METHODS;
    let method = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    if request.method() != Method::OPTIONS {
        return None;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(ALLOW_METHODS, method.clone());
    if let Some(wanted) = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    Some(response)
}
