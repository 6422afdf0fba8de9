//! A row of the fault matrix: a fault meets each of the five ways to ask. The row says what the caller is
//! told, how often the provider was asked to draw, how many images it drew, how many are in the gallery
//! afterwards, and how many count against the quota. Nothing stays reserved.

use std::time::Duration;

use devkit::stand_ins::host::LogLine;
use devkit::stand_ins::openai::{Endpoint, OpenAi};

use crate::harness::{Setup, Visionary, eventually};
use crate::ways::{End, Way};

/// What one request comes to, or several.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counts {
    /// How often the provider was asked to draw.
    pub(crate) asked: usize,
    /// Images that the provider drew.
    pub(crate) drawn: usize,
    /// Images in the gallery.
    pub(crate) listed: usize,
    /// Images that count against the quota: those stored, and those that may have been drawn and lost.
    pub(crate) used: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) end: End,
    pub(crate) counts: Counts,
}

/// An image, after so many requests to the provider.
pub(crate) fn stored(asked: usize) -> Wanted {
    Wanted { end: End::Stored, counts: Counts { asked, drawn: 1, listed: 1, used: 1 } }
}

/// No image, and nothing was paid.
pub(crate) fn failed(status: u16, code: &str, asked: usize) -> Wanted {
    Wanted { end: End::failed(status, code), counts: Counts { asked, ..Counts::default() } }
}

/// No image, and one was drawn, or may have been: the provider is not asked again, and the image
/// counts.
pub(crate) fn lost(status: u16, code: &str, drawn: usize) -> Wanted {
    Wanted { end: End::failed(status, code), counts: Counts { asked: 1, drawn, listed: 0, used: 1 } }
}

/// Failed deliveries come again at once, unless the handler itself says when.
pub(crate) fn setup() -> Setup {
    Setup { queues: true, ..Setup::default() }
        .set("AzureFunctionsJobHost__extensions__queues__visibilityTimeout", "00:00:00")
}

pub(crate) fn with_lines() -> Setup {
    Setup { lines: true, ..setup() }
}

/// One request in each of these ways, one after the other, each after the same script.
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
        assert_eq!(way.ask(&visionary).await.end, wanted.end, "{way:?}");
        counts = counts.and(wanted.counts);
        accounted_as(&visionary, counts, &format!("after {way:?}")).await;
    }
    visionary
}

/// Waits until nothing is reserved, then at most 10 seconds for the counts: a reservation's money and its
/// image are given back at the same time, and either may be first.
pub(crate) async fn accounted_as(visionary: &Visionary, wanted: Counts, when: &str) {
    visionary.accounted().await;
    let look = async || (Counts::of(visionary).await == wanted).then_some(());
    let came = tokio::time::timeout(Duration::from_secs(10), eventually(look)).await;
    if came.is_err() {
        assert_eq!(Counts::of(visionary).await, wanted, "{when}");
    }
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

    /// So many images, for each of which the provider was asked once.
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

// What the rows need of the log is here, so that its words are in one place.

/// Resolves when so many such lines have been written.
async fn logged(visionary: &Visionary, count: usize, what: &str, wanted: impl Fn(&LogLine) -> bool) {
    let logged = visionary.host.wait_for_logs(count, wanted);
    tokio::time::timeout(Duration::from_secs(60), logged).await.unwrap_or_else(|_| panic!("not logged: {what}"));
}

pub(crate) fn tells_of_no_connection(line: &LogLine) -> bool {
    line.text.contains("the provider cannot be reached")
}

/// Resolves when three tries have not reached the provider; `before` is how many lines said so earlier.
/// The first two tries are always logged. The third comes within a second after that, and is waited for
/// 3 seconds where it is not logged.
pub(crate) async fn unreachable(visionary: &Visionary, before: usize) {
    logged(visionary, before + 2, "two tries", tells_of_no_connection).await;
    let third = visionary.host.wait_for_logs(before + 3, tells_of_no_connection);
    let _ = tokio::time::timeout(Duration::from_secs(3), third).await;
}

/// Resolves when an image in the spool could not be stored once more.
pub(crate) async fn tried_again(visionary: &Visionary) {
    logged(visionary, 1, "another try", |line| line.text.contains("cannot be stored yet")).await;
}

pub(crate) async fn told_the_operator_of_403(visionary: &Visionary) {
    logged(visionary, 1, "an error with the status", |line| line.text.contains("ERROR") && line.text.contains("403"))
        .await;
}
