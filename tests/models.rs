//! The catalogue: downloads from a server that the tests start, and the importer of OpenVINO IR.
#![cfg(feature = "models")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use assert_cmd::Command;
use ndarray::Array4;
use twintrack::infer::{Device, Model, Runtime, SessionOptions};
use twintrack::models::digest::Digest;
use twintrack::models::openvino;

/// Files by path; how often each was asked for; how to misbehave.
#[derive(Default)]
struct Served {
    files: BTreeMap<String, Vec<u8>>,
    /// `Range` header of each request, by path.
    asked: Vec<(String, Option<String>)>,
    /// Send only so many bytes of a body, then close the connection.
    break_after: Option<usize>,
    /// Know no ranges.
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
        let files = files.iter().map(|(name, bytes)| (format!("/{name}"), bytes.to_vec())).collect();
        let served = Arc::new(Mutex::new(Served { files, ..Served::default() }));
        let shared = served.clone();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| answer(stream, &shared)));
        Server { port, served }
    }

    fn set(&self, change: impl FnOnce(&mut Served)) {
        change(&mut self.served.lock().expect("no test panicked with it"));
    }

    fn asked(&self) -> Vec<(String, Option<String>)> {
        self.served.lock().expect("no test panicked with it").asked.clone()
    }
}

fn answer(mut stream: TcpStream, served: &Mutex<Served>) {
    let mut lines = BufReader::new(stream.try_clone().expect("cloned")).lines().map_while(Result::ok);
    let path = lines.next().and_then(|l| l.split(' ').nth(1).map(str::to_string)).unwrap_or_default();
    let range = lines.take_while(|l| !l.is_empty()).find_map(|l| l.to_ascii_lowercase().strip_prefix("range: ").map(str::to_string));
    let mut served = served.lock().expect("no test panicked with it");
    served.asked.push((path.clone(), range.clone()));
    let Some(body) = served.files.get(&path) else {
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    let from = range.filter(|_| !served.no_ranges).and_then(|r| r.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().ok());
    let whole = body.len();
    let (status, part) = match from {
        Some(from) if from >= whole => ("416 Range Not Satisfiable", &body[whole..]),
        Some(from) => ("206 Partial Content", &body[from..]),
        None => ("200 OK", &body[..]),
    };
    let place = from.map_or(String::new(), |f| format!("Content-Range: bytes {f}-{}/{whole}\r\n", whole - 1));
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{place}Connection: close\r\n\r\n", part.len());
    // A client that has gone is what some of the tests are about.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&part[..served.break_after.unwrap_or(part.len()).min(part.len())]));
}

/// A folder of the user's data, and a catalogue beside it.
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
        command.env("TWINTRACK_DATA", self.dir.path().join("data")).args(args);
        for proxy in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        command
    }

    /// Standard output on success, standard error on failure.
    fn run(&self, args: &[&str]) -> Result<String, String> {
        let catalogue = self.dir.path().join("catalogue.toml");
        let all = [&["models", "--catalogue", catalogue.to_str().expect("text")], args].concat();
        let out = self.twintrack(&all).output().expect("it runs");
        if out.status.success() { Ok(String::from_utf8_lossy(&out.stdout).into()) } else { Err(String::from_utf8_lossy(&out.stderr).into()) }
    }

    /// Names in the folder of models.
    fn files(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.models()).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
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

const SETTINGS: &str = "[model.settings]\nsize = \"8x16\"\npixels = { color = \"bgr\", mean = [0, 0, 0], std = [1, 1, 1] }\n";

fn onnx_entry(name: &str, port: u16, bytes: &[u8]) -> String {
    format!(
        "[[model]]\nname = \"{name}\"\nkind = \"embedder\"\nabout = \"a test.\"\nlicence = \"CC0-1.0\"\nsource = \"here\"\n\
         files = [{{ address = \"http://127.0.0.1:{port}/{name}.onnx\", bytes = {}, hash.sha256 = \"{}\" }}]\n{SETTINGS}",
        bytes.len(),
        sha256(bytes)
    )
}

