//! The fault matrix: faults of storage. All requests share the line to storage, so all ways run at the
//! same time.

use std::time::Duration;

use devkit::stand_ins::faults::{Faults, Line};
use devkit::stand_ins::openai::{Endpoint, Hold, Reply};

use crate::harness::{Setup, Visionary, azurite, eventually, with_faults_before};
use crate::matrix::{Counts, accounted_as, logged_403, setup, tried_again, with_lines};
use crate::ways::{End, Outcome, Way, request_at_once};

/// The app with an image in its container.
async fn with_an_earlier_fox() -> Visionary {
    let visionary = with_lines().start().await;
    assert_eq!(visionary.generate("an earlier fox").await.status, 200);
    visionary
}

fn blobs(visionary: &Visionary) -> &Faults {
    &visionary.lines.as_ref().expect("lines").blobs
}

/// Requests an image in each of these ways, and changes the line to storage while all are being drawn.
async fn draw_while(visionary: &Visionary, ways: &[Way], line: Line) -> Vec<(Way, Outcome)> {
    let hold = Hold::new();
    ways.iter().for_each(|_| visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold)));
    let change = async {
        let reached = tokio::time::timeout(Duration::from_secs(60), hold.reached(ways.len())).await;
        assert!(reached.is_ok(), "not all of {ways:?} are being drawn within a minute");
        blobs(visionary).set(line);
        hold.release();
    };
    tokio::join!(request_at_once(visionary, ways), change).0
}

/// Repairs the line and checks the late images: each is in the gallery, undamaged and under the name in
/// its answer; the provider drew each once; and the job has its image's link.
async fn all_are_stored_later(visionary: &Visionary, outcomes: Vec<(Way, Outcome)>) {
    blobs(visionary).set(Line::Whole);

    let images = 1 + outcomes.len();
    let has_all = |listed: &Vec<(String, String)>| listed.len() >= images;
    let listed = eventually(&format!("{images} images are listed"), async || visionary.list().await, has_all).await;
    for (way, outcome) in outcomes {
        let End::StoredLater(name) = outcome.end else { panic!("{way:?} ended in {:?}", outcome.end) };
        assert!(listed.iter().any(|(listed, _)| *listed == name), "{way:?}: {name} is not in {listed:?}");
        assert_eq!(outcome.job.is_some(), way == Way::Job);
        if let Some(job) = outcome.job {
            let look = async || visionary.get(&job).await.json();
            eventually("the job has a link", look, |job| job["result"]["url"].is_string()).await;
        }
    }
    accounted_as(visionary, Counts::of_images(images), "after the line is repaired").await;
    are_undamaged(visionary).await;
}

/// The gallery's images have the bytes that the provider drew.
async fn are_undamaged(visionary: &Visionary) {
    let mut listed = Vec::new();
    for (_, url) in visionary.list().await {
        listed.push(visionary.open(&url).await.bytes().await.expect("an image"));
    }
    let mut drawn: Vec<_> = visionary.openai.images_drawn().into_iter().map(|drawn| drawn.bytes).collect();
    listed.sort_unstable();
    drawn.sort_unstable();
    assert!(listed == drawn, "the gallery holds other images than the provider drew");
}

#[tokio::test]
async fn storage_is_down_before_the_request() {
    let visionary = with_an_earlier_fox().await;
    blobs(&visionary).set(Line::Cut);
    let outcomes = request_at_once(&visionary, &Way::ALL).await;
    all_are_stored_later(&visionary, outcomes).await;
}

#[tokio::test]
async fn storage_is_down_after_the_draw_and_back_after_a_second_try() {
    let visionary = with_an_earlier_fox().await;
    let outcomes = draw_while(&visionary, &Way::ALL, Line::Cut).await;
    tried_again(&visionary).await;
    all_are_stored_later(&visionary, outcomes).await;
}

#[tokio::test]
async fn storage_stays_down_and_the_images_are_kept() {
    let visionary = with_an_earlier_fox().await;

    for (way, outcome) in draw_while(&visionary, &Way::ALL, Line::Cut).await {
        assert!(matches!(outcome.end, End::StoredLater(_)), "{way:?} ended in {:?}", outcome.end);
    }

    tried_again(&visionary).await;
    assert_eq!(visionary.spool().len(), 5);
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 6);
    visionary.used(6).await;
}

