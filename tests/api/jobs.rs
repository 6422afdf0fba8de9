//! Jobs, through the queue and the host that listens to it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use devkit::queue::Queue;
use devkit::stand_ins::faults::{Faults, Line};
use devkit::stand_ins::host::LogLine;
use devkit::stand_ins::openai::{self, Endpoint, Hold, Reply};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use crate::harness::{
    Answer, Client, Request, Setup, Visionary, azurite, caption, eventually, masked, now, with_faults_before,
};

/// The host listens to the queue, and delivers a failed message again at once.
fn setup() -> Setup {
    Setup { queues: true, ..Setup::default() }
        .set("AzureFunctionsJobHost__extensions__queues__visibilityTimeout", "00:00:00")
}

/// Requests a job and returns its address.
async fn accept(visionary: &Visionary, prompt: &str) -> String {
    let answer = visionary.post(prompt).prefer("respond-async").send().await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.header("location").to_owned()
}

/// The job once it has this status or has ended otherwise.
async fn status(visionary: &Visionary, job: &str, wanted: &str) -> Value {
    let is_reached = |answer: &Answer| {
        // The host answers 503 while a handler is being started again.
        if answer.status != 200 {
            return false;
        }
        let job = answer.json();
        let status = job["status"].as_str().unwrap();
        status == wanted || ["done", "failed", "cancelled"].contains(&status)
    };
    eventually(&format!("{job} is {wanted}"), async || visionary.get(job).await, is_reached).await.json()
}

async fn delete(visionary: &Visionary, job: &str) -> Answer {
    visionary.request(Method::DELETE, job).send().await
}

fn queue(visionary: &Visionary, name: &str) -> Queue {
    Queue::open(&visionary.azurite.as_ref().expect("an account of its own").connection_string(), name).unwrap()
}

/// The queue's message for a job.
fn message(job: &str) -> Value {
    let accepted_at = now().format(&Rfc3339).expect("a time");
    json!({"job": job.rsplit('/').next().expect("an id"), "accepted_at": accepted_at})
}

/// The delivery of a message, as the host sends it to a function.
fn delivery(handler: &Client, function: &str, message: &Value) -> Request {
    let envelope = json!({"Data": {"job": message}, "Metadata": {"DequeueCount": "1"}});
    handler.request(Method::POST, function).json(&envelope)
}

