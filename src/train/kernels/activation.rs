//! Activations and their derivatives.

/// Activation after a convolution or normalisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// None.
    Linear,
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
}

impl Activation {
    /// The activation's derivative at `v`, 0 or 1.
    pub(super) fn slope(self, v: f32) -> f32 {
        let passes = match self {
            Activation::Linear => true,
            Activation::Relu => v > 0.0,
            Activation::Relu6 => v > 0.0 && v < 6.0,
        };
        f32::from(u8::from(passes))
    }
}
