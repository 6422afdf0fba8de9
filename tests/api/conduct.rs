//! The process: its log, its end, and its restart.

use devkit::stand_ins::host::Level;
use serde_json::Value;

use crate::harness::{API_KEY, Setup, Visionary, WIRES};

#[tokio::test]
async fn no_secret_prompt_or_signed_link_is_logged_at_any_level() {
    for wire in WIRES {
        let setup =
            Setup::wire(wire).set("RUST_LOG", "trace,azure_core=trace,azure_storage=trace,hyper=trace,reqwest=trace");
        let visionary = setup.start().await;

        let answer = visionary.generate("the secret fox").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        visionary.generate("something forbidden, too").await;
        let (name, url) = visionary.list().await.remove(0);
        let token = visionary.get("/api/generateSASToken?code=the-key").await.body;
        let last = visionary.get("/api/getChatGPTSuggestion").await;
        let id = last.header("x-azure-functions-invocationid");
        visionary.host.wait_for_log(|line| line.text.contains(id)).await;

        let signature = |text: &str| text.split("sig=").nth(1).unwrap().to_owned();
        let secrets = [
            API_KEY,
            "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50u",
            "SharedKey",
            "Bearer",
            "secret fox",
            "forbidden",
            "the-key",
            &name,
            &signature(&url),
            &signature(&token),
            "sig=",
        ];
        let logs = visionary.host.logs();
        assert!(logs.len() >= 5, "there is a log");
        for line in logs {
            for secret in secrets {
                assert!(!line.text.contains(secret), "{secret} is in {}", line.text);
            }
        }
    }
}

#[tokio::test]
async fn the_log_is_json_lines_on_stdout_and_stderr_is_empty() {
    let visionary = Visionary::start().await;

    let answer = visionary.generate("a fox").await;
    let id = answer.header("x-azure-functions-invocationid");
    visionary.host.wait_for_log(|line| line.text.contains(id)).await;

    for line in visionary.host.logs() {
        assert_eq!(line.level, Level::Information, "{}", line.text);
        let event: Value = serde_json::from_str(&line.text).expect("JSON");
        assert!(event["message"].is_string() && event["timestamp"].is_string(), "{}", line.text);
    }
    let lines = visionary.host.logs();
    let answered = lines.iter().find(|line| line.text.contains(id)).unwrap();
    let event: Value = serde_json::from_str(&answered.text).unwrap();
    assert_eq!(event["http.status"], 200);
    assert_eq!(event["span"]["function.name"], "generateImage");
    assert!(event["duration_ms"].is_u64());
}

#[tokio::test]
async fn a_stopping_process_ends_its_requests_first() {
    let visionary = Visionary::start().await;
    let hold = visionary.hold_next_image();
    let request = visionary.handler(0).post("a fox").spawn();
    hold.reached(1).await;

    visionary.host.terminate_handler(0);
    visionary.host.wait_for_log(|line| line.text.contains("asked to stop")).await;
    hold.release();

    assert_eq!(request.await.unwrap().body, "Image uploaded successfully");
    visionary.host.wait_for_log(|line| line.text.contains("process_stopped")).await;
    visionary.host.stop().await;
}

#[tokio::test]
async fn ctrl_c_stops_the_process_with_exit_code_0() {
    let visionary = Visionary::start().await;
    let statuses = visionary.host.stop().await;
    assert_eq!(statuses[0].and_then(|status| status.code()), Some(0));
}

#[tokio::test]
async fn a_killed_handler_is_started_again_and_serves() {
    let mut visionary = Visionary::start().await;
    visionary.generate("a fox").await;

    visionary.host.kill_handler(0).await;
    assert_eq!(visionary.get("/api/getImages").await.status, 503);
    visionary.host.start_handler(0).await.unwrap();

    assert_eq!(visionary.list().await.len(), 1);
}
