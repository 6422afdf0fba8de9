//! A prompt becomes an image that is listed first and whose link opens.

use bytes::Bytes;
use devkit::stand_ins::openai::{self, Endpoint, Painting, Reply};
use futures_util::future::join_all;
use serde_json::json;

use crate::harness::{Setup, Visionary, WIRES, caption, masked, timestamp};

#[tokio::test]
async fn a_prompt_becomes_an_image_that_is_listed_first_and_opens() {
    for wire in WIRES {
        let visionary = Setup::wire(wire).start().await;
        for prompt in ["a red fox", "a blue whale"] {
            let answer = visionary.generate(prompt).await;

            assert_eq!((answer.status, answer.body.as_str()), (200, "Image uploaded successfully"));
            assert!(answer.header("content-type").starts_with("text/plain"));
            let (name, url) = visionary.list().await.remove(0);
            assert_eq!(caption(&name), prompt);
            assert!(name.ends_with(".png"));
            let image = visionary.open(&url).await;
            assert_eq!(image.status(), 200);
            assert_eq!(image.headers()["content-type"], "image/png");
            assert!(image.headers()["cache-control"].to_str().unwrap().contains("max-age=31536000, immutable"));
            let drawn = visionary.openai.images_drawn().pop().unwrap();
            assert_eq!(image.bytes().await.unwrap(), drawn.bytes);
        }
        assert_eq!(visionary.list().await.len(), 2);
    }
}

