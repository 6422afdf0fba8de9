//! A stand-in for the [OpenAI API](https://platform.openai.com/docs/api-reference) on a real socket.
//!
//! The stand-in refuses requests that the API refuses, gives scripted answers and faults, and records
//! every request and every image.

mod access;
mod images;
mod script;
mod text;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use images::Drawn;
use script::Fault;
pub use script::{Hold, Reply};

use super::identity::Identity;

/// The endpoints of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// `POST /images/generations`
    Images,
    /// `POST /completions`
    Completions,
    /// `POST /chat/completions`
    ChatCompletions,
    /// `POST /responses`
    Responses,
    /// `POST /moderations`
    Moderations,
    /// `GET /models` and `/models/{id}`
    Models,
    /// `GET` of the image URL in an answer of dall-e
    Files,
}

/// How the stand-in is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// How images are made.
    pub painting: Painting,
    /// The time before an image is answered.
    pub delay: Duration,
    /// The port on 127.0.0.1; 0 selects a free port.
    pub port: u16,
    /// The ids of the models that exist.
    pub models: Vec<String>,
    /// The shutdown dates of models by id, such as `2026-12-01`.
    pub shutdown_dates: HashMap<String, String>,
    /// The provider that the stand-in imitates.
    pub dialect: Dialect,
    /// With an identity, Azure OpenAI takes its tokens only (`disableLocalAuth`).
    pub identity: Option<Identity>,
}

/// The providers of the API that differ in ways that the app must handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI: the key is a bearer token.
    OpenAi,
    /// Azure OpenAI: the key is in the header `api-key`, `?api-version=` is required, there is no webp, and
    /// the code of a content refusal is `contentFilter`.
    Azure,
    /// A compatible server: it has no list of models and no event streams for images.
    Compatible,
}

/// How the stand-in makes images.
#[derive(Debug, Clone)]
pub enum Painting {
    /// Small images that all differ and are fast to make.
    Sketch,
    /// An image of the requested size, drawn by [`artist`](super::artist).
    Artist,
    /// Always these bytes, whatever the requested size and format.
    Fixed(Bytes),
}

impl Default for Options {
    fn default() -> Self {
        let models = [
            "dall-e-3", // today only on compatible servers
            "gpt-image-1-mini",
            "gpt-image-1.5",
            "gpt-image-2",
            "gpt-image-2.5-flare",
            "gpt-image-2.5-sunburst",
            "gpt-image-2.6-flare",
            "gpt-image-2.6-sunburst",
            "gpt-4.1-mini",
            "gpt-6-luna",
            "gpt-3.5-turbo-instruct", // today only on compatible servers
        ];
        Self {
            painting: Painting::Sketch,
            delay: Duration::ZERO,
            port: 0,
            models: models.map(str::to_owned).to_vec(),
            shutdown_dates: HashMap::new(),
            dialect: Dialect::OpenAi,
            identity: None,
        }
    }
}

/// A request that the stand-in received, answered or not.
#[derive(Debug, Clone)]
pub struct Received {
    /// The endpoint of the request.
    pub endpoint: Endpoint,
    /// The path and the query.
    pub uri: String,
    /// The request's headers.
    pub headers: HeaderMap,
    /// The JSON body; null if there was none.
    pub body: Value,
}

/// A running stand-in. It stops when the last clone is dropped.
#[derive(Clone)]
pub struct OpenAi {
    server: Arc<Server>,
    _stop: Arc<watch::Sender<()>>,
}

