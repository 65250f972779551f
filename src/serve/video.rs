//! Live pictures of a camera: one on request, or a stream of them for as long as a client takes
//! them, over a WebSocket or as Motion JPEG.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::serve::access::audit::AuditAction;
use crate::serve::access::client::Client;
use crate::serve::access::principal::Principal;
use crate::serve::hub::{Hub, LivePicture, PictureSize};
use crate::serve::problem::Problem;
use crate::serve::query::{PathOf, QueryOf};
use crate::serve::service::Service;
use crate::serve::stream_end::{PING_INTERVAL, SEND_TIMEOUT, StreamEnd, send};

/// The camera in the path.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct CameraPath {
    /// Name of the camera.
    pub camera: String,
}

/// The query of a picture.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PictureQuery {
    /// Maximum width in pixels, 16 to 16384; absent: that of the frame.
    #[schemars(range(min = 16, max = 16384))]
    width: Option<u32>,
    /// Whether tracks, zones and lines are drawn into the picture; absent: true.
    overlay: Option<bool>,
}

/// The query of a stream of pictures.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VideoQuery {
    /// Maximum width in pixels, 16 to 16384; absent: 640.
    #[schemars(range(min = 16, max = 16384))]
    width: Option<u32>,
    /// Whether tracks, zones and lines are drawn into the pictures; absent: true.
    overlay: Option<bool>,
    /// Maximum number of pictures per second, 0.1 to 60; absent: 10.
    #[schemars(range(min = 0.1, max = 60))]
    rate: Option<f64>,
}

/// Width of a stream's pictures, pixels.
const WIDTH: u32 = 640;
/// Pictures per second of a stream.
const RATE: f64 = 10.0;
/// Separates the parts of Motion JPEG.
const BOUNDARY: &str = "twintrack-picture";
/// Number of the frame that a picture shows.
const FRAME: HeaderName = HeaderName::from_static("x-twintrack-frame");

fn size(width: Option<u32>, overlay: Option<bool>) -> Result<PictureSize, Problem> {
    let width = width.unwrap_or(u32::MAX);
    if width != u32::MAX && !(16..=16384).contains(&width) {
        return Err(Problem::field("width", "it must be from 16 to 16384"));
    }
    Ok(PictureSize {
        width,
        overlay: overlay.unwrap_or(true),
    })
}

fn unknown(camera: &str) -> Problem {
    let name: String = camera.chars().take(200).collect();
    Problem::not_found(format!(
        "there is no camera '{name}', or no picture of it yet"
    ))
}

/// The picture of a camera's latest frame.
async fn latest(
    hub: Hub,
    camera: String,
    size: PictureSize,
) -> Result<Option<LivePicture>, Problem> {
    // Drawing and encoding take milliseconds, which is too long for an async thread.
    tokio::task::spawn_blocking(move || hub.picture(&camera, size))
        .await
        .map_err(|e| Problem::internal("make the picture", e))
}

/// `GET /api/v1/cameras/{camera}/picture.jpg`: the latest picture.
///
/// # Errors
/// 404 for an unknown camera, or one without a frame; 422 for an invalid width.
pub async fn picture(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Extension(client): Extension<Client>,
    PathOf(CameraPath { camera }): PathOf<CameraPath>,
    QueryOf(query): QueryOf<PictureQuery>,
) -> Result<Response, Problem> {
    let size = size(query.width, query.overlay)?;
    let made = latest(service.hub, camera.clone(), size).await?;
    let picture = made.ok_or_else(|| unknown(&camera))?;
    let audit = service.access.audit();
    audit.seen(&principal, &client, AuditAction::PictureSeen, &camera);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("image/jpeg")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (FRAME, HeaderValue::from(picture.frame)),
    ];
    Ok((headers, picture.jpeg).into_response())
}

/// Pictures of a camera as they come: the newest frame is sent, others are left out.
struct Pictures {
    hub: Hub,
    camera: String,
    size: PictureSize,
    frames: watch::Receiver<u64>,
    /// Least time between two pictures.
    interval: Duration,
    next: Instant,
    end: StreamEnd,
}

impl Pictures {
    /// Waits for the next picture. None at the end of the stream.
    async fn next(&mut self) -> Option<LivePicture> {
        loop {
            tokio::select! {
                () = self.end.reached() => return None,
                () = tokio::time::sleep_until(self.next) => {}
            }
            tokio::select! {
                () = self.end.reached() => return None,
                changed = self.frames.changed() => changed.ok()?,
            }
            // A frame may come a little earlier than its turn.
            self.next = Instant::now() + self.interval.mul_f64(0.9);
            let made = latest(self.hub.clone(), self.camera.clone(), self.size).await;
            if let Some(picture) = made.ok()? {
                return Some(picture);
            }
        }
    }
}

