//! What a caller receives when the provider or the storage account fails.

use std::time::Duration;

use devkit::stand_ins::openai::{Endpoint, Reply};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Setup, Visionary, WIRES, masked, status_line};

/// In every scripted error of the provider. The app must not pass it on.
const UPSTREAM: &str = "upstream-sentence-that-quotes-secrets";

fn error(status: u16, kind: &str, code: &str) -> Reply {
    Reply::error(status, kind, code, UPSTREAM)
}

#[tokio::test]
async fn each_failure_of_the_provider_has_its_status_code_and_sentence() {
    let visionary = Setup::default().set("OPENAI_TIMEOUT_SECONDS", "3").start().await;
    let cases = [
        (
            error(400, "image_generation_user_error", "moderation_blocked"),
            422,
            "prompt_rejected",
            "refused this prompt",
        ),
        (
            error(400, "invalid_request_error", "content_policy_violation"),
            422,
            "prompt_rejected",
            "refused this prompt",
        ),
        (
            Reply::json(400, &json!({"error": {"code": "content_filter", "message": UPSTREAM}})),
            422,
            "prompt_rejected",
            "refused this prompt",
        ),
        (
            Reply::json(400, &json!({"error": {"innererror": {"code": "ResponsibleAIPolicyViolation"}}})),
            422,
            "prompt_rejected",
            "refused this prompt",
        ),
        (error(400, "invalid_request_error", "unknown_parameter"), 502, "provider_misconfigured", "OPENAI_IMAGE_WIRE"),
        (error(404, "invalid_request_error", "model_not_found"), 502, "provider_misconfigured", "OPENAI_IMAGE_MODEL"),
        (error(403, "invalid_request_error", "model_not_found"), 502, "provider_misconfigured", "OPENAI_IMAGE_MODEL"),
        (
            Reply::json(
                400,
                &json!({"error": {"type": "image_generation_user_error", "code": "invalid_value", "param": "model"}}),
            ),
            502,
            "provider_misconfigured",
            "OPENAI_IMAGE_MODEL",
        ),
        // The message is for the operator, as the caller cannot change this by another prompt.
        (
            error(400, "image_generation_user_error", "invalid_value"),
            502,
            "provider_misconfigured",
            "OPENAI_IMAGE_WIRE",
        ),
        (
            Reply::json(400, &json!({"error": {"type": "image_generation_user_error", "message": UPSTREAM}})),
            422,
            "prompt_rejected",
            "refused this prompt",
        ),
        (error(429, "requests", "slow_down").header("x-should-retry", "false"), 429, "provider_rate_limited", "busy"),
        (Reply::body(504, "text/html", "<html>504</html>"), 502, "provider_answer_lost", "billed"),
        (Reply::body(200, "text/html", "<html>hello</html>"), 502, "provider_failed", "failed"),
        (Reply::body(200, "application/json", "{\"data\": [{\"b64_js"), 502, "provider_failed", "failed"),
        (Reply::json(200, &json!({"created": 1})), 502, "provider_failed", "failed"),
        (Reply::json(200, &json!({"data": [{"b64_json": "%%%"}]})), 502, "provider_failed", "failed"),
        (Reply::json(200, &json!({"data": [{"b64_json": "PGh0bWw+"}]})), 502, "provider_failed", "failed"),
        (Reply::json(200, &json!({"data": [{"url": "http://203.0.113.1/x.png"}]})), 502, "provider_failed", "failed"),
        (Reply::normal().cut_before_answer(), 502, "provider_answer_lost", "billed"),
        (Reply::normal().cut_after_headers(), 502, "provider_answer_lost", "billed"),
        (Reply::normal().cut_inside_body(), 502, "provider_answer_lost", "billed"),
        (Reply::normal().hang(), 504, "provider_timeout", "in time"),
    ];
    let count = cases.len();

    for (number, (reply, status, code, words)) in cases.into_iter().enumerate() {
        visionary.openai.script(Endpoint::Images, reply);
        let answer = visionary.generate("a fox of secrets").await;
        assert_eq!(answer.status_and_code(), (status, code), "case {number}");
        assert!(answer.body.contains(words), "case {number}: {}", answer.body);
        assert!(answer.body.starts_with(|c: char| c.is_uppercase()), "a sentence comes first: {}", answer.body);
        assert!(!answer.body.contains(UPSTREAM), "{}", answer.body);
    }

    // No request is repeated, nothing is stored, and the log holds no secret.
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), count);
    assert!(visionary.list().await.is_empty());
    let log: Vec<String> = visionary.host.logs().into_iter().map(|line| line.text).collect();
    assert!(log.iter().any(|line| line.contains("content_policy_violation")), "the cause is logged");
    for secret in [UPSTREAM, "a fox of secrets", crate::harness::API_KEY] {
        assert!(!log.iter().any(|line| line.contains(secret)), "{secret} is logged");
    }
}