/// The answer comes after the upload's timeout: 15 s and 1 s for each MiB.
#[tokio::test]
async fn storage_stalls() {
    let visionary = with_an_earlier_fox().await;
    let outcomes = draw_while(&visionary, &Way::ALL, Line::Stalled).await;
    all_are_stored_later(&visionary, outcomes).await;
}

#[tokio::test]
async fn storage_answers_503_for_a_while() {
    let visionary = with_an_earlier_fox().await;
    let outcomes = draw_while(&visionary, &Way::ALL, Line::Answers(503, "ServerBusy")).await;
    all_are_stored_later(&visionary, outcomes).await;
}

#[tokio::test]
async fn storage_answers_403_for_a_while() {
    let visionary = with_an_earlier_fox().await;
    let outcomes = draw_while(&visionary, &Way::ALL, Line::Answers(403, "AuthenticationFailed")).await;
    logged_403(&visionary).await;
    all_are_stored_later(&visionary, outcomes).await;
}

/// The tables use the same key, so the quota cannot be read and nothing is drawn.
#[tokio::test]
async fn the_account_key_is_wrong() {
    let wrong = azurite().connection_string().replace("Eby8", "Eby9");
    let visionary = Setup::default().set("AzureWebJobsStorage", wrong).start().await;

    for (way, outcome) in request_at_once(&visionary, &Way::ALL).await {
        let quota_fails = End::failed(503, "quota_unavailable");
        // The claim of the idempotency key, or the record of the job, may fail first.
        let storage_fails = End::failed(503, "storage_unavailable");
        let writes_first = way == Way::Keyed || way.is_queued();
        let is_expected = outcome.end == quota_fails || writes_first && outcome.end == storage_fails;
        assert!(is_expected, "{way:?} ended in {:?}", outcome.end);
    }

    assert!(visionary.openai.requests(Endpoint::Images).is_empty());
    logged_403(&visionary).await;
}

#[tokio::test]
async fn the_container_is_missing() {
    let visionary = setup().start().await;

    for (way, outcome) in request_at_once(&visionary, &Way::ALL).await {
        assert_eq!(outcome.end, End::Stored, "{way:?}");
    }

    accounted_as(&visionary, Counts::of_images(5), "after all ways").await;
}

/// The line loses one answer only, so the ways run one after the other.
#[tokio::test]
async fn the_answer_to_a_successful_upload_is_lost() {
    let visionary = with_an_earlier_fox().await;

    for (before, way) in Way::ALL.into_iter().enumerate() {
        let outcomes = draw_while(&visionary, &[way], Line::LosesOneAnswer).await;
        assert_eq!(outcomes[0].1.end, End::Stored, "{way:?}");
        accounted_as(&visionary, Counts::of_images(before + 2), &format!("after {way:?}")).await;
    }

    are_undamaged(&visionary).await;
}

/// A rejected outcome would be rejected again: the image must not be uploaded for ever.
#[tokio::test]
async fn an_outcome_that_the_table_rejects_is_logged_once_and_the_sweep_ends_the_generation() {
    let (table, storage) = with_faults_before(azurite().table_port()).await;
    let visionary = Setup::default().set("AzureWebJobsStorage", storage).start().await;
    let hold = visionary.hold_next_image();
    let image = visionary.post("a fox").spawn();
    hold.reached(1).await;

    table.set(Line::Answers(413, "RequestBodyTooLarge"));
    hold.release();
    assert_eq!(image.await.expect("an answer").status, 200);
    let rejections = || visionary.host.logs().iter().filter(|line| line.text.contains("outcome_rejected")).count();
    eventually("the rejection is logged", async || rejections(), |count| *count > 0).await;
    eventually("the spool is empty", async || visionary.spool(), Vec::is_empty).await;
    table.set(Line::Whole);

    assert_eq!(visionary.accounted().await["images"], 1);
    assert_eq!(rejections(), 1);
    let recovered = visionary.host.logs().iter().any(|line| line.text.contains("spooled_image_uploaded"));
    assert!(!recovered, "the image was uploaded again");
}
