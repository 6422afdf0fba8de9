//! The fault matrix, as far as storage goes. The line to it is one for all requests, so all ways ask at
//! the same time.

use std::time::Duration;

use devkit::stand_ins::faults::{Faults, Line};
use devkit::stand_ins::openai::{Endpoint, Hold, Reply};

use crate::harness::{Setup, Visionary, azurite, eventually};
use crate::matrix::{Counts, accounted_as, setup, told_the_operator_of_403, tried_again, with_lines};
use crate::ways::{End, Told, Way, ask_at_once};

/// The container is there, and an image in it.
async fn with_an_earlier_fox() -> Visionary {
    let visionary = with_lines().start().await;
    assert_eq!(visionary.generate("an earlier fox").await.status, 200);
    visionary
}

fn blobs(visionary: &Visionary) -> &Faults {
    &visionary.lines.as_ref().expect("lines").blobs
}

/// Asks for an image in each of these ways, and changes the line to storage while all are drawn.
async fn draw_while(visionary: &Visionary, ways: &[Way], line: Line) -> Vec<(Way, Told)> {
    let hold = Hold::new();
    ways.iter().for_each(|_| visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold)));
    let change = async {
        let reached = tokio::time::timeout(Duration::from_secs(60), hold.reached(ways.len())).await;
        assert!(reached.is_ok(), "not all of {ways:?} are being drawn within a minute");
        blobs(visionary).set(line);
        hold.release();
    };
    tokio::join!(ask_at_once(visionary, ways), change).0
}

/// Mends the line. Then each image is in the gallery, whole and under the name that its caller was told,
/// the provider was asked once for each, and the job has its image's link.
async fn all_are_stored_later(visionary: &Visionary, told: Vec<(Way, Told)>) {
    blobs(visionary).set(Line::Whole);
    let images = 1 + told.len();
    let listed = eventually(async || Some(visionary.list().await).filter(|listed| listed.len() >= images)).await;
    for (way, told) in told {
        let End::StoredLater(name) = told.end else { panic!("{way:?} ended in {:?}", told.end) };
        assert!(listed.iter().any(|(listed, _)| *listed == name), "{way:?}: {name} is not in {listed:?}");
        assert_eq!(told.job.is_some(), way == Way::Job);
        if let Some(job) = told.job {
            let is_done = async || visionary.get(&job).await.json()["result"]["url"].is_string().then_some(());
            eventually(is_done).await;
        }
    }
    accounted_as(visionary, Counts::of_images(images), "after the line is mended").await;
    are_whole(visionary).await;
}

/// What is in the gallery is what the provider drew.
async fn are_whole(visionary: &Visionary) {
    let mut listed = Vec::new();
    for (_, url) in visionary.list().await {
        listed.push(visionary.open(&url).await.bytes().await.expect("an image"));
    }
    let mut drawn: Vec<_> = visionary.openai.images_drawn().into_iter().map(|drawn| drawn.bytes).collect();
    listed.sort_unstable();
    drawn.sort_unstable();
    assert!(listed == drawn, "another image is listed than was drawn");
}

#[tokio::test]
async fn storage_is_down_before_the_call() {
    let visionary = with_an_earlier_fox().await;
    blobs(&visionary).set(Line::Cut);
    let told = ask_at_once(&visionary, &Way::ALL).await;
    all_are_stored_later(&visionary, told).await;
}

#[tokio::test]
async fn storage_goes_down_after_the_provider_answered_and_is_back_after_another_try() {
    let visionary = with_an_earlier_fox().await;
    let told = draw_while(&visionary, &Way::ALL, Line::Cut).await;
    tried_again(&visionary).await;
    all_are_stored_later(&visionary, told).await;
}

#[tokio::test]
async fn storage_is_down_for_good_and_the_image_is_kept() {
    let visionary = with_an_earlier_fox().await;
    for (way, told) in draw_while(&visionary, &Way::ALL, Line::Cut).await {
        assert!(matches!(told.end, End::StoredLater(_)), "{way:?} ended in {:?}", told.end);
    }
    tried_again(&visionary).await;
    assert_eq!(std::fs::read_dir(visionary.setting("SPOOL_DIR")).expect("a folder").count(), 5);
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 6);
    visionary.used(6).await;
}

/// The answer comes after the time for an upload, 15 seconds and one for each MiB.
#[tokio::test]
async fn storage_stalls() {
    let visionary = with_an_earlier_fox().await;
    let told = draw_while(&visionary, &Way::ALL, Line::Stalled).await;
    all_are_stored_later(&visionary, told).await;
}

#[tokio::test]
async fn storage_answers_503_for_a_while() {
    let visionary = with_an_earlier_fox().await;
    let told = draw_while(&visionary, &Way::ALL, Line::Answers(503, "ServerBusy")).await;
    all_are_stored_later(&visionary, told).await;
}

#[tokio::test]
async fn storage_answers_403_until_it_does_not() {
    let visionary = with_an_earlier_fox().await;
    let told = draw_while(&visionary, &Way::ALL, Line::Answers(403, "AuthenticationFailed")).await;
    told_the_operator_of_403(&visionary).await;
    all_are_stored_later(&visionary, told).await;
}

/// The counters cannot be read with it either, so nothing is drawn, and what counts cannot be told.
#[tokio::test]
async fn the_account_key_is_wrong() {
    let wrong = azurite().connection_string().replace("Eby8", "Eby9");
    let visionary = Setup::default().set("AzureWebJobsStorage", wrong).start().await;
    for (way, told) in ask_at_once(&visionary, &Way::ALL).await {
        let counters = End::failed(503, "quota_unavailable");
        // The claim of the key comes first, and a job may be written first.
        let other = End::failed(503, "storage_unavailable");
        let has_other = way == Way::Keyed || way.is_queued();
        assert!(told.end == counters || has_other && told.end == other, "{way:?} ended in {:?}", told.end);
    }
    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
    told_the_operator_of_403(&visionary).await;
}

#[tokio::test]
async fn the_container_is_missing() {
    let visionary = setup().start().await;
    for (way, told) in ask_at_once(&visionary, &Way::ALL).await {
        assert_eq!(told.end, End::Stored, "{way:?}");
    }
    accounted_as(&visionary, Counts::of_images(5), "after all ways").await;
}

/// Only one answer is lost, so the ways ask one after the other.
#[tokio::test]
async fn the_answer_to_a_successful_upload_is_lost() {
    let visionary = with_an_earlier_fox().await;
    for (before, way) in Way::ALL.into_iter().enumerate() {
        let told = draw_while(&visionary, &[way], Line::LosesOneAnswer).await;
        assert_eq!(told[0].1.end, End::Stored, "{way:?}");
        accounted_as(&visionary, Counts::of_images(before + 2), &format!("after {way:?}")).await;
    }
    are_whole(&visionary).await;
}
