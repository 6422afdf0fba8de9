//! `cargo dev` as a new user starts it, and the end of its child processes when it is killed.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use devkit::stand_ins::openai::OpenAi;
use serde_json::Value;

struct Dev {
    process: Child,
    url: String,
}

/// `cargo dev` with these options, without a key or an account, on a free port.
fn command(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devkit"));
    command.args(["dev", "--port", "0"]).args(options).stdout(Stdio::piped()).stderr(Stdio::null());
    for name in
        ["OPENAI_API_KEY", "OPEN_AI_KEY", "OPENAI_BASE_URL", "DAILY_BUDGET_USD", "AzureWebJobsStorage", "RUST_LOG"]
    {
        command.env_remove(name);
    }
    command.env("PROMPT_ENHANCEMENT", "style");
    command
}

/// Starts `cargo dev` with an image in this time.
fn start(delay_s: &str) -> Dev {
    serve(&mut command(&["--delay", delay_s])).0
}

/// Starts a command, and returns what it printed before it served.
fn serve(command: &mut Command) -> (Dev, Vec<String>) {
    let mut process = command.spawn().expect("devkit starts");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut before = Vec::new();
    let serves = lines.by_ref().find(|line| {
        before.push(line.clone());
        line.starts_with("Visionary runs on ")
    });
    let line = serves.unwrap_or_else(|| panic!("it prints no URL: {before:?}"));
    std::thread::spawn(move || lines.for_each(drop));
    let url = line.split([' ', ',']).find(|word| word.starts_with("http://")).unwrap().to_owned();
    (Dev { process, url }, before)
}

