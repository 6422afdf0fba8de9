//! Jobs, through the queue and the host that listens to it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use devkit::queue::Queue;
use devkit::stand_ins::faults::{Faults, Line};
use devkit::stand_ins::host::LogLine;
use devkit::stand_ins::openai::{self, Endpoint, Hold, Reply};
use reqwest::Method;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use crate::harness::{Answer, Setup, Visionary, azurite, caption, eventually, http, now, with_faults_before};
use crate::sse::Events;

const FOX: &str = r#"{"prompt":"a fox"}"#;

/// Failed deliveries come again at once.
fn setup() -> Setup {
    Setup { queues: true, ..Setup::default() }
        .set("AzureFunctionsJobHost__extensions__queues__visibilityTimeout", "00:00:00")
}

async fn post(visionary: &Visionary, prefer: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = visionary.request(Method::POST, "/api/generateImage").header("prefer", prefer);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request.body(body.to_owned()).send().await.expect("an answer")).await
}

/// The address of a job that was accepted.
async fn accept(visionary: &Visionary, body: &str) -> String {
    let answer = post(visionary, "respond-async", &[], body).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.header("location").to_owned()
}

/// The job once it has that status, or another one at its end.
async fn status(visionary: &Visionary, job: &str, wanted: &str) -> Value {
    let look = async || {
        // Nobody answers while a handler is being started again.
        let job = Some(visionary.get(job).await).filter(|answer| answer.status == 200)?.json();
        let ended = ["done", "failed", "cancelled"].contains(&job["status"].as_str().unwrap());
        (job["status"] == wanted || ended).then_some(job)
    };
    eventually(look).await
}

async fn delete(visionary: &Visionary, job: &str) -> Answer {
    Answer::of(visionary.request(Method::DELETE, job).send().await.expect("an answer")).await
}

fn queue(visionary: &Visionary, name: &str) -> Queue {
    Queue::open(&visionary.azurite.as_ref().expect("an account of its own").connection_string(), name).unwrap()
}

/// The message that is in the queue for a job.
fn message(job: &str) -> Value {
    let accepted_at = now().format(&Rfc3339).expect("a time");
    json!({"job": job.rsplit('/').next().expect("an id"), "accepted_at": accepted_at})
}

/// What the host sends for a message.
fn envelope(data: &Value) -> Value {
    json!({"Data": {"job": data}, "Metadata": {"DequeueCount": "1"}})
}

async fn deliver(visionary: &Visionary, handler: usize, data: &Value) -> Answer {
    let url = format!("{}/processImage", visionary.host.handler_url(handler).unwrap());
    Answer::of(http().post(url).json(&envelope(data)).send().await.unwrap()).await
}

#[tokio::test]
async fn a_job_is_accepted_drawn_and_told_of() {
    let visionary = setup().set("DAILY_IMAGE_QUOTA", "5").start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let answer = post(&visionary, "respond-async", &[], r#"{"prompt":"a fox","style":"watercolor"}"#).await;
    assert_eq!((answer.status, answer.header("preference-applied")), (202, "respond-async"), "{}", answer.body);
    assert_eq!((answer.header("retry-after"), answer.header("ratelimit").contains("r=4")), ("2", true));
    let (body, location) = (answer.json(), answer.header("location").to_owned());
    let id = body["id"].as_str().unwrap().to_owned();
    assert_eq!((&body["status"], &body["statusUrl"]), (&json!("queued"), &json!(location)));
    assert_eq!(location, format!("/api/generateImage/jobs/{id}"));

    hold.reached(1).await;
    let drawing = status(&visionary, &location, "drawing").await;
    assert_eq!((&drawing["id"], &drawing["status"]), (&json!(id), &json!("drawing")));
    assert_eq!((drawing.get("result"), drawing.get("problem")), (None, None));
    assert!(drawing["createdAt"].as_str().unwrap().len() <= "2026-11-21T10:24:00.696Z".len(), "{drawing}");
    hold.release();
    let done = status(&visionary, &location, "done").await;
    assert_eq!(done["status"], "done");
    let result = &done["result"];
    assert_eq!((&result["prompt"], &result["enhancement"]), (&json!("a fox"), &json!("style")));
    let (name, url) = visionary.list().await.remove(0);
    assert_eq!((&result["name"], &result["url"]), (&json!(name), &json!(url)));
    assert_eq!(visionary.open(&url).await.status(), 200);
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
    visionary.used(1).await;
    // Addresses match in any case, as all do.
    assert_eq!(visionary.get(&location.to_uppercase()).await.status, 200);
    let logged = visionary.host.logs().iter().any(|line| line.text.contains(&id) || line.text.contains("a fox"));
    assert!(!logged, "an id is as good as the image's link");
}

#[tokio::test]
async fn who_prefers_to_wait_gets_the_answer_or_the_job() {
    let visionary = setup().start().await;
    let answer = post(&visionary, "wait=60", &[], FOX).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "Image uploaded successfully"));
    assert_eq!(answer.header("preference-applied"), "wait=60");
    let json = post(&visionary, "respond-async, wait=60", &[("accept", "application/json")], FOX).await;
    assert_eq!((json.status, &json.json()["prompt"]), (200, &json!("a fox")));
    // As it would have ended without a job.
    let refused = post(&visionary, "wait=60", &[], r#"{"prompt":"a forbidden fox"}"#).await;
    assert_eq!((refused.status, refused.header("x-error-code")), (422, "prompt_rejected"));
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let late = post(&visionary, "wait=1", &[], FOX).await;
    assert_eq!(late.status, 202, "{}", late.body);
    hold.release();
    assert_eq!(status(&visionary, late.header("location"), "done").await["status"], "done");
    assert_eq!(visionary.list().await.len(), 3);
}

