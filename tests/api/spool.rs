//! A paid image reaches the gallery, whatever happens to storage or to the process.

use std::path::PathBuf;

use devkit::stand_ins::faults::{Faults, Line};
use devkit::stand_ins::openai::{Endpoint, Hold, Reply};
use serde_json::json;

use crate::harness::{Setup, Visionary, azurite, eventually, with_faults_before};

/// With a line to storage that can be cut.
async fn start(handlers: usize) -> (Visionary, Faults) {
    let (faults, through) = with_faults_before(azurite().blob_port()).await;
    let setup = Setup { handlers, ..Setup::default() }.set("AzureWebJobsStorage", through);
    (setup.start().await, faults)
}

fn spool(visionary: &Visionary) -> PathBuf {
    visionary.setting("SPOOL_DIR").into()
}

fn entries(visionary: &Visionary) -> usize {
    std::fs::read_dir(spool(visionary)).unwrap().count()
}

/// Storage goes while the provider draws; the name that the caller is told.
async fn draw_while_storage_is_gone(visionary: &Visionary, faults: &Faults) -> String {
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let body = json!({"prompt": "a fox"});
    let cut = async {
        hold.reached(1).await;
        faults.set(Line::Cut);
        hold.release();
    };
    let (answer, ()) = tokio::join!(visionary.generate_json(&body), cut);
    assert_eq!((answer.status, &answer.json()["code"]), (202, &json!("stored_later")), "{}", answer.body);
    answer.json()["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_image_that_cannot_be_stored_is_kept_and_stored_when_storage_is_back() {
    let (visionary, faults) = start(1).await;
    let name = draw_while_storage_is_gone(&visionary, &faults).await;
    assert_eq!(entries(&visionary), 1);
    faults.set(Line::Whole);
    visionary.host.wait_for_log(|line| line.text.contains("stored after all")).await;
    let (listed, url) = visionary.list().await.remove(0);
    assert_eq!(listed, name);
    let drawn = visionary.openai.images_drawn();
    assert_eq!(drawn.len(), 1, "paid once");
    assert_eq!(visionary.open(&url).await.bytes().await.unwrap(), drawn[0].bytes);
}

#[tokio::test]
async fn an_image_of_a_killed_process_is_recovered_once_by_whoever_starts() {
    let (mut visionary, faults) = start(2).await;
    let name = draw_while_storage_is_gone(&visionary, &faults).await;
    for handler in 0..2 {
        visionary.host.kill_handler(handler).await;
    }
    assert_eq!(entries(&visionary), 1);
    // What a process leaves that is killed while it writes, and what is none of ours.
    let unfinished = spool(&visionary).join("0.unfinished");
    std::fs::write(&unfinished, "{").unwrap();
    let written = std::fs::File::options().append(true).open(&unfinished).unwrap();
    written.set_modified(std::time::UNIX_EPOCH).unwrap();
    std::fs::write(spool(&visionary).join("1.image"), "no image").unwrap();
    faults.set(Line::Whole);
    for handler in 0..2 {
        visionary.host.start_handler(handler).await.unwrap();
    }
    // Both have looked at what is there.
    visionary.host.wait_for_logs(2, |line| line.text.contains("left where it is")).await;
    eventually(async || (entries(&visionary) == 1).then_some(())).await;
    let names: Vec<String> = visionary.list().await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [name]);
    assert!(!unfinished.exists(), "remains are cleaned away");
    assert!(spool(&visionary).join("1.image").exists(), "what is not ours is not removed");
    assert_eq!(visionary.openai.images_drawn().len(), 1, "paid once");
}

#[tokio::test]
async fn the_spool_is_empty_after_a_image_was_stored_and_its_folder_is_private() {
    let (visionary, _faults) = start(1).await;
    assert_eq!(visionary.generate("a fox").await.status, 200);
    // A stop waits until everything is told, which comes after the answer.
    visionary.host.terminate_handler(0);
    visionary.host.wait_for_exits(0, 1).await;
    assert_eq!(entries(&visionary), 0);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(spool(&visionary)).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_full_spool_refuses_before_anything_is_paid() {
    let (visionary, _faults) = start(1).await;
    let refused = async || {
        let answer = visionary.generate("a fox").await;
        assert_eq!((answer.status, answer.header("x-error-code")), (503, "storage_unavailable"));
        assert!(visionary.openai.requests(Endpoint::Images).is_empty());
    };
    let file = |number: usize| spool(&visionary).join(format!("{number}.unfinished"));
    (0..500).for_each(|number| std::fs::write(file(number), "").unwrap());
    refused().await;
    (0..500).for_each(|number| std::fs::remove_file(file(number)).unwrap());
    std::fs::File::create(file(0)).unwrap().set_len(256 * 1024 * 1024).unwrap();
    refused().await;
    std::fs::remove_file(file(0)).unwrap();
    assert_eq!(visionary.generate("a fox").await.status, 200);
}
