//! Paths, methods, function keys and origins, through the host in both wire modes.

use std::collections::BTreeSet;

use devkit::stand_ins::openai::Endpoint;
use reqwest::Method;
use reqwest::header::HeaderName;

use serde_json::json;

use crate::harness::{Setup, Visionary, WIRES};

#[tokio::test]
async fn paths_match_in_any_case_with_a_trailing_slash_and_with_any_query() {
    for wire in WIRES {
        let visionary = Setup::wire(wire).start().await;
        for path in [
            "/api/getImages",
            "/api/getimages",
            "/API/GETIMAGES",
            "/api/getImages/",
            "/api/getImages?",
            "/api/getImages?1699999999999",
            "/api/getImages?_=123&_=456&flag",
        ] {
            let answer = visionary.get(path).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"imageUrls":[]}"#), "{path} {wire:?}");
        }
        for path in ["/api/getChatGptSuggestion", "/api/getchatgptsuggestion/?x", "/api/GenerateSasToken"] {
            assert_eq!(visionary.get(path).await.status, 200, "{path} {wire:?}");
        }
        let post = visionary.request(Method::POST, "/Api/GENERATEimage/").json(&json!({"prompt": "a fox"}));
        assert_eq!(post.send().await.status, 200, "{wire:?}");
    }
}

#[tokio::test]
async fn the_handler_answers_its_root_with_200_and_unknown_paths_with_404() {
    let visionary = Visionary::start().await;
    let handler = visionary.handler(0);

    for (path, status) in
        [("/", 200), ("", 200), ("/api/nothing", 404), ("/getImages", 404), ("/api/generateImage", 405)]
    {
        let answer = handler.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(!answer.header("x-azure-functions-invocationid").is_empty(), "{path}");
        assert_eq!(answer.header("allow"), if status == 405 { "POST" } else { "" }, "{path}");
    }

    // The process looks up its two models when it starts. These requests cost nothing more.
    visionary.openai.wait_for_requests(Endpoint::Models, 2).await;
    let requests = [Endpoint::Models, Endpoint::Images, Endpoint::Responses]
        .map(|endpoint| visionary.openai.requests(endpoint).len());
    assert_eq!(requests, [2, 0, 0]);
}

#[tokio::test]
async fn a_token_needs_the_function_key_and_the_front_ends_other_functions_do_not() {
    for wire in WIRES {
        let visionary = Setup { keys: vec!["the-key".into()], ..Setup::wire(wire) }.start().await;

        assert_eq!(visionary.get("/api/generateSASToken").await.status, 401);
        assert_eq!(visionary.get("/api/generateSASToken?code=wrong").await.status, 401);
        assert_eq!(visionary.get("/api/generateSASToken?code=the-key").await.status, 200);
        assert_eq!(visionary.get("/api/getImages").await.status, 200);
        assert_eq!(visionary.get("/api/getChatGPTSuggestion").await.status, 200);
        let last = visionary.generate("a fox").await;
        assert_eq!(last.status, 200);

        let id = last.header("x-azure-functions-invocationid");
        visionary.host.wait_for_log(|line| line.text.contains(id)).await;
        let is_logged = visionary.host.logs().iter().any(|line| line.text.contains("the-key"));
        assert!(!is_logged, "a function key is logged");
    }
}

/// The host matches the path as it was typed, and in forwarding mode calls the handler with another one.
#[tokio::test]
async fn escaped_dots_reach_no_function_that_needs_a_key() {
    for wire in WIRES {
        let visionary = Setup { keys: vec!["the-key".into()], ..Setup::wire(wire) }.start().await;
        for escaped in ["%252e%252e", "%252E%252e", ".%252e", "%25252e%25252e"] {
            for path in [
                format!("/api/generateImage/{escaped}/generateSASToken"),
                format!("/api/generateImage/jobs/{escaped}/{escaped}/generateSASToken"),
                format!("/api/getImages/{escaped}/generateSASToken"),
            ] {
                let answer = visionary.get(&path).await;
                assert_eq!(answer.status, 404, "{path} {wire:?}: {}", answer.body);
            }
        }
    }
}

