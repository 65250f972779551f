//! `twintrack models`: listing, downloading, verifying and installing networks. The test's own web
//! server serves the files.
#![cfg(feature = "models")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use assert_cmd::Command;
use twintrack::models::digest::Digest;

#[path = "common/ir.rs"]
mod fixture;

/// State of the test's web server, which a test can change between requests.
#[derive(Default)]
struct Served {
    /// Contents by path of the URL (`/name`).
    files: BTreeMap<String, Vec<u8>>,
    /// Requests: path and `Range` header.
    requests: Vec<(String, Option<String>)>,
    /// If set, close the connection after this many bytes of a body.
    break_after: Option<usize>,
    /// Ignore `Range` headers.
    no_ranges: bool,
}

/// A web server on a free port.
struct Server {
    port: u16,
    served: Arc<Mutex<Served>>,
}

impl Server {
    fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let files = files
            .iter()
            .map(|(name, bytes)| (format!("/{name}"), bytes.to_vec()))
            .collect();
        let served = Arc::new(Mutex::new(Served {
            files,
            ..Served::default()
        }));
        let shared = served.clone();
        std::thread::spawn(move || {
            listener
                .incoming()
                .flatten()
                .for_each(|stream| respond(stream, &shared))
        });
        Server { port, served }
    }

    fn set(&self, change: impl FnOnce(&mut Served)) {
        change(&mut self.served.lock().expect("not poisoned"));
    }

    fn requests(&self) -> Vec<(String, Option<String>)> {
        self.served.lock().expect("not poisoned").requests.clone()
    }
}

fn respond(mut stream: TcpStream, served: &Mutex<Served>) {
    let mut lines = BufReader::new(stream.try_clone().expect("cloned"))
        .lines()
        .map_while(Result::ok);
    let path = lines
        .next()
        .and_then(|l| l.split(' ').nth(1).map(str::to_string))
        .unwrap_or_default();
    let range = lines.take_while(|l| !l.is_empty()).find_map(|l| {
        l.to_ascii_lowercase()
            .strip_prefix("range: ")
            .map(str::to_string)
    });
    let mut served = served.lock().expect("not poisoned");
    served.requests.push((path.clone(), range.clone()));
    let Some(body) = served.files.get(&path) else {
        let _ = stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let from = range.filter(|_| !served.no_ranges).and_then(|r| {
        r.trim_start_matches("bytes=")
            .trim_end_matches('-')
            .parse::<usize>()
            .ok()
    });
    let whole = body.len();
    let (status, part) = match from {
        Some(from) if from >= whole => ("416 Range Not Satisfiable", &body[whole..]),
        Some(from) => ("206 Partial Content", &body[from..]),
        None => ("200 OK", &body[..]),
    };
    let content_range = from.map_or(String::new(), |f| {
        format!("Content-Range: bytes {f}-{}/{whole}\r\n", whole - 1)
    });
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{content_range}Connection: close\r\n\r\n",
        part.len()
    );
    // Errors are ignored: in some tests the client has closed the connection.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| {
        stream.write_all(&part[..served.break_after.unwrap_or(part.len()).min(part.len())])
    });
}

/// A data folder of a user, and a catalogue beside it.
struct User {
    dir: tempfile::TempDir,
}

impl User {
    fn new(catalogue: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("catalogue.toml"), catalogue).expect("written");
        User { dir }
    }

    fn models(&self) -> PathBuf {
        self.dir.path().join("data/models")
    }

    fn twintrack(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("twintrack").expect("built");
        command
            .env("TWINTRACK_DATA", self.dir.path().join("data"))
            .args(args);
        for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command
    }

    /// Runs `twintrack models`; returns standard output on success, standard error on failure.
    fn run(&self, args: &[&str]) -> Result<String, String> {
        let catalogue = self.dir.path().join("catalogue.toml");
        let all = [
            &["models", "--catalogue", catalogue.to_str().expect("text")],
            args,
        ]
        .concat();
        let out = self.twintrack(&all).output().expect("the program starts");
        if out.status.success() {
            Ok(String::from_utf8_lossy(&out.stdout).into())
        } else {
            Err(String::from_utf8_lossy(&out.stderr).into())
        }
    }

    /// Names in the folder of networks.
    fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.models())
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut sum = Digest::Sha256(String::new()).start();
    sum.update(bytes);
    sum.finish()
}

