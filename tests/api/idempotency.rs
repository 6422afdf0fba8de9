//! A request that is sent again with its Idempotency-Key is paid once.

use std::time::Duration;

use devkit::stand_ins::faults::Line;
use devkit::stand_ins::openai::{Endpoint, Hold, Reply};
use futures_util::future::join_all;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::harness::{Answer, Setup, USER_HEADER, Visionary, WIRES, azurite, eventually, now, with_faults_before};

/// A request for a fox with this key, whose answer is JSON.
async fn post_fox(visionary: &Visionary, key: &str) -> Answer {
    visionary.post("a fox").key(key).accept_json().send().await
}

/// The answer of generateImage with links that do not depend on the time.
fn without_token(answer: &Answer) -> Value {
    let mut details = answer.json();
    for link in ["url", "downloadUrl"] {
        details[link] = details[link].as_str().unwrap().split('?').next().into();
    }
    details
}

#[tokio::test]
async fn the_same_request_gets_the_first_answer_from_every_process_and_is_paid_once() {
    for wire in WIRES {
        let visionary = Setup { handlers: 2, ..Setup::wire(wire) }.start().await;
        let first = post_fox(&visionary, "key 1").await;
        assert_eq!(first.status, 200, "{}", first.body);

        for key in ["key 1", "\"key 1\"", "key 1"] {
            let again = post_fox(&visionary, key).await;
            assert_eq!(without_token(&first), without_token(&again));
        }
        let as_text = visionary.post("a fox").key("key 1").send().await;

        assert_eq!(as_text.body, "Image uploaded successfully");
        assert_eq!(visionary.openai.images_drawn().len(), 1);
        assert_eq!(visionary.list().await.len(), 1);
        // Another key is another request.
        assert_eq!(post_fox(&visionary, "key 2").await.status, 200);
        assert_eq!(visionary.list().await.len(), 2);
    }
}

#[tokio::test]
async fn the_same_key_with_another_body_is_422_and_each_caller_has_its_own_keys() {
    let visionary = Setup::default().set("QUOTA_USER_HEADER", USER_HEADER).start().await;
    assert_eq!(visionary.post("a fox").key("1").as_user("anna").send().await.status, 200);

    let reused = visionary.post("a whale").key("1").as_user("anna").send().await;
    let of_another_caller = visionary.post("a fox").key("1").as_user("it's bob").send().await;

    assert_eq!(reused.status_and_code(), (422, "idempotency_key_reused"));
    assert!(reused.body.starts_with("This Idempotency-Key was used"), "{}", reused.body);
    assert_eq!(of_another_caller.status, 200);
    assert_eq!(visionary.openai.images_drawn().len(), 2);
}

#[tokio::test]
async fn while_the_first_request_runs_in_any_process_the_second_is_409_with_retry_after() {
    let visionary = Setup { handlers: 2, ..Setup::default() }.start().await;
    let hold = visionary.hold_all_images();
    let first = visionary.post("a fox").key("1").accept_json().spawn();
    hold.reached(1).await;

    // The host sends the two to different processes.
    for _ in 0..2 {
        let second = post_fox(&visionary, "1").await;
        assert_eq!(second.status_and_code(), (409, "in_progress"));
        assert_eq!(second.header("retry-after"), "5");
    }
    hold.release();

    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
}

#[tokio::test]
async fn of_20_concurrent_requests_with_one_key_one_is_drawn() {
    let visionary = Setup { handlers: 2, ..Setup::default() }.start().await;

    let answers = join_all((0..20).map(|_| post_fox(&visionary, "1"))).await;

    assert!(answers.iter().all(|answer| [200, 409].contains(&answer.status)), "drawn, repeated, or in progress");
    assert!(answers.iter().any(|answer| answer.status == 200));
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
    assert_eq!(visionary.list().await.len(), 1);
}

