//! Unusual, damaged and incomplete inputs are read as far as possible, and missing parts are
//! reported.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use common::{Running, clip, ffmpeg, has_ffmpeg, json_lines, run, text, twintrack};
use serde_json::Value;

/// `twintrack track` in the folder `dir`, with the detections in its `det.txt` instead of networks.
fn track(dir: &Path, input: &str) -> Command {
    let detections = dir.join("det.txt");
    if !detections.exists() {
        std::fs::write(&detections, "").unwrap();
    }
    let mut c = twintrack();
    c.current_dir(dir).args([
        "track",
        "--detections",
        "det.txt",
        "--no-embed",
        "--threads",
        "1",
    ]);
    if input.starts_with('-') {
        c.arg("--");
    }
    c.arg(input);
    c
}

fn frames(out: &Output) -> Vec<Value> {
    json_lines(&text(&out.stdout))
        .into_iter()
        .filter(|e| e["schema"] == "twintrack.trajectory/1")
        .collect()
}

fn times(out: &Output) -> Vec<f64> {
    frames(out)
        .iter()
        .map(|e| (e["pts"].as_f64().unwrap() * 100.0).round() / 100.0)
        .collect()
}

/// Writes a detection of one person in every frame.
fn one_person(dir: &Path, frames: u64) {
    let rows: String = (1..=frames)
        .map(|f| format!("{f},-1,20,10,16,40,0.9\n"))
        .collect();
    std::fs::write(dir.join("det.txt"), rows).unwrap();
}

/// A temporary folder; None, with a message, if ffmpeg is not installed.
fn folder() -> Option<tempfile::TempDir> {
    has_ffmpeg().then(|| tempfile::tempdir().unwrap())
}

const PATTERN: &str = "-f lavfi -i testsrc=size=64x64:rate=10:duration=4";

#[test]
fn a_file_is_only_compared_with_a_number_of_frames_that_it_stores() {
    let Some(dir) = folder() else { return };
    ffmpeg(
        dir.path(),
        &format!("{PATTERN} -f lavfi -i sine=duration=9 -c:a pcm_s16le sound.mkv"),
    );
    ffmpeg(
        dir.path(),
        &format!("{PATTERN} -vf select='lt(n,5)+gt(n,30)' -vsync vfr uneven.mkv"),
    );
    ffmpeg(
        dir.path(),
        &format!("{PATTERN} -movflags +frag_keyframe+empty_moov -g 10 fragments.mp4"),
    );
    for (name, count) in [("sound.mkv", 40), ("uneven.mkv", 14), ("fragments.mp4", 40)] {
        let out = run(track(dir.path(), name).arg("--strict"));
        assert_eq!(frames(&out).len(), count, "{name}: {}", text(&out.stderr));
        assert_eq!(
            frames(&run(track(dir.path(), name).arg("--offline"))).len(),
            count,
            "{name}"
        );
    }
}

