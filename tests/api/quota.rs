//! A caller's daily quota, the app's daily budget, and what was used.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use devkit::stand_ins::faults::{Faults, Line};
use devkit::stand_ins::host::LogLine;
use devkit::stand_ins::openai::{Endpoint, Hold, Reply};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;

use crate::harness::{Answer, Setup, Visionary, WIRES, azurite, eventually, http, now, with_faults_before};
use crate::sse::Events;

/// With a quota of five, and users named by a header.
fn five() -> Setup {
    Setup::default().set("DAILY_IMAGE_QUOTA", "5").set("QUOTA_USER_HEADER", "x-user")
}

async fn generate_as(visionary: &Visionary, user: &str) -> Answer {
    let request = visionary.request(Method::POST, "/api/generateImage").header("x-user", user);
    Answer::of(request.body(r#"{"prompt":"a fox"}"#).send().await.unwrap()).await
}

async fn quota_of(visionary: &Visionary, user: &str) -> Value {
    let request = visionary.request(Method::GET, "/api/quota").header("x-user", user);
    Answer::of(request.send().await.unwrap()).await.json()
}

async fn today(visionary: &Visionary) -> Value {
    visionary.get("/api/usage?days=1").await.json()["days"][0].clone()
}

#[tokio::test]
async fn the_sixth_image_of_a_day_is_429_until_midnight() {
    for wire in WIRES {
        let visionary = Setup { wire, ..Setup::default() }.set("DAILY_IMAGE_QUOTA", "").start().await;
        for used in 1..=5 {
            let answer = visionary.generate("a fox").await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "Image uploaded successfully"));
            assert_eq!(answer.header("ratelimit-policy"), "\"daily\";q=5;w=86400");
            assert!(answer.header("ratelimit").starts_with(&format!("\"daily\";r={};t=", 5 - used)));
        }
        let answer = visionary.generate("a fox").await;
        assert_eq!((answer.status, answer.header("x-error-code")), (429, "quota_exceeded"));
        assert_eq!(answer.body, "Daily image quota reached.");
        let left: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=86_400).contains(&left));
        // It may be a second less once the answer is written.
        let limits = [left, left - 1].map(|left| format!("\"daily\";r=0;t={left}"));
        assert!(limits.contains(&answer.header("ratelimit").to_owned()), "{limits:?}");
        assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 5);

        let mut quota = visionary.get("/api/quota").await.json();
        let resets_at = quota["resetsAt"].take();
        assert!(resets_at.as_str().unwrap().ends_with("T00:00:00Z"), "{resets_at}");
        assert_eq!(quota, json!({"limit": 5, "used": 5, "remaining": 0, "resetsAt": null}));
    }
}

#[tokio::test]
async fn every_answer_says_how_its_caller_stands() {
    let visionary = five().start().await;
    let answer = |body: &'static str| {
        let request = visionary.request(Method::POST, "/api/generateImage").header("x-user", "anna").body(body);
        async { Answer::of(request.send().await.unwrap()).await }
    };
    assert_eq!(answer(r#"{"prompt":"a fox"}"#).await.status, 200);
    for (body, status) in [("{}", 400), (r#"{"prompt":"forbidden"}"#, 422)] {
        let answer = answer(body).await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("ratelimit-policy"), "\"daily\";q=5;w=86400");
        assert!(answer.header("ratelimit").starts_with("\"daily\";r=4;t="), "{}", answer.header("ratelimit"));
    }
    // Without a quota there is nothing to say.
    let visionary = Setup::default().set("DAILY_IMAGE_QUOTA", "0").start().await;
    for _ in 0..6 {
        let answer = visionary.generate("a fox").await;
        assert_eq!((answer.status, answer.header("ratelimit"), answer.header("ratelimit-policy")), (200, "", ""));
    }
    let quota = visionary.get("/api/quota").await.json();
    assert_eq!(quota, json!({"limit": null, "used": null, "remaining": null, "resetsAt": null}));
}

#[tokio::test]
async fn of_a_hundred_at_once_over_two_processes_exactly_five_are_drawn() {
    let visionary = Setup { handlers: 2, ..five() }.start().await;
    let answers = join_all((0..100).map(|_| generate_as(&visionary, "anna"))).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(200), count(429)), (5, 95));
    assert_eq!(visionary.openai.images_drawn().len(), 5);
    assert_eq!(quota_of(&visionary, "anna").await["used"], 5);
    assert_eq!(quota_of(&visionary, "bob").await["used"], 0);
    let today = visionary.accounted().await;
    assert_eq!((&today["images"], &today["callers"]), (&json!(5), &json!(1)));
}

