//! The client of the collector: our HTTP client, behind the trait of the exporters.

use std::pin::Pin;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use reqwest::StatusCode;
use tokio::runtime::Handle;

use crate::lock::locked;
use crate::logs::{Error, chain};

/// The time for one export, as the SDK's own clients have it.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The time between two log lines about exports that fail.
const BETWEEN_LINES: Duration = Duration::from_secs(10 * 60);

/// The largest answer that is read.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// The client of the collector.
#[derive(Debug)]
pub(super) struct Collector {
    http: reqwest::Client,
    /// The exporters run on threads of their own, and the client needs the runtime.
    runtime: Handle,
    last_line_at: Mutex<Option<Instant>>,
}

impl Collector {
    pub(super) fn new() -> Result<Self, Error> {
        // Redirects are not followed, because the headers may have the collector's key.
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|_| Error::Telemetry)?;
        Ok(Self { http, runtime: Handle::current(), last_line_at: Mutex::default() })
    }

    /// Logs a failure, at most once in [`BETWEEN_LINES`].
    fn log(&self, cause: &str) {
        let now = Instant::now();
        let mut last_line_at = locked(&self.last_line_at);
        if last_line_at.is_some_and(|at| now.duration_since(at) < BETWEEN_LINES) {
            return;
        }
        *last_line_at = Some(now);
        drop(last_line_at);
        tracing::warn!(
            event = "telemetry_not_sent",
            cause,
            "the collector did not take traces or metrics; they are dropped, and requests are not affected"
        );
    }
}

impl HttpClient for Collector {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let request = reqwest::Request::try_from(request)?;
            // The body of the answer is not needed. It is small, and reading it frees the connection.
            let http = self.http.clone();
            let sent = self.runtime.spawn(async move {
                let response = http.execute(request).await?;
                let (status, headers) = (response.status(), response.headers().clone());
                if response.content_length().is_some_and(|length| length <= MAX_ANSWER_BYTES) {
                    response.bytes().await?;
                }
                Ok::<_, reqwest::Error>((status, headers))
            });
            // An error here means that the runtime has ended.
            let (status, headers) = match sent.await? {
                Ok(answer) => answer,
                Err(error) => {
                    let error = error.without_url();
                    self.log(&chain(&error));
                    return Err(error.into());
                }
            };
            if !status.is_success() {
                self.log(&format!("status {}", StatusCode::as_u16(&status)));
            }
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = status;
            *response.headers_mut() = headers;
            Ok(response)
        })
    }
}
