//! The HTTP API: the route table, and the middleware around every answer.
//!
//! The Functions host matches paths case-insensitively and forwards them unchanged, so this router
//! matches them case-insensitively, too.

mod accept;
mod answers;
mod body;
mod cross_site;
mod etag;
mod events;
mod files;
mod generate_image;
mod generate_sas_token;
mod get_chat_gpt_suggestion;
mod get_images;
mod health;
mod images;
mod jobs;
mod openapi;
mod options;
mod prefer;
mod process_image;
mod quota;
mod rate_limit;
mod styles;
mod usage;
mod web;

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post};
use serde_json::json;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;

use self::answers::{ERROR_CODE, EXPOSED, INVOCATION_ID};
use crate::app::App;
use crate::error::Problem;
use crate::logs::{ServerSpan, Trace};

/// One HTTP function: a folder with a `function.json`, a route and a handler.
pub struct Function {
    /// The folder's name.
    pub name: &'static str,
    /// The route in `function.json`. `host.json` sets no prefix, so it is the whole path without its first slash.
    pub route: &'static str,
    /// The methods in `function.json`.
    pub methods: &'static [&'static str],
    /// The `authLevel` in `function.json`. The host enforces it.
    pub auth_level: &'static str,
    handler: fn() -> MethodRouter<Arc<App>>,
}

/// All HTTP functions. A test compares this table with the folders.
pub const FUNCTIONS: [Function; 19] = [
    Function::open("generateImage", "api/generateImage", &["post"], || post(generate_image::handle)),
    // The constraint admits only the length of an id: a wider route would match other functions' paths.
    Function::open("generateImageJob", "api/generateImage/jobs/{id:length(75)}", &["delete", "get"], || {
        get(jobs::look).delete(jobs::cancel)
    }),
    Function::open("getImages", "api/getImages", &["get"], || get(get_images::handle)),
    Function::open("image", "api/images/{id:length(46)}", &["delete", "get"], || {
        get(images::look).delete(images::delete)
    }),
    Function::open("imageRestore", "api/images/{id:length(46)}/restore", &["post"], || post(images::restore)),
    // The operator may delete the image of anybody.
    Function {
        auth_level: "function",
        ..Function::open("manageImage", "api/manage/images/{id:length(46)}", &["delete"], || {
            delete(images::delete_as_operator)
        })
    },
    Function {
        auth_level: "function",
        ..Function::open("manageImageRestore", "api/manage/images/{id:length(46)}/restore", &["post"], || {
            post(images::restore_as_operator)
        })
    },
    Function::open("getChatGPTSuggestion", "api/getChatGPTSuggestion", &["get"], || {
        get(get_chat_gpt_suggestion::handle)
    }),
    // The token allows writes, so it needs a key.
    Function::with_key("generateSASToken", "api/generateSASToken", || get(generate_sas_token::handle)),
    Function::open("styles", "api/styles", &["get"], || get(styles::handle)),
    Function::open("health", "api/health", &["get"], || get(health::handle)),
    // Only the operator may see the models and their shutdown dates.
    Function::with_key("status", "api/status", || get(health::status)),
    Function::open("quota", "api/quota", &["get"], || get(quota::handle)),
    // Only the operator may see what the app spends.
    Function::with_key("usage", "api/usage", || get(usage::handle)),
    Function::open("options", "api/options", &["get"], || get(options::handle)),
    Function::open("openapi", "api/openapi.json", &["get"], || get(openapi::json)),
    Function::open("openapi31", "api/openapi-3.1.json", &["get"], || get(openapi::json_3_1)),
    Function::open("openapiYaml", "api/openapi.yaml", &["get"], || get(openapi::yaml)),
    // One segment: a route that takes more would match the paths of functions with a key. The host matches
    // functions in the order of their names, so this one must come last.
    Function::open("web", "{page?}", &["get", "head"], || get(web::handle)),
];

