//! Looks after what nobody holds: says that this process is alive while it draws, and, in one process
//! at a time, ends generations whose process has died and jobs that are too old.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::commit::Patience;
use super::deliver::LONGEST_IN_QUEUE;
use super::generations::Generations;
use super::outcome::Failure;
use super::record::{Address, Event};
use super::records::RENEWED_EVERY;
use super::rows::{CREATED_AT, PROCESS, STATUS, timestamp};
use crate::azure::{self, Query};
use crate::logs::chain;
use crate::spending::Day;

/// Between two sweeps.
const SWEPT_EVERY: Duration = Duration::from_secs(60);
/// Generations of earlier days have gone.
const DAYS: u16 = 2;
const WRITTEN_WITHIN: Patience = Patience::For(Duration::from_secs(10));

impl Generations {
    /// Looks after things until it is dropped. An app that nobody uses asks storage for nothing.
    pub(crate) async fn keep_sweeping(&self) {
        // Beside each other, because a sweep may take longer than this process counts as alive.
        tokio::join!(self.keep_renewing(), self.keep_ending());
    }

    async fn keep_renewing(&self) {
        loop {
            if self.watches.is_drawing_any()
                && let Err(error) = self.records.renew(self.now()).await
            {
                tracing::warn!(cause = chain(&error), "this process could not say that it is alive");
            }
            tokio::time::sleep(RENEWED_EVERY).await;
        }
    }

    async fn keep_ending(&self) {
        let mut is_needed = true;
        loop {
            is_needed |= self.watches.is_drawing_any() || self.has_added.swap(false, Ordering::Relaxed);
            if is_needed {
                is_needed = match self.sweep().await {
                    Ok(open) => open > 0,
                    Err(error) => {
                        tracing::warn!(cause = chain(&error), "open generations cannot be looked after yet");
                        true
                    }
                };
            }
            tokio::time::sleep(SWEPT_EVERY).await;
        }
    }

    /// One look at every open generation; how many there were.
    async fn sweep(&self) -> Result<usize, azure::Error> {
        let now = self.now();
        let from = format!("generation-{}", Day::of(now).before(DAYS));
        let query = Query {
            from: &from,
            until: "generation.",
            condition: Some("Status ne 'ended'"),
            columns: &[STATUS, PROCESS, CREATED_AT],
        };
        let mut page = self.records.table().query(&query, None).await?;
        if page.rows.is_empty() && page.next.is_none() {
            return Ok(0);
        }
        if !self.records.become_sweeper(now).await.map_err(|gave_up| gave_up.cause)? {
            // Another process does it; whether it lives is seen next time.
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
                            // The others do not wait for this one.
                            tracing::warn!(cause = chain(&error), "a generation cannot be looked after yet");
                        }
                    }
                    _ => {}
                }
            }
            let Some(next) = page.next.take() else { return Ok(open) };
            page = self.records.table().query(&query, Some(&next)).await?;
        }
    }

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
