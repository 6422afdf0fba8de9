//! The stand-in for the Functions host behaves as the real host, in both wire modes.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use devkit::stand_ins::host::{FunctionsHost, Level, Options, Wire};
use futures_util::StreamExt as _;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

const WIRES: [Wire; 2] = [Wire::Proxying, Wire::Forwarding];

/// The folder of an app. It is deleted when the test ends.
struct App(PathBuf);

impl App {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let app = Self(std::env::temp_dir().join(format!("visionary-host-{}-{number}", std::process::id())));
        app.set_prefix("api");
        app.function("Echo", &json!({"authLevel": "anonymous", "methods": ["get", "post"]}));
        app.function("Locked", &json!({}));
        app.function("Routed", &json!({"authLevel": "anonymous", "route": "things/{id}/{*rest}"}));
        app
    }

    fn write(&self, name: &str, json: &Value) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, json.to_string()).unwrap();
    }

    /// Writes `host.json` with this route prefix.
    fn set_prefix(&self, prefix: &str) {
        let custom_handler = json!({
            "description": {"defaultExecutablePath": "handler"},
            "enableProxyingHttpRequest": true, "enableForwardingHttpRequest": true,
        });
        let http = json!({"routePrefix": prefix});
        let host = json!({"version": "2.0", "extensions": {"http": http}, "customHandler": custom_handler});
        self.write("host.json", &host);
    }

    fn function(&self, name: &str, more: &Value) {
        let mut trigger = json!({"type": "httpTrigger", "direction": "in", "name": "req"});
        trigger.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let out = json!({"type": "http", "direction": "out", "name": "res"});
        self.write(&format!("{name}/function.json"), &json!({"bindings": [trigger, out]}));
    }

    fn options(&self, wire: Wire) -> Options {
        let handler = Path::new(env!("CARGO_BIN_EXE_echo-handler")).to_owned();
        Options { handler: Some(handler), ..Options::new(self.0.clone(), wire) }
    }

    async fn start(&self, wire: Wire) -> FunctionsHost {
        FunctionsHost::start(self.options(wire)).await.expect("the host starts")
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn request(host: &FunctionsHost, method: Method, path: &str) -> RequestBuilder {
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    http.request(method, format!("{}{path}", host.url()))
}

async fn status(host: &FunctionsHost, method: Method, path: &str) -> u16 {
    let answer = request(host, method, path).send().await.unwrap();
    let status = answer.status().as_u16();
    assert!(status == 200 || answer.bytes().await.unwrap().is_empty(), "a refusal has no body");
    status
}

async fn echo(request: RequestBuilder) -> Value {
    request.send().await.unwrap().json().await.unwrap()
}

fn headers(echo: &Value, name: &str) -> Vec<String> {
    let all = echo["headers"].as_array().unwrap().iter();
    all.filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn routes_match_in_any_case_and_the_handler_gets_the_path_as_the_client_sent_it() {
    let app = App::new();
    for wire in WIRES {
        let host = app.start(wire).await;
        for path in ["/api/Echo", "/API/eCHO/", "/api/echo", "/api/Things/7/a/b%20c"] {
            assert_eq!(echo(request(&host, Method::GET, path)).await["uri"], path, "{wire:?}");
        }
        for (method, path) in [
            (Method::PUT, "/api/echo"),
            (Method::HEAD, "/api/echo"),
            (Method::OPTIONS, "/api/echo"),
            (Method::GET, "/echo"),
            (Method::GET, "/api/echo/more"),
            (Method::GET, "/api/nothing"),
        ] {
            assert_eq!(status(&host, method, path).await, 404, "{path} {wire:?}");
        }
    }
}

/// The function that answers, in an app without a route prefix.
#[tokio::test]
async fn without_a_prefix_functions_match_in_the_order_of_their_names_and_the_host_keeps_its_own_paths() {
    let app = App::new();
    app.set_prefix("");
    app.function("Things", &json!({"authLevel": "anonymous", "methods": ["get"], "route": "api/things"}));
    app.function("Zoo", &json!({"authLevel": "anonymous", "methods": ["get", "head"], "route": "{page?}"}));
    app.function("Unrouted", &json!({"authLevel": "anonymous", "methods": ["get"], "route": ""}));
    app.function("all", &json!({"authLevel": "function", "methods": ["get"], "route": "all/{page}"}));
    let keys = vec!["key".to_owned()];
    for wire in WIRES {
        let options = Options { keys: keys.clone(), ..app.options(wire) };
        let host = FunctionsHost::start(options).await.expect("the host starts");
        assert_eq!(host.functions(), ["all", "Echo", "Locked", "Routed", "Things", "Unrouted", "Zoo"]);
        assert_eq!(host.paths(), ["/all/{page}", "/Echo", "/Locked", "/things/{id}", "/api/things", "/Unrouted", "/"]);
        for path in ["/", "/page", "/page.js", "/api", "/api/things", "/unrouted", "/page/"] {
            assert_eq!(echo(request(&host, Method::GET, path)).await["uri"], path, "{wire:?}");
        }
        assert_eq!(request(&host, Method::HEAD, "/").send().await.unwrap().status(), 200);
        for path in ["/all/page", "/locked"] {
            assert_eq!(status(&host, Method::GET, path).await, 401, "an earlier function has this path: {path}");
        }
        for (method, path) in [
            (Method::GET, "/admin"),
            (Method::GET, "/Admin/host/status"),
            (Method::GET, "/runtime"),
            (Method::GET, "/runtime/webhooks"),
            (Method::GET, "/page/more"),
            (Method::POST, "/page"),
        ] {
            assert_eq!(status(&host, method, path).await, 404, "{path} {wire:?}");
        }
    }
}

#[tokio::test]
async fn the_hosts_own_page_is_at_the_root_only_when_no_function_answers() {
    let app = App::new();
    for (disabled, wanted) in [("", 200), ("true", 204)] {
        let settings = vec![("AzureWebJobsDisableHomepage".to_owned(), disabled.to_owned())];
        let options = Options { settings, ..app.options(Wire::Proxying) };
        let host = FunctionsHost::start(options).await.expect("the host starts");
        for method in [Method::GET, Method::HEAD, Method::POST] {
            assert_eq!(request(&host, method, "/").send().await.unwrap().status(), wanted);
        }
    }
    app.set_prefix("");
    app.function("Zoo", &json!({"authLevel": "anonymous", "methods": ["get"], "route": "{page?}"}));
    let host = app.start(Wire::Proxying).await;
    assert_eq!(echo(request(&host, Method::GET, "/")).await["uri"], "/");
    assert!(request(&host, Method::POST, "/").send().await.unwrap().text().await.unwrap().contains("up and running"));
}

#[tokio::test]
async fn a_route_of_the_hosts_own_is_an_error() {
    let app = App::new();
    app.function("Things", &json!({"authLevel": "anonymous", "route": "Administration"}));
    let failed = FunctionsHost::start(app.options(Wire::Proxying)).await;
    assert!(format!("{:#}", failed.unwrap_err()).contains("Things: the route conflicts"));
}

#[tokio::test]
async fn a_missing_auth_level_means_function() {
    let app = App::new();
    let keys = vec!["key".to_owned()];
    let host = FunctionsHost::start(Options { keys, ..app.options(Wire::Proxying) }).await.unwrap();
    assert_eq!(status(&host, Method::GET, "/api/locked").await, 401);
    assert_eq!(status(&host, Method::GET, "/api/locked?code=other").await, 401);
    assert_eq!(echo(request(&host, Method::GET, "/api/locked?code=key")).await["uri"], "/api/locked?code=key");
    let with_header = request(&host, Method::GET, "/api/locked").header("x-functions-key", "key");
    assert_eq!(headers(&echo(with_header).await, "x-functions-key"), ["key"]);
    assert_eq!(
        status(&app.start(Wire::Proxying).await, Method::GET, "/api/locked").await,
        200,
        "Core Tools checks no key"
    );
}

#[tokio::test]
async fn each_wire_mode_changes_queries_headers_and_bodies_as_the_real_host_does() {
    let app = App::new();
    for wire in WIRES {
        let host = app.start(wire).await;
        let proxying = wire == Wire::Proxying;
        let typed = request(&host, Method::POST, "/api/echo?a=1&flag&a=2&b=x%20y")
            .header("x-forwarded-for", "9.9.9.9")
            .header("forwarded", "for=9.9.9.9")
            .header("x-azure-functions-invocationid", "mine")
            .header("content-language", "en")
            .header("content-type", "text/plain")
            .body("body");
        let seen = echo(typed).await;
        let query = if proxying { "a=1&flag&a=2&b=x%20y" } else { "a=1%2C2&flag=&b=x+y" };
        assert_eq!(seen["uri"], format!("/api/echo?{query}"));
        assert_eq!(seen["body"], "body");
        let forwarded = headers(&seen, "x-forwarded-for");
        if proxying {
            assert_eq!(forwarded, ["127.0.0.1"]);
            assert!(headers(&seen, "forwarded").is_empty());
            assert_eq!(headers(&seen, "host")[0], host.handler_url(0).unwrap().trim_start_matches("http://"));
            assert_eq!(headers(&seen, "x-azure-functions-invocationid").len(), 1);
            assert_eq!(headers(&seen, "content-language"), ["en"]);
        } else {
            assert!(forwarded[0].starts_with("9.9.9.9, 127.0.0.1:"), "{forwarded:?}");
            assert_eq!(headers(&seen, "host")[0], host.url().trim_start_matches("http://"));
            let ids = headers(&seen, "x-azure-functions-invocationid");
            assert!(ids.len() == 2 && ids[0] == "mine", "{ids:?}");
            assert!(headers(&seen, "content-language").is_empty());
        }
        assert_eq!(headers(&seen, "content-type"), ["text/plain"]);
        // In forwarding mode a body without Content-Length is lost.
        let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>("chunk")]);
        let chunked = request(&host, Method::POST, "/api/echo").body(reqwest::Body::wrap_stream(chunks));
        assert_eq!(echo(chunked).await["body"], if proxying { "chunk" } else { "" });
        let moved = request(&host, Method::GET, "/api/echo?moved").send().await.unwrap();
        assert_eq!(moved.status(), 307);
    }
}