impl Function {
    const fn open(
        name: &'static str,
        route: &'static str,
        methods: &'static [&'static str],
        handler: fn() -> MethodRouter<Arc<App>>,
    ) -> Self {
        Self { name, route, methods, auth_level: "anonymous", handler }
    }

    /// A function that needs a key and takes GET only.
    const fn with_key(name: &'static str, route: &'static str, handler: fn() -> MethodRouter<Arc<App>>) -> Self {
        Self { auth_level: "function", ..Self::open(name, route, &["get"], handler) }
    }

    /// The methods' handlers. HEAD, which axum passes to the handler of GET, reaches no function with a key.
    fn method_router(&self) -> MethodRouter<Arc<App>> {
        let router = (self.handler)();
        if self.auth_level == "anonymous" {
            return router;
        }
        router.head(|| async { Problem::method_not_allowed() })
    }

    /// The normalized paths, with a parameter's name only: one, or two if the last parameter may be missing.
    fn paths(&self) -> Vec<String> {
        let segment = |segment: &str| match segment.strip_prefix('{') {
            Some(parameter) => {
                format!("{{{}}}", parameter.chars().take_while(char::is_ascii_alphanumeric).collect::<String>())
            }
            None => segment.to_ascii_lowercase(),
        };
        let segments: Vec<String> = self.route.split('/').map(segment).collect();
        let missing = self.route.ends_with("?}").then(|| segments[..segments.len() - 1].join("/"));
        missing.into_iter().chain([segments.join("/")]).map(|path| format!("/{path}")).collect()
    }

    /// Whether a normalized path is the function's.
    fn has(&self, path: &str) -> bool {
        let fits = |(own, given): (&str, &str)| own.starts_with('{') || own == given;
        let is_path = |own: &String| {
            own.split('/').count() == path.split('/').count() && own.split('/').zip(path.split('/')).all(fits)
        };
        self.paths().iter().any(is_path)
    }
}

/// The queue-triggered functions: the folder's name and the queue. The host calls them at
/// `/FOLDER`, which is not reachable from outside.
pub const QUEUE_FUNCTIONS: [(&str, &str); 2] =
    [("processImage", process_image::QUEUE), ("processImagePoison", process_image::POISON_QUEUE)];

/// All routes. The host requests `GET /` until the handler answers it with any status, so `web` uses no service.
pub fn router(app: Arc<App>) -> Router {
    let with_digests = middleware::from_fn_with_state(Arc::clone(&app), wait_for_digest_key);
    let mut router = Router::new();
    for function in &FUNCTIONS {
        for path in function.paths() {
            let methods = function.method_router();
            let stores_digests = WITH_DIGESTS.contains(&function.name);
            router = router.route(&path, if stores_digests { methods.layer(with_digests.clone()) } else { methods });
        }
    }
    router
        .route("/processimage", post(process_image::deliver).layer(with_digests.clone()))
        .route("/processimagepoison", post(process_image::give_up).layer(with_digests))
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(middleware::from_fn_with_state(Arc::clone(&app), cross_site::check))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(app)
}

/// The functions whose digests are stored, or compared with stored ones, beside those of the queues. `quota` waits for
/// the key itself, because its error is another one.
const WITH_DIGESTS: [&str; 4] = ["generateImage", "generateImageJob", "image", "imageRestore"];

/// Lets a request through when the digests that it needs can be made. With an account key that is at once.
async fn wait_for_digest_key(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    match app.digest_key_known().await {
        Ok(()) => next.run(request).await,
        Err(error) => Problem::from(error).into_response(),
    }
}

/// Changes a path to lower case and removes one trailing slash, before the router matches it. A path with
/// a dot segment, encoded or not, becomes one that does not exist: the host may have matched it to another
/// function than the one that it leads to.
pub(crate) fn normalize_path(mut request: Request) -> Request {
    let path = request.uri().path();
    let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path).to_ascii_lowercase();
    let path = if has_dot_segment(&path) { "/dot-segment" } else { path.as_str() };
    let mut parts = request.uri().clone().into_parts();
    let with_query = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    parts.path_and_query = with_query.parse().ok();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

/// Whether a path, once or more often decoded, has the segment `.` or `..`.
fn has_dot_segment(path: &str) -> bool {
    // `%25` is `%`: however often a percent sign is encoded, only `25` repeats behind it.
    let signs: Vec<&str> = path.split('%').map(|piece| piece.trim_start_matches("25")).collect();
    let decoded = signs.join("%").replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    decoded.split(['/', '\\']).any(|segment| matches!(segment, "." | ".."))
}

