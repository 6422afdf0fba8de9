//! The page and its files, through the host and at the handler, and pages on other sites.

use std::collections::BTreeMap;
use std::io::Read as _;

use devkit::stand_ins::host::Wire;
use flate2::read::GzDecoder;
use reqwest::Method;
use visionary::functions::FUNCTIONS;

use crate::harness::{Setup, Visionary, WIRES};

/// The paths of the files that a file refers to, as a browser resolves them. Their names have a version.
fn references(text: &str) -> Vec<String> {
    let pieces = text.split(['"', '\'', '`', '(', ')']).map(|piece| piece.trim_start_matches("./"));
    let is_version = |part: &str| part.len() == 8 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_file = |name: &&str| name.rsplit('.').nth(1).is_some_and(is_version);
    pieces.filter(is_file).map(|name| format!("/{name}")).collect()
}

#[tokio::test]
async fn the_page_and_all_files_that_it_names_are_served_compressed_and_not() {
    for wire in WIRES {
        let visionary = Setup::wire(wire).start().await;
        let (mut seen, mut waiting) = (BTreeMap::new(), vec!["/".to_owned()]);
        while let Some(path) = waiting.pop() {
            if seen.contains_key(&path) {
                continue;
            }
            let plain = visionary.get(&path).await;
            assert_eq!(plain.status, 200, "{path} {wire:?}");
            let packed = visionary.request(Method::GET, &path).header("accept-encoding", "br, gzip").response().await;
            assert_eq!(packed.headers()["content-encoding"], "gzip");
            assert_eq!(packed.headers()["vary"], "Accept-Encoding");
            let mut content = String::new();
            GzDecoder::new(&packed.bytes().await.unwrap()[..]).read_to_string(&mut content).unwrap();
            assert_eq!(content, plain.body, "{path}");
            assert_eq!(plain.header("content-encoding"), "");
            let media_type = match path.rsplit('.').next() {
                Some("js") => "text/javascript; charset=utf-8",
                Some("css") => "text/css; charset=utf-8",
                Some("svg") => "image/svg+xml",
                _ => "text/html; charset=utf-8",
            };
            assert_eq!(plain.header("content-type"), media_type, "{path}");
            let kept = if path == "/" { "no-cache" } else { "public, max-age=31536000, immutable" };
            assert_eq!(plain.header("cache-control"), kept, "{path}");
            let head = visionary.request(Method::HEAD, &path).send().await;
            assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
            waiting.extend(references(&plain.body));
            seen.insert(path, plain.body);
        }
        assert!(seen.len() > 1, "the page has files");
    }
}

#[tokio::test]
async fn a_browser_that_has_the_page_is_told_so_without_a_body() {
    let visionary = Visionary::start().await;
    let page = |coding: &'static str| visionary.request(Method::GET, "/").header("accept-encoding", coding);
    let (plain, packed) = (page("identity").send().await, page("gzip").response().await);
    let (plain, packed) = (plain.header("etag").to_owned(), packed.headers()["etag"].to_str().unwrap().to_owned());
    assert!(plain.starts_with('"') && packed.starts_with('"') && plain != packed, "{plain} {packed}");

    for (coding, known, status) in [
        ("identity", plain.as_str(), 304),
        ("gzip", packed.as_str(), 304),
        ("gzip", &format!("\"other\", W/{packed}"), 304),
        ("gzip", "*", 304),
        ("gzip", plain.as_str(), 200),
        ("gzip", "\"other\"", 200),
    ] {
        let answer = page(coding).header("if-none-match", known).response().await;
        assert_eq!(answer.status(), status, "{coding} {known}");
        assert!(answer.headers().contains_key("content-security-policy") && answer.headers().contains_key("etag"));
        assert_eq!(answer.bytes().await.unwrap().is_empty(), status == 304);
    }
}