#[tokio::test]
async fn proxying_streams_the_answer_and_drops_the_call_when_the_client_disconnects() {
    let app = App::new();
    let host = app.start(Wire::Proxying).await;
    let mut drip = request(&host, Method::GET, "/api/echo?drip").send().await.unwrap().bytes_stream();
    assert_eq!(drip.next().await.unwrap().unwrap(), "first");
    let waiting = tokio::spawn(request(&host, Method::GET, "/api/echo?wait").send());
    host.wait_for_log(|line| line.text == "waiting").await;
    waiting.abort();
    host.wait_for_log(|line| line.text == "the client has disconnected").await;
}

#[tokio::test]
async fn forwarding_continues_the_call_when_the_client_disconnects() {
    let app = App::new();
    let host = app.start(Wire::Forwarding).await;
    let waiting = tokio::spawn(request(&host, Method::GET, "/api/echo?wait").send());
    host.wait_for_log(|line| line.text == "waiting").await;
    waiting.abort();
    // The handler writes this line after the disconnect, so an earlier notice would be in the log.
    request(&host, Method::GET, "/api/echo?talk").send().await.unwrap();
    host.wait_for_log(|line| line.text == "to stdout").await;
    assert!(!host.logs().iter().any(|line| line.text == "the client has disconnected"));
}