#[tokio::test]
async fn a_key_is_free_again_after_a_failure_that_costs_nothing() {
    let visionary = Visionary::start().await;
    let rate_limited = Reply::error(429, "requests", "slow_down", "").header("x-should-retry", "false");
    visionary.openai.script(Endpoint::Images, rate_limited);

    assert_eq!(post_fox(&visionary, "1").await.status, 429);
    assert_eq!(post_fox(&visionary, "1").await.status, 200);

    assert_eq!(visionary.openai.images_drawn().len(), 1);
}

#[tokio::test]
async fn an_image_that_may_have_been_paid_and_lost_is_not_drawn_again() {
    let visionary = Setup::default().set("OPENAI_TIMEOUT_SECONDS", "3").start().await;

    for (key, reply, status, code) in [
        ("1", Reply::normal().cut_inside_body(), 502, "provider_answer_lost"),
        ("2", Reply::normal().hang(), 504, "provider_timeout"),
        ("3", Reply::json(200, &json!({"data": []})), 502, "provider_failed"),
    ] {
        visionary.openai.script(Endpoint::Images, reply);
        for _ in 0..2 {
            assert_eq!(post_fox(&visionary, key).await.status_and_code(), (status, code));
        }
    }

    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 3);
}

/// Sends a fox with the key `1` to an app with this time. The host would send the same forwarded
/// address, so the caller is the same one.
async fn post_at(visionary: &Visionary, now: OffsetDateTime) -> Answer {
    let app = visionary.serve_at(now).await;
    app.post("a fox").key("1").header("x-forwarded-for", "127.0.0.1").send().await
}

/// The test sets the app's clock.
#[tokio::test]
async fn the_key_of_a_process_that_died_before_the_draw_is_free_and_an_answer_is_kept_for_24_hours() {
    let mut visionary = Setup::default().set("MAX_CONCURRENT_GENERATIONS", "1").start().await;
    let hold = visionary.hold_next_image();
    let first = visionary.post("a fox").spawn();
    hold.reached(1).await;
    let mut queued = visionary.post("a fox").key("1").events().stream().await;
    assert_eq!(queued.until("progress").await["phase"], "queued");
    visionary.host.kill_handler(0).await;
    first.await.unwrap();
    visionary.host.start_handler(0).await.unwrap();

    let (now, day, second) = (now(), Duration::from_secs(24 * 60 * 60), Duration::from_secs(1));

    assert_eq!(post_at(&visionary, now).await.status, 200);
    assert_eq!(post_at(&visionary, now + day - second).await.status, 200);
    assert_eq!(visionary.list().await.len(), 1, "the answer is kept for 24 hours");
    assert_eq!(post_at(&visionary, now + day + second).await.status, 200);
    assert_eq!(visionary.list().await.len(), 2, "the answer is not kept longer");
}

/// The provider may have drawn the image, so the app does not ask for another one.
#[tokio::test]
async fn the_key_of_a_process_that_died_during_the_draw_has_a_lost_answer() {
    let mut visionary = Visionary::start().await;
    let hold = visionary.hold_next_image();
    let request = visionary.post("a fox").key("1").spawn();
    hold.reached(1).await;
    visionary.host.kill_handler(0).await;
    request.await.unwrap();
    visionary.host.start_handler(0).await.unwrap();

    let before_the_lease_ends = post_at(&visionary, now()).await;
    let after_the_lease = post_at(&visionary, now() + Duration::from_secs(76)).await;

    assert_eq!(before_the_lease_ends.status_and_code(), (409, "in_progress"), "the process may live");
    assert_eq!(after_the_lease.status_and_code(), (502, "provider_answer_lost"));
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
}

/// The table fails when the key is to be freed.
#[tokio::test]
async fn a_key_that_cost_nothing_is_free_once_the_table_is_back() {
    let (faults, through) = with_faults_before(azurite().table_port()).await;
    let visionary = Setup::default().set("AzureWebJobsStorage", through).start().await;
    let hold = Hold::new();
    let refusal = Reply::error(400, "image_generation_user_error", "moderation_blocked", "");
    visionary.openai.script(Endpoint::Images, refusal.held_by(&hold));
    let refused = visionary.post("a fox").key("1").accept_json().spawn();
    hold.reached(1).await;
    faults.set(Line::Cut);
    hold.release();
    assert_eq!(refused.await.unwrap().status, 422);

    faults.set(Line::Whole);
    let look = async || post_fox(&visionary, "1").await;
    let again = eventually("the key is free", look, |answer| answer.status != 409).await;

    assert_eq!(again.status, 200, "{}", again.body);
    assert_eq!(visionary.openai.images_drawn().len(), 1);
}

