//! A paid image reaches the gallery, whatever happens to storage or to the process.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use devkit::stand_ins::faults::{Faults, Line};
use devkit::stand_ins::openai::Endpoint;

use crate::harness::{Setup, Visionary, azurite, eventually, with_faults_before};

/// The app, and a line that can fail to its blobs.
async fn start(handlers: usize) -> (Visionary, Faults) {
    let (faults, through) = with_faults_before(azurite().blob_port()).await;
    let setup = Setup { handlers, ..Setup::default() }.set("AzureWebJobsStorage", through);
    (setup.start().await, faults)
}

fn folder(visionary: &Visionary) -> PathBuf {
    visionary.setting("SPOOL_DIR").into()
}

/// Storage fails while the provider draws. Returns the image's name from the answer.
async fn draw_while_storage_is_down(visionary: &Visionary, faults: &Faults) -> String {
    let hold = visionary.hold_next_image();
    let request = visionary.post("a fox").accept_json().spawn();
    hold.reached(1).await;
    faults.set(Line::Cut);
    hold.release();
    let answer = request.await.unwrap();
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(answer.json()["code"], "stored_later", "{}", answer.body);
    answer.json()["name"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_image_that_cannot_be_stored_is_kept_and_stored_when_storage_is_back() {
    let (visionary, faults) = start(1).await;
    let name = draw_while_storage_is_down(&visionary, &faults).await;
    assert_eq!(visionary.spool().len(), 1);

    faults.set(Line::Whole);
    visionary.host.wait_for_log(|line| line.text.contains("spooled_image_uploaded")).await;

    let (listed, url) = visionary.list().await.remove(0);
    assert_eq!(listed, name);
    let drawn = visionary.openai.images_drawn();
    assert_eq!(drawn.len(), 1, "paid once");
    assert_eq!(visionary.open(&url).await.bytes().await.unwrap(), drawn[0].bytes);
}

#[tokio::test]
async fn an_image_of_a_killed_process_is_recovered_once_by_the_next_processes() {
    let (mut visionary, faults) = start(2).await;
    let name = draw_while_storage_is_down(&visionary, &faults).await;
    for handler in 0..2 {
        visionary.host.kill_handler(handler).await;
    }
    assert_eq!(visionary.spool().len(), 1);
    // An old file of a process that was killed while it wrote, and a file that is no image.
    let unfinished = folder(&visionary).join("0.unfinished");
    std::fs::write(&unfinished, "{").unwrap();
    let written = std::fs::File::options().append(true).open(&unfinished).unwrap();
    written.set_modified(std::time::UNIX_EPOCH).unwrap();
    let foreign = folder(&visionary).join("1.image");
    std::fs::write(&foreign, "no image").unwrap();

    faults.set(Line::Whole);
    for handler in 0..2 {
        visionary.host.start_handler(handler).await.unwrap();
    }

    // Both processes have read the spool.
    visionary.host.wait_for_logs(2, |line| line.text.contains("left where it is")).await;
    eventually("one file is left in the spool", async || visionary.spool(), |files| files.len() == 1).await;
    let names: Vec<String> = visionary.list().await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, [name]);
    assert!(!unfinished.exists(), "an old unfinished file is deleted");
    assert!(foreign.exists(), "a foreign file stays");
    assert_eq!(visionary.openai.images_drawn().len(), 1, "paid once");
}

#[tokio::test]
async fn the_spool_is_empty_after_an_image_was_stored_and_its_folder_is_private() {
    let (visionary, _faults) = start(1).await;
    assert_eq!(visionary.generate("a fox").await.status, 200);

    // A stopping process first does the writes that it owes after its answers.
    visionary.host.terminate_handler(0);
    visionary.host.wait_for_exits(0, 1).await;

    assert_eq!(visionary.spool().len(), 0);
    let mode = std::fs::metadata(folder(&visionary)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_full_spool_refuses_before_anything_is_paid() {
    let (visionary, _faults) = start(1).await;
    let file = |number: usize| folder(&visionary).join(format!("{number:032x}.unfinished"));
    let is_refused = async || {
        let answer = visionary.generate("a fox").await;
        assert_eq!(answer.status_and_code(), (503, "storage_unavailable"));
        assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1, "nothing is drawn");
    };

    // Files that are not the app's do not count.
    (0..500).for_each(|number| std::fs::write(folder(&visionary).join(format!("{number}.txt")), "").unwrap());
    assert_eq!(visionary.generate("a fox").await.status, 200);

    // Too many files.
    (0..500).for_each(|number| std::fs::write(file(number), "").unwrap());
    is_refused().await;
    (0..500).for_each(|number| std::fs::remove_file(file(number)).unwrap());
    // Too many bytes.
    std::fs::File::create(file(0)).unwrap().set_len(256 * 1024 * 1024).unwrap();
    is_refused().await;
    std::fs::remove_file(file(0)).unwrap();

    assert_eq!(visionary.generate("a fox").await.status, 200);
}
