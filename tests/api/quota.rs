//! The daily quota of a caller, the daily budget of the app, and the usage.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use devkit::stand_ins::faults::{Faults, Line};
use devkit::stand_ins::host::LogLine;
use devkit::stand_ins::openai::{self, Endpoint, Hold, Reply};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;

use crate::harness::{
    Answer, Setup, USER_HEADER, Visionary, WIRES, azurite, eventually, masked, now, with_faults_before,
};

/// A quota of five images, and a header that names the user.
fn five() -> Setup {
    Setup::default().set("DAILY_IMAGE_QUOTA", "5").set("QUOTA_USER_HEADER", USER_HEADER)
}

async fn generate_as(visionary: &Visionary, user: &str) -> Answer {
    visionary.post("a fox").as_user(user).send().await
}

async fn quota_of(visionary: &Visionary, user: &str) -> Value {
    visionary.request(Method::GET, "/api/quota").as_user(user).send().await.json()
}

async fn used_by(visionary: &Visionary, user: &str) -> Value {
    quota_of(visionary, user).await["used"].clone()
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

        assert_eq!(answer.status_and_code(), (429, "quota_exceeded"));
        assert_eq!(answer.body, "Daily image quota reached. It resets at midnight UTC.");
        let left: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=86_400).contains(&left));
        // The two headers may be computed on both sides of a full second.
        let limits = [left, left - 1].map(|left| format!("\"daily\";r=0;t={left}"));
        assert!(limits.contains(&answer.header("ratelimit").to_owned()), "{limits:?}");
        assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 5);
        let quota = visionary.get("/api/quota").await.json();
        let resets_at = quota["resetsAt"].as_str().unwrap();
        assert!(resets_at.ends_with("T00:00:00Z"), "{resets_at}");
        insta::allow_duplicates! {
            insta::assert_json_snapshot!(masked(quota, &["resetsAt"]), @r#"
            {
              "limit": 5,
              "remaining": 0,
              "resetsAt": "[resetsAt]",
              "used": 5
            }
            "#);
        }
    }
}

#[tokio::test]
async fn every_answer_carries_the_callers_quota_status() {
    let visionary = five().start().await;
    assert_eq!(generate_as(&visionary, "anna").await.status, 200);

    let invalid = visionary.post_raw("{}").as_user("anna").send().await;
    let refused = visionary.post("forbidden").as_user("anna").send().await;

    for (answer, status) in [(invalid, 400), (refused, 422)] {
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("ratelimit-policy"), "\"daily\";q=5;w=86400");
        assert!(answer.header("ratelimit").starts_with("\"daily\";r=4;t="), "{}", answer.header("ratelimit"));
    }
}

