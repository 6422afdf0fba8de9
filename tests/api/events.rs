//! A generation as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use devkit::stand_ins::artist;
use devkit::stand_ins::host::Wire;
use devkit::stand_ins::openai::{self, Dialect, Endpoint, Painting, Reply};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Setup, Visionary, masked, now};
use crate::sse::Sent;

/// Each event's name.
fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

#[tokio::test]
async fn previews_arrive_while_the_provider_still_draws() {
    let visionary = Setup::default().set("DAILY_IMAGE_QUOTA", "5").start().await;
    let hold = visionary.hold_next_image();

    let mut events = visionary.post("a fox.").events().stream().await;

    let queued = events.next().await.unwrap();
    assert_eq!((queued.0.as_str(), &queued.1["phase"]), ("progress", &json!("queued")));
    let accepted = events.until("accepted").await;
    let id = accepted["id"].as_str().unwrap();
    assert_eq!(accepted["statusUrl"], format!("/api/generateImage/jobs/{id}"), "the stream goes on there");
    insta::assert_json_snapshot!(masked(accepted, &["id", "statusUrl"]), @r#"
    {
      "estimateSeconds": null,
      "id": "[id]",
      "name": "a fox․",
      "quotaRemaining": 4,
      "statusUrl": "[statusUrl]"
    }
    "#);
    // A slow reader may miss the first phase and the first preview.
    while events.until("progress").await["phase"] != "drawing" {}
    let preview = loop {
        let preview = events.until("preview").await;
        if preview["index"] == 1 {
            break preview;
        }
    };
    assert!(preview["image"].as_str().unwrap().starts_with("data:image/png;base64,"), "{preview}");
    hold.reached(1).await;
    assert!(visionary.list().await.is_empty(), "the image is still being drawn");

    hold.release();
    let rest = events.rest().await;

    assert_eq!(names(&rest), ["progress", "image"]);
    let image = rest[1].1.clone();
    let (name, url) = visionary.list().await.remove(0);
    assert_eq!((&image["name"], &image["url"]), (&json!(name), &json!(url)));
    let saving = masked(rest[0].1.clone(), &["elapsedSeconds"]);
    let image = masked(image, &["id", "deleteToken", "name", "url", "downloadUrl", "createdAt", "bytes"]);
    insta::assert_json_snapshot!([saving, image], @r#"
    [
      {
        "elapsedSeconds": "[elapsedSeconds]",
        "phase": "saving"
      },
      {
        "bytes": "[bytes]",
        "contentType": "image/png",
        "createdAt": "[createdAt]",
        "deleteToken": "[deleteToken]",
        "downloadUrl": "[downloadUrl]",
        "enhancement": "off",
        "finalPrompt": "a fox.",
        "id": "[id]",
        "model": "gpt-image-2.5-flare",
        "name": "[name]",
        "prompt": "a fox.",
        "quality": "medium",
        "revisedPrompt": null,
        "size": "1024x1024",
        "url": "[url]"
      }
    ]
    "#);
    let request = visionary.openai.requests(Endpoint::Images)[0].body.clone();
    assert_eq!((&request["stream"], &request["partial_images"]), (&json!(true), &json!(2)));

    // The estimate for the second image comes from the first one.
    let mut events = visionary.post("a fox").events().stream().await;
    assert!(events.until("accepted").await["estimateSeconds"].as_f64().unwrap() >= 1.0);
    assert_eq!(events.rest().await.last().unwrap().0, "image");
}

/// A host in forwarding mode buffers the whole answer.
#[tokio::test]
async fn behind_a_buffering_host_the_answer_is_json() {
    let visionary = Setup::wire(Wire::Forwarding).start().await;

    let answer = visionary.post("a fox").events().send().await;

    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{}", answer.body);
    assert_eq!(answer.json()["prompt"], "a fox");
    let request = visionary.openai.requests(Endpoint::Images)[0].body.clone();
    assert_eq!(request.get("stream"), None, "no caller would see previews");
}

/// Each case: the model, the server, the caller's option, and what the provider receives.
#[tokio::test]
async fn partial_images_go_to_models_that_support_them() {
    for (model, dialect, option, wanted) in [
        ("gpt-image-2", Dialect::OpenAi, json!(3), Some(3)),
        ("gpt-image-2", Dialect::OpenAi, json!(null), Some(2)),
        ("gpt-image-2", Dialect::OpenAi, json!(0), None),
        ("dall-e-3", Dialect::OpenAi, json!(3), None),
        // The server refuses the parameter, and the app repeats the request without it.
        ("gpt-image-2", Dialect::Compatible, json!(1), None),
    ] {
        let openai = openai::Options { dialect, ..openai::Options::default() };
        let setup = Setup { openai, ..Setup::default() }.set("OPENAI_IMAGE_MODEL", model);
        let visionary = setup.start().await;
        let body = json!({"prompt": "a fox", "partialImages": option});
        let hold = visionary.hold_next_image();

        let mut stream = visionary.post_json(&body).events().stream().await;
        let mut events = Vec::new();
        while let Some((name, data)) = stream.next().await {
            // The app drops a preview that is not ready before the image.
            if name == "preview" || wanted.is_none() {
                hold.release();
            }
            events.push((name, data));
        }

        let names = names(&events);
        assert_eq!((names[0], names[names.len() - 1]), ("progress", "image"), "{names:?}");
        assert!(names.contains(&"accepted"), "{names:?}");
        let phases: Vec<&Value> =
            events.iter().filter(|(name, _)| name == "progress").map(|(_, data)| &data["phase"]).collect();
        assert_eq!(phases.last(), Some(&&json!("saving")), "without previews there is progress");
        assert_eq!(names.contains(&"preview"), wanted.is_some(), "{model} {option}: {names:?}");
        let requests = visionary.openai.requests(Endpoint::Images);
        assert_eq!(requests.last().unwrap().body["partial_images"].as_u64(), wanted, "{model} {option}");
        assert_eq!(visionary.openai.images_drawn().len(), 1);
    }
}

#[tokio::test]
async fn an_invalid_number_of_partial_images_is_400() {
    let visionary = Visionary::start().await;

    for option in [json!(4), json!(-1), json!(1.5), json!("2")] {
        let answer = visionary.post_json(&json!({"prompt": "a fox", "partialImages": option})).events().send().await;
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_request")), "{option}");
    }
}

#[tokio::test]
async fn a_large_preview_is_made_smaller() {
    // A chunk that decoders skip makes the image as large as real ones.
    let image = artist::draw("a fox in a very detailed forest", 1_536, 1_024).unwrap();
    let noise: Vec<u8> = (0..400_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let chunk = [&400_000_u32.to_be_bytes()[..], b"noIS", &noise, &[0; 4]].concat();
    let (head, rest) = image.split_at(33);
    let painting = Painting::Fixed([head, &chunk, rest].concat().into());
    let setup = Setup { openai: openai::Options { painting, ..Default::default() }, ..Setup::default() };
    let visionary = setup.start().await;
    // The app drops a preview that is not ready before the image.
    let hold = visionary.hold_next_image();

    let mut events = visionary.post("a fox").events().stream().await;
    let preview = events.until("preview").await;
    hold.release();
    let image = events.until("image").await;

    let url = preview["image"].as_str().unwrap();
    assert!(url.starts_with("data:image/jpeg;base64,") && url.len() < 132_000, "{} bytes", url.len());
    assert!(image["bytes"].as_u64().unwrap() > 400_000, "the image itself is whole");
}

#[tokio::test]
async fn a_request_that_is_refused_before_the_stream_is_a_problem_document() {
    let visionary = Setup::default().set("DAILY_IMAGE_QUOTA", "1").start().await;

    let invalid = [visionary.post("").events().send().await, visionary.post_json(&json!({})).events().send().await];
    visionary.post("a fox").events().stream().await.until("image").await;
    let over_quota = visionary.post("a fox").events().send().await;

    for answer in invalid {
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!("invalid_request")));
        assert_eq!(answer.header("content-type"), "application/problem+json");
    }
    assert_eq!((over_quota.status, &over_quota.json()["code"]), (429, &json!("quota_exceeded")));
}

#[tokio::test]
async fn a_failure_after_the_stream_began_is_an_event() {
    let visionary = Setup::default().set("DAILY_IMAGE_QUOTA", "100").start().await;
    let in_stream = |code: &'static str| {
        Reply::normal()
            .patch(move |event| *event = json!({"type": "error", "error": {"code": code, "message": "secret"}}))
    };
    let event_stream = |text: &'static str| Reply::body(200, "text/event-stream", text);

    for (reply, code) in [
        (Reply::error(400, "image_generation_user_error", "moderation_blocked", "secret"), "prompt_rejected"),
        (
            Reply::error(429, "requests", "slow_down", "secret").header("x-should-retry", "false"),
            "provider_rate_limited",
        ),
        (in_stream("moderation_blocked"), "prompt_rejected"),
        // The drawing had begun, so the image may be billed.
        (in_stream("server_error"), "provider_answer_lost"),
        (event_stream("data: {\"type\": \"error\", \"error\": {\"code\": \"server_error\"}}\n\n"), "provider_failed"),
        (Reply::normal().cut_inside_body(), "provider_answer_lost"),
        (event_stream("data: [DONE]\n\n"), "provider_answer_lost"),
        (event_stream("data: {\"type\": \"x.completed\"}\n\n"), "provider_failed"),
    ] {
        visionary.openai.script(Endpoint::Images, reply);
        let events = visionary.post("a fox").events().stream().await.rest().await;
        let (name, problem) = events.last().unwrap();
        assert_eq!((name.as_str(), &problem["code"]), ("error", &json!(code)), "{events:?}");
        assert!(problem["invocationId"].is_string() && !problem.to_string().contains("secret"));
    }

    assert!(visionary.list().await.is_empty());
    // Lost and useless images count, refused and failed ones do not.
    assert_eq!(visionary.get("/api/quota").await.json()["used"], 4);
}

