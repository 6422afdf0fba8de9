//! A storage account with shared keys off: Azurite with OAuth, and a proxy before each of its services.
//!
//! Azurite checks the claims of a token, but neither its issuer nor roles, and cannot refuse shared keys. The proxies
//! do. They also end TLS: Azurite takes tokens over https only, and the handler trusts no certificate of a test.
//!
//! The account has a second entrance without checks, for the tests themselves and the stand-in for the host.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tokio::sync::oneshot;

use super::azurite::{self, ACCOUNT, Azurite};
use super::forward;
use super::identity::{self, Identity, Role};

/// Azurite closes a connection after 5 s without a request; the proxy must be first.
const IDLE: Duration = Duration::from_secs(2);

/// The services of the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Blob Storage.
    Blob,
    /// Queue Storage.
    Queue,
    /// Table Storage.
    Table,
}

impl Service {
    /// The services in the order of Azurite's ports.
    pub const ALL: [Self; 3] = [Self::Blob, Self::Queue, Self::Table];

    /// The first version of the service's API that takes tokens of Microsoft Entra ID.
    fn takes_tokens_since(self) -> &'static str {
        match self {
            Self::Blob | Self::Queue => "2017-11-09",
            Self::Table => "2020-12-06",
        }
    }
}

/// How a request proves what it may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Signed with the account's key: `SharedKey`, `SharedKeyLite`, or a SAS without a user delegation key.
    SharedKey,
    /// A token of Microsoft Entra ID.
    Token,
    /// A SAS that is signed with a user delegation key.
    Delegation,
    /// Nothing.
    Nothing,
}

/// A request to the guarded entrance.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The service.
    pub service: Service,
    /// The method.
    pub method: Method,
    /// The path below the account. The query of a SAS is secret and not kept.
    pub path: String,
    /// The operation of a path that has several, the query parameter `comp`.
    pub comp: Option<String>,
    /// How the request proved what it may do.
    pub proof: Proof,
    /// The status of the answer.
    pub status: u16,
}

/// A running account. It ends when the value is dropped.
#[derive(Debug)]
pub struct KeylessAccount {
    guarded: [u16; 3],
    open: [u16; 3],
    seen: Arc<Mutex<Vec<Seen>>>,
    _stops: Vec<oneshot::Sender<()>>,
    _azurite: Azurite,
}

impl KeylessAccount {
    /// Starts an account whose services take the tokens of this identity.
    ///
    /// # Errors
    /// As [`Azurite::start_with_oauth`], and if no port can be bound.
    pub async fn start(identity: &Identity) -> anyhow::Result<Self> {
        let (azurite, certificate) = tokio::task::spawn_blocking(Azurite::start_with_oauth).await??;
        let http = reqwest::Client::builder()
            .add_root_certificate(reqwest::Certificate::from_der(&certificate)?)
            .pool_idle_timeout(IDLE)
            .build()?;
        let mut stops = Vec::new();
        let seen = Arc::default();
        let (mut guarded, mut open) = ([0; 3], [0; 3]);
        for ((service, upstream), (guarded, open)) in
            Service::ALL.into_iter().zip(azurite.ports()).zip(guarded.iter_mut().zip(&mut open))
        {
            let guard = Guard { service, identity: identity.clone(), seen: Arc::clone(&seen) };
            for (port, guard) in [(guarded, Some(guard)), (open, None)] {
                let entrance = Entrance {
                    upstream: format!("https://127.0.0.1:{upstream}"),
                    http: http.clone(),
                    guard,
                    answers: AtomicU64::new(0),
                };
                let (free, stop) =
                    forward::serve(Router::new().fallback(answer).with_state(Arc::new(entrance))).await?;
                *port = free;
                stops.push(stop);
            }
        }
        Ok(Self { guarded, open, seen, _stops: stops, _azurite: azurite })
    }

    /// The app settings of an identity-based connection to this account.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let [blob, queue, table] = self.guarded.map(|port| format!("http://127.0.0.1:{port}/{ACCOUNT}"));
        vec![
            ("AzureWebJobsStorage__credential", "managedidentity".to_owned()),
            ("AzureWebJobsStorage__clientId", identity::CLIENT_ID.to_owned()),
            ("AzureWebJobsStorage__blobServiceUri", blob),
            ("AzureWebJobsStorage__queueServiceUri", queue),
            ("AzureWebJobsStorage__tableServiceUri", table),
        ]
    }

    /// The connection string of the second entrance, which takes the account's key.
    pub fn connection_string(&self) -> String {
        azurite::connection_string(self.open)
    }

    /// The ports of the guarded blob, queue and table services on 127.0.0.1.
    pub fn ports(&self) -> [u16; 3] {
        self.guarded
    }

    /// The requests to the guarded entrance that were answered.
    pub fn requests(&self) -> Vec<Seen> {
        locked(&self.seen).clone()
    }
}

struct Entrance {
    upstream: String,
    http: reqwest::Client,
    guard: Option<Guard>,
    answers: AtomicU64,
}

