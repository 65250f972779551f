//! Helpers shared by the integration tests.
#![allow(dead_code, reason = "each test program uses a part")]

#[cfg(feature = "serve")]
pub mod broker;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program, independent of the caller's environment variables.
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

/// Data beside the repository that is not part of it. None, with a message, if it is missing.
pub fn shared(path: &str) -> Option<PathBuf> {
    let p = repository("../shared").join(path);
    if !p.exists() {
        eprintln!("SKIPPED: this test needs {}", p.display());
    }
    p.exists().then_some(p)
}

/// Output of a command, which must end within `seconds`; it is killed if it does not.
pub fn output_within(seconds: u64, command: &mut Command) -> Output {
    use std::io::Read;
    use std::process::Stdio;
    let read = |mut from: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut all = Vec::new();
            from.read_to_end(&mut all).map(|_| all)
        })
    };
    let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Running::start(piped);
    let out = read(Box::new(child.0.stdout.take().expect("piped")));
    let err = read(Box::new(child.0.stderr.take().expect("piped")));
    let mut status = None;
    let has_ended = until(seconds, || {
        status = child.0.try_wait().expect("a child process");
        status.is_some()
    });
    drop(child);
    let bytes = |reader: std::thread::JoinHandle<std::io::Result<Vec<u8>>>| {
        reader.join().expect("no panic").expect("readable")
    };
    let (stdout, stderr) = (bytes(out), bytes(err));
    assert!(has_ended, "{command:?} does not end:\n{}", text(&stderr));
    Output {
        status: status.expect("ended"),
        stdout,
        stderr,
    }
}

/// Runs the command and asserts success.
pub fn run(command: &mut Command) -> Output {
    let out = output_within(600, command);
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

/// The JSON values of a file of JSON lines; asserts that the last line is complete.
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

/// A child process. It is killed when this value is dropped, also when the test fails.
pub struct Running(pub std::process::Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Running(command.spawn().expect("the program starts"))
    }

    /// Sends a signal, such as "TERM".
    pub fn signal(&self, name: &str) {
        signal(&self.0, name);
    }

    /// Waits for the exit code. The timeout is at least 30 s, so that the test also passes on a
    /// busy machine.
    pub fn code(&mut self, seconds: u64) -> Option<i32> {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(seconds.max(30));
        while std::time::Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().expect("a child process") {
                return status.code();
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        None
    }
}

/// Starts `serve` with this configuration, events file and log.
pub fn start_service(config: &Path, output: &Path, log: std::fs::File) -> Running {
    let mut command = twintrack();
    command.args(["-v", "serve", "--config"]).arg(config);
    Running::start(command.arg("--output").arg(output).stderr(log))
}

/// The metrics of the service on `port`.
#[cfg(feature = "serve")]
pub fn metrics(port: u16) -> Result<String, ureq::Error> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(std::time::Duration::from_secs(60)))
        .build();
    let agent = ureq::Agent::new_with_config(config);
    let response = agent.get(format!("http://127.0.0.1:{port}/metrics"));
    response.call()?.body_mut().read_to_string()
}

/// Sends a signal to a process that the test started.
pub fn signal(child: &std::process::Child, name: &str) {
    run(Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]));
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `what` is true; returns false on timeout. The timeout is at least 30 s, so that the
/// test also passes on a busy machine.
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

/// Settings of `serve` without a web server, so that concurrent tests do not need the same port.
pub const NO_PAGE: &str = "[serve]\nlisten = \"\"\n";

/// A currently free port.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr()
        .expect("bound")
        .port()
}

/// The complete lines of a file that is being written.
pub fn complete_lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    json_lines(&text[..text.rfind('\n').map_or(0, |at| at + 1)])
}

/// Starts an RTSP server that plays a video in a loop and exits after `seconds`. None, with a
/// message, if GStreamer is not installed.
pub fn rtsp_server(video: &Path, port: u16, seconds: u64, more: &[&str]) -> Option<Running> {
    use std::io::BufRead as _;
    let check = "import gi; gi.require_version('GstRtspServer', '1.0'); \
                 gi.require_version('Gst', '1.0'); from gi.repository import Gst; \
                 Gst.init(None); assert Gst.ElementFactory.find('rtph264pay') \
                 and Gst.ElementFactory.find('h264parse')";
    if !Command::new("/usr/bin/python3")
        .args(["-c", check])
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
    {
        eprintln!("SKIPPED: GStreamer's RTSP server is missing (`make setup-test` installs it)");
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
    let stdout = server.0.stdout.take().expect("piped");
    let (send, ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::BufReader::new(stdout).read_line(&mut line);
        let _ = send.send(read.map(|_| line));
    });
    let patience = std::time::Duration::from_secs(120);
    let line = ready.recv_timeout(patience).expect("the server answers");
    (line.expect("readable").trim() == "ready").then_some(server)
}

/// Whether the program ffmpeg is installed; prints a message if not.
pub fn has_ffmpeg() -> bool {
    let installed = Command::new("ffmpeg").arg("-version").output().is_ok();
    if !installed {
        eprintln!("SKIPPED: ffmpeg is not installed (`make setup-test` installs it)");
    }
    installed
}

/// Runs ffmpeg in the folder `dir`.
pub fn ffmpeg(dir: &Path, arguments: &str) {
    let mut command = Command::new("ffmpeg");
    command
        .current_dir(dir)
        .args(["-v", "error", "-y"])
        .args(arguments.split_whitespace());
    run(&mut command);
}
