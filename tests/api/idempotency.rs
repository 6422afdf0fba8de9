//! The same request, sent again with its Idempotency-Key, is paid once.

use std::time::Duration;

use devkit::stand_ins::faults::Line;
use devkit::stand_ins::openai::{Endpoint, Hold, Reply};
use reqwest::Method;

use crate::harness::{Answer, Setup, Visionary, WIRES, azurite, eventually, http, now, with_faults_before};
use crate::sse::Events;

const FOX: &str = r#"{"prompt":"a fox"}"#;

async fn post(visionary: &Visionary, key: &str, body: &str) -> Answer {
    let request = visionary.request(Method::POST, "/api/generateImage").header("accept", "application/json");
    Answer::of(request.header("idempotency-key", key).body(body.to_owned()).send().await.unwrap()).await
}

/// At an address of [`Visionary::serve_at`].
async fn post_to(address: &str, key: &str, body: &str) -> Answer {
    let request = http().post(format!("{address}/api/generateImage")).header("accept", "application/json");
    Answer::of(request.header("idempotency-key", key).body(body.to_owned()).send().await.unwrap()).await
}

#[tokio::test]
async fn the_same_request_gets_the_first_answer_from_every_process_and_is_paid_once() {
    for wire in WIRES {
        let visionary = Setup { handlers: 2, ..Setup::wire(wire) }.start().await;
        let first = post(&visionary, "key 1", FOX).await;
        assert_eq!(first.status, 200, "{}", first.body);
        for key in ["key 1", "\"key 1\"", "key 1"] {
            let again = post(&visionary, key, FOX).await;
            let (mut first, mut again) = (first.json(), again.json());
            // The link may be of a later window.
            for answer in [&mut first, &mut again] {
                answer["url"] = answer["url"].as_str().unwrap().split('?').next().into();
            }
            assert_eq!(first, again);
        }
        assert_eq!(visionary.openai.images_drawn().len(), 1);
        assert_eq!(visionary.list().await.len(), 1);
        // As the front ends read it.
        let request = visionary.request(Method::POST, "/api/generateImage").header("idempotency-key", "key 1");
        let again = Answer::of(request.body(FOX).send().await.unwrap()).await;
        assert_eq!(again.body, "Image uploaded successfully");
        // Another key is another request.
        assert_eq!(post(&visionary, "key 2", FOX).await.status, 200);
        assert_eq!(visionary.list().await.len(), 2);
    }
}

#[tokio::test]
async fn the_same_key_with_another_body_is_422_and_another_callers_key_is_their_own() {
    let visionary = Setup::default().set("QUOTA_USER_HEADER", "x-user").start().await;
    let post = async |user: &str, body: &str| {
        let request = visionary.request(Method::POST, "/api/generateImage").header("x-user", user);
        Answer::of(request.header("idempotency-key", "1").body(body.to_owned()).send().await.unwrap()).await
    };
    assert_eq!(post("anna", FOX).await.status, 200);
    let reused = post("anna", r#"{"prompt":"a whale"}"#).await;
    assert_eq!((reused.status, reused.header("x-error-code")), (422, "idempotency_key_reused"));
    assert!(reused.body.starts_with("This Idempotency-Key was used"), "{}", reused.body);
    assert_eq!(post("it's bob", FOX).await.status, 200);
    assert_eq!(visionary.openai.images_drawn().len(), 2);
}

#[tokio::test]
async fn while_the_first_is_running_in_any_process_the_second_is_409_with_retry_after() {
    let visionary = Setup { handlers: 2, ..Setup::default() }.start().await;
    let hold = Hold::new();
    visionary.openai.script_always(Endpoint::Images, Reply::normal().held_by(&hold));
    let second = async {
        hold.reached(1).await;
        for _ in 0..2 {
            let second = post(&visionary, "1", FOX).await;
            assert_eq!((second.status, second.header("x-error-code")), (409, "in_progress"));
            assert_eq!(second.header("retry-after"), "5");
        }
        hold.release();
    };
    let (first, ()) = tokio::join!(post(&visionary, "1", FOX), second);
    assert_eq!(first.status, 200);
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
}

/// Sent at once to two processes, one of them draws.
#[tokio::test]
async fn of_many_at_once_one_draws() {
    let visionary = Setup { handlers: 2, ..Setup::default() }.start().await;
    let answers = futures_util::future::join_all((0..20).map(|_| post(&visionary, "1", FOX))).await;
    assert!(answers.iter().all(|answer| [200, 409].contains(&answer.status)), "drawn, drawn before, or being drawn");
    assert!(answers.iter().any(|answer| answer.status == 200));
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
    assert_eq!(visionary.list().await.len(), 1);
}

#[tokio::test]
async fn a_key_is_free_again_where_nothing_was_paid() {
    let visionary = Visionary::start().await;
    visionary
        .openai
        .script(Endpoint::Images, Reply::error(429, "requests", "slow_down", "").header("x-should-retry", "false"));
    assert_eq!(post(&visionary, "1", FOX).await.status, 429);
    assert_eq!(post(&visionary, "1", FOX).await.status, 200);
    assert_eq!(visionary.openai.images_drawn().len(), 1);
}

#[tokio::test]
async fn an_image_that_may_have_been_paid_and_lost_is_not_asked_for_again() {
    let visionary = Setup::default().set("OPENAI_TIMEOUT_SECONDS", "3").start().await;
    for (key, reply, status, code) in [
        ("1", Reply::normal().cut_inside_body(), 502, "provider_answer_lost"),
        ("2", Reply::normal().hang(), 504, "provider_timeout"),
        ("3", Reply::json(200, &serde_json::json!({"data": []})), 502, "provider_failed"),
    ] {
        visionary.openai.script(Endpoint::Images, reply);
        for _ in 0..2 {
            let answer = post(&visionary, key, FOX).await;
            assert_eq!((answer.status, answer.header("x-error-code")), (status, code));
        }
    }
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 3);
}