#[tokio::test]
async fn without_a_quota_no_answer_carries_a_quota_status() {
    let visionary = Setup::default().set("DAILY_IMAGE_QUOTA", "0").start().await;

    for _ in 0..6 {
        let answer = visionary.generate("a fox").await;
        assert_eq!((answer.status, answer.header("ratelimit"), answer.header("ratelimit-policy")), (200, "", ""));
    }

    insta::assert_json_snapshot!(visionary.get("/api/quota").await.json(), @r#"
    {
      "limit": null,
      "remaining": null,
      "resetsAt": null,
      "used": null
    }
    "#);
}

#[tokio::test]
async fn of_100_concurrent_requests_to_two_processes_exactly_five_are_drawn() {
    let visionary = Setup { handlers: 2, ..five() }.start().await;

    let answers = join_all((0..100).map(|_| generate_as(&visionary, "anna"))).await;

    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(200), count(429)), (5, 95));
    assert_eq!(visionary.openai.images_drawn().len(), 5);
    assert_eq!(used_by(&visionary, "anna").await, 5);
    assert_eq!(used_by(&visionary, "bob").await, 0);
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
    let hold = visionary.hold_all_images();
    let users: Vec<String> = (0..200).map(|number| format!("user {}", number % 40)).collect();

    // 200 requests of 40 users. While ten images are being drawn, all other requests are refused; those that come while
    // 80 requests of a process wait for their reservation are refused as `busy`.
    let requests: Vec<_> = users.iter().map(|user| visionary.post("a fox").as_user(user).spawn()).collect();
    hold.reached(10).await;
    let codes = ["\"budget_reached\"", "\"quota_exceeded\"", "\"busy\""];
    let refused = |line: &LogLine| codes.iter().any(|code| line.text.contains(code));
    let refused = visionary.host.wait_for_logs(190, refused);
    tokio::time::timeout(Duration::from_secs(120), refused).await.expect("190 requests are refused within 2 minutes");
    let while_drawing = visionary.today().await;
    hold.release();
    let mut answers = Vec::new();
    for request in requests {
        answers.push(request.await.unwrap());
    }

    assert_eq!((&while_drawing["usd"], &while_drawing["reservedUsd"]), (&json!(0.0), &json!(0.4)));
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 10);
    let refused = answers.iter().find(|answer| answer.header("x-error-code") == "budget_reached").unwrap();
    assert_eq!(refused.status, 429);
    assert!(refused.body.starts_with("Today's remaining budget is reserved"), "{}", refused.body);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() <= 60, "a reservation may be given back");
    assert_eq!(visionary.openai.images_drawn().len(), 10);
    let today = visionary.accounted().await;
    assert_eq!((&today["usd"], &today["images"]), (&json!(0.4), &json!(10)));

    // The budget is spent now, not only reserved.
    for _ in 0..4 {
        let refused = generate_as(&visionary, "one more user").await;
        assert_eq!(refused.status_and_code(), (429, "budget_reached"));
        assert!(refused.body.starts_with("No more images can be drawn today."), "{}", refused.body);
        // Both headers lead to midnight, and may be computed on both sides of a full second.
        let seconds: u64 = refused.header("retry-after").parse().unwrap();
        let limits = [seconds, seconds - 1].map(|seconds| format!("\"daily\";r=5;t={seconds}"));
        assert!(limits.contains(&refused.header("ratelimit").to_owned()), "{limits:?}");
    }

    // Each log line is written once by both processes together.
    visionary.host.wait_for_log(|line| line.text.contains("DAILY_BUDGET_USD is reached")).await;
    let logged = |words: &str| visionary.host.logs().iter().filter(|line| line.text.contains(words)).count();
    assert_eq!((logged("80 % of DAILY_BUDGET_USD"), logged("DAILY_BUDGET_USD is reached")), (1, 1));
    // A request that the budget refuses does not use the quota.
    let users: Vec<String> = (0..40).map(|number| format!("user {number}")).collect();
    let used = join_all(users.iter().map(|user| used_by(&visionary, user))).await;
    assert_eq!(used.iter().filter_map(Value::as_u64).sum::<u64>(), 10);
}

/// Otherwise one expensive request would stop all callers for the day.
#[tokio::test]
async fn an_image_too_expensive_for_the_rest_of_the_budget_does_not_stop_cheaper_ones() {
    let visionary = five().set("DAILY_BUDGET_USD", "2").set("MAX_IMAGE_USD", "0").start().await;

    let expensive = json!({"prompt": "a fox", "size": "3840x2160", "quality": "max"});
    let refused = visionary.post_json(&expensive).accept_json().send().await;

    assert_eq!(refused.status_and_code(), (429, "budget_reached"));
    assert!(refused.body.contains("Choose a lower quality"), "{}", refused.body);
    assert_eq!(generate_as(&visionary, "anna").await.status, 200);
    let names_the_budget = |line: &LogLine| line.text.contains("DAILY_BUDGET_USD");
    assert!(!visionary.host.logs().iter().any(names_the_budget), "the operator has nothing to do");
}

#[tokio::test]
async fn no_header_of_a_caller_gains_a_sixth_image() {
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
                let answer = visionary.post("a fox").header(name, &value).send().await;
                drawn += usize::from(answer.status == 200);
            }
        }

        assert_eq!((drawn, visionary.openai.images_drawn().len()), (5, 5), "{wire:?}");
    }
}

