//! Connections of the web server. Their number is limited, and they are closed if a client does not
//! send a request in time, or takes nothing of an answer, so that clients without a token cannot
//! exhaust the process's file descriptors.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::serve::access::client::Peer;

/// Timeout from the opening of a connection, or from the last response, to the end of the next
/// request's headers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Timeout of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of a write that cannot send a single byte, because the client does not read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a connection cannot be accepted, for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves `app` on at most `max` connections at a time, by TLS if `tls` is given; further ones wait
/// to be accepted. A connection that has become a WebSocket counts until it is closed. When `stop`
/// is cancelled, no connection is accepted any more, and the function returns when the requests of
/// open connections have been answered; it does not wait for WebSockets.
pub(super) async fn serve(
    listener: TcpListener,
    app: Router,
    tls: Option<Arc<ServerConfig>>,
    max: usize,
    stop: &CancellationToken,
) {
    let (slots, open) = (Arc::new(Semaphore::new(max)), TaskTracker::new());
    loop {
        let accepted = tokio::select! {
            accepted = async {
                let slot = slots.clone().acquire_owned().await;
                (slot, listener.accept().await)
            } => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            (Ok(slot), Ok((stream, address))) => {
                open.spawn(serve_client(
                    Counted::new(stream, slot),
                    address,
                    app.clone(),
                    tls.clone(),
                    stop.clone(),
                ));
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "cannot accept a connection to the web server");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            (Err(_), _) => break, // the semaphore is never closed
        }
    }
    open.close();
    open.wait().await;
}

/// A connection that counts among `max_connections` until it is dropped. The permit is part of the
/// stream, because hyper's future of a connection ends when the connection becomes a WebSocket,
/// which then owns the stream.
struct Counted {
    stream: Pin<Box<TimeoutStream<TcpStream>>>,
    _slot: OwnedSemaphorePermit,
}

impl Counted {
    fn new(stream: TcpStream, slot: OwnedSemaphorePermit) -> Self {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        Counted {
            stream: Box::pin(stream),
            _slot: slot,
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Serves one client, after the handshake of TLS.
async fn serve_client(
    stream: Counted,
    address: SocketAddr,
    app: Router,
    tls: Option<Arc<ServerConfig>>,
    stop: CancellationToken,
) {
    let service = WithPeer {
        peer: Peer::new(address, tls.is_some()),
        app: TowerToHyperService::new(app),
    };
    let Some(tls) = tls else {
        return serve_connection(stream, service, stop).await;
    };
    let handshake = TlsAcceptor::from(tls).accept(stream);
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => accepted,
        () = stop.cancelled() => return,
    };
    match accepted {
        Ok(Ok(stream)) => serve_connection(stream, service, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => tracing::debug!("a TLS handshake took too long"),
    }
}

/// The application; its requests have the peer as an extension.
struct WithPeer {
    peer: Peer,
    app: TowerToHyperService<Router>,
}

impl Service<Request<Incoming>> for WithPeer {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.app.call(request)
    }
}

/// Answers the requests of one connection. Errors are only logged at debug level, because the
/// client causes them: it closes the connection, does not send HTTP, or exceeds the timeout.
async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: WithPeer,
    stop: CancellationToken,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the web server ended");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::http::StatusCode;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A server of [`app`] for at most two connections.
    async fn server(
        stop: &CancellationToken,
        tls: Option<Arc<ServerConfig>>,
    ) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        server_of(app(), 2, stop, tls).await
    }

