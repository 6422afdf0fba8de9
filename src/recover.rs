//! Brings what is in the spool to the gallery: what an earlier process left behind, and what could
//! not be uploaded when it was drawn.

use std::time::Duration;

use crate::app::App;
use crate::azure;
use crate::gallery::{Details, Stored};
use crate::logs::chain;
use crate::spool;

/// Between tries while something is left; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Goes on until it is dropped.
pub async fn run(app: &App) {
    let mut pause = FIRST_PAUSE;
    loop {
        // Another process on the same folder may die at any time, so an empty one is looked at, too.
        let left = once(app).await;
        pause = if left { (pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
        let wait = if left { pause } else { LONGEST_PAUSE };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = app.left_behind.notified() => pause = FIRST_PAUSE,
        }
    }
}

/// One try for each entry; whether any is left.
pub async fn once(app: &App) -> bool {
    let ids = match app.spool.left_behind().await {
        Ok(ids) => ids,
        Err(error) => {
            tracing::error!(cause = chain(&error), "the spool cannot be read");
            return true;
        }
    };
    let mut left = false;
    for id in ids {
        left |= one(app, &id).await;
    }
    left
}

/// One try for one entry; whether it is left.
pub(crate) async fn one(app: &App, id: &str) -> bool {
    let (image, details) = match app.spool.get(id).await {
        Ok(Some(entry)) => entry,
        // Another process was faster.
        Ok(None) => return false,
        Err(error @ spool::Error::Damaged) => {
            tracing::error!(cause = chain(&error), image.id = id, "a file in the spool is left where it is");
            app.spool.pass_over(id);
            return false;
        }
        Err(error) => {
            tracing::error!(cause = chain(&error), image.id = id, "a picture in the spool cannot be read");
            return true;
        }
    };
    // Stored again by another process it is still one picture: the gallery compares the id.
    let stored = match app.gallery.store(&image, &details).await {
        Ok(stored) => stored,
        Err(error) => {
            tracing::warn!(cause = chain(&error), image.id = id, "a picture in the spool cannot be stored yet");
            return true;
        }
    };
    tracing::info!(image.id = id, "a picture was stored after all");
    if let Err(error) = tell(app, &details, &stored).await {
        tracing::warn!(cause = chain(&error), image.id = id, "nobody knows of a recovered picture yet");
        return true;
    }
    if let Err(error) = app.spool.remove(id).await {
        tracing::error!(cause = chain(&error), image.id = id, "a stored picture cannot be removed from the spool");
        return true;
    }
    false
}

/// Tells whoever waits for it, and settles its reservation.
async fn tell(app: &App, details: &Details, stored: &Stored) -> Result<(), azure::Error> {
    if let Some(claim) = &details.claim {
        app.claims.ended_after_all(claim, &details.id, stored.clone()).await?;
    }
    app.jobs.done_after_all(&details.id, stored).await?;
    settle(app, details).await
}

async fn settle(app: &App, details: &Details) -> Result<(), azure::Error> {
    match (&details.bill, &details.cost) {
        (Some(bill), Some(cost)) => app.quota.settle(bill, &details.model, cost).await,
        _ => Ok(()),
    }
}