#[tokio::test]
async fn with_authentication_on_the_signed_in_user_comes_before_the_user_header() {
    let visionary = five().set("DAILY_IMAGE_QUOTA", "1").set("WEBSITE_AUTH_ENABLED", "True").start().await;

    let generate = async |id: &str, user: &str| {
        let request = visionary.post("a fox").header("x-ms-client-principal-id", id).as_user(user);
        request.send().await.status
    };

    assert_eq!(generate("anna", "1").await, 200);
    assert_eq!(generate("anna", "2").await, 429);
    assert_eq!(generate("bob", "1").await, 200);
}

/// Every link opens the whole container for reading, so a blob says neither whose it is nor what it cost.
#[tokio::test]
async fn the_metadata_of_an_image_names_neither_its_caller_nor_its_cost() {
    let visionary = five().start().await;

    generate_as(&visionary, "anna").await;

    let (_, url) = visionary.list().await.remove(0);
    let image = visionary.open(&url).await;
    let names = image.headers().keys().filter_map(|name| name.as_str().strip_prefix("x-ms-meta-"));
    let mut names: Vec<&str> = names.collect();
    names.sort_unstable();
    assert_eq!(names, ["enhancement", "id", "model", "prompt", "quality", "size"]);
}

/// The test sets the app's clock.
#[tokio::test]
async fn an_image_reserved_before_midnight_and_stored_after_it_counts_on_its_first_day() {
    let visionary = five().set("DAILY_IMAGE_QUOTA", "1").start().await;
    let now = Arc::new(AtomicI64::new(datetime!(2026-11-21 23:59:59 UTC).unix_timestamp()));
    let clock = Arc::clone(&now);
    let read = move || OffsetDateTime::from_unix_timestamp(clock.load(Ordering::SeqCst)).unwrap();
    let app = visionary.serve_by(Arc::new(read)).await;
    let hold = visionary.hold_next_image();

    let first = app.post("a fox").spawn();
    hold.reached(1).await;
    let before_midnight = app.post("a fox").send().await;
    now.store(datetime!(2026-11-22 00:00:01 UTC).unix_timestamp(), Ordering::SeqCst);
    hold.release();
    let first = first.await.unwrap();
    let after_midnight = [app.post("a fox").send().await, app.post("a fox").send().await];

    assert_eq!((before_midnight.status, before_midnight.header("retry-after")), (429, "1"));
    assert_eq!(first.status, 200);
    assert_eq!(after_midnight.map(|answer| answer.status), [200, 429], "a new day has a new quota");
    let images_by_day = async || -> BTreeMap<String, u64> {
        let days = app.get("/api/usage").await.json()["days"].clone();
        let day = |day: &Value| (day["date"].as_str().unwrap().to_owned(), day["images"].as_u64().unwrap());
        days.as_array().unwrap().iter().map(day).collect()
    };
    let wanted = BTreeMap::from([("2026-11-21".to_owned(), 1), ("2026-11-22".to_owned(), 1)]);
    eventually("each day has one image", images_by_day, |days| *days == wanted).await;
    let today = app.get("/api/usage?days=1").await.json()["days"].clone();
    assert_eq!((today.as_array().unwrap().len(), &today[0]["date"]), (1, &json!("2026-11-22")));
}

/// Kills the handler while it draws an image for anna, and starts it again.
async fn kill_while_drawing(visionary: &mut Visionary) {
    let hold = visionary.hold_next_image();
    let request = visionary.post("a fox").as_user("anna").spawn();
    hold.reached(1).await;
    visionary.host.kill_handler(0).await;
    request.await.unwrap();
    visionary.host.start_handler(0).await.unwrap();
}

/// A time at which every killed process counts as dead, so that another process sweeps its records.
fn after_the_lease() -> OffsetDateTime {
    now() + Duration::from_secs(200)
}

