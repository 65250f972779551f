//! Compares the time that decoders need for the first frames of video files, as BGR. In each round
//! every decoder decodes the file once, so that changes in the machine's load affect all decoders
//! alike:
//!
//!     cargo bench --bench decode -- FILE ...
//!
//! Prints for each file and decoder the milliseconds per frame, medians over the rounds: wall-clock
//! time, and processor time of all threads together. The decoders are OpenCV's `grab` alone, its
//! `grab` with `retrieve` (one thread per core in both cases), and twintrack's source with 1, 2 and
//! 4 threads.

use std::error::Error;
use std::time::Instant;

use opencv::core::Mat;
use opencv::prelude::*;
use opencv::videoio::{self, VideoCapture};
use twintrack::source::{self, SourceConfig, SourceOptions};

const ROUNDS: usize = 5;
const FRAMES: usize = 150;
const THREADS: [usize; 3] = [1, 2, 4];

/// Milliseconds per frame.
struct Cost {
    wall: f64,
    processor: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    for file in std::env::args().skip(1).filter(|a| !a.starts_with('-')) {
        let mut costs: [Vec<Cost>; 5] = Default::default();
        for _ in 0..ROUNDS {
            costs[0].push(cost(|| opencv(&file, false))?);
            costs[1].push(cost(|| opencv(&file, true))?);
            for (costs, threads) in costs[2..].iter_mut().zip(THREADS) {
                costs.push(cost(|| twintrack(&file, threads))?);
            }
        }
        eprintln!("{file}");
        let ours = THREADS.map(|n| format!("twintrack, threads: {n}"));
        let theirs = ["OpenCV, grab", "OpenCV, grab and retrieve"].map(String::from);
        let names = [&theirs[..], &ours[..]].concat();
        for (name, costs) in names.iter().zip(&costs) {
            let median = |of: fn(&Cost) -> f64| {
                let mut all: Vec<f64> = costs.iter().map(of).collect();
                all.sort_by(f64::total_cmp);
                all[all.len() / 2]
            };
            let (wall, processor) = (median(|c| c.wall), median(|c| c.processor));
            eprintln!("  {name:<26} {wall:7.2} ms {processor:7.2} ms of the processor");
        }
    }
    Ok(())
}

/// The cost per frame of `read`, which returns the number of frames it read.
fn cost(read: impl FnOnce() -> Result<usize, Box<dyn Error>>) -> Result<Cost, Box<dyn Error>> {
    let (start, before) = (Instant::now(), processor_time());
    let frames = read()?.max(1) as f64;
    Ok(Cost {
        wall: 1e3 * start.elapsed().as_secs_f64() / frames,
        processor: 1e3 * (processor_time() - before) / frames,
    })
}

/// Seconds that all threads of this process have worked.
fn processor_time() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    // Fields 14 and 15 of proc(5), in hundredths of a second.
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn opencv(file: &str, retrieve: bool) -> Result<usize, Box<dyn Error>> {
    let mut capture = VideoCapture::from_file(file, videoio::CAP_FFMPEG)?;
    let (mut mat, mut frames) = (Mat::default(), 0);
    while frames < FRAMES && capture.grab()? {
        if retrieve {
            capture.retrieve(&mut mat, 0)?;
        }
        frames += 1;
    }
    Ok(frames)
}

fn twintrack(file: &str, threads: usize) -> Result<usize, Box<dyn Error>> {
    let decoding = SourceConfig::default().with_threads(threads);
    let mut source = source::open(file, &SourceOptions::default().with_decoding(decoding))?;
    let mut frames = 0;
    while frames < FRAMES && source.next_frame()?.is_some() {
        frames += 1;
    }
    Ok(frames)
}