/// As the host says it to the handler: without it the callers are different ones.
async fn post_as_host(visionary: &Visionary, now: time::OffsetDateTime) -> (u16, String) {
    let address = visionary.serve_at(now).await;
    let request = http().post(format!("{address}/api/generateImage")).header("x-forwarded-for", "127.0.0.1");
    let answer = Answer::of(request.header("idempotency-key", "1").body(FOX).send().await.unwrap()).await;
    (answer.status, answer.header("x-error-code").to_owned())
}

/// The time is passed, nobody sleeps.
#[tokio::test]
async fn the_key_of_a_process_that_died_before_it_asked_is_free_and_an_answer_is_kept_24_hours() {
    let mut visionary = Setup::default().set("MAX_CONCURRENT_GENERATIONS", "1").start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let first = visionary.request(Method::POST, "/api/generateImage").body(FOX);
    let first = tokio::spawn(first.send());
    hold.reached(1).await;
    // It waits for its turn.
    let request = visionary.request(Method::POST, "/api/generateImage").header("idempotency-key", "1");
    let request = request.header("accept", "text/event-stream").body(FOX);
    let mut events = Events::of(request.send().await.unwrap());
    assert_eq!(events.until("progress").await["phase"], "queued");
    visionary.host.kill_handler(0).await;
    first.await.unwrap().unwrap();
    visionary.host.start_handler(0).await.unwrap();

    let now = now();
    assert_eq!(post_as_host(&visionary, now).await.0, 200);
    let day = Duration::from_secs(24 * 60 * 60);
    assert_eq!(post_as_host(&visionary, now + day - Duration::from_secs(1)).await.0, 200);
    assert_eq!(visionary.list().await.len(), 1, "the answer is kept for 24 hours");
    assert_eq!(post_as_host(&visionary, now + day + Duration::from_secs(1)).await.0, 200);
    assert_eq!(visionary.list().await.len(), 2, "and not longer");
}

/// Nobody knows what the provider did, so it is not asked again.
#[tokio::test]
async fn a_claim_whose_process_died_while_the_provider_drew_is_a_lost_answer() {
    let mut visionary = Visionary::start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let request = visionary.request(Method::POST, "/api/generateImage").header("idempotency-key", "1").body(FOX);
    let request = tokio::spawn(request.send());
    hold.reached(1).await;
    visionary.host.kill_handler(0).await;
    request.await.unwrap().unwrap();
    visionary.host.start_handler(0).await.unwrap();
    let at_once = now();
    assert_eq!(post_as_host(&visionary, at_once).await, (409, "in_progress".to_owned()), "it may live");
    let later = now() + Duration::from_secs(76);
    assert_eq!(post_as_host(&visionary, later).await, (502, "provider_answer_lost".to_owned()));
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
}