#[tokio::test]
async fn an_image_whose_process_died_while_the_provider_drew_counts_once_as_lost() {
    let mut visionary = five().start().await;
    kill_while_drawing(&mut visionary).await;
    let reserved = visionary.today().await;
    assert_eq!((&reserved["usd"], &reserved["reservedUsd"]), (&json!(0.0), &json!(0.212_025)));
    assert_eq!(reserved["lost"], 0);

    visionary.serve_at(after_the_lease()).await;

    let today = visionary.accounted().await;
    let sums = (&today["usd"], &today["images"], &today["failures"], &today["lost"], &today["callers"]);
    assert_eq!(sums, (&json!(0.212_025), &json!(0), &json!(1), &json!(1), &json!(1)));
    assert_eq!(used_by(&visionary, "anna").await, 1);
}

/// The process dies between the upload and the record's update, and its spool is gone.
#[tokio::test]
async fn an_image_that_a_dead_process_stored_is_found_in_the_gallery() {
    let (mut visionary, faults) = with_faults(five()).await;
    let hold = visionary.hold_next_image();
    let request = visionary.post("a fox").as_user("anna").spawn();
    hold.reached(1).await;
    faults.set(Line::Cut);
    hold.release();
    let answer = request.await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    visionary.host.kill_handler(0).await;
    std::fs::remove_dir_all(visionary.setting("SPOOL_DIR")).unwrap();
    faults.set(Line::Whole);
    visionary.host.start_handler(0).await.unwrap();
    assert_eq!(visionary.today().await["reservedUsd"], 0.212_025);

    visionary.serve_at(after_the_lease()).await;

    let today = visionary.accounted().await;
    // The provider's tokens died with the process, so the image counts at the most that it can have cost.
    let sums = (&today["usd"], &today["images"], &today["lost"], &today["unpriced"]);
    assert_eq!(sums, (&json!(0.212_025), &json!(1), &json!(0), &json!(1)));
}

/// The machine that drew the image comes back with its spool after the record says `lost`.
#[tokio::test]
async fn a_lost_image_that_is_found_in_a_spool_corrects_the_record_and_the_usage() {
    let (faults, through) = with_faults_before(azurite().blob_port()).await;
    let mut visionary = five().set("AzureWebJobsStorage", through).start().await;
    let hold = visionary.hold_next_image();
    let request = visionary.post("a fox").as_user("anna").spawn();
    hold.reached(1).await;
    faults.set(Line::Stalled);
    hold.release();
    visionary.spooled().await;
    visionary.host.kill_handler(0).await;
    request.await.unwrap();
    let spool = std::path::PathBuf::from(visionary.setting("SPOOL_DIR"));
    let elsewhere = spool.with_file_name("elsewhere");
    std::fs::rename(&spool, &elsewhere).unwrap();
    faults.set(Line::Whole);
    visionary.serve_at(after_the_lease()).await;
    visionary.host.start_handler(0).await.unwrap();
    assert_eq!(visionary.accounted().await["lost"], 1);

    for file in std::fs::read_dir(&elsewhere).unwrap() {
        let file = file.unwrap();
        std::fs::rename(file.path(), spool.join(file.file_name())).unwrap();
    }
    visionary.restart_handler().await;

    let today = eventually("no image is lost", async || visionary.today().await, |today| today["lost"] == 0).await;
    let sums = (&today["usd"], &today["images"], &today["failures"], &today["callers"]);
    assert_eq!(sums, (&json!(0.052_73), &json!(1), &json!(0), &json!(1)));
    assert_eq!(used_by(&visionary, "anna").await, 1);
}

/// The spool keeps the outcome of the generation for the next process on the same folder.
#[tokio::test]
async fn a_stop_does_not_wait_for_a_failing_table_and_the_next_process_writes_the_outcome() {
    let (mut visionary, faults) = with_faults(five()).await;
    let hold = Hold::new();
    let refusal = Reply::error(400, "image_generation_user_error", "moderation_blocked", "");
    visionary.openai.script(Endpoint::Images, refusal.held_by(&hold));
    let request = visionary.post("a fox").as_user("anna").spawn();
    hold.reached(1).await;
    faults.set(Line::Cut);
    hold.release();
    assert_eq!(request.await.unwrap().status_and_code(), (422, "prompt_rejected"));

    visionary.host.terminate_handler(0);
    let exits = visionary.host.wait_for_exits(0, 1);
    tokio::time::timeout(Duration::from_secs(90), exits).await.expect("the handler ends within 90 s");
    faults.set(Line::Whole);
    visionary.host.start_handler(0).await.unwrap();

    let today = visionary.accounted().await;
    assert_eq!((&today["refusals"], &today["lost"], &today["usd"]), (&json!(1), &json!(0), &json!(0.0)));
    assert_eq!(used_by(&visionary, "anna").await, 0);
    assert_eq!(visionary.spool().len(), 0);
}