#[test]
fn a_part_cut_from_a_video_without_encoding_is_not_reported_as_truncated() {
    let Some(dir) = folder() else { return };
    ffmpeg(dir.path(), &format!("{PATTERN} -g 40 whole.mp4"));
    ffmpeg(dir.path(), "-ss 2 -i whole.mp4 -c copy part.mp4");
    let out = run(track(dir.path(), "part.mp4").arg("--strict"));
    assert!(
        (15..=40).contains(&frames(&out).len()),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn a_truncated_file_is_tracked_to_its_end_and_exits_1() {
    let Some(dir) = folder() else { return };
    let pattern = "-f lavfi -i testsrc=size=320x240:rate=10:duration=4 -g 5";
    for encoding in [
        "-movflags +faststart a.mp4",
        "b.ts",
        "c.mkv",
        "-c:v mpeg4 d.avi",
    ] {
        ffmpeg(dir.path(), &format!("{pattern} {encoding}"));
    }
    for name in ["a.mp4", "b.ts", "c.mkv", "d.avi"] {
        let whole = std::fs::read(dir.path().join(name)).unwrap();
        assert_eq!(
            frames(&run(&mut track(dir.path(), name))).len(),
            40,
            "{name}"
        );
        // The file is cut within a packet of the transport stream, because a cut between packets
        // cannot be detected.
        std::fs::write(
            dir.path().join(name),
            &whole[..whole.len() / 2 / 188 * 188 + 94],
        )
        .unwrap();
        for more in [&[][..], &["--offline"]] {
            let out = track(dir.path(), name).args(more).output().unwrap();
            let stderr = text(&out.stderr);
            assert!(
                out.status.code() == Some(1) && stderr.contains("is cut short after frame"),
                "{name} {more:?}: {stderr}"
            );
            assert!(
                (5..40).contains(&frames(&out).len()),
                "{name} {more:?}: {} frames",
                frames(&out).len()
            );
        }
    }
    let whole = std::fs::read(dir.path().join("a.mp4")).unwrap();
    std::fs::write(dir.path().join("a.mp4"), &whole[..300]).unwrap();
    let out = track(dir.path(), "a.mp4").output().unwrap();
    assert!(
        text(&out.stderr).contains("cut short (300 of "),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn names_with_special_characters_are_read_and_written() {
    let Some(dir) = folder() else { return };
    ffmpeg(dir.path(), &format!("{PATTERN} plain.mp4"));
    let names = [
        "2026-11-26T10:00:00.mp4",
        "yard %03d 100%.mp4",
        "höf 側.mp4",
        "-front.mp4",
        "http:clip.mp4",
    ];
    for name in names {
        std::fs::copy(dir.path().join("plain.mp4"), dir.path().join(name)).unwrap();
        let video = format!("--video=out {name}");
        let out = run(track(dir.path(), "plain.mp4").args(["--output=x.jsonl", &video]));
        assert!(
            dir.path()
                .join(format!("out {name}"))
                .metadata()
                .unwrap()
                .len()
                > 1000,
            "{}",
            text(&out.stderr)
        );
        assert_eq!(
            frames(&run(&mut track(dir.path(), name))).len(),
            40,
            "{name}"
        );
    }
    let out =
        run(track(dir.path(), "plain.mp4").args(["--output=x.jsonl", "--video=10:00:00.mp4"]));
    assert!(
        dir.path().join("10:00:00.mp4").metadata().unwrap().len() > 1000,
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn the_presentation_times_of_a_file_are_used() {
    let Some(dir) = folder() else { return };
    ffmpeg(
        dir.path(),
        "-f lavfi -i testsrc=size=64x64:rate=1/20:duration=100 lapse.mkv",
    );
    assert_eq!(
        times(&run(&mut track(dir.path(), "lapse.mkv"))),
        [0.0, 20.0, 40.0, 60.0, 80.0]
    );
    let part = run(track(dir.path(), "lapse.mkv").args(["--start", "30", "--duration", "40"]));
    assert_eq!(times(&part), [40.0, 60.0]);
}

#[test]
fn tracks_end_at_a_gap_in_a_recording() {
    let Some(dir) = folder() else { return };
    ffmpeg(
        dir.path(),
        &format!("{PATTERN} -vf setpts='PTS+gt(N,19)*60/TB' -vsync vfr gap.mkv"),
    );
    one_person(dir.path(), 40);
    let keep = dir.path().join("keep.toml");
    std::fs::write(&keep, "[tracker]\nkeep_lost = 100.0\n").unwrap();
    let out = run(track(dir.path(), "gap.mkv").args(["--config", "keep.toml"]));
    let all = frames(&out);
    let id = |i: usize| all[i]["tracks"][0]["id"].as_u64().unwrap();
    assert_eq!(
        (all.len(), times(&out)[19], times(&out)[20]),
        (40, 1.9, 62.0)
    );
    assert!(
        id(19) == id(10) && id(39) == id(30) && id(19) != id(39),
        "{} {}",
        id(19),
        id(39)
    );
}

#[test]
fn people_are_detected_equally_well_in_anamorphic_video_and_boxes_are_in_stored_pixels() {
    let Some(dir) = folder() else { return };
    let clip = clip();
    for (name, filter) in [
        ("square.mp4", "scale=768:576,setsar=1"),
        ("narrow.mp4", "scale=768:1152,setsar=2/1"),
    ] {
        run(Command::new("ffmpeg")
            .args(["-v", "error", "-i"])
            .arg(&clip)
            .args(["-t", "4", "-crf", "12", "-vf", filter])
            .arg(dir.path().join(name)));
    }
    let boxes = |name: &str| -> Vec<[f64; 4]> {
        let video = format!("{name}.out.mp4");
        let out = run(twintrack().current_dir(dir.path()).args([
            "track",
            name,
            "--no-embed",
            "--quiet",
            "--video",
            &video,
        ]));
        let all = frames(&out);
        let boxes = all
            .iter()
            .flat_map(|e| e["tracks"].as_array().unwrap().clone());
        boxes
            .map(|t| std::array::from_fn(|i| t["bbox"][i].as_f64().unwrap()))
            .collect()
    };
    let (square, narrow) = (boxes("square.mp4"), boxes("narrow.mp4"));
    let ratio = narrow.len() as f64 / square.len() as f64;
    assert!(
        square.len() > 50 && (0.95..1.05).contains(&ratio),
        "{} and {} boxes",
        square.len(),
        narrow.len()
    );
    let mean =
        |boxes: &[[f64; 4]], i: usize| boxes.iter().map(|b| b[i]).sum::<f64>() / boxes.len() as f64;
    assert!(
        (mean(&narrow, 3) / mean(&square, 3) - 2.0).abs() < 0.2,
        "boxes are in stored pixels"
    );
    assert!((mean(&narrow, 2) / mean(&square, 2) - 1.0).abs() < 0.1);
    use opencv::videoio::{CAP_FFMPEG, CAP_PROP_FRAME_WIDTH, VideoCapture, VideoCaptureTraitConst};
    let annotated =
        VideoCapture::from_file(dir.path().join("narrow.mp4.out.mp4"), CAP_FFMPEG).unwrap();
    assert_eq!(
        annotated.get(CAP_PROP_FRAME_WIDTH).unwrap(),
        1536.0,
        "the annotated video has the display size"
    );
}

#[test]
fn the_rotation_stored_in_a_video_is_applied() {
    let Some(dir) = folder() else { return };
    ffmpeg(
        dir.path(),
        "-f lavfi -i testsrc=size=96x64:rate=10:duration=1 wide.mp4",
    );
    for turn in ["90", "270"] {
        ffmpeg(
            dir.path(),
            &format!("-i wide.mp4 -c copy -metadata:s:v:0 rotate={turn} turned{turn}.mp4"),
        );
        let all = frames(&run(&mut track(dir.path(), &format!("turned{turn}.mp4"))));
        assert_eq!(
            (all[0]["width"].as_u64(), all[0]["height"].as_u64()),
            (Some(64), Some(96)),
            "{turn}"
        );
    }
}

/// Writes images of the test pattern, `1.png` to `{count}.png`, to the folder `sub`.
fn images(dir: &Path, sub: &str, count: u32, size: &str) {
    std::fs::create_dir_all(dir.join(sub)).unwrap();
    ffmpeg(
        dir,
        &format!("-f lavfi -i testsrc=size={size}:rate=10 -frames:v {count} {sub}/%d.png"),
    );
}

#[test]
fn a_change_of_image_size_ends_tracks_but_not_the_annotated_video() {
    let Some(dir) = folder() else { return };
    images(dir.path(), "yard", 20, "64x64");
    ffmpeg(
        dir.path(),
        "-f lavfi -i testsrc=size=96x64:rate=10 -frames:v 10 -start_number 11 yard/%d.png",
    );
    ffmpeg(
        dir.path(),
        "-f lavfi -i testsrc=size=96x64:rate=10 -frames:v 10 yard/21%d.png",
    );
    one_person(dir.path(), 30);
    let all = frames(&run(track(dir.path(), "yard").args([
        "--frame-rate",
        "10",
        "--video",
        "out.mp4",
    ])));
    let id = |i: usize| all[i]["tracks"][0]["id"].as_u64().unwrap();
    assert!(
        all.len() == 30 && id(9) != id(19),
        "tracks end where the size changes"
    );
    use opencv::videoio::{CAP_FFMPEG, CAP_PROP_FRAME_COUNT, VideoCapture, VideoCaptureTraitConst};
    let count = VideoCapture::from_file(dir.path().join("out.mp4"), CAP_FFMPEG)
        .unwrap()
        .get(CAP_PROP_FRAME_COUNT)
        .unwrap();
    assert_eq!(count, 30.0);
}

/// The value of a row of the summary.
fn row<'a>(summary: &'a str, name: &str) -> Option<&'a str> {
    let line = summary.lines().find(|l| l.trim_start().starts_with(name))?;
    line.split_whitespace().last()
}

#[test]
fn a_damaged_image_is_dropped_counted_and_reported() {
    let Some(dir) = folder() else { return };
    images(dir.path(), "yard", 20, "64x64");
    std::fs::write(dir.path().join("yard/._1.png"), "a file of macOS").unwrap();
    std::fs::write(dir.path().join("yard/7.png"), "not an image").unwrap();
    let out = run(track(dir.path(), "yard").args(["--frame-rate", "10"]));
    let numbers: Vec<u64> = frames(&out)
        .iter()
        .map(|e| e["frame"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=20).filter(|n| *n != 7).collect::<Vec<_>>());
    let stderr = text(&out.stderr);
    assert!(
        stderr.contains("yard/7.png") && row(&stderr, "frames damaged") == Some("1"),
        "{stderr}"
    );
    let strict = track(dir.path(), "yard")
        .args(["--frame-rate", "10", "--strict"])
        .output()
        .unwrap();
    assert!(
        strict.status.code() == Some(1)
            && frames(&strict).len() == 19
            && text(&strict.stderr).contains("--strict")
    );
    for n in 1..=20 {
        std::fs::write(dir.path().join(format!("yard/{n}.png")), "not an image").unwrap();
    }
    let none = track(dir.path(), "yard")
        .args(["--frame-rate", "10"])
        .output()
        .unwrap();
    assert!(
        none.status.code() == Some(1) && text(&none.stderr).contains("cannot read the picture"),
        "{}",
        text(&none.stderr)
    );
}

#[test]
fn damaged_frames_of_a_video_are_dropped_counted_and_reported() {
    let Some(dir) = folder() else { return };
    ffmpeg(
        dir.path(),
        "-f lavfi -i testsrc=size=320x240:rate=10:duration=4 -c:v mjpeg a.mov",
    );
    let mut bytes = std::fs::read(dir.path().join("a.mov")).unwrap();
    let half = bytes.len() / 3;
    bytes[half..2 * half].fill(0);
    std::fs::write(dir.path().join("a.mov"), bytes).unwrap();
    let out = run(&mut track(dir.path(), "a.mov"));
    let stderr = text(&out.stderr);
    assert!(
        (10..38).contains(&frames(&out).len()) && stderr.contains("frames damaged"),
        "{} {stderr}",
        frames(&out).len()
    );
    assert_eq!(
        track(dir.path(), "a.mov")
            .arg("--strict")
            .output()
            .unwrap()
            .status
            .code(),
        Some(1)
    );
}

#[test]
fn images_of_all_formats_are_read() {
    let Some(dir) = folder() else { return };
    std::fs::create_dir(dir.path().join("formats")).unwrap();
    let formats = [
        "rgb48be 1.png",
        "gray 2.png",
        "rgba 3.png",
        "gray16be 4.png",
        "rgb24 5.tiff",
        "rgb24 6.ppm",
        "gray 7.pgm",
        "yuvj420p 8.jpeg",
    ];
    for entry in formats {
        let (format, name) = entry.split_once(' ').unwrap();
        ffmpeg(
            dir.path(),
            &format!(
                "-f lavfi -i testsrc=size=64x48:rate=1 -frames:v 1 -pix_fmt {format} \
                 formats/{name}"
            ),
        );
    }
    let all = frames(&run(track(dir.path(), "formats").args([
        "--strict",
        "--frame-rate",
        "1",
    ])));
    assert_eq!(all.len(), formats.len());
    assert!(all.iter().all(|e| e["width"] == 64 && e["height"] == 48));
}

#[test]
fn a_missing_image_of_a_sequence_does_not_shift_the_others() {
    let Some(dir) = folder() else { return };
    images(dir.path(), "walk/img1", 12, "64x64");
    std::fs::write(
        dir.path().join("walk/seqinfo.ini"),
        "[Sequence]\nframeRate=10\nseqLength=10\nimWidth=64\nimHeight=64\n",
    )
    .unwrap();
    std::fs::remove_file(dir.path().join("walk/img1/3.png")).unwrap();
    let rows: String = (1..=12)
        .map(|f| format!("{f},-1,{f}.0,10,16,40,0.9\n"))
        .collect();
    std::fs::write(dir.path().join("det.txt"), rows).unwrap();
    let out = run(track(dir.path(), "walk").args(["--video", "out.mp4"]));
    let all = frames(&out);
    let numbers: Vec<u64> = all.iter().map(|e| e["frame"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=12).filter(|n| *n != 3).collect::<Vec<_>>());
    let left_of_frame: Vec<(f64, f64)> = all
        .iter()
        .filter_map(|e| Some((e["tracks"][0]["bbox"][0].as_f64()?, e["frame"].as_f64()?)))
        .collect();
    assert!(
        left_of_frame.len() >= 8
            && left_of_frame
                .iter()
                .all(|(left, frame)| (left - frame).abs() < 0.01),
        "{left_of_frame:?}"
    );
    let stderr = text(&out.stderr);
    assert!(
        stderr.contains("there is no picture of frame 3")
            && stderr.contains("beyond the sequence's length"),
        "{stderr}"
    );
}

#[test]
fn the_assumed_frame_rate_of_a_folder_is_reported() {
    let Some(dir) = folder() else { return };
    images(dir.path(), "yard", 3, "64x64");
    let out = run(&mut track(dir.path(), "yard"));
    assert!(
        text(&out.stderr).contains("25 frames per second are assumed"),
        "{}",
        text(&out.stderr)
    );
    assert!(
        !text(&run(track(dir.path(), "yard").args(["--frame-rate", "25"])).stderr)
            .contains("assumed")
    );
}

/// Serves the files of a folder over HTTP, with range requests, until the test ends. Returns the
/// server's address.
fn serve(dir: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten().take(1000) {
            let dir = dir.clone();
            std::thread::spawn(move || respond(stream, &dir));
        }
    });
    format!("http://{address}")
}

fn respond(mut stream: TcpStream, dir: &Path) -> Option<()> {
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .ok()?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).ok()?;
    let bytes = std::fs::read(dir.join(request.split(' ').nth(1)?.trim_start_matches('/'))).ok()?;
    let from = request.lines().find_map(|l| {
        l.strip_prefix("Range: bytes=")?
            .split('-')
            .next()?
            .parse::<usize>()
            .ok()
    });
    let (status, from) = from.map_or(("200 OK", 0), |f| {
        ("206 Partial Content", f.min(bytes.len()))
    });
    let range = format!(
        "Content-Range: bytes {from}-{}/{}\r\n",
        bytes.len().saturating_sub(1),
        bytes.len()
    );
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{range}Accept-Ranges: bytes\r\n\
         Connection: close\r\n\r\n",
        bytes.len() - from
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&bytes[from..]).ok()
}