/// The app remembers a refused key or an empty account for a while, and does not ask the provider again.
#[tokio::test]
async fn a_refused_key_or_an_empty_account_is_answered_without_the_provider_for_a_while() {
    for (reply, words) in [
        (error(401, "invalid_request_error", "invalid_api_key"), "OPENAI_API_KEY"),
        (error(403, "invalid_request_error", "not_verified"), "OPENAI_ORG_ID"),
        (error(429, "insufficient_quota", "credit_balance_exhausted"), "billing"),
        (error(429, "insufficient_quota", "insufficient_quota").header("retry-after", "1"), "billing"),
        (error(400, "invalid_request_error", "billing_hard_limit_reached"), "billing"),
    ] {
        let visionary = Setup::default().set("MODERATION", "on").start().await;
        visionary.openai.script(Endpoint::Images, reply);
        for _ in 0..3 {
            let answer = visionary.generate("a fox").await;
            assert_eq!(answer.status_and_code(), (502, "provider_misconfigured"));
            assert!(answer.body.contains(words), "{}", answer.body);
        }
        assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1, "{words}");
        assert_eq!(visionary.openai.requests(Endpoint::Moderations).len(), 1, "{words}");
        // An error in the log is for the operator.
        visionary.host.wait_for_log(|line| line.text.contains("ERROR")).await;
    }
}

#[tokio::test]
async fn a_failure_that_drew_nothing_is_retried_at_most_twice() {
    let busy = || error(429, "requests", "rate_limit_exceeded").header("retry-after-ms", "10");
    let down = |status| Reply::body(status, "text/html", "<html>").header("retry-after-ms", "10");
    for replies in [
        vec![busy()],
        vec![busy(), busy()],
        vec![down(500)],
        vec![down(502), down(503)],
        vec![error(503, "server_error", "server_is_overloaded").header("retry-after", "0")],
        vec![error(409, "conflict", "lock_timeout").header("x-should-retry", "true").header("retry-after", "0.01")],
    ] {
        let (visionary, tries) = (Visionary::start().await, replies.len() + 1);
        replies.into_iter().for_each(|reply| visionary.openai.script(Endpoint::Images, reply));

        let answer = visionary.generate("a fox").await;

        assert_eq!(answer.status, 200);
        assert_eq!(visionary.openai.requests(Endpoint::Images).len(), tries);
        assert_eq!(visionary.openai.images_drawn().len(), 1);
        assert_eq!(visionary.list().await.len(), 1);
    }
    for (reply, status) in [(busy(), 429), (down(500), 502)] {
        let visionary = Visionary::start().await;
        visionary.openai.script_always(Endpoint::Images, reply);
        assert_eq!(visionary.generate("a fox").await.status, status);
        assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 3);
        assert!(visionary.list().await.is_empty());
    }
}

/// A retry without enough time for an image would be billed, and its answer would come too late.
#[tokio::test]
async fn a_wait_that_leaves_too_little_time_for_an_image_is_not_waited_for() {
    for wait in ["30", "4"] {
        let visionary = Setup::default().set("OPENAI_TIMEOUT_SECONDS", "5").start().await;
        visionary.openai.script(Endpoint::Images, error(503, "server_error", "x").header("retry-after", wait));

        let answer = visionary.generate("a fox").await;

        assert_eq!(answer.status, 502);
        assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1, "{wait}");
    }
}

#[tokio::test]
async fn a_model_that_is_gone_is_replaced_by_the_next_fallback() {
    let setup = Setup::default().set("OPENAI_IMAGE_MODEL", "gpt-image-1");
    let visionary = setup.set("OPENAI_IMAGE_FALLBACKS", "dall-e-2, dall-e-3,gpt-image-2").start().await;

    let body = json!({"prompt": "a fox", "quality": "low", "size": "1536x1024"});
    let answer = visionary.post_json(&body).accept_json().send().await;

    assert_eq!(answer.json()["model"], "dall-e-3");
    let bodies: Vec<Value> =
        visionary.openai.requests(Endpoint::Images).into_iter().map(|request| request.body).collect();
    let models: Vec<&Value> = bodies.iter().map(|body| &body["model"]).collect();
    assert_eq!(models, ["gpt-image-1", "dall-e-2", "dall-e-3"]);
    assert_eq!(bodies[2]["response_format"], "b64_json", "each family has its own body");
    let names_the_setting =
        |line: &str| line.contains("ERROR") && line.contains("OPENAI_IMAGE_MODEL") && line.contains("gpt-image-1");
    visionary.host.wait_for_log(|line| names_the_setting(&line.text)).await;
}

