//! A generation as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use devkit::stand_ins::artist;
use devkit::stand_ins::host::Wire;
use devkit::stand_ins::openai::{self, Dialect, Endpoint, Hold, Painting, Reply};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::harness::{self, Answer, Setup, Visionary, http};
use crate::sse::{Events, Sent};

async fn watch(visionary: &Visionary, body: &Value) -> Response {
    let request = visionary.request(Method::POST, "/api/generateImage").header("accept", "text/event-stream");
    request.json(body).send().await.expect("an answer")
}

#[tokio::test]
async fn previews_arrive_while_the_provider_still_draws() {
    let visionary = Setup::default().set("DAILY_IMAGE_QUOTA", "5").start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let mut events = Events::of(watch(&visionary, &json!({"prompt": "a fox."})).await);
    // It begins while the generation waits for its turn.
    let (name, progress) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &progress["phase"]), ("progress", &json!("queued")));
    let mut accepted = events.until("accepted").await;
    let (id, address) = (accepted["id"].take(), accepted["statusUrl"].take());
    assert_eq!(address, format!("/api/generateImage/jobs/{}", id.as_str().unwrap()), "where to go on watching");
    assert_eq!(
        accepted,
        json!({"id": null, "statusUrl": null, "name": "a fox․", "quotaRemaining": 4, "estimateSeconds": null})
    );
    // Who is slow may miss that it was queued.
    while events.until("progress").await["phase"] != "drawing" {}
    // The last of two; who is slow may miss the first.
    let preview = loop {
        let preview = events.until("preview").await;
        if preview["index"] == 1 {
            break preview;
        }
    };
    assert!(preview["image"].as_str().unwrap().starts_with("data:image/png;base64,"), "{preview}");
    hold.reached(1).await;
    assert!(visionary.list().await.is_empty(), "it is still being drawn");
    hold.release();

    let rest = events.rest().await;
    let names: Vec<&str> = rest.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["progress", "image"]);
    assert_eq!(rest[0].1["phase"], "saving");
    let (name, url) = visionary.list().await.remove(0);
    assert_eq!((&rest[1].1["name"], &rest[1].1["url"]), (&json!(name), &json!(url)), "the JSON answer");
    let asked = visionary.openai.requests(Endpoint::Images)[0].body.clone();
    assert_eq!((&asked["stream"], &asked["partial_images"]), (&json!(true), &json!(2)));

    // The next one knows how long such an image takes.
    let mut events = Events::of(watch(&visionary, &json!({"prompt": "a fox"})).await);
    assert!(events.until("accepted").await["estimateSeconds"].as_f64().unwrap() >= 1.0);
    assert_eq!(events.rest().await.last().unwrap().0, "image");
}

/// A host in forwarding mode sends an answer once it is whole.
#[tokio::test]
async fn where_events_would_be_held_back_the_answer_is_json() {
    let visionary = Setup::wire(Wire::Forwarding).start().await;
    let answer = Answer::of(watch(&visionary, &json!({"prompt": "a fox"})).await).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{}", answer.body);
    assert_eq!(answer.json()["prompt"], "a fox");
    let asked = visionary.openai.requests(Endpoint::Images)[0].body.clone();
    assert_eq!(asked.get("stream"), None, "nobody would see previews");
}