#[tokio::test]
async fn with_a_provider_that_fails_at_random_delivered_and_remaining_are_always_five() {
    let visionary = Setup { handlers: 2, ..five() }.start().await;
    for round in 0..3 {
        let user = format!("user {round}");
        for _ in 0..100 {
            let replies = [
                Reply::normal(),
                Reply::error(500, "server_error", "x", "").header("x-should-retry", "false"),
                Reply::error(429, "requests", "slow_down", "").header("x-should-retry", "false"),
                Reply::error(400, "image_generation_user_error", "moderation_blocked", ""),
            ];
            visionary.openai.script(Endpoint::Images, fastrand::choice(replies).unwrap());
        }
        let answers = join_all((0..100).map(|_| generate_as(&visionary, &user))).await;
        let delivered = answers.iter().filter(|answer| answer.status == 200).count();
        let remaining = quota_of(&visionary, &user).await["remaining"].as_u64().unwrap();
        assert_eq!(delivered as u64 + remaining, 5);
    }
    let today = visionary.accounted().await;
    assert_eq!(today["images"].as_u64().unwrap() as usize, visionary.list().await.len());
    assert_eq!(today["callers"], 3);
}

#[tokio::test]
async fn a_budget_for_ten_images_is_never_exceeded_by_any_amount() {
    let setup = Setup { handlers: 2, ..five() }
        .set("DAILY_BUDGET_USD", "0.40")
        .set("IMAGE_PRICES", r#"{"gpt-image-2.5-flare": {"image": 0.04}}"#);
    let visionary = setup.start().await;
    let hold = Hold::new();
    visionary.openai.script_always(Endpoint::Images, Reply::normal().held_by(&hold));
    let users: Vec<String> = (0..200).map(|number| format!("user {}", number % 40)).collect();
    let all = join_all(users.iter().map(|user| generate_as(&visionary, user)));
    let release = async {
        // All but the ten are turned away while those are being drawn: nothing more is reserved.
        hold.reached(10).await;
        let refused =
            |line: &LogLine| line.text.contains("\"budget_reached\"") || line.text.contains("\"quota_exceeded\"");
        let refused = visionary.host.wait_for_logs(190, refused);
        tokio::time::timeout(Duration::from_secs(120), refused).await.expect("the others are turned away");
        let today = today(&visionary).await;
        assert_eq!((&today["usd"], &today["reservedUsd"]), (&json!(0.0), &json!(0.4)));
        hold.release();
    };
    let (answers, ()) = tokio::join!(all, release);
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 10);
    let refused = answers.iter().find(|answer| answer.header("x-error-code") == "budget_reached").unwrap();
    assert_eq!(refused.status, 429);
    assert!(refused.body.starts_with("What may be spent today is reserved"), "{}", refused.body);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() <= 60, "what is reserved may be given back");
    assert_eq!(visionary.openai.images_drawn().len(), 10);
    let today = visionary.accounted().await;
    assert_eq!((&today["usd"], &today["images"]), (&json!(0.4), &json!(10)));
    for _ in 0..4 {
        let refused = generate_as(&visionary, "somebody else").await;
        assert_eq!((refused.status, refused.header("x-error-code")), (429, "budget_reached"));
        assert!(refused.body.starts_with("No more images can be drawn today."), "{}", refused.body);
        // Until midnight, to which it may be a second less once the answer is written.
        let seconds: u64 = refused.header("retry-after").parse().unwrap();
        let limits = [seconds, seconds - 1].map(|seconds| format!("\"daily\";r=5;t={seconds}"));
        assert!(limits.contains(&refused.header("ratelimit").to_owned()), "{limits:?}");
    }
    // Told once each, whichever process came to it.
    visionary.host.wait_for_log(|line| line.text.contains("DAILY_BUDGET_USD is reached")).await;
    let told = |words: &str| visionary.host.logs().iter().filter(|line| line.text.contains(words)).count();
    assert_eq!((told("80 % of DAILY_BUDGET_USD"), told("DAILY_BUDGET_USD is reached")), (1, 1));
    // Who was refused for want of money has not used the quota.
    let users: Vec<Value> = join_all((0..40).map(|number| {
        let visionary = &visionary;
        async move { quota_of(visionary, &format!("user {number}")).await["used"].clone() }
    }))
    .await;
    assert_eq!(users.iter().filter_map(Value::as_u64).sum::<u64>(), 10);
}