/// A caller without quota gets 429, any other caller 503. Both cost one read of the quota status.
#[tokio::test]
async fn a_busy_answer_costs_no_write_and_comes_after_the_quota() {
    let setup = five().set("MAX_CONCURRENT_GENERATIONS", "1").set("DAILY_IMAGE_QUOTA", "1");
    let (visionary, faults) = with_faults(setup).await;
    assert_eq!(generate_as(&visionary, "anna").await.status, 200);
    visionary.accounted().await;
    let hold = visionary.hold_all_images();
    // One generation draws and four wait.
    let mut streams = Vec::new();
    for number in 0..5 {
        let mut events = visionary.post("a fox").as_user(&format!("user {number}")).events().stream().await;
        events.until("progress").await;
        streams.push(events);
    }
    hold.reached(1).await;
    let before = faults.requests();

    for (user, code) in [("bob", "busy"), ("anna", "quota_exceeded"), ("bob", "busy")] {
        assert_eq!(generate_as(&visionary, user).await.header("x-error-code"), code, "{user}");
    }

    assert_eq!(faults.requests() - before, 3, "each answer costs one read");
    assert_eq!(used_by(&visionary, "bob").await, 0);
    hold.release();
    for mut events in streams {
        events.until("image").await;
    }
}

#[tokio::test]
async fn a_recovered_image_counts_once() {
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

    // A recovered image leaves the spool last.
    eventually("the spool is empty", async || visionary.spool(), Vec::is_empty).await;
    let today = visionary.accounted().await;
    let sums = (&today["images"], &today["usd"], &today["callers"]);
    assert_eq!(sums, (&json!(1), &json!(0.052_73), &json!(1)));
    assert_eq!(used_by(&visionary, "anna").await, 1);
}

/// Behind a proxy every user has its address.
#[tokio::test]
async fn on_azure_the_operator_is_told_once_that_all_callers_look_alike() {
    let visionary = Setup::default().set("WEBSITE_SITE_NAME", "app").set("DAILY_IMAGE_QUOTA", "5").start().await;
    let is_told = |line: &LogLine| line.text.contains("callers_look_alike");

    for _ in 0..2 {
        assert_eq!(visionary.generate("a fox").await.status, 200);
    }

    visionary.host.wait_for_log(is_told).await;
    let last = visionary.get("/api/quota").await;
    let id = last.header("x-azure-functions-invocationid");
    visionary.host.wait_for_log(|line| line.text.contains(id)).await;
    assert_eq!(visionary.host.logs().iter().filter(|line| is_told(line)).count(), 1);
}

// Table storage fails.

/// The app, and a line that can fail to its tables.
async fn with_faults(setup: Setup) -> (Visionary, Faults) {
    let (faults, through) = with_faults_before(azurite().table_port()).await;
    (setup.set("AzureWebJobsStorage", through).start().await, faults)
}