/// The table may be away just then.
#[tokio::test]
async fn a_key_that_nothing_was_paid_with_is_free_again_in_the_end() {
    let (faults, through) = with_faults_before(azurite().table_port()).await;
    let visionary = Setup::default().set("AzureWebJobsStorage", through).start().await;
    let hold = Hold::new();
    let refusal = Reply::error(400, "image_generation_user_error", "moderation_blocked", "");
    visionary.openai.script(Endpoint::Images, refusal.held_by(&hold));
    let cut = async {
        hold.reached(1).await;
        faults.set(Line::Cut);
        hold.release();
    };
    let (refused, ()) = tokio::join!(post(&visionary, "1", FOX), cut);
    assert_eq!(refused.status, 422);
    faults.set(Line::Whole);
    let again = eventually(async || Some(post(&visionary, "1", FOX).await).filter(|again| again.status != 409)).await;
    assert_eq!(again.status, 200, "{}", again.body);
    assert_eq!(visionary.openai.images_drawn().len(), 1);
}

/// It answers for its key, whoever brings it to the gallery.
#[tokio::test]
async fn an_image_that_is_recovered_answers_for_its_key() {
    let (faults, through) = with_faults_before(azurite().blob_port()).await;
    let mut visionary = Setup::default().set("AzureWebJobsStorage", through).start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let cut = async {
        hold.reached(1).await;
        faults.set(Line::Cut);
        hold.release();
    };
    let (first, ()) = tokio::join!(post(&visionary, "1", FOX), cut);
    assert_eq!((first.status, first.json()["code"].as_str()), (202, Some("stored_later")));
    let again = post(&visionary, "1", FOX).await;
    assert_eq!((again.status, again.json()), (202, first.json()));
    visionary.host.kill_handler(0).await;
    faults.set(Line::Whole);
    visionary.host.start_handler(0).await.unwrap();
    visionary.host.wait_for_log(|line| line.text.contains("stored after all")).await;
    // The key learns of it a moment after the gallery.
    let again = eventually(async || Some(post(&visionary, "1", FOX).await).filter(|again| again.status != 202)).await;
    assert_eq!((again.status, &again.json()["name"]), (200, &first.json()["name"]));
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
    assert_eq!(visionary.list().await.len(), 1);
}

#[tokio::test]
async fn what_is_past_is_cleaned_away() {
    let visionary = Visionary::start().await;
    let then = now() - Duration::from_secs(3 * 24 * 60 * 60);
    let before = visionary.serve_at(then).await;
    for key in ["1", "2", "3"] {
        assert_eq!(post_to(&before, key, FOX).await.status, 200);
    }
    // What comes after the answers is done.
    let reserved = async || {
        let usage = http().get(format!("{before}/api/usage")).send().await.unwrap();
        Answer::of(usage).await.json()["days"][0]["reservedUsd"].as_f64()
    };
    eventually(async || reserved().await.filter(|usd| *usd == 0.0)).await;
    assert_eq!(post(&visionary, "4", FOX).await.status, 200);
    // Three keys, three records, the count of their caller's images, and the process.
    let cleaned = |line: &str| line.contains("\"count\":8") && line.contains("expired rows were deleted");
    visionary.host.wait_for_log(|line| cleaned(&line.text)).await;
    assert_eq!(post(&visionary, "4", FOX).await.status, 200);
    assert_eq!(visionary.openai.images_drawn().len(), 4, "what is not past is still there");
}

#[tokio::test]
async fn a_key_that_is_none_is_400() {
    let visionary = Visionary::start().await;
    for key in ["", "\"\"", &"x".repeat(256)] {
        let answer = post(&visionary, key, FOX).await;
        assert_eq!((answer.status, answer.header("x-error-code")), (400, "invalid_request"));
        assert!(answer.body.contains("Idempotency-Key"), "{}", answer.body);
    }
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
}

/// A table's property holds 32 Ki characters.
#[tokio::test]
async fn the_longest_prompt_is_known_again() {
    let visionary = Visionary::start().await;
    let body = format!(r#"{{"prompt":"{}","enhance":"style"}}"#, r#"\"🦊\""#.repeat(6_000));
    let (first, again) = (post(&visionary, "long", &body).await.json(), post(&visionary, "long", &body).await.json());
    assert!(first["finalPrompt"].as_str().unwrap().ends_with("cinematic"));
    // Each link is one of now.
    for (name, said) in first.as_object().unwrap().iter().filter(|(name, _)| *name != "url") {
        assert!(again[name] == *said, "{name}");
    }
    assert_eq!(visionary.openai.images_drawn().len(), 1);
}
