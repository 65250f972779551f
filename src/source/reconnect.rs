//! The state of a camera across interruptions: the time and the timeouts of the next attempt to
//! open the camera, and the presentation times of its frames, which continue over interruptions.
//! Pure: the current time is an argument.

use std::time::Duration;

use crate::frame::Frame;
use crate::source::camera_config::CameraConfig;
use crate::time::Seconds;

/// Pauses between attempts: each is twice the last one, at most `longest`; it is then multiplied by
/// a random factor from 0.8 to 1.2.
///
/// The crate `backon` was considered: its jitter can double a pause, even the longest one.
#[derive(Debug)]
pub struct Backoff {
    first: f64,
    longest: f64,
    failures: u32,
    rng: fastrand::Rng,
}

impl Backoff {
    /// Pauses from `first` to `longest` seconds, before the random factors of `seed`.
    pub fn new(first: f64, longest: f64, seed: u64) -> Self {
        Backoff {
            first,
            longest,
            failures: 0,
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// The pause after one more failure.
    pub fn pause(&mut self) -> Duration {
        let pause = (self.first * 2f64.powi(self.failures.min(30) as i32)).min(self.longest);
        self.failures += 1;
        Duration::from_secs_f64(pause * (0.8 + 0.4 * self.rng.f64()))
    }

    /// Call this after a success: the next failure counts as the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The largest factor by which timeouts grow.
const MOST_STEPS: u32 = 4;
/// If the mean interval between frames is at most this share of the timeout, the timeout is long
/// enough for the camera.
const SAFE_SHARE: f64 = 0.25;

/// Timeouts that grow for cameras that answer slowly, or deliver frames rarely.
#[derive(Debug, Default)]
struct AdaptiveTimeout {
    /// Number of attempts and connections, at most [`MOST_STEPS`], that ended by the timeout since
    /// frames last came at short intervals. The first may be chance; from the second on the timeout
    /// grows. Failures that come sooner do not count.
    steps: u32,
    /// Number and presentation time of the first and of the last frame of this connection, as the
    /// source gives them: frames may arrive in bursts, and some are dropped.
    span: Option<[(u64, Seconds); 2]>,
}

impl AdaptiveTimeout {
    fn factor(&self) -> f64 {
        f64::from(self.steps.max(1))
    }

    fn frame(&mut self, number: u64, pts: Seconds, timeout: f64) {
        let this = (number, pts);
        self.span = Some([self.span.map_or(this, |[first, _]| first), this]);
        if self.is_safe(timeout) {
            self.steps = 0;
        }
    }

    /// Whether the mean interval between frames is far below the timeout.
    fn is_safe(&self, timeout: f64) -> bool {
        self.span.is_some_and(|[(first, begin), (last, end)]| {
            last > first && (end - begin).0 < SAFE_SHARE * timeout * (last - first) as f64
        })
    }

    /// An attempt or a connection has ended, `waited` seconds after its beginning or last frame.
    fn ended(&mut self, waited: f64, timeout: f64) {
        if waited > 0.9 * timeout && !self.is_safe(timeout) {
            self.steps = (self.steps + 1).min(MOST_STEPS);
        }
    }
}

/// The last frame of a camera. It outlives connections and readers, so that numbers and times
/// continue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// Frame number within the camera.
    pub number: u64,
    /// Presentation time.
    pub pts: Seconds,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Time at which the frame arrived, on the reader's clock.
    pub at: Seconds,
}

/// Reconnecting to one camera.
#[derive(Debug)]
pub struct Reconnect {
    backoff: Backoff,
    timeouts: AdaptiveTimeout,
    /// Numbers and times that the frames of this connection are shifted by.
    offset: Option<(u64, Seconds)>,
    /// Time of the last frame of the connection, or the start of the connection or of the attempt.
    since: Seconds,
}

impl Reconnect {
    /// For a camera that is opened for the first time; `seed` randomises its pauses.
    pub fn new(config: &CameraConfig, seed: u64) -> Self {
        Reconnect {
            backoff: Backoff::new(config.retry_after, config.retry_at_most, seed),
            timeouts: AdaptiveTimeout::default(),
            offset: None,
            since: Seconds::ZERO,
        }
    }

    /// The settings to open the camera with: `config` with its timeouts adapted.
    pub fn opening(&mut self, config: &CameraConfig, now: Seconds) -> CameraConfig {
        self.since = now;
        self.timeouts.span = None;
        let factor = self.timeouts.factor();
        CameraConfig {
            open_timeout: factor * config.open_timeout,
            read_timeout: factor * config.read_timeout,
            ..config.clone()
        }
    }

    /// The camera was opened.
    pub fn opened(&mut self, now: Seconds) {
        self.since = now;
        self.offset = None;
    }

    /// Numbers a frame, shifts its presentation time so that the duration of interruptions is
    /// included, and marks it with `restart` if tracks must not continue: after a gap of more than
    /// `keep_ids`, and where the size changes.
    ///
    /// Frames of a live source are numbered without gaps. A recording keeps its own numbers; when
    /// it is opened again, they continue from its last number.
    pub fn frame(
        &mut self,
        frame: &mut Frame,
        position: &mut Option<Position>,
        config: &CameraConfig,
        live: bool,
        now: Seconds,
    ) {
        self.backoff.reset();
        self.timeouts
            .frame(frame.number, frame.pts, config.read_timeout);
        self.since = now;
        let first = self.offset.is_none();
        let (number, pts) = *self.offset.get_or_insert_with(|| match *position {
            Some(last) => (last.number, last.pts + (now - last.at) - frame.pts),
            None => (0, Seconds::ZERO),
        });
        frame.pts = frame.pts + pts;
        frame.number = match (live, *position) {
            (true, Some(last)) => last.number + 1,
            (true, None) => 1,
            (false, _) => frame.number + number,
        };
        if let Some(last) = *position {
            // Within a recording the source itself marks its gaps.
            let gap = (live || first) && (frame.pts - last.pts).0 > config.keep_ids;
            frame.restart |= gap || last.size != (frame.width, frame.height);
        }
        *position = Some(Position {
            number: frame.number,
            pts: frame.pts,
            size: (frame.width, frame.height),
            at: now,
        });
    }

    /// The camera could not be opened, or its connection ended. Returns the pause before the next
    /// attempt.
    pub fn failed(&mut self, config: &CameraConfig, now: Seconds) -> Duration {
        let shortest = config.open_timeout.min(config.read_timeout);
        self.timeouts.ended((now - self.since).0, shortest);
        self.backoff.pause()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(number: u64, pts: f64, width: u32) -> Frame {
        Frame {
            camera: "gate".into(),
            number,
            pts: Seconds(pts),
            time: None,
            width,
            height: 64,
            image: None,
            restart: false,
        }
    }

    /// Passes frames of one connection; returns number, pts and restart of each.
    fn connection(
        state: &mut Reconnect,
        position: &mut Option<Position>,
        at: f64,
        frames: &[(u64, f64, u32)],
        live: bool,
    ) -> Vec<(u64, f64, bool)> {
        let config = CameraConfig::default();
        state.opening(&config, Seconds(at));
        state.opened(Seconds(at));
        let place = |&(number, pts, width): &(u64, f64, u32)| {
            let mut f = frame(number, pts, width);
            state.frame(&mut f, position, &config, live, Seconds(at + pts));
            (f.number, (f.pts.0 * 1e6).round() / 1e6, f.restart)
        };
        frames.iter().map(place).collect()
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_again_after_a_success() {
        let mut b = Backoff::new(0.5, 3.0, 7);
        let pauses: Vec<f64> = (0..6).map(|_| b.pause().as_secs_f64()).collect();
        for (pause, want) in pauses.iter().zip([0.5, 1.0, 2.0, 3.0, 3.0, 3.0]) {
            assert!((0.8 * want..=1.2 * want).contains(pause), "{pauses:?}");
        }
        b.reset();
        assert!(b.pause().as_secs_f64() <= 0.6);
    }

    #[test]
    fn numbers_and_times_continue_after_a_short_interruption_and_tracks_do_too() {
        let config = CameraConfig::default();
        let (mut state, mut position) = (Reconnect::new(&config, 1), None);
        let first = connection(
            &mut state,
            &mut position,
            10.0,
            &[(1, 0.0, 64), (4, 0.3, 64)],
            true,
        );
        assert_eq!(first, [(1, 0.0, false), (2, 0.3, false)]);
        state.failed(&config, Seconds(11.0));
        // The last frame came at 10.3; the next connection's first comes at 12.0.
        let second = connection(
            &mut state,
            &mut position,
            12.0,
            &[(1, 0.0, 64), (2, 0.1, 64)],
            true,
        );
        assert_eq!(second, [(3, 2.0, false), (4, 2.1, false)]);
    }

    #[test]
    fn a_long_interruption_another_size_and_a_jump_of_the_camera_s_time_end_tracks() {
        let config = CameraConfig::default();
        let (mut state, mut position) = (Reconnect::new(&config, 1), None);
        connection(&mut state, &mut position, 0.0, &[(1, 0.0, 64)], true);
        let after = connection(
            &mut state,
            &mut position,
            4.0,
            &[(1, 0.0, 64), (2, 0.1, 32), (3, 0.2, 32), (4, 3.3, 32)],
            true,
        );
        let marks: Vec<bool> = after.iter().map(|f| f.2).collect();
        assert_eq!(marks, [true, true, false, true], "{after:?}");
    }

    #[test]
    fn a_recording_keeps_its_own_numbers_and_marks() {
        let config = CameraConfig::default();
        let (mut state, mut position) = (Reconnect::new(&config, 1), None);
        let frames = [(3, 0.1, 64), (7, 20.0, 64)];
        assert_eq!(
            connection(&mut state, &mut position, 0.0, &frames, false),
            [(3, 0.1, false), (7, 20.0, false)]
        );
        // Opened again: its numbers follow those before.
        assert_eq!(
            connection(&mut state, &mut position, 30.0, &[(1, 0.0, 64)], false),
            [(8, 30.0, true)]
        );
    }

    #[test]
    fn timeouts_grow_for_a_camera_that_answers_late_or_gives_few_frames() {
        let config = CameraConfig {
            open_timeout: 2.0,
            read_timeout: 2.0,
            ..CameraConfig::default()
        };
        let mut now = 0.0;
        let mut attempt = |state: &mut Reconnect, frames: &[(u64, f64)], silence: f64| {
            let timeout = state.opening(&config, Seconds(now)).open_timeout / 2.0;
            state.opened(Seconds(now));
            let mut position = None;
            for &(number, pts) in frames {
                let mut f = frame(number, pts, 64);
                state.frame(&mut f, &mut position, &config, true, Seconds(now + pts));
            }
            now += frames.last().map_or(0.0, |f| f.1) + silence;
            state.failed(&config, Seconds(now));
            timeout
        };
        // The camera answers late: the timeouts grow to at most four times the configured ones. An
        // immediate refusal does not change them.
        let mut slow = Reconnect::new(&config, 1);
        let factors =
            [2.0, 2.0, 0.1, 4.0, 6.0, 8.0, 8.0].map(|silence| attempt(&mut slow, &[], silence));
        assert_eq!(factors, [1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 4.0]);
        // A frame every three seconds: the longer timeout stays, and grows where it is not enough.
        let mut rare = Reconnect::new(&config, 1);
        let factors = [
            attempt(&mut rare, &[(0, 0.0)], 2.0),
            attempt(&mut rare, &[(0, 0.0)], 2.0),
            attempt(&mut rare, &[(0, 0.0), (1, 3.0)], 4.0),
            attempt(&mut rare, &[(0, 0.0), (20, 2.0), (40, 4.0)], 2.0),
            attempt(&mut rare, &[], 0.1),
        ];
        // Ten frames a second, then silence: the camera is gone, not slow, and its timeouts shrink.
        assert_eq!(factors, [1.0, 1.0, 2.0, 3.0, 1.0]);
    }
}
