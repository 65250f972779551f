//! The results of the measurements, as a table and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

/// Frame rates, in frames per second, for which the number of cameras is given.
const RATES: [u32; 2] = [15, 25];

/// The whole report.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Name and version of this format.
    pub schema: &'static str,
    /// Version of the program.
    pub version: &'static str,
    /// Name of the processor.
    pub processor: String,
    /// Number of cores that the program may use.
    pub cores: usize,
    /// CPU threads of each network.
    pub threads: usize,
    /// The detector.
    pub detector: Network,
    /// The embedder; absent if `embedder.enabled` is false.
    pub embedder: Option<Network>,
    /// The measurements: of the input, and of the input scaled to 1920x1080.
    pub measurements: Vec<Measurement>,
    /// Number of cameras that this machine can process.
    pub cameras: Vec<Cameras>,
}

/// A network in use.
#[derive(Debug, Clone, Serialize)]
pub struct Network {
    /// Name of its file.
    pub file: String,
    /// Number format in which most of its weights are used.
    pub precision: &'static str,
    /// Execution provider.
    pub provider: String,
}

/// The costs at one frame size.
#[derive(Debug, Clone, Serialize)]
pub struct Measurement {
    /// Name of the input.
    pub input: String,
    /// Width and height of a frame in pixels.
    pub size: [u32; 2],
    /// Width and height of the detector's input in pixels.
    pub detector_input: [usize; 2],
    /// Number of recordings tracked together.
    pub recordings: usize,
    /// Number of frames of each recording.
    pub frames: usize,
    /// Mean number of detections per frame.
    pub detections: f64,
    /// Mean number of frames in a batch of the detector while the recordings are tracked together.
    pub batch: f64,
    /// Costs of each stage.
    pub stages: Vec<Stage>,
    /// Frames per second if one stage runs after the other.
    pub alone_frames_per_second: f64,
    /// Frames per second of all recordings, tracked together.
    pub together_frames_per_second: f64,
    /// Peak resident memory in bytes of the process while tracking; absent if unknown.
    pub peak_memory: Option<u64>,
}

/// The costs of a stage.
#[derive(Debug, Clone, Serialize)]
pub struct Stage {
    /// Name of the stage.
    pub stage: &'static str,
    /// Cost while no other stage runs.
    pub alone: Cost,
    /// Cost in the pipeline, while all stages run.
    pub together: Cost,
}

/// The time of a stage per frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// Median in milliseconds.
    pub p50_ms: f64,
    /// 95th percentile in milliseconds.
    pub p95_ms: f64,
    /// Frames per second: 1 divided by the mean time per frame.
    pub frames_per_second: f64,
}

/// Number of cameras of 1920x1080 that this machine can process at a frame rate.
#[derive(Debug, Clone, Serialize)]
pub struct Cameras {
    /// Frames per second of each camera.
    pub frame_rate: u32,
    /// Number of cameras.
    pub cameras: u64,
}

impl Cost {
    /// The cost of frames with these times; zeros if there are no frames.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let total: Duration = times.iter().sum();
        let quantile = |share: f64| {
            // Nearest rank: the smallest time such that at least this share of the frames took no
            // longer.
            let rank = (share * times.len() as f64).ceil() as usize;
            let time = times.get(rank.saturating_sub(1));
            rounded(1e3 * time.map_or(0.0, Duration::as_secs_f64))
        };
        Cost {
            p50_ms: quantile(0.5),
            p95_ms: quantile(0.95),
            frames_per_second: rate(times.len(), total),
        }
    }
}

/// Frames per second, rounded to hundredths; 0 without frames.
pub fn rate(frames: usize, took: Duration) -> f64 {
    if frames == 0 {
        return 0.0;
    }
    rounded(frames as f64 / took.as_secs_f64().max(1e-9))
}

/// Rounds to hundredths.
pub fn rounded(value: f64) -> f64 {
    (100.0 * value).round() / 100.0
}

/// The number of cameras at each of [`RATES`] that a machine can process if it tracks
/// `frames_per_second` frames per second of all cameras together.
pub fn cameras(frames_per_second: f64) -> Vec<Cameras> {
    let held = |frame_rate: u32| Cameras {
        frame_rate,
        cameras: (frames_per_second / f64::from(frame_rate)) as u64,
    };
    RATES.map(held).into()
}