/// `GET /api/v1/cameras/{camera}/video`: pictures as they come. Over a WebSocket a message has the
/// number of the frame (8 bytes, unsigned, big-endian), its presentation time in seconds (8 bytes,
/// IEEE 754, big-endian) and the JPEG; without an upgrade the answer is Motion JPEG
/// (`multipart/x-mixed-replace`).
///
/// # Errors
/// 404 for an unknown camera, or one without a frame; 422 for an invalid width or rate.
pub async fn video(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Extension(client): Extension<Client>,
    PathOf(CameraPath { camera }): PathOf<CameraPath>,
    QueryOf(query): QueryOf<VideoQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let size = size(Some(query.width.unwrap_or(WIDTH)), query.overlay)?;
    let rate = query.rate.unwrap_or(RATE);
    if !(0.1..=60.0).contains(&rate) {
        return Err(Problem::field("rate", "it must be from 0.1 to 60"));
    }
    let mut frames = service
        .hub
        .frames(&camera)
        .ok_or_else(|| unknown(&camera))?;
    frames.mark_changed(); // the first picture is the latest one
    let audit = service.access.audit();
    audit.seen(&principal, &client, AuditAction::PictureSeen, &camera);
    let pictures = Pictures {
        hub: service.hub,
        camera,
        size,
        frames,
        interval: Duration::from_secs_f64(1.0 / rate),
        next: Instant::now(),
        end: StreamEnd {
            shutdown: service.stop,
            principal,
        },
    };
    Ok(match upgrade {
        Ok(upgrade) => upgrade
            .max_message_size(4096)
            .on_upgrade(move |socket| over_websocket(socket, pictures)),
        Err(_) => motion_jpeg(pictures),
    })
}

async fn over_websocket(mut socket: WebSocket, mut pictures: Pictures) {
    loop {
        // Not started again after a message of the client: a picture that is being made would be
        // lost.
        let mut next = std::pin::pin!(pictures.next());
        let mut next_ping = Instant::now() + PING_INTERVAL;
        let picture = loop {
            tokio::select! {
                picture = next.as_mut() => break picture,
                received = socket.recv() => match received {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {} // what a client sends is ignored
                },
                // So that a client that is gone is noticed while no frames come.
                () = tokio::time::sleep_until(next_ping) => {
                    if !send(&mut socket, Message::Ping(Default::default())).await {
                        return;
                    }
                    next_ping = Instant::now() + PING_INTERVAL;
                }
            }
        };
        let Some(LivePicture { frame, pts, jpeg }) = picture else {
            send(&mut socket, Message::Close(None)).await; // the client may have disconnected
            return;
        };
        let mut message = Vec::with_capacity(16 + jpeg.len());
        message.extend(frame.to_be_bytes());
        message.extend(pts.to_be_bytes());
        message.extend_from_slice(&jpeg);
        if !send(&mut socket, Message::Binary(message.into())).await {
            return;
        }
    }
}

fn motion_jpeg(mut pictures: Pictures) -> Response {
    let (tx, rx) = tokio::sync::mpsc::channel::<Result<Bytes, std::convert::Infallible>>(1);
    tokio::spawn(async move {
        loop {
            let picture = tokio::select! {
                picture = pictures.next() => picture,
                () = tx.closed() => return,
            };
            let Some(LivePicture { frame, jpeg, .. }) = picture else {
                return;
            };
            let mut part = format!(
                "--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n{FRAME}: \
                 {frame}\r\n\r\n",
                jpeg.len()
            )
            .into_bytes();
            part.extend_from_slice(&jpeg);
            part.extend_from_slice(b"\r\n");
            let sent = tokio::time::timeout(SEND_TIMEOUT, tx.send(Ok(part.into())));
            if !matches!(sent.await, Ok(Ok(()))) {
                return;
            }
        }
    });
    let kind = format!("multipart/x-mixed-replace; boundary={BOUNDARY}");
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(rx));
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::serve::hub::tests::finished;
    use crate::sink::Sink as _;

    /// Regression: a message of the client dropped the picture that was being made, so that a
    /// client that kept sending got none.
    #[tokio::test]
    async fn messages_of_the_client_do_not_prevent_a_picture() {
        let mut hub = Hub::default();
        hub.frame(&finished(1)).expect("in memory");
        let open = move |upgrade: WebSocketUpgrade| async move {
            let mut frames = hub.frames("gate").expect("a frame");
            frames.mark_changed();
            let pictures = Pictures {
                hub,
                camera: "gate".into(),
                size: size(None, Some(false)).expect("valid"),
                frames,
                interval: Duration::from_secs(1),
                // The first picture is made without waiting for the timer.
                next: Instant::now() - Duration::from_secs(1),
                end: StreamEnd {
                    shutdown: CancellationToken::new(),
                    principal: Principal::local(),
                },
            };
            upgrade.on_upgrade(move |socket| over_websocket(socket, pictures))
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("bound");
        let app = axum::Router::new().route("/", axum::routing::get(open));
        tokio::spawn(axum::serve(listener, app).into_future());
        let mut client = tokio::net::TcpStream::connect(address)
            .await
            .expect("listening");
        let mut sent = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            .to_vec();
        // Empty text messages, which the server finds when it makes the first picture.
        for _ in 0..200 {
            sent.extend([0x81, 0x80, 0, 0, 0, 0]);
        }
        client.write_all(&sent).await.expect("sent");
        let mut received = Vec::new();
        let picture = async {
            while !received.windows(2).any(|bytes| bytes == [0xff, 0xd8]) {
                let read = client.read_buf(&mut received).await.expect("open");
                assert!(read > 0, "closed");
            }
        };
        let timeout = Duration::from_secs(60);
        tokio::time::timeout(timeout, picture)
            .await
            .expect("a picture");
    }
}