fn ir_entry(name: &str, port: u16, xml: &[u8], bin: &[u8]) -> String {
    let file = |end: &str, bytes: &[u8]| {
        format!("{{ address = \"http://127.0.0.1:{port}/{name}.{end}\", bytes = {}, hash.sha384 = \"{}\" }}", bytes.len(), sha384(bytes))
    };
    format!(
        "[[model]]\nname = \"{name}\"\nkind = \"embedder\"\nabout = \"a test.\"\nlicence = \"CC0-1.0\"\nsource = \"here\"\nformat = \"openvino\"\n\
         quality = \"mAP 12.3 on a test\"\nfiles = [{}, {}]\n{SETTINGS}",
        file("xml", xml),
        file("bin", bin)
    )
}

/// 300 kB that look like nothing.
fn noise() -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(7);
    (0..300_000).map(|_| rng.u8(..)).collect()
}

#[test]
fn a_network_is_listed_downloaded_verified_and_repaired() {
    let (xml, bin) = fixture::ir();
    let server = Server::start(&[("net.xml", xml.as_bytes()), ("net.bin", &bin)]);
    let user = User::new(&ir_entry("net", server.port, xml.as_bytes(), &bin));
    let list = user.run(&["list"]).expect("it lists");
    assert!(list.contains("net") && list.contains("not installed") && list.contains("CC0-1.0") && list.contains("mAP 12.3"), "{list}");
    assert!(server.asked().is_empty(), "a list downloads nothing");
    assert!(user.run(&["verify"]).expect("nothing is wrong").contains("nothing"));

    let got = user.run(&["get", "net"]).expect("it downloads");
    assert!(got.contains("--embedder net") && got.contains("CC0-1.0"), "{got}");
    assert_eq!(user.files(), ["net", "net.onnx"]);
    assert!(user.run(&["list"]).expect("it lists").contains(" installed"));
    assert!(user.run(&["verify"]).expect("right").contains("every byte is right"));

    let before = server.asked().len();
    assert!(user.run(&["get", "net"]).expect("nothing to do").contains("already"));
    assert_eq!(server.asked().len(), before, "what is there is not downloaded again");

    let model = user.models().join("net.onnx");
    let mut bytes = std::fs::read(&model).expect("installed");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&model, bytes).expect("written");
    let e = user.run(&["verify"]).unwrap_err();
    assert!(e.contains("net.onnx is damaged") && e.contains("twintrack models get net"), "{e}");
    user.run(&["get", "net"]).expect("repaired");
    user.run(&["verify"]).expect("right again");
}

#[test]
fn an_installed_name_is_an_embedder() {
    let (xml, bin) = fixture::ir();
    let server = Server::start(&[("net.xml", xml.as_bytes()), ("net.bin", &bin)]);
    let user = User::new(&ir_entry("net", server.port, xml.as_bytes(), &bin));
    // Not downloaded unless asked for.
    let track = |out: &str| {
        let clip = concat!(env!("CARGO_MANIFEST_DIR"), "/samples/pets2009-s2l1.mp4");
        user.twintrack(&["track", clip, "--duration", "0.5", "--embedder", "net", "-v", "--quiet", "--output", out]).output().expect("it runs")
    };
    let refused = track("/dev/null");
    let e = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && e.contains("twintrack models get") && server.asked().is_empty(), "{e}");
    user.run(&["get", "net", "--quiet"]).expect("it downloads");
    let tracked = track(user.dir.path().join("run.jsonl").to_str().expect("text"));
    let log = String::from_utf8_lossy(&tracked.stderr);
    assert!(tracked.status.success() && log.contains("net.onnx") && log.contains(&format!("dimension={}", fixture::DIMENSION)), "{log}");
}

