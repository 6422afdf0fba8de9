//! A TCP proxy between the handler and a service. Tests make its connections fail.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// The listen backlog: connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// The proxy's behaviour. A change closes all open connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Connections reach the service.
    Whole,
    /// Connections are accepted and closed at once.
    Cut,
    /// Connections are refused, as on a port without a listener.
    Refused,
    /// Connections are accepted; nothing is read or sent.
    Stalled,
    /// Each read of the service's answer is delayed by this time.
    Slow(Duration),
    /// The service gets the next request, but its answer is lost. Then the line becomes [`Line::Whole`].
    LosesOneAnswer,
    /// The proxy answers every request itself, with this status and `x-ms-error-code`.
    Answers(u16, &'static str),
}

/// A running proxy. It ends when the value is dropped.
#[derive(Debug)]
pub struct Faults {
    port: u16,
    line: watch::Sender<Line>,
    requests: Arc<AtomicUsize>,
    connections: Arc<Connections>,
}

/// The connections of a proxy.
#[derive(Debug, Default)]
struct Connections {
    open: AtomicUsize,
    most: AtomicUsize,
}

/// An open connection. It counts until it is dropped.
struct OpenConnection(Arc<Connections>);

impl OpenConnection {
    fn new(connections: &Arc<Connections>) -> Self {
        let open = connections.open.fetch_add(1, Ordering::Relaxed) + 1;
        connections.most.fetch_max(open, Ordering::Relaxed);
        Self(Arc::clone(connections))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Faults {
    /// Starts a proxy before the port `upstream` on 127.0.0.1.
    ///
    /// # Errors
    /// Fails if no port can be bound.
    pub async fn before(upstream: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("the proxy cannot bind a port")?;
        let port = listener.local_addr()?.port();
        let line = watch::Sender::new(Line::Whole);
        let (requests, connections) = (Arc::default(), Arc::default());
        let counts = (Arc::clone(&requests), Arc::clone(&connections));
        tokio::spawn(accept(listener, upstream, line.clone(), line.subscribe(), counts));
        Ok(Self { port, line, requests, connections })
    }

    /// The proxy's port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The number of HTTP requests that passed through [`Line::Whole`].
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// The most connections that were open at the same time.
    pub fn most_connections(&self) -> usize {
        self.connections.most.load(Ordering::Relaxed)
    }

    /// Changes the behaviour and closes all open connections.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        // The connections' tasks own clones of the sender, so they would not notice the drop.
        self.line.send_replace(Line::Cut);
    }
}

async fn accept(
    mut listener: TcpListener,
    upstream: u16,
    set: watch::Sender<Line>,
    mut line: watch::Receiver<Line>,
    (requests, connections): (Arc<AtomicUsize>, Arc<Connections>),
) {
    loop {
        let now = *line.borrow_and_update();
        if now == Line::Refused {
            let Ok(again) = refuse_until_changed(listener, &mut line).await else { return };
            listener = again;
            continue;
        }
        let client = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                Err(_) => return,
            },
            _ = line.changed() => continue,
        };
        let (set, mut changes, requests) = (set.clone(), line.clone(), Arc::clone(&requests));
        let connection = OpenConnection::new(&connections);
        tokio::spawn(async move {
            let _connection = connection;
            tokio::select! {
                () = carry(client, upstream, now, set, &requests) => {}
                _ = changes.wait_for(|line| *line != now) => {}
            }
        });
    }
}

/// Refuses connections until the line changes. A socket that is bound but does not listen keeps the port
/// and refuses connections.
async fn refuse_until_changed(listener: TcpListener, line: &mut watch::Receiver<Line>) -> std::io::Result<TcpListener> {
    let address = listener.local_addr()?;
    drop(listener);
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    // The wait cannot fail: the calling task owns a sender.
    let _ = line.wait_for(|line| *line != Line::Refused).await;
    socket.listen(BACKLOG)
}

