//! What the fleet's buckets hold: cameras, leases, workers. JSON, with the names of the fields as
//! here.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::fleet::error::FleetError;
use crate::source::{CameraConfig, Transport};

/// Checks that a camera can be one of a fleet: its name can be a key, and its secrets are not in the
/// record, which every worker can read.
///
/// # Errors
/// The first reason why it cannot.
pub fn check_camera(name: &str, camera: &CameraConfig) -> Result<(), FleetError> {
    let fail = |reason: &str| {
        Err(FleetError::Camera {
            camera: name.into(),
            reason: reason.into(),
        })
    };
    let is_part = |part: &str| {
        let is_valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !part.is_empty() && part.chars().all(is_valid)
    };
    if !name.split('.').all(is_part) {
        return fail(
            "the name may contain only letters, digits, '-', '_', and '.' between them: it is the \
             key of a record",
        );
    }
    if camera.url.is_empty() {
        return fail("it has no url");
    }
    if camera.transport != Transport::Tcp {
        return fail(
            "the transport of a fleet's cameras is tcp: FFmpeg has one setting for all cameras of a \
             worker",
        );
    }
    if camera.password.is_some() {
        return fail(
            "every worker can read the record, so it must not hold the password: use password_env \
             or password_file",
        );
    }
    if camera.url.has_login() {
        return fail(
            "every worker can read the record, so the url must not hold a login: use user with \
             password_env or password_file",
        );
    }
    camera.validate(name).map_err(|e| FleetError::Camera {
        camera: name.into(),
        reason: e.to_string(),
    })?;
    let scene = camera.scene().validate(&format!("cameras.{name}."));
    scene.map_err(|e| FleetError::Camera {
        camera: name.into(),
        reason: e.to_string(),
    })
}

/// Which worker tracks a camera. The revision of the record that first names a worker is the
/// lease's number: it is in every event, and a later holder has a higher one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// Id of the worker.
    pub worker: String,
    /// The worker is to give the camera back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Leaving>,
    /// The camera came from another worker that could have kept it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moved: bool,
}

/// What becomes of a camera when its worker has stopped it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Leaving {
    /// It is given to another worker, by id.
    To(String),
    /// Nobody tracks it: it was removed, or there is no room.
    Nowhere,
}

impl LeaseRecord {
    /// The lease of a worker.
    pub fn of(worker: &str) -> Self {
        LeaseRecord {
            worker: worker.into(),
            leaving: None,
            moved: false,
        }
    }

    /// The worker that has the camera, or is to get it; none if it is to be nowhere.
    pub fn destination(&self) -> Option<&str> {
        match &self.leaving {
            None => Some(&self.worker),
            Some(Leaving::To(worker)) => Some(worker),
            Some(Leaving::Nowhere) => None,
        }
    }
}

/// A worker's report, once per [`crate::fleet::config::LeaseTimes::report`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct WorkerRecord {
    /// Its name.
    pub name: String,
    /// Number of the report, from 1.
    pub report: u64,
    /// Frames per second that it can process.
    pub capacity: f64,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// It stops, and takes no cameras any more.
    #[serde(default)]
    pub draining: bool,
    /// Whether the detector runs on a GPU.
    #[serde(default)]
    pub gpu: bool,
    /// Memory in bytes that is available on its machine.
    #[serde(default)]
    pub memory: u64,
    /// Version of the program.
    #[serde(default)]
    pub version: String,
    /// Address of its web server, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// The cameras that it tracks.
    #[serde(default)]
    pub cameras: BTreeMap<String, HeldCamera>,
}

/// A camera that a worker tracks.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
pub struct HeldCamera {
    /// Number of the lease.
    pub lease: u64,
    /// Revision of the camera's record that is in use.
    pub record: u64,
    /// Frames per second that the camera delivered lately, those dropped included; 0 if not known yet.
    pub rate: f64,
}

/// Parses a record.
///
/// # Errors
/// When it is not valid.
pub fn parse<T: for<'de> Deserialize<'de>>(key: &str, json: &[u8]) -> Result<T, FleetError> {
    serde_json::from_slice(json).map_err(|e| FleetError::Record {
        key: key.into(),
        reason: e.to_string(),
    })
}

/// The JSON of a record.
pub fn to_json<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(record).expect("records serialise to JSON")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::secret::Secret;

    #[test]
    fn cameras_with_secrets_or_names_that_are_no_keys_are_refused() {
        let camera = CameraConfig::default().with_url(Address::new("rtsp://10.0.0.7/main"));
        let refused = |name: &str, camera: &CameraConfig| {
            let error = check_camera(name, camera).expect_err("refused");
            error.to_string()
        };
        check_camera("gate-1.north", &camera).expect("valid");
        for name in ["", ".", "a.", ".a", "a..b", "a b", "ä", "a>"] {
            assert!(refused(name, &camera).contains("the name may"), "{name}");
        }
        let login = camera
            .clone()
            .with_url(Address::new("rtsp://admin:secret@10.0.0.7/main"));
        let text = refused("a", &login);
        assert!(text.contains("login") && !text.contains("secret"), "{text}");
        let password = camera.clone().with_password(Some(Secret::new("x")));
        assert!(refused("a", &password).contains("password_env"));
        assert!(refused("a", &camera.with_retry_after(-1.0)).contains("retry_after"));
    }

    #[test]
    fn records_keep_their_form() {
        let lease = LeaseRecord {
            leaving: Some(Leaving::To("b".into())),
            ..LeaseRecord::of("a")
        };
        let json = String::from_utf8(to_json(&lease)).expect("text");
        assert_eq!(json, r#"{"worker":"a","leaving":{"to":"b"}}"#);
        assert_eq!(
            parse::<LeaseRecord>("k", json.as_bytes()).expect("valid"),
            lease
        );
        assert_eq!(lease.destination(), Some("b"));
        let error = parse::<LeaseRecord>("gate", b"{}").expect_err("no worker");
        assert!(error.to_string().contains("'gate'"), "{error}");
    }
}
