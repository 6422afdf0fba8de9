//! A custom handler for the tests of the Functions host's stand-in. The answer is the request as JSON; a
//! word in the query changes the behaviour.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port: u16 = std::env::var("FUNCTIONS_CUSTOMHANDLER_PORT")?.parse()?;
    if std::env::var("ECHO_FAIL").is_ok() {
        eprintln!("ECHO_FAIL is set");
        std::process::exit(1);
    }
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, Router::new().fallback(echo)).await?;
    Ok(())
}

async fn echo(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // In forwarding mode the host changes `?word` to `?word=`.
    let word = parts.uri.query().unwrap_or_default().trim_end_matches('=');
    if let Some(code) = word.strip_prefix("exit=").and_then(|code| code.parse().ok()) {
        std::process::exit(code);
    }
    match word {
        "moved" => return axum::response::Redirect::temporary("https://example.com/").into_response(),
        "talk" => {
            println!("to stdout");
            eprintln!("to stderr");
            eprintln!("to stderr, as a Warning");
        }
        "drip" => {
            // One chunk at once, and a body without an end.
            let chunks = stream::iter([Ok::<_, std::io::Error>("first")]).chain(stream::pending());
            return Body::from_stream(chunks).into_response();
        }
        "wait" => {
            // hyper drops this future, and with it the notice, when the client disconnects.
            let _notice = DisconnectNotice;
            println!("waiting");
            std::future::pending::<()>().await;
        }
        _ => {}
    }
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let headers: Vec<Value> = parts
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let echo = json!({
        "method": parts.method.as_str(), "uri": parts.uri.to_string(), "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    axum::Json(echo).into_response()
}

/// Prints a line when it is dropped.
struct DisconnectNotice;

impl Drop for DisconnectNotice {
    fn drop(&mut self) {
        println!("the client has disconnected");
    }
}