#[tokio::test]
async fn the_page_allows_only_its_own_files_this_api_and_the_images() {
    let visionary = Visionary::start().await;

    let page = visionary.get("/").await;

    visionary.generate("a fox").await;
    let link = reqwest::Url::parse(&visionary.list().await[0].1).unwrap();
    let policy = page.header("content-security-policy").replace(&link.origin().ascii_serialization(), "[images]");
    insta::assert_snapshot!(policy.replace("; ", ";\n"), @r"
    default-src 'none';
    script-src 'self';
    style-src 'self';
    img-src 'self' data: [images];
    connect-src 'self';
    manifest-src 'self';
    base-uri 'none';
    form-action 'self';
    frame-ancestors 'none';
    require-trusted-types-for 'script';
    trusted-types 'none'
    ");
    for (header, value) in
        [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("x-robots-tag", "noindex")]
    {
        assert_eq!(page.header(header), value);
    }
}

/// The page's route takes each path of one segment.
#[tokio::test]
async fn the_page_takes_no_path_of_another_function() {
    for wire in WIRES {
        let visionary = Setup { keys: vec!["the-key".into()], ..Setup::wire(wire) }.start().await;
        for function in FUNCTIONS.iter().filter(|function| function.methods == ["get"]) {
            let status = if function.auth_level == "anonymous" { 200 } else { 401 };
            assert_eq!(visionary.get(&format!("/{}", function.route)).await.status, status, "{}", function.name);
        }
        for path in [
            "/api%2fgenerateSASToken",
            "/api%252fgenerateSASToken",
            "/api%5cgenerateSASToken",
            "/api%255cgenerateSASToken",
            "//api/generateSASToken",
            "/%252e%252e%252fapi%252fgenerateSASToken",
            "/x%252f%252e%252e%252fapi%252fusage",
            "/api",
            "/web",
            "/index.html",
            "/page.css",
            "/function.json",
        ] {
            let answer = visionary.get(path).await;
            assert_eq!(answer.status, 404, "{path} {wire:?}: {}", answer.body);
        }
        for path in ["/api/generateSASToken", "/api/usage", "/api/status"] {
            assert_eq!(visionary.request(Method::HEAD, path).send().await.status, 404, "{path} {wire:?}");
        }
        // The handler's paths for messages of the queue. The host lets no POST through.
        for (method, status) in [(Method::GET, 405), (Method::HEAD, 405), (Method::POST, 404)] {
            assert_eq!(visionary.request(method, "/processImage").send().await.status, status, "{wire:?}");
        }
    }
}

#[tokio::test]
async fn without_the_page_the_root_is_404_and_the_process_is_ready_all_the_same() {
    let visionary = Setup::default().set("WEB_PAGE", "off").start().await;

    // The host's question whether the process is ready is no request of a caller.
    assert!(!visionary.host.logs().iter().any(|line| line.text.contains("request_")), "{:?}", visionary.host.logs());
    for path in ["/", "/page.css"] {
        assert_eq!(visionary.get(path).await.status_and_code(), (404, "not_found"), "{path}");
    }
    assert_eq!(visionary.handler(0).get("/").await.status, 404);
    assert_eq!(visionary.get("/api/getImages").await.status, 200);
}

#[tokio::test]
async fn with_sign_in_a_page_on_another_site_may_not_draw_unless_its_origin_is_allowed() {
    let signed_in = Setup::wire(Wire::Forwarding)
        .set("WEBSITE_AUTH_ENABLED", "True")
        .set("ALLOWED_ORIGINS", "https://front.example, http://localhost:3000")
        .start()
        .await;
    let open = Visionary::start().await;

    for (site, origin, status) in [
        ("cross-site", "https://evil.example", 403),
        ("cross-site", "https://front.example.evil.example", 403),
        ("cross-site", "null", 403),
        ("cross-site", "", 403),
        ("cross-site", "https://front.example", 200),
        ("cross-site", "http://localhost:3000", 200),
        ("same-site", "https://front.example", 200),
        ("same-origin", "https://app.example", 200),
        ("none", "", 200),
        ("", "https://evil.example", 200),
    ] {
        let with_headers = |visionary: &Visionary| {
            let headers = [("sec-fetch-site", site), ("origin", origin)];
            let sent = headers.into_iter().filter(|(_, value)| !value.is_empty());
            sent.fold(visionary.post("a fox"), |request, (name, value)| request.header(name, value))
        };
        let answer = with_headers(&signed_in).send().await;
        let code = if status == 403 { "cross_site_refused" } else { "" };
        assert_eq!(answer.status_and_code(), (status, code), "{site} {origin}: {}", answer.body);
        assert_eq!(with_headers(&open).send().await.status, 200, "{site} {origin}, without sign-in");
    }
    let cross_site = |method, path: &str| signed_in.request(method, path).header("sec-fetch-site", "cross-site");
    let job = format!("/api/generateImage/jobs/2026-11-21-{}", "0".repeat(64));
    assert_eq!(cross_site(Method::DELETE, &job).send().await.status, 403);
    assert_eq!(cross_site(Method::GET, "/api/getImages").send().await.status, 200, "reading changes nothing");
    assert_eq!(cross_site(Method::GET, "/").send().await.status, 200, "a link to the page");
    assert_eq!(signed_in.openai.images_drawn().len(), 6);
}