#[tokio::test]
async fn a_line_gets_its_log_level_from_its_stream_and_the_word_warning() {
    let app = App::new();
    let host = app.start(Wire::Proxying).await;
    request(&host, Method::GET, "/api/echo?talk").send().await.unwrap();
    for (text, level) in
        [("to stdout", Level::Information), ("to stderr", Level::Error), ("to stderr, as a Warning", Level::Warning)]
    {
        host.wait_for_log(|line| line.text == text && line.level == level).await;
    }
}

#[tokio::test]
async fn exit_code_200_and_two_failures_restart_the_handler_but_code_0_and_a_third_failure_do_not() {
    let app = App::new();
    let host = app.start(Wire::Proxying).await;
    for (exits, code) in [200, 200, 1, 3].into_iter().enumerate() {
        request(&host, Method::GET, &format!("/api/echo?exit={code}")).send().await.unwrap();
        host.wait_for_exits(0, exits + 1).await;
        host.wait_until_ready(0).await;
        assert_eq!(status(&host, Method::GET, "/api/echo").await, 200, "after {code}");
    }
    request(&host, Method::GET, "/api/echo?exit=1").send().await.unwrap();
    host.wait_for_exits(0, 5).await;
    assert_eq!(status(&host, Method::GET, "/api/echo").await, 503);

    let host = app.start(Wire::Proxying).await;
    request(&host, Method::GET, "/api/echo?exit=0").send().await.unwrap();
    host.wait_for_exits(0, 1).await;
    assert_eq!(status(&host, Method::GET, "/api/echo").await, 503);
}

#[tokio::test]
async fn a_handler_that_ends_at_once_is_an_error_with_its_stderr() {
    let app = App::new();
    let settings = vec![("ECHO_FAIL".to_owned(), "1".to_owned())];
    let failed = FunctionsHost::start(Options { settings, ..app.options(Wire::Proxying) }).await;
    assert!(failed.unwrap_err().to_string().contains("ECHO_FAIL is set"));
}

#[tokio::test]
async fn a_wire_mode_that_host_json_does_not_enable_is_an_error() {
    let app = App::new();
    let setting = ("AzureFunctionsJobHost__customHandler__enableProxyingHttpRequest".to_owned(), "false".to_owned());
    let options = Options { settings: vec![setting], ..app.options(Wire::Proxying) };
    assert!(FunctionsHost::start(options).await.unwrap_err().to_string().contains("enableProxyingHttpRequest"));
}
