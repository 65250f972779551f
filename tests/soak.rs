//! Faults and long runs. Cameras of an RTSP server are reached through a proxy that stalls, leaves
//! connections half open or corrupts data. Servers are killed, or change their frame size or
//! password. A short version runs with the other tests, a long one by `make soak`.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{
    NO_PAGE, Running, clip, free_port, has_ffmpeg, rtsp_server, run, start_service, twintrack,
    until,
};

/// Mode of the proxy: data is forwarded.
const PASS: u8 = 0;
/// No data is forwarded; the connections stay open.
const STALL: u8 = 1;
/// New connections are accepted without a response. Existing ones get no more data, and are not
/// closed.
const HALF_OPEN: u8 = 2;
/// A part of the camera's data is replaced by random bytes.
const GARBAGE: u8 = 3;

/// A proxy between the program and a camera.
struct Proxy {
    port: u16,
    mode: Arc<AtomicU8>,
    /// Connections accepted in the mode [`HALF_OPEN`]. They are closed when the mode ends, as after
    /// a reboot of the camera.
    orphans: Arc<Mutex<Vec<TcpStream>>>,
}

fn proxy(camera: u16) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let p = Proxy {
        port: listener.local_addr().unwrap().port(),
        mode: Arc::new(AtomicU8::new(PASS)),
        orphans: Arc::default(),
    };
    let (mode, orphans) = (p.mode.clone(), p.orphans.clone());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            if mode.load(Ordering::Relaxed) == HALF_OPEN {
                orphans.lock().unwrap().push(client);
                continue;
            }
            // If the server refuses the connection, the proxy closes it.
            let Ok(server) = TcpStream::connect(("127.0.0.1", camera)) else {
                continue;
            };
            let (mut up, mut down) = (
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server, client),
            );
            for (ends, from_camera) in [(&mut up, false), (&mut down, true)] {
                let (from, to, mode) = (
                    ends.0.try_clone().unwrap(),
                    ends.1.try_clone().unwrap(),
                    mode.clone(),
                );
                std::thread::spawn(move || forward(from, to, &mode, from_camera));
            }
        }
    });
    p
}

fn forward(mut from: TcpStream, mut to: TcpStream, mode: &AtomicU8, from_camera: bool) {
    let mut buffer = [0; 8192];
    from.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut orphan = false;
    loop {
        match mode.load(Ordering::Relaxed) {
            STALL => {
                std::thread::sleep(Duration::from_millis(20));
                continue;
            }
            // This connection gets no more data.
            HALF_OPEN => orphan = true,
            _ => {}
        }
        let n = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                continue;
            }
            Err(_) => break,
        };
        if orphan {
            continue;
        }
        if from_camera && mode.load(Ordering::Relaxed) == GARBAGE {
            for byte in buffer[..n].iter_mut().filter(|_| fastrand::u8(..) < 3) {
                *byte = fastrand::u8(..);
            }
        }
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    if !orphan {
        let _ = to.shutdown(Shutdown::Both); // it may be closed already
    }
}

impl Proxy {
    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::Relaxed);
        if mode == PASS {
            self.orphans.lock().unwrap().clear();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Killed,
    Stalled,
    HalfOpen,
    Garbage,
    OtherSize,
    OtherPassword,
}

const FAULTS: [Fault; 6] = [
    Fault::Killed,
    Fault::Stalled,
    Fault::HalfOpen,
    Fault::Garbage,
    Fault::OtherSize,
    Fault::OtherPassword,
];

/// A camera with injected faults.
struct FaultyCamera {
    name: String,
    port: u16,
    proxy: Proxy,
    server: Option<Running>,
    clips: [PathBuf; 2],
    size: usize,
    seconds: u64,
}

impl FaultyCamera {
    /// Starts the server, or restarts it.
    fn start(&mut self, password: &str) {
        self.server = None;
        let mut tries = 0;
        // The port of a server that was just killed may be in use for a moment.
        while self.server.is_none() {
            self.server = rtsp_server(
                &self.clips[self.size],
                self.port,
                self.seconds,
                &["--user", "viewer", "--password", password],
            );
            tries += 1;
            assert!(tries < 20, "the server of {} did not start", self.name);
        }
    }