#[tokio::test]
async fn without_a_queue_jobs_are_refused_and_nothing_else_is() {
    let setup = Setup::default().set("AzureWebJobsStorage", "").set("accountName", "nobodys");
    let visionary = setup.set("accountKey", "c2VjcmV0").start().await;
    for prefer in ["respond-async", "wait=10"] {
        let answer = post(&visionary, prefer, &[], FOX).await;
        assert_eq!((answer.status, answer.header("x-error-code")), (501, "jobs_unavailable"), "{prefer}");
        assert!(answer.body.contains("AzureWebJobsStorage"), "{}", answer.body);
    }
    assert_eq!(visionary.get("/api/styles").await.status, 200);
}

/// The front end would cut it off; so it becomes a job while it goes on.
#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_with_a_job() {
    let visionary = Setup::default().set("SYNC_LIMIT_SECONDS", "1").start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let answer = visionary.generate("a fox").await;
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("drawing")), "{}", answer.body);
    let job = answer.header("location").to_owned();
    assert_eq!(status(&visionary, &job, "drawing").await["status"], "drawing");
    let refused = delete(&visionary, &job).await;
    assert_eq!((refused.status, refused.header("x-error-code")), (409, "job_has_begun"));
    hold.release();
    let done = status(&visionary, &job, "done").await;
    let (name, _) = visionary.list().await.remove(0);
    assert_eq!((&done["status"], &done["result"]["name"]), (&json!("done"), &json!(name)));
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);

    // What fails in the end is told, too.
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::error(400, "x", "moderation_blocked", "no").held_by(&hold));
    let job = visionary.generate("a fox").await.header("location").to_owned();
    hold.release();
    let failed = status(&visionary, &job, "failed").await;
    assert_eq!((&failed["status"], &failed["problem"]["code"]), (&json!("failed"), &json!("prompt_rejected")));

    // And where nobody is left to tell, that is said when its lease has ended.
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let job = visionary.generate("a fox").await.header("location").to_owned();
    let mut visionary = visionary;
    visionary.host.kill_handler(0).await;
    visionary.host.start_handler(0).await.unwrap();
    hold.release();
    let lost = status(&visionary, &job, "failed").await;
    assert_eq!((&lost["status"], &lost["problem"]["code"]), (&json!("failed"), &json!("provider_answer_lost")));
    // The operator is told once, with the image's id.
    visionary.host.wait_for_log(|line| line.text.contains("and is lost")).await;
    let told: Vec<LogLine> =
        visionary.host.logs().into_iter().filter(|line| line.text.contains("and is lost")).collect();
    assert!(told.len() == 1 && told[0].text.contains("ERROR") && told[0].text.contains("image.id"), "{told:?}");
}

