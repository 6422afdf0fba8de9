//! `cargo dev` as a new user meets it, and what is left when it is killed.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

struct Dev {
    process: Child,
    url: String,
}

/// Started without a key or an account, on a free port.
fn start() -> Dev {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devkit"));
    command.args(["dev", "--port", "0", "--delay", "0"]).stdout(Stdio::piped()).stderr(Stdio::null());
    for name in ["OPENAI_API_KEY", "AzureWebJobsStorage", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.env("PROMPT_ENHANCEMENT", "style");
    let mut process = command.spawn().expect("devkit starts");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("Visionary runs on ")).expect("it says where it runs");
    std::thread::spawn(move || lines.for_each(drop));
    let url = line.split([' ', ',']).find(|word| word.starts_with("http://")).unwrap().to_owned();
    Dev { process, url }
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

/// Whether nobody listens any more once the other side has closed.
fn is_gone(mut connection: TcpStream, port: u16) -> bool {
    let _ = connection.read(&mut [0]);
    // A process that ends closes one socket after the other; the listening one may come last.
    let closed = Instant::now();
    while closed.elapsed() < Duration::from_secs(5) {
        if TcpStream::connect(("127.0.0.1", port)).is_err() {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn it_draws_lists_and_leaves_nothing_behind_when_it_is_killed() {
    let mut dev = start();
    let url = image_url(&dev.url).await;
    let image = reqwest::get(&url).await.unwrap();
    assert_eq!(image.headers()["content-type"], "image/png");
    let sent = image.headers()["x-ms-meta-final_prompt"].to_str().unwrap().to_owned();
    assert!(sent.contains("cinematic"), "a setting of the environment's is the app's: {sent}");
    let image = image.bytes().await.unwrap();
    let side = 1024_u32.to_be_bytes();
    assert_eq!((&image[16..20], &image[20..24]), (&side[..], &side[..]), "the asked size");

    let azurite = port(&url);
    let connection = TcpStream::connect(("127.0.0.1", azurite)).unwrap();
    dev.process.kill().unwrap();
    dev.process.wait().unwrap();
    assert!(tokio::task::spawn_blocking(move || is_gone(connection, azurite)).await.unwrap(), "Azurite is left");
}

#[tokio::test]
async fn ctrl_c_ends_it_with_exit_code_0() {
    let mut dev = start();
    let azurite = port(&image_url(&dev.url).await);
    let status = Command::new("kill").args(["-INT", &dev.process.id().to_string()]).status().unwrap();
    assert!(status.success());
    assert_eq!(dev.process.wait().unwrap().code(), Some(0));
    assert!(TcpStream::connect(("127.0.0.1", azurite)).is_err(), "Azurite is left");
}
