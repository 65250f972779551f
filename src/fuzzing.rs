//! Entry points of the fuzz targets in `fuzz/`: every parser of untrusted input. Each function
//! takes arbitrary bytes, and panics if an invariant is violated.

use std::io::BufReader;
use std::path::Path;

use ndarray::{ArrayD, IxDyn};

use crate::address::Address;
use crate::config::Config;
use crate::detect::batch_outputs::BatchOutputs;
use crate::detect::{Layout, decode, infer_format};
use crate::infer::{ModelMetadata, Output};
use crate::mot_format;
use crate::onnx::metadata::with_metadata;
use crate::onnx::proto::ModelProto;
use crate::refine::RecordedEvents;
use crate::secret::Secret;
use crate::serve::access::control::AccessControl;
use crate::serve::config::{ServeConfig, ServiceConfig};
use crate::track::head::{AssociationHead, FEATURES, HeadTable};

/// The file name in messages.
fn path() -> &'static Path {
    Path::new("fuzzed")
}

/// MOTChallenge files: every parsed number is finite, and a written row is parsed to the same
/// values.
pub fn mot(bytes: &[u8]) {
    let Ok(rows) = mot_format::parse_rows(&String::from_utf8_lossy(bytes), path()) else {
        return;
    };
    for row in rows {
        assert!(
            row.frame >= 1
                && row
                    .ltwh
                    .iter()
                    .chain([&row.confidence, &row.visibility])
                    .all(|v| v.is_finite()),
            "{row:?}"
        );
        let mut line = String::new();
        let ltwh = row.ltwh.map(|v| v.clamp(-1e6, 1e6) as f32);
        mot_format::write_row(
            &mut line,
            row.frame,
            row.id,
            ltwh,
            row.confidence.clamp(0.0, 1.0) as f32,
        );
        let again = mot_format::parse_rows(&line, path()).expect("a written line");
        assert!(
            (again[0].ltwh[0] - f64::from(ltwh[0])).abs() < 0.01 && again[0].frame == row.frame,
            "{line}"
        );
    }
}

/// Configurations, with and without cameras: an accepted configuration is accepted again after it
/// was serialised, and the serialised text has no secrets.
pub fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(config) = Config::from_toml(&text, path()) {
        let written = toml::to_string(&config).expect("a parsed configuration serialises");
        let again: Config = toml::from_str(&written).expect("a serialised configuration");
        assert_eq!(toml::to_string(&again).ok(), Some(written));
    }
    if let Ok((service, _)) = ServiceConfig::from_toml(&text, path()) {
        let written = toml::to_string(&service).expect("a parsed configuration serialises");
        for camera in service.cameras.values() {
            let secret = camera.password.as_ref().map_or("", Secret::expose);
            assert!(
                secret.len() < 12 || !written.contains(secret) || text.matches(secret).count() > 1,
                "a password is serialised"
            );
        }
    }
}

/// Files of events: refining an accepted recording keeps its frames, with finite boxes.
pub fn events(bytes: &[u8]) {
    let Ok(recordings) = RecordedEvents::read_lines(BufReader::new(bytes), path()) else {
        return;
    };
    let config = Config::default();
    for recording in recordings.iter().filter(|r| r.frames.len() < 64) {
        let refined = recording.refine(&config.offline, &config.tracker);
        assert_eq!(refined.frames.len(), recording.frames.len());
        assert!(
            refined
                .frames
                .iter()
                .flat_map(|f| &f.tracks)
                .all(|t| t.bbox.iter().all(|v| v.is_finite()))
        );
    }
}

/// The association head: an accepted table returns probabilities for any features.
pub fn head(bytes: &[u8]) {
    let Ok(table) = serde_json::from_slice::<HeadTable>(bytes) else {
        return;
    };
    let Ok(head) = AssociationHead::new(&table) else {
        return;
    };
    for value in [0.0, 1.0, -1.0, 1e30, f32::INFINITY, f32::NAN] {
        let probability = head.of(&[value; FEATURES.len()]);
        assert!(
            (0.0..=1.0).contains(&probability),
            "{probability} for {value}"
        );
    }
}

/// ONNX files: metadata is parsed and replaced, and reading the file again returns the new value.
pub fn metadata(bytes: &[u8]) {
    let entry = [("size".to_string(), "64x128".to_string())];
    if let Ok(changed) = with_metadata(bytes, &entry)
        && let Ok(model) = <ModelProto as prost::Message>::decode(changed.as_slice())
    {
        assert!(
            model
                .metadata_props
                .iter()
                .any(|e| e.key == "twintrack.size" && e.value == "64x128")
        );
    }
    let text = String::from_utf8_lossy(bytes);
    let keys = [
        "names",
        "twintrack.mean",
        "twintrack.std",
        "twintrack.color",
        "twintrack.size",
        "twintrack.layout",
    ];
    let pairs = keys.into_iter().zip(text.split('\n').map(str::to_string));
    let metadata = ModelMetadata::from_pairs(pairs);
    let _ = (
        metadata.pixel_format(),
        metadata.size(),
        metadata.classes().len(),
        metadata.numbers::<2>("mean"),
    );
    let _ = text.parse::<crate::track::similarity::StrangerTable>();
}

