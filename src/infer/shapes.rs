//! The sessions of one model: one on a CPU, one for each input shape on a GPU.
//!
//! ONNX Runtime's CUDA provider plans every convolution again when the input's shape differs from
//! that of the session's previous run, which takes longer than the run (microsoft/onnxruntime issue
//! 19838). A session that always runs the same shape plans once. Because its dimensions are fixed
//! when it is opened, the nodes that depend on nothing else are computed then.

use std::path::{Path, PathBuf};

use ort::session::Session;
use ort::value::ValueType;

use crate::infer::bound::BoundSession;
use crate::infer::device::{Device, Provider};
use crate::infer::error::InferError;
use crate::infer::open::{self, FixedDimension, Network};
use crate::infer::options::SessionOptions;
use crate::infer::runtime::Runtime;

/// Maximum number of open sessions of a model; before another one is opened, the least recently
/// used one is closed.
const MOST: usize = 32;

/// The sessions of one model.
pub(super) struct SessionPerShape {
    runtime: Runtime,
    path: PathBuf,
    /// Options with the device on which the sessions run.
    options: SessionOptions,
    provider: Provider,
    /// On a CPU it runs inputs of every shape. On a GPU it never runs, and is kept for the names,
    /// types and dimensions of the file's inputs and outputs.
    first: BoundSession,
    /// Sessions by input shape; the most recently used one is the last.
    sessions: Vec<([usize; 4], BoundSession)>,
}

impl SessionPerShape {
    /// Opens the first session.
    ///
    /// # Errors
    /// Fails when the file is missing or broken, or the device cannot be used.
    pub fn open(
        runtime: &Runtime,
        path: &Path,
        options: SessionOptions,
    ) -> Result<Self, InferError> {
        let (session, provider) = open::session(runtime, Network::File(path), options, &[])?;
        let device = match (options.device, provider) {
            (Device::Auto, Provider::Cpu) => Device::Cpu,
            (Device::Auto, _) => Device::Cuda(0),
            (device, _) => device,
        };
        Ok(SessionPerShape {
            runtime: runtime.clone(),
            path: path.to_path_buf(),
            options: SessionOptions { device, ..options },
            provider,
            first: bound(session, path)?,
            sessions: Vec::new(),
        })
    }

    /// The first session, whose free dimensions are not fixed; the others have inputs and outputs
    /// of the same names.
    pub fn any(&self) -> &Session {
        &self.first.session
    }

    /// The provider of all sessions.
    pub fn provider(&self) -> Provider {
        self.provider
    }

    /// Runtime and options for opening further sessions on the same device.
    pub fn opened_with(&self) -> (&Runtime, SessionOptions) {
        (&self.runtime, self.options)
    }

    /// The session for inputs of this shape, which is opened if there is none.
    ///
    /// # Errors
    /// Fails when the session cannot be opened.
    pub fn of(&mut self, shape: [usize; 4]) -> Result<&mut BoundSession, InferError> {
        if !self.provider.is_gpu() {
            return Ok(&mut self.first);
        }
        let entry = match self.sessions.iter().position(|(its, _)| *its == shape) {
            Some(found) => self.sessions.remove(found),
            None => {
                if self.sessions.len() == MOST {
                    self.sessions.remove(0);
                }
                (shape, self.open_for(shape)?)
            }
        };
        self.sessions.push(entry);
        let last = self.sessions.len() - 1;
        Ok(&mut self.sessions[last].1)
    }

    fn open_for(&self, shape: [usize; 4]) -> Result<BoundSession, InferError> {
        let (model, network) = (self.path.display(), Network::File(&self.path));
        tracing::debug!(%model, ?shape, "opening a session for this shape");
        let open =
            |fixed: &[FixedDimension]| open::session(&self.runtime, network, self.options, fixed);
        let (session, _) = open(&fixed_dimensions(self.any(), shape)).or_else(|error| {
            tracing::debug!(%model, ?shape, %error, "its dimensions cannot be fixed");
            open(&[])
        })?;
        bound(session, &self.path)
    }
}

/// The named free dimensions of the picture input (the one with four axes), and their sizes in
/// `shape`. A name that would have two sizes is left free.
fn fixed_dimensions(session: &Session, shape: [usize; 4]) -> Vec<FixedDimension> {
    let mut fixed: Vec<FixedDimension> = Vec::new();
    for input in session.inputs() {
        let ValueType::Tensor {
            dimension_symbols, ..
        } = input.dtype()
        else {
            continue;
        };
        if dimension_symbols.len() == shape.len() {
            let named = dimension_symbols.iter().cloned().zip(shape);
            let named = named.filter(|(name, _)| !name.is_empty());
            fixed.extend(named.map(|(name, size)| (name, size as i64)));
        }
    }
    let agrees = |(name, size): &FixedDimension| {
        fixed
            .iter()
            .all(|(other, its)| other != name || its == size)
    };
    fixed.iter().filter(|f| agrees(f)).cloned().collect()
}

fn bound(session: Session, path: &Path) -> Result<BoundSession, InferError> {
    BoundSession::new(session).map_err(|e| InferError::ModelBroken {
        path: path.to_path_buf(),
        reason: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::paths::find_model;

    #[test]
    fn the_free_dimensions_of_the_shipped_networks_are_fixed_by_their_names() {
        let runtime = Runtime::load().expect("ONNX Runtime, from `make setup`");
        let options = SessionOptions::new(Device::Cpu, 1);
        for (file, shape, expected) in [
            (
                "person_detector.onnx",
                [2, 3, 64, 96],
                vec![("N", 2), ("H", 64), ("W", 96)],
            ),
            ("siamese.onnx", [4, 3, 128, 64], vec![("N", 4)]),
        ] {
            let path = find_model(Path::new(file)).expect("shipped");
            let sessions = SessionPerShape::open(&runtime, &path, options).expect("opened");
            let fixed = fixed_dimensions(sessions.any(), shape);
            let fixed: Vec<_> = fixed.iter().map(|(n, size)| (n.as_str(), *size)).collect();
            assert_eq!(fixed, expected);
            let mut bound = sessions
                .open_for(shape)
                .expect("opened with fixed dimensions");
            let black = ort::value::Tensor::from_array(ndarray::Array4::<f32>::zeros(shape));
            let black = black.expect("a tensor").into_dyn();
            let name = sessions.any().inputs()[0].name().to_string();
            let output = sessions.any().outputs()[0].name().to_string();
            let host = crate::infer::bound::Memory::of(Provider::Cpu, Device::Cpu)
                .expect("CPU")
                .host;
            let values = bound
                .run(&[(&name, &black)], &[(&output, &host)])
                .expect("run");
            let values = values[0].try_extract_array::<f32>().expect("float32");
            assert_eq!(values.shape()[0], shape[0]);
        }
    }
}