impl Report {
    /// The report as text: Markdown tables with aligned columns.
    pub fn table(&self) -> String {
        let mut out = format!(
            "twintrack {} on {}, {} cores; {} threads a network\n",
            self.version, self.processor, self.cores, self.threads
        );
        line(&mut out, &format!("detector: {}", self.detector.text()));
        let embedder = self.embedder.as_ref().map(Network::text);
        let embedder = embedder.unwrap_or_else(|| "none".into());
        line(&mut out, &format!("embedder: {embedder}"));
        for measurement in &self.measurements {
            out += "\n";
            measurement.write(&mut out);
        }
        if let Some(last) = self.measurements.last() {
            out += "\n";
            self.write_cameras(last, &mut out);
        }
        out
    }

    fn write_cameras(&self, measured: &Measurement, out: &mut String) {
        for Cameras {
            frame_rate,
            cameras,
        } in &self.cameras
        {
            line(
                out,
                &format!("cameras of 1920x1080 at {frame_rate} frames/s: {cameras}"),
            );
        }
        let (rate, recordings) = (measured.together_frames_per_second, measured.recordings);
        line(
            out,
            &format!(
                "  (the {rate:.1} frames/s of {recordings} recordings of 1920x1080 in one \
                 process, divided by the frame rate and rounded down; the machine is then fully \
                 used)"
            ),
        );
    }
}

impl Network {
    fn text(&self) -> String {
        format!("{}, {}, {}", self.file, self.precision, self.provider)
    }
}

impl Measurement {
    fn write(&self, out: &mut String) {
        let ([w, h], [dw, dh]) = (self.size, self.detector_input);
        line(
            out,
            &format!(
                "{}: {w}x{h}, detector input {dw}x{dh}, {:.1} detections per frame; \
                 together: {} recording(s) of {} frames each, {:.1} frames per batch",
                self.input, self.detections, self.recordings, self.frames, self.batch
            ),
        );
        let heads = [
            "stage",
            "alone: p50 ms",
            "p95 ms",
            "frames/s",
            "together: p50 ms",
            "p95 ms",
            "frames/s",
        ];
        out.push('\n');
        let mut rows = vec![heads.map(String::from)];
        rows.extend(self.stages.iter().map(Stage::row));
        let empty = String::new;
        rows.push([
            "all".into(),
            empty(),
            empty(),
            format!("{:.1}", self.alone_frames_per_second),
            empty(),
            empty(),
            format!("{:.1}", self.together_frames_per_second),
        ]);
        let memory = self.peak_memory.map_or("unknown".into(), |bytes| {
            format!("{:.0} MB", bytes as f64 / 1e6)
        });
        let mut last: [String; 7] = Default::default();
        (last[0], last[6]) = ("peak memory".into(), memory);
        rows.push(last);
        markdown(&rows, out);
    }
}

impl Stage {
    fn row(&self) -> [String; 7] {
        let ms = |v: f64| format!("{v:.2}");
        let (a, t) = (self.alone, self.together);
        [
            self.stage.into(),
            ms(a.p50_ms),
            ms(a.p95_ms),
            format!("{:.1}", a.frames_per_second),
            ms(t.p50_ms),
            ms(t.p95_ms),
            format!("{:.1}", t.frames_per_second),
        ]
    }
}