    /// A server for at most `max` connections.
    async fn server_of(
        app: Router,
        max: usize,
        stop: &CancellationToken,
        tls: Option<Arc<ServerConfig>>,
    ) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, stop) = (listener.local_addr().expect("bound"), stop.clone());
        let task = tokio::spawn(async move { serve(listener, app, tls, max, &stop).await });
        (address, task)
    }

    /// `/upgrade` switches to a protocol in which the server reads until the client closes;
    /// `/` answers with the number of upgraded connections that are open.
    fn app() -> Router {
        let upgraded = Arc::new(AtomicUsize::new(0));
        let count = upgraded.clone();
        let upgrade = move |request: Request| async move {
            upgraded.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let upgrade = hyper::upgrade::on(request).await;
                let mut stream = TokioIo::new(upgrade.expect("upgraded"));
                let _ = stream.read_to_end(&mut Vec::new()).await; // until the client closes
                upgraded.fetch_sub(1, Ordering::Relaxed);
            });
            let headers = [("connection", "upgrade"), ("upgrade", "reading")];
            (StatusCode::SWITCHING_PROTOCOLS, headers)
        };
        let root = move || async move { count.load(Ordering::Relaxed).to_string() };
        Router::new()
            .route("/", get(root))
            .route("/upgrade", get(upgrade))
    }

    async fn connect(address: std::net::SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(text.as_bytes()).await.expect("sent");
        stream
    }

    /// A client that reads nothing must not use a connection for ever.
    #[tokio::test(start_paused = true)]
    async fn an_answer_that_the_client_does_not_read_is_given_up() {
        let stop = CancellationToken::new();
        // More than the system buffers.
        let app = Router::new().route("/", get(|| async { vec![0_u8; 64 << 20] }));
        let (address, task) = server_of(app, 1, &stop, None).await;
        let deaf = connect(address, REQUEST).await;
        // Waits until the first connection is closed.
        let mut second = connect(address, REQUEST).await;
        let mut answer = [0; 15];
        second.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        drop((deaf, second));
        stop.cancel();
        task.await.expect("it ends");
    }

    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    /// Regression: connections that sent nothing were never closed, until no file descriptor was
    /// left and cameras could not be opened.
    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_closed_and_others_served() {
        let stop = CancellationToken::new();
        let (address, task) = server(&stop, None).await;
        let mut silent = connect(address, "").await;
        let mut half = connect(address, "GET / HTTP/1.1\r\nHost: lo").await;
        // Both connections are in use, so this one waits until they are closed.
        let mut third = connect(address, REQUEST).await;
        let mut answer = [0; 15];
        third.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        for stream in [&mut silent, &mut half] {
            // Closed by the server, perhaps after a 408.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            assert!(!rest.starts_with(b"HTTP/1.1 200"));
        }
        // After its response, the third connection is idle too.
        let mut rest = Vec::new();
        let _ = third.read_to_end(&mut rest).await;
        stop.cancel();
        task.await.expect("it ends");
    }

    /// Regression: a connection that became a WebSocket made room for another, so that their
    /// number was not limited.
    #[tokio::test]
    async fn upgraded_connections_count_until_they_are_closed() {
        let stop = CancellationToken::new();
        let (address, task) = server(&stop, None).await;
        let mut upgraded = Vec::new();
        for _ in 0..2 {
            let request = "GET /upgrade HTTP/1.1\r\nHost: localhost\r\n\
                           Connection: upgrade\r\nUpgrade: reading\r\n\r\n";
            let mut stream = connect(address, request).await;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.expect("an answer");
            assert_eq!(&answer, b"HTTP/1.1 101");
            upgraded.push(stream);
        }
        // It waits until one of the two is closed. The pause gives a server that does not make it
        // wait the time to answer with another number.
        let request = REQUEST.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        let mut third = connect(address, &request).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        upgraded.pop();
        let mut answer = String::new();
        third.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.ends_with("\r\n\r\n1"), "{answer}");
        stop.cancel();
        task.await.expect("it ends");
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_closes_idle_connections_at_once() {
        let stop = CancellationToken::new();
        let (address, task) = server(&stop, None).await;
        let mut idle = connect(address, REQUEST).await;
        let mut answer = [0; 15];
        idle.read_exact(&mut answer).await.expect("an answer");
        let before = tokio::time::Instant::now();
        stop.cancel();
        task.await.expect("it ends");
        assert!(before.elapsed() < REQUEST_TIMEOUT);
    }

    /// Clients that connect and send nothing, or no TLS, must not use connections for ever.
    #[tokio::test(start_paused = true)]
    async fn a_tls_handshake_that_does_not_end_is_given_up() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = crate::serve::tls::TlsFiles {
            certificate: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
        };
        let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).expect("made");
        std::fs::write(&files.certificate, made.cert.pem()).expect("written");
        std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
        let certificate = crate::serve::tls::Certificate::open(files).expect("valid");
        let (stop, tls) = (
            CancellationToken::new(),
            certificate.server_config().expect("valid"),
        );
        let (address, task) = server(&stop, Some(tls)).await;
        let mut silent = [
            connect(address, "").await,
            connect(address, "\x16\x03\x01").await,
        ];
        let before = tokio::time::Instant::now();
        for stream in &mut silent {
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await; // closed, perhaps by a reset
            assert!(rest.is_empty(), "{rest:?}");
        }
        assert!(before.elapsed() >= HANDSHAKE_TIMEOUT);
        // Both connections are free again; HTTP without TLS is not answered.
        let mut plain = connect(address, REQUEST).await;
        let mut rest = Vec::new();
        let _ = plain.read_to_end(&mut rest).await; // closed, perhaps by a reset
        assert!(!rest.starts_with(b"HTTP/"), "{rest:?}");
        stop.cancel();
        task.await.expect("it ends");
    }
}
