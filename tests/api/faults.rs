//! The fault matrix: what the caller saw, how often the provider was asked to draw, and what is in
//! the gallery afterwards.

use std::time::{Duration, Instant};

use bytes::Bytes;
use devkit::faults::{Faults, Line};
use devkit::memory;
use devkit::openai::{self, Endpoint, Hold, Painting, Reply};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Setup, Visionary, WIRES, azurite, with_faults_before};

/// One prompt; `wanted` is the status, the code, how often the provider was asked, how many pictures
/// it drew, and how many there are.
async fn row(setup: Setup, replies: Vec<Reply>, wanted: (u16, &str, usize, usize, usize)) {
    let visionary = setup.start().await;
    replies.into_iter().for_each(|reply| visionary.openai.script(Endpoint::Images, reply));
    let answer = visionary.generate("a fox").await;
    let (asked, drawn) = (visionary.openai.requests(Endpoint::Images).len(), visionary.openai.pictures_drawn().len());
    let listed = visionary.list().await.len();
    let seen = (answer.status, answer.header("x-error-code"), asked, drawn, listed);
    assert_eq!(seen, wanted, "{}", answer.body);
}

fn one_second() -> Setup {
    Setup::default().set("OPENAI_TIMEOUT_SECONDS", "1")
}

fn error(status: u16, kind: &str, code: &str) -> Reply {
    Reply::error(status, kind, code, "in the provider's words").header("retry-after-ms", "10")
}

// The provider.

#[tokio::test]
async fn provider_refuses_connections() {
    let setup = Setup::default().set("OPENAI_BASE_URL", "http://127.0.0.1:9/v1");
    row(setup, vec![], (502, "provider_failed", 0, 0, 0)).await;
}

#[tokio::test]
async fn provider_answers_429_then_200() {
    let busy = error(429, "requests", "rate_limit_exceeded");
    row(Setup::default(), vec![busy], (200, "", 2, 1, 1)).await;
}

#[tokio::test]
async fn provider_answers_429_for_ever() {
    let busy = error(429, "requests", "slow_down");
    row(Setup::default(), vec![busy; 9], (429, "provider_rate_limited", 3, 0, 0)).await;
}

#[tokio::test]
async fn provider_answers_429_for_want_of_money() {
    let empty = error(429, "insufficient_quota", "credit_balance_exhausted");
    row(Setup::default(), vec![empty], (502, "provider_misconfigured", 1, 0, 0)).await;
}

#[tokio::test]
async fn provider_answers_500_then_200() {
    row(Setup::default(), vec![error(500, "server_error", "server_error")], (200, "", 2, 1, 1)).await;
}

#[tokio::test]
async fn provider_answers_503_with_retry_after_2() {
    let overloaded = Reply::error(503, "server_error", "server_is_overloaded", "").header("retry-after", "2");
    let started = Instant::now();
    row(Setup::default(), vec![overloaded], (200, "", 2, 1, 1)).await;
    assert!(started.elapsed() >= Duration::from_secs(2), "the wait is obeyed");
}

#[tokio::test]
async fn provider_hangs() {
    row(one_second(), vec![Reply::normal().hang()], (504, "provider_timeout", 1, 0, 0)).await;
}

#[tokio::test]
async fn provider_cuts_after_the_headers() {
    row(Setup::default(), vec![Reply::normal().cut_after_headers()], (502, "provider_answer_lost", 1, 1, 0)).await;
}

#[tokio::test]
async fn provider_cuts_inside_the_body() {
    row(Setup::default(), vec![Reply::normal().cut_inside_body()], (502, "provider_answer_lost", 1, 1, 0)).await;
}

#[tokio::test]
async fn provider_sends_malformed_json() {
    let reply = Reply::body(200, "application/json", "{\"data\": [{\"b64_js");
    row(Setup::default(), vec![reply], (502, "provider_failed", 1, 0, 0)).await;
}

#[tokio::test]
async fn provider_sends_empty_data() {
    let reply = Reply::json(200, &json!({"created": 1, "data": []}));
    row(Setup::default(), vec![reply], (502, "provider_failed", 1, 0, 0)).await;
}