#[tokio::test]
async fn a_job_is_accepted_drawn_and_done() {
    let visionary = setup().set("DAILY_IMAGE_QUOTA", "5").start().await;
    let hold = visionary.hold_next_image();

    let request = visionary.post_json(&json!({"prompt": "a fox", "style": "watercolor"}));
    let accepted = request.prefer("respond-async").send().await;
    let location = accepted.header("location").to_owned();
    hold.reached(1).await;
    let drawing = status(&visionary, &location, "drawing").await;
    hold.release();
    let done = status(&visionary, &location, "done").await;

    assert_eq!((accepted.status, accepted.header("preference-applied")), (202, "respond-async"), "{}", accepted.body);
    assert_eq!((accepted.header("retry-after"), accepted.header("ratelimit").contains("r=4")), ("2", true));
    let accepted = accepted.json();
    let id = accepted["id"].as_str().unwrap().to_owned();
    assert_eq!(location, format!("/api/generateImage/jobs/{id}"));
    assert_eq!(accepted["statusUrl"], location);
    insta::assert_json_snapshot!(masked(accepted, &["id", "statusUrl"]), @r#"
    {
      "estimateSeconds": null,
      "id": "[id]",
      "status": "queued",
      "statusUrl": "[statusUrl]"
    }
    "#);

    assert_eq!(drawing["id"], id);
    assert!(drawing["createdAt"].as_str().unwrap().len() <= "2026-11-21T10:24:00.696Z".len(), "{drawing}");
    insta::assert_json_snapshot!(masked(drawing, &["id", "statusUrl", "createdAt", "elapsedSeconds"]), @r#"
    {
      "createdAt": "[createdAt]",
      "elapsedSeconds": "[elapsedSeconds]",
      "estimateSeconds": null,
      "id": "[id]",
      "status": "drawing",
      "statusUrl": "[statusUrl]"
    }
    "#);

    let (name, url) = visionary.list().await.remove(0);
    assert_eq!((&done["result"]["name"], &done["result"]["url"]), (&json!(name), &json!(url)));
    let done = masked(done, &["id", "statusUrl", "createdAt", "elapsedSeconds"]);
    let members = ["id", "deleteToken", "name", "url", "downloadUrl", "createdAt", "bytes"];
    let members = members.map(|member| format!("result/{member}"));
    let done = masked(done, &members.each_ref().map(String::as_str));
    insta::assert_json_snapshot!(done, @r#"
    {
      "createdAt": "[createdAt]",
      "elapsedSeconds": "[elapsedSeconds]",
      "estimateSeconds": null,
      "id": "[id]",
      "result": {
        "bytes": "[bytes]",
        "contentType": "image/png",
        "createdAt": "[createdAt]",
        "deleteToken": "[deleteToken]",
        "downloadUrl": "[downloadUrl]",
        "enhancement": "style",
        "finalPrompt": "a fox, watercolor, soft washes, paper texture, gentle edges",
        "id": "[id]",
        "model": "gpt-image-2.5-flare",
        "name": "[name]",
        "prompt": "a fox",
        "quality": "medium",
        "revisedPrompt": null,
        "size": "1024x1024",
        "url": "[url]"
      },
      "status": "done",
      "statusUrl": "[statusUrl]"
    }
    "#);
    assert_eq!(visionary.open(&url).await.status(), 200);
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
    visionary.used(1).await;
    // A job's address matches in any case, as every address does.
    assert_eq!(visionary.get(&location.to_uppercase()).await.status, 200);
    let is_logged = visionary.host.logs().iter().any(|line| line.text.contains(&id) || line.text.contains("a fox"));
    assert!(!is_logged, "the id gives access to the image, as its link does");
}

#[tokio::test]
async fn prefer_wait_gets_the_answer_or_the_job() {
    let visionary = setup().start().await;

    let text = visionary.post("a fox").prefer("wait=60").send().await;
    let json = visionary.post("a fox").prefer("respond-async, wait=60").accept_json().send().await;
    let refused = visionary.post("a forbidden fox").prefer("wait=60").send().await;
    let hold = visionary.hold_next_image();
    let late = visionary.post("a fox").prefer("wait=1").send().await;
    hold.release();

    assert_eq!((text.status, text.body.as_str()), (200, "Image uploaded successfully"));
    assert_eq!(text.header("preference-applied"), "wait=60");
    assert_eq!((json.status, &json.json()["prompt"]), (200, &json!("a fox")));
    assert_eq!(refused.status_and_code(), (422, "prompt_rejected"));
    assert_eq!(late.status, 202, "{}", late.body);
    assert_eq!(status(&visionary, late.header("location"), "done").await["status"], "done");
    assert_eq!(visionary.list().await.len(), 3);
}

#[tokio::test]
async fn without_a_queue_jobs_are_refused_and_nothing_else_is() {
    let setup = Setup::default().set("AzureWebJobsStorage", "").set("accountName", "nobodys");
    let visionary = setup.set("accountKey", "c2VjcmV0").start().await;

    for preference in ["respond-async", "wait=10"] {
        let answer = visionary.post("a fox").prefer(preference).send().await;
        assert_eq!(answer.status_and_code(), (501, "jobs_unavailable"), "{preference}");
        assert!(answer.body.contains("AzureWebJobsStorage"), "{}", answer.body);
    }
    assert_eq!(visionary.get("/api/styles").await.status, 200);
}

/// The front end of Azure ends a request after 230 s, so a slow request becomes a job before that.
#[tokio::test]
async fn a_slow_request_is_answered_with_a_job_that_goes_on() {
    let visionary = Setup::default().set("SYNC_LIMIT_SECONDS", "1").start().await;
    let hold = visionary.hold_next_image();

    let answer = visionary.generate("a fox").await;

    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("drawing")), "{}", answer.body);
    let job = answer.header("location");
    assert_eq!(status(&visionary, job, "drawing").await["status"], "drawing");
    assert_eq!(delete(&visionary, job).await.status_and_code(), (409, "job_has_begun"));
    hold.release();
    let done = status(&visionary, job, "done").await;
    let (name, _) = visionary.list().await.remove(0);
    assert_eq!((&done["status"], &done["result"]["name"]), (&json!("done"), &json!(name)));
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
}

#[tokio::test]
async fn a_slow_request_that_fails_is_a_failed_job() {
    let visionary = Setup::default().set("SYNC_LIMIT_SECONDS", "1").start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::error(400, "x", "moderation_blocked", "no").held_by(&hold));

    let answer = visionary.generate("a fox").await;
    hold.release();
    let failed = status(&visionary, answer.header("location"), "failed").await;

    insta::assert_json_snapshot!(masked(failed, &["id", "statusUrl", "createdAt", "elapsedSeconds", "problem/invocationId"]), @r#"
    {
      "createdAt": "[createdAt]",
      "elapsedSeconds": "[elapsedSeconds]",
      "estimateSeconds": null,
      "id": "[id]",
      "problem": {
        "code": "prompt_rejected",
        "detail": "The image provider refused this prompt. Please rephrase it.",
        "invocationId": "[invocationId]",
        "status": 422,
        "title": "Unprocessable Entity",
        "type": "about:blank"
      },
      "status": "failed",
      "statusUrl": "[statusUrl]"
    }
    "#);
}

/// The next process finds the record when its lease has ended.
#[tokio::test]
async fn a_slow_request_whose_process_dies_is_a_failed_job_and_the_loss_is_logged_once() {
    let mut visionary = Setup::default().set("SYNC_LIMIT_SECONDS", "1").start().await;
    let hold = visionary.hold_next_image();
    let answer = visionary.generate("a fox").await;

    visionary.restart_handler().await;
    hold.release();
    let lost = status(&visionary, answer.header("location"), "failed").await;

    assert_eq!((&lost["status"], &lost["problem"]["code"]), (&json!("failed"), &json!("provider_answer_lost")));
    // The log line has the image's id, so that the operator can ask the provider.
    visionary.host.wait_for_log(|line| line.text.contains("and is lost")).await;
    let losses: Vec<LogLine> =
        visionary.host.logs().into_iter().filter(|line| line.text.contains("and is lost")).collect();
    assert!(losses.len() == 1 && losses[0].text.contains("ERROR") && losses[0].text.contains("image.id"), "{losses:?}");
}

#[tokio::test]
async fn a_job_is_cancelled_before_it_begins_and_not_after() {
    let visionary = setup().set("MAX_CONCURRENT_GENERATIONS", "1").set("DAILY_IMAGE_QUOTA", "9").start().await;
    let hold = visionary.hold_next_image();
    let first = accept(&visionary, "the first").await;
    hold.reached(1).await;
    let second = visionary.post("the second").prefer("respond-async").key("2").send().await;
    let second = second.header("location").to_owned();
    visionary.used(2).await;

    let cancelled = delete(&visionary, &second).await;
    visionary.used(1).await;
    let again = delete(&visionary, &second).await;
    let begun = delete(&visionary, &first).await;
    hold.release();

    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")), "{}", cancelled.body);
    assert_eq!(again.status, 200, "a second DELETE changes nothing");
    assert_eq!(begun.status_and_code(), (409, "job_has_begun"));
    assert_eq!(status(&visionary, &first, "done").await["status"], "done");
    assert_eq!(delete(&visionary, &first).await.status, 409);
    // The key of the cancelled job is free, and its message draws nothing.
    let third = visionary.post("the third").prefer("wait=60").key("2").send().await;
    assert_eq!(third.status, 200, "{}", third.body);
    assert_eq!(visionary.get(&second).await.json()["status"], "cancelled");
    let drawn: Vec<String> = visionary.openai.images_drawn().into_iter().map(|drawn| drawn.prompt).collect();
    assert_eq!(drawn, ["the first", "the third"]);
    visionary.used(2).await;
}

#[tokio::test]
async fn an_unknown_or_malformed_job_is_404() {
    let visionary = Setup::default().start().await;

    let unknown = format!("/api/generateImage/jobs/2026-11-21-{}", "0".repeat(64));
    for job in [&*unknown, "/api/generateImage/jobs/x", "/api/generateImage/jobs/'", "/api/generateImage/jobs/"] {
        assert_eq!(visionary.get(job).await.status, 404, "{job}");
        assert_eq!(delete(&visionary, job).await.status, 404, "{job}");
    }
}

#[tokio::test]
async fn a_key_leads_to_its_job_and_then_to_its_image() {
    let visionary = setup().start().await;
    let hold = visionary.hold_next_image();
    let post = async |prompt: &str, preference: &str| {
        visionary.post(prompt).prefer(preference).key("fox").accept_json().send().await
    };
    let first = post("a fox", "respond-async").await;
    let job = first.header("location");
    hold.reached(1).await;

    for preference in ["respond-async", "wait=1", "return=minimal"] {
        let again = post("a fox", preference).await;
        assert_eq!((again.status, again.header("location")), (202, job), "{preference}");
    }
    assert_eq!(post("a whale", "respond-async").await.header("x-error-code"), "idempotency_key_reused");

    hold.release();
    let done = status(&visionary, job, "done").await;
    for preference in ["respond-async", "wait=1", "return=minimal"] {
        let again = post("a fox", preference).await;
        assert_eq!((again.status, &again.json()), (200, &done["result"]), "{preference}");
    }
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
}

#[tokio::test]
async fn an_invalid_or_flagged_request_is_refused_before_it_becomes_a_job() {
    let visionary = setup().set("DAILY_IMAGE_QUOTA", "2").set("MODERATION", "on").start().await;

    let invalid = visionary.post("").prefer("respond-async").send().await;
    let flagged = visionary.post("a forbidden fox").prefer("respond-async").send().await;

    assert_eq!(invalid.status_and_code(), (400, "invalid_request"));
    assert_eq!(flagged.status_and_code(), (422, "prompt_rejected"));
}

#[tokio::test]
async fn a_failed_job_gives_the_quota_back_and_a_lost_one_does_not() {
    let visionary = setup().set("DAILY_IMAGE_QUOTA", "2").set("MODERATION", "on").start().await;

    visionary.openai.script(Endpoint::Images, Reply::error(400, "x", "bad_request", "no"));
    let job = accept(&visionary, "a fox").await;
    let failed = status(&visionary, &job, "failed").await;
    assert_eq!((&failed["status"], &failed["problem"]["code"]), (&json!("failed"), &json!("provider_misconfigured")));
    visionary.used(0).await;

    visionary.openai.script(Endpoint::Images, Reply::normal().cut_before_answer());
    let job = accept(&visionary, "a fox").await;
    let lost = status(&visionary, &job, "failed").await;
    assert_eq!(lost["problem"]["code"], "provider_answer_lost");
    visionary.used(1).await;

    let job = accept(&visionary, "a fox").await;
    assert_eq!(status(&visionary, &job, "done").await["status"], "done");
    let answer = visionary.post("a fox").prefer("respond-async").send().await;
    assert_eq!(answer.status_and_code(), (429, "quota_exceeded"));
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 3);
}

