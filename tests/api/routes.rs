//! Addresses, methods, keys and origins, through the host in both wire modes.

use devkit::stand_ins::openai::Endpoint;
use reqwest::Method;

use crate::harness::{Answer, Setup, Visionary, WIRES};

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
        let posted = visionary.request(Method::POST, "/Api/GENERATEimage/").body(r#"{"prompt":"a fox"}"#);
        assert_eq!(posted.send().await.unwrap().status(), 200, "{wire:?}");
    }
}

#[tokio::test]
async fn the_handler_itself_answers_its_root_at_once_and_unknown_paths_with_404() {
    let visionary = Visionary::start().await;
    let handler = visionary.host.handler_url(0).unwrap();
    for (path, status) in
        [("/", 200), ("", 200), ("/api/nothing", 404), ("/getImages", 404), ("/api/generateImage", 405)]
    {
        let answer = Answer::of(reqwest::get(format!("{handler}{path}")).await.unwrap()).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(!answer.header("x-azure-functions-invocationid").is_empty(), "{path}");
        assert_eq!(answer.header("allow"), if status == 405 { "POST" } else { "" }, "{path}");
    }
    // The look at the two models at the start, and nothing for all of these.
    visionary.openai.wait_for_requests(Endpoint::Models, 2).await;
    let all =
        [Endpoint::Models, Endpoint::Images, Endpoint::Responses].map(|part| visionary.openai.requests(part).len());
    assert_eq!(all, [2, 0, 0]);
}

#[tokio::test]
async fn a_token_needs_the_function_key_and_the_other_three_need_none() {
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
        let logged = visionary.host.logs().iter().any(|line| line.text.contains("the-key"));
        assert!(!logged, "a function key is logged");
    }
}

#[tokio::test]
async fn a_browser_page_of_an_allowed_origin_may_call() {
    let visionary = Setup { cors: vec!["https://front.example".into()], ..Setup::default() }.start().await;
    let preflight = visionary
        .request(Method::OPTIONS, "/api/generateImage")
        .header("origin", "https://front.example")
        .header("access-control-request-method", "POST");
    assert_eq!(preflight.send().await.unwrap().status(), 204);
    for (origin, allowed) in [("https://front.example", true), ("https://other.example", false)] {
        let answer = visionary.request(Method::GET, "/api/getImages").header("origin", origin).send().await.unwrap();
        assert_eq!(answer.headers().contains_key("access-control-allow-origin"), allowed, "{origin}");
    }
}

#[tokio::test]
async fn every_answer_carries_the_hosts_invocation_id_and_not_the_clients() {
    for wire in WIRES {
        let visionary = Setup::wire(wire).start().await;
        for path in ["/api/getImages", "/api/getChatGPTSuggestion"] {
            let request = visionary.request(Method::GET, path).header("x-azure-functions-invocationid", "mine");
            let answer = Answer::of(request.send().await.unwrap()).await;
            let id = answer.header("x-azure-functions-invocationid").to_owned();
            assert!(id.starts_with("00000000-0000-4000-8000-"), "{id} {wire:?}");
            visionary.host.wait_for_log(|line| line.text.contains(&id)).await;
        }
    }
}