#[tokio::test]
async fn provider_sends_invalid_base64() {
    let reply = Reply::json(200, &json!({"created": 1, "data": [{"b64_json": "%%%"}]}));
    row(Setup::default(), vec![reply], (502, "provider_failed", 1, 0, 0)).await;
}

#[tokio::test]
async fn provider_sends_html_with_200() {
    row(Setup::default(), vec![Reply::body(200, "text/html", "<html>")], (502, "provider_failed", 1, 0, 0)).await;
}

#[tokio::test]
async fn provider_sends_an_endless_answer() {
    let reply = Reply::body(200, "application/json", "{\"data\": [{\"b64_json\": \"").endless();
    row(Setup::default(), vec![reply], (502, "provider_failed", 1, 0, 0)).await;
}

/// A row whose picture is at a URL, which answers as given.
async fn url_row(file: Reply) {
    let visionary = Setup::default().set("OPENAI_IMAGE_MODEL", "dall-e-3").start().await;
    let url = visionary.openai.base_url().replace("/v1", "/files/1.png");
    let reply = Reply::normal().patch(move |answer| answer["data"] = json!([{"url": url}]));
    visionary.openai.script(Endpoint::Images, reply);
    visionary.openai.script(Endpoint::Files, file);
    let answer = visionary.generate("a fox").await;
    assert_eq!((answer.status, answer.header("x-error-code")), (502, "provider_failed"), "{}", answer.body);
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
    assert_eq!(visionary.openai.requests(Endpoint::Files).len(), 1);
    assert!(visionary.list().await.is_empty());
}

#[tokio::test]
async fn provider_sends_a_url_that_is_404() {
    url_row(Reply::body(404, "text/html", "<html>")).await;
}

/// A row whose picture is at a URL that fails so first, and then answers.
async fn url_in_the_end(failures: Vec<Reply>) {
    // The time for drawing is not the time for fetching.
    let setup = Setup::default().set("OPENAI_IMAGE_MODEL", "dall-e-3").set("OPENAI_TIMEOUT_SECONDS", "5");
    let visionary = setup.start().await;
    let url = visionary.openai.base_url().replace("/v1", "/files/1.png");
    let drawn = Reply::normal().patch(move |answer| answer["data"] = json!([{"b64_json": "", "url": url}]));
    visionary.openai.script(Endpoint::Images, drawn);
    let tries = failures.len() + 1;
    failures.into_iter().for_each(|failure| visionary.openai.script(Endpoint::Files, failure));
    visionary.openai.script(Endpoint::Files, picture());
    assert_eq!(visionary.generate("a fox").await.status, 200);
    assert_eq!(visionary.openai.requests(Endpoint::Files).len(), tries);
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1, "paid once");
    assert_eq!(visionary.list().await.len(), 1);
}

fn picture() -> Reply {
    Reply::body(200, "image/png", b"\x89PNG\r\n\x1a\n there".to_vec())
}

#[tokio::test]
async fn provider_sends_a_url_that_fails_at_first() {
    url_in_the_end(vec![Reply::body(503, "text/html", ""), picture().cut_inside_body()]).await;
}

#[tokio::test]
async fn provider_sends_a_url_that_hangs_at_first() {
    url_in_the_end(vec![picture().hang()]).await;
}

/// What is said about a picture is not what it was paid for.
#[tokio::test]
async fn provider_says_odd_things_about_the_picture() {
    let odd = Reply::normal().patch(|answer| {
        answer["size"] = json!(1024);
        answer["quality"] = json!({"is": "high"});
        answer["usage"] = json!("much");
        answer["data"][0]["revised_prompt"] = json!(["a", "fox"]);
    });
    row(Setup::default(), vec![odd], (200, "", 1, 1, 1)).await;
}

#[tokio::test]
async fn provider_sends_a_url_that_is_a_page() {
    url_row(Reply::body(200, "image/png", "<html>")).await;
}

#[tokio::test]
async fn provider_sends_a_url_that_is_endless() {
    url_row(Reply::body(200, "image/png", b"\x89PNG\r\n\x1a\n".to_vec()).endless()).await;
}