#[tokio::test]
async fn a_refused_job_is_a_refusal_in_the_usage() {
    let visionary = setup().start().await;

    let job = accept(&visionary, "a forbidden fox").await;
    let refused = status(&visionary, &job, "failed").await;

    assert_eq!(refused["problem"]["code"], "prompt_rejected");
    let today = visionary.accounted().await;
    assert_eq!((&today["refusals"], &today["failures"], &today["usd"]), (&json!(1), &json!(0), &json!(0.0)));
}

/// The price changes between the reservation and the delivery.
#[tokio::test]
async fn a_job_that_would_cost_more_than_was_reserved_is_not_drawn() {
    let mut visionary = Setup::default().start().await;
    let job = accept(&visionary, "a fox").await;

    visionary.settings.push(("IMAGE_PRICES".into(), r#"{"gpt-image-2.5-flare": {"image": 1}}"#.into()));
    let with_new_price = visionary.serve_at(now()).await;
    let delivered = delivery(&with_new_price, "/processImage", &message(&job)).send().await;

    assert_eq!(delivered.status, 200);
    let failed = status(&visionary, &job, "failed").await;
    assert_eq!((&failed["status"], &failed["problem"]["code"]), (&json!("failed"), &json!("job_outdated")));
    visionary.used(0).await;
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
}

/// The message is text, JSON text inside a JSON string, or an object. The host does not listen to the
/// queue here; the test delivers.
#[tokio::test]
async fn a_message_that_is_delivered_twice_is_paid_once_in_each_form() {
    let visionary = Setup { handlers: 2, ..Setup::default() }.start().await;
    let handlers = [visionary.handler(0), visionary.handler(1)];
    let forms: [fn(String) -> Value; 3] =
        [|text| json!(text), |text| json!(json!(text).to_string()), |text| serde_json::from_str(&text).unwrap()];

    for form in forms {
        let hold = visionary.hold_next_image();
        let job = accept(&visionary, "a fox").await;
        let message = form(message(&job).to_string());

        let concurrent = handlers.clone().map(|handler| delivery(&handler, "/processImage", &message).spawn());
        hold.reached(1).await;
        hold.release();
        let [first, second] = concurrent;
        let late = delivery(&handlers[0], "/processImage", &message);
        let answers = [first.await.unwrap(), second.await.unwrap(), late.send().await];

        for answer in answers {
            assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
            assert_eq!(answer.header("content-type"), "application/json");
        }
        assert_eq!(visionary.get(&job).await.json()["status"], "done");
    }
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 3);
    assert_eq!(visionary.list().await.len(), 3);
}

/// A job that is put back waits in the queue and holds no draw permit.
#[tokio::test]
async fn a_provider_that_is_overloaded_for_a_while_fails_no_job() {
    let visionary = setup().set("DAILY_IMAGE_QUOTA", "20").set("MAX_CONCURRENT_GENERATIONS", "2").start().await;
    let overloaded = Reply::error(503, "server_error", "server_is_overloaded", "no").header("retry-after-ms", "1");
    visionary.openai.script_always(Endpoint::Images, overloaded);

    let mut jobs = Vec::new();
    for _ in 0..20 {
        jobs.push(accept(&visionary, "a fox").await);
    }
    visionary.host.wait_for_logs(20, |line| line.text.contains("job_delayed")).await;
    for job in &jobs {
        assert_eq!(status(&visionary, job, "queued").await["status"], "queued");
    }
    visionary.used(20).await;

    visionary.openai.script_always(Endpoint::Images, Reply::normal());
    for job in &jobs {
        assert_eq!(status(&visionary, job, "done").await["status"], "done");
    }
    assert_eq!(visionary.openai.images_drawn().len(), 20);
    visionary.used(20).await;
}

/// The operator may correct the key while the jobs wait. A process remembers a refused key for 30 s; a
/// new process does not.
#[tokio::test]
async fn a_refused_key_puts_jobs_back_and_does_not_fail_them() {
    let mut visionary = setup().start().await;
    visionary.openai.script(Endpoint::Images, Reply::error(401, "x", "invalid_api_key", "no"));

    let job = accept(&visionary, "a fox").await;
    visionary.host.wait_for_log(|line| line.text.contains("job_delayed")).await;
    assert_eq!(status(&visionary, &job, "queued").await["status"], "queued");
    visionary.restart_handler().await;

    assert_eq!(status(&visionary, &job, "done").await["status"], "done");
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 2);
}

