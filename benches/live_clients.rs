//! Delivery of live events to many clients of the web server:
//!
//!     cargo bench --bench live_clients -- 200 30
//!
//! The arguments are the number of clients and the number of seconds. Four cameras publish 10
//! events a second of 15 people each; every client receives all of them over a WebSocket of the
//! real server, on this machine. Prints the time from publishing an event to its arrival at a
//! client, and the processor time.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use twintrack::frame::Frame;
use twintrack::pipeline::cameras::Cameras;
use twintrack::serve::access::control::AccessControl;
use twintrack::serve::camera_settings::CameraSettings;
use twintrack::serve::config::ServeConfig;
use twintrack::serve::hub::Hub;
use twintrack::serve::server;
use twintrack::serve::service::Service;
use twintrack::sink::{FrameResult, Sink as _};
use twintrack::time::Seconds;
use twintrack::track::TrackState;
use twintrack::trajectory::{EventBuilder, RunId, TrackEvent};

const CAMERAS: usize = 4;
const RATE: f64 = 10.0;
const PEOPLE: u64 = 15;

/// An event of 15 people whose presentation time is `pts`.
fn event(builder: &mut EventBuilder, camera: &str, number: u64, pts: f64) -> FrameResult {
    let frame = Frame {
        camera: camera.into(),
        number,
        pts: Seconds(pts),
        time: None,
        width: 1920,
        height: 1080,
        image: None,
        restart: false,
    };
    let mut event = builder.frame(&frame, &[]);
    let person = |id: u64| TrackEvent {
        id,
        state: TrackState::Confirmed,
        bbox: [12.25 * id as f64, 233.5, 61.2, 158.9],
        confidence: 0.913,
        age: 3.217,
        unseen: None,
        hits: 96,
        velocity: [12.1, -0.4],
        foot: [12.25 * id as f64 + 30.6, 392.4],
        identity: None,
        zones: Vec::new(),
        ground: None,
    };
    event.tracks = (1..=PEOPLE).map(person).collect();
    FrameResult {
        frame,
        detections: Vec::new(),
        event: event.into(),
        people: Vec::new(),
        scene: None,
    }
}

/// Receives events until the end; returns the delay of each in seconds.
async fn client(address: std::net::SocketAddr, begin: Instant) -> std::io::Result<Vec<f64>> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let request = format!(
        "GET /api/v1/live?events=trajectory HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await?;
    }
    let mut delays = Vec::new();
    // A frame of the server: a byte with the kind, the length in one to nine bytes, the content.
    while let Ok(kind) = stream.read_u8().await {
        let length = match stream.read_u8().await? {
            126 => usize::from(stream.read_u16().await?),
            127 => stream.read_u64().await? as usize,
            short => usize::from(short),
        };
        let mut content = vec![0; length];
        stream.read_exact(&mut content).await?;
        let now = begin.elapsed().as_secs_f64();
        if kind & 0x0f == 1 {
            let event: serde_json::Value = serde_json::from_slice(&content)?;
            delays.extend(event["pts"].as_f64().map(|published| now - published));
        }
    }
    Ok(delays)
}

/// Processor time of this process in seconds, in steps of a hundredth.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in brackets: state, and 10 numbers, before user and system time.
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = after.split_whitespace().skip(11).take(2);
    let ticks: f64 = fields.filter_map(|f| f.parse::<f64>().ok()).sum();
    ticks / 100.0
}

fn publish(mut hub: Hub, seconds: f64, begin: Instant) -> u64 {
    let names: Vec<String> = (0..CAMERAS).map(|n| format!("camera-{n}")).collect();
    let run = RunId::now_v7();
    let builder = |name: &String| EventBuilder::new(run, name.as_str().into(), None);
    let mut builders: Vec<EventBuilder> = names.iter().map(builder).collect();
    let interval = Duration::from_secs_f64(1.0 / RATE / CAMERAS as f64);
    let mut published = 0;
    let start = Instant::now();
    while start.elapsed().as_secs_f64() < seconds {
        let camera = published as usize % CAMERAS;
        let number = published / CAMERAS as u64 + 1;
        let pts = begin.elapsed().as_secs_f64();
        let result = event(&mut builders[camera], &names[camera], number, pts);
        hub.frame(&result).expect("in memory");
        published += 1;
        let next = start + interval.mul_f64(published as f64);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    published
}

fn main() -> ExitCode {
    let numbers: Vec<f64> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let clients = numbers.first().map_or(200, |n| *n as usize);
    let seconds = numbers.get(1).copied().unwrap_or(30.0);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let begin = Instant::now();
    let folder = tempfile::tempdir().expect("a folder");
    let config = ServeConfig::default().with_state_dir(Some(folder.path().into()));
    let (hub, stop) = (Hub::new(config.replay()), CancellationToken::new());
    let (delays, published, used) = runtime.block_on(async {
        let any = "127.0.0.1:0".parse().expect("an address");
        let listener = server::listen(any).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let service = Service {
            run: RunId::now_v7(),
            cameras: Cameras::default(),
            settings: CameraSettings::open(Default::default(), folder.path()).expect("no file"),
            hub: hub.clone(),
            history: None,
            people: None,
            identities: Arc::default(),
            fleet: None,
            registry: Arc::default(),
            health: Default::default(),
            access: AccessControl::open(&config, any, None).expect("valid"),
            openapi: Arc::default(),
            stop: stop.clone(),
        };
        let serving = tokio::spawn(server::run(listener, service, clients + 16));
        let receiving: Vec<_> = (0..clients)
            .map(|_| tokio::spawn(client(address, begin)))
            .collect();
        while hub.clients() < clients as u64 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let before = cpu();
        let publishing = {
            let hub = hub.clone();
            tokio::task::spawn_blocking(move || publish(hub, seconds, begin))
        };
        let published = publishing.await.expect("no panic");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let used = cpu() - before;
        stop.cancel();
        let mut delays = Vec::new();
        for receiving in receiving {
            delays.extend(receiving.await.expect("no panic").expect("connected"));
        }
        let _ = serving.await; // it has logged its errors
        (delays, published, used)
    });
    let mut sorted = delays;
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (sorted.len() as f64 * share) as usize;
        1000.0
            * sorted
                .get(index.min(sorted.len().saturating_sub(1)))
                .copied()
                .unwrap_or(f64::NAN)
    };
    println!(
        "{clients} clients, {published} events of {PEOPLE} people in {seconds} s: {} of {} \
         delivered, {} missed; median {:.1} ms, p95 {:.1} ms, p99 {:.1} ms, maximum {:.1} ms; \
         {:.0} % of a core, with the clients",
        sorted.len(),
        published * clients as u64,
        hub.missed(),
        at(0.5),
        at(0.95),
        at(0.99),
        at(1.0),
        100.0 * used / seconds,
    );
    if sorted.len() as u64 == published * clients as u64 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