/// What is asked for, and what the provider is sent.
#[tokio::test]
async fn partial_images_go_to_models_that_have_them() {
    for (model, dialect, option, wanted) in [
        ("gpt-image-2", Dialect::OpenAi, json!(3), Some(3)),
        ("gpt-image-2", Dialect::OpenAi, json!(null), Some(2)),
        ("gpt-image-2", Dialect::OpenAi, json!(0), None),
        ("dall-e-3", Dialect::OpenAi, json!(3), None),
        // It is asked, refuses, and is asked without.
        ("gpt-image-2", Dialect::Compatible, json!(1), None),
    ] {
        let openai = openai::Options { dialect, ..openai::Options::default() };
        let setup = Setup { openai, ..Setup::default() }.set("OPENAI_IMAGE_MODEL", model);
        let visionary = setup.start().await;
        let body = json!({"prompt": "a fox", "partialImages": option});
        let hold = Hold::new();
        visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
        let mut stream = Events::of(watch(&visionary, &body).await);
        let mut events = Vec::new();
        while let Some((name, data)) = stream.next().await {
            // A preview that is not made in time is not shown.
            if name == "preview" || wanted.is_none() {
                hold.release();
            }
            events.push((name, data));
        }
        let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names[0], names[names.len() - 1]), ("progress", "image"), "{names:?}");
        assert!(names.contains(&"accepted"), "{names:?}");
        let phases: Vec<&Value> =
            events.iter().filter(|(name, _)| name == "progress").map(|(_, data)| &data["phase"]).collect();
        assert_eq!(phases.last(), Some(&&json!("saving")), "without previews there is progress");
        assert_eq!(names.contains(&"preview"), wanted.is_some(), "{model} {option}: {names:?}");
        let asked = visionary.openai.requests(Endpoint::Images);
        assert_eq!(asked.last().unwrap().body["partial_images"].as_u64(), wanted, "{model} {option}");
        assert_eq!(visionary.openai.images_drawn().len(), 1);
    }
    let visionary = Visionary::start().await;
    for option in [json!(4), json!(-1), json!(1.5), json!("2")] {
        let answer = watch(&visionary, &json!({"prompt": "a fox", "partialImages": option})).await;
        let answer = Answer::of(answer).await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_request")), "{option}");
    }
}

#[tokio::test]
async fn a_large_preview_is_made_smaller() {
    let image = artist::draw("a fox in a very detailed forest", 1_536, 1_024).unwrap();
    let noise: Vec<u8> = (0..400_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    // A chunk that decoders pass over makes it as large as real ones are.
    let chunk = [&400_000_u32.to_be_bytes()[..], b"noIS", &noise, &[0; 4]].concat();
    let (head, rest) = image.split_at(33);
    let painting = Painting::Fixed([head, &chunk, rest].concat().into());
    let setup = Setup { openai: openai::Options { painting, ..Default::default() }, ..Setup::default() };
    let visionary = setup.start().await;
    // One that is not made in time is not shown.
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let mut events = Events::of(watch(&visionary, &json!({"prompt": "a fox"})).await);
    let preview = events.until("preview").await;
    hold.release();
    let url = preview["image"].as_str().unwrap();
    assert!(url.starts_with("data:image/jpeg;base64,") && url.len() < 132_000, "{} bytes", url.len());
    let image = events.until("image").await;
    assert!(image["bytes"].as_u64().unwrap() > 400_000, "the image itself is whole");
}

/// Nothing is streamed before the request was let in, and what fails later is an event.
#[tokio::test]
async fn what_fails_before_and_after_a_request_is_let_in() {
    let visionary = Setup::default().set("DAILY_IMAGE_QUOTA", "100").start().await;
    for (body, status, code) in [(json!({"prompt": ""}), 400, "invalid_request"), (json!({}), 400, "invalid_request")] {
        let answer = Answer::of(watch(&visionary, &body).await).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)));
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    let in_stream = |code: &'static str| {
        Reply::normal()
            .patch(move |event| *event = json!({"type": "error", "error": {"code": code, "message": "secret"}}))
    };
    for (reply, code) in [
        (Reply::error(400, "image_generation_user_error", "moderation_blocked", "secret"), "prompt_rejected"),
        (
            Reply::error(429, "requests", "slow_down", "secret").header("x-should-retry", "false"),
            "provider_rate_limited",
        ),
        (in_stream("moderation_blocked"), "prompt_rejected"),
        // It had begun, and may be billed.
        (in_stream("server_error"), "provider_answer_lost"),
        (
            Reply::body(
                200,
                "text/event-stream",
                "data: {\"type\": \"error\", \"error\": {\"code\": \"server_error\"}}\n\n",
            ),
            "provider_failed",
        ),
        (Reply::normal().cut_inside_body(), "provider_answer_lost"),
        (Reply::body(200, "text/event-stream", "data: [DONE]\n\n"), "provider_answer_lost"),
        (Reply::body(200, "text/event-stream", "data: {\"type\": \"x.completed\"}\n\n"), "provider_failed"),
    ] {
        visionary.openai.script(Endpoint::Images, reply);
        let rest = Events::of(watch(&visionary, &json!({"prompt": "a fox"})).await).rest().await;
        let (name, problem) = rest.last().unwrap();
        assert_eq!((name.as_str(), &problem["code"]), ("error", &json!(code)), "{rest:?}");
        assert!(problem["invocationId"].is_string() && !problem.to_string().contains("secret"));
    }
    assert!(visionary.list().await.is_empty());
    // Lost and useless images count, refused and failed ones do not.
    assert_eq!(visionary.get("/api/quota").await.json()["used"], 4);

    let visionary = Setup::default().set("DAILY_IMAGE_QUOTA", "1").start().await;
    Events::of(watch(&visionary, &json!({"prompt": "a fox"})).await).until("image").await;
    let answer = Answer::of(watch(&visionary, &json!({"prompt": "a fox"})).await).await;
    assert_eq!((answer.status, &answer.json()["code"]), (429, &json!("quota_exceeded")));
}