#[tokio::test]
async fn a_temporary_failure_is_delivered_again_and_a_final_one_is_not() {
    let visionary = setup().start().await;
    let overloaded = || Reply::error(503, "server_error", "server_is_overloaded", "no").header("retry-after-ms", "1");

    (0..3).for_each(|_| visionary.openai.script(Endpoint::Images, overloaded()));
    let job = accept(&visionary, "a fox").await;
    assert_eq!(status(&visionary, &job, "done").await["status"], "done");
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 4);

    visionary.openai.script(Endpoint::Images, overloaded().header("x-should-retry", "false"));
    let job = accept(&visionary, "a fox").await;
    assert_eq!(status(&visionary, &job, "failed").await["problem"]["code"], "provider_failed");
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 5);
}

/// The test sets the app's clock. The message of one job is delivered, that of the other is not.
#[tokio::test]
async fn a_job_that_is_not_drawn_within_two_hours_fails_and_does_not_count() {
    let visionary = Setup::default().set("DAILY_IMAGE_QUOTA", "5").start().await;
    let delivered = visionary.post("a fox").prefer("respond-async").key("fox").send().await;
    let delivered = delivered.header("location").to_owned();
    let forgotten = accept(&visionary, "a fox").await;
    visionary.used(2).await;

    let later = visionary.serve_at(now() + Duration::from_secs(2 * 60 * 60 + 1)).await;
    assert_eq!(delivery(&later, "/processImage", &message(&delivered)).send().await.status, 200);

    for job in [&delivered, &forgotten] {
        let failed = status(&visionary, job, "failed").await;
        assert_eq!((&failed["status"], &failed["problem"]["code"]), (&json!("failed"), &json!("job_failed")));
        assert!(failed["problem"]["detail"].as_str().unwrap().contains("2 hours"), "{failed}");
    }
    visionary.used(0).await;
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
    let again = visionary.post("a fox").prefer("return=minimal").key("fox").send().await;
    assert_eq!(again.status, 200, "the key is free: {}", again.body);
}