#[tokio::test]
async fn provider_sends_a_url_that_redirects_to_169_254_169_254() {
    url_row(Reply::body(302, "text/plain", "").header("location", "https://169.254.169.254/metadata")).await;
}

#[tokio::test]
async fn the_model_is_gone_and_there_is_a_fallback() {
    let setup = Setup::default().set("OPENAI_IMAGE_MODEL", "gpt-image-1").set("OPENAI_IMAGE_FALLBACKS", "gpt-image-2");
    row(setup, vec![], (200, "", 2, 1, 1)).await;
}

#[tokio::test]
async fn the_model_is_gone_and_there_is_no_fallback() {
    let setup = Setup::default().set("OPENAI_IMAGE_MODEL", "gpt-image-1");
    row(setup, vec![], (502, "provider_misconfigured", 1, 0, 0)).await;
}

#[tokio::test]
async fn provider_refuses_the_prompt() {
    let refusal = error(400, "image_generation_user_error", "moderation_blocked");
    row(Setup::default(), vec![refusal], (422, "prompt_rejected", 1, 0, 0)).await;
}

// Storage.

/// With a line to the blob service that can fail; the container is there.
async fn with_faults() -> (Visionary, Faults) {
    let (faults, through) = with_faults_before(azurite().blob_port()).await;
    let visionary = Setup::default().set("AzureWebJobsStorage", through).start().await;
    assert_eq!(visionary.generate("an earlier fox").await.status, 200);
    (visionary, faults)
}

/// One more prompt, while which the line to storage changes; the answer's status and code.
async fn draw_while(visionary: &Visionary, faults: &Faults, line: Line) -> (u16, Value) {
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let body = json!({"prompt": "a fox"});
    let change = async {
        hold.reached(1).await;
        faults.set(line);
        hold.release();
    };
    let (answer, ()) = tokio::join!(visionary.generate_json(&body), change);
    (answer.status, answer.json()["code"].clone())
}

/// Asked twice in all, and both pictures are there, whole.
async fn both_are_stored(visionary: &Visionary) {
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 2);
    let (drawn, listed) = (visionary.openai.pictures_drawn(), visionary.list().await);
    assert_eq!(listed.len(), 2);
    for ((_, url), drawn) in listed.iter().zip(drawn.iter().rev()) {
        assert_eq!(visionary.open(url).await.bytes().await.unwrap(), drawn.bytes);
    }
}

async fn recovered(visionary: &Visionary) {
    visionary.host.wait_for_log(|line| line.text.contains("stored after all")).await;
}

#[tokio::test]
async fn storage_is_down_before_the_call() {
    let (visionary, faults) = with_faults().await;
    faults.set(Line::Cut);
    let answer = visionary.generate("a fox, later").await;
    assert_eq!((answer.status, answer.header("x-error-code")), (202, "stored_later"), "{}", answer.body);
    faults.set(Line::Whole);
    recovered(&visionary).await;
    both_are_stored(&visionary).await;
    // Who reads text is told the name, too.
    let name = percent_encoding::percent_decode_str(answer.header("x-image-name")).decode_utf8().unwrap();
    assert_eq!(visionary.list().await[0].0, name);
}

#[tokio::test]
async fn storage_goes_down_after_the_provider_answered_and_is_back_after_3_seconds() {
    let (visionary, faults) = with_faults().await;
    assert_eq!(draw_while(&visionary, &faults, Line::Cut).await, (202, json!("stored_later")));
    tokio::time::sleep(Duration::from_secs(3)).await;
    faults.set(Line::Whole);
    recovered(&visionary).await;
    both_are_stored(&visionary).await;
}

#[tokio::test]
async fn storage_is_down_for_good_and_the_picture_is_kept() {
    let (visionary, faults) = with_faults().await;
    assert_eq!(draw_while(&visionary, &faults, Line::Cut).await, (202, json!("stored_later")));
    visionary.host.wait_for_log(|line| line.text.contains("cannot be stored yet")).await;
    assert_eq!(std::fs::read_dir(visionary.setting("SPOOL_DIR")).unwrap().count(), 1);
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 2);
}