#[test]
fn a_download_goes_on_where_it_broke_off() {
    let bytes = noise();
    let server = Server::start(&[("big.onnx", &bytes)]);
    let user = User::new(&onnx_entry("big", server.port, &bytes));
    server.set(|s| s.break_after = Some(100_000));
    let e = user.run(&["get", "big"]).unwrap_err();
    assert!(e.contains("broke off after 100000 of 300000 bytes") && e.contains("goes on from there"), "{e}");
    assert_eq!(user.files(), ["big.onnx.part"], "nothing half-written has the real name");
    assert!(user.run(&["list"]).expect("it lists").contains("not installed"));

    server.set(|s| s.break_after = None);
    user.run(&["get", "big"]).expect("the rest comes");
    assert_eq!(server.asked().last().expect("asked").1.as_deref(), Some("bytes=100000-"));
    let installed = std::fs::read(user.models().join("big.onnx")).expect("installed");
    assert_eq!(installed[..bytes.len()], bytes[..], "the publisher's bytes stand in front, as they are");
    assert!(installed.len() > bytes.len() && installed.len() < bytes.len() + 1000, "followed by the settings");
    assert_eq!(user.files(), ["big.onnx"]);
    user.run(&["verify"]).expect("right");
}

#[test]
fn a_server_without_ranges_sends_all_again() {
    let bytes = noise();
    let server = Server::start(&[("big.onnx", &bytes)]);
    let user = User::new(&onnx_entry("big", server.port, &bytes));
    server.set(|s| (s.break_after, s.no_ranges) = (Some(100_000), true));
    user.run(&["get", "big"]).unwrap_err();
    server.set(|s| s.break_after = None);
    user.run(&["get", "big"]).expect("from the beginning");
    user.run(&["verify"]).expect("right");
}

#[test]
fn a_file_fetched_by_hand_is_checked_and_installed_without_a_network() {
    let bytes = noise();
    let user = User::new(&onnx_entry("big", 9, &bytes));
    let e = user.run(&["get", "big"]).unwrap_err();
    let part = user.models().join("big.onnx.part");
    assert!(e.contains("cannot download http://127.0.0.1:9/big.onnx") && e.contains(part.to_str().expect("text")), "{e}");
    assert!(user.files().is_empty(), "{:?}", user.files());
    std::fs::write(&part, &bytes).expect("written");
    user.run(&["get", "big"]).expect("nothing is left to download");
    user.run(&["verify"]).expect("right");
}

#[test]
fn a_wrong_file_is_refused_and_deleted() {
    let bytes = noise();
    let mut other = bytes.clone();
    other[5] ^= 1;
    let server = Server::start(&[("big.onnx", &other)]);
    let user = User::new(&onnx_entry("big", server.port, &bytes));
    let e = user.run(&["get", "big"]).unwrap_err();
    assert!(e.contains("is not what the catalogue names") && e.contains(&sha256(&other)) && e.contains(&sha256(&bytes)), "{e}");
    assert!(user.files().is_empty(), "{:?}", user.files());

    // A pointer file instead of the file itself, as a repository without its large files gives.
    server.set(|s| {
        s.files.insert("/big.onnx".into(), b"version https://git-lfs.github.com/spec/v1".to_vec());
    });
    let e = user.run(&["get", "big"]).unwrap_err();
    assert!(e.contains("42 bytes where the catalogue names 300000"), "{e}");
    server.set(|s| s.files.clear());
    let e = user.run(&["get", "big"]).unwrap_err();
    assert!(e.contains("404 Not Found"), "{e}");
    assert!(user.files().is_empty(), "{:?}", user.files());
}

#[test]
fn an_unknown_name_moves_no_byte() {
    let bytes = noise();
    let server = Server::start(&[("big.onnx", &bytes)]);
    let user = User::new(&onnx_entry("big", server.port, &bytes));
    let e = user.run(&["get", "big", "bog"]).unwrap_err();
    assert!(e.contains("no network 'bog'") && server.asked().is_empty(), "{e}");
}