#[tokio::test]
async fn one_poller_reads_a_job_for_fifty_event_streams() {
    let (faults, through) = with_faults_before(azurite().table_port()).await;
    let visionary = Setup::default().set("AzureWebJobsStorage", through).start().await;
    let job = accept(&visionary, "a fox").await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let mut events = visionary.request(Method::GET, &job).events().stream().await;
        assert_eq!(events.until("accepted").await["name"], "a fox");
        streams.push(events);
    }

    let before = faults.requests();
    let started = Instant::now();
    let has_read_five_times = |requests: &usize| *requests >= before + 5;
    eventually("the poller has read five times", async || faults.requests(), has_read_five_times).await;
    let took = started.elapsed();
    let cancelled = delete(&visionary, &job).await;

    assert!(took >= Duration::from_secs(3), "{took:?} for five reads");
    assert_eq!(cancelled.status, 200, "{}", cancelled.body);
    for mut events in streams {
        assert_eq!(events.until("error").await["code"], "job_cancelled");
    }
}

/// The poison queue receives the message of a job whose processes died.
#[tokio::test]
async fn a_job_in_the_poison_queue_fails_and_does_not_count() {
    let visionary = Setup::default().set("DAILY_IMAGE_QUOTA", "5").start().await;
    let handler = visionary.handler(0);
    let accepted = visionary.post("a fox").prefer("respond-async").key("fox").send().await;
    let job = accepted.header("location");
    visionary.used(1).await;
    let message = json!(message(job).to_string());

    for _ in 0..2 {
        let answer = delivery(&handler, "/processImagePoison", &message).send().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    }

    visionary.host.wait_for_log(|line| line.text.contains("\"event\":\"job_given_up\"")).await;

    let failed = visionary.get(job).await.json();
    assert_eq!((&failed["status"], &failed["problem"]["code"]), (&json!("failed"), &json!("job_failed")));
    visionary.used(0).await;
    // A late delivery of the job draws nothing.
    assert_eq!(delivery(&handler, "/processImage", &message).send().await.status, 200);
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
    let again = visionary.post("a fox").prefer("return=minimal").key("fox").send().await;
    assert_eq!(again.status, 200, "the key is free");
}