impl OpenAi {
    /// Starts a stand-in with the default options.
    ///
    /// # Errors
    /// Fails if no port can be bound.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts a stand-in.
    ///
    /// # Errors
    /// Fails if the port cannot be bound.
    pub async fn start_with(options: Options) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", options.port))
            .await
            .context("the stand-in for OpenAI cannot bind its port")?;
        let server = Arc::new(Server {
            port: listener.local_addr()?.port(),
            options,
            scripts: Mutex::default(),
            received: watch::Sender::new(Vec::new()),
            drawn: Mutex::default(),
            files: Mutex::default(),
            counter: AtomicU64::new(0),
        });
        let (stop, stopped) = watch::channel(());
        tokio::spawn(accept(listener, Arc::clone(&server), stopped));
        Ok(Self { server, _stop: Arc::new(stop) })
    }

    /// The value for the setting `OPENAI_BASE_URL`.
    pub fn base_url(&self) -> String {
        let path = match self.server.options.dialect {
            Dialect::OpenAi | Dialect::Compatible => "v1",
            Dialect::Azure => "openai/v1/?api-version=preview",
        };
        format!("http://127.0.0.1:{}/{path}", self.server.port)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port
    }

    /// Sets the reply to the next request to `endpoint`. Several calls form a queue.
    pub fn script(&self, endpoint: Endpoint, reply: Reply) {
        locked(&self.server.scripts).entry(endpoint).or_default().next.push_back(reply);
    }

    /// Sets the reply to every request to `endpoint` once the queue of [`Self::script`] is empty.
    pub fn script_always(&self, endpoint: Endpoint, reply: Reply) {
        locked(&self.server.scripts).entry(endpoint).or_default().always = Some(reply);
    }

    /// All requests to `endpoint` so far, including the refused ones.
    pub fn requests(&self, endpoint: Endpoint) -> Vec<Received> {
        let received = self.server.received.borrow();
        received.iter().filter(|request| request.endpoint == endpoint).cloned().collect()
    }

    /// Waits until `count` requests to `endpoint` have arrived.
    pub async fn wait_for_requests(&self, endpoint: Endpoint, count: usize) {
        let mut received = self.server.received.subscribe();
        let enough = |all: &Vec<Received>| all.iter().filter(|one| one.endpoint == endpoint).count() >= count;
        // The wait cannot fail: `self` owns the sender.
        let _ = received.wait_for(enough).await;
    }

    /// All images that were drawn, delivered or not. A provider charges for each of them.
    pub fn images_drawn(&self) -> Vec<Drawn> {
        locked(&self.server.drawn).clone()
    }
}

#[derive(Default)]
struct Script {
    next: VecDeque<Reply>,
    always: Option<Reply>,
}

struct Server {
    options: Options,
    port: u16,
    scripts: Mutex<HashMap<Endpoint, Script>>,
    received: watch::Sender<Vec<Received>>,
    drawn: Mutex<Vec<Drawn>>,
    files: Mutex<HashMap<String, Bytes>>,
    counter: AtomicU64,
}

/// The error answer to a request that the real API refuses.
struct Refusal {
    status: u16,
    kind: &'static str,
    code: &'static str,
    param: Option<String>,
    message: String,
}

/// The error that makes the server close a connection instead of answering.
#[derive(Debug, Clone, Copy)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the script closes the connection")
    }
}

impl std::error::Error for Cut {}

async fn accept(listener: TcpListener, server: Arc<Server>, mut stopped: watch::Receiver<()>) {
    loop {
        let stream = tokio::select! {
            Ok((stream, _)) = listener.accept() => stream,
            _ = stopped.changed() => return,
        };
        let (server, mut stopped) = (Arc::clone(&server), stopped.clone());
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request: hyper::Request<Incoming>| {
                let server = Arc::clone(&server);
                // A separate task, because a provider draws and charges even if the client disconnects.
                let work = tokio::spawn(async move { server.answer(request.map(Body::new)).await });
                async move { work.await.unwrap_or(Err(Cut)) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! { _ = connection => {}, _ = stopped.changed() => {} }
        });
    }
}

