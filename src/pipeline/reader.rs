//! Reading one camera of many: a thread of its own, and whatever goes wrong stays here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use crate::frame::CameraState;
use crate::pipeline::batcher::{Batcher, Lane};
use crate::pipeline::cameras::{Last, Member};
use crate::pipeline::stage::{self, Outcome};
use crate::source::camera::{Backoff, CameraConfig};
use crate::source::{Source, SourceError, SourceOptions};
use crate::time::Seconds;

/// How a camera is opened.
pub type Opener = Arc<
    dyn Fn(&CameraConfig, &SourceOptions) -> Result<Box<dyn Source>, SourceError> + Send + Sync,
>;

/// Reads a camera into its lane until it ends or its link says stop. Whatever goes wrong with it stays here; one with an address
/// is begun anew after a pause.
pub(super) fn read(member: Member, lane: Lane, batcher: Arc<Batcher>, open: Opener) -> Outcome<()> {
    stage::spawn("decode", move || {
        let Member {
            name, config, link, ..
        } = &member;
        let mut backoff = Backoff::new(config.retry_after, config.retry_at_most, fastrand::u64(..));
        while !link.stopped() {
            link.beat();
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                play(&member, lane, &batcher, &open, &mut backoff)
            }));
            match outcome {
                Ok(Ok(())) => break,
                Ok(Err(e)) => link.failed(name, &e.to_string()),
                Err(_) => link.failed(
                    name,
                    "reading it crashed; this is a bug of twintrack, please report it",
                ),
            }
            if !config.has_address() {
                break;
            }
            link.set(CameraState::Offline);
            link.pause(backoff.pause());
        }
        link.set(CameraState::Ended);
        Ok(())
    })
}

/// Plays what the camera gives into its lane; frame numbers and times go on from where the camera's last reader stood.
fn play(
    member: &Member,
    lane: Lane,
    batcher: &Batcher,
    open: &Opener,
    backoff: &mut Backoff,
) -> Result<(), SourceError> {
    let link = &member.link;
    let options = SourceOptions {
        camera: Some(member.name.to_string()),
        link: link.clone(),
        ..SourceOptions::default()
    };
    let mut source = open(&member.config, &options)?;
    let live = source.info().live;
    let mut offset = None;
    while !link.stopped() {
        link.beat();
        let Some(mut frame) = source.next_frame()? else {
            break;
        };
        backoff.reset();
        link.set(CameraState::Online);
        member.counts.read.fetch_add(1, Ordering::Relaxed);
        {
            let mut place = member.place.lock().unwrap_or_else(PoisonError::into_inner);
            // Another reader may have taken over while this one hung.
            if link.stopped() {
                break;
            }
            let (number, pts) = *offset.get_or_insert_with(|| match *place {
                Some(last) => {
                    let gap = last.at.elapsed().as_secs_f64();
                    frame.restart |=
                        gap > member.config.keep_ids || last.size != (frame.width, frame.height);
                    (last.number, last.pts + Seconds(gap) - frame.pts)
                }
                None => (0, Seconds::ZERO),
            });
            frame.number += number;
            frame.pts = frame.pts + pts;
            *place = Some(Last {
                number: frame.number,
                pts: frame.pts,
                size: (frame.width, frame.height),
                at: Instant::now(),
            });
            if live {
                if batcher.offer(lane, frame) {
                    member.counts.detector_busy.fetch_add(1, Ordering::Relaxed);
                }
                continue;
            }
        }
        if !batcher.offer_patiently(lane, frame) {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::time::Duration;

    use super::*;
    use crate::address::Address;
    use crate::frame::Frame;
    use crate::pipeline::batcher::BatchLimits;
    use crate::source::SourceInfo;

    /// A camera that misbehaves: what it does is decided by the number of its opening and of its frame.
    struct Wild {
        info: SourceInfo,
        opening: u64,
        frame: u64,
    }

    impl Source for Wild {
        fn info(&self) -> &SourceInfo {
            &self.info
        }

        fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
            self.frame += 1;
            std::thread::sleep(Duration::from_millis(5));
            match (self.opening, self.frame) {
                (1, 4) => panic!("a decoder that crashes"),
                (2, 4) => Err(SourceError::CameraLost {
                    input: "wild".into(),
                }),
                (3, 6) => Ok(None),
                (_, n) => Ok(Some(Frame {
                    camera: "wild".into(),
                    number: n,
                    pts: Seconds(0.1 * n as f64),
                    time: None,
                    width: 64,
                    height: 64,
                    image: None,
                    restart: false,
                })),
            }
        }
    }

    #[test]
    fn a_crash_in_decoding_and_a_loss_are_gone_over_and_numbers_and_times_go_on() {
        let limits = BatchLimits {
            size: 1,
            wait: Duration::ZERO,
            under_way: 1,
        };
        let batcher = Arc::new(Batcher::new(limits, |f| {
            (f.width as usize, f.height as usize)
        }));
        let lane = batcher.join(1.0);
        let openings = Arc::new(AtomicU64::new(0));
        let count = openings.clone();
        let open: Opener = Arc::new(move |_, _| {
            let info = SourceInfo {
                camera: "wild".into(),
                width: 64,
                height: 64,
                frame_rate: 10.0,
                frames: None,
                live: false,
                has_pixels: false,
            };
            Ok(Box::new(Wild {
                info,
                opening: count.fetch_add(1, Ordering::Relaxed) + 1,
                frame: 0,
            }))
        });
        let config = CameraConfig {
            url: Address::new("rtsp://wild/1"),
            retry_after: 0.05,
            retry_at_most: 0.05,
            keep_ids: 0.0,
            ..CameraConfig::default()
        };
        let member = Member::new("wild", config);
        let link = member.link.clone();
        let done = read(member, lane, batcher.clone(), open);
        let mut frames = Vec::new();
        while frames.len() < 11 {
            let batch = batcher.next().expect("a frame");
            frames.extend(batch.frames.into_iter().map(|w| w.frame));
            batcher.done(&[]);
        }
        done.blocking_recv()
            .expect("it ends")
            .expect("without an error");
        assert_eq!(
            frames.iter().map(|f| f.number).collect::<Vec<_>>(),
            (1..=11).collect::<Vec<_>>()
        );
        assert!(frames.windows(2).all(|w| w[0].pts < w[1].pts));
        assert_eq!(
            frames
                .iter()
                .filter(|f| f.restart)
                .map(|f| f.number)
                .collect::<Vec<_>>(),
            [4, 7]
        );
        assert_eq!(
            (
                link.failures(),
                openings.load(Ordering::Relaxed),
                link.state()
            ),
            (2, 3, CameraState::Ended)
        );
    }
}