/// Ends a run as Ctrl-C does.
fn interrupt(mut dev: Dev) {
    let status = Command::new("kill").args(["-INT", &dev.process.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!(dev.process.wait().unwrap().code(), Some(0));
}

/// What a run that refuses its options says.
fn refusal(command: &mut Command) -> String {
    let output = command.stderr(Stdio::piped()).output().expect("devkit starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

async fn image_url(url: &str) -> String {
    let http = reqwest::Client::new();
    let posted = http.post(format!("{url}/api/generateImage")).body(r#"{"prompt":"a fox"}"#).send().await.unwrap();
    assert_eq!(posted.text().await.unwrap(), "Image uploaded successfully");
    let listed: Value = http.get(format!("{url}/api/getImages")).send().await.unwrap().json().await.unwrap();
    listed["imageUrls"][0]["url"].as_str().unwrap().to_owned()
}

fn port(url: &str) -> u16 {
    reqwest::Url::parse(url).unwrap().port().unwrap()
}

/// Waits until the other side closes the connection. Returns whether no process listens on the port then.
fn is_gone(mut connection: TcpStream, port: u16) -> bool {
    let _ = connection.read(&mut [0]);
    // A process that ends closes its sockets one after another, and the listening socket may be the last.
    let closed = Instant::now();
    while closed.elapsed() < Duration::from_secs(5) {
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn an_image_can_be_drawn_and_listed_and_azurite_ends_after_a_sigkill() {
    let mut dev = start("0");
    let url = image_url(&dev.url).await;
    let image = reqwest::get(&url).await.unwrap();
    assert_eq!(image.headers()["content-type"], "image/png");
    let sent = image.headers()["x-ms-meta-final_prompt"].to_str().unwrap().to_owned();
    assert!(sent.contains("cinematic"), "an environment variable overrides a setting of the app: {sent}");
    let image = image.bytes().await.unwrap();
    let side = 1024_u32.to_be_bytes();
    assert_eq!((&image[16..20], &image[20..24]), (&side[..], &side[..]), "the image has the requested size");

    let azurite = port(&url);
    let connection = TcpStream::connect(("127.0.0.1", azurite)).unwrap();
    dev.process.kill().unwrap();
    dev.process.wait().unwrap();
    assert!(tokio::task::spawn_blocking(move || is_gone(connection, azurite)).await.unwrap(), "Azurite still listens");
}

#[tokio::test]
async fn ctrl_c_ends_azurite_and_gives_exit_code_0() {
    let dev = start("0");
    let azurite = port(&image_url(&dev.url).await);
    interrupt(dev);
    assert!(TcpStream::connect(("127.0.0.1", azurite)).is_err(), "Azurite still listens");
}

#[tokio::test]
async fn with_keep_the_next_run_has_the_images_and_what_they_cost() {
    let folder = tempfile::tempdir().unwrap();
    let keep = format!("--keep={}", folder.path().join("kept").display());
    let options = ["--delay", "0", keep.as_str()];
    let (dev, _) = serve(&mut command(&options));
    let url = image_url(&dev.url).await;
    let image = reqwest::get(&url).await.unwrap().bytes().await.unwrap();
    let second = refusal(&mut command(&options));
    assert!(second.contains("another `cargo dev --keep` runs on") && second.contains("end it first"), "{second}");
    interrupt(dev);

    let (dev, _) = serve(&mut command(&options));

    let get = async |path: &str| {
        reqwest::get(format!("{}/api/{path}", dev.url)).await.unwrap().json::<Value>().await.unwrap()
    };
    let listed = get("getImages").await;
    let kept = listed["imageUrls"][0]["url"].as_str().unwrap();
    assert_eq!(listed["imageUrls"].as_array().unwrap().len(), 1);
    assert!(reqwest::get(kept).await.unwrap().bytes().await.unwrap() == image, "the image has changed");
    assert_eq!((&get("quota").await["used"], &get("usage").await["days"][0]["images"]), (&1.into(), &1.into()));
    interrupt(dev);
}

#[tokio::test]
async fn with_real_the_provider_of_the_settings_draws_and_the_budget_is_said_before() {
    let provider = OpenAi::start().await.unwrap();
    let mut real = command(&["--real"]);
    let secret = provider.base_url() + "?secret=1";
    real.env("OPENAI_API_KEY", "key-of-the-test").env("OPENAI_BASE_URL", secret).env("DAILY_BUDGET_USD", "7.5");

    let (dev, before) = serve(&mut real);

    let said = before.iter().find(|line| line.starts_with("The provider ")).unwrap_or_else(|| panic!("{before:?}"));
    let origin = format!("http://127.0.0.1:{}", port(&provider.base_url()));
    assert_eq!(
        *said,
        format!(
            "The provider {origin} draws and charges you: it may cost at most $7.5 in a UTC day (DAILY_BUDGET_USD)."
        )
    );
    image_url(&dev.url).await;
    assert_eq!(provider.images_drawn().len(), 1);
    interrupt(dev);
}

#[test]
fn options_that_cannot_work_are_refused_with_a_sentence() {
    for (options, wanted) in [
        (&["--real"][..], "there is no key: set OPENAI_API_KEY in the environment"),
        (&["--real", "--delay", "1"], "leave it out with --real"),
        (&["--kep"], "`cargo dev` has no option --kep"),
        (&["--delay"], "--delay needs a value"),
        (&["--delay", "-1"], "--delay needs a number of seconds"),
        (&["--port", "70000"], "--port needs a number of at most 65535"),
    ] {
        let said = refusal(&mut command(options));
        assert!(said.contains(wanted), "{options:?}: {said}");
    }
    assert!(refusal(&mut command(&["--kep"])).contains("--keep[=FOLDER]"), "the refusal shows the options");
}

/// Stands before curl: records the answer of each call, and passes it on.
const CURL: &str = r#"#!/bin/sh
call="$ANSWERS/$(printf %03d "$(ls "$ANSWERS" | wc -l)")"
mkdir "$call"
printf '%s\n' "$*" >"$call/arguments"
"$CURL" -sS -D "$call/headers" "$@" >"$call/output"
code=$?
cat "$call/output"
exit $code
"#;

/// The documents' blocks of shell commands that call the app on this machine.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter(|block| block.contains("curl ") && block.contains(DOCUMENTED))
}

/// Where the documents expect `cargo dev`.
const DOCUMENTED: &str = "http://127.0.0.1:7071";

/// One recorded call in a line: method, path, status, content type, and the names of a JSON answer.
fn summary(call: &Path) -> String {
    let read = |name: &str| std::fs::read_to_string(call.join(name)).unwrap();
    let arguments = read("arguments");
    let method = arguments.split("-X ").nth(1).map_or("GET", |rest| rest.split(' ').next().unwrap());
    let url = arguments.split(' ').find_map(|argument| argument.trim().split_once("/api/")).unwrap().1;
    let url = url.split("jobs/").next().unwrap();
    // An image's id has 46 characters.
    let url = match url.split_once("images/") {
        Some((before, id)) => format!("{before}images/{{id}}{}", id.get(46..).unwrap_or_default()),
        None => url.to_owned(),
    };
    let headers = read("headers");
    let status = headers.split(' ').nth(1).unwrap();
    let content_type = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-type").then(|| value.trim().to_owned())
    });
    let output = read("output");
    // With `-i` the headers come first.
    let body = output.strip_prefix(&headers).unwrap_or(&output);
    let shape = match serde_json::from_str::<Value>(body) {
        Ok(Value::Object(answer)) => {
            // The thumbnail is made beside the upload, so it may be there or not.
            let is_late = |name: &&String| name.starts_with("thumbnail") || *name == "placeholder";
            answer.keys().filter(|name| !is_late(name)).cloned().collect::<Vec<_>>().join(" ")
        }
        _ if body.starts_with("event: ") => {
            let events: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
            format!("{} … {}", events[0], events[events.len() - 1])
        }
        _ if body.starts_with("sv=") => "sv=…".to_owned(),
        _ if url.starts_with("getChatGPTSuggestion") => format!("{} words or more", body.split(' ').count().min(3)),
        _ => body.lines().next().unwrap_or_default().chars().take(40).collect(),
    };
    format!("{method} {url} | {status} {} | {shape}", content_type.unwrap_or_default())
}

/// Each block runs as it is written but for host and port; what it prints is what a reader sees.
#[test]
fn the_commands_of_the_documents_run_as_they_are_written() {
    // A job has not ended when the next command asks for it.
    let mut dev = start("1");
    let folder = tempfile::tempdir().unwrap();
    let curl = folder.path().join("curl");
    std::fs::write(&curl, CURL).unwrap();
    std::fs::set_permissions(&curl, PermissionsExt::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let found = path.split(':').map(|folder| Path::new(folder).join("curl")).find(|curl| curl.exists());
    let real = found.expect("curl is installed");
    let mut shown = Vec::new();
    let documents = std::fs::read_dir(devkit::root().join("docs")).unwrap();
    let documents = documents.map(|entry| format!("docs/{}", entry.unwrap().file_name().to_str().unwrap()));
    let mut documents: Vec<String> = documents.filter(|name| name.ends_with(".md")).collect();
    documents.sort();
    documents.insert(0, "README.md".to_owned());
    for document in documents {
        let text = std::fs::read_to_string(devkit::root().join(&document)).unwrap();
        for (number, block) in blocks(&text).enumerate() {
            let answers = folder.path().join(format!("{}-{number}", document.replace('/', "-")));
            std::fs::create_dir(&answers).unwrap();
            let ended = Command::new("sh")
                .args(["-euc", &block.replace(DOCUMENTED, &dev.url)])
                .env("PATH", format!("{}:{path}", folder.path().display()))
                .env("CURL", &real)
                .env("ANSWERS", &answers)
                .output()
                .unwrap();
            assert!(ended.status.success(), "{document}:\n{block}\n{}", String::from_utf8_lossy(&ended.stderr));
            let mut calls: Vec<PathBuf> =
                std::fs::read_dir(&answers).unwrap().map(|call| call.unwrap().path()).collect();
            calls.sort();
            assert_eq!(calls.len(), block.matches("curl ").count(), "{document}: each call is recorded\n{block}");
            shown.extend(calls.iter().map(|call| summary(call)));
        }
    }
    dev.process.kill().unwrap();
    dev.process.wait().unwrap();
    insta::assert_snapshot!(shown.join("\n"), @r"
    POST generateImage | 200 text/plain; charset=utf-8 | Image uploaded successfully
    GET getImages | 200 application/json | imageUrls
    GET getChatGPTSuggestion | 200 text/plain; charset=utf-8 | 3 words or more
    GET generateSASToken | 200 text/plain; charset=utf-8 | sv=…
    POST generateImage | 200 application/json | bytes contentType createdAt deleteToken downloadUrl enhancement finalPrompt id model name prompt quality revisedPrompt size url
    POST generateImage | 200 text/plain; charset=utf-8 | Image uploaded successfully
    POST generateImage | 200 application/json | bytes contentType createdAt deleteToken downloadUrl enhancement finalPrompt id model name prompt quality revisedPrompt size url
    POST generateImage | 200 text/plain; charset=utf-8 | Image uploaded successfully
    POST generateImage | 200 text/plain; charset=utf-8 | Image uploaded successfully
    POST generateImage | 200 text/plain; charset=utf-8 | Image uploaded successfully
    POST generateImage | 200 text/event-stream | progress … image
    POST generateImage | 202 application/json | estimateSeconds id status statusUrl
    POST generateImage | 200 text/plain; charset=utf-8 | Image uploaded successfully
    POST generateImage | 202 application/json | estimateSeconds id status statusUrl
    GET generateImage/ | 200 application/json | createdAt elapsedSeconds estimateSeconds id status statusUrl
    GET generateImage/ | 200 text/event-stream | accepted … image
    DELETE generateImage/ | 409 text/plain; charset=utf-8 | This job has already begun or ended, so 
    GET getImages | 200 application/json | imageUrls
    GET getImages?limit=60 | 200 application/json | imageUrls
    POST generateImage | 200 application/json | bytes contentType createdAt deleteToken downloadUrl enhancement finalPrompt id model name prompt quality revisedPrompt size url
    GET images/{id} | 200 application/json | bytes contentType createdAt downloadUrl enhancement finalPrompt height id model name prompt quality size url width
    DELETE images/{id} | 200 application/json | id restorableUntil
    POST images/{id}/restore | 200 application/json | bytes contentType createdAt downloadUrl enhancement finalPrompt height id model name prompt quality size url width
    GET getChatGPTSuggestion | 200 text/plain; charset=utf-8 | 3 words or more
    GET getChatGPTSuggestion?style=watercolor&about=a%20fox | 200 text/plain; charset=utf-8 | 3 words or more
    GET generateSASToken | 200 text/plain; charset=utf-8 | sv=…
    GET generateSASToken | 200 application/json | containerUrl expiresOn permissions sasToken
    GET styles | 200 application/json | styles
    POST generateImage | 200 application/json | bytes contentType createdAt deleteToken downloadUrl enhancement finalPrompt id model name prompt quality revisedPrompt size url
    POST generateImage | 200 application/json | bytes contentType createdAt deleteToken downloadUrl enhancement finalPrompt id model name prompt quality revisedPrompt size url
    GET options | 200 application/json | defaultEnhancement enhancements formats jobs maxPromptCharacters qualities signIn sizes styles variations
    GET quota | 200 application/json | limit remaining resetsAt used
    GET usage?days=7 | 200 application/json | days
    GET usage | 200 text/csv; charset=utf-8 | date,model,images,unpriced,refusals,fail
    GET health | 200 application/json | status version
    GET status | 200 application/json | build models provider status storage uptimeSeconds version waitingInSpool
    GET openapi.json | 200 application/json | components info openapi paths security servers tags
    POST generateImage | 400 text/plain; charset=utf-8 | The prompt is blank. Describe in a few w
    POST generateImage | 400 application/problem+json | code detail invocationId status title type
    ");
}
