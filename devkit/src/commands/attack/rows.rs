//! The attacks. Each starts a handler of its own.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use devkit::stand_ins::azurite::Azurite;
use devkit::stand_ins::openai::Endpoint;
use devkit::{memory, table};
use futures_util::future::{BoxFuture, join_all};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::load::{attacker, flood, name};
use super::target::{Stage, Target, new_container};
use super::{Report, Row, measure};

type Attack = fn(&Stage) -> BoxFuture<'_, anyhow::Result<Row>>;

/// The name of each attack.
pub(super) const ATTACKS: [(&str, Attack); 10] = [
    ("no attack", |stage| no_attack(stage).boxed()),
    ("expired rows", |stage| expired_rows(stage).boxed()),
    ("listings, 20 at once", |stage| listings(stage, 20).boxed()),
    ("listings, 100 at once", |stage| listings(stage, 100).boxed()),
    ("listings that are not read", |stage| unread_listings(stage).boxed()),
    ("silent connections", |stage| silent_connections(stage).boxed()),
    ("event streams of one job", |stage| streams_of_one_job(stage).boxed()),
    ("jobs made and cancelled", |stage| jobs(stage).boxed()),
    ("calls of the text model", |stage| texts(stage).boxed()),
    ("refused prompts", |stage| refused_prompts(stage).boxed()),
];

/// The blobs of the gallery in the attacks on getImages.
const BLOBS: usize = 100_000;
/// Generations that have expired, and the bytes of each.
const EXPIRED: (usize, usize) = (20_000, 32_000);
/// The time limit for each wait.
const WITHIN: Duration = Duration::from_secs(15 * 60);
/// The time for which a rate is measured.
const WINDOW: Duration = Duration::from_secs(20);
/// The limits of `docs/settings.md` and `docs/security.md` that the attacks must not pass.
const DAILY_JOBS: usize = 100;
const DAILY_REFUSALS: usize = 20;
const TEXTS_A_MINUTE: usize = 10;
const MAX_STREAMS: usize = 500;
/// Requests at once, of the attacks with many small requests.
const AT_ONCE: usize = 16;

/// The times of the well-behaved caller alone.
async fn no_attack(stage: &Stage) -> anyhow::Result<Row> {
    let target = Target::start(stage).await?;
    let attack = async |_: &Target| {
        tokio::time::sleep(WINDOW).await;
        Ok(Report { attack: "none, for 20 s".to_owned(), ..Report::default() })
    };
    Ok(measure(target, attack).await)
}