/// The middleware around every answer: it adds the invocation id and the headers that pages of other origins may
/// read, logs one line, and writes an error in the form that the caller accepts.
pub(crate) async fn finish(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = answers::invocation_id(request.headers());
    let accept = accept::Accept::of(request.headers());
    let path = request.uri().path().to_owned();
    let endpoint = Endpoint::at(&path);
    let name = endpoint.name;
    // The host asks whether the process is ready. Such a request is no invocation.
    let is_probe = path == "/" && !request.headers().contains_key(INVOCATION_ID);
    let server_span = (!is_probe).then(|| ServerSpan::start(&request, &id, endpoint.route, endpoint.trigger));
    let trace = server_span.as_ref().and_then(ServerSpan::trace).unwrap_or_else(|| Trace::of(request.headers()));
    let span = tracing::info_span!("invocation", invocation.id = %id, trace.id = trace.id(), function.name = name);
    trace.attach_to(&span);
    let mut response = next.run(request).instrument(span.clone()).await;
    let _in_span = span.enter();
    let problem = response.extensions_mut().remove::<Problem>();
    let status = response.status().as_u16();
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match &problem {
        _ if is_probe => {}
        Some(Problem { code, cause: Some(cause), .. }) if code.needs_operator() => {
            tracing::error!(
                event = "request_failed",
                http.status = status,
                error.code = code.as_str(),
                cause,
                duration_ms,
                "the request failed"
            );
        }
        Some(Problem { code, cause: Some(cause), .. }) => {
            tracing::warn!(
                event = "request_failed",
                http.status = status,
                error.code = code.as_str(),
                cause,
                duration_ms,
                "the request failed"
            );
        }
        Some(Problem { code, .. }) => {
            tracing::info!(
                event = "request_refused",
                http.status = status,
                error.code = code.as_str(),
                duration_ms,
                "the request was refused"
            );
        }
        None => {
            tracing::info!(event = "request_answered", http.status = status, duration_ms, "the request was answered");
        }
    }
    if let Some(server_span) = server_span {
        server_span.end(status, problem.as_ref().map(|problem| problem.code.as_str()), started.elapsed());
    }
    if let Some(problem) = problem {
        let headers = std::mem::take(response.headers_mut());
        response = render(&problem, accept, name == "getImages", &id);
        response.headers_mut().extend(headers);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(INVOCATION_ID, value);
    }
    response.headers_mut().insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    response
}

/// The function that a request is for.
struct Endpoint {
    name: &'static str,
    /// `None` if there is no such function.
    route: Option<&'static str>,
    /// The value of `faas.trigger` (<https://opentelemetry.io/docs/specs/semconv/faas/faas-spans/>).
    trigger: &'static str,
}

impl Endpoint {
    /// The function at a normalized path.
    fn at(path: &str) -> Self {
        let folder = path.strip_prefix('/').unwrap_or(path);
        if let Some((name, _)) = QUEUE_FUNCTIONS.iter().find(|(name, _)| name.eq_ignore_ascii_case(folder)) {
            return Self { name, route: Some(name), trigger: "pubsub" };
        }
        match FUNCTIONS.iter().find(|function| function.has(path)) {
            Some(function) => Self { name: function.name, route: Some(function.route), trigger: "http" },
            None => Self { name: "none", route: None, trigger: "http" },
        }
    }
}

/// Puts the problem into the response's extensions, from which `finish` writes the body.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// A problem document (RFC 9457) for callers that accept only JSON. Other callers get the sentence as
/// text, because many front ends show the body to the user.
///
/// getImages always answers JSON with an empty `imageUrls`, because some front ends iterate over it
/// without checking the status.
fn render(problem: &Problem, accept: accept::Accept, get_images: bool, invocation_id: &str) -> Response {
    let mut response = if get_images || accept == accept::Accept::Json {
        let mut body = answers::document(problem, invocation_id);
        if get_images {
            body["imageUrls"] = json!([]);
        }
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        (problem.code.status(), content_type, body.to_string()).into_response()
    } else {
        (problem.code.status(), problem.sentence.clone()).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(ERROR_CODE, HeaderValue::from_static(problem.code.as_str()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(wait) = problem.retry_after {
        // Rounded up to whole seconds: a retry that comes too early would be refused again.
        let seconds = wait.as_millis().div_ceil(1000).max(1);
        headers.insert(header::RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
    }
    response
}

/// A panic's message may contain secrets or a prompt, so it is not logged.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    Problem::internal("the handler panicked").into_response()
}

/// The router with [`finish`] as its outermost layer.
pub(crate) fn finished(router: Router) -> Router {
    router.layer(middleware::from_fn(finish))
}