/// Outputs of a detector in every layout: all decoded detections have at least the threshold's
/// confidence.
pub fn detections(bytes: &[u8]) {
    let mut bytes = bytes.iter().copied();
    let mut next = || bytes.next().unwrap_or_default();
    let input = (32 * usize::from(next() % 4), 32 * usize::from(next() % 4));
    let n = usize::from(next() % 3);
    let names = [
        "dets",
        "labels",
        "boxes",
        "scores",
        "logits",
        "pred_boxes",
        "cls_8",
        "reg_8",
        "output",
        "",
    ];
    let outputs: Vec<Output> = (0..next() % 7)
        .map(|_| {
            let name = names[usize::from(next()) % names.len()].to_string();
            let shape: Vec<usize> = (0..next() % 5).map(|_| usize::from(next()) % 90).collect();
            let count = shape.iter().product::<usize>();
            let shape = if count > 20_000 { vec![0, 4] } else { shape };
            let values = (0..shape.iter().product()).map(|_| match next() {
                255 => f32::NAN,
                254 => f32::INFINITY,
                253 => f32::MIN,
                v => f32::from(v) / 50.0 - 1.0,
            });
            let values: Vec<f32> = values.collect();
            Output {
                name,
                values: ArrayD::from_shape_vec(IxDyn(&shape), values)
                    .expect("the number of values is that of the shape"),
            }
        })
        .collect();
    let batch = BatchOutputs {
        outputs: &outputs,
        n,
        input,
        class: usize::from(next() % 8),
        threshold: 0.3,
    };
    let _ = infer_format::layout(&batch, usize::from(next() % 4));
    let _ = infer_format::suggestion(&batch);
    for layout in Layout::ALL {
        let _ = infer_format::contradiction(&batch, layout);
        if let Ok(detections) = decode::decode(&batch, layout) {
            assert!(
                detections.len() == n
                    && detections
                        .iter()
                        .flatten()
                        .all(|d| d.confidence >= batch.threshold),
                "{layout:?}"
            );
        }
    }
}

/// Headers and query of an HTTP request: no request is authorised without the token.
pub fn http(bytes: &[u8]) {
    use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
    const TOKEN: &str = "0123456789abcdef";
    let mut lines = bytes.split(|b| *b == b'\n');
    let query = lines.next().unwrap_or_default();
    let mut headers = HeaderMap::new();
    for line in lines.take(16) {
        let mut parts = line.splitn(2, |b| *b == b':');
        let (name, value) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    let uri = Uri::try_from([b"/api/v1/live?", query].concat().as_slice());
    let Ok(uri) = uri else { return };
    let _ = crate::serve::live::try_query(&uri);
    static OPENED: std::sync::OnceLock<[AccessControl; 2]> = std::sync::OnceLock::new();
    let [closed, open] = OPENED.get_or_init(|| {
        let folder = std::env::temp_dir().join("twintrack-fuzz-without-users");
        let config = ServeConfig::default()
            .with_trusted_proxies(vec!["127.0.0.1".into()])
            .with_state_dir(Some(folder));
        let listen = ([127, 0, 0, 1], 0).into();
        let access = |token| AccessControl::open(&config, listen, token).expect("valid");
        [access(Some(Secret::new(TOKEN))), access(None)]
    });
    let has_token = String::from_utf8_lossy(bytes).contains(TOKEN);
    assert!(
        has_token || !closed.admits(&headers, uri.query()),
        "authorised without the token"
    );
    let _ = open.admits(&headers, uri.query());
}

/// Addresses: the password is masked in any address, also in a malformed one.
pub fn address(bytes: &[u8]) {
    const PASSWORD: &str = "Tr0ub4dor";
    let text = String::from_utf8_lossy(bytes);
    let address = Address::new(text.as_ref());
    let _ = (
        address.to_string(),
        address.origin(),
        address.check(),
        address.hint(),
    );
    // `Url` removes tabs and line breaks; a part that contains them may become the password's text.
    let is_innocent = |part: &&str| !part.replace(['\t', '\n', '\r'], "").contains(PASSWORD);
    let parts: Vec<&str> = text.splitn(3, '\n').filter(is_innocent).collect();
    if let [before, after, path] = parts.as_slice() {
        let address = Address::new(format!(
            "rtsp://admin:{before}{PASSWORD}{after}@host/{path}"
        ));
        assert!(
            !address.to_string().contains(PASSWORD) && !address.origin().contains(PASSWORD),
            "{address}"
        );
    }
}