#[tokio::test]
async fn an_image_whose_event_is_not_ended_is_a_image() {
    let visionary = Visionary::start().await;
    let image = BASE64_STANDARD.encode(artist::draw("a fox", 64, 64).unwrap());
    let event = json!({"type": "image_generation.completed", "b64_json": image, "size": 1024});
    visionary.openai.script(Endpoint::Images, Reply::body(200, "text/event-stream", format!("data: {event}")));
    Events::of(watch(&visionary, &json!({"prompt": "a fox"})).await).until("image").await;
    assert_eq!(visionary.list().await.len(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_finds_the_image_listed() {
    let visionary = Visionary::start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let mut events = Events::of(watch(&visionary, &json!({"prompt": "a fox"})).await);
    events.until("preview").await;
    drop(events);
    // The handler has noticed by the time it has answered somebody else.
    visionary.get("/api/getImages").await;
    hold.release();
    visionary.host.terminate_handler(0);
    visionary.host.wait_for_exits(0, 1).await;
    let mut visionary = visionary;
    visionary.host.start_handler(0).await.unwrap();
    assert_eq!(visionary.list().await.len(), 1);
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_image_as_an_event() {
    let visionary = Visionary::start().await;
    let mut images = Vec::new();
    for _ in 0..2 {
        let request = visionary.request(Method::POST, "/api/generateImage").header("accept", "text/event-stream");
        let request = request.header("idempotency-key", "fox").body(r#"{"prompt":"a fox"}"#);
        images.push(Events::of(request.send().await.unwrap()).until("image").await);
    }
    assert_eq!(images[0], images[1]);
    assert_eq!(visionary.openai.images_drawn().len(), 1);
}

/// Sixty seconds pass here, and nobody waits for them.
#[tokio::test]
async fn a_silent_provider_does_not_make_a_silent_stream() {
    let visionary = Visionary::start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let address = visionary.serve_by(Arc::new(harness::now)).await;
    let request = http().post(format!("{address}/api/generateImage")).header("accept", "text/event-stream");
    let mut events = Events::of(request.body(r#"{"prompt":"a fox","partialImages":0}"#).send().await.unwrap());
    while events.until("progress").await["phase"] != "drawing" {}
    hold.reached(1).await;
    // While a thread is busy, time passes only where it is told to.
    let (done, busy) = std::sync::mpsc::channel::<()>();
    let busy = tokio::task::spawn_blocking(move || busy.recv().is_err());
    tokio::time::pause();
    for _ in 0..6 {
        // Timers are as fine as a millisecond.
        tokio::time::advance(Duration::from_millis(10_002)).await;
        assert_eq!(events.sent().await, Some(Sent::Comment));
    }
    tokio::time::resume();
    drop(done);
    assert!(busy.await.unwrap());
    hold.release();
    assert_eq!(events.until("image").await["prompt"], "a fox");
}