#[tokio::test]
async fn while_the_table_fails_nothing_is_drawn_and_no_answer_hangs() {
    let lines =
        [Line::Cut, Line::Stalled, Line::Answers(503, "ServerBusy"), Line::Answers(403, "AuthorizationFailure")];
    join_all(lines.map(async |line| {
        let (visionary, faults) = with_faults(five()).await;
        assert_eq!(generate_as(&visionary, "anna").await.status, 200);

        faults.set(line);
        let started = Instant::now();
        let answers = join_all((0..10).map(|_| generate_as(&visionary, "anna"))).await;
        let took = started.elapsed();
        let quota = visionary.get("/api/quota").await;

        for answer in answers {
            assert_eq!(answer.status_and_code(), (503, "quota_unavailable"), "{line:?}");
            assert_eq!(answer.header("ratelimit-policy"), "\"daily\";q=5;w=86400");
        }
        assert!(took < Duration::from_secs(60), "{line:?}");
        assert_eq!(quota.status_and_code(), (503, "quota_unavailable"));
        assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);

        // Every incomplete reservation is given back.
        faults.set(Line::Whole);
        assert_eq!(generate_as(&visionary, "bob").await.status, 200);
        eventually("anna has used one image", async || used_by(&visionary, "anna").await, |used| *used == 1).await;
        assert_eq!(visionary.accounted().await["images"], 2);
    }))
    .await;
}

#[tokio::test]
async fn a_slow_table_delays_the_answer_and_a_very_slow_one_makes_it_503() {
    let (visionary, faults) = with_faults(five()).await;

    faults.set(Line::Slow(Duration::from_millis(300)));
    let slow = generate_as(&visionary, "anna").await;
    faults.set(Line::Slow(Duration::from_secs(12)));
    let very_slow = generate_as(&visionary, "anna").await;

    assert_eq!(slow.status, 200);
    assert_eq!(very_slow.status_and_code(), (503, "quota_unavailable"));
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
    faults.set(Line::Whole);
    assert_eq!(visionary.accounted().await["images"], 1);
    eventually("anna has used one image", async || used_by(&visionary, "anna").await, |used| *used == 1).await;
}

/// The app repeats the write when its answer is lost.
#[tokio::test]
async fn a_reservation_whose_answer_was_lost_counts_once() {
    let (visionary, faults) = with_faults(five()).await;

    for used in 1..=4 {
        faults.set(Line::LosesOneAnswer);
        assert_eq!(generate_as(&visionary, "anna").await.status, 200);
        assert_eq!(used_by(&visionary, "anna").await, used);
    }

    let today = visionary.accounted().await;
    assert_eq!((&today["images"], &today["usd"]), (&json!(4), &json!(0.210_92)));
}

/// An answer with a job's address would be wrong here: the request has no record yet.
#[tokio::test]
async fn a_slow_request_becomes_a_job_only_after_it_was_accepted() {
    let (visionary, faults) = with_faults(five().set("MODERATION", "on").set("SYNC_LIMIT_SECONDS", "1")).await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Moderations, Reply::normal().held_by(&hold));

    let request = visionary.post("a fox").as_user("anna").spawn();
    hold.reached(1).await;
    faults.set(Line::Stalled);
    hold.release();
    let answer = request.await.unwrap();

    assert_eq!(answer.status_and_code(), (503, "quota_unavailable"), "{}", answer.body);
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
}

/// Without limits no request waits for the table. A job needs the table, so the slow request does not
/// become one.
#[tokio::test]
async fn without_limits_a_slow_image_is_answered_with_200_while_the_table_is_down() {
    let setup = five().set("DAILY_IMAGE_QUOTA", "0").set("DAILY_BUDGET_USD", "0").set("SYNC_LIMIT_SECONDS", "1");
    let (visionary, faults) = with_faults(setup).await;
    faults.set(Line::Cut);
    visionary.openai.script(Endpoint::Images, Reply::normal().after(Duration::from_secs(3)));

    let answer = generate_as(&visionary, "anna").await;

    assert_eq!(answer.status, 200, "{}", answer.body);
    // The image is in the gallery. The spool keeps the outcome until the table is back.
    let is_one_outcome = |files: &Vec<String>| files.len() == 1 && files[0].ends_with(".end");
    eventually("the spool holds one outcome", async || visionary.spool(), is_one_outcome).await;
    faults.set(Line::Whole);
    eventually("one image counts", async || visionary.today().await, |today| today["images"] == 1).await;
    eventually("the spool is empty", async || visionary.spool(), Vec::is_empty).await;
}

// Moderation.

