use std::sync::{Condvar, Mutex};
use std::time::Instant;

use super::*;
use crate::address::Address;
use crate::frame::Frame;
use crate::pipeline::batcher::BatchLimits;
use crate::pipeline::observer::NoObserver;
use crate::source::link::ManualTimer;
use crate::source::{SourceError, SourceInfo};

/// Readers that hang wait for it, so that the test can end.
type Release = Arc<(Mutex<bool>, Condvar)>;

/// A camera. The first opening of one whose address contains `hangs` hangs at its third frame.
struct Scripted {
    info: SourceInfo,
    hangs: bool,
    frame: u64,
    link: Link,
    release: Release,
}

impl Source for Scripted {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
        self.frame += 1;
        if self.hangs && self.frame == 3 {
            let (released, changed) = &*self.release;
            let released = released.lock().expect("not poisoned");
            let _end = changed.wait_while(released, |r| !*r).expect("not poisoned");
        }
        std::thread::sleep(Duration::from_millis(2)); // not a busy loop
        let frame = Frame {
            camera: self.info.camera.clone(),
            number: self.frame,
            pts: Seconds(0.01 * self.frame as f64),
            time: None,
            width: 64,
            height: 64,
            image: None,
            restart: false,
        };
        Ok((!self.link.stopped()).then_some(frame))
    }
}

struct Fixture {
    cameras: Cameras,
    changes: mpsc::Sender<CameraConfigs>,
    stop: CancellationToken,
    timer: Arc<ManualTimer>,
    release: Release,
    /// Camera and number of every frame, in order.
    frames: Arc<Mutex<Vec<(String, u64)>>>,
    openings: Arc<Mutex<Vec<String>>>,
    states: Arc<Mutex<Vec<(String, CameraState)>>>,
    supervising: tokio::task::JoinHandle<Ended>,
}

fn camera(url: &str) -> CameraConfig {
    CameraConfig {
        url: Address::new(format!("rtsp://{url}")),
        open_timeout: 0.2,
        read_timeout: 0.2,
        hang_timeout: 10.0,
        keep_ids: 5.0,
        ..CameraConfig::default()
    }
}

fn configs(cameras: &[(&str, CameraConfig)]) -> CameraConfigs {
    let named = cameras.iter().map(|(n, c)| (n.to_string(), c.clone()));
    named.collect()
}

fn fixture(first: &[(&str, CameraConfig)]) -> Fixture {
    let limits = BatchLimits {
        size: 2,
        wait: Duration::ZERO,
        in_progress: 1,
        per_recording: 1,
    };
    let batcher = Arc::new(Batcher::new(limits, |f| {
        [(f.width as usize, f.height as usize), (0, 0)]
    }));
    let (timer, release) = (Arc::<ManualTimer>::default(), Release::default());
    let openings = Arc::<Mutex<Vec<String>>>::default();
    let (opened, waits) = (openings.clone(), release.clone());
    let open: Opener = Arc::new(move |config, options| {
        let url = config.url.expose().to_string();
        let mut opened = opened.lock().expect("not poisoned");
        let hangs = url.contains("hangs") && !opened.contains(&url);
        opened.push(url);
        let name = options.camera.clone().unwrap_or_default();
        let info = SourceInfo {
            camera: name.as_str().into(),
            width: 64,
            height: 64,
            frame_rate: 100.0,
            frames: None,
            live: true,
            has_pixels: false,
        };
        Ok(Box::new(Scripted {
            info,
            hangs,
            frame: 0,
            link: options.link.clone(),
            release: waits.clone(),
        }))
    });
    let (cameras, clock) = (Cameras::default(), timer.clone());
    let mut roster = Roster {
        run: RunId::now_v7(),
        batcher: batcher.clone(),
        cameras: cameras.clone(),
        open,
        policy: FailurePolicy::Isolate,
        observer: Arc::new(NoObserver),
        waits: false,
        new_link: Box::new(move || Link::with_timer(clock.clone())),
        readers: Readers::default(),
    };
    roster.apply(configs(first));
    let (changes, changed) = mpsc::channel(1);
    let (out, mut events) = mpsc::channel::<TrackedFrame>(100);
    let stop = CancellationToken::new();
    let supervising = tokio::spawn(roster.supervise(changed, out, stop.clone()));
    let frames = Arc::<Mutex<Vec<_>>>::default();
    let states = Arc::<Mutex<Vec<_>>>::default();
    let (seen, reported) = (frames.clone(), states.clone());
    std::thread::spawn(move || {
        while let Some(batch) = batcher.next() {
            let numbers = batch.frames.into_iter();
            let numbers = numbers.map(|w| (w.frame.camera.to_string(), w.frame.number));
            seen.lock().expect("not poisoned").extend(numbers);
            batcher.done(&[]);
        }
    });
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let state = event.status.map(|s| (s.camera.to_string(), s.state));
            reported.lock().expect("not poisoned").extend(state);
        }
    });
    Fixture {
        cameras,
        changes,
        stop,
        timer,
        release,
        frames,
        openings,
        states,
        supervising,
    }
}