impl Server {
    async fn answer(&self, request: Request) -> Result<Response, Cut> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, 1024 * 1024).await.unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let Some(endpoint) = endpoint(&parts.method, &path) else {
            return Ok(Refusal::not_found().respond());
        };
        let received = Received {
            endpoint,
            uri: parts.uri.to_string(),
            headers: parts.headers.clone(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
        };
        self.received.send_modify(|all| all.push(received.clone()));
        let reply = self.next_reply(endpoint).unwrap_or_else(Reply::normal);
        if endpoint == Endpoint::Images && received.body["stream"] == true && reply.canned.is_none() {
            return Ok(match self.normal(&received, &path) {
                Ok(image) => images::stream(&received.body, image, reply, self.options.delay),
                Err(refusal) => refusal.respond(),
            });
        }
        if endpoint == Endpoint::Images {
            tokio::time::sleep(self.options.delay).await;
        }
        tokio::time::sleep(reply.delay).await;
        if let Some(hold) = &reply.hold {
            hold.wait().await;
        }
        match reply.fault {
            Fault::Hang => std::future::pending().await,
            Fault::CutBeforeAnswer if reply.canned.is_some() => return Err(Cut),
            _ => {}
        }
        let mut response = match reply.canned {
            Some((status, content_type, body)) => {
                (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
            }
            None => match (endpoint, self.normal(&received, &path)) {
                (Endpoint::Files, _) => self.file(&path),
                (_, Ok(mut value)) => {
                    if let Some(patch) = &reply.patch {
                        patch(&mut value);
                    }
                    axum::Json(value).into_response()
                }
                (_, Err(refusal)) => refusal.respond(),
            },
        };
        response.headers_mut().extend(reply.headers);
        if let Ok(id) = format!("req_{}", self.next_number()).parse() {
            response.headers_mut().insert("x-request-id", id);
        }
        match reply.fault {
            Fault::None | Fault::Hang => Ok(response),
            Fault::CutBeforeAnswer => Err(Cut),
            Fault::CutAfterHeaders => cut_after(response, |_| 0).await,
            Fault::Endless => Ok(endless(response)),
            Fault::CutInsideBody => cut_after(response, |length| length / 2).await,
        }
    }

    /// The answer of the API without a script.
    fn normal(&self, request: &Received, path: &str) -> Result<Value, Refusal> {
        if request.endpoint == Endpoint::Files {
            return Ok(Value::Null);
        }
        access::check(&self.options, request)?;
        if request.endpoint == Endpoint::Models {
            let id = path.split("/models/").nth(1);
            return match (self.options.dialect, id) {
                (Dialect::OpenAi, _) => text::models(self, id),
                // Azure OpenAI lists models, but requests name deployments, which are not in the list.
                (Dialect::Azure, Some(id)) => Err(Refusal::model_not_found(id)),
                (Dialect::Azure | Dialect::Compatible, _) => Err(Refusal::not_found()),
            };
        }
        let json = request
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        let (true, Value::Object(body)) = (json, &request.body) else {
            return Err(Refusal {
                status: 400,
                kind: "invalid_request_error",
                code: "invalid_json",
                param: None,
                message: "We could not parse the JSON body of your request.".to_owned(),
            });
        };
        match request.endpoint {
            Endpoint::Images => images::generate(self, body),
            Endpoint::Responses => text::responses(self, body),
            Endpoint::ChatCompletions => text::chat(self, body),
            Endpoint::Completions => text::completions(self, body),
            Endpoint::Moderations => text::moderations(body),
            Endpoint::Models | Endpoint::Files => Ok(Value::Null),
        }
    }

    fn next_reply(&self, endpoint: Endpoint) -> Option<Reply> {
        let mut scripts = locked(&self.scripts);
        let script = scripts.entry(endpoint).or_default();
        script.next.pop_front().or_else(|| script.always.clone())
    }

    /// The request's model, if it exists.
    fn known_model<'a>(&self, body: &'a Map<String, Value>) -> Result<&'a str, Refusal> {
        let model = body.get("model").and_then(Value::as_str).ok_or_else(|| Refusal::missing("model"))?;
        let known = self.options.models.iter().any(|known| known == model);
        if known { Ok(model) } else { Err(Refusal::model_not_found(model)) }
    }

    fn next_number(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    /// Records an image and returns the number of images so far.
    fn remember_drawn(&self, drawn: Drawn) -> usize {
        let mut all = locked(&self.drawn);
        all.push(drawn);
        all.len()
    }

    /// Serves an image below `/files/` and returns its URL.
    fn offer_file(&self, number: usize, bytes: Bytes) -> String {
        let path = format!("/files/{number}.png");
        locked(&self.files).insert(path.clone(), bytes);
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn file(&self, path: &str) -> Response {
        match locked(&self.files).get(path) {
            Some(bytes) => ([(header::CONTENT_TYPE, "image/png")], bytes.clone()).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }
}

fn endpoint(method: &Method, path: &str) -> Option<Endpoint> {
    let (_, below) = path.split_once("/v1/").unwrap_or(("", path));
    match (method.as_str(), below) {
        ("POST", "images/generations") => Some(Endpoint::Images),
        ("POST", "completions") => Some(Endpoint::Completions),
        ("POST", "chat/completions") => Some(Endpoint::ChatCompletions),
        ("POST", "responses") => Some(Endpoint::Responses),
        ("POST", "moderations") => Some(Endpoint::Moderations),
        ("GET", below) if below == "models" || below.starts_with("models/") => Some(Endpoint::Models),
        ("GET", below) if below.starts_with("/files/") => Some(Endpoint::Files),
        _ => None,
    }
}

impl Refusal {
    fn respond(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let error = json!({"message": self.message, "type": self.kind, "param": self.param, "code": self.code});
        (status, axum::Json(json!({"error": error}))).into_response()
    }

    fn invalid(param: &str, code: &'static str, message: String) -> Self {
        Self { status: 400, kind: "invalid_request_error", code, param: Some(param.to_owned()), message }
    }

    fn missing(param: &str) -> Self {
        Self::invalid(param, "missing_required_parameter", format!("Missing required parameter: '{param}'."))
    }

    fn value(param: &str, code: &'static str) -> Self {
        Self::invalid(param, code, format!("Invalid value for '{param}'."))
    }

    fn model_not_found(model: &str) -> Self {
        let message = format!("The model '{model}' does not exist or you do not have access to it.");
        Self { status: 404, ..Self::invalid("model", "model_not_found", message) }
    }

    fn not_found() -> Self {
        Self { status: 404, ..Self::invalid("url", "unknown_url", "Unknown request URL.".to_owned()) }
    }

    fn server_error() -> Self {
        Self {
            status: 500,
            kind: "server_error",
            ..Self::invalid("", "server_error", "The server had an error.".to_owned())
        }
    }
}

/// Refuses a request with a field that the endpoint or the model family does not have.
fn only(body: &Map<String, Value>, fields: &[&str]) -> Result<(), Refusal> {
    match body.keys().find(|field| !fields.contains(&field.as_str())) {
        Some(field) => Err(Refusal::invalid(field, "unknown_parameter", format!("Unknown parameter: '{field}'."))),
        None => Ok(()),
    }
}

/// Sends zeros after the body without an end.
fn endless(response: Response) -> Response {
    let more = stream::repeat(Ok::<_, Cut>(Bytes::from_static(&[0; 64 * 1024])));
    response.map(|body| Body::from_stream(body.into_data_stream().map_err(|_| Cut).chain(more)))
}

/// Sends the content length of the whole body, but only the beginning of the body.
async fn cut_after(response: Response, keep: fn(usize) -> usize) -> Result<Response, Cut> {
    let (mut parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.map_err(|_| Cut)?;
    parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    let kept = body.slice(..keep(body.len()));
    let chunks = stream::unfold(Some(Ok(kept)), |chunk: Option<Result<Bytes, Cut>>| async {
        match chunk {
            Some(Ok(bytes)) => Some((Ok(bytes), Some(Err(Cut)))),
            Some(Err(cut)) => {
                // The server must send the previous chunk before the error closes the connection.
                tokio::task::yield_now().await;
                Some((Err(cut), None))
            }
            None => None,
        }
    });
    Ok(Response::from_parts(parts, Body::from_stream(chunks)))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