fn sha384(bytes: &[u8]) -> String {
    let mut sum = Digest::Sha384(String::new()).start();
    sum.update(bytes);
    sum.finish()
}

const SETTINGS: &str = "[model.settings]\nsize = \"8x16\"\n\
    pixels = { color = \"bgr\", mean = [0, 0, 0], std = [1, 1, 1] }\n";

fn onnx_entry(name: &str, port: u16, bytes: &[u8]) -> String {
    format!(
        "[[model]]\nname = \"{name}\"\nkind = \"embedder\"\nabout = \"a test.\"\n\
         licence = \"CC0-1.0\"\nsource = \"here\"\n\
         files = [{{ address = \"http://127.0.0.1:{port}/{name}.onnx\", bytes = {}, \
         hash.sha256 = \"{}\" }}]\n{SETTINGS}",
        bytes.len(),
        sha256(bytes)
    )
}

fn ir_entry(name: &str, port: u16, xml: &[u8], bin: &[u8]) -> String {
    let file = |end: &str, bytes: &[u8]| {
        format!(
            "{{ address = \"http://127.0.0.1:{port}/{name}.{end}\", bytes = {}, \
             hash.sha384 = \"{}\" }}",
            bytes.len(),
            sha384(bytes)
        )
    };
    format!(
        "[[model]]\nname = \"{name}\"\nkind = \"embedder\"\nabout = \"a test.\"\n\
         licence = \"CC0-1.0\"\nsource = \"here\"\nformat = \"openvino\"\n\
         quality = \"mAP 12.3 on a test\"\nfiles = [{}, {}]\n{SETTINGS}",
        file("xml", xml),
        file("bin", bin)
    )
}

/// 300,000 random bytes.
fn noise() -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(7);
    (0..300_000).map(|_| rng.u8(..)).collect()
}

#[test]
fn a_network_is_listed_downloaded_verified_and_repaired() {
    let (xml, bin) = fixture::embedder_files();
    let server = Server::start(&[("net.xml", xml.as_bytes()), ("net.bin", &bin)]);
    let user = User::new(&ir_entry("net", server.port, xml.as_bytes(), &bin));
    let list = user.run(&["list"]).expect("listed");
    assert!(
        list.contains("net")
            && list.contains("not installed")
            && list.contains("CC0-1.0")
            && list.contains("mAP 12.3"),
        "{list}"
    );
    assert!(server.requests().is_empty(), "list downloads nothing");
    assert!(
        user.run(&["verify"])
            .expect("nothing to verify")
            .contains("no network")
    );

    let got = user.run(&["get", "net"]).expect("downloaded");
    assert!(
        got.contains("--embedder net") && got.contains("CC0-1.0"),
        "{got}"
    );
    assert_eq!(user.files(), ["net", "net.onnx"]);
    let list = user.run(&["list"]).expect("listed");
    assert!(
        list.contains("installed") && !list.contains("not installed"),
        "{list}"
    );
    assert!(
        user.run(&["verify"])
            .expect("verified")
            .contains("net: verified")
    );

    let before = server.requests().len();
    assert!(
        user.run(&["get", "net"])
            .expect("nothing to do")
            .contains("already")
    );
    assert_eq!(
        server.requests().len(),
        before,
        "an installed network is not downloaded again"
    );

    let model = user.models().join("net.onnx");
    let mut bytes = std::fs::read(&model).expect("installed");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&model, bytes).expect("written");
    let e = user.run(&["verify"]).unwrap_err();
    assert!(
        e.contains("net.onnx is damaged") && e.contains("twintrack models get net"),
        "{e}"
    );
    user.run(&["get", "net"]).expect("repaired");
    user.run(&["verify"]).expect("verified");
}