#[tokio::test]
async fn the_error_event_is_a_problem_document() {
    let visionary = Visionary::start().await;

    let problem = visionary.post("something forbidden").events().stream().await.until("error").await;

    insta::assert_json_snapshot!(masked(problem, &["invocationId"]), @r#"
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

#[tokio::test]
async fn a_provider_event_without_its_final_empty_line_is_read() {
    let visionary = Visionary::start().await;
    let image = BASE64_STANDARD.encode(artist::draw("a fox", 64, 64).unwrap());
    let event = json!({"type": "image_generation.completed", "b64_json": image, "size": 1024});
    visionary.openai.script(Endpoint::Images, Reply::body(200, "text/event-stream", format!("data: {event}")));

    visionary.post("a fox").events().stream().await.until("image").await;

    assert_eq!(visionary.list().await.len(), 1);
}

#[tokio::test]
async fn a_client_that_leaves_finds_the_image_in_the_gallery() {
    let mut visionary = Visionary::start().await;
    let hold = visionary.hold_next_image();
    let mut events = visionary.post("a fox").events().stream().await;
    events.until("preview").await;

    drop(events);
    // After another answer the handler has seen the end of the connection.
    visionary.get("/api/getImages").await;
    hold.release();
    visionary.host.terminate_handler(0);
    visionary.host.wait_for_exits(0, 1).await;
    visionary.host.start_handler(0).await.unwrap();

    assert_eq!(visionary.list().await.len(), 1);
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_image_as_an_event() {
    let visionary = Visionary::start().await;

    let first = visionary.post("a fox").key("fox").events().stream().await.until("image").await;
    let again = visionary.post("a fox").key("fox").events().stream().await.until("image").await;

    assert_eq!(first, again);
    assert_eq!(visionary.openai.images_drawn().len(), 1);
}

/// A page that was reloaded, or lost its connection, has the address of the first event.
#[tokio::test]
async fn a_request_goes_on_at_its_address_in_each_process_and_nothing_is_paid_again() {
    let visionary = Setup { handlers: 2, ..Setup::default() }.start().await;
    let hold = visionary.hold_next_image();
    let mut lost = visionary.handler(0).post("a fox").events().stream().await;
    let address = lost.until("accepted").await["statusUrl"].as_str().unwrap().to_owned();
    hold.reached(1).await;
    drop(lost);

    let mut streams = Vec::new();
    for handler in [0, 1] {
        let state = visionary.handler(handler).get(&address).await.json();
        assert_eq!((&state["status"], state.get("result")), (&json!("drawing"), None), "{state}");
        let mut events = visionary.handler(handler).request(Method::GET, &address).events().stream().await;
        assert_eq!(events.until("accepted").await["statusUrl"], address);
        streams.push(events);
    }
    hold.release();

    let mut ends = Vec::new();
    for mut events in streams {
        ends.push(events.until("image").await["name"].clone());
    }
    for handler in [0, 1] {
        let state = visionary.handler(handler).get(&address).await.json();
        assert_eq!(state["status"], "done", "{state}");
        ends.push(state["result"]["name"].clone());
        let mut events = visionary.handler(handler).request(Method::GET, &address).events().stream().await;
        ends.push(events.until("image").await["name"].clone());
    }
    let (name, _) = visionary.list().await.remove(0);
    assert!(ends.iter().all(|end| *end == name), "{ends:?}");
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
    assert_eq!(visionary.accounted().await["models"][0]["images"], 1);
}

/// The test advances the clock of the runtime by 60 seconds.
#[tokio::test]
async fn while_the_provider_is_silent_the_stream_sends_comments() {
    let visionary = Visionary::start().await;
    let hold = visionary.hold_next_image();
    let app = visionary.serve_by(Arc::new(now)).await;
    let body = json!({"prompt": "a fox", "partialImages": 0});
    let mut events = app.post_json(&body).events().stream().await;
    while events.until("progress").await["phase"] != "drawing" {}
    hold.reached(1).await;

    // While a blocking task runs, a paused clock moves only with `advance`.
    let (done, busy) = std::sync::mpsc::channel::<()>();
    let busy = tokio::task::spawn_blocking(move || busy.recv().is_err());
    tokio::time::pause();
    for _ in 0..6 {
        // Timers have a resolution of 1 ms.
        tokio::time::advance(Duration::from_millis(10_002)).await;
        assert_eq!(events.sent().await, Some(Sent::Comment));
    }
    tokio::time::resume();
    drop(done);
    assert!(busy.await.unwrap());
    hold.release();

    assert_eq!(events.until("image").await["prompt"], "a fox");
}

/// A stream that cannot be served is refused before it begins, and before anything is drawn for it.
#[tokio::test]
async fn streams_beyond_the_callers_limit_are_503_before_they_begin() {
    let visionary = Setup { queues: true, ..Setup::default() }.set("QUOTA_USER_HEADER", "x-user").start().await;
    let hold = visionary.hold_all_images();
    let job = {
        let first = visionary.post("a fox").as_user("anna").key("1").events().stream();
        let mut first = first.await;
        let accepted = first.until("accepted").await;
        (first, accepted["statusUrl"].as_str().unwrap().to_owned())
    };
    let mut open = vec![job.0];
    for _ in 1..100 {
        open.push(visionary.request(Method::GET, &job.1).as_user("anna").events().stream().await);
    }

    let refused = visionary.request(Method::GET, &job.1).as_user("anna").events().send().await;
    let posted = visionary.post("another fox").as_user("anna").events().send().await;

    for answer in [refused, posted] {
        assert_eq!(answer.status_and_code(), (503, "busy"));
        assert_eq!(answer.header("retry-after"), "10");
    }
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
    // A request that waits holds a connection, too: beyond the limit it does not wait.
    let waiting = visionary.post("a third fox").as_user("anna").prefer("wait=150").send();
    let answer = tokio::time::timeout(Duration::from_secs(75), waiting).await.expect("an answer within 75 s");
    assert_eq!(answer.status, 202, "{}", answer.body);
    let bobs = visionary.request(Method::GET, &job.1).as_user("bob").events().response().await;
    assert_eq!(bobs.status(), 200);
    drop(open);
    hold.release();
}
