//! The fault matrix: faults of the provider. Faults of storage are in faults_storage.rs, those of the
//! process, the client and the load in faults_process.rs.

use std::time::{Duration, Instant};

use devkit::stand_ins::faults::Line;
use devkit::stand_ins::openai::{Endpoint, OpenAi, Reply};
use serde_json::json;

use crate::harness::Setup;
use crate::matrix::{
    Counts, Wanted, accounted_as, failed, is_unreachable, lost, run, setup, stored, unreachable, with_lines,
};
use crate::ways::{End, Way, request_at_once};

/// Every way meets the same fault and ends in the same outcome.
async fn row(setup: Setup, replies: Vec<Reply>, wanted: Wanted) {
    run(setup, &Way::ALL, script(replies), |_| wanted.clone()).await;
}

/// A temporary failure that lasts for the three tries of one request. A synchronous request answers with
/// the failure; a job is delivered again, and its image is drawn then.
async fn temporary_row(reply: Reply, status: u16, code: &str) {
    let wanted = |way: Way| if way.is_queued() { stored(4) } else { failed(status, code, 3) };
    run(setup(), &Way::ALL, script(vec![reply; 3]), wanted).await;
}

fn script(replies: Vec<Reply>) -> impl Fn(&OpenAi) {
    move |openai| replies.iter().for_each(|reply| openai.script(Endpoint::Images, reply.clone()))
}

fn error(status: u16, kind: &str, code: &str) -> Reply {
    Reply::error(status, kind, code, "in the provider's words").header("retry-after-ms", "10")
}

#[tokio::test]
async fn provider_refuses_connections() {
    let visionary = with_lines().start().await;
    let line = &visionary.lines.as_ref().expect("lines").provider;
    let mut counts = Counts::default();
    for way in Way::ALL {
        line.set(Line::Refused);
        let before = visionary.host.logs().iter().filter(|line| is_unreachable(line)).count();
        let wanted = if way.is_queued() { stored(1) } else { failed(502, "provider_failed", 0) };

        let repair = async {
            unreachable(&visionary, before).await;
            line.set(Line::Whole);
        };
        let (outcome, ()) = tokio::join!(way.request(&visionary), repair);

        assert_eq!(outcome.end, wanted.end, "{way:?}");
        counts = counts.and(wanted.counts);
        accounted_as(&visionary, counts, &format!("after {way:?}")).await;
    }
}

/// A gateway's own 429 may come after the provider has drawn.
#[tokio::test]
async fn provider_answers_429_when_it_may_have_drawn() {
    let late = error(429, "requests", "rate_limit_exceeded").after(Duration::from_secs(4));
    row(setup(), vec![late], lost(502, "provider_answer_lost", 0)).await;
}

#[tokio::test]
async fn provider_answers_429_then_200() {
    row(setup(), vec![error(429, "requests", "rate_limit_exceeded")], stored(2)).await;
}

#[tokio::test]
async fn provider_answers_429_to_each_try() {
    temporary_row(error(429, "requests", "slow_down"), 429, "provider_rate_limited").await;
}

/// A process remembers an empty account for 30 s, so each way has its own process. Queued ways are left
/// out: their jobs would wait for those 30 s.
#[tokio::test]
async fn provider_answers_429_because_the_account_is_empty() {
    let empty = error(429, "insufficient_quota", "credit_balance_exhausted");
    let wanted = failed(502, "provider_misconfigured", 1);
    for way in Way::SYNCHRONOUS {
        run(Setup::default(), &[way], script(vec![empty.clone()]), |_| wanted.clone()).await;
    }
}

/// A process remembers a refused key, too.
#[tokio::test]
async fn provider_refuses_the_key() {
    let refusal = error(401, "invalid_request_error", "invalid_api_key");
    let wanted = failed(502, "provider_misconfigured", 1);
    for way in Way::SYNCHRONOUS {
        run(Setup::default(), &[way], script(vec![refusal.clone()]), |_| wanted.clone()).await;
    }
}

#[tokio::test]
async fn provider_answers_500_then_200() {
    row(setup(), vec![error(500, "server_error", "server_error")], stored(2)).await;
}

#[tokio::test]
async fn provider_answers_503_to_each_try() {
    temporary_row(error(503, "server_error", "server_is_overloaded"), 502, "provider_failed").await;
}

#[tokio::test]
async fn provider_answers_503_with_retry_after_2() {
    let overloaded = Reply::error(503, "server_error", "server_is_overloaded", "").header("retry-after", "2");
    let started = Instant::now();
    row(setup(), vec![overloaded], stored(2)).await;
    let waits = Duration::from_secs(2) * u32::try_from(Way::ALL.len()).expect("a few");
    assert!(started.elapsed() >= waits, "each way waits for the Retry-After");
}

#[tokio::test]
async fn provider_hangs() {
    let setup = setup().set("OPENAI_TIMEOUT_SECONDS", "1");
    row(setup, vec![Reply::body(200, "application/json", "").hang()], lost(504, "provider_timeout", 0)).await;
}

#[tokio::test]
async fn provider_cuts_before_the_answer() {
    let cut = Reply::body(200, "application/json", "").cut_before_answer();
    row(setup(), vec![cut], lost(502, "provider_answer_lost", 0)).await;
}

#[tokio::test]
async fn provider_cuts_after_the_headers() {
    row(setup(), vec![Reply::normal().cut_after_headers()], lost(502, "provider_answer_lost", 1)).await;
}

#[tokio::test]
async fn provider_cuts_inside_the_body() {
    row(setup(), vec![Reply::normal().cut_inside_body()], lost(502, "provider_answer_lost", 1)).await;
}

