//! Who reads the cameras: begins and ends readers, replaces those that hang, tells of cameras that come and go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::frame::CameraState;
use crate::pipeline::batcher::{Batcher, Lane};
use crate::pipeline::camera_tracker::TrackedFrame;
use crate::pipeline::cameras::{Cameras, Member};
use crate::pipeline::fleet_metrics::FleetMetrics;
use crate::pipeline::reader::{Opener, read};
use crate::pipeline::stage::Outcome;
use crate::source::camera::CameraConfig;
use crate::trajectory::{RunId, StatusEvent};

/// How often the cameras are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Readers that end are waited for so long, beyond their cameras' time-outs.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Cameras by their names, as a configuration wants them.
pub type Wanted = BTreeMap<String, CameraConfig>;

struct Entry {
    lane: Lane,
    member: Member,
    reader: Option<Outcome<()>>,
    /// The state that was told last, and why it gives no frames.
    said: Option<(CameraState, Option<Arc<str>>)>,
}

pub(super) struct Roster {
    pub run: RunId,
    pub batcher: Arc<Batcher>,
    pub cameras: Cameras,
    pub open: Opener,
    pub metrics: FleetMetrics,
    entries: BTreeMap<String, Entry>,
    /// Cameras that have left, for should they come again: their numbers go on.
    left: BTreeMap<String, Member>,
    /// Cameras of whose leaving is to be told.
    leaving: Vec<Arc<str>>,
}

impl Roster {
    pub fn new(
        run: RunId,
        batcher: Arc<Batcher>,
        cameras: Cameras,
        open: Opener,
        metrics: FleetMetrics,
    ) -> Self {
        Roster {
            run,
            batcher,
            cameras,
            open,
            metrics,
            entries: BTreeMap::new(),
            left: BTreeMap::new(),
            leaving: Vec::new(),
        }
    }

    /// Makes the fleet what is wanted; cameras of which nothing has changed are not touched.
    pub fn apply(&mut self, wanted: Wanted) {
        let gone: Vec<String> = self
            .entries
            .keys()
            .filter(|name| !wanted.contains_key(*name))
            .cloned()
            .collect();
        for name in gone {
            let Some(entry) = self.entries.remove(&name) else {
                continue;
            };
            tracing::info!(camera = %name, "the camera leaves");
            entry.member.link.stop();
            self.batcher.end(entry.lane);
            self.cameras.remove(entry.lane);
            self.metrics.forget(&name);
            self.leaving.push(entry.member.name.clone());
            self.left.insert(name, entry.member);
        }
        for (name, config) in wanted {
            match self.entries.get_mut(&name) {
                Some(entry) if *entry.member.config == config => {}
                Some(entry) if entry.reader.is_some() => {
                    tracing::info!(camera = %name, "the camera is read by its new settings");
                    self.batcher.set_weight(entry.lane, config.weight);
                    renew(entry, config, &self.batcher, &self.cameras, &self.open);
                }
                _ => {
                    let lane = self.batcher.join(config.weight);
                    let before = self.entries.remove(&name);
                    before.iter().for_each(|e| self.cameras.remove(e.lane));
                    let member = match before.map(|e| e.member).or_else(|| self.left.remove(&name))
                    {
                        Some(old) => old.renewed(config),
                        None => Member::new(&name, config),
                    };
                    self.cameras.put(lane, member.clone());
                    let reader = read(
                        member.clone(),
                        lane,
                        self.batcher.clone(),
                        self.open.clone(),
                    );
                    self.entries.insert(
                        name,
                        Entry {
                            lane,
                            member,
                            reader: Some(reader),
                            said: None,
                        },
                    );
                }
            }
        }
    }