#[test]
fn an_installed_network_is_found_by_its_name() {
    let (xml, bin) = fixture::embedder_files();
    let server = Server::start(&[("net.xml", xml.as_bytes()), ("net.bin", &bin)]);
    let user = User::new(&ir_entry("net", server.port, xml.as_bytes(), &bin));
    // `track` itself downloads nothing.
    let track = |out: &str| {
        let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/pets2009-s2l1.mp4");
        user.twintrack(&[
            "track",
            clip,
            "--duration",
            "0.5",
            "--embedder",
            "net",
            "-v",
            "--quiet",
            "--output",
            out,
        ])
        .output()
        .expect("the program starts")
    };
    let before_download = track("/dev/null");
    let e = String::from_utf8_lossy(&before_download.stderr);
    assert!(
        !before_download.status.success()
            && e.contains("twintrack models get")
            && server.requests().is_empty(),
        "{e}"
    );
    user.run(&["get", "net", "--quiet"]).expect("downloaded");
    let tracked = track(user.dir.path().join("run.jsonl").to_str().expect("text"));
    let log = String::from_utf8_lossy(&tracked.stderr);
    assert!(
        tracked.status.success()
            && log.contains("net.onnx")
            && log.contains(&format!("dimension={}", fixture::DIMENSION)),
        "{log}"
    );
}

#[test]
fn an_interrupted_download_is_resumed() {
    let bytes = noise();
    let server = Server::start(&[("big.onnx", &bytes)]);
    let user = User::new(&onnx_entry("big", server.port, &bytes));
    server.set(|s| s.break_after = Some(100_000));
    let e = user.run(&["get", "big"]).unwrap_err();
    assert!(
        e.contains("interrupted after 100000 of 300000 bytes") && e.contains("to resume it"),
        "{e}"
    );
    assert_eq!(
        user.files(),
        ["big.onnx.part"],
        "an incomplete file does not have the final name"
    );
    assert!(
        user.run(&["list"])
            .expect("listed")
            .contains("not installed")
    );

    server.set(|s| s.break_after = None);
    user.run(&["get", "big"]).expect("resumed");
    assert_eq!(
        server.requests().last().expect("a request").1.as_deref(),
        Some("bytes=100000-")
    );
    let installed = std::fs::read(user.models().join("big.onnx")).expect("installed");
    assert_eq!(
        installed[..bytes.len()],
        bytes[..],
        "the file begins with the publisher's unchanged bytes"
    );
    assert!(
        installed.len() > bytes.len() && installed.len() < bytes.len() + 1000,
        "the settings are appended"
    );
    assert_eq!(user.files(), ["big.onnx"]);
    user.run(&["verify"]).expect("verified");

    // Metadata of another version is replaced without a download.
    server.set(|s| s.files.clear());
    let before = server.requests().len();
    let mut other = bytes.to_vec();
    other.extend(twintrack::onnx::graph::metadata_suffix(&[(
        "name".into(),
        "old".into(),
    )]));
    std::fs::write(user.models().join("big.onnx"), other).expect("written");
    assert!(user.run(&["verify"]).is_err());
    user.run(&["get", "big"]).expect("its bytes are here");
    assert_eq!(server.requests().len(), before);
    let renewed = std::fs::read(user.models().join("big.onnx")).expect("installed");
    assert_eq!(renewed, installed);
}

#[test]
fn a_download_from_a_server_without_ranges_starts_again() {
    let bytes = noise();
    let server = Server::start(&[("big.onnx", &bytes)]);
    let user = User::new(&onnx_entry("big", server.port, &bytes));
    server.set(|s| (s.break_after, s.no_ranges) = (Some(100_000), true));
    user.run(&["get", "big"]).unwrap_err();
    server.set(|s| s.break_after = None);
    user.run(&["get", "big"]).expect("downloaded again");
    user.run(&["verify"]).expect("verified");
}