impl Fixture {
    fn numbers(&self, camera: &str) -> Vec<u64> {
        let frames = self.frames.lock().expect("not poisoned");
        let of_camera = frames.iter().filter(|(name, _)| name == camera);
        of_camera.map(|f| f.1).collect()
    }

    /// The newest frame's number. Frames may be missing before it: a camera's next frame replaces one
    /// that waits.
    fn last(&self, camera: &str) -> Option<u64> {
        self.numbers(camera).last().copied()
    }

    fn ended(&self) -> usize {
        let states = self.states.lock().expect("not poisoned");
        states.iter().filter(|s| s.1 == CameraState::Ended).count()
    }

    async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            let openings = &self.openings;
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "{what}: {openings:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for 20 more frames of a camera.
    async fn more(&self, camera: &str) {
        let before = self.numbers(camera).len();
        let what = format!("more frames of {camera}");
        self.until(&what, |f| f.numbers(camera).len() > before + 20)
            .await;
    }

    /// Releases readers that hang, and waits for the end.
    async fn end(self) {
        self.release_all();
        self.stop.cancel();
        self.supervising.await.expect("no panic");
    }

    fn release_all(&self) {
        *self.release.0.lock().expect("not poisoned") = true;
        self.release.1.notify_all();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decoder_that_hangs_is_replaced_and_other_cameras_are_not_affected() {
    let f = fixture(&[("stuck", camera("hangs")), ("well", camera("well"))]);
    f.until("the frame before it hangs", |f| f.last("stuck") == Some(2))
        .await;
    let before = f.numbers("well").len();
    f.until("frames of the other camera meanwhile", |f| {
        f.numbers("well").len() > before + 20
    })
    .await;
    assert_eq!(f.last("stuck"), Some(2));
    // In steps, because the other camera must show activity in between.
    f.until("another decoder", |f| {
        f.timer.advance(0.1);
        f.numbers("stuck").len() >= 20
    })
    .await;
    let numbers = f.numbers("stuck");
    assert!(numbers.windows(2).all(|w| w[0] < w[1]), "{numbers:?}");
    let all = f.cameras.all();
    let stuck = all.iter().find(|m| &*m.name == "stuck").expect("there");
    assert!(stuck.counts.hung.load(Ordering::Relaxed) >= 1);
    f.until("online", |_| stuck.state() == CameraState::Online)
        .await;
    let openings = f.openings.lock().expect("not poisoned").clone();
    assert!(openings.len() >= 3, "{openings:?}");
    f.end().await;
}

/// Time is tokio's and passes only when all tasks wait, so the machine's speed does not matter.
#[tokio::test(start_paused = true)]
async fn one_deadline_counts_for_all_decoders_that_hang() {
    let hung = ["hangs 1", "hangs 2", "hangs 3"].map(|name| (name, camera(name)));
    let f = fixture(&hung);
    f.until("the frames before they hang", |f| {
        hung.iter().all(|(name, _)| f.last(name) == Some(2))
    })
    .await;
    let start = tokio::time::Instant::now();
    f.stop.cancel();
    f.until("the end", |f| f.supervising.is_finished()).await;
    let limit = SHUTDOWN_TIMEOUT + Duration::from_secs_f64(0.2);
    let took = start.elapsed();
    assert!(
        (limit..limit + Duration::from_millis(100)).contains(&took),
        "{took:?}"
    );
    f.until("the reports", |f| f.ended() == 3).await;
    f.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cameras_are_added_removed_and_changed_without_touching_the_others() {
    let f = fixture(&[("a", camera("a")), ("b", camera("b"))]);
    f.until("frames of both", |f| {
        f.numbers("a").len() > 5 && f.numbers("b").len() > 5
    })
    .await;
    let change = |cameras: &[(&str, CameraConfig)]| f.changes.send(configs(cameras));
    change(&[("a", camera("a")), ("c", camera("c"))])
        .await
        .expect("received");
    f.until("frames of c", |f| f.numbers("c").len() > 5).await;
    assert!(f.cameras.all().iter().all(|m| &*m.name != "b"));
    f.more("a").await; // after which no frame of b waits
    let last = f.numbers("b");
    f.more("a").await;
    assert_eq!(f.numbers("b"), last);
    change(&[("a", camera("a")), ("b", camera("b")), ("c", camera("c2"))])
        .await
        .expect("received");
    let before = f.numbers("c").len();
    f.until("b again, c by its new settings", |f| {
        f.numbers("b").len() > last.len() + 5 && f.numbers("c").len() > before + 20
    })
    .await;
    for name in ["a", "b", "c"] {
        let numbers = f.numbers(name);
        assert!(
            numbers.windows(2).all(|w| w[0] < w[1]),
            "{name}: {numbers:?}"
        );
    }
    let names: Vec<String> = f.cameras.all().iter().map(|m| m.name.to_string()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let openings = f.openings.lock().expect("not poisoned").clone();
    let of_a = openings.iter().filter(|url| *url == "rtsp://a").count();
    assert_eq!(of_a, 1, "{openings:?}");
    f.end().await;
}
