//! Connections of the web server. Their number is limited, and they are closed if a client does not
//! send a request in time, so that clients without a token cannot exhaust the process's file
//! descriptors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::serve::access::client::Peer;

/// Timeout from the opening of a connection, or from the last response, to the end of the next
/// request's headers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Timeout of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a connection cannot be accepted, for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves `app` on at most `max` connections at a time, by TLS if `tls` is given; further ones wait
/// to be accepted. A connection that has become a WebSocket does not count. When `stop` is
/// cancelled, no connection is accepted any more, and the function returns when the requests of
/// open connections have been answered.
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
                let connection =
                    serve_client(stream, address, app.clone(), tls.clone(), stop.clone());
                open.spawn(async move {
                    connection.await;
                    drop(slot);
                });
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

/// Serves one client, after the handshake of TLS.
async fn serve_client(
    stream: TcpStream,
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
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A server for at most two connections.
    async fn server(
        stop: &CancellationToken,
        tls: Option<Arc<ServerConfig>>,
    ) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (address, stop) = (listener.local_addr().expect("bound"), stop.clone());
        let app = Router::new().route("/", get(|| async { "hello" }));
        let task = tokio::spawn(async move { serve(listener, app, tls, 2, &stop).await });
        (address, task)
    }

    async fn connect(address: std::net::SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("connected");
        stream.write_all(text.as_bytes()).await.expect("sent");
        stream
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