    /// Injects a fault, and repairs it after `duration`.
    fn inject(&mut self, fault: Fault, duration: Duration) {
        match fault {
            Fault::Killed => self.server = None,
            Fault::Stalled => self.proxy.set(STALL),
            Fault::HalfOpen => self.proxy.set(HALF_OPEN),
            Fault::Garbage => self.proxy.set(GARBAGE),
            Fault::OtherSize => {
                self.server = None;
                self.size = 1 - self.size;
            }
            Fault::OtherPassword => self.start("another-word"),
        }
        std::thread::sleep(duration);
        match fault {
            Fault::Stalled | Fault::HalfOpen | Fault::Garbage => self.proxy.set(PASS),
            Fault::Killed | Fault::OtherSize | Fault::OtherPassword => self.start("right-word"),
        }
    }
}

/// The metrics of the program under test, by the port of its web server.
struct Metrics(u16);

impl Metrics {
    fn text(&self) -> String {
        common::metrics(self.0).unwrap()
    }

    fn get(&self, key: &str) -> f64 {
        let text = self.text();
        text.lines()
            .find_map(|l| l.strip_prefix(key)?.trim().parse().ok())
            .unwrap_or_else(|| panic!("{key} is not in {text}"))
    }

    fn tracked(&self, camera: &str) -> f64 {
        self.get(&format!(
            "twintrack_frames_tracked_total{{camera=\"{camera}\"}}"
        ))
    }
}

/// Starts the program with these cameras (names and addresses); returns it and its metrics.
fn serve(dir: &Path, cameras: &[(String, String)]) -> (Running, Metrics) {
    let file = dir.join("cameras.toml");
    let sections: String = cameras
        .iter()
        .map(|(name, url)| format!("[cameras.{name}]\nurl = \"{url}\"\n"))
        .collect();
    std::fs::write(
        &file,
        format!("[serve]\nlisten = \"127.0.0.1:0\"\n[detector]\nsize = \"416x320\"\n{sections}"),
    )
    .unwrap();
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let child = start_service(&file, Path::new("/dev/null"), log);
    let port = || {
        log_text(dir).lines().find_map(|l| {
            l.strip_prefix("page, live events and metrics: http://127.0.0.1:")?
                .parse::<u16>()
                .ok()
        })
    };
    assert!(until(120, || port().is_some()), "{}", log_text(dir));
    let metrics = Metrics(port().unwrap());
    // The web server answers before the networks are open and the cameras are known.
    let known = || {
        let text = metrics.text();
        let is_known = |(name, _): &(String, String)| {
            text.contains(&format!(
                "twintrack_frames_tracked_total{{camera=\"{name}\"}}"
            ))
        };
        cameras.iter().all(is_known)
    };
    assert!(until(120, known), "{}", log_text(dir));
    (child, metrics)
}

fn log_text(dir: &Path) -> String {
    std::fs::read_to_string(dir.join("log")).unwrap_or_default()
}

/// Writes the clip as cameras send it: with a key frame every second, repeated to at least
/// `seconds`. None without ffmpeg.
fn camera_clip(dir: &Path, width: u32, seconds: u64) -> Option<PathBuf> {
    let (once, path) = (
        dir.join(format!("{width}-once.mp4")),
        dir.join(format!("{width}.mp4")),
    );
    if !has_ffmpeg() {
        return None;
    }
    let size = format!("scale={width}:-2");
    run(Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(clip())
        .args(["-vf", &size, "-preset", "veryfast", "-g", "10", "-bf", "0"])
        .arg(&once));
    let rounds = (seconds / 40 + 1).to_string();
    run(Command::new("ffmpeg")
        .args(["-v", "error", "-stream_loop", &rounds, "-i"])
        .arg(&once)
        .args(["-c", "copy", "-movflags", "+faststart"])
        .arg(&path));
    Some(path)
}

