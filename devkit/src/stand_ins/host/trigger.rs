//! Queue triggers. A message is sent to the handler as a JSON envelope. A delivery that fails is repeated
//! until the message goes to the poison queue.
//!
//! The rules are those of the host (<https://github.com/Azure/azure-functions-host>) and of the
//! [queue trigger](https://learn.microsoft.com/azure/azure-functions/functions-bindings-storage-queue-trigger).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{Level, LogLine, process};
use crate::queue::{Queue, Taken};

/// Pause before the next poll of an empty queue, and before the next look for a running handler.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// The log line for an empty answer, on which the real host waits until functionTimeout.
pub(super) const EMPTY_ANSWER: &str =
    "a queue function gave an empty answer: the real host would wait until functionTimeout";

/// A function with a queue trigger.
#[derive(Debug, Clone)]
pub(super) struct Trigger {
    pub(super) function: String,
    pub(super) binding: String,
    pub(super) queue: String,
    /// The app setting that holds the connection string.
    pub(super) connection: String,
}

/// The settings in `extensions.queues` of `host.json`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) batch_size: usize,
    pub(super) new_batch_threshold: usize,
    pub(super) max_dequeue_count: u64,
    pub(super) visibility_timeout: Duration,
}

impl Limits {
    /// Reads the settings. A missing one gets the host's default.
    pub(super) fn of(host: &Value) -> anyhow::Result<Self> {
        let queues = &host["extensions"]["queues"];
        let encoding = queues["messageEncoding"].as_str().unwrap_or("base64");
        anyhow::ensure!(encoding.eq_ignore_ascii_case("base64"), "messageEncoding is not base64");
        let number = |name: &str| queues[name].as_u64();
        let batch_size = number("batchSize").unwrap_or(16).clamp(1, 32);
        Ok(Self {
            batch_size: usize::try_from(batch_size)?,
            new_batch_threshold: usize::try_from(number("newBatchThreshold").unwrap_or(batch_size / 2))?,
            max_dequeue_count: number("maxDequeueCount").unwrap_or(5),
            visibility_timeout: duration(queues["visibilityTimeout"].as_str().unwrap_or("00:00:00"))?,
        })
    }
}

/// Parses `HH:MM:SS`.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let mut seconds = 0;
    for part in text.split(':') {
        seconds = seconds * 60 + part.parse::<u64>()?;
    }
    Ok(Duration::from_secs(seconds))
}

/// The handlers, for a round-robin choice.
#[derive(Debug)]
pub(super) struct Handlers {
    pub(super) states: Vec<watch::Receiver<process::State>>,
    /// Number of choices so far.
    pub(super) turn: AtomicUsize,
}

impl Handlers {
    /// The port of the next running handler.
    pub(super) fn next(&self) -> Option<u16> {
        let ports: Vec<u16> = self.states.iter().filter_map(|state| state.borrow().port).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        ports.get(turn % ports.len().max(1)).copied()
    }

    /// Waits for a running handler and returns its port.
    async fn port(&self) -> u16 {
        loop {
            match self.next() {
                Some(port) => return port,
                None => tokio::time::sleep(POLL_EVERY).await,
            }
        }
    }
}

/// Polls a queue and delivers its messages until the future is dropped.
pub(super) async fn listen(
    trigger: Trigger,
    (queue, poison): (Queue, Queue),
    limits: Limits,
    handlers: Arc<Handlers>,
    logs: watch::Sender<Vec<LogLine>>,
) {
    let http = reqwest::Client::new();
    // Each delivery sends once when it ends.
    let (ended, mut endings) = mpsc::unbounded_channel::<()>();
    let mut in_progress = 0;
    loop {
        while endings.try_recv().is_ok() {
            in_progress -= 1;
        }
        let batch = if in_progress > limits.new_batch_threshold {
            Vec::new()
        } else {
            queue.take(u8::try_from(limits.batch_size).unwrap_or(32)).await
        };
        if batch.is_empty() {
            tokio::select! {
                () = tokio::time::sleep(POLL_EVERY) => {}
                Some(()) = endings.recv() => in_progress -= 1,
            }
            continue;
        }
        for taken in batch {
            in_progress += 1;
            let (trigger, queue, poison, http) = (trigger.clone(), queue.clone(), poison.clone(), http.clone());
            let (handlers, logs, ended) = (Arc::clone(&handlers), logs.clone(), ended.clone());
            tokio::spawn(async move {
                match invoke(&http, &handlers, &trigger, &taken).await {
                    Answer::Done => queue.delete(&taken).await,
                    Answer::Empty => {
                        let line = LogLine { level: Level::Error, text: EMPTY_ANSWER.to_owned() };
                        logs.send_modify(|all| all.push(line));
                        std::future::pending::<()>().await;
                    }
                    Answer::Failed if taken.deliveries >= limits.max_dequeue_count => {
                        if poison.put(&taken.text).await.is_ok() {
                            queue.delete(&taken).await;
                        }
                    }
                    Answer::Failed => queue.give_back(&taken, limits.visibility_timeout).await,
                }
                let _ = ended.send(());
            });
        }
    }
}

enum Answer {
    Done,
    Empty,
    Failed,
}

async fn invoke(http: &reqwest::Client, handlers: &Handlers, trigger: &Trigger, taken: &Taken) -> Answer {
    // The host puts a text into the envelope as a JSON string that contains JSON.
    let data = json!({trigger.binding.as_str(): json!(taken.text).to_string()});
    let metadata = json!({
        "DequeueCount": taken.deliveries.to_string(),
        "Id": json!(taken.message.message_id).to_string(),
        "QueueTrigger": json!(taken.text).to_string(),
        "sys": {"MethodName": trigger.function},
    });
    let envelope = json!({"Data": data, "Metadata": metadata});
    let id = format!("00000000-0000-4000-9000-{:012x}", fastrand::u32(..));
    let answer = loop {
        let url = format!("http://127.0.0.1:{}/{}", handlers.port().await, trigger.function);
        match http.post(url).header("x-azure-functions-invocationid", &id).json(&envelope).send().await {
            Ok(answer) => break answer,
            // The handler has just ended. The host delivers nothing until a handler runs.
            Err(error) if error.is_connect() => tokio::time::sleep(POLL_EVERY).await,
            Err(_) => return Answer::Failed,
        }
    };
    if !answer.status().is_success() {
        return Answer::Failed;
    }
    let is_json = answer
        .headers()
        .get("content-type")
        .is_some_and(|content_type| content_type.as_bytes().starts_with(b"application/json"));
    let Ok(body) = answer.bytes().await else { return Answer::Failed };
    match serde_json::from_slice::<Value>(&body) {
        Ok(Value::Null) => Answer::Empty,
        Ok(Value::Object(_)) if is_json => Answer::Done,
        Err(_) if body.is_empty() => Answer::Empty,
        _ => Answer::Failed,
    }
}