#[test]
fn a_manually_downloaded_file_is_verified_and_installed_without_network() {
    let bytes = noise();
    let user = User::new(&onnx_entry("big", 9, &bytes));
    let e = user.run(&["get", "big"]).unwrap_err();
    let part = user.models().join("big.onnx.part");
    assert!(
        e.contains("cannot download http://127.0.0.1:9/big.onnx")
            && e.contains(part.to_str().expect("text")),
        "{e}"
    );
    assert!(user.files().is_empty(), "{:?}", user.files());
    std::fs::write(&part, &bytes).expect("written");
    user.run(&["get", "big"])
        .expect("installed without a download");
    user.run(&["verify"]).expect("verified");
}

#[test]
fn a_file_with_a_wrong_hash_or_size_is_rejected_and_deleted() {
    let bytes = noise();
    let mut other = bytes.clone();
    other[5] ^= 1;
    let server = Server::start(&[("big.onnx", &other)]);
    let user = User::new(&onnx_entry("big", server.port, &bytes));
    let e = user.run(&["get", "big"]).unwrap_err();
    assert!(
        e.contains("does not match the catalogue")
            && e.contains(&sha256(&other))
            && e.contains(&sha256(&bytes)),
        "{e}"
    );
    assert!(user.files().is_empty(), "{:?}", user.files());

    // The server sends a Git LFS pointer instead of the file.
    server.set(|s| {
        s.files.insert(
            "/big.onnx".into(),
            b"version https://git-lfs.github.com/spec/v1".to_vec(),
        );
    });
    let e = user.run(&["get", "big"]).unwrap_err();
    assert!(
        e.contains("42 bytes, but the catalogue lists 300000"),
        "{e}"
    );
    server.set(|s| s.files.clear());
    let e = user.run(&["get", "big"]).unwrap_err();
    assert!(e.contains("404 Not Found"), "{e}");
    assert!(user.files().is_empty(), "{:?}", user.files());
}

#[test]
fn an_unknown_name_is_rejected_before_any_download() {
    let bytes = noise();
    let server = Server::start(&[("big.onnx", &bytes)]);
    let user = User::new(&onnx_entry("big", server.port, &bytes));
    let e = user.run(&["get", "big", "bog"]).unwrap_err();
    assert!(
        e.contains("no network 'bog'") && server.requests().is_empty(),
        "{e}"
    );
}

#[test]
fn a_download_that_fills_the_disk_is_removed() {
    let disk = tempfile::tempdir().expect("a folder");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"])
        .arg(disk.path())
        .output();
    if !mounted.is_ok_and(|o| o.status.success()) {
        eprintln!(
            "SKIPPED: this test needs root to mount a small disk; a unit test in \
             src/models/download.rs covers the writer on a full disk"
        );
        return;
    }
    let bytes = noise();
    let server = Server::start(&[("big.onnx", &bytes)]);
    let user = User::new(&onnx_entry("big", server.port, &bytes));
    let catalogue = user.dir.path().join("catalogue.toml");
    let out = user
        .twintrack(&["models", "get", "big", "--catalogue"])
        .arg(&catalogue)
        .env("TWINTRACK_DATA", disk.path())
        .output()
        .expect("the program starts");
    let left: Vec<_> = std::fs::read_dir(disk.path().join("models"))
        .expect("created")
        .flatten()
        .collect();
    let unmounted = std::process::Command::new("umount")
        .arg(disk.path())
        .status()
        .expect("umount starts");
    let e = String::from_utf8_lossy(&out.stderr);
    assert!(
        !out.status.success() && e.contains("is full") && e.contains("TWINTRACK_DATA"),
        "{e}"
    );
    assert!(left.is_empty() && unmounted.success(), "{left:?}");
}

#[test]
fn every_layout_of_the_catalogue_is_a_detector_layout() {
    for entry in twintrack::models::Catalogue::own().expect("valid").entries {
        let Some(layout) = entry.settings.layout else {
            continue;
        };
        serde_json::from_value::<twintrack::detect::Layout>(layout.as_str().into())
            .unwrap_or_else(|e| panic!("{}: {e}", entry.name));
    }
}
