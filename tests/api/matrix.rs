//! A row of the fault matrix: one fault and the five ways to request an image. The row states the
//! caller's outcome, the provider's draw requests and images, the images in the gallery, and the images
//! that count against the quota. Nothing stays reserved.

use std::time::Duration;

use devkit::stand_ins::host::LogLine;
use devkit::stand_ins::openai::{Endpoint, OpenAi};

use crate::harness::{Setup, Visionary, eventually_within};
use crate::ways::{End, Way};

/// The sums after one or more requests.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counts {
    /// Draw requests to the provider.
    pub(crate) asked: usize,
    /// Images that the provider drew.
    pub(crate) drawn: usize,
    /// Images in the gallery.
    pub(crate) listed: usize,
    /// Images that count against the quota: the stored ones, and those that may be drawn and lost.
    pub(crate) used: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) end: End,
    pub(crate) counts: Counts,
}

/// The image is stored after this number of draw requests.
pub(crate) fn stored(asked: usize) -> Wanted {
    Wanted { end: End::Stored, counts: Counts { asked, drawn: 1, listed: 1, used: 1 } }
}

/// There is no image and no cost.
pub(crate) fn failed(status: u16, code: &str, asked: usize) -> Wanted {
    Wanted { end: End::failed(status, code), counts: Counts { asked, ..Counts::default() } }
}

/// There is no image, but the provider has drawn one or may have. The app does not request another one,
/// and the image counts.
pub(crate) fn lost(status: u16, code: &str, drawn: usize) -> Wanted {
    Wanted { end: End::failed(status, code), counts: Counts { asked: 1, drawn, listed: 0, used: 1 } }
}

/// The host delivers a failed message again at once, unless the handler delays it.
pub(crate) fn setup() -> Setup {
    Setup { queues: true, ..Setup::default() }
        .set("AzureFunctionsJobHost__extensions__queues__visibilityTimeout", "00:00:00")
}

pub(crate) fn with_lines() -> Setup {
    Setup { lines: true, ..setup() }
}

/// Sends one request in each of these ways, one after the other. The provider replies to each by the
/// same script.
pub(crate) async fn run(
    setup: Setup,
    ways: &[Way],
    script: impl Fn(&OpenAi),
    wanted: impl Fn(Way) -> Wanted,
) -> Visionary {
    let visionary = setup.start().await;
    let mut counts = Counts::default();
    for way in ways {
        script(&visionary.openai);
        let wanted = wanted(*way);
        assert_eq!(way.request(&visionary).await.end, wanted.end, "{way:?}");
        counts = counts.and(wanted.counts);
        accounted_as(&visionary, counts, &format!("after {way:?}")).await;
    }
    visionary
}

/// Waits until nothing is reserved, then at most 10 s for the counts: the money and the image of a
/// reservation are given back in parallel.
pub(crate) async fn accounted_as(visionary: &Visionary, wanted: Counts, when: &str) {
    visionary.accounted().await;
    let what = format!("{when} the counts are {wanted:?}");
    let look = async || Counts::of(visionary).await;
    eventually_within(Duration::from_secs(10), &what, look, |counts| *counts == wanted).await;
}

impl Counts {
    async fn of(visionary: &Visionary) -> Self {
        Self {
            asked: visionary.openai.requests(Endpoint::Images).len(),
            drawn: visionary.openai.images_drawn().len(),
            listed: visionary.list().await.len(),
            used: visionary.get("/api/quota").await.json()["used"].as_u64().expect("a number"),
        }
    }

    /// Stored images that took one draw request each.
    pub(crate) fn of_images(count: usize) -> Self {
        Self { asked: count, drawn: count, listed: count, used: count as u64 }
    }

    pub(crate) fn and(self, more: Self) -> Self {
        Self {
            asked: self.asked + more.asked,
            drawn: self.drawn + more.drawn,
            listed: self.listed + more.listed,
            used: self.used + more.used,
        }
    }
}

// All log lines that the rows wait for are here.

/// Resolves when this number of such lines is in the log.
async fn logged(visionary: &Visionary, count: usize, what: &str, wanted: impl Fn(&LogLine) -> bool) {
    let logged = visionary.host.wait_for_logs(count, wanted);
    tokio::time::timeout(Duration::from_secs(60), logged).await.unwrap_or_else(|_| panic!("not logged: {what}"));
}

pub(crate) fn is_unreachable(line: &LogLine) -> bool {
    line.text.contains("the provider cannot be reached")
}

/// Resolves when three tries have not reached the provider; `before` is the number of such lines from
/// earlier requests. The first two tries are always logged. The third follows within 1 s and may not be
/// logged, so this waits at most 3 s for it.
pub(crate) async fn unreachable(visionary: &Visionary, before: usize) {
    logged(visionary, before + 2, "two tries", is_unreachable).await;
    let third = visionary.host.wait_for_logs(before + 3, is_unreachable);
    let _ = tokio::time::timeout(Duration::from_secs(3), third).await;
}

/// Resolves when an upload from the spool has failed again.
pub(crate) async fn tried_again(visionary: &Visionary) {
    logged(visionary, 1, "another try", |line| line.text.contains("spooled_image_not_uploaded")).await;
}

/// Resolves when the log has an error with the status 403 for the operator.
pub(crate) async fn logged_403(visionary: &Visionary) {
    logged(visionary, 1, "an error with the status", |line| line.text.contains("ERROR") && line.text.contains("403"))
        .await;
}
