//! A stand-in for managed identities: the token endpoint of the platform, and the roles of the identity.
//!
//! The endpoint follows
//! <https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>. Its tokens
//! have the claims that Azurite checks. The stand-ins for the services accept only tokens that this endpoint issued.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::forward;

/// The resource of storage accounts: blobs, queues and tables.
pub const STORAGE: &str = "https://storage.azure.com";
/// The resource of Azure OpenAI.
pub const OPENAI: &str = "https://cognitiveservices.azure.com";
/// The client id of the user-assigned identity.
pub const CLIENT_ID: &str = "5b2f6c1e-0d7a-4a57-9a3e-2f1f6f0c9d11";
/// The object id of the identity, `oid` in its tokens.
pub const OBJECT_ID: &str = "7e1d3a90-54c2-4f7b-8f11-c0a3b2d4e5f6";
const TENANT: &str = "0f3c8a52-9b1d-4e6f-a7c8-d9e0f1a2b3c4";

/// A token's `nbf` is this time before its issue, as in tokens of Microsoft Entra ID.
const VALID_BEFORE: Duration = Duration::from_secs(5 * 60);

/// The roles that the services check. An identity has all of them at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Storage Blob Data Contributor, on the containers: containers and blobs, but no user delegation key.
    BlobDataContributor,
    /// Storage Blob Delegator, on the account: the user delegation key.
    BlobDelegator,
    /// Storage Queue Data Contributor.
    QueueDataContributor,
    /// Storage Table Data Contributor.
    TableDataContributor,
    /// Cognitive Services OpenAI User.
    OpenAiUser,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 5] = [
        Self::BlobDataContributor,
        Self::BlobDelegator,
        Self::QueueDataContributor,
        Self::TableDataContributor,
        Self::OpenAiUser,
    ];
}

/// A running endpoint. It ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Identity {
    port: u16,
    server: Arc<Server>,
    _stop: Arc<oneshot::Sender<()>>,
}

#[derive(Debug)]
struct Server {
    header: String,
    state: Mutex<Inner>,
    requests: watch::Sender<Requests>,
}

#[derive(Debug)]
struct Inner {
    lifetime: Duration,
    delay: Duration,
    next: VecDeque<u16>,
    always: Option<u16>,
    roles: HashSet<Role>,
    /// The resource and the end of each token.
    tokens: HashMap<String, (String, SystemTime)>,
}

/// The requests for tokens.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    /// The resources that were asked for, in order, `""` for a refused request.
    pub resources: Vec<String>,
    /// The most requests for the same resource that were under way at the same time.
    pub most_at_once: usize,
    under_way: HashMap<String, usize>,
}

impl Identity {
    /// Starts an endpoint whose tokens live for a day.
    ///
    /// # Errors
    /// Fails if no port can be bound.
    pub async fn start() -> anyhow::Result<Self> {
        let server = Arc::new(Server {
            header: format!("{:016X}", fastrand::u64(..)),
            state: Mutex::new(Inner {
                lifetime: Duration::from_secs(24 * 60 * 60),
                delay: Duration::ZERO,
                next: VecDeque::new(),
                always: None,
                roles: Role::ALL.into(),
                tokens: HashMap::new(),
            }),
            requests: watch::Sender::default(),
        });
        let router = Router::new().route("/msi/token", get(answer)).with_state(Arc::clone(&server));
        let (port, stop) = forward::serve(router).await?;
        Ok(Self { port, server, _stop: Arc::new(stop) })
    }

    /// The variables that the platform sets for the handler.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        let endpoint = format!("http://127.0.0.1:{}/msi/token", self.port);
        [("IDENTITY_ENDPOINT", endpoint), ("IDENTITY_HEADER", self.server.header.clone())]
    }

    /// Lets the next tokens live for this time.
    pub fn let_tokens_live(&self, lifetime: Duration) {
        self.state().lifetime = lifetime;
    }

    /// Delays each answer.
    pub fn delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Answers the next requests with these statuses.
    pub fn fail(&self, statuses: &[u16]) {
        self.state().next.extend(statuses);
    }

    /// Answers every request with this status, once those of [`fail`](Self::fail) are used up. `None` ends it.
    pub fn fail_always(&self, status: Option<u16>) {
        self.state().always = status;
    }

    /// Gives the identity a role.
    pub fn grant(&self, role: Role) {
        self.state().roles.insert(role);
    }

    /// Takes a role from the identity.
    pub fn revoke(&self, role: Role) {
        self.state().roles.remove(&role);
    }

    /// The requests so far.
    pub fn requests(&self) -> Requests {
        self.server.requests.borrow().clone()
    }

    /// Waits until this number of requests has arrived.
    pub async fn wait_for_requests(&self, count: usize) {
        let mut requests = self.server.requests.subscribe();
        // The wait cannot fail: `self` owns the sender.
        let _ = requests.wait_for(|requests| requests.resources.len() >= count).await;
    }

    pub(super) fn has(&self, role: Role) -> bool {
        self.state().roles.contains(&role)
    }

    /// Whether this endpoint issued the token for the resource, and it has not expired.
    pub(super) fn accepts(&self, token: &str, resource: &str) -> bool {
        let state = self.state();
        state.tokens.get(token).is_some_and(|(known, ends)| known == resource && SystemTime::now() < *ends)
    }

    fn state(&self) -> MutexGuard<'_, Inner> {
        self.server.state()
    }
}