#[tokio::test]
async fn a_gateway_before_the_provider_gives_up() {
    row(setup(), vec![Reply::body(504, "text/html", "<html>")], lost(502, "provider_answer_lost", 0)).await;
}

/// A 200 answer without an image. The provider may have drawn one, so it counts.
async fn useless_row(reply: Reply) {
    row(setup(), vec![reply], lost(502, "provider_failed", 0)).await;
}

#[tokio::test]
async fn provider_sends_malformed_json() {
    useless_row(Reply::body(200, "application/json", "{\"data\": [{\"b64_js")).await;
}

#[tokio::test]
async fn provider_sends_empty_data() {
    useless_row(Reply::json(200, &json!({"created": 1, "data": []}))).await;
}

#[tokio::test]
async fn provider_sends_invalid_base64() {
    useless_row(Reply::json(200, &json!({"created": 1, "data": [{"b64_json": "%%%"}]}))).await;
}

#[tokio::test]
async fn provider_sends_html_with_200() {
    useless_row(Reply::body(200, "text/html", "<html>")).await;
}

#[tokio::test]
async fn provider_sends_an_endless_answer() {
    useless_row(Reply::body(200, "application/json", "{\"data\": [{\"b64_json\": \"").endless()).await;
}

/// The image is what was paid for; wrong metadata beside it does not matter.
#[tokio::test]
async fn provider_sends_an_image_with_malformed_metadata() {
    let odd = Reply::normal().patch(|answer| {
        answer["size"] = json!(1024);
        answer["quality"] = json!({"is": "high"});
        answer["usage"] = json!("much");
        // In a stream the event itself is the item.
        let item = if answer["data"].is_array() { &mut answer["data"][0] } else { answer };
        item["revised_prompt"] = json!(["a", "fox"]);
    });
    row(setup(), vec![odd], stored(1)).await;
}

/// The provider draws an image and answers with its URL, which returns these files.
fn at_a_url(files: Vec<Reply>) -> impl Fn(&OpenAi) {
    move |openai| {
        let url = openai.base_url().replace("/v1", "/files/1.png");
        let drawn = Reply::normal().patch(move |answer| answer["data"] = json!([{"b64_json": "", "url": url}]));
        openai.script(Endpoint::Images, drawn);
        files.iter().for_each(|file| openai.script(Endpoint::Files, file.clone()));
    }
}

fn image() -> Reply {
    Reply::body(200, "image/png", b"\x89PNG\r\n\x1a\n there".to_vec())
}

/// A row whose image is at a URL. The app requests the URL once for each of these files.
async fn url_row(files: Vec<Reply>, wanted: Wanted) {
    let setup = setup().set("OPENAI_IMAGE_MODEL", "dall-e-3");
    let tries = files.len();
    let visionary = run(setup, &Way::ALL, at_a_url(files), |_| wanted.clone()).await;
    assert_eq!(visionary.openai.requests(Endpoint::Files).len(), tries * Way::ALL.len());
}

#[tokio::test]
async fn provider_sends_a_url_that_fails_at_first() {
    url_row(vec![Reply::body(503, "text/html", ""), image().cut_inside_body(), image()], stored(1)).await;
}

/// A try of the URL takes up to 20 s, so all ways run at the same time.
#[tokio::test]
async fn provider_sends_a_url_that_hangs_at_first() {
    // The provider's timeout does not apply to the URL.
    let setup = setup().set("OPENAI_IMAGE_MODEL", "dall-e-3").set("OPENAI_TIMEOUT_SECONDS", "5");
    let visionary = setup.start().await;
    Way::ALL.iter().for_each(|_| at_a_url(vec![image().hang()])(&visionary.openai));
    Way::ALL.iter().for_each(|_| visionary.openai.script(Endpoint::Files, image()));

    for (way, outcome) in request_at_once(&visionary, &Way::ALL).await {
        assert_eq!(outcome.end, End::Stored, "{way:?}");
    }

    accounted_as(&visionary, Counts::of_images(5), "after all ways").await;
    assert_eq!(visionary.openai.requests(Endpoint::Files).len(), 10);
}

/// The image is drawn and billed, and its URL is of no use.
async fn useless_url_row(file: Reply) {
    url_row(vec![file], lost(502, "provider_failed", 1)).await;
}

#[tokio::test]
async fn provider_sends_a_url_that_is_404() {
    useless_url_row(Reply::body(404, "text/html", "<html>")).await;
}

#[tokio::test]
async fn provider_sends_a_url_that_is_a_page() {
    useless_url_row(Reply::body(200, "image/png", "<html>")).await;
}

#[tokio::test]
async fn provider_sends_a_url_that_is_endless() {
    useless_url_row(Reply::body(200, "image/png", b"\x89PNG\r\n\x1a\n".to_vec()).endless()).await;
}

#[tokio::test]
async fn provider_sends_a_url_that_redirects_to_169_254_169_254() {
    useless_url_row(Reply::body(302, "text/plain", "").header("location", "https://169.254.169.254/metadata")).await;
}

#[tokio::test]
async fn the_model_is_gone_and_there_is_a_fallback() {
    let setup = setup().set("OPENAI_IMAGE_MODEL", "gpt-image-1").set("OPENAI_IMAGE_FALLBACKS", "gpt-image-2");
    row(setup, vec![], stored(2)).await;
}

#[tokio::test]
async fn the_model_is_gone_and_there_is_no_fallback() {
    let setup = setup().set("OPENAI_IMAGE_MODEL", "gpt-image-1");
    row(setup, vec![], failed(502, "provider_misconfigured", 1)).await;
}

#[tokio::test]
async fn provider_refuses_the_prompt() {
    let refusal = error(400, "image_generation_user_error", "moderation_blocked");
    row(setup(), vec![refusal], failed(422, "prompt_rejected", 1)).await;
}