#[test]
fn a_full_disk_is_left_as_it_was() {
    let disk = tempfile::tempdir().expect("a folder");
    let mounted = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=128k", "tmpfs"]).arg(disk.path()).output();
    if !mounted.is_ok_and(|o| o.status.success()) {
        eprintln!("SKIPPED: a small disk cannot be mounted here (needs root); the writer of download.rs is tested on its own");
        return;
    }
    let bytes = noise();
    let server = Server::start(&[("big.onnx", &bytes)]);
    let user = User::new(&onnx_entry("big", server.port, &bytes));
    let catalogue = user.dir.path().join("catalogue.toml");
    let out = user.twintrack(&["models", "get", "big", "--catalogue"]).arg(&catalogue).env("TWINTRACK_DATA", disk.path()).output().expect("it runs");
    let left: Vec<_> = std::fs::read_dir(disk.path().join("models")).expect("made").flatten().collect();
    let unmounted = std::process::Command::new("umount").arg(disk.path()).status().expect("umount is there");
    let e = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && e.contains("is full") && e.contains("TWINTRACK_DATA"), "{e}");
    assert!(left.is_empty() && unmounted.success(), "{left:?}");
}

#[test]
fn every_layout_of_the_catalogue_is_one_of_the_detector() {
    for entry in twintrack::models::Catalogue::own().expect("right").entries {
        let Some(layout) = entry.settings.layout else { continue };
        serde_json::from_value::<twintrack::detect::Layout>(layout.as_str().into()).unwrap_or_else(|e| panic!("{}: {e}", entry.name));
    }
}

fn open(path: &Path) -> Option<Model> {
    match Runtime::load() {
        Ok(runtime) => Some(Model::open(&runtime, path, SessionOptions { device: Device::Cpu, threads: 2 }).expect("it opens")),
        Err(e) => {
            eprintln!("SKIPPED: {e}");
            None
        }
    }
}

fn random(n: usize, h: usize, w: usize) -> Array4<f32> {
    let mut rng = fastrand::Rng::with_seed(3);
    Array4::from_shape_simple_fn((n, 3, h, w), || 255.0 * rng.f32())
}

#[test]
fn intels_networks_are_imported_as_they_should_be() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/omz-reid");
    if !data.is_dir() {
        eprintln!("SKIPPED: {} is not here; the importer is tested on its own fixture only", data.display());
        return;
    }
    for name in ["0287", "0288"] {
        let part = |end: &str| data.join(format!("ir/person-reidentification-retail-{name}.{end}"));
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("imported.onnx");
        std::fs::write(&file, openvino::import(&part("xml"), &part("bin"), name, &[]).expect("imported")).expect("written");
        let (Some(mut ours), Some(mut reference)) = (open(&file), open(&data.join(format!("omz-reid-{name}.onnx")))) else { return };
        for n in [1, 3] {
            let batch = random(n, 256, 128);
            let (a, b) = (ours.run(batch.view()).expect("it runs"), reference.run(batch.view()).expect("it runs"));
            assert_eq!(a[0].values.shape(), [n, 256]);
            let worst = a[0].values.iter().zip(&b[0].values).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{name}, {n} crops: {worst}");
        }
    }
}

/// Runs a network of the fixture on `n` crops of 4x2 pixels and compares with what `expected` computes for each, both at unit
/// length.
fn imports(what: &str, build: impl Fn(&mut fixture::Ir, &fixture::Value) -> fixture::Value, expected: impl Fn(&[f32]) -> Vec<f32>) {
    let dir = tempfile::tempdir().expect("a folder");
    let (xml, bin) = fixture::network(4, 2, build);
    let path = |end: &str| dir.path().join(format!("net.{end}"));
    std::fs::write(path("xml"), xml).expect("written");
    std::fs::write(path("bin"), bin).expect("written");
    let bytes = openvino::import(&path("xml"), &path("bin"), "net", &[]).unwrap_or_else(|e| panic!("{what}: {e}"));
    std::fs::write(path("onnx"), bytes).expect("written");
    let Some(mut model) = open(&path("onnx")) else { return };
    let batch = random(2, 4, 2).mapv(|v| v / 64.0 - 2.0);
    let output = model.run(batch.view()).unwrap_or_else(|e| panic!("{what}: {e}"));
    for (crop, got) in batch.outer_iter().zip(output[0].values.outer_iter()) {
        let mut want = expected(crop.as_slice().expect("contiguous"));
        let length = want.iter().map(|v| v * v).sum::<f32>().sqrt();
        want.iter_mut().for_each(|v| *v /= length);
        assert_eq!(got.len(), want.len(), "{what}");
        for (a, b) in got.iter().zip(&want) {
            assert!((a - b).abs() < 1e-5, "{what}: {got} instead of {want:?}");
        }
    }
}