#[tokio::test]
async fn a_job_is_cancelled_before_it_begins_and_not_after() {
    let visionary = setup().set("MAX_CONCURRENT_GENERATIONS", "1").set("DAILY_IMAGE_QUOTA", "9").start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let first = accept(&visionary, r#"{"prompt":"the first"}"#).await;
    hold.reached(1).await;
    let second = post(&visionary, "respond-async", &[("idempotency-key", "2")], r#"{"prompt":"the second"}"#).await;
    let second = second.header("location").to_owned();
    visionary.used(2).await;
    let cancelled = delete(&visionary, &second).await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")), "{}", cancelled.body);
    visionary.used(1).await;
    assert_eq!(delete(&visionary, &second).await.status, 200, "a second time does no harm");
    let begun = delete(&visionary, &first).await;
    assert_eq!((begun.status, begun.header("x-error-code")), (409, "job_has_begun"));
    hold.release();
    assert_eq!(status(&visionary, &first, "done").await["status"], "done");
    assert_eq!(delete(&visionary, &first).await.status, 409);
    // Its message came, and found it cancelled; its key is free.
    let third = post(&visionary, "wait=60", &[("idempotency-key", "2")], r#"{"prompt":"the third"}"#).await;
    assert_eq!(third.status, 200, "{}", third.body);
    assert_eq!(visionary.get(&second).await.json()["status"], "cancelled");
    let drawn: Vec<String> = visionary.openai.images_drawn().into_iter().map(|drawn| drawn.prompt).collect();
    assert_eq!(drawn, ["the first", "the third"]);
    let unknown = format!("/api/generateImage/jobs/2026-11-21-{}", "0".repeat(64));
    for job in [&*unknown, "/api/generateImage/jobs/x", "/api/generateImage/jobs/'", "/api/generateImage/jobs/"] {
        assert_eq!(visionary.get(job).await.status, 404, "{job}");
        assert_eq!(delete(&visionary, job).await.status, 404, "{job}");
    }
    visionary.used(2).await;
}

#[tokio::test]
async fn a_key_leads_to_its_job_and_then_to_its_image() {
    let visionary = setup().start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let key = [("idempotency-key", "fox"), ("accept", "application/json")];
    let first = post(&visionary, "respond-async", &key, FOX).await;
    hold.reached(1).await;
    for prefer in ["respond-async", "wait=1", "return=minimal"] {
        let again = post(&visionary, prefer, &key, FOX).await;
        assert_eq!((again.status, again.header("location")), (202, first.header("location")), "{prefer}");
    }
    let other = post(&visionary, "respond-async", &key, r#"{"prompt":"a whale"}"#).await;
    assert_eq!(other.header("x-error-code"), "idempotency_key_reused");
    hold.release();
    let done = status(&visionary, first.header("location"), "done").await;
    for prefer in ["respond-async", "wait=1", "return=minimal"] {
        let again = post(&visionary, prefer, &key, FOX).await;
        assert_eq!((again.status, &again.json()), (200, &done["result"]), "{prefer}");
    }
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
}

#[tokio::test]
async fn what_can_be_refused_at_once_is_and_what_fails_for_good_gives_back() {
    let visionary = setup().set("DAILY_IMAGE_QUOTA", "2").set("MODERATION", "on").start().await;
    for (body, status, code) in
        [(r#"{"prompt":""}"#, 400, "invalid_request"), (r#"{"prompt":"a forbidden fox"}"#, 422, "prompt_rejected")]
    {
        let answer = post(&visionary, "respond-async", &[], body).await;
        assert_eq!((answer.status, answer.header("x-error-code")), (status, code));
    }
    visionary.openai.script(Endpoint::Images, Reply::error(400, "x", "bad_request", "no"));
    let job = accept(&visionary, FOX).await;
    let failed = status(&visionary, &job, "failed").await;
    assert_eq!((&failed["status"], &failed["problem"]["code"]), (&json!("failed"), &json!("provider_misconfigured")));
    visionary.used(0).await;
    visionary.openai.script(Endpoint::Images, Reply::normal().cut_before_answer());
    let job = accept(&visionary, FOX).await;
    let lost = status(&visionary, &job, "failed").await;
    assert_eq!(lost["problem"]["code"], "provider_answer_lost");
    visionary.used(1).await;
    assert_eq!(status(&visionary, &accept(&visionary, FOX).await, "done").await["status"], "done");
    let answer = post(&visionary, "respond-async", &[], FOX).await;
    assert_eq!((answer.status, answer.header("x-error-code")), (429, "quota_exceeded"));
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 3);
}

#[tokio::test]
async fn a_refused_job_is_a_refusal_in_the_usage() {
    let visionary = setup().start().await;
    let job = accept(&visionary, r#"{"prompt":"a forbidden fox"}"#).await;
    assert_eq!(status(&visionary, &job, "failed").await["problem"]["code"], "prompt_rejected");
    let today = visionary.accounted().await;
    assert_eq!((&today["refusals"], &today["failures"], &today["usd"]), (&json!(1), &json!(0), &json!(0.0)));
}

/// The price has changed between the reservation and the delivery.
#[tokio::test]
async fn a_job_that_would_cost_more_than_was_reserved_is_not_drawn() {
    let mut visionary = Setup::default().start().await;
    let job = accept(&visionary, FOX).await;
    visionary.settings.push(("IMAGE_PRICES".into(), r#"{"gpt-image-2.5-flare": {"image": 1}}"#.into()));
    let dearer = visionary.serve_at(now()).await;
    let message = envelope(&message(&job));
    let delivery = http().post(format!("{dearer}/processImage")).json(&message).send().await.unwrap();
    assert_eq!(delivery.status(), 200);
    let failed = status(&visionary, &job, "failed").await;
    assert_eq!((&failed["status"], &failed["problem"]["code"]), (&json!("failed"), &json!("job_outdated")));
    visionary.used(0).await;
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
}

/// A refused key is remembered for half a minute; a new process knows nothing of it.
async fn restarted(mut visionary: Visionary) -> Visionary {
    visionary.host.kill_handler(0).await;
    visionary.host.start_handler(0).await.unwrap();
    visionary
}

#[tokio::test]
async fn a_message_that_is_delivered_twice_is_paid_once_in_whatever_form_it_comes() {
    // The host does not listen, so that the test delivers.
    let visionary = Setup { handlers: 2, ..Setup::default() }.start().await;
    let once = |job: &str| message(job).to_string();
    let forms: [fn(String) -> Value; 3] =
        [|text| json!(text), |text| json!(json!(text).to_string()), |text| serde_json::from_str(&text).unwrap()];
    for form in forms {
        let hold = Hold::new();
        visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
        let job = accept(&visionary, FOX).await;
        let message = form(once(&job));
        let release = async {
            hold.reached(1).await;
            hold.release();
        };
        let (first, second, ()) =
            tokio::join!(deliver(&visionary, 0, &message), deliver(&visionary, 1, &message), release);
        for answer in [first, second, deliver(&visionary, 0, &message).await] {
            assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
            assert_eq!(answer.header("content-type"), "application/json");
        }
        assert_eq!(visionary.get(&job).await.json()["status"], "done");
    }
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 3);
    assert_eq!(visionary.list().await.len(), 3);
}

/// Put off, each waits for its next try in the queue, and holds no turn.
#[tokio::test]
async fn a_passing_trouble_of_the_provider_never_fails_a_job_while_it_lasts() {
    let visionary = setup().set("DAILY_IMAGE_QUOTA", "20").set("MAX_CONCURRENT_GENERATIONS", "2").start().await;
    let overloaded = Reply::error(503, "server_error", "server_is_overloaded", "no").header("retry-after-ms", "1");
    visionary.openai.script_always(Endpoint::Images, overloaded);
    let mut jobs = Vec::new();
    for _ in 0..20 {
        jobs.push(accept(&visionary, FOX).await);
    }
    visionary.host.wait_for_logs(20, |line| line.text.contains("a job is put off")).await;
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

/// The operator may mend it meanwhile.
#[tokio::test]
async fn a_refused_key_puts_jobs_off_and_does_not_fail_them() {
    let visionary = setup().start().await;
    visionary.openai.script(Endpoint::Images, Reply::error(401, "x", "invalid_api_key", "no"));
    let job = accept(&visionary, FOX).await;
    visionary.host.wait_for_log(|line| line.text.contains("a job is put off")).await;
    assert_eq!(status(&visionary, &job, "queued").await["status"], "queued");
    let visionary = restarted(visionary).await;
    assert_eq!(status(&visionary, &job, "done").await["status"], "done");
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 2);
}

#[tokio::test]
async fn a_passing_failure_is_tried_again_by_the_queue_and_a_final_one_is_not() {
    let visionary = setup().start().await;
    let overloaded = || Reply::error(503, "server_error", "server_is_overloaded", "no").header("retry-after-ms", "1");
    for _ in 0..3 {
        visionary.openai.script(Endpoint::Images, overloaded());
    }
    let job = accept(&visionary, FOX).await;
    assert_eq!(status(&visionary, &job, "done").await["status"], "done");
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 4);
    visionary.openai.script(Endpoint::Images, overloaded().header("x-should-retry", "false"));
    let job = accept(&visionary, FOX).await;
    assert_eq!(status(&visionary, &job, "failed").await["problem"]["code"], "provider_failed");
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 5);
}

/// The time is passed, nobody sleeps.
#[tokio::test]
async fn a_job_that_nobody_could_draw_for_two_hours_fails_and_does_not_count() {
    let visionary = Setup::default().set("DAILY_IMAGE_QUOTA", "5").start().await;
    let key = [("idempotency-key", "fox")];
    let delivered = post(&visionary, "respond-async", &key, FOX).await.header("location").to_owned();
    let forgotten = accept(&visionary, FOX).await;
    visionary.used(2).await;
    let later = visionary.serve_at(now() + Duration::from_secs(2 * 60 * 60 + 1)).await;
    let delivery = http().post(format!("{later}/processImage")).json(&envelope(&message(&delivered)));
    assert_eq!(delivery.send().await.unwrap().status(), 200);
    // Whether its message comes or not.
    for job in [&delivered, &forgotten] {
        let failed = status(&visionary, job, "failed").await;
        assert_eq!((&failed["status"], &failed["problem"]["code"]), (&json!("failed"), &json!("job_failed")));
        assert!(failed["problem"]["detail"].as_str().unwrap().contains("2 hours"), "{failed}");
    }
    visionary.used(0).await;
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
    let again = post(&visionary, "return=minimal", &key, FOX).await;
    assert_eq!(again.status, 200, "its key is free: {}", again.body);
}

/// However many watch.
#[tokio::test]
async fn a_watched_job_is_read_by_one_poller() {
    let (faults, through) = with_faults_before(azurite().table_port()).await;
    let visionary = Setup::default().set("AzureWebJobsStorage", through).start().await;
    let job = accept(&visionary, FOX).await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let request = visionary.request(Method::GET, &job).header("accept", "text/event-stream");
        let mut events = Events::of(request.send().await.unwrap());
        assert_eq!(events.until("accepted").await["name"], "a fox");
        streams.push(events);
    }
    let before = faults.requests();
    let started = Instant::now();
    // Five reads of the poller.
    eventually(async || (faults.requests() >= before + 5).then_some(())).await;
    assert!(started.elapsed() >= Duration::from_secs(3), "{:?} for five reads", started.elapsed());
    let cancelled = delete(&visionary, &job).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.body);
    for mut events in streams {
        assert_eq!(events.until("error").await["code"], "job_cancelled");
    }
}

/// What the poison queue's function does with a job whose processes have died.
#[tokio::test]
async fn a_job_that_is_poison_is_failed_and_does_not_count() {
    let visionary = Setup::default().set("DAILY_IMAGE_QUOTA", "5").start().await;
    let key = [("idempotency-key", "fox")];
    let job = post(&visionary, "respond-async", &key, FOX).await.header("location").to_owned();
    visionary.used(1).await;
    let url = format!("{}/processImagePoison", visionary.host.handler_url(0).unwrap());
    let message = json!(message(&job).to_string());
    for _ in 0..2 {
        let answer = Answer::of(http().post(&url).json(&envelope(&message)).send().await.unwrap()).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}"));
    }
    let failed = visionary.get(&job).await.json();
    assert_eq!((&failed["status"], &failed["problem"]["code"]), (&json!("failed"), &json!("job_failed")));
    visionary.used(0).await;
    // A message of it that comes late draws nothing.
    assert_eq!(deliver(&visionary, 0, &message).await.status, 200);
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
    assert_eq!(post(&visionary, "return=minimal", &key, FOX).await.status, 200, "its key is free");
}

/// With a line to the images that can be cut, and a job that a delivery has begun to draw.
async fn drawing(hold: &Hold) -> (Visionary, Faults, String, tokio::task::JoinHandle<()>) {
    let (faults, through) = with_faults_before(azurite().blob_port()).await;
    let visionary = Setup::default().set("AzureWebJobsStorage", through).start().await;
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(hold));
    let job = accept(&visionary, FOX).await;
    let url = format!("{}/processImage", visionary.host.handler_url(0).unwrap());
    let message = envelope(&json!(message(&job).to_string()));
    // Its handler may die before it answers.
    let delivery = tokio::spawn(async move { drop(http().post(url).json(&message).send().await) });
    hold.reached(1).await;
    (visionary, faults, job, delivery)
}

#[tokio::test]
async fn a_job_whose_process_died_with_the_image_is_done_once_that_is_found() {
    let hold = Hold::new();
    let (mut visionary, faults, job, delivery) = drawing(&hold).await;
    faults.set(Line::Stalled);
    hold.release();
    let spool = std::path::PathBuf::from(visionary.setting("SPOOL_DIR"));
    let is_there = |folder: &std::path::Path| {
        let mut files = std::fs::read_dir(folder).unwrap();
        files.any(|file| file.unwrap().path().extension().is_some_and(|ending| ending == "image"))
    };
    eventually(async || is_there(&spool).then_some(())).await;
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
async fn a_jobs_image_that_is_stored_later_is_told_of_twice() {
    let hold = Hold::new();
    let (visionary, faults, job, delivery) = drawing(&hold).await;
    faults.set(Line::Cut);
    hold.release();
    delivery.await.unwrap();
    let done = visionary.get(&job).await.json();
    assert_eq!((&done["status"], &done["result"]["code"]), (&json!("done"), &json!("stored_later")), "{done}");
    faults.set(Line::Whole);
    visionary.host.wait_for_log(|line| line.text.contains("stored after all")).await;
    eventually(async || visionary.get(&job).await.json()["result"]["url"].as_str().map(drop)).await;
}

#[tokio::test]
async fn messages_that_are_not_ours_are_dropped() {
    let visionary = setup().start().await;
    let queue = queue(&visionary, "visionary-jobs");
    let mut not_known = message(&format!("2026-11-21-{}", "0".repeat(64)));
    not_known["accepted_at"] = json!("2026-11-21T10:24:00Z");
    let not_known = not_known.to_string();
    for text in ["hello", "", "[]", "{\"job\": 7}", "{\"job\": \"'; drop\"}", &not_known] {
        queue.put(text).await.unwrap();
    }
    let dropped = |line: &LogLine| line.text.contains("it is dropped");
    visionary.host.wait_for_logs(6, dropped).await;
    // What comes after them is done.
    let job = accept(&visionary, FOX).await;
    assert_eq!(status(&visionary, &job, "done").await["status"], "done");
    assert!(crate::jobs::queue(&visionary, "visionary-jobs-poison").peek().await.unwrap().is_empty());
    assert!(!visionary.host.logs().iter().any(|line| line.text.contains("drop\"")), "nothing of them is logged");
}

#[tokio::test]
async fn a_jobs_events_come_from_any_process() {
    let visionary = Setup { handlers: 2, ..setup() }.start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let job = accept(&visionary, FOX).await;
    hold.reached(1).await;
    for index in 0..2 {
        let url = format!("{}{job}", visionary.host.handler_url(index).unwrap());
        let request = http().get(url).header("accept", "text/event-stream");
        let mut events = Events::of(request.send().await.unwrap());
        assert_eq!(events.until("accepted").await["name"], "a fox");
        while events.until("progress").await["phase"] != "drawing" {}
        if index == 1 {
            hold.release();
            assert_eq!(events.until("image").await["prompt"], "a fox");
            assert_eq!(events.next().await, None);
        }
    }
    let failed = accept(&visionary, r#"{"prompt":"a forbidden fox"}"#).await;
    let request = visionary.request(Method::GET, &failed).header("accept", "text/event-stream");
    let mut events = Events::of(request.send().await.unwrap());
    assert_eq!(events.until("error").await["code"], "prompt_rejected");
}

/// A hundred jobs, two processes, and a SIGKILL again and again.
#[tokio::test]
async fn jobs_survive_their_processes_and_none_is_paid_twice() {
    const JOBS: usize = 100;
    // A job is taken up five times at the most.
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
        jobs.push((
            format!("fox {number}"),
            accept(&visionary, &json!({"prompt": format!("fox {number}")}).to_string()).await,
        ));
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
    // Each image is there once, and no other.
    let listed: Vec<String> = visionary.list().await.iter().map(|(name, _)| caption(name).to_owned()).collect();
    assert_eq!(listed.len(), done.len());
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), done);
    // Nothing was asked for twice; what was not done was asked for, or about to be.
    let asked = visionary.openai.requests(Endpoint::Images);
    let prompts: BTreeSet<String> =
        asked.iter().map(|request| request.body["prompt"].as_str().unwrap().to_owned()).collect();
    assert_eq!(prompts.len(), asked.len(), "a job was paid twice");
    assert!(done.is_subset(&prompts) && prompts.is_subset(&(&done | &lost)));
    assert!(lost.len() <= 6 * KILLS, "no more than were being drawn");
    // Each has counted once, and nothing is reserved any more.
    visionary.used(u64::try_from(JOBS).unwrap()).await;
    visionary.accounted().await;
}