/// Runs `faulty` cameras with random faults and a healthy one for `seconds`, and until each faulty
/// camera has had every fault. Asserts that the faulty cameras come back, the healthy camera is
/// tracked meanwhile, and no threads or descriptors leak. `timed`: also that they come back in
/// time, and the healthy camera keeps its frame rate; a busy machine does not manage that.
fn faults(faulty: usize, seconds: u64, timed: bool) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let healthy = free_port();
    let clips = [768, 640].map(|width| camera_clip(dir, width, seconds + 120));
    let [Some(large), Some(small)] = clips else {
        return;
    };
    // The servers outlast six faults at their limit.
    let life = seconds + if timed { 120 } else { 900 };
    let Some(_healthy) = rtsp_server(&large, healthy, life, &[]) else {
        return;
    };
    let mut cameras = vec![(
        "healthy".to_string(),
        format!("rtsp://127.0.0.1:{healthy}/cam"),
    )];
    let mut all = Vec::new();
    for i in 0..faulty {
        let port = free_port();
        let proxy = proxy(port);
        let name = format!("faulty-{i}");
        cameras.push((
            name.clone(),
            format!("rtsp://viewer:right-word@127.0.0.1:{}/cam", proxy.port),
        ));
        let mut camera = FaultyCamera {
            name,
            port,
            proxy,
            server: None,
            clips: [large.clone(), small.clone()],
            size: 0,
            seconds: life,
        };
        camera.start("right-word");
        all.push(camera);
    }
    let (mut child, metrics) = serve(dir, &cameras);
    let up = || cameras.iter().all(|(name, _)| metrics.tracked(name) > 10.0);
    assert!(until(120, up), "{}", log_text(dir));
    // Measures the frame rate without faults.
    let quiet = Duration::from_secs((seconds / 10).max(5));
    let rate = |over: Duration| {
        let (before, start) = (metrics.tracked("healthy"), Instant::now());
        std::thread::sleep(over);
        (metrics.tracked("healthy") - before) / start.elapsed().as_secs_f64()
    };
    let rate_before = rate(quiet);
    let process = |what: &str| {
        std::fs::read_dir(format!("/proc/{}/{what}", child.0.id()))
            .unwrap()
            .count()
    };
    let before = (process("task"), process("fd"));

    let over = Arc::new(AtomicBool::new(false));
    // Fault, seconds until the camera was back, whether it came back.
    let returns: Arc<Mutex<Vec<(Fault, f64, bool)>>> = Arc::default();
    let threads: Vec<_> = all
        .into_iter()
        .enumerate()
        .map(|(i, mut camera)| {
            let (over, returns, port) = (over.clone(), returns.clone(), metrics.0);
            std::thread::spawn(move || {
                let (mut rng, metrics) = (fastrand::Rng::with_seed(7 + i as u64), Metrics(port));
                // Every fault occurs once, then faults are drawn at random.
                let mut first: Vec<Fault> = FAULTS.to_vec();
                rng.shuffle(&mut first);
                while !over.load(Ordering::Relaxed) || !first.is_empty() {
                    let fault = first.pop().unwrap_or_else(|| FAULTS[rng.usize(..6)]);
                    camera.inject(fault, Duration::from_secs_f64(0.5 + 3.0 * rng.f64()));
                    let (at, start) = (metrics.tracked(&camera.name), Instant::now());
                    let back = until(120, || metrics.tracked(&camera.name) >= at + 2.0);
                    let took = start.elapsed().as_secs_f64();
                    returns.lock().unwrap().push((fault, took, back));
                    std::thread::sleep(Duration::from_secs_f64(0.2 + 0.5 * rng.f64()));
                }
                camera
            })
        })
        .collect();
    let rate_during = rate(Duration::from_secs(seconds));
    over.store(true, Ordering::Relaxed);
    let all: Vec<FaultyCamera> = threads.into_iter().map(|t| t.join().unwrap()).collect();
    let mut after = before;
    let freed = until(60, || {
        after = (process("task"), process("fd"));
        after.0 <= before.0 + 2 && after.1 <= before.1 + 2
    });
    let hung: f64 = all
        .iter()
        .map(|camera| {
            metrics.get(&format!(
                "twintrack_camera_hung_total{{camera=\"{}\"}}",
                camera.name
            ))
        })
        .sum();
    child.signal("TERM");
    let code = child.code(60);
    let returns = returns.lock().unwrap().clone();
    let worst = |f: Fault| {
        returns
            .iter()
            .filter(|r| r.0 == f)
            .map(|r| r.1)
            .fold(0.0, f64::max)
    };
    let summary: Vec<String> = FAULTS
        .iter()
        .map(|&f| {
            format!(
                "{f:?} {} worst {:.1} s",
                returns.iter().filter(|r| r.0 == f).count(),
                worst(f)
            )
        })
        .collect();
    eprintln!(
        "{} faults in {seconds} s: {}",
        returns.len(),
        summary.join(", ")
    );
    eprintln!(
        "healthy camera: {rate_before:.3} frames/s before, {rate_during:.3} during; \
         threads and descriptors {before:?} before, {after:?} after; {hung} hung"
    );
    assert_eq!(code, Some(0), "{}", log_text(dir));
    assert!(
        !log_text(dir).contains("panic")
            && !log_text(dir).contains("crashed")
            && !log_text(dir).contains("right-word"),
        "{}",
        log_text(dir)
    );
    assert!(
        returns.iter().all(|r| r.2),
        "{summary:?}\n{}",
        log_text(dir)
    );
    assert!(rate_during > 0.0, "the healthy camera is not tracked");
    assert!(freed, "threads and descriptors: {before:?}, {after:?}");
    if !timed {
        return;
    }
    // The target is five seconds. One reconnect may take longer, because corrupt data can cause a
    // timeout and also disturb the reconnect.
    let late = returns.iter().filter(|r| r.1 > 5.0).count();
    assert!(
        late <= 1 && returns.iter().all(|r| r.1 <= 7.0),
        "{late} late: {summary:?}\n{}",
        log_text(dir)
    );
    assert!(
        rate_during > 0.98 * rate_before,
        "{rate_during} frames/s instead of {rate_before}"
    );
    assert!(
        returns.len() as u64 >= faulty as u64 * seconds / 9,
        "only {} faults",
        returns.len()
    );
}