#[tokio::test]
async fn a_caller_that_accepts_only_json_gets_the_details() {
    let visionary = Visionary::start().await;

    let body = json!({"prompt": "  a red fox ", "quality": "hd"});
    let answer = visionary.post_json(&body).accept_json().send().await;

    let (name, url) = visionary.list().await.remove(0);
    let details = answer.json();
    assert_eq!((&details["name"], &details["url"]), (&json!(name), &json!(url)));
    let created_at = details["createdAt"].as_str().unwrap();
    let format = &time::format_description::well_known::Rfc3339;
    let created_at = time::OffsetDateTime::parse(created_at, format).unwrap();
    assert_eq!(i64::try_from(created_at.unix_timestamp_nanos() / 1_000_000).unwrap(), timestamp(&name));
    insta::assert_json_snapshot!(masked(details, &["id", "deleteToken", "name", "url", "downloadUrl", "createdAt", "bytes"]), @r#"
    {
      "bytes": "[bytes]",
      "contentType": "image/png",
      "createdAt": "[createdAt]",
      "deleteToken": "[deleteToken]",
      "downloadUrl": "[downloadUrl]",
      "enhancement": "off",
      "finalPrompt": "a red fox",
      "id": "[id]",
      "model": "gpt-image-2.5-flare",
      "name": "[name]",
      "prompt": "a red fox",
      "quality": "high",
      "revisedPrompt": null,
      "size": "1024x1024",
      "url": "[url]"
    }
    "#);
}

#[tokio::test]
async fn a_caller_that_accepts_text_gets_text() {
    let visionary = Visionary::start().await;

    for accept in ["*/*", "application/json, text/plain, */*", "text/plain"] {
        let answer = visionary.post("a fox").accept(accept).send().await;
        assert_eq!(answer.body, "Image uploaded successfully", "{accept}");
    }
}

#[tokio::test]
async fn the_body_is_json_whatever_its_content_type_says() {
    let visionary = Visionary::start().await;

    for content_type in ["application-json", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded"] {
        let answer = visionary.post("a fox").header("content-type", content_type).send().await;
        assert_eq!(answer.status, 200, "{content_type}");
    }
    assert_eq!(visionary.post_raw(r#"{"prompt":"a fox"}"#).send().await.status, 200, "without a content type");
}

/// The caption shows the prompt; characters that a link or the front ends cannot hold are replaced by
/// similar ones.
#[tokio::test]
async fn odd_prompts_become_listed_images_whose_links_open() {
    let long = "a fox and ".repeat(400);
    let emoji = "👩‍👩‍👧‍👦🦊".repeat(500);
    let cases = [
        ("../../x", "․․∕․․∕x".to_owned()),
        ("a/b?c#d%20", "a∕b？c＃d％20".to_owned()),
        ("_.", "ˍ․".to_owned()),
        ("snake_case v1.5", "snakeˍcase v1․5".to_owned()),
        ("one\ntwo\t three\r\n", "one two three".to_owned()),
        ("a \u{202E}gnp.exe", "a gnp․exe".to_owned()),
        ("ثعلب أحمر في الثلج", "ثعلب أحمر في الثلج".to_owned()),
        ("a fox 🦊 & co + \"quotes\" <b>'x'</b>", "a fox 🦊 & co + \"quotes\" <b>'x'<∕b>".to_owned()),
        ("back\\slash ~!@$^*()|;:", "back∖slash ~!@$^*()|;:".to_owned()),
        ("\u{200B}\u{FFFE}\u{2028}", "\u{200B}".to_owned()),
        (long.trim(), format!("{}…", "a fox and ".repeat(30).trim())),
        (emoji.as_str(), "👩‍👩‍👧‍👦🦊".repeat(20)),
    ];
    for wire in WIRES {
        let visionary = Setup::wire(wire).start().await;
        for (prompt, wanted) in &cases {
            let answer = visionary.generate(prompt).await;

            assert_eq!(answer.status, 200, "{prompt}: {}", answer.body);
            let (name, url) = visionary.list().await.remove(0);
            assert!(caption(&name).starts_with(wanted.as_str()), "{prompt} became {name}");
            assert!(caption(&name).chars().count() <= 300 && url.split('?').next().unwrap().len() < 2_200, "{name}");
            assert!(url.is_ascii() && !url.contains(' ') && url.contains("?sv="), "{url}");
            let image = visionary.open(&url).await;
            assert_eq!(image.status(), 200, "{prompt}");
            // The image's metadata hold the prompt, up to their limit.
            let kept = image.headers()["x-ms-meta-prompt"].to_str().unwrap().to_owned();
            let kept = percent_encoding::percent_decode_str(&kept).decode_utf8().unwrap().into_owned();
            assert!(prompt.trim().starts_with(&kept), "{kept}");
            assert!(kept == prompt.trim() || kept.len() > 1_200, "{} of {}", kept.len(), prompt.len());
        }
        assert_eq!(visionary.list().await.len(), cases.len());
    }
}

/// Front ends copy captions into the prompt box.
#[tokio::test]
async fn a_caption_that_comes_back_as_a_prompt_is_drawn_as_it_was_typed_in_every_way_to_wait() {
    let visionary = Setup { queues: true, ..Setup::default() }.start().await;
    let typed = "50% of what? v1.5_b a/b #1 \\";
    visionary.generate(typed).await;
    let copied = caption(&visionary.list().await[0].0).to_owned();
    assert_eq!(copied, "50％ of what？ v1․5ˍb a∕b ＃1 ∖");

    let text = visionary.post(&copied).send().await;
    let json = visionary.post(&copied).accept_json().send().await;
    let job = visionary.post(&copied).prefer("wait=60").accept_json().send().await;
    let mut events = visionary.post(&copied).events().stream().await;
    let accepted = events.until("accepted").await;
    let image = events.until("image").await;

    assert_eq!(text.body, "Image uploaded successfully");
    assert_eq!(
        (&json.json()["prompt"], &job.json()["prompt"], &image["prompt"]),
        (&json!(typed), &json!(typed), &json!(typed))
    );
    assert_eq!(accepted["name"], copied);
    let drawn: Vec<String> = visionary.openai.images_drawn().into_iter().map(|drawn| drawn.prompt).collect();
    assert_eq!(drawn, [typed; 5]);
    assert!(visionary.list().await.iter().all(|(name, _)| caption(name) == copied));
}

#[tokio::test]
async fn requests_that_cannot_be_drawn_are_400_and_cost_nothing() {
    let visionary = Visionary::start().await;
    let too_long = "x".repeat(32_001);
    let cases = [
        ("", "not a JSON object"),
        ("prompt=a fox", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("\"a fox\"", "not a JSON object"),
        ("{}", "no prompt"),
        (r#"{"prompt":null}"#, "no prompt"),
        (r#"{"prompt":false}"#, "no prompt"),
        (r#"{"prompt":""}"#, "blank"),
        (r#"{"prompt":" \n\t "}"#, "blank"),
        (r#"{"prompt":"a\u0000b"}"#, "U+0000"),
        (&json!({"prompt": too_long}).to_string(), "at most 32000 characters"),
        (r#"{"prompt":"a","size":"huge"}"#, "1024x1024, 1024x1792, 1792x1024"),
        (r#"{"prompt":"a","size":"1000x1000"}"#, "multiples of 16"),
        (r#"{"prompt":"a","size":1024}"#, "size must be a string"),
        (r#"{"prompt":"a","quality":"best"}"#, "auto, low, medium, high, xhigh, max"),
        (r#"{"prompt":"a","style":"loud"}"#, "vivid, natural"),
        (r#"{"prompt":"a","background":"pink"}"#, "auto, opaque, transparent"),
        (r#"{"prompt":"a","outputFormat":"gif"}"#, "png, jpeg, webp"),
        (r#"{"prompt":"a","background":"transparent","outputFormat":"jpeg"}"#, "png or webp"),
    ];

    for (body, reason) in cases {
        let answer = visionary.post_raw(body).send().await;
        assert_eq!(answer.status_and_code(), (400, "invalid_request"), "{body:.80}");
        assert!(answer.body.contains(reason), "{body:.80}: {}", answer.body);
    }

    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
    assert!(visionary.list().await.is_empty());
}

#[tokio::test]
async fn a_body_over_400_kib_is_413() {
    let visionary = Visionary::start().await;
    // A connection that is closed while the client sends may lose the answer.
    for kib in [401, 1_000].repeat(20) {
        let answer = visionary.generate(&"x".repeat(kib * 1024)).await;
        assert_eq!(answer.status_and_code(), (413, "too_large"), "{kib} KiB");
    }
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
}

/// Each case: the model, the wire setting, the caller's options, and the provider's request. The
/// stand-in refuses the same parameters as OpenAI.
#[tokio::test]
async fn each_family_of_models_gets_a_body_that_it_supports() {
    let cases = [
        ("dall-e-3", "auto", json!({}), json!({"size": "1024x1024", "response_format": "b64_json"})),
        (
            "dall-e-3",
            "auto",
            json!({"size": "1792x1024", "quality": "hd", "style": "natural"}),
            json!({"size": "1792x1024", "quality": "hd", "style": "natural", "response_format": "b64_json"}),
        ),
        ("gpt-image-1.5", "auto", json!({"size": "1024x1792"}), json!({"size": "1024x1536"})),
        ("gpt-image-1-mini", "auto", json!({"quality": "standard"}), json!({"size": "1024x1024", "quality": "medium"})),
        (
            "gpt-image-2",
            "auto",
            json!({"size": "1024x1792", "quality": "hd"}),
            json!({"size": "1024x1792", "quality": "high"}),
        ),
        ("gpt-image-2", "auto", json!({"size": "1280x720"}), json!({"size": "1280x720"})),
        (
            "gpt-image-2.5-flare",
            "auto",
            json!({"quality": "max", "style": "vivid", "background": "transparent", "outputFormat": "webp"}),
            json!({"size": "1024x1024", "quality": "max", "background": "transparent", "output_format": "webp"}),
        ),
        ("gpt-image-2.6-sunburst", "gpt-image", json!({"size": "auto"}), json!({"size": "auto"})),
    ];
    for (model, wire, options, wanted) in cases {
        let setup = Setup::default().set("OPENAI_IMAGE_MODEL", model).set("OPENAI_IMAGE_WIRE", wire);
        let setup = setup.set("MAX_IMAGE_USD", "0");
        let visionary = setup.start().await;
        let mut body = options.clone();
        body["prompt"] = json!("a fox");
        let mut wanted = wanted.clone();
        (wanted["model"], wanted["prompt"], wanted["n"]) = (json!(model), json!("a fox"), json!(1));

        let answer = visionary.post_json(&body).send().await;

        assert_eq!(answer.status, 200, "{model} {options}: {}", answer.body);
        assert_eq!(visionary.openai.requests(Endpoint::Images)[0].body, wanted, "{model} {options}");
    }
}

#[tokio::test]
async fn a_quality_or_size_of_another_family_is_refused_with_the_allowed_ones() {
    for (model, body, allowed) in [
        ("dall-e-3", json!({"prompt": "a", "quality": "max"}), "standard, hd"),
        ("dall-e-3", json!({"prompt": "a", "size": "1536x1024"}), "1024x1024, 1024x1792, 1792x1024"),
        ("dall-e-3", json!({"prompt": "a", "background": "transparent"}), "background"),
        ("dall-e-3", json!({"prompt": "x".repeat(4_001)}), "4000 characters"),
        ("gpt-image-1.5", json!({"prompt": "a", "size": "1280x720"}), "1536x1024"),
        ("gpt-image-2", json!({"prompt": "a", "quality": "xhigh"}), "auto, low, medium, high"),
    ] {
        let visionary = Setup::default().set("OPENAI_IMAGE_MODEL", model).start().await;
        let answer = visionary.post_json(&body).send().await;
        assert_eq!(answer.status, 400, "{model}");
        assert!(answer.body.contains(allowed), "{model}: {}", answer.body);
    }
}

#[tokio::test]
async fn an_image_behind_a_url_is_fetched_and_stored() {
    let visionary = Setup::default().set("OPENAI_IMAGE_MODEL", "dall-e-3").start().await;
    let file = visionary.openai.base_url().replace("/v1", "/files/1.png");
    // Some compatible servers answer with a URL although the request asks for base64.
    visionary.openai.script(
        Endpoint::Images,
        Reply::normal()
            .patch(move |answer| answer["data"] = json!([{"url": file, "revised_prompt": "a fox, revised"}])),
    );
    visionary.openai.script(Endpoint::Files, Reply::body(200, "text/html", b"\x89PNG\r\n\x1a\nby url".to_vec()));

    let answer = visionary.post("a fox").accept_json().send().await;

    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.json()["revisedPrompt"], "a fox, revised");
    let (_, url) = visionary.list().await.remove(0);
    let image = visionary.open(&url).await;
    assert_eq!(image.headers()["content-type"], "image/png");
    assert_eq!(image.headers()["x-ms-meta-revised_prompt"], "a%20fox,%20revised");
    assert_eq!(image.bytes().await.unwrap(), Bytes::from_static(b"\x89PNG\r\n\x1a\nby url"));
}

#[tokio::test]
async fn the_ending_and_the_type_follow_the_bytes() {
    for (format, ending, content_type) in [("jpeg", "jpg", "image/jpeg"), ("webp", "webp", "image/webp")] {
        let visionary = Visionary::start().await;

        let body = json!({"prompt": "a fox", "outputFormat": format});
        let answer = visionary.post_json(&body).accept_json().send().await;

        assert_eq!(answer.json()["contentType"], content_type);
        let (name, url) = visionary.list().await.remove(0);
        assert!(name.ends_with(&format!(".{ending}")), "{name}");
        assert_eq!(visionary.open(&url).await.headers()["content-type"], content_type);
    }
}

/// All images have the same bytes, so they differ only by name.
#[tokio::test]
async fn forty_concurrent_requests_with_the_same_prompt_give_forty_images() {
    let painting = Painting::Fixed(Bytes::from_static(b"\x89PNG\r\n\x1a\n the same"));
    let openai = openai::Options { painting, ..Default::default() };
    let setup = Setup { handlers: 2, openai, ..Setup::default() }.set("MAX_CONCURRENT_GENERATIONS", "40");
    let visionary = setup.start().await;
    let hold = visionary.hold_all_images();

    let requests: Vec<_> = (0..40).map(|_| visionary.post("a fox").spawn()).collect();
    hold.reached(40).await;
    hold.release();
    let answers = join_all(requests).await;

    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status == 200));
    let mut names: Vec<String> = visionary.list().await.into_iter().map(|(name, _)| name).collect();
    assert!(names.windows(2).all(|pair| timestamp(&pair[0]) >= timestamp(&pair[1])));
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 40);
}

#[tokio::test]
async fn images_of_one_millisecond_do_not_overwrite_each_other() {
    let visionary = Visionary::start().await;
    let now = time::macros::datetime!(2026-11-21 12:00:00.123 UTC);
    let app = visionary.serve_at(now).await;

    let mut names = Vec::new();
    for _ in 0..3 {
        let answer = app.post("a").accept_json().send().await;
        names.push(answer.json()["name"].as_str().unwrap().to_owned());
    }

    assert_eq!(names, ["a_1795262400123.png", "a_1795262400124.png", "a_1795262400125.png"]);
}

/// The image is paid, so the app stores it although its caller has left.
#[tokio::test]
async fn a_caller_that_leaves_finds_the_image_in_the_gallery() {
    for wire in WIRES {
        let mut visionary = Setup::wire(wire).start().await;
        let hold = visionary.hold_next_image();
        let request = visionary.post("a fox").spawn();
        hold.reached(1).await;

        request.abort();
        assert!(request.await.is_err(), "the caller has left");
        // After another answer the handler has seen the end of the connection.
        visionary.get("/api/getImages").await;
        hold.release();
        // A stopping process waits for its generations.
        visionary.host.terminate_handler(0);
        visionary.host.wait_for_exits(0, 1).await;

        assert_eq!(visionary.host.exits(0), [Some(0)]);
        visionary.host.start_handler(0).await.unwrap();
        assert_eq!(visionary.list().await.len(), 1, "{wire:?}");
        assert_eq!(visionary.openai.images_drawn().len(), 1);
    }
}

#[tokio::test]
async fn of_100_concurrent_requests_20_are_drawn_and_80_are_refused_before_they_cost_anything() {
    let visionary = Setup::default().set("MAX_CONCURRENT_GENERATIONS", "4").start().await;
    let hold = visionary.hold_all_images();

    // Four generations draw and 16 wait.
    let requests: Vec<_> = (0..100).map(|_| visionary.post("a fox").spawn()).collect();
    hold.reached(4).await;
    visionary.host.wait_for_logs(80, |line| line.text.contains("\"busy\"")).await;
    let drawing = visionary.openai.requests(Endpoint::Images).len();
    hold.release();
    let answers = join_all(requests).await.into_iter().map(Result::unwrap);

    assert_eq!(drawing, 4, "four draw at a time");
    let (drawn, refused): (Vec<_>, Vec<_>) = answers.partition(|answer| answer.status == 200);
    assert_eq!((drawn.len(), refused.len()), (20, 80));
    for answer in refused {
        assert_eq!((answer.status, answer.header("x-error-code"), answer.header("retry-after")), (503, "busy", "10"));
    }
    assert_eq!(visionary.openai.images_drawn().len(), 20);
    assert_eq!(visionary.list().await.len(), 20);
}
