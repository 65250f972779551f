//! Detection on frames that are prepared on the detector's device, and the size of its batches.

use std::time::{Duration, Instant};

use super::Detector;
use crate::detect::letterbox::Letterbox;
use crate::detection::Detection;
use crate::frame::{Image, Shape};
use crate::infer::{DevicePictures, FrameLoader, InferError};

impl Detector {
    /// Detects people in a batch that is in the device's memory, as [`Detector::detect`]. Before
    /// the first batch of an input size, prepares the device for batches of this size.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    pub fn detect_on_device(
        &mut self,
        batch: &DevicePictures,
        letterboxes: &[(Letterbox, (u32, u32))],
    ) -> Result<Vec<Vec<Detection>>, InferError> {
        let input = batch.size();
        if self.prepared.insert(input) {
            self.prepare(input)?;
        }
        let outputs = self.model.run_on_device(batch)?;
        self.decoded(&outputs, input, letterboxes)
    }

    /// Sets the largest number of frames that a batch is expected to have.
    pub fn expect_batches(&mut self, largest: usize) {
        self.largest_batch = largest;
    }

    /// Runs black batches of all expected sizes, so that the device is prepared for them.
    fn prepare(&mut self, input: (usize, usize)) -> Result<(), InferError> {
        if !self.model.provider().is_gpu() {
            return Ok(());
        }
        let (start, (width, height)) = (Instant::now(), input);
        let (provider, frames) = (self.model.provider(), self.model.padded(self.largest_batch));
        tracing::info!(%provider, width, height, "preparing the detector for 1 to {frames} frames");
        self.model.warm_up(input, frames, |frames| {
            tracing::debug!(
                width,
                height,
                frames,
                "the detector is prepared for this batch"
            );
        })?;
        tracing::info!(
            seconds = start.elapsed().as_secs_f32(),
            "the detector is prepared"
        );
        Ok(())
    }

    /// Takes the loader that prepares the detector's input on its device, so that another thread
    /// can use the loader. `None` if the CPU prepares the input.
    pub fn take_loader(&mut self) -> Option<FrameLoader> {
        self.loader.take()
    }

    /// The number of frames of this shape, at most `most`, that the detector processes fastest
    /// together, measured on black frames: the smallest batch whose time per frame is within a
    /// tenth of the shortest. 1 where frames are prepared on the CPU.
    ///
    /// # Errors
    /// As [`Detector::detect`].
    pub fn fastest_batch(&mut self, shape: Shape, most: usize) -> Result<usize, InferError> {
        let Some(mut loader) = self.loader.take() else {
            return Ok(1);
        };
        let times = self.batch_times(&mut loader, shape, most);
        self.loader = Some(loader);
        self.model.reset_busy();
        let times = times?;
        let per_frame = |&(n, time): &(usize, Duration)| time.as_secs_f64() / n as f64;
        let best = times.iter().map(per_frame).fold(f64::INFINITY, f64::min);
        let chosen = times.iter().find(|t| per_frame(t) <= 1.1 * best);
        let frames = chosen.map_or(1, |&(n, _)| n);
        tracing::info!(
            frames,
            ?times,
            "frames of a recording that are detected together"
        );
        Ok(frames)
    }

    /// For batches of 1, 2, 4, … frames, at most `most`, the shortest time of four runs.
    fn batch_times(
        &mut self,
        loader: &mut FrameLoader,
        shape: Shape,
        most: usize,
    ) -> Result<Vec<(usize, Duration)>, InferError> {
        let (width, height) = shape.stored;
        let black = vec![0; 3 * width as usize * height as usize];
        let image = Image::packed(width, height, black.into());
        let place = (self.scaling.letterbox(shape), shape.stored);
        self.expect_batches(most);
        let mut times = Vec::new();
        let mut frames = 1;
        while frames <= most && self.model.padded(frames) == frames {
            let images = vec![&image; frames];
            let mut shortest = Duration::MAX;
            for _ in 0..4 {
                let start = Instant::now();
                let (pictures, _) = loader.load(&images, place.0.placement())?;
                self.detect_on_device(&pictures, &vec![place; frames])?;
                shortest = shortest.min(start.elapsed());
            }
            times.push((frames, shortest));
            frames *= 2;
        }
        Ok(times)
    }
}