#[test]
fn cameras_come_back_from_every_kind_of_fault() {
    faults(2, 30, false);
}

/// About 200 faults.
#[test]
#[ignore = "long: `make soak`"]
fn soak_faults_for_ten_minutes() {
    faults(3, 600, true);
}

/// Each camera has ten frames per second.
#[test]
#[ignore = "long: `make soak`"]
fn soak_latency_and_memory_of_four_cameras_do_not_grow_in_ten_minutes() {
    let minutes = 10;
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let Some(long) = camera_clip(dir.path(), 768, 60 * minutes + 60) else {
        return;
    };
    // Without RTCP reports, events have the arrival time, so that latency is measured from arrival.
    let Some(_server) = rtsp_server(
        &long,
        port,
        60 * minutes + 60,
        &["--mounts", "4", "--no-rtcp"],
    ) else {
        return;
    };
    let file = dir.path().join("cameras.toml");
    let sections: String = (1..=4)
        .map(|i| format!("[cameras.c{i}]\nurl = \"rtsp://127.0.0.1:{port}/cam{i}\"\n"))
        .collect();
    std::fs::write(
        &file,
        format!("{NO_PAGE}[detector]\nsize = \"416x320\"\n{sections}"),
    )
    .unwrap();
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    let mut child = Running::start(
        twintrack()
            .args(["serve", "--config"])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(log),
    );
    let status = format!("/proc/{}/status", child.0.id());
    let memory = || {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        text.lines()
            .find_map(|l| {
                l.strip_prefix("VmRSS:")?
                    .split_whitespace()
                    .next()?
                    .parse::<f64>()
                    .ok()
            })
            .unwrap_or(0.0)
            / 1024.0
    };
    let (start, mut latencies, mut resident) = (
        Instant::now(),
        vec![Vec::new(); minutes as usize],
        vec![0.0f64; minutes as usize],
    );
    for line in BufReader::new(child.0.stdout.take().unwrap()).lines() {
        let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        let minute = start.elapsed().as_secs() as usize / 60;
        if minute >= minutes as usize {
            break;
        }
        if let (Some(time), true) = (event["time"].as_str(), event["frame"].is_u64()) {
            let at: jiff::Timestamp = time.parse().unwrap();
            latencies[minute].push(jiff::Timestamp::now().duration_since(at).as_secs_f64());
            if latencies[minute].len() % 40 == 1 {
                resident[minute] = resident[minute].max(memory());
            }
        }
    }
    child.signal("TERM");
    assert!(child.code(20).is_some());
    let p95: Vec<f64> = latencies
        .iter_mut()
        .map(|l| {
            l.sort_unstable_by(f64::total_cmp);
            l[l.len() * 95 / 100]
        })
        .collect();
    for (i, l) in latencies.iter().enumerate() {
        eprintln!(
            "minute {}: {} frames, latency {:.1} ms (median) {:.1} ms (p95), memory {:.0} MB",
            i + 1,
            l.len(),
            1000.0 * l[l.len() / 2],
            1000.0 * p95[i],
            resident[i]
        );
    }
    eprintln!("{}", log_text(dir.path()));
    let last = minutes as usize - 1;
    assert!(
        latencies.iter().skip(1).all(|l| l.len() > 2300),
        "frames are missing"
    );
    // Single minutes differ with the machine's load, so halves are compared. The first minute has
    // the start.
    let middle = minutes as usize / 2;
    let [first, second] = [&p95[1..middle], &p95[middle..]].map(|half| {
        let mut sorted = half.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    });
    assert!(second < 1.25 * first, "latency grows: {p95:?}");
    assert!(
        resident[last] - resident[middle] < 5.0,
        "memory grows: {resident:?} MB"
    );
}