#[tokio::test]
async fn the_handler_has_nothing_at_a_path_with_dots_and_no_function_with_a_key_takes_head() {
    let visionary = Visionary::start().await;
    let handler = visionary.handler(0);

    for path in ["/api/x/%252e%252e/generateSASToken", "/api/x/..%252fgenerateSASToken", "/api/%255c../getImages"] {
        assert_eq!(handler.get(path).await.status_and_code(), (404, "not_found"), "{path}");
    }
    for path in ["/api/generateSASToken", "/api/usage", "/api/status"] {
        assert_eq!(handler.request(Method::HEAD, path).send().await.status, 405, "{path}");
    }
    assert_eq!(handler.request(Method::HEAD, "/api/getImages").send().await.status, 200);
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_call_and_one_of_another_may_not() {
    let visionary = Setup { cors: vec!["https://front.example".into()], ..Setup::default() }.start().await;

    for (origin, allowed) in [("https://front.example", true), ("https://other.example", false)] {
        let preflight = visionary
            .request(Method::OPTIONS, "/api/generateImage")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,idempotency-key");
        let preflight = preflight.send().await;
        assert_eq!(preflight.status, 204, "{origin}");
        let headers = if allowed { "content-type,idempotency-key" } else { "" };
        assert_eq!(preflight.header("access-control-allow-headers"), headers, "{origin}");
        let answer = visionary.request(Method::GET, "/api/getImages").header("origin", origin).send().await;
        for answer in [preflight, answer] {
            assert_eq!(answer.headers.contains_key("access-control-allow-origin"), allowed, "{origin}");
        }
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_read_every_header_that_the_app_sends() {
    /// Headers that every page may read (<https://fetch.spec.whatwg.org/#cors-safelisted-response-header-name>).
    const SAFELISTED: [&str; 3] = ["cache-control", "content-length", "content-type"];
    /// Headers for the browser and the host, not for pages.
    const NOT_FOR_PAGES: [&str; 5] = ["access-control-expose-headers", "allow", "date", "transfer-encoding", "vary"];
    let visionary = Setup::default().start().await;

    let job = visionary.post("A job").prefer("respond-async").send().await;
    let answers = [
        visionary.post("A fox").accept_json().send().await,
        visionary.generate("A heron").await,
        visionary.post_raw("{}").send().await,
        visionary.get("/api/getChatGPTSuggestion").await,
        visionary.get("/api/getImages?limit=1").await,
        visionary.handler(0).get("/api/nothing").await,
        visionary.handler(0).get("/api/generateImage").await,
        visionary.get(job.header("location")).await,
        job,
    ];
    let mut seen = BTreeSet::new();
    for answer in &answers {
        let exposed = answer.header("access-control-expose-headers").to_ascii_lowercase();
        let exposed: Vec<&str> = exposed.split(", ").collect();
        for name in answer.headers.keys().map(HeaderName::as_str) {
            let is_readable = exposed.contains(&name) || SAFELISTED.contains(&name) || NOT_FOR_PAGES.contains(&name);
            assert!(is_readable, "a page of another origin cannot read {name}: {}", answer.body);
            seen.insert(name);
        }
    }
    for name in ["etag", "link", "location", "preference-applied", "ratelimit", "retry-after", "x-error-code"] {
        assert!(seen.contains(name), "no answer had {name}: {seen:?}");
    }
}

#[tokio::test]
async fn every_answer_carries_the_invocation_id_of_the_host_and_not_of_the_client() {
    for wire in WIRES {
        let visionary = Setup::wire(wire).start().await;

        for path in ["/api/getImages", "/api/getChatGPTSuggestion"] {
            let request = visionary.request(Method::GET, path).header("x-azure-functions-invocationid", "mine");
            let answer = request.send().await;
            let id = answer.header("x-azure-functions-invocationid").to_owned();
            assert!(id.starts_with("00000000-0000-4000-8000-"), "{id} {wire:?}");
            visionary.host.wait_for_log(|line| line.text.contains(&id)).await;
        }
    }
}