/// The app with a line that can fail to its blobs, and a job that is being drawn: its address and its
/// delivery.
async fn drawing(hold: &Hold) -> (Visionary, Faults, String, tokio::task::JoinHandle<()>) {
    let (faults, through) = with_faults_before(azurite().blob_port()).await;
    let visionary = Setup::default().set("AzureWebJobsStorage", through).start().await;
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(hold));
    let job = accept(&visionary, "a fox").await;
    let delivery = delivery(&visionary.handler(0), "/processImage", &json!(message(&job).to_string()));
    // The handler may die before it answers.
    let delivery = tokio::spawn(async move { drop(delivery.attempt().await) });
    hold.reached(1).await;
    (visionary, faults, job, delivery)
}

#[tokio::test]
async fn a_job_whose_process_died_is_done_when_the_spool_has_its_image() {
    let hold = Hold::new();
    let (mut visionary, faults, job, delivery) = drawing(&hold).await;
    faults.set(Line::Stalled);
    hold.release();
    visionary.spooled().await;

    visionary.host.kill_handler(0).await;
    delivery.await.unwrap();
    faults.set(Line::Whole);
    visionary.host.start_handler(0).await.unwrap();

    let done = status(&visionary, &job, "done").await;
    let (name, _) = visionary.list().await.remove(0);
    assert_eq!((&done["status"], &done["result"]["name"]), (&json!("done"), &json!(name)));
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
}

