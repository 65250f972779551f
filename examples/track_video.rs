//! Tracks people in a video and calls a function for every event.
//!
//! ```text
//! cargo run --release --example track_video -- samples/pets2009-s2l1.mp4
//! ```

#![allow(clippy::print_stdout, reason = "the output of a program")]

use std::error::Error;

use twintrack::prelude::*;

/// A sink that passes events to a closure.
struct Callback<F>(F);

impl<F: FnMut(&Event) + Send> Sink for Callback<F> {
    fn frame(&mut self, result: &FrameResult) -> Result<(), SinkError> {
        (self.0)(&Event::Frame(result.event.clone()));
        Ok(())
    }

    fn ended(&mut self, event: &WithJson<EndedEvent>) -> Result<(), SinkError> {
        (self.0)(&Event::Ended(EndedEvent::clone(event)));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let input = std::env::args().nth(1).ok_or("usage: track_video INPUT")?;
    let (config, runtime) = (Config::default(), Runtime::load()?);
    let detector = Detector::open(&runtime, &config.detector, config.session())?;
    let embedder = Embedder::open(&runtime, &config.embedder, config.session())?;

    let on_event = |event: &Event| match event {
        Event::Frame(frame) => println!("frame {}: {} people", frame.frame, frame.tracks.len()),
        Event::Ended(track) => println!("track {} ended", track.id),
        _ => {}
    };
    let input = Input::open(&input, SourceOptions::default())?;
    let detections = DetectionSource::Network(Box::new(detector));
    let mut pipeline = Pipeline::new(Inputs::One(input), detections);
    pipeline.embedder = Some(embedder);
    pipeline.tracker = config.tracker(false);
    pipeline.sinks.push(Box::new(Callback(on_event)));

    let summary = pipeline.run().await?;
    println!("{} people in {} frames", summary.people, summary.frames);
    Ok(())
}
