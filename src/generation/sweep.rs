//! The sweep: ends generations whose process has died, and jobs that are too old. One process at a time
//! sweeps. Each drawing process renews a lease, which shows that the process is alive.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::commit::Patience;
use super::deliver::LONGEST_IN_QUEUE;
use super::generations::Generations;
use super::outcome::Failure;
use super::record::{Address, Event};
use super::records::RENEWED_EVERY;
use super::rows::{CREATED_AT, PROCESS, STATUS, Work, timestamp};
use crate::azure::{self, Query};
use crate::logs::chain;
use crate::spending::Day;

/// The pause between two sweeps.
const SWEPT_EVERY: Duration = Duration::from_secs(60);
/// A sweep reads the generations of today and of this number of earlier days. Older rows are deleted.
const EARLIER_DAYS: u16 = 2;
/// How long a process is the one that sweeps, if it does not renew that.
pub(super) const SWEEP_LEASE: Duration = Duration::from_secs(120);
const WRITTEN_WITHIN: Patience = Patience::For(Duration::from_secs(10));

impl Generations {
    /// Renews the lease and sweeps until the future is dropped. An idle app makes no storage calls.
    pub(crate) async fn keep_sweeping(&self) {
        // Two concurrent loops, because a sweep may take longer than the lease lasts.
        tokio::join!(self.renew_while_drawing(), self.sweep_while_needed());
    }

    async fn renew_while_drawing(&self) {
        loop {
            if self.watches.is_drawing_any()
                && let Err(error) = self.records.renew(self.now()).await
            {
                tracing::warn!(
                    event = "lease_not_renewed",
                    cause = chain(&error),
                    delay_s = RENEWED_EVERY.as_secs(),
                    "this process could not renew its lease; it tries again after the delay"
                );
            }
            tokio::time::sleep(RENEWED_EVERY).await;
        }
    }

    async fn sweep_while_needed(&self) {
        let mut is_needed = true;
        loop {
            is_needed |= self.watches.is_drawing_any() || self.has_added.swap(false, Ordering::Relaxed);
            if is_needed {
                is_needed = match self.sweep().await {
                    Ok(open) => open > 0,
                    Err(error) => {
                        tracing::warn!(
                            event = "sweep_failed",
                            cause = chain(&error),
                            delay_s = SWEPT_EVERY.as_secs(),
                            "the sweep of open generations failed; the next one follows after the delay"
                        );
                        true
                    }
                };
            }
            tokio::time::sleep(SWEPT_EVERY).await;
        }
    }

    /// Checks each open generation once. Returns the number of open generations.
    async fn sweep(&self) -> Result<usize, azure::Error> {
        let now = self.now();
        let from = format!("generation-{}", Day::of(now).before(EARLIER_DAYS));
        let query = Query {
            condition: Some("Status ne 'ended'"),
            columns: &[STATUS, PROCESS, CREATED_AT],
            ..Query::rows(&from, "generation.")
        };
        let mut page = self.records.table().query(&query, None).await?;
        if page.rows.is_empty() && page.next.is_none() {
            return Ok(0);
        }
        if !self.take_lease(Work::Sweep, SWEEP_LEASE).await? {
            // Another process sweeps. A result above 0 keeps this process checking that the other one lives.
            return Ok(1);
        }
        let too_old = timestamp(now - LONGEST_IN_QUEUE);
        let mut dead: HashMap<String, bool> = HashMap::new();
        let mut open = 0;
        loop {
            for (row, columns) in &page.rows {
                let Some(address) = row.strip_prefix("generation-").and_then(Address::parse) else { continue };
                let column = |name: &str| columns.get(name).map(String::as_str).unwrap_or_default();
                open += 1;
                match column(STATUS) {
                    "queued" if column(CREATED_AT) < too_old.as_str() => {
                        let event = Event::GiveUp(Failure::TooOld);
                        self.records.advance(&address, event, WRITTEN_WITHIN).await.map_err(|gave_up| gave_up.cause)?;
                    }
                    "drawing" => {
                        if let Err(error) = self.sweep_drawing(&address, column(PROCESS), &mut dead).await {
                            tracing::warn!(
                                event = "generation_not_swept",
                                cause = chain(&error),
                                "an open generation could not be checked; the sweep goes on with the next one"
                            );
                        }
                    }
                    _ => {}
                }
            }
            let Some(next) = page.next.take() else { return Ok(open) };
            page = self.records.table().query(&query, Some(&next)).await?;
        }
    }

    /// Ends a drawing generation if its process has died. `dead` caches the result for each process.
    async fn sweep_drawing(
        &self,
        address: &Address,
        process: &str,
        dead: &mut HashMap<String, bool>,
    ) -> Result<(), azure::Error> {
        let is_dead = if process == self.records.process() {
            !self.is_drawn_here(address)
        } else if let Some(is_dead) = dead.get(process) {
            *is_dead
        } else {
            let is_dead = self.records.is_dead(process, self.now()).await?;
            dead.insert(process.to_owned(), is_dead);
            is_dead
        };
        if is_dead && let Some(found) = self.records.get(address).await? {
            self.end_if_process_died(found).await?;
        }
        Ok(())
    }
}