#[test]
fn every_operation_is_imported() {
    let same = |f: fn(f32) -> f32| move |x: &[f32]| x.iter().map(|v| f(*v)).collect::<Vec<f32>>();
    let shape = [1, 3, 4, 2];
    imports(
        "Add, Subtract, Multiply, Divide, Const, Convert",
        |ir, x| {
            let numbers: Vec<_> = [3.0, 2.0, 1.0, 4.0].iter().map(|v| ir.halves(&[1, 1, 1, 1], &[*v])).collect();
            let y = ir.op("Subtract", "auto_broadcast=\"numpy\"", &[x, &numbers[0]], &shape);
            let y = ir.op("Multiply", "auto_broadcast=\"numpy\"", &[&y, &numbers[1]], &shape);
            let y = ir.op("Add", "", &[&y, &numbers[2]], &shape);
            ir.op("Divide", "", &[&y, &numbers[3]], &shape)
        },
        same(|v| ((v - 3.0) * 2.0 + 1.0) / 4.0),
    );
    imports("ReLU", |ir, x| ir.op("ReLU", "", &[x], &shape), same(|v| v.max(0.0)));
    imports("Sigmoid", |ir, x| ir.op("Sigmoid", "", &[x], &shape), same(|v| 1.0 / (1.0 + (-v).exp())));
    imports("Tanh", |ir, x| ir.op("Tanh", "", &[x], &shape), same(f32::tanh));
    imports(
        "Clamp, Sqrt",
        |ir, x| {
            let y = ir.op("Clamp", "min=\"0.25\" max=\"1.5\"", &[x], &shape);
            ir.op("Sqrt", "", &[&y], &shape)
        },
        same(|v| v.clamp(0.25, 1.5).sqrt()),
    );
    imports(
        "PReLU",
        |ir, x| {
            let slope = ir.halves(&[3], &[0.5, 0.25, 2.0]);
            ir.op("PReLU", "", &[x, &slope], &shape)
        },
        |x| x.iter().enumerate().map(|(i, v)| if *v < 0.0 { v * [0.5, 0.25, 2.0][i / 8] } else { *v }).collect(),
    );
    imports(
        "Gather",
        |ir, x| {
            let (order, axis) = (ir.whole32(&[3], &[2, 1, 0]), ir.whole32(&[], &[1]));
            ir.op("Gather", "batch_dims=\"0\"", &[x, &order, &axis], &shape)
        },
        |x| [&x[16..], &x[8..16], &x[..8]].concat(),
    );
    imports(
        "Transpose",
        |ir, x| {
            let order = ir.whole(&[4], &[0, 2, 3, 1]);
            ir.op("Transpose", "", &[x, &order], &[1, 4, 2, 3])
        },
        |x| (0..24).map(|i| x[8 * (i % 3) + i / 3]).collect(),
    );
    imports(
        "ReduceMean",
        |ir, x| {
            let axes = ir.whole(&[2], &[2, 3]);
            ir.op("ReduceMean", "keep_dims=\"true\"", &[x, &axes], &[1, 3, 1, 1])
        },
        |x| x.chunks(8).map(|c| c.iter().sum::<f32>() / 8.0).collect(),
    );
    imports(
        "MVN",
        |ir, x| {
            let axes = ir.whole(&[2], &[2, 3]);
            ir.op("MVN", "eps=\"0.01\" eps_mode=\"INSIDE_SQRT\" normalize_variance=\"true\"", &[x, &axes], &shape)
        },
        |x| {
            let normal = |c: &[f32]| {
                let mean = c.iter().sum::<f32>() / 8.0;
                let variance = c.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 8.0;
                c.iter().map(|v| (v - mean) / (variance + 0.01).sqrt()).collect::<Vec<f32>>()
            };
            x.chunks(8).flat_map(normal).collect()
        },
    );
    imports(
        "ShapeOf, Concat, Reshape",
        |ir, x| {
            let (first, axis, rest) = (ir.whole(&[1], &[0]), ir.whole(&[], &[0]), ir.whole(&[2], &[4, -1]));
            let all = ir.shape_of(x);
            let n = ir.typed("Gather", "batch_dims=\"0\"", &[&all, &first, &axis], &[1], "I64");
            let wanted = ir.typed("Concat", "axis=\"0\"", &[&n, &rest], &[3], "I64");
            ir.op("Reshape", "special_zero=\"false\"", &[x, &wanted], &[1, 4, 6])
        },
        same(|v| v),
    );
}