#[tokio::test]
async fn a_job_whose_image_is_stored_later_is_done_and_gets_its_link_afterwards() {
    let hold = Hold::new();
    let (visionary, faults, job, delivery) = drawing(&hold).await;

    faults.set(Line::Cut);
    hold.release();
    delivery.await.unwrap();
    let done = visionary.get(&job).await.json();
    faults.set(Line::Whole);

    assert_eq!((&done["status"], &done["result"]["code"]), (&json!("done"), &json!("stored_later")), "{done}");
    visionary.host.wait_for_log(|line| line.text.contains("spooled_image_uploaded")).await;
    let look = async || visionary.get(&job).await.json();
    eventually("the job has a link", look, |job| job["result"]["url"].is_string()).await;
}

#[tokio::test]
async fn foreign_and_malformed_messages_are_dropped() {
    let visionary = setup().start().await;
    let jobs = queue(&visionary, "visionary-jobs");
    let mut unknown = message(&format!("2026-11-21-{}", "0".repeat(64)));
    unknown["accepted_at"] = json!("2026-11-21T10:24:00Z");
    let unknown = unknown.to_string();

    for text in ["hello", "", "[]", "{\"job\": 7}", "{\"job\": \"'; drop\"}", &unknown] {
        jobs.put(text).await.unwrap();
    }
    visionary.host.wait_for_logs(6, |line| line.text.contains("it is dropped")).await;

    // A job after them is drawn.
    let job = accept(&visionary, "a fox").await;
    assert_eq!(status(&visionary, &job, "done").await["status"], "done");
    assert!(queue(&visionary, "visionary-jobs-poison").peek().await.unwrap().is_empty());
    assert!(!visionary.host.logs().iter().any(|line| line.text.contains("drop\"")), "no message's text is logged");
}

#[tokio::test]
async fn every_process_serves_the_events_of_a_job() {
    let visionary = Setup { handlers: 2, ..setup() }.start().await;
    let hold = visionary.hold_next_image();
    let job = accept(&visionary, "a fox").await;
    hold.reached(1).await;

    for index in 0..2 {
        let mut events = visionary.handler(index).request(Method::GET, &job).events().stream().await;
        assert_eq!(events.until("accepted").await["name"], "a fox");
        while events.until("progress").await["phase"] != "drawing" {}
        if index == 1 {
            hold.release();
            assert_eq!(events.until("image").await["prompt"], "a fox");
            assert_eq!(events.next().await, None);
        }
    }

    let failed = accept(&visionary, "a forbidden fox").await;
    let mut events = visionary.request(Method::GET, &failed).events().stream().await;
    assert_eq!(events.until("error").await["code"], "prompt_rejected");
}