#[tokio::test]
async fn a_model_that_is_gone_without_a_fallback_is_502() {
    let visionary = Setup::default().set("OPENAI_IMAGE_MODEL", "gpt-image-1").start().await;
    let answer = visionary.generate("a fox").await;
    assert_eq!(answer.status_and_code(), (502, "provider_misconfigured"));
}

#[tokio::test]
async fn the_callers_retry_after_is_the_providers() {
    let visionary = Visionary::start().await;

    for (header, value, wanted) in [
        ("retry-after", "17", "17"),
        ("retry-after-ms", "1500", "2"),
        ("retry-after", "2.5", "3"),
        ("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT", "1"),
    ] {
        let reply = error(429, "requests", "slow_down").header(header, value).header("x-should-retry", "false");
        visionary.openai.script(Endpoint::Images, reply.header("date", "Sat, 01 Jan 2000 00:00:00 GMT"));

        assert_eq!(visionary.generate("a fox").await.header("retry-after"), wanted, "{header}: {value}");
    }
}

#[tokio::test]
async fn an_image_is_fetched_only_from_a_public_address_over_https() {
    let visionary = Setup::default().set("OPENAI_IMAGE_MODEL", "dall-e-3").start().await;
    let local = visionary.openai.base_url().replace("/v1", "/files/none.png");
    let redirect = |to: &str| Reply::body(302, "text/plain", "").header("location", to);
    for (url, files, log) in [
        ("http://203.0.113.1/x.png", vec![], "not https"),
        ("file:///etc/passwd", vec![], "not https"),
        ("https://169.254.169.254/x.png", vec![], "private address"),
        ("https://10.1.2.3/x.png", vec![], "private address"),
        ("https://100.64.0.1/x.png", vec![], "private address"),
        ("https://[::ffff:192.168.0.1]/x.png", vec![], "private address"),
        ("https://[fd00::1]/x.png", vec![], "private address"),
        ("no url", vec![], "malformed"),
        (&local, vec![], "answers with no image"),
        (&local, vec![redirect("https://169.254.169.254/latest/meta-data")], "private address"),
        (&local, vec![redirect("http://203.0.113.1/x.png")], "not https"),
        (&local, (0..4).map(|_| redirect("/files/none.png")).collect(), "too often"),
        (&local, vec![Reply::body(200, "image/png", "<html>")], "neither PNG nor JPEG nor WebP"),
    ] {
        let address = url.to_owned();
        let reply = Reply::normal().patch(move |answer| answer["data"] = json!([{"url": address}]));
        visionary.openai.script(Endpoint::Images, reply);
        files.into_iter().for_each(|file| visionary.openai.script(Endpoint::Files, file));

        let answer = visionary.generate("a fox").await;

        assert_eq!(answer.status, 502, "{url}: {}", answer.body);
        let id = answer.header("x-azure-functions-invocationid");
        visionary.host.wait_for_log(|line| line.text.contains(id) && line.text.contains(log)).await;
    }

    // A redirect to the provider's own server is followed, and the image is stored.
    let reply = Reply::normal().patch(move |answer| answer["data"] = json!([{"url": local}]));
    visionary.openai.script(Endpoint::Images, reply);
    visionary.openai.script(Endpoint::Files, redirect("/files/1.png"));
    visionary.openai.script(Endpoint::Files, Reply::body(200, "image/png", b"\x89PNG\r\n\x1a\n there".to_vec()));
    assert_eq!(visionary.generate("a fox").await.status, 200);
    assert!(visionary.list().await.len() == 1);
}

#[tokio::test]
async fn a_caller_that_accepts_json_gets_a_problem_document() {
    for wire in WIRES {
        let visionary = Setup::wire(wire).start().await;

        let answer = visionary.post("something forbidden").accept_json().send().await;

        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.json()["invocationId"], answer.header("x-azure-functions-invocationid"));
        insta::allow_duplicates! {
            insta::assert_json_snapshot!(masked(answer.json(), &["invocationId"]), @r#"
            {
              "code": "prompt_rejected",
              "detail": "The image provider refused this prompt. Please rephrase it.",
              "invocationId": "[invocationId]",
              "status": 422,
              "title": "Unprocessable Entity",
              "type": "about:blank"
            }
            "#);
        }
    }
}