    /// Looks after the cameras until all have ended or the run is stopped.
    pub async fn watch(
        mut self,
        mut changes: mpsc::Receiver<Wanted>,
        told: mpsc::Sender<TrackedFrame>,
        stop: CancellationToken,
    ) {
        let mut changing = true;
        while self.entries.values().any(|e| e.reader.is_some()) {
            tokio::select! {
                () = stop.cancelled() => break,
                change = changes.recv(), if changing => match change {
                    Some(wanted) => self.apply(wanted),
                    None => changing = false,
                },
                () = tokio::time::sleep(LOOK) => {}
            }
            self.look(&told);
        }
        self.entries.values().for_each(|e| e.member.link.stop());
        self.entries.values().for_each(|e| self.batcher.end(e.lane));
        self.batcher.close();
        // One deadline for all: who is being opened, or hangs, may take longer than anybody should wait.
        let longest = self
            .entries
            .values()
            .map(|e| {
                e.member
                    .config
                    .open_timeout
                    .max(e.member.config.read_timeout)
            })
            .fold(0.0, f64::max);
        let deadline =
            tokio::time::Instant::now() + SHUTDOWN_TIMEOUT + Duration::from_secs_f64(longest);
        for entry in self.entries.values_mut() {
            let Some(reader) = entry.reader.take() else {
                continue;
            };
            if tokio::time::timeout_at(deadline, reader).await.is_err() {
                tracing::warn!(camera = %entry.member.name, "its decoder has not come back and is left behind");
            }
            entry.member.link.set(CameraState::Ended);
        }
        self.tell(&told);
    }

    fn look(&mut self, told: &mpsc::Sender<TrackedFrame>) {
        for (name, entry) in &mut self.entries {
            let Some(reader) = &mut entry.reader else {
                continue;
            };
            if !matches!(
                reader.try_recv(),
                Err(tokio::sync::oneshot::error::TryRecvError::Empty)
            ) {
                entry.reader = None;
                entry.member.link.set(CameraState::Ended);
                self.batcher.end(entry.lane);
                continue;
            }
            let Member {
                config,
                link,
                counts,
                ..
            } = &entry.member;
            if config.has_address() && link.silent() > Duration::from_secs_f64(config.hang_timeout)
            {
                tracing::error!(camera = %name, seconds = link.silent().as_secs(), "its decoder hangs; another is begun");
                counts.hung.fetch_add(1, Ordering::Relaxed);
                let config = CameraConfig::clone(config);
                renew(entry, config, &self.batcher, &self.cameras, &self.open);
            }
        }
        self.tell(told);
    }

    /// Tells of every change of state; one that the sinks have no room for is told at the next look.
    fn tell(&mut self, told: &mpsc::Sender<TrackedFrame>) {
        let tell = |camera: &Arc<str>, state, reason| {
            let status = Some(StatusEvent::now(self.run, camera.clone(), state, reason));
            told.try_send(TrackedFrame {
                frame: None,
                ended: Vec::new(),
                status,
            })
            .is_ok()
        };
        self.leaving
            .retain(|camera| !tell(camera, CameraState::Ended, None));
        for entry in self.entries.values_mut() {
            let state = entry.member.state();
            let reason = entry
                .member
                .link
                .reason()
                .filter(|_| state != CameraState::Online);
            // Another reason is news, too; the attempts under way between two failures are none.
            let told = entry.said.as_ref().is_some_and(|(said, why)| {
                *said == state && (why == &reason || state == CameraState::Connecting)
            });
            if !told && tell(&entry.member.name, state, reason.clone()) {
                entry.said = Some((state, reason));
            }
        }
    }
}

