//! Sessions with I/O binding: the caller chooses for each output whether it is in device or host
//! memory, so that values can stay on the device between sessions.

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session};
use ort::value::DynValue;

use crate::infer::device::{Device, Provider};

/// The kinds of memory that a provider uses.
pub(super) struct Memory {
    provider: Provider,
    /// The device's own memory.
    pub device: MemoryInfo<'static>,
    /// Memory for the CPU, from and to which the device copies fastest.
    pub host: MemoryInfo<'static>,
}

impl Memory {
    /// The memory of `provider` on `device`.
    ///
    /// # Errors
    /// Fails when ONNX Runtime does not support this memory.
    pub fn of(provider: Provider, device: Device) -> ort::Result<Self> {
        let id = match device {
            Device::Cuda(n) => n,
            _ => 0,
        };
        let (own, host) = if provider.is_gpu() {
            (AllocationDevice::CUDA, AllocationDevice::CUDA_PINNED)
        } else {
            (AllocationDevice::CPU, AllocationDevice::CPU)
        };
        let info = |device, kind| MemoryInfo::new(device, id, AllocatorType::Device, kind);
        Ok(Memory {
            provider,
            device: info(own, MemoryType::Default)?,
            host: info(host, MemoryType::CPUOutput)?,
        })
    }

    /// An allocator of host memory for the inputs of `session`.
    ///
    /// # Errors
    /// Fails when the session has no such allocator.
    pub fn host_allocator(&self, session: &Session) -> ort::Result<Allocator> {
        if self.provider.is_gpu() {
            Allocator::new(session, self.host.to_owned())
        } else {
            Ok(Allocator::default())
        }
    }
}

/// A session, and the binding of its inputs and outputs, which all runs use.
pub(super) struct BoundSession {
    pub session: Session,
    binding: IoBinding,
}

impl BoundSession {
    /// Creates the binding of a session.
    ///
    /// # Errors
    /// Fails when ONNX Runtime cannot create the binding.
    pub fn new(session: Session) -> ort::Result<Self> {
        let binding = session.create_binding()?;
        Ok(BoundSession { session, binding })
    }

    /// Runs the session on `inputs` (names and values). `outputs`: the names of the outputs to
    /// compute, and the memory for each. Waits for the device, and returns the outputs in this
    /// order.
    ///
    /// # Errors
    /// Fails when the network has no input or output of a given name, when an input's type or shape
    /// does not match the network, or when the run fails.
    pub fn run(
        &mut self,
        inputs: &[(&str, &DynValue)],
        outputs: &[(&str, &MemoryInfo<'static>)],
    ) -> ort::Result<Vec<DynValue>> {
        self.binding.clear_outputs();
        for (name, value) in inputs {
            self.binding.bind_input(*name, value)?;
        }
        for (name, memory) in outputs {
            self.binding.bind_output_to_device(*name, memory)?;
        }
        let mut values = self.session.run_binding(&self.binding)?;
        let taken = outputs.iter().filter_map(|(name, _)| values.remove(name));
        Ok(taken.collect())
    }
}