#[tokio::test]
async fn a_recovered_image_is_the_answer_of_its_key() {
    let (faults, through) = with_faults_before(azurite().blob_port()).await;
    let mut visionary = Setup::default().set("AzureWebJobsStorage", through).start().await;
    let hold = visionary.hold_next_image();
    let first = visionary.post("a fox").key("1").accept_json().spawn();
    hold.reached(1).await;
    faults.set(Line::Cut);
    hold.release();
    let first = first.await.unwrap();
    assert_eq!((first.status, first.json()["code"].as_str()), (202, Some("stored_later")));
    let again = post_fox(&visionary, "1").await;
    assert_eq!((again.status, again.json()), (202, first.json()));

    visionary.host.kill_handler(0).await;
    faults.set(Line::Whole);
    visionary.host.start_handler(0).await.unwrap();
    visionary.host.wait_for_log(|line| line.text.contains("spooled_image_uploaded")).await;

    // The app updates the key after the gallery.
    let look = async || post_fox(&visionary, "1").await;
    let again = eventually("the key has the stored image", look, |answer| answer.status != 202).await;
    assert_eq!((again.status, &again.json()["name"]), (200, &first.json()["name"]));
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
    assert_eq!(visionary.list().await.len(), 1);
}

#[tokio::test]
async fn expired_rows_are_deleted() {
    let visionary = Visionary::start().await;
    let three_days_ago = visionary.serve_at(now() - Duration::from_secs(3 * 24 * 60 * 60)).await;
    for key in ["1", "2", "3"] {
        let answer = three_days_ago.post("a fox").key(key).accept_json().send().await;
        assert_eq!(answer.status, 200);
    }
    // The writes after the answers are done.
    let reserved = async || three_days_ago.get("/api/usage").await.json()["days"][0]["reservedUsd"].clone();
    eventually("nothing is reserved", reserved, |usd| *usd == 0.0).await;

    assert_eq!(post_fox(&visionary, "4").await.status, 200);

    // Three keys, three records, the image count of the caller, and the process. The process at that time began no
    // deletion that counts now: its lease has expired.
    let is_deletion = |line: &str| line.contains("\"count\":8") && line.contains("expired rows were deleted");
    visionary.host.wait_for_log(|line| is_deletion(&line.text)).await;
    assert_eq!(post_fox(&visionary, "4").await.status, 200);
    assert_eq!(visionary.openai.images_drawn().len(), 4, "the row of the fourth key is still there");
}

#[tokio::test]
async fn an_empty_or_too_long_key_is_400() {
    let visionary = Visionary::start().await;

    for key in ["", "\"\"", &"x".repeat(256)] {
        let answer = post_fox(&visionary, key).await;
        assert_eq!(answer.status_and_code(), (400, "invalid_request"));
        assert!(answer.body.contains("Idempotency-Key"), "{}", answer.body);
    }

    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
}

/// A property of a table row holds 32 Ki UTF-16 code units.
#[tokio::test]
async fn the_answer_for_the_longest_prompt_is_repeated() {
    let visionary = Visionary::start().await;
    let body = json!({"prompt": "\"🦊\"".repeat(6_000), "enhance": "style"});

    let first = visionary.post_json(&body).key("long").accept_json().send().await;
    let again = visionary.post_json(&body).key("long").accept_json().send().await;

    assert!(first.json()["finalPrompt"].as_str().unwrap().ends_with("cinematic"));
    // The message of a failed comparison would hold the whole prompt.
    assert!(without_token(&first) == without_token(&again));
    assert_eq!(visionary.openai.images_drawn().len(), 1);
}