#[test]
fn a_recording_at_an_address_is_read_to_its_end() {
    let Some(dir) = folder() else { return };
    ffmpeg(
        dir.path(),
        &format!("{PATTERN} -movflags +faststart clip.mp4"),
    );
    let server = serve(dir.path().to_path_buf());
    let file = format!("file://{}/clip.mp4", dir.path().display());
    for input in [file, format!("{server}/clip.mp4")] {
        let out = run(&mut track(dir.path(), &input));
        assert_eq!(frames(&out).len(), 40, "{input}: {}", text(&out.stderr));
    }
    let out =
        run(track(dir.path(), &format!("{server}/clip.mp4")).args(["--recording", "--offline"]));
    assert_eq!(frames(&out).len(), 40);
}

#[test]
fn an_address_with_live_is_reopened_when_it_ends() {
    let Some(dir) = folder() else { return };
    ffmpeg(
        dir.path(),
        &format!("{PATTERN} -movflags +faststart clip.mp4"),
    );
    let server = serve(dir.path().to_path_buf());
    let address = format!("{server}/clip.mp4");
    let mut child =
        Running::start(track(dir.path(), &address).args(["--live", "--output", "out.jsonl"]));
    let count = || {
        std::fs::read_to_string(dir.path().join("out.jsonl"))
            .unwrap_or_default()
            .matches("trajectory/1")
            .count()
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(240);
    let mut starts = 0;
    while starts < 2 && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
        // One playback of the file delivers at least one and at most 40 frames.
        starts = count() / 41 + usize::from(count() > 0);
    }
    child.signal("INT");
    assert!(child.code(60).is_some(), "it does not end");
    assert!(starts >= 2, "{} frames", count());
}