/// 100 jobs, two processes, and four SIGKILLs.
#[tokio::test]
async fn jobs_survive_their_processes_and_none_is_paid_twice() {
    const JOBS: usize = 100;
    // A message is delivered at most five times.
    const KILLS: usize = 4;
    let openai = openai::Options { delay: Duration::from_millis(150), ..openai::Options::default() };
    let mut visionary = Setup { handlers: 2, openai, ..setup() }
        .set("MAX_CONCURRENT_GENERATIONS", "6")
        .set("AzureFunctionsJobHost__extensions__queues__batchSize", "32")
        .set("AzureFunctionsJobHost__extensions__queues__newBatchThreshold", "64")
        .start()
        .await;
    let mut jobs = Vec::new();
    for number in 0..JOBS {
        let prompt = format!("fox {number}");
        let job = accept(&visionary, &prompt).await;
        jobs.push((prompt, job));
    }

    let started = Instant::now();
    for kill in 0..KILLS {
        visionary.openai.wait_for_requests(Endpoint::Images, (kill + 1) * JOBS / (KILLS + 2)).await;
        visionary.host.kill_handler(kill % 2).await;
        visionary.host.start_handler(kill % 2).await.unwrap();
    }
    let (mut done, mut lost) = (BTreeSet::new(), BTreeSet::new());
    for (prompt, job) in &jobs {
        let ended = status(&visionary, job, "done").await;
        match ended["status"].as_str().unwrap() {
            "done" => assert!(done.insert(prompt.clone())),
            "failed" => {
                assert_eq!(ended["problem"]["code"], "provider_answer_lost", "{ended}");
                assert!(lost.insert(prompt.clone()));
            }
            other => panic!("{prompt} is {other}"),
        }
    }
    println!("{} done, {} lost with their processes, in {:?}", done.len(), lost.len(), started.elapsed());

    assert_eq!(done.len() + lost.len(), JOBS);
    // The gallery has the image of each done job once, and no other image.
    let listed: Vec<String> = visionary.list().await.iter().map(|(name, _)| caption(name).to_owned()).collect();
    assert_eq!(listed.len(), done.len());
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), done);
    // The provider received no prompt twice. A lost job may have died just before its request.
    let requests = visionary.openai.requests(Endpoint::Images);
    let prompts: BTreeSet<String> =
        requests.iter().map(|request| request.body["prompt"].as_str().unwrap().to_owned()).collect();
    assert_eq!(prompts.len(), requests.len(), "a job was paid twice");
    assert!(done.is_subset(&prompts) && prompts.is_subset(&(&done | &lost)));
    assert!(lost.len() <= 6 * KILLS, "at most the images that were being drawn are lost");
    // Each job counts once, and nothing stays reserved.
    visionary.used(u64::try_from(JOBS).unwrap()).await;
    visionary.accounted().await;
}

/// A job that is cancelled gives its quota back, but it has been a message, a record and a delivery.
#[tokio::test]
async fn jobs_that_a_caller_makes_and_cancels_are_limited() {
    let visionary = setup().set("DAILY_JOBS", "3").set("MAX_CONCURRENT_GENERATIONS", "1").start().await;
    let hold = visionary.hold_next_image();
    let first = accept(&visionary, "a fox").await;
    hold.reached(1).await;
    for _ in 0..2 {
        let job = accept(&visionary, "a fox").await;
        assert_eq!(delete(&visionary, &job).await.status, 200);
    }

    let exceeded = visionary.post("a fox").prefer("respond-async").send().await;

    assert_eq!(exceeded.status_and_code(), (429, "jobs_exceeded"));
    hold.release();
    assert_eq!(status(&visionary, &first, "done").await["status"], "done");
    assert_eq!(visionary.generate("a fox").await.status, 200, "an image that is waited for is no job");
}

/// Each job puts its message into the queue before a limit can refuse it. The host does not listen to the queue here.
#[tokio::test]
async fn jobs_beyond_a_limit_that_come_at_once_leave_few_messages() {
    const AT_ONCE: usize = 60;
    let (queue, through) = with_faults_before(azurite().ports()[1]).await;
    let visionary = Setup::default().set("AzureWebJobsStorage", through).set("DAILY_IMAGE_QUOTA", "4").start().await;
    // The first job creates the queue.
    assert_eq!(delete(&visionary, &accept(&visionary, "a fox").await).await.status, 200);

    for round in 1..=2 {
        let before = queue.requests();
        let jobs = (0..AT_ONCE).map(|_| visionary.post("a fox").prefer("respond-async").spawn());
        let answers: Vec<Answer> = join_all(jobs).await.into_iter().map(Result::unwrap).collect();

        let (accepted, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 202);
        assert_eq!(accepted.len(), 4);
        assert!(refused.iter().all(|answer| answer.status_and_code() == (429, "quota_exceeded")), "{refused:?}");
        // Of eight jobs at a time at least one is within the limit or shows the others that it is reached.
        let messages = queue.requests() - before;
        assert!(messages <= 4 + 2 * 8, "{messages} messages for four jobs in round {round}");
        for answer in accepted {
            assert_eq!(delete(&visionary, answer.header("location")).await.status, 200);
        }
    }
}