/// Writes the rows as a Markdown table. The first row is the heading; numbers are right-aligned.
fn markdown(rows: &[[String; 7]], out: &mut String) {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max();
    let widths: [usize; 7] = std::array::from_fn(|column| width(column).unwrap_or(0));
    for (number, row) in rows.iter().enumerate() {
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let cell = if column == 0 {
                format!("| {cell:<width$} ")
            } else {
                format!("| {cell:>width$} ")
            };
            *out += &cell;
        }
        *out += "|\n";
        if number == 0 {
            for (column, width) in widths.into_iter().enumerate() {
                let end = if column == 0 { '-' } else { ':' };
                *out += &format!("|{:-<width$}{end}", "-", width = width + 1);
            }
            *out += "|\n";
        }
    }
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(ms: f64) -> Cost {
        Cost {
            p50_ms: ms,
            p95_ms: 2.0 * ms,
            frames_per_second: 1e3 / ms,
        }
    }

    fn report() -> Report {
        let network = |file: &str| Network {
            file: file.into(),
            precision: "int8",
            provider: "CPU".into(),
        };
        let stage = |stage, ms: f64| Stage {
            stage,
            alone: cost(ms),
            together: cost(1.25 * ms),
        };
        Report {
            schema: "twintrack.bench/1",
            version: "0.1.0",
            processor: "a processor".into(),
            cores: 2,
            threads: 2,
            detector: network("d.onnx"),
            embedder: None,
            measurements: vec![Measurement {
                input: "a.mp4".into(),
                size: [768, 576],
                detector_input: [768, 576],
                recordings: 3,
                frames: 20,
                detections: 5.3,
                batch: 2.6,
                stages: vec![stage("decode", 2.0), stage("detect", 16.0)],
                alone_frames_per_second: 55.6,
                together_frames_per_second: 61.9,
                peak_memory: Some(212_000_000),
            }],
            cameras: cameras(61.9),
        }
    }

    #[test]
    fn quantiles_are_nearest_ranks() {
        let times = |n: u64| (1..=n).rev().map(Duration::from_millis).collect();
        let of_hundred = Cost::of(times(100));
        assert_eq!((of_hundred.p50_ms, of_hundred.p95_ms), (50.0, 95.0));
        assert_eq!(Cost::of(times(1)), cost_of_one());
        assert_eq!(Cost::of(Vec::new()).frames_per_second, 0.0);
    }

    fn cost_of_one() -> Cost {
        Cost {
            p50_ms: 1.0,
            p95_ms: 1.0,
            frames_per_second: 1000.0,
        }
    }

    #[test]
    fn cameras_are_rounded_down() {
        let held: Vec<u64> = cameras(74.9).iter().map(|c| c.cameras).collect();
        assert_eq!(held, [4, 2]);
    }

    #[test]
    fn the_table_has_every_number_of_the_json() {
        let (table, json) = (report().table(), serde_json::to_value(report()).unwrap());
        let measured = &json["measurements"][0];
        let row = |name: &str| {
            let of_row = |l: &&str| l.starts_with(&format!("| {name} "));
            let line = table.lines().find(of_row).unwrap_or_else(|| {
                panic!("{name} is missing from\n{table}");
            });
            let cells = line.trim_matches('|').split('|').skip(1);
            cells
                .filter_map(|c| c.trim().parse().ok())
                .collect::<Vec<f64>>()
        };
        for stage in measured["stages"].as_array().unwrap() {
            let number = |when: &str, key: &str| stage[when][key].as_f64().unwrap();
            let keys = ["p50_ms", "p95_ms", "frames_per_second"];
            let wanted = ["alone", "together"].map(|when| keys.map(|key| number(when, key)));
            assert_eq!(row(stage["stage"].as_str().unwrap()), wanted.concat());
        }
        let all = ["alone_frames_per_second", "together_frames_per_second"];
        assert_eq!(row("all"), all.map(|key| measured[key].as_f64().unwrap()));
        for camera in json["cameras"].as_array().unwrap() {
            let (rate, held) = (&camera["frame_rate"], &camera["cameras"]);
            let text = format!("cameras of 1920x1080 at {rate} frames/s: {held}\n");
            assert!(table.contains(&text), "{text} is missing from\n{table}");
        }
        let parts = [
            "a processor, 2 cores; 2 threads",
            "d.onnx, int8, CPU",
            "embedder: none",
            "a.mp4: 768x576",
            "5.3 detections per frame",
            "3 recording(s) of 20 frames each, 2.6 frames per batch",
            "212 MB",
        ];
        for part in parts {
            assert!(table.contains(part), "{part} is missing from\n{table}");
        }
    }

    #[test]
    fn columns_of_the_table_are_aligned() {
        let table = report().table();
        let lengths: Vec<usize> = table
            .lines()
            .filter(|l| l.starts_with('|'))
            .map(str::len)
            .collect();
        assert_eq!(lengths.len(), 6);
        assert!(lengths.windows(2).all(|pair| pair[0] == pair[1]), "{table}");
    }
}