#[tokio::test]
async fn a_flagged_prompt_is_422_with_its_categories_and_nothing_is_reserved() {
    let visionary = five().set("MODERATION", "on").start().await;

    let flagged = visionary.post("something forbidden").accept_json().send().await;

    assert_eq!(flagged.status_and_code(), (422, "prompt_rejected"));
    insta::assert_json_snapshot!(masked(flagged.json(), &["invocationId"]), @r#"
    {
      "categories": [
        "violence"
      ],
      "code": "prompt_rejected",
      "detail": "The content check refused this prompt (violence). Nothing was drawn. Please rephrase it.",
      "invocationId": "[invocationId]",
      "status": 422,
      "title": "Unprocessable Entity",
      "type": "about:blank"
    }
    "#);
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
    assert_eq!(visionary.get("/api/quota").await.json()["used"], 0);
    let today = visionary.today().await;
    assert_eq!((&today["refusals"], &today["images"], &today["reservedUsd"]), (&json!(1), &json!(0), &json!(0.0)));
    assert_eq!(visionary.generate("a fox").await.status, 200);
    assert_eq!(visionary.openai.requests(Endpoint::Moderations).len(), 2);
    assert_eq!(visionary.openai.requests(Endpoint::Moderations)[1].body["input"], "a fox");
}

/// Five of the largest images of one address held the day's budget of everybody.
#[tokio::test]
async fn an_image_dearer_than_the_ceiling_is_refused_and_the_answer_names_what_is_allowed() {
    let visionary = five().start().await;

    let large = json!({"prompt": "a fox", "size": "3840x2160", "quality": "max"});
    let refused = visionary.post_json(&large).accept_json().send().await;

    assert_eq!(refused.status_and_code(), (400, "invalid_request"));
    assert_eq!(
        refused.json()["detail"],
        "This app does not draw images of this size and quality. Allowed qualities for this size: low."
    );
    for prefer in ["respond-async", "wait=1"] {
        assert_eq!(visionary.post_json(&large).prefer(prefer).send().await.status, 400, "{prefer}");
    }
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
    let usual = json!({"prompt": "a fox", "size": "1792x1024", "quality": "hd"});
    assert_eq!(visionary.post_json(&usual).send().await.status, 200);

    let unlimited = five().set("MAX_IMAGE_USD", "0").start().await;
    assert_eq!(unlimited.post_json(&large).send().await.status, 200);
}

#[tokio::test]
async fn a_callers_own_budget_is_never_exceeded_and_no_answer_names_dollars() {
    let setup = five().set("DAILY_CALLER_USD", "0.10").set("DAILY_IMAGE_QUOTA", "0");
    let visionary = setup.set("IMAGE_PRICES", r#"{"gpt-image-2.5-flare": {"image": 0.04}}"#).start().await;

    let answers = join_all((0..10).map(|_| generate_as(&visionary, "anna"))).await;

    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 2);
    let refused = answers.iter().find(|answer| answer.status != 200).unwrap();
    assert_eq!(refused.status_and_code(), (429, "caller_budget_reached"));
    assert!(!refused.body.contains('$') && !refused.body.to_lowercase().contains("usd"), "{}", refused.body);
    assert_eq!(visionary.openai.images_drawn().len(), 2);
    assert_eq!(generate_as(&visionary, "bob").await.status, 200);
}

/// Each refused prompt may cost a drawing and a text of the text model.
#[tokio::test]
async fn refused_prompts_of_a_caller_are_limited_and_those_of_others_are_not() {
    let visionary = five().set("DAILY_REFUSALS", "3").set("MODERATION", "on").start().await;
    let refusal = Reply::error(400, "image_generation_user_error", "moderation_blocked", "");

    for _ in 0..2 {
        visionary.openai.script(Endpoint::Images, refusal.clone());
        let refused = generate_as(&visionary, "anna").await;
        assert_eq!(refused.status_and_code(), (422, "prompt_rejected"));
    }
    // A prompt that the moderation flags counts, too.
    let flagged = visionary.post("something forbidden").as_user("anna").send().await;
    assert_eq!(flagged.status_and_code(), (422, "prompt_rejected"));
    let exceeded = generate_as(&visionary, "anna").await;

    assert_eq!(exceeded.status_and_code(), (429, "refusals_exceeded"));
    assert!(exceeded.header("retry-after").parse::<u64>().unwrap() > 0);
    let (images, moderations) = (Endpoint::Images, Endpoint::Moderations);
    assert_eq!((visionary.openai.requests(images).len(), visionary.openai.requests(moderations).len()), (2, 3));
    assert_eq!(generate_as(&visionary, "bob").await.status, 200);
}

#[tokio::test]
async fn where_moderation_fails_the_request_goes_on_and_the_failure_is_logged() {
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
async fn without_the_setting_no_prompt_is_moderated() {
    let visionary = five().start().await;
    visionary.generate("a fox").await;
    assert!(visionary.openai.requests(Endpoint::Moderations).is_empty());
}

// Usage.

#[tokio::test]
async fn the_operator_sees_images_and_costs_by_day_and_model() {
    let setup = five()
        .set("OPENAI_IMAGE_MODEL", "gpt-image-1")
        .set("OPENAI_IMAGE_FALLBACKS", "dream-9")
        .set("IMAGE_PRICES", r#"{"gpt-image-1": {"image": 0.1}}"#);
    let openai = openai::Options { models: vec!["dream-9".to_owned()], ..Default::default() };
    let visionary = Setup { openai, ..setup }.start().await;
    generate_as(&visionary, "anna").await;
    let refusal = Reply::error(400, "image_generation_user_error", "moderation_blocked", "");
    visionary.openai.script(Endpoint::Images, refusal);
    generate_as(&visionary, "bob").await;
    visionary.openai.script(Endpoint::Images, Reply::normal().cut_before_answer());
    generate_as(&visionary, "bob").await;

    let accounted = async || visionary.accounted().await;
    let today = eventually("one generation has failed", accounted, |today| today["failures"] == 1).await;
    let csv = visionary.request(Method::GET, "/api/usage").accept("text/csv").send().await;

    insta::assert_json_snapshot!(masked(today, &["date"]), @r#"
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
          "texts": 0,
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
          "texts": 0,
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
      "texts": 0,
      "unpriced": 1,
      "usd": 0.352815
    }
    "#);
    assert_eq!(csv.header("content-type"), "text/csv; charset=utf-8");
    let lines: Vec<String> = csv.body.lines().map(|line| line.split_once(',').unwrap().1.to_owned()).collect();
    insta::assert_json_snapshot!(lines, @r#"
    [
      "model,images,unpriced,refusals,failures,textInputTokens,imageInputTokens,outputTokens,usd,callersOfTheDay,lost,texts",
      "dream-9,1,1,0,0,10,0,1756,0.070290,2,0,0",
      "gpt-image-1,0,0,1,1,0,0,0,0.282525,2,1,0"
    ]
    "#);
}

#[tokio::test]
async fn without_limits_the_usage_is_counted_as_well() {
    let visionary = five().set("DAILY_IMAGE_QUOTA", "0").set("DAILY_BUDGET_USD", "0").start().await;

    for user in ["anna", "anna", "bob"] {
        assert_eq!(generate_as(&visionary, user).await.status, 200);
    }

    let today = eventually("three images count", async || visionary.today().await, |today| today["images"] == 3).await;
    assert_eq!((&today["callers"], &today["usd"]), (&json!(2), &json!(0.158_19)));
}

#[tokio::test]
async fn the_usage_needs_a_key_and_takes_1_to_92_days() {
    let visionary = Setup { keys: vec!["the-key".to_owned()], ..five() }.start().await;

    assert_eq!(visionary.get("/api/usage").await.status, 401);
    for (days, status) in [("1", 200), ("92", 200), ("0", 400), ("93", 400), ("many", 400), ("-1", 400)] {
        let answer = visionary.get(&format!("/api/usage?days={days}&code=the-key")).await;
        assert_eq!(answer.status, status, "{days}: {}", answer.body);
    }
    assert_eq!(visionary.get("/api/quota").await.status, 200);
}