/// The answer comes after the time for an upload, 15 seconds and one for each MiB.
#[tokio::test]
async fn storage_stalls() {
    let (visionary, faults) = with_faults().await;
    assert_eq!(draw_while(&visionary, &faults, Line::Stalled).await, (202, json!("stored_later")));
    faults.set(Line::Whole);
    recovered(&visionary).await;
    both_are_stored(&visionary).await;
}

#[tokio::test]
async fn storage_answers_503_for_a_while() {
    let (visionary, faults) = with_faults().await;
    let busy = Line::Answers(503, "ServerBusy");
    assert_eq!(draw_while(&visionary, &faults, busy).await, (202, json!("stored_later")));
    faults.set(Line::Whole);
    recovered(&visionary).await;
    both_are_stored(&visionary).await;
}

#[tokio::test]
async fn storage_answers_403_until_it_does_not() {
    let (visionary, faults) = with_faults().await;
    let denied = Line::Answers(403, "AuthenticationFailed");
    assert_eq!(draw_while(&visionary, &faults, denied).await, (202, json!("stored_later")));
    visionary.host.wait_for_log(|line| line.text.contains("ERROR") && line.text.contains("403")).await;
    faults.set(Line::Whole);
    recovered(&visionary).await;
    both_are_stored(&visionary).await;
}

/// The counters cannot be read with it either, so nothing is drawn.
#[tokio::test]
async fn the_account_key_is_wrong() {
    let wrong = azurite().connection_string().replace("Eby8", "Eby9");
    let visionary = Setup::default().set("AzureWebJobsStorage", wrong).start().await;
    let answer = visionary.generate("a fox").await;
    assert_eq!((answer.status, answer.header("x-error-code")), (503, "quota_unavailable"), "{}", answer.body);
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
    visionary.host.wait_for_log(|line| line.text.contains("ERROR") && line.text.contains("403")).await;
}

#[tokio::test]
async fn the_container_is_missing() {
    row(Setup::default(), vec![], (200, "", 1, 1, 1)).await;
}

#[tokio::test]
async fn the_answer_to_a_successful_upload_is_lost() {
    let (visionary, faults) = with_faults().await;
    let (status, _) = draw_while(&visionary, &faults, Line::LosesOneAnswer).await;
    assert_eq!(status, 200);
    both_are_stored(&visionary).await;
}

// The process.

#[tokio::test]
async fn twenty_sigkills_lose_nothing_that_had_reached_the_process_and_nothing_is_paid_twice() {
    let openai = openai::Options { delay: Duration::from_millis(40), ..Default::default() };
    let (mut chaos, _held) = Setup { openai, own_account: true, ..Setup::default() }.start().await.into_chaos();
    let counts = chaos.kill(200, 20).await.unwrap();
    println!("{counts}");
    assert_eq!((counts.sent, counts.lost, counts.damaged, counts.twice, counts.odd), (200, 0, 0, 0, 0), "{counts}");
    assert_eq!(counts.asked, counts.drawn, "drawn exactly as often as asked: {counts}");
    assert_eq!(counts.drawn, counts.listed + counts.died_on_the_way, "{counts}");
    assert!(counts.answered > 0 && counts.broken > 0, "kills and answers came: {counts}");
}

// The client. That it may leave while the provider draws is in generate_image.rs.