/// Serves one connection until either side closes it.
async fn carry(mut client: TcpStream, upstream: u16, line: Line, set: watch::Sender<Line>, requests: &AtomicUsize) {
    let service = TcpStream::connect(("127.0.0.1", upstream));
    match line {
        // With `Refused`, no connection is accepted.
        Line::Cut | Line::Refused => {}
        Line::Stalled => std::future::pending().await,
        Line::Whole => {
            let Ok(service) = service.await else { return };
            let ((from_client, mut to_client), (mut from_service, to_service)) = (client.split(), service.into_split());
            tokio::select! {
                _ = copy_counting(from_client, to_service, requests) => {}
                _ = copy(&mut from_service, &mut to_client) => {}
            }
        }
        Line::Slow(delay) => {
            let Ok(service) = service.await else { return };
            let ((mut from_client, mut to_client), (mut from_service, mut to_service)) =
                (client.split(), service.into_split());
            let answers = async {
                let mut bytes = vec![0; 64 * 1024];
                loop {
                    let length = from_service.read(&mut bytes).await?;
                    tokio::time::sleep(delay).await;
                    match bytes.get(..length) {
                        Some(read) if length > 0 => to_client.write_all(read).await?,
                        _ => return Ok::<_, std::io::Error>(()),
                    }
                }
            };
            tokio::select! {
                _ = copy(&mut from_client, &mut to_service) => {}
                _ = answers => {}
            }
        }
        Line::LosesOneAnswer => {
            let Ok(service) = service.await else { return };
            let ((mut from_client, _), (mut from_service, mut to_service)) = (client.split(), service.into_split());
            let mut first_byte = [0];
            tokio::select! {
                _ = copy(&mut from_client, &mut to_service) => {}
                _ = from_service.read(&mut first_byte) => { set.send_replace(Line::Whole); }
            }
        }
        Line::Answers(status, code) => {
            let answer = move |request: Request<Incoming>| async move {
                // Some clients fail if their request body is not read before the answer.
                let _ = request.into_body().collect().await;
                let response = Response::builder().status(status).header("x-ms-error-code", code);
                Ok::<_, Infallible>(response.body(Body::empty()).unwrap_or_default())
            };
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(client), hyper::service::service_fn(answer)).await;
        }
    }
}

/// Copies the client's bytes and counts its requests by their request lines. A request line may directly
/// follow the body of the previous request. The operations of a Table Storage transaction have absolute
/// URLs, so they are not counted.
async fn copy_counting(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    requests: &AtomicUsize,
) -> std::io::Result<()> {
    // No request line is longer.
    const LONGEST: usize = 8 * 1024;
    let (mut bytes, mut line) = (vec![0; 64 * 1024], Vec::new());
    loop {
        let length = from.read(&mut bytes).await?;
        let Some(read) = bytes.get(..length).filter(|read| !read.is_empty()) else { return to.shutdown().await };
        for byte in read {
            match byte {
                b'\n' => {
                    requests.fetch_add(usize::from(is_request_line(&line)), Ordering::Relaxed);
                    line.clear();
                }
                b'\r' => {}
                byte => {
                    if line.len() >= 2 * LONGEST {
                        line.drain(..LONGEST);
                    }
                    line.push(*byte);
                }
            }
        }
        to.write_all(read).await?;
    }
}

/// Whether a line ends with a request line such as `PUT /path HTTP/1.1`.
fn is_request_line(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 6] = [b"GET", b"PUT", b"POST", b"HEAD", b"MERGE", b"DELETE"];
    let mut words = line.rsplitn(3, |byte| *byte == b' ');
    let (version, path, before) = (words.next(), words.next(), words.next().unwrap_or_default());
    version == Some(b"HTTP/1.1")
        && path.is_some_and(|path| path.starts_with(b"/"))
        && METHODS.iter().any(|method| before.ends_with(method))
}
