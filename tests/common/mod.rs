//! What the integration tests share.
#![allow(dead_code, reason = "each test program uses a part")]

#[cfg(feature = "serve")]
pub mod broker;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program, without what the caller's environment would change.
pub fn twintrack() -> Command {
    let mut c = Command::new(assert_cmd::cargo::cargo_bin!("twintrack"));
    c.env_remove("ORT_DYLIB_PATH")
        .env_remove("TWINTRACK_MODELS")
        .env_remove("TWINTRACK_LOG");
    c
}

/// A path inside the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The sample clip: frames 1 to 400 of PETS 2009 S2L1.
pub fn clip() -> PathBuf {
    repository("samples/pets2009-s2l1.mp4")
}

/// Data beside the repository that users do not have; `None`, said loudly, without it.
pub fn shared(path: &str) -> Option<PathBuf> {
    let p = repository("../shared").join(path);
    if !p.exists() {
        eprintln!("SKIPPED: {} is not there; this test needs it", p.display());
    }
    p.exists().then_some(p)
}

/// Runs and insists on success.
pub fn run(command: &mut Command) -> Output {
    let out = command.output().expect("the program starts");
    assert!(
        out.status.success(),
        "{command:?} failed ({}):\n{}",
        out.status,
        text(&out.stderr)
    );
    out
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The JSON values of a file of JSON lines; every line must be whole.
pub fn json_lines(text: &str) -> Vec<serde_json::Value> {
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "the last line is cut off: {:?}",
        text.lines().last()
    );
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e} in the line {l}")))
        .collect()
}

/// A program that ends with the test, whatever becomes of the test.
pub struct Running(pub std::process::Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Running(command.spawn().expect("the program starts"))
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        run(Command::new("kill").args([&format!("-{name}"), &self.0.id().to_string()]));
    }

    /// Its exit code, where it ends within so many seconds, thirty at least: a busy machine is no fault.
    pub fn code(&mut self, seconds: u64) -> Option<i32> {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(seconds.max(30));
        while std::time::Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().expect("it is ours") {
                return status.code();
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for something, at most so many seconds, thirty at least: a busy machine is no fault. Tells whether it came.
pub fn until(seconds: u64, mut what: impl FnMut() -> bool) -> bool {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(seconds.max(30));
    while std::time::Instant::now() < deadline {
        if what() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    what()
}

/// Of `serve`, where no test looks at its page: two tests at once would want one port.
pub const NO_PAGE: &str = "[serve]\nlisten = \"\"\n";

/// A port that is free at this moment.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("bound")
        .port()
}

/// The whole lines of a file that is being written.
pub fn whole_lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    json_lines(&text[..text.rfind('\n').map_or(0, |at| at + 1)])
}

/// A real RTSP server that plays a video without end for at most so long, where GStreamer is; else `None`, said loudly.
pub fn rtsp_server(video: &Path, port: u16, seconds: u64, more: &[&str]) -> Option<Running> {
    use std::io::BufRead as _;
    let check = "import gi; gi.require_version('GstRtspServer', '1.0'); gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None); assert Gst.ElementFactory.find('rtph264pay') and Gst.ElementFactory.find('h264parse')";
    if !Command::new("/usr/bin/python3")
        .args(["-c", check])
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
    {
        eprintln!("SKIPPED: no GStreamer RTSP server here (`make setup-test` installs it)");
        return None;
    }
    let mut command = Command::new("/usr/bin/python3");
    command
        .arg(repository("tests/fixtures/rtsp_server.py"))
        .arg(video)
        .arg(port.to_string())
        .args(["--seconds", &seconds.to_string()])
        .args(more);
    let mut server = Running::start(
        command
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null()),
    );
    let mut line = String::new();
    std::io::BufReader::new(server.0.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("it speaks");
    (line.trim() == "ready").then_some(server)
}

/// Whether FFmpeg's program is here to make videos with; said loudly without it.
pub fn has_ffmpeg() -> bool {
    let there = Command::new("ffmpeg").arg("-version").output().is_ok();
    if !there {
        eprintln!("SKIPPED: no ffmpeg here to make the video (`make setup-test` installs it)");
    }
    there
}

/// Makes a file with FFmpeg, in the folder `dir`.
pub fn ffmpeg(dir: &Path, arguments: &str) {
    let mut command = Command::new("ffmpeg");
    command
        .current_dir(dir)
        .args(["-v", "error", "-y"])
        .args(arguments.split_whitespace());
    run(&mut command);
}