#[tokio::test]
async fn the_client_leaves_at_once() {
    for wire in WIRES {
        let mut visionary = Setup::wire(wire).start().await;
        let hold = Hold::new();
        visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
        // Sent, and gone: nothing is read.
        let request = visionary.request(Method::POST, "/api/generateImage").body(r#"{"prompt":"a fox"}"#);
        let request = tokio::spawn(request.send());
        visionary.openai.wait_for_requests(Endpoint::Images, 1).await;
        request.abort();
        visionary.host.terminate_handler(0);
        visionary.host.wait_for_log(|line| line.text.contains("asked to stop")).await;
        hold.release();
        visionary.host.wait_for_exits(0, 1).await;
        visionary.host.start_handler(0).await.unwrap();
        assert_eq!(visionary.openai.pictures_drawn().len(), 1);
        assert_eq!(visionary.list().await.len(), 1, "{wire:?}");
    }
}

#[tokio::test]
async fn who_waits_for_a_turn_when_the_process_stops_is_sent_away_and_nothing_is_paid() {
    let visionary = Setup::default().set("MAX_CONCURRENT_GENERATIONS", "1").start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let stop = async {
        hold.reached(1).await;
        // The second is counted once it is inside.
        visionary.used(2).await;
        visionary.host.terminate_handler(0);
        visionary.host.wait_for_log(|line| line.text.contains("\"busy\"")).await;
        hold.release();
    };
    let (one, other, ()) = tokio::join!(visionary.generate("a fox"), visionary.generate("a fox"), stop);
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
}

/// Whether it was heard or not: what is asked for is drawn, and what is drawn is stored.
#[tokio::test]
async fn the_client_leaves_before_it_is_heard() {
    for wire in WIRES {
        let mut visionary = Setup::wire(wire).start().await;
        let address = visionary.host.url().replace("http://", "");
        for _ in 0..10 {
            let mut client = tokio::net::TcpStream::connect(&address).await.unwrap();
            let request =
                "POST /api/generateImage HTTP/1.1\r\nhost: x\r\ncontent-length: 18\r\n\r\n{\"prompt\":\"a fox\"}";
            client.write_all(request.as_bytes()).await.unwrap();
        }
        assert_eq!(visionary.generate("a fox").await.status, 200);
        visionary.host.terminate_handler(0);
        visionary.host.wait_for_exits(0, 1).await;
        visionary.host.start_handler(0).await.unwrap();
        let asked = visionary.openai.requests(Endpoint::Images).len();
        assert_eq!([visionary.openai.pictures_drawn().len(), visionary.list().await.len()], [asked; 2], "{wire:?}");
    }
}

// Load.

#[tokio::test]
async fn of_500_at_once_each_ends_in_a_picture_or_in_busy_and_memory_is_bounded() {
    let openai = openai::Options { delay: Duration::from_secs(1), ..Default::default() };
    let (mut chaos, _held) = Setup { openai, own_account: true, ..Setup::default() }.start().await.into_chaos();
    let counts = chaos.rush(500).await.unwrap();
    println!("{counts}");
    assert_eq!(counts.answered + counts.busy, 500, "{counts}");
    // 16 work and 64 wait; more get in once the first are done.
    assert!(counts.answered >= 80, "{counts}");
    assert_eq!([counts.asked, counts.drawn, counts.listed], [counts.answered; 3], "{counts}");
    assert!(counts.peak_bytes < 100 * 1024 * 1024, "{counts}");
    // Who was sent away has not used the quota.
    let quota = reqwest::get(format!("{}/api/quota", chaos.host.url())).await.unwrap();
    assert_eq!(quota.json::<Value>().await.unwrap()["used"], counts.answered);
}

#[tokio::test]
async fn sixteen_pictures_of_8_mib_at_once_stay_under_400_mib() {
    let mut picture = b"\x89PNG\r\n\x1a\n".to_vec();
    picture.resize(8 * 1024 * 1024, 7);
    let openai = openai::Options { painting: Painting::Fixed(Bytes::from(picture)), ..Default::default() };
    let visionary = Setup { openai, ..Setup::default() }.start().await;
    let hold = Hold::new();
    visionary.openai.script_always(Endpoint::Images, Reply::normal().held_by(&hold));
    let all = futures_util::future::join_all((0..16).map(|_| visionary.generate("a fox")));
    let release = async {
        hold.reached(16).await;
        hold.release();
    };
    let (answers, ()) = tokio::join!(all, release);
    assert!(answers.iter().all(|answer| answer.status == 200));
    let peak = memory::peak_bytes(visionary.host.handler_pid(0).unwrap()).unwrap();
    println!("peak {} MiB", peak / 1024 / 1024);
    assert!(peak < 400 * 1024 * 1024, "{} MiB", peak / 1024 / 1024);
}