/// Another reader for the camera, in the same lane: its tracks, numbers and times go on.
fn renew(
    entry: &mut Entry,
    config: CameraConfig,
    batcher: &Arc<Batcher>,
    cameras: &Cameras,
    open: &Opener,
) {
    entry.member.link.stop();
    entry.member = entry.member.renewed(config);
    cameras.put(entry.lane, entry.member.clone());
    entry.reader = Some(read(
        entry.member.clone(),
        entry.lane,
        batcher.clone(),
        open.clone(),
    ));
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Instant;

    use super::*;
    use crate::address::Address;
    use crate::frame::Frame;
    use crate::pipeline::batcher::BatchLimits;
    use crate::source::{Link, Source, SourceError, SourceInfo};
    use crate::time::Seconds;

    /// A camera of 100 frames a second; the first opening of the one named `hangs` hangs at its third frame for good.
    struct Scripted {
        info: SourceInfo,
        hangs: bool,
        frame: u64,
        link: Link,
    }

    impl Source for Scripted {
        fn info(&self) -> &SourceInfo {
            &self.info
        }

        fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
            self.frame += 1;
            // A decoder that hangs hears nothing, not even that it is to stop: but the test must end.
            let pause = if self.hangs && self.frame == 3 {
                Duration::from_secs(6)
            } else {
                Duration::from_millis(10)
            };
            std::thread::sleep(pause);
            let pts = Seconds(0.01 * self.frame as f64);
            let frame = Frame {
                camera: self.info.camera.clone(),
                number: self.frame,
                pts,
                time: None,
                width: 64,
                height: 64,
                image: None,
                restart: false,
            };
            Ok((!self.link.stopped() || self.hangs).then_some(frame))
        }
    }

    struct Fixture {
        cameras: Cameras,
        changes: mpsc::Sender<Wanted>,
        stop: CancellationToken,
        /// Camera, number and restart of every frame, in order.
        seen: Arc<Mutex<Vec<(String, u64, bool)>>>,
        openings: Arc<Mutex<Vec<String>>>,
        said: Arc<Mutex<Vec<(String, CameraState)>>>,
        watching: tokio::task::JoinHandle<()>,
    }

    fn camera(url: &str) -> CameraConfig {
        CameraConfig {
            url: Address::new(format!("rtsp://{url}")),
            open_timeout: 0.2,
            read_timeout: 0.2,
            hang_timeout: 1.0,
            keep_ids: 5.0,
            ..CameraConfig::default()
        }
    }

    fn fixture(first: &[(&str, CameraConfig)]) -> Fixture {
        let limits = BatchLimits {
            size: 2,
            wait: Duration::ZERO,
            under_way: 1,
        };
        let batcher = Arc::new(Batcher::new(limits, |f| {
            (f.width as usize, f.height as usize)
        }));
        let (seen, said) = (
            Arc::<Mutex<Vec<_>>>::default(),
            Arc::<Mutex<Vec<_>>>::default(),
        );
        let openings = Arc::<Mutex<Vec<String>>>::default();
        let opened = openings.clone();
        let open: Opener = Arc::new(move |config, options| {
            let mut opened = opened.lock().expect("whole");
            let hangs = config.url.expose().contains("hangs")
                && !opened.iter().any(|o| o == config.url.expose());
            opened.push(config.url.expose().to_string());
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
            }))
        });
        let cameras = Cameras::default();
        let mut roster = Roster::new(
            RunId::now_v7(),
            batcher.clone(),
            cameras.clone(),
            open,
            FleetMetrics::default(),
        );
        roster.apply(
            first
                .iter()
                .map(|(name, config)| (name.to_string(), config.clone()))
                .collect(),
        );
        let (changes, rx) = mpsc::channel(1);
        let (tx, mut told) = mpsc::channel::<TrackedFrame>(100);
        let stop = CancellationToken::new();
        let watching = tokio::spawn(roster.watch(rx, tx, stop.clone()));
        let (frames, status) = (seen.clone(), said.clone());
        std::thread::spawn(move || {
            while let Some(batch) = batcher.next() {
                let mut frames = frames.lock().expect("whole");
                frames.extend(
                    batch
                        .frames
                        .into_iter()
                        .map(|w| (w.frame.camera.to_string(), w.frame.number, w.frame.restart)),
                );
                batcher.done(&[]);
            }
        });
        tokio::spawn(async move {
            while let Some(t) = told.recv().await {
                status
                    .lock()
                    .expect("whole")
                    .extend(t.status.map(|s| (s.camera.to_string(), s.state)));
            }
        });
        Fixture {
            cameras,
            changes,
            stop,
            seen,
            openings,
            said,
            watching,
        }
    }

    impl Fixture {
        fn numbers(&self, camera: &str) -> Vec<u64> {
            self.seen
                .lock()
                .expect("whole")
                .iter()
                .filter(|(name, ..)| name == camera)
                .map(|f| f.1)
                .collect()
        }

        async fn until(&self, what: &str, done: impl Fn(&Self) -> bool) {
            let start = Instant::now();
            while !done(self) {
                assert!(
                    start.elapsed() < Duration::from_secs(5),
                    "{what}: {:?}",
                    self.openings
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }

        async fn end(self) -> Vec<(String, CameraState)> {
            self.stop.cancel();
            tokio::time::timeout(Duration::from_secs(9), self.watching)
                .await
                .expect("it stops")
                .expect("no panic");
            tokio::time::sleep(Duration::from_millis(50)).await;
            self.said.lock().expect("whole").clone()
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_decoder_that_hangs_is_replaced_and_the_others_do_not_notice() {
        let f = fixture(&[("stuck", camera("hangs")), ("well", camera("well"))]);
        f.until("two frames", |f| f.numbers("stuck").len() >= 2)
            .await;
        let (before, start) = (f.numbers("well").len(), Instant::now());
        f.until("more frames", |f| f.numbers("stuck").len() >= 20)
            .await;
        let well = (f.numbers("well").len() - before) as f64 / start.elapsed().as_secs_f64();
        let numbers = f.numbers("stuck");
        assert!(numbers.windows(2).all(|w| w[0] < w[1]), "{numbers:?}");
        assert!(
            start.elapsed() > Duration::from_millis(700) && well > 40.0,
            "{well} frames/s"
        );
        let stuck = f
            .cameras
            .all()
            .into_iter()
            .find(|m| &*m.name == "stuck")
            .expect("there");
        assert_eq!(
            (stuck.counts.hung.load(Ordering::Relaxed), stuck.state()),
            (1, CameraState::Online)
        );
        let said = f.end().await;
        assert_eq!(
            said.iter()
                .filter(|(name, _)| name == "well")
                .map(|s| s.1)
                .collect::<Vec<_>>()
                .last(),
            Some(&CameraState::Ended)
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_decoders_that_hang_hold_up_the_end_no_longer_than_one() {
        let hung = ["hangs 1", "hangs 2", "hangs 3"].map(|name| {
            (
                name,
                CameraConfig {
                    hang_timeout: 60.0,
                    ..camera(name)
                },
            )
        });
        let f = fixture(&hung);
        f.until("two frames of each", |f| {
            hung.iter().all(|(name, _)| f.numbers(name).len() >= 2)
        })
        .await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let asked = Instant::now();
        let said = f.end().await;
        assert!(
            asked.elapsed() < SHUTDOWN_TIMEOUT + Duration::from_millis(1200),
            "{:?}",
            asked.elapsed()
        );
        assert_eq!(
            said.iter()
                .filter(|(_, state)| *state == CameraState::Ended)
                .count(),
            3,
            "{said:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn cameras_come_go_and_change_and_the_rest_is_not_touched() {
        let f = fixture(&[("a", camera("a")), ("b", camera("b"))]);
        f.until("frames of both", |f| {
            f.numbers("a").len() > 5 && f.numbers("b").len() > 5
        })
        .await;
        let wanted = |cameras: &[(&str, CameraConfig)]| {
            cameras
                .iter()
                .map(|(n, c)| (n.to_string(), c.clone()))
                .collect::<Wanted>()
        };
        f.changes
            .send(wanted(&[("a", camera("a")), ("c", camera("c"))]))
            .await
            .expect("heard");
        f.until("frames of c", |f| f.numbers("c").len() > 5).await;
        let last = f.numbers("b");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(f.numbers("b"), last);
        f.changes
            .send(wanted(&[
                ("a", camera("a")),
                ("b", camera("b")),
                ("c", camera("c2")),
            ]))
            .await
            .expect("heard");
        let before = f.numbers("c").len();
        f.until("b again, c by its new settings", |f| {
            f.numbers("b").len() > last.len() + 5 && f.numbers("c").len() > before + 20
        })
        .await;
        for name in ["a", "b", "c"] {
            let numbers = f.numbers(name);
            assert!(
                numbers[0] == 1 && numbers.windows(2).all(|w| w[0] < w[1]),
                "{name}: {numbers:?}"
            );
        }
        assert_eq!(
            f.cameras
                .all()
                .iter()
                .map(|m| m.name.to_string())
                .collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
        let openings = f.openings.lock().expect("whole").clone();
        assert_eq!(
            openings.iter().filter(|url| *url == "rtsp://a").count(),
            1,
            "{openings:?}"
        );
        f.end().await;
    }
}