#[test]
fn every_window_is_imported() {
    const PLAIN: &str = "auto_pad=\"explicit\" dilations=\"1, 1\"";
    // A window over one channel of 4 rows and 2 columns, one row and column of nothing around it.
    let around = |c: &[f32], y: i32, x: i32| (0..4).contains(&y).then(|| (0..2).contains(&x).then(|| c[(2 * y + x) as usize])).flatten();
    let window = move |c: &[f32], y: i32, x: i32| -> Vec<Option<f32>> { (0..9).map(|k| around(c, y + k / 3 - 1, x + k % 3 - 1)).collect() };
    let kernel: Vec<f32> = (0..54).map(|i| (i % 7) as f32 * 0.25 - 0.5).collect();
    let weights = kernel.clone();
    imports(
        "Convolution",
        move |ir, x| {
            let w = ir.halves(&[2, 3, 3, 3], &weights);
            ir.op("Convolution", &format!("{PLAIN} strides=\"2, 2\" pads_begin=\"1, 1\" pads_end=\"1, 1\""), &[x, &w], &[1, 2, 2, 1])
        },
        move |x| {
            let at = |o: usize, y: i32| (0..3).flat_map(|c| window(&x[8 * c..8 * c + 8], y, 0)).zip(&kernel[27 * o..]).map(|(v, k)| v.unwrap_or(0.0) * k).sum();
            vec![at(0, 0), at(0, 2), at(1, 0), at(1, 2)]
        },
    );
    imports(
        "GroupConvolution",
        |ir, x| {
            let w = ir.halves(&[3, 2, 1, 1, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            ir.op("GroupConvolution", &format!("{PLAIN} strides=\"1, 1\" pads_begin=\"0, 0\" pads_end=\"0, 0\""), &[x, &w], &[1, 6, 4, 2])
        },
        |x| (0..48).map(|i| x[8 * (i / 16) + i % 8] * (i / 8 + 1) as f32).collect(),
    );
    let pool = |kind: &'static str, more: &'static str| {
        move |ir: &mut fixture::Ir, x: &fixture::Value| {
            let window = "kernel=\"3, 3\" strides=\"1, 1\" pads_begin=\"1, 1\" pads_end=\"1, 1\" rounding_type=\"floor\" auto_pad=\"explicit\"";
            ir.op(kind, &format!("{window} {more}"), &[x], &[1, 3, 4, 2])
        }
    };
    let everywhere = move |x: &[f32], f: fn(Vec<f32>) -> f32| -> Vec<f32> {
        (0..24).map(|i| f(window(&x[8 * (i / 8)..8 * (i / 8) + 8], (i % 8 / 2) as i32, (i % 2) as i32).into_iter().flatten().collect())).collect()
    };
    imports("MaxPool", pool("MaxPool", "dilations=\"1, 1\""), move |x| everywhere(x, |v| v.into_iter().fold(f32::MIN, f32::max)));
    imports("AvgPool", pool("AvgPool", "exclude-pad=\"true\""), move |x| everywhere(x, |v| v.iter().sum::<f32>() / v.len() as f32));
    imports("AvgPool with the pad", pool("AvgPool", "exclude-pad=\"false\""), move |x| everywhere(x, |v| v.iter().sum::<f32>() / 9.0));
}

#[test]
fn a_product_is_imported() {
    let weight: Vec<f32> = (0..120).map(|i| (i % 11) as f32 * 0.125 - 0.5).collect();
    let same = weight.clone();
    imports(
        "MatMul",
        move |ir, x| {
            let (flat, w) = (ir.flat(x), ir.halves(&[5, 24], &weight));
            ir.op("MatMul", "transpose_a=\"false\" transpose_b=\"true\"", &[&flat, &w], &[1, 5])
        },
        move |x| same.chunks(24).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect(),
    );
}

#[test]
fn what_is_not_understood_is_named() {
    let import = |kind: &str, attributes: &str| {
        let (xml, bin) = fixture::network(4, 2, |ir, x| ir.op(kind, attributes, &[x], &[1, 3, 4, 2]));
        let dir = tempfile::tempdir().expect("a folder");
        let path = |end: &str| dir.path().join(format!("net.{end}"));
        std::fs::write(path("xml"), xml).expect("written");
        std::fs::write(path("bin"), bin).expect("written");
        openvino::import(&path("xml"), &path("bin"), "net", &[]).unwrap_err().to_string()
    };
    let e = import("NonMaxSuppression", "");
    assert!(e.contains("the operation NonMaxSuppression is not supported") && e.contains("net.xml"), "{e}");
    let e = import("MaxPool", "strides=\"1, 1\" kernel=\"2, 2\" auto_pad=\"same_upper\"");
    assert!(e.contains("MaxPool") && e.contains("auto_pad = 'same_upper'"), "{e}");
    let e = import("Const", "offset=\"10\" size=\"999\"");
    assert!(e.contains("outside the binary"), "{e}");
    let e = import("Add", "");
    assert!(e.contains("1 inputs where at least 2"), "{e}");
}

/// Networks of our own in OpenVINO IR.
mod fixture {
    /// A value: its layer, port, shape and type.
    pub struct Value {
        layer: usize,
        port: usize,
        dims: Vec<usize>,
        precision: &'static str,
    }

    /// A network under construction.
    #[derive(Default)]
    pub struct Ir {
        layers: String,
        edges: String,
        bin: Vec<u8>,
        count: usize,
    }

    /// Length of an embedding of [`ir`].
    pub const DIMENSION: usize = 4;

    /// A small embedder of crops 16 pixels high and 8 wide: XML and binary.
    pub fn ir() -> (String, Vec<u8>) {
        network(16, 8, |ir, x| {
            let (w, axes) = (ir.halves(&[DIMENSION, 3, 1, 1], &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.5, -1.0, 0.5]), ir.whole(&[2], &[2, 3]));
            let window = "auto_pad=\"explicit\" dilations=\"1, 1\" strides=\"1, 1\" pads_begin=\"0, 0\" pads_end=\"0, 0\"";
            let y = ir.op("Convolution", window, &[x, &w], &[1, DIMENSION, 16, 8]);
            ir.op("ReduceMean", "keep_dims=\"true\"", &[&y, &axes], &[1, DIMENSION, 1, 1])
        })
    }

    /// A network of crops of `height` by `width` pixels, its output flattened.
    pub fn network(height: usize, width: usize, build: impl Fn(&mut Ir, &Value) -> Value) -> (String, Vec<u8>) {
        let mut ir = Ir::default();
        let input = ir.op("Parameter", &format!("shape=\"1,3,{height},{width}\" element_type=\"f32\""), &[], &[1, 3, height, width]);
        let made = build(&mut ir, &input);
        let flat = ir.flat(&made);
        ir.layer("Result", "", &[&flat], None);
        let Ir { layers, edges, bin, .. } = ir;
        (format!("<?xml version=\"1.0\"?><net name=\"fixture\" version=\"11\"><layers>{layers}</layers><edges>{edges}</edges></net>"), bin)
    }

    impl Ir {
        /// A layer of float32.
        pub fn op(&mut self, kind: &str, data: &str, inputs: &[&Value], dims: &[usize]) -> Value {
            self.typed(kind, data, inputs, dims, "FP32")
        }

        pub fn typed(&mut self, kind: &str, data: &str, inputs: &[&Value], dims: &[usize], precision: &'static str) -> Value {
            self.layer(kind, data, inputs, Some((dims, precision)))
        }

        pub fn flat(&mut self, x: &Value) -> Value {
            let shape = self.whole(&[2], &[0, -1]);
            self.op("Reshape", "special_zero=\"true\"", &[x, &shape], &[1, x.dims.iter().product()])
        }

        pub fn shape_of(&mut self, x: &Value) -> Value {
            self.typed("ShapeOf", "output_type=\"i64\"", &[x], &[x.dims.len()], "I64")
        }

        /// A constant of float16, decompressed as OpenVINO does it.
        pub fn halves(&mut self, dims: &[usize], values: &[f32]) -> Value {
            let raw = self.constant("f16", "FP16", dims, values.iter().flat_map(|v| half(*v).to_le_bytes()).collect());
            self.op("Convert", "destination_type=\"f32\"", &[&raw], dims)
        }

        pub fn whole(&mut self, dims: &[usize], values: &[i64]) -> Value {
            self.constant("i64", "I64", dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        }

        pub fn whole32(&mut self, dims: &[usize], values: &[i32]) -> Value {
            self.constant("i32", "I32", dims, values.iter().flat_map(|v| v.to_le_bytes()).collect())
        }

        fn constant(&mut self, element: &str, precision: &'static str, dims: &[usize], raw: Vec<u8>) -> Value {
            let data = format!("element_type=\"{element}\" offset=\"{}\" size=\"{}\"", self.bin.len(), raw.len());
            self.bin.extend(raw);
            self.typed("Const", &data, &[], dims, precision)
        }

        fn layer(&mut self, kind: &str, data: &str, inputs: &[&Value], output: Option<(&[usize], &'static str)>) -> Value {
            let id = self.count;
            self.count += 1;
            let port = |id: usize, dims: &[usize], precision: &str| {
                let dims: String = dims.iter().map(|d| format!("<dim>{d}</dim>")).collect();
                format!("<port id=\"{id}\" precision=\"{precision}\">{dims}</port>")
            };
            let ins: String = inputs.iter().enumerate().map(|(i, v)| port(i, &v.dims, v.precision)).collect();
            let out = output.map_or(String::new(), |(dims, precision)| format!("<output>{}</output>", port(inputs.len(), dims, precision)));
            let ins = if ins.is_empty() { ins } else { format!("<input>{ins}</input>") };
            self.layers += &format!("<layer id=\"{id}\" name=\"layer{id}\" type=\"{kind}\" version=\"opset1\"><data {data}/>{ins}{out}</layer>");
            for (to, v) in inputs.iter().enumerate() {
                self.edges += &format!("<edge from-layer=\"{}\" from-port=\"{}\" to-layer=\"{id}\" to-port=\"{to}\"/>", v.layer, v.port);
            }
            let (dims, precision) = output.unwrap_or((&[], "FP32"));
            Value { layer: id, port: inputs.len(), dims: dims.to_vec(), precision }
        }
    }

    /// Bits of float16; the numbers used here fit it exactly.
    fn half(v: f32) -> u16 {
        let bits = v.to_bits();
        let sign = (bits >> 16) as u16 & 0x8000;
        if v == 0.0 { sign } else { sign | (((bits >> 23 & 0xff) as u16 + 15 - 127) << 10) | (bits >> 13 & 0x3ff) as u16 }
    }
}