impl Server {
    fn state(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The resource of a request, or the status and the message for one that the real endpoint refuses.
    fn resource(&self, headers: &HeaderMap, query: &HashMap<String, String>) -> Result<String, (u16, String)> {
        let header = headers.get("x-identity-header").and_then(|value| value.to_str().ok());
        if header != Some(&self.header) {
            return Err((401, "The request lacks the right X-IDENTITY-HEADER.".to_owned()));
        }
        let parameter = |name: &str| query.get(name).map(String::as_str);
        if parameter("api-version") != Some("2019-08-01") {
            return Err((400, "The api-version is not supported.".to_owned()));
        }
        if let Some(name) = query.keys().find(|name| !["api-version", "resource", "client_id"].contains(&name.as_str()))
        {
            return Err((400, format!("{name} is unknown or not assigned.")));
        }
        // There is no system-assigned identity, which a request without a client id asks for.
        if parameter("client_id") != Some(CLIENT_ID) {
            let message =
                "No User Assigned or Delegated Managed Identity found for specified ClientId/ResourceId/PrincipalId.";
            return Err((400, message.to_owned()));
        }
        let resource = parameter("resource").unwrap_or_default();
        let known = resource.strip_suffix('/').unwrap_or(resource);
        if ![STORAGE, OPENAI].contains(&known) {
            let message = format!(
                "AADSTS500011: The resource principal named {resource} was not found in the tenant named {TENANT}."
            );
            return Err((400, message));
        }
        Ok(known.to_owned())
    }

    fn issue(&self, resource: &str) -> Value {
        let mut state = self.state();
        let now = SystemTime::now();
        let ends = now + state.lifetime;
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let number = state.tokens.len();
        let claims = json!({
            "aud": resource, "iss": format!("https://sts.windows.net/{TENANT}/"), "tid": TENANT, "oid": OBJECT_ID,
            "sub": OBJECT_ID, "appid": CLIENT_ID, "idtyp": "app", "ver": "1.0", "uti": format!("token-{number}"),
            "iat": seconds(now - VALID_BEFORE), "nbf": seconds(now - VALID_BEFORE), "exp": seconds(ends),
        });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signature = BASE64_URL_SAFE_NO_PAD.encode(fastrand::u128(..).to_be_bytes());
        let token = format!("{}.{}.{signature}", part(&json!({"typ": "JWT", "alg": "RS256"})), part(&claims));
        // Azurite compares whole seconds.
        state.tokens.insert(token.clone(), (resource.to_owned(), UNIX_EPOCH + Duration::from_secs(seconds(ends))));
        json!({
            "access_token": token, "expires_on": seconds(ends).to_string(), "resource": resource,
            "token_type": "Bearer", "client_id": CLIENT_ID,
        })
    }
}

async fn answer(
    State(server): State<Arc<Server>>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let resource = server.resource(&headers, &query);
    let name = resource.as_deref().unwrap_or_default().to_owned();
    let (delay, status) = {
        let mut state = server.state();
        let status = state.next.pop_front().or(state.always);
        (state.delay, status)
    };
    server.requests.send_modify(|requests| {
        requests.resources.push(name.clone());
        let under_way = requests.under_way.entry(name.clone()).or_default();
        *under_way += 1;
        requests.most_at_once = requests.most_at_once.max(*under_way);
    });
    tokio::time::sleep(delay).await;
    let answer = match (status, resource) {
        (Some(status), _) => refusal(status, "The identity service cannot answer."),
        (None, Err((status, message))) => refusal(status, &message),
        (None, Ok(resource)) => axum::Json(server.issue(&resource)).into_response(),
    };
    server.requests.send_modify(|requests| *requests.under_way.entry(name).or_default() -= 1);
    answer
}

fn refusal(status: u16, message: &str) -> Response {
    let body =
        json!({"statusCode": status, "message": message, "correlationId": "c0ffee00-0000-4000-8000-000000000000"});
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, axum::Json(body)).into_response()
}