/// A crash loop, if a deletion of expired rows needs the memory of all rows.
async fn expired_rows(stage: &Stage) -> anyhow::Result<Row> {
    // The rows make Azurite slow, also for later attacks.
    let azurite = tokio::task::spawn_blocking(Azurite::start).await??;
    let (storage, container) = (azurite.connection_string(), new_container());
    let (count, bytes) = EXPIRED;
    table::add_expired(&storage, &container, count, bytes).await?;
    let target = Target::start_with(stage, &storage, &container, None).await?;
    let attack = async |target: &Target| {
        let idle = memory::resident_bytes(target.handler.pid())?;
        let started = Instant::now();
        while table::has_expired(&storage, &container).await? {
            anyhow::ensure!(started.elapsed() < WITHIN, "expired rows are left after {WITHIN:?}");
            anyhow::ensure!(memory::peak_bytes(target.handler.pid()).is_ok(), "the handler has ended");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let mut report = Report {
            attack: format!("{count} expired generations of {} KB in the table", bytes / 1_000),
            ..Report::default()
        };
        let grown = memory::peak_bytes(target.handler.pid())?.saturating_sub(idle) / 1_000_000;
        report.expect(
            grown < 50,
            format!("deleted within {} s, with {grown} MB more than idle", started.elapsed().as_secs()),
        );
        Ok(report)
    };
    Ok(measure(target, attack).await)
}

/// Many callers that ask for a large gallery again and again.
async fn listings(stage: &Stage, at_once: usize) -> anyhow::Result<Row> {
    const ROUNDS: usize = 10;
    let target = Target::with_gallery(stage, BLOBS).await?;
    let attack = async |target: &Target| {
        let url = format!("{}/api/getImages", target.handler.url);
        let answers = flood((0..at_once * ROUNDS).map(|_| attacker().get(&url)), at_once).await;
        let attack = format!("{} listings of {BLOBS} images, {at_once} at once", at_once * ROUNDS);
        let mut report = Report { attack, ..Report::default() };
        let expected = answers.count("200") + answers.count("503 busy");
        report.answers = answers;
        if report.answers.count("200") == 0 || expected < report.answers.all() {
            report.failures.push(format!("answers: {}", report.answers));
        }
        Ok(report)
    };
    Ok(measure(target, attack).await)
}

/// Clients that ask for a large gallery and read nothing.
async fn unread_listings(stage: &Stage) -> anyhow::Result<Row> {
    const CLIENTS: usize = 40;
    let target = Target::with_gallery(stage, BLOBS).await?;
    let attack = async |target: &Target| {
        let pid = target.handler.pid();
        let before = memory::open_files(pid)?;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = connect(target).await?;
            client.write_all(b"GET /api/getImages HTTP/1.1\r\nHost: x\r\n\r\n").await?;
            clients.push(client);
        }
        let started = Instant::now();
        while memory::open_files(pid)? < before + CLIENTS {
            anyhow::ensure!(started.elapsed() < WITHIN, "the connections are not accepted");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let started = Instant::now();
        // The well-behaved caller opens a few connections meanwhile.
        while memory::open_files(pid)? > before + CLIENTS / 2 {
            anyhow::ensure!(started.elapsed() < WITHIN, "the connections are not closed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let attack = format!("{CLIENTS} clients that ask for {BLOBS} images and read nothing");
        let mut report = Report { attack, ..Report::default() };
        let seconds = started.elapsed().as_secs();
        report.expect(seconds < 120, format!("disconnected after {seconds} s"));
        Ok(report)
    };
    Ok(measure(target, attack).await)
}

/// Connections that send nothing, or half of a request's head.
async fn silent_connections(stage: &Stage) -> anyhow::Result<Row> {
    const CONNECTIONS: usize = 1_100;
    /// The system queues some connections that the handler has not accepted, and ignores further ones.
    const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
    let target = Target::start(stage).await?;
    let attack = async |target: &Target| {
        let idle = memory::open_files(target.handler.pid())?;
        let opening = (0..CONNECTIONS).map(|number| async move {
            let mut connection = tokio::time::timeout(CONNECTED_WITHIN, connect(target)).await.ok()?.ok()?;
            if number % 2 == 0 {
                connection.write_all(b"POST /api/generateImage HTTP/1.1\r\nHost: x\r\n").await.ok()?;
            }
            Some(connection)
        });
        let connections: Vec<TcpStream> = join_all(opening).await.into_iter().flatten().collect();
        let mut report = Report {
            attack: format!("{CONNECTIONS} connections with half a head or nothing, 1,024 files allowed"),
            ..Report::default()
        };
        let started = Instant::now();
        let newcomer = reqwest::Client::builder().connect_timeout(CONNECTED_WITHIN).build()?;
        let url = format!("{}/api/getImages", target.handler.url);
        while !newcomer.get(&url).send().await.is_ok_and(|answer| answer.status() == 200) {
            anyhow::ensure!(started.elapsed() < WITHIN, "a new client gets no answer");
        }
        let waited = started.elapsed().as_secs();
        report.expect(waited < 100, format!("a new client is answered after {waited} s"));
        // The handler knows nothing of a connection that the system did not queue.
        while memory::open_files(target.handler.pid())? > idle + 20 {
            anyhow::ensure!(started.elapsed() < WITHIN, "connections are not closed");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let seconds = started.elapsed().as_secs();
        report.expect(seconds < 200, format!("{} were opened, all closed after {seconds} s", connections.len()));
        Ok(report)
    };
    Ok(measure(target, attack).await)
}

/// Many event streams of a job that no process draws.
async fn streams_of_one_job(stage: &Stage) -> anyhow::Result<Row> {
    const STREAMS: usize = 1_000;
    let target = Target::start(stage).await?;
    let attack = async |target: &Target| {
        let job = make_job(target).await?;
        let rate = async || {
            let before = target.table.requests();
            tokio::time::sleep(WINDOW).await;
            (target.table.requests() - before) as u64 / WINDOW.as_secs()
        };
        let alone = rate().await;
        let open = (0..STREAMS).map(|number| {
            let request = attacker().get(format!("{}{job}", target.handler.url));
            // Each of 20 callers opens 50.
            request.header("x-user", format!("caller {}", number % 20)).header("accept", "text/event-stream").send()
        });
        let open: Vec<_> = stream::iter(open).buffer_unordered(AT_ONCE).collect().await;
        let mut report = Report {
            attack: format!("{STREAMS} event streams of one job in the queue, by 20 callers"),
            ..Report::default()
        };
        let mut held = Vec::new();
        for answer in open {
            match answer {
                Ok(answer) => {
                    report.answers.add(&name(&answer));
                    if answer.status() == 200 {
                        held.push(answer);
                    }
                }
                Err(_) => report.answers.add("no answer"),
            }
        }
        let watched = rate().await;
        report.expect(
            // A poller for each stream would add hundreds; the well-behaved caller's own requests vary.
            held.len() <= MAX_STREAMS && watched <= alone + 20,
            format!("{watched} requests a second to the table, {alone} without the streams"),
        );
        Ok(report)
    };
    Ok(measure(target, attack).await)
}

/// One caller makes jobs and cancels each at once.
async fn jobs(stage: &Stage) -> anyhow::Result<Row> {
    const JOBS: usize = 10_000;
    let target = Target::start(stage).await?;
    let attack = async |target: &Target| {
        let http = attacker();
        let made = stream::iter(0..JOBS).map(|_| async {
            let Ok(answer) = job_request(target).send().await else { return ("no answer".to_owned(), false) };
            let name = name(&answer);
            let Ok(body) = answer.json::<Value>().await else { return (name, false) };
            let Some(job) = body["statusUrl"].as_str() else { return (name, false) };
            let cancelled = http.delete(format!("{}{job}", target.handler.url)).send().await;
            (name, cancelled.is_ok_and(|answer| answer.status() == 200))
        });
        let made: Vec<_> = made.buffer_unordered(AT_ONCE).collect().await;
        let mut report =
            Report { attack: format!("{JOBS} jobs made and cancelled by one caller"), ..Report::default() };
        for (name, _) in &made {
            report.answers.add(name);
        }
        let cancelled = made.iter().filter(|(_, is_cancelled)| *is_cancelled).count();
        let accepted = report.answers.count("202");
        report.expect(accepted <= DAILY_JOBS, format!("{cancelled} cancelled"));
        Ok(report)
    };
    Ok(measure(target, attack).await)
}

/// One caller, then many callers, ask for suggestions on ever new topics.
async fn texts(stage: &Stage) -> anyhow::Result<Row> {
    const CALLS: usize = 10_000;
    let target = Target::start(stage).await?;
    let attack = async |target: &Target| {
        let mut report = Report {
            attack: format!("{CALLS} suggestions for a topic by one caller, then by {CALLS} callers"),
            ..Report::default()
        };
        for is_one in [true, false] {
            let before = target.openai.requests(Endpoint::Responses).len();
            let started = Instant::now();
            let calls = (0..CALLS).map(|number| {
                let user = if is_one { "mallory".to_owned() } else { format!("caller {number}") };
                let url = format!("{}/api/getChatGPTSuggestion?about={number}", target.handler.url);
                target.handler.http.get(url).header("x-user", user)
            });
            for (answer, count) in flood(calls, AT_ONCE).await.0 {
                *report.answers.0.entry(answer).or_default() += count;
            }
            let minutes = usize::try_from(started.elapsed().as_secs() / 60)? + 1;
            let asked = target.openai.requests(Endpoint::Responses).len() - before;
            report.expect(
                !is_one || asked <= TEXTS_A_MINUTE * minutes,
                format!("{asked} calls of the text model for {}", if is_one { "the one" } else { "the many" }),
            );
        }
        Ok(report)
    };
    Ok(measure(target, attack).await)
}

/// One caller sends prompts that the provider refuses.
async fn refused_prompts(stage: &Stage) -> anyhow::Result<Row> {
    const PROMPTS: usize = 10_000;
    let target = Target::start(stage).await?;
    let attack = async |target: &Target| {
        let prompts = (0..PROMPTS).map(|number| generate(target, "mallory", &format!("forbidden {number}")));
        let answers = flood(prompts, AT_ONCE).await;
        let asked = target.openai.requests(Endpoint::Images);
        let asked = asked.iter().filter(|request| request.body.to_string().contains("forbidden")).count();
        let attack = format!("{PROMPTS} prompts by one caller that the provider refuses");
        let mut report = Report { attack, answers, ..Report::default() };
        // Requests that are under way when the limit is reached may still be refused.
        report.expect(asked <= DAILY_REFUSALS + AT_ONCE, format!("the provider was asked {asked} times"));
        Ok(report)
    };
    Ok(measure(target, attack).await)
}

fn generate(target: &Target, user: &str, prompt: &str) -> RequestBuilder {
    let request = target.handler.http.post(format!("{}/api/generateImage", target.handler.url));
    request.header("x-user", user).json(&json!({"prompt": prompt}))
}

/// A request for a job. Without a host nothing delivers it, so it stays in the queue.
fn job_request(target: &Target) -> RequestBuilder {
    generate(target, "mallory", "a fox").header("prefer", "respond-async")
}

/// Makes a job and returns its path.
async fn make_job(target: &Target) -> anyhow::Result<String> {
    let answer: Value = job_request(target).send().await?.error_for_status()?.json().await?;
    Ok(answer["statusUrl"].as_str().context("a job has no statusUrl")?.to_owned())
}

async fn connect(target: &Target) -> anyhow::Result<TcpStream> {
    let address = target.handler.url.trim_start_matches("http://");
    Ok(TcpStream::connect(address).await?)
}