/// Anybody may ask for the dearest there is, and the day goes on for the others.
#[tokio::test]
async fn an_image_too_dear_for_what_is_left_does_not_end_the_day() {
    let visionary = five().set("DAILY_BUDGET_USD", "2").start().await;
    let dear = json!({"prompt": "a fox", "size": "3840x2160", "quality": "max"});
    let refused = visionary.generate_json(&dear).await;
    assert_eq!((refused.status, refused.header("x-error-code")), (429, "budget_reached"));
    assert!(refused.body.contains("Choose a lower quality"), "{}", refused.body);
    assert_eq!(generate_as(&visionary, "anna").await.status, 200);
    let told = |line: &LogLine| line.text.contains("DAILY_BUDGET_USD");
    assert!(!visionary.host.logs().iter().any(told), "there is nothing to tell the operator");
}

#[tokio::test]
async fn nothing_that_a_caller_sends_gains_a_sixth_image() {
    for wire in WIRES {
        let visionary = Setup { wire, ..Setup::default() }.set("DAILY_IMAGE_QUOTA", "5").start().await;
        let mut drawn = 0;
        for attempt in 0..10 {
            for (name, value) in [
                ("x-ms-client-principal-id", format!("user {attempt}")),
                ("x-forwarded-for", format!("203.0.113.{attempt}")),
                ("x-forwarded-for", format!("203.0.113.{attempt}, 198.51.100.{attempt}:1234")),
                ("forwarded", format!("for=203.0.113.{attempt}")),
                ("x-real-ip", format!("203.0.113.{attempt}")),
                ("x-user", format!("user {attempt}")),
            ] {
                let request = visionary.request(Method::POST, "/api/generateImage").header(name, value);
                let answer = request.body(r#"{"prompt":"a fox"}"#).send().await.unwrap();
                drawn += usize::from(answer.status() == 200);
            }
        }
        assert_eq!((drawn, visionary.openai.images_drawn().len()), (5, 5), "{wire:?}");
    }
}

#[tokio::test]
async fn a_signed_in_user_is_believed_while_authentication_is_on_and_comes_before_the_header() {
    let visionary = five().set("DAILY_IMAGE_QUOTA", "1").set("WEBSITE_AUTH_ENABLED", "True").start().await;
    let generate = async |id: &str, user: &str| {
        let request = visionary.request(Method::POST, "/api/generateImage");
        let request = request.header("x-ms-client-principal-id", id).header("x-user", user);
        request.body(r#"{"prompt":"a fox"}"#).send().await.unwrap().status().as_u16()
    };
    assert_eq!(generate("anna", "1").await, 200);
    assert_eq!(generate("anna", "2").await, 429);
    assert_eq!(generate("bob", "1").await, 200);
}

/// What is stored of a caller, with the image and in the table, names nobody.
#[tokio::test]
async fn cost_tokens_and_the_callers_digest_are_kept_with_the_image() {
    let visionary = five().start().await;
    generate_as(&visionary, "anna").await;
    let (_, url) = visionary.list().await.remove(0);
    let image = visionary.open(&url).await;
    let metadata = |name: &str| image.headers()[&format!("x-ms-meta-{name}")].to_str().unwrap().to_owned();
    assert_eq!(metadata("cost_usd"), "0.052730");
    assert_eq!((metadata("input_tokens"), metadata("output_tokens")), ("10".to_owned(), "1756".to_owned()));
    let caller = metadata("caller");
    assert!(caller.len() == 64 && caller.bytes().all(|byte| byte.is_ascii_hexdigit()), "{caller}");
}

/// The time is passed, nobody sleeps.
#[tokio::test]
async fn an_image_reserved_before_midnight_and_settled_after_it_counts_on_its_first_day() {
    let visionary = five().set("DAILY_IMAGE_QUOTA", "1").start().await;
    let now = Arc::new(AtomicI64::new(datetime!(2026-11-21 23:59:59 UTC).unix_timestamp()));
    let clock = Arc::clone(&now);
    let read = move || OffsetDateTime::from_unix_timestamp(clock.load(Ordering::SeqCst)).unwrap();
    let address = visionary.serve_by(Arc::new(read)).await;
    let generate = || http().post(format!("{address}/api/generateImage")).body(r#"{"prompt":"a fox"}"#).send();
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let midnight = async {
        hold.reached(1).await;
        let refused = Answer::of(generate().await.unwrap()).await;
        assert_eq!((refused.status, refused.header("retry-after")), (429, "1"));
        now.store(datetime!(2026-11-22 00:00:01 UTC).unix_timestamp(), Ordering::SeqCst);
        hold.release();
    };
    let (answer, ()) = tokio::join!(generate(), midnight);
    assert_eq!(answer.unwrap().status(), 200);
    assert_eq!(generate().await.unwrap().status(), 200, "it is another day");
    assert_eq!(generate().await.unwrap().status(), 429);
    let usage = || async {
        let answer = http().get(format!("{address}/api/usage")).send().await.unwrap();
        let days = answer.json::<Value>().await.unwrap()["days"].clone();
        let day = |day: &Value| (day["date"].as_str().unwrap().to_owned(), day["images"].as_u64().unwrap());
        days.as_array().unwrap().iter().map(day).collect::<BTreeMap<String, u64>>()
    };
    let wanted: BTreeMap<String, u64> = [("2026-11-21".to_owned(), 1), ("2026-11-22".to_owned(), 1)].into();
    eventually(async || (usage().await == wanted).then_some(())).await;
    let today = http().get(format!("{address}/api/usage?days=1")).send().await.unwrap();
    let today = Answer::of(today).await.json()["days"].clone();
    assert_eq!((today.as_array().unwrap().len(), &today[0]["date"]), (1, &json!("2026-11-22")));
}

/// A request that a handler draws when it is killed.
async fn killed_while_drawing(visionary: &mut Visionary) {
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let request = visionary.request(Method::POST, "/api/generateImage").header("x-user", "anna");
    let request = tokio::spawn(request.body(r#"{"prompt":"a fox"}"#).send());
    hold.reached(1).await;
    visionary.host.kill_handler(0).await;
    request.await.unwrap().unwrap();
    visionary.host.start_handler(0).await.unwrap();
}

/// When every process that was killed counts as dead, and another one may look after what it left.
fn when_the_dead_are_known() -> OffsetDateTime {
    now() + Duration::from_secs(200)
}

#[tokio::test]
async fn an_image_whose_process_died_while_the_provider_drew_counts_once_as_lost() {
    let mut visionary = five().start().await;
    killed_while_drawing(&mut visionary).await;
    let held = today(&visionary).await;
    assert_eq!((&held["usd"], &held["reservedUsd"], &held["lost"]), (&json!(0.0), &json!(0.212_025), &json!(0)));
    visionary.serve_at(when_the_dead_are_known()).await;
    let today = visionary.accounted().await;
    let sums = (&today["usd"], &today["images"], &today["failures"], &today["lost"], &today["callers"]);
    assert_eq!(sums, (&json!(0.212_025), &json!(0), &json!(1), &json!(1), &json!(1)));
    assert_eq!(quota_of(&visionary, "anna").await["used"], 1);
}

/// Its process dies with the image in the gallery, and before the record says so; its spool is gone.
#[tokio::test]
async fn an_image_that_a_dead_process_stored_is_found_in_the_gallery() {
    let (mut visionary, faults) = with_faults(five()).await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let cut = async {
        hold.reached(1).await;
        faults.set(Line::Cut);
        hold.release();
    };
    let (answer, ()) = tokio::join!(generate_as(&visionary, "anna"), cut);
    assert_eq!(answer.status, 200, "{}", answer.body);
    visionary.host.kill_handler(0).await;
    std::fs::remove_dir_all(visionary.setting("SPOOL_DIR")).unwrap();
    faults.set(Line::Whole);
    visionary.host.start_handler(0).await.unwrap();
    assert_eq!(today(&visionary).await["reservedUsd"], 0.212_025);
    visionary.serve_at(when_the_dead_are_known()).await;
    let today = visionary.accounted().await;
    let sums = (&today["usd"], &today["images"], &today["lost"], &today["models"][0]["tokens"]["output"]);
    assert_eq!(sums, (&json!(0.052_73), &json!(1), &json!(0), &json!(1756)));
}

/// The record says that it is lost; the spool of the machine that drew it comes back.
#[tokio::test]
async fn an_image_that_counts_as_lost_and_is_found_in_a_spool_corrects_state_and_money() {
    let (faults, through) = with_faults_before(azurite().blob_port()).await;
    let mut visionary = five().set("AzureWebJobsStorage", through).start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let request = visionary.request(Method::POST, "/api/generateImage").header("x-user", "anna");
    let request = tokio::spawn(request.body(r#"{"prompt":"a fox"}"#).send());
    hold.reached(1).await;
    faults.set(Line::Stalled);
    hold.release();
    let spool = std::path::PathBuf::from(visionary.setting("SPOOL_DIR"));
    let is_there = |folder: &std::path::Path| {
        let mut files = std::fs::read_dir(folder).unwrap();
        files.any(|file| file.unwrap().path().extension().is_some_and(|ending| ending == "image"))
    };
    eventually(async || is_there(&spool).then_some(())).await;
    visionary.host.kill_handler(0).await;
    request.await.unwrap().unwrap();
    let elsewhere = spool.with_file_name("elsewhere");
    std::fs::rename(&spool, &elsewhere).unwrap();
    faults.set(Line::Whole);
    visionary.serve_at(when_the_dead_are_known()).await;
    visionary.host.start_handler(0).await.unwrap();
    assert_eq!(visionary.accounted().await["lost"], 1);
    for file in std::fs::read_dir(&elsewhere).unwrap() {
        let file = file.unwrap();
        std::fs::rename(file.path(), spool.join(file.file_name())).unwrap();
    }
    visionary.host.kill_handler(0).await;
    visionary.host.start_handler(0).await.unwrap();
    let found = async || Some(today(&visionary).await).filter(|today| today["lost"] == 0);
    let today = eventually(found).await;
    let sums = (&today["usd"], &today["images"], &today["failures"], &today["callers"]);
    assert_eq!(sums, (&json!(0.052_73), &json!(1), &json!(0), &json!(1)));
    assert_eq!(quota_of(&visionary, "anna").await["used"], 1);
}

/// How a generation ended is kept in the spool, for the next process on the same folder.
#[tokio::test]
async fn a_stop_does_not_wait_for_a_table_that_is_away_and_the_end_is_written_by_the_next_process() {
    let (mut visionary, faults) = with_faults(five()).await;
    let hold = Hold::new();
    let refusal = Reply::error(400, "image_generation_user_error", "moderation_blocked", "");
    visionary.openai.script(Endpoint::Images, refusal.held_by(&hold));
    let cut = async {
        hold.reached(1).await;
        faults.set(Line::Cut);
        hold.release();
    };
    let (refused, ()) = tokio::join!(generate_as(&visionary, "anna"), cut);
    assert_eq!((refused.status, refused.header("x-error-code")), (422, "prompt_rejected"));
    visionary.host.terminate_handler(0);
    let exits = visionary.host.wait_for_exits(0, 1);
    tokio::time::timeout(Duration::from_secs(90), exits).await.expect("the handler ends within 90 s");
    faults.set(Line::Whole);
    visionary.host.start_handler(0).await.unwrap();
    let today = visionary.accounted().await;
    assert_eq!((&today["refusals"], &today["lost"], &today["usd"]), (&json!(1), &json!(0), &json!(0.0)));
    assert_eq!(quota_of(&visionary, "anna").await["used"], 0);
    assert_eq!(std::fs::read_dir(visionary.setting("SPOOL_DIR")).unwrap().count(), 0);
}

/// Those who may have no more are told so; the others that there is no room. Neither asks anything of
/// the table but how a caller stands.
#[tokio::test]
async fn busy_costs_no_write_and_comes_after_the_quota() {
    let setup = five().set("MAX_CONCURRENT_GENERATIONS", "1").set("DAILY_IMAGE_QUOTA", "1");
    let (visionary, faults) = with_faults(setup).await;
    assert_eq!(generate_as(&visionary, "anna").await.status, 200);
    visionary.accounted().await;
    let hold = Hold::new();
    visionary.openai.script_always(Endpoint::Images, Reply::normal().held_by(&hold));
    let mut streams = Vec::new();
    for number in 0..5 {
        let request = visionary.request(Method::POST, "/api/generateImage").header("x-user", format!("user {number}"));
        let request = request.header("accept", "text/event-stream").body(r#"{"prompt":"a fox"}"#);
        let mut events = Events::of(request.send().await.unwrap());
        events.until("progress").await;
        streams.push(events);
    }
    hold.reached(1).await;
    let before = faults.requests();
    for (user, code) in [("bob", "busy"), ("anna", "quota_exceeded"), ("bob", "busy")] {
        assert_eq!(generate_as(&visionary, user).await.header("x-error-code"), code, "{user}");
    }
    assert_eq!(faults.requests() - before, 3, "one look each at how the caller stands");
    assert_eq!(quota_of(&visionary, "bob").await["used"], 0);
    hold.release();
    for mut events in streams {
        events.until("image").await;
    }
}

#[tokio::test]
async fn an_image_that_is_recovered_is_settled_once() {
    let (faults, through) = with_faults_before(azurite().blob_port()).await;
    let mut visionary = Setup { handlers: 2, ..five() }.set("AzureWebJobsStorage", through).start().await;
    faults.set(Line::Cut);
    assert_eq!(generate_as(&visionary, "anna").await.status, 202);
    for handler in 0..2 {
        visionary.host.kill_handler(handler).await;
    }
    faults.set(Line::Whole);
    for handler in 0..2 {
        visionary.host.start_handler(handler).await.unwrap();
    }
    // It leaves the spool last.
    let spool = visionary.setting("SPOOL_DIR");
    eventually(async || (std::fs::read_dir(&spool).unwrap().count() == 0).then_some(())).await;
    let today = visionary.accounted().await;
    let sums = (&today["images"], &today["usd"], &today["callers"]);
    assert_eq!(sums, (&json!(1), &json!(0.052_73), &json!(1)));
    assert_eq!(quota_of(&visionary, "anna").await["used"], 1);
}

// Table storage fails.

async fn with_faults(setup: Setup) -> (Visionary, Faults) {
    let (faults, through) = with_faults_before(azurite().table_port()).await;
    (setup.set("AzureWebJobsStorage", through).start().await, faults)
}

#[tokio::test]
async fn while_the_table_is_down_or_throttling_nothing_is_drawn_and_no_answer_hangs() {
    let lines =
        [Line::Cut, Line::Stalled, Line::Answers(503, "ServerBusy"), Line::Answers(403, "AuthorizationFailure")];
    join_all(lines.map(async |line| {
        let (visionary, faults) = with_faults(five()).await;
        assert_eq!(generate_as(&visionary, "anna").await.status, 200);
        faults.set(line);
        let started = Instant::now();
        let answers = join_all((0..10).map(|_| generate_as(&visionary, "anna"))).await;
        for answer in answers {
            assert_eq!((answer.status, answer.header("x-error-code")), (503, "quota_unavailable"), "{line:?}");
            assert_eq!(answer.header("ratelimit-policy"), "\"daily\";q=5;w=86400");
        }
        assert!(started.elapsed() < Duration::from_secs(60), "{line:?}");
        let answer = visionary.get("/api/quota").await;
        assert_eq!((answer.status, answer.header("x-error-code")), (503, "quota_unavailable"));
        assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
        faults.set(Line::Whole);
        assert_eq!(generate_as(&visionary, "bob").await.status, 200);
        // What could not be reserved is given back, whatever had been written of it.
        eventually(async || (quota_of(&visionary, "anna").await["used"] == 1).then_some(())).await;
        assert_eq!(visionary.accounted().await["images"], 2);
    }))
    .await;
}

/// Slow is not down, up to what a caller can be kept waiting for.
#[tokio::test]
async fn a_slow_table_is_waited_for_and_a_very_slow_one_is_not() {
    let (visionary, faults) = with_faults(five()).await;
    faults.set(Line::Slow(Duration::from_millis(300)));
    assert_eq!(generate_as(&visionary, "anna").await.status, 200);
    faults.set(Line::Slow(Duration::from_secs(12)));
    let answer = generate_as(&visionary, "anna").await;
    assert_eq!((answer.status, answer.header("x-error-code")), (503, "quota_unavailable"));
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
    faults.set(Line::Whole);
    assert_eq!(visionary.accounted().await["images"], 1);
    eventually(async || (quota_of(&visionary, "anna").await["used"] == 1).then_some(())).await;
}

/// The write is repeated by then, and must count once.
#[tokio::test]
async fn a_reservation_whose_answer_was_lost_counts_once() {
    let (visionary, faults) = with_faults(five()).await;
    for used in 1..=4 {
        faults.set(Line::LosesOneAnswer);
        assert_eq!(generate_as(&visionary, "anna").await.status, 200);
        assert_eq!(quota_of(&visionary, "anna").await["used"], used);
    }
    let today = visionary.accounted().await;
    assert_eq!((&today["images"], &today["usd"]), (&json!(4), &json!(0.210_92)));
}

/// An answer that leads to a job is true: there is none before the request was accepted.
#[tokio::test]
async fn a_request_that_takes_too_long_becomes_a_job_only_once_it_was_accepted() {
    let (visionary, faults) = with_faults(five().set("MODERATION", "on").set("SYNC_LIMIT_SECONDS", "1")).await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Moderations, Reply::normal().held_by(&hold));
    let stall = async {
        hold.reached(1).await;
        faults.set(Line::Stalled);
        hold.release();
    };
    let (answer, ()) = tokio::join!(generate_as(&visionary, "anna"), stall);
    assert_eq!((answer.status, answer.header("x-error-code")), (503, "quota_unavailable"), "{}", answer.body);
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
}

/// Nothing waits for the table then, so neither does the image; and a job is not what it can be had as.
#[tokio::test]
async fn without_limits_an_image_that_takes_long_is_answered_as_such_while_the_table_is_down() {
    let setup = five().set("DAILY_IMAGE_QUOTA", "0").set("DAILY_BUDGET_USD", "0").set("SYNC_LIMIT_SECONDS", "1");
    let (visionary, faults) = with_faults(setup).await;
    faults.set(Line::Cut);
    visionary.openai.script(Endpoint::Images, Reply::normal().after(Duration::from_secs(3)));
    let answer = generate_as(&visionary, "anna").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    // The gallery has it, so nothing has to be kept for it; its end is, until the table is back.
    let spool = visionary.setting("SPOOL_DIR");
    let kept = async || {
        let files = std::fs::read_dir(&spool).unwrap().map(|file| file.unwrap().path());
        let endings: Vec<_> = files.map(|path| path.extension().unwrap().to_owned()).collect();
        (endings == ["end"]).then_some(())
    };
    eventually(kept).await;
    faults.set(Line::Whole);
    eventually(async || Some(today(&visionary).await).filter(|today| today["images"] == 1)).await;
    eventually(async || (std::fs::read_dir(&spool).unwrap().count() == 0).then_some(())).await;
}

// Moderation.

#[tokio::test]
async fn a_flagged_prompt_is_422_with_its_categories_and_nothing_is_reserved() {
    let visionary = five().set("MODERATION", "on").start().await;
    let answer = visionary.generate_json(&json!({"prompt": "something forbidden"})).await;
    assert_eq!((answer.status, answer.header("x-error-code")), (422, "prompt_rejected"));
    assert_eq!(answer.json()["categories"], json!(["violence"]));
    assert!(answer.json()["detail"].as_str().unwrap().contains("(violence)"));
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
    assert_eq!(visionary.get("/api/quota").await.json()["used"], 0);
    assert_eq!(visionary.get("/api/usage").await.json(), json!({"days": []}));
    assert_eq!(visionary.generate("a fox").await.status, 200);
    assert_eq!(visionary.openai.requests(Endpoint::Moderations).len(), 2);
    assert_eq!(visionary.openai.requests(Endpoint::Moderations)[1].body["input"], "a fox");
}

#[tokio::test]
async fn where_moderation_fails_the_request_goes_on_and_the_log_says_so() {
    let visionary = five().set("MODERATION", "on").start().await;
    for reply in [
        Reply::error(500, "server_error", "x", ""),
        Reply::body(200, "text/html", "<html>"),
        Reply::json(200, &json!({"results": []})),
        Reply::normal().cut_before_answer(),
    ] {
        visionary.openai.script(Endpoint::Moderations, reply);
        assert_eq!(visionary.generate("a fox").await.status, 200);
    }
    visionary.host.wait_for_logs(4, |line| line.text.contains("could not be moderated")).await;
}

#[tokio::test]
async fn prompts_are_not_moderated_unless_it_is_asked_for() {
    let visionary = five().start().await;
    visionary.generate("a fox").await;
    assert!(visionary.openai.requests(Endpoint::Moderations).is_empty());
}

// Usage.

#[tokio::test]
async fn the_operator_sees_what_was_drawn_and_spent_by_day_and_model() {
    let setup = five()
        .set("OPENAI_IMAGE_MODEL", "gpt-image-1")
        .set("OPENAI_IMAGE_FALLBACKS", "dream-9")
        .set("IMAGE_PRICES", r#"{"gpt-image-1": {"image": 0.1}}"#);
    let openai = devkit::stand_ins::openai::Options { models: vec!["dream-9".to_owned()], ..Default::default() };
    let visionary = Setup { openai, ..setup }.start().await;
    generate_as(&visionary, "anna").await;
    let refusal = Reply::error(400, "image_generation_user_error", "moderation_blocked", "");
    visionary.openai.script(Endpoint::Images, refusal);
    generate_as(&visionary, "bob").await;
    visionary.openai.script(Endpoint::Images, Reply::normal().cut_before_answer());
    generate_as(&visionary, "bob").await;
    let counted = async || Some(visionary.accounted().await).filter(|today| today["failures"] == 1);
    let mut today = eventually(counted).await;
    today["date"] = json!("[date]");
    insta::assert_json_snapshot!(today, @r#"
    {
      "callers": 2,
      "date": "[date]",
      "failures": 1,
      "images": 1,
      "lost": 1,
      "models": [
        {
          "failures": 0,
          "images": 1,
          "lost": 0,
          "model": "dream-9",
          "refusals": 0,
          "tokens": {
            "imageInput": 0,
            "output": 1756,
            "textInput": 10
          },
          "unpriced": 1,
          "usd": 0.07029
        },
        {
          "failures": 1,
          "images": 0,
          "lost": 1,
          "model": "gpt-image-1",
          "refusals": 1,
          "tokens": {
            "imageInput": 0,
            "output": 0,
            "textInput": 0
          },
          "unpriced": 0,
          "usd": 0.282525
        }
      ],
      "refusals": 1,
      "reservedUsd": 0.0,
      "unpriced": 1,
      "usd": 0.352815
    }
    "#);
    let request = visionary.request(Method::GET, "/api/usage").header("accept", "text/csv");
    let answer = Answer::of(request.send().await.unwrap()).await;
    assert_eq!(answer.header("content-type"), "text/csv; charset=utf-8");
    let lines: Vec<String> = answer.body.lines().map(|line| line.split_once(',').unwrap().1.to_owned()).collect();
    insta::assert_json_snapshot!(lines, @r#"
    [
      "model,images,unpriced,refusals,failures,textInputTokens,imageInputTokens,outputTokens,usd,callersOfTheDay,lost",
      "dream-9,1,1,0,0,10,0,1756,0.070290,2,0",
      "gpt-image-1,0,0,1,1,0,0,0,0.282525,2,1"
    ]
    "#);
}

#[tokio::test]
async fn without_limits_what_was_drawn_is_counted_all_the_same() {
    let visionary = five().set("DAILY_IMAGE_QUOTA", "0").set("DAILY_BUDGET_USD", "0").start().await;
    for user in ["anna", "anna", "bob"] {
        assert_eq!(generate_as(&visionary, user).await.status, 200);
    }
    let counted = async || Some(today(&visionary).await).filter(|today| today["images"] == 3);
    let today = eventually(counted).await;
    assert_eq!((&today["callers"], &today["usd"]), (&json!(2), &json!(0.158_19)));
}

#[tokio::test]
async fn the_days_asked_for_are_1_to_92_and_the_address_needs_a_key() {
    let visionary = Setup { keys: vec!["the-key".to_owned()], ..five() }.start().await;
    assert_eq!(visionary.get("/api/usage").await.status, 401);
    for (days, status) in [("1", 200), ("92", 200), ("0", 400), ("93", 400), ("many", 400), ("-1", 400)] {
        let answer = visionary.get(&format!("/api/usage?days={days}&code=the-key")).await;
        assert_eq!(answer.status, status, "{days}: {}", answer.body);
    }
    assert_eq!(visionary.get("/api/quota").await.status, 200);
}
