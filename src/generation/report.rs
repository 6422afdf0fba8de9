//! The log line of each attempt to draw an image, and its metrics.

use std::time::Duration;

use super::outcome::Outcome;
use super::record::Order;
use crate::logs;
use crate::spending::usd;

/// Logs the end of an attempt: what was drawn, what it cost, and how long it took. `outcome` is `None` for a failure
/// before the provider was asked.
pub(super) fn log(order: &Order, outcome: Option<&Outcome>, cause: Option<String>, took: Duration) {
    let (name, model, stored, cost, micro_usd) = match outcome {
        Some(Outcome::Stored { stored, cost }) => ("stored", &stored.model, Some(stored), Some(cost), cost.micro_usd),
        Some(Outcome::StoredLater { model, cost, .. }) => ("stored_later", model, None, Some(cost), cost.micro_usd),
        // A lost image counts at the most that it can have cost.
        Some(Outcome::Lost(_)) => ("lost", &order.model, None, None, order.most_cost),
        Some(Outcome::NotDrawn(_) | Outcome::Cancelled) | None => ("not_drawn", &order.model, None, None, 0),
    };
    let usage = cost.and_then(|cost| cost.usage);
    logs::count_image(name, model, usd(micro_usd));
    tracing::info!(
        event = "drawing_ended",
        image.id = order.image_id,
        outcome = name,
        model,
        size = stored.map(|stored| stored.size.as_str()),
        quality = stored.map(|stored| stored.quality.as_str()),
        cost_usd = usd(micro_usd),
        input_tokens = usage.map(|usage| usage.tokens().0),
        output_tokens = usage.map(|usage| usage.tokens().1),
        duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        cause,
        "an attempt to draw an image has ended"
    );
}