#[tokio::test]
async fn an_image_that_storage_cannot_take_yet_is_202_and_the_gallery_503() {
    let azurite = crate::harness::azurite();
    let gone = azurite.connection_string().replace(&format!(":{}/", azurite.blob_port()), ":9/");
    let visionary = Setup::default().set("AzureWebJobsStorage", gone).start().await;

    let image = visionary.generate("a fox").await;
    let gallery = visionary.get("/api/getImages").await;

    assert_eq!(image.status, 202);
    assert!(image.body.contains("will appear in the gallery"), "{}", image.body);
    assert_eq!(gallery.status_and_code(), (503, "storage_unavailable"));
}

#[tokio::test]
async fn with_a_wrong_account_key_the_gallery_is_a_problem_document_with_an_empty_list() {
    let wrong_key = crate::harness::azurite().connection_string().replace("Eby8", "Eby9");
    let visionary = Setup::default().set("AzureWebJobsStorage", wrong_key).start().await;

    for accept in ["*/*", "application/json"] {
        let answer = visionary.request(Method::GET, "/api/getImages").accept(accept).send().await;
        assert_eq!(answer.status_and_code(), (503, "storage_unavailable"));
        assert_eq!(answer.json()["imageUrls"], json!([]), "{accept}");
        assert!(matches!(&answer.json()["detail"], Value::String(sentence) if sentence.starts_with("Storage")));
    }
    // The log holds the cause.
    visionary.host.wait_for_log(|line| line.text.contains("403")).await;
}

/// The model takes 32,000 characters, in any script and any JSON notation.
#[tokio::test]
async fn the_longest_prompt_fits_in_any_notation_and_more_is_413_before_it_is_sent() {
    let visionary = Visionary::start().await;

    let chinese = "狐".repeat(32_000);
    let escaped: String = "\\ud83e\\udd8a".repeat(32_000);
    for body in [json!({"prompt": chinese}).to_string(), format!("{{\"prompt\": \"{escaped}\"}}")] {
        let answer = visionary.post_raw(&body).send().await;
        assert_eq!(answer.status, 200, "{} bytes: {}", body.len(), answer.body);
    }

    // The handler refuses by the announced length: it does not invite the body.
    let mut connection = visionary.connect().await;
    let request =
        "POST /api/generateImage HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\nExpect: 100-continue\r\n\r\n";
    connection.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status_line(&mut connection).await, "HTTP/1.1 413");
}

#[tokio::test]
async fn a_broken_body_and_a_path_that_is_no_text_have_codes_of_their_own() {
    let visionary = Visionary::start().await;

    let mut connection = visionary.connect().await;
    let request = "POST /api/generateImage HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n";
    connection.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(status_line(&mut connection).await, "HTTP/1.1 400");

    let path = format!("/api/generateImage/jobs/{}", "%ff".repeat(25));
    for handler in [visionary.get(&path).await, visionary.handler(0).get("/api/generateImage/jobs/%ff").await] {
        assert_eq!(handler.status_and_code(), (404, "not_found"));
    }
}

/// A filter in front of the provider answers like this for some prompts.
#[tokio::test]
async fn a_403_of_a_filter_concerns_its_own_request_only() {
    let visionary = Visionary::start().await;
    visionary.openai.script(Endpoint::Images, Reply::body(403, "text/html", "<html>Request blocked</html>"));

    let blocked = visionary.generate("a fox").await;

    assert_eq!(blocked.status_and_code(), (502, "provider_failed"));
    assert_eq!(visionary.generate("another fox").await.status, 200);
}

/// LiteLLM 1.106 lets the provider draw and bill a streamed image, and then answers 500.
#[tokio::test]
async fn a_gateway_that_fails_after_the_image_was_drawn_is_paid_once_and_asked_without_streaming() {
    let visionary = Setup::default().set("DAILY_BUDGET_USD", "5").start().await;
    let late = Reply::error(500, "internal_server_error", "500", "x").after(Duration::from_millis(3_500));
    visionary.openai.script(Endpoint::Images, late);

    let events = visionary.post("a fox").events().stream().await.rest().await;

    let (name, problem) = events.last().unwrap();
    assert_eq!((name.as_str(), &problem["code"]), ("error", &json!("provider_answer_lost")));
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1, "it is not asked for again");
    assert_eq!(visionary.accounted().await["lost"], 1);

    let events = visionary.post("a fox").events().stream().await.rest().await;
    assert_eq!(events.last().unwrap().0, "image");
    let requests = visionary.openai.requests(Endpoint::Images);
    assert_eq!((&requests[0].body["stream"], &requests[1].body["stream"]), (&json!(true), &Value::Null));
}
