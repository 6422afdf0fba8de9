//! A TCP proxy between the handler and a service, which can be made to fail.

use anyhow::Context as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to connections, those that are open included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// They go through.
    Whole,
    /// They are closed.
    Cut,
}

/// A running proxy; it ends when this is dropped.
#[derive(Debug)]
pub struct Faults {
    port: u16,
    line: watch::Sender<Line>,
}

impl Faults {
    /// Stands before a port on 127.0.0.1.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn before(upstream: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("the proxy")?;
        let port = listener.local_addr()?.port();
        let (line, changes) = watch::channel(Line::Whole);
        tokio::spawn(accept(listener, upstream, changes));
        Ok(Self { port, line })
    }

    /// Where the proxy listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Breaks or mends the line.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn accept(listener: TcpListener, upstream: u16, mut line: watch::Receiver<Line>) {
    loop {
        let mut client = tokio::select! {
            Ok((client, _)) = listener.accept() => client,
            ended = line.changed() => match ended {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        if *line.borrow() == Line::Cut {
            continue;
        }
        let mut line = line.clone();
        tokio::spawn(async move {
            let Ok(mut service) = TcpStream::connect(("127.0.0.1", upstream)).await else { return };
            // Either end closes the connection; so does a cut, or the end of the proxy.
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut service) => {}
                _ = line.wait_for(|line| *line == Line::Cut) => {}
            }
        });
    }
}