struct Guard {
    service: Service,
    identity: Identity,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// The error of a request that the account refuses
/// (<https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes>).
#[derive(Debug, Clone, Copy)]
struct Refusal(u16, &'static str, &'static str);

const SHARED_KEY: Refusal = Refusal(
    403,
    "KeyBasedAuthenticationNotPermitted",
    "Key based authentication is not permitted on this storage account.",
);
const NO_PROOF: Refusal = Refusal(
    401,
    "NoAuthenticationInformation",
    "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.",
);
const INVALID_TOKEN: Refusal = Refusal(
    401,
    "InvalidAuthenticationInfo",
    "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.",
);
const OLD_VERSION: Refusal = Refusal(
    403,
    "AuthenticationFailed",
    "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly \
     including the signature.",
);
const NO_ROLE: Refusal = Refusal(
    403,
    "AuthorizationPermissionMismatch",
    "This request is not authorized to perform this operation using this permission.",
);

async fn answer(State(entrance): State<Arc<Entrance>>, request: Request) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let judged = entrance.guard.as_ref().map(|guard| {
        let proof = proof(&uri, request.headers());
        (guard, proof, guard.refusal(proof, &request))
    });
    let mut response = match judged {
        Some((guard, _, Some(refusal))) => {
            forward::read(request).await;
            refusal.answer(guard.service)
        }
        _ => {
            let answer = forward::pass_on(&entrance.http, &entrance.upstream, request).await;
            answer.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, format!("{error:#}")).into_response())
        }
    };
    if let Some((guard, proof, _)) = judged {
        guard.remember(method, &uri, proof, response.status());
    }
    let number = entrance.answers.fetch_add(1, Ordering::Relaxed);
    if let Ok(id) = HeaderValue::try_from(format!("00000000-001e-0000-0000-{number:012x}")) {
        // Azurite leaves the header out of some answers.
        response.headers_mut().entry("x-ms-request-id").or_insert(id);
    }
    response
}

impl Guard {
    fn refusal(&self, proof: Proof, request: &Request) -> Option<Refusal> {
        // A browser's preflight carries no proof.
        if request.method() == Method::OPTIONS {
            return None;
        }
        match proof {
            Proof::SharedKey => Some(SHARED_KEY),
            Proof::Nothing => Some(NO_PROOF),
            // A SAS is worth as much as the roles of the identity that its key was made for.
            Proof::Delegation => (!self.identity.has(Role::BlobDataContributor)).then_some(NO_ROLE),
            Proof::Token => self.refuses_token(request),
        }
    }

    fn refuses_token(&self, request: &Request) -> Option<Refusal> {
        let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
        let token = header(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if !self.identity.accepts(token, identity::STORAGE) {
            return Some(INVALID_TOKEN);
        }
        let version = header(HeaderName::from_static("x-ms-version")).unwrap_or_default();
        if version < self.service.takes_tokens_since() {
            return Some(OLD_VERSION);
        }
        let role = match self.service {
            Service::Blob if comp(request.uri()).as_deref() == Some("userdelegationkey") => Role::BlobDelegator,
            Service::Blob => Role::BlobDataContributor,
            Service::Queue => Role::QueueDataContributor,
            Service::Table => Role::TableDataContributor,
        };
        (!self.identity.has(role)).then_some(NO_ROLE)
    }

    fn remember(&self, method: Method, uri: &Uri, proof: Proof, status: StatusCode) {
        let path = uri.path().trim_start_matches(&format!("/{ACCOUNT}")).to_owned();
        let seen = Seen { service: self.service, method, path, comp: comp(uri), proof, status: status.as_u16() };
        locked(&self.seen).push(seen);
    }
}

impl Refusal {
    fn answer(self, service: Service) -> Response {
        let Self(status, code, message) = self;
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::FORBIDDEN);
        let mut response = match service {
            Service::Table => {
                let error = json!({"code": code, "message": {"lang": "en-US", "value": message}});
                (status, axum::Json(json!({"odata.error": error}))).into_response()
            }
            Service::Blob | Service::Queue => {
                let body = format!(
                    "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>{message}</Message>\
                     </Error>"
                );
                (status, [(header::CONTENT_TYPE, "application/xml")], body).into_response()
            }
        };
        response.headers_mut().insert("x-ms-error-code", HeaderValue::from_static(code));
        if status == StatusCode::UNAUTHORIZED {
            let challenge = "Bearer authorization_uri=https://login.microsoftonline.com/common/oauth2/authorize \
                             resource_id=https://storage.azure.com";
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

fn proof(uri: &Uri, headers: &HeaderMap) -> Proof {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if authorization.starts_with("Bearer ") {
        return Proof::Token;
    }
    if authorization.starts_with("SharedKey") {
        return Proof::SharedKey;
    }
    match (forward::parameter(uri, "sig"), forward::parameter(uri, "skoid")) {
        (None, _) => Proof::Nothing,
        (Some(_), None) => Proof::SharedKey,
        (Some(_), Some(_)) => Proof::Delegation,
    }
}

fn comp(uri: &Uri) -> Option<String> {
    forward::parameter(uri, "comp")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
