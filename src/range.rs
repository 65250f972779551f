//! Range checks of configuration values.

use std::fmt::Display;

use thiserror::Error;

/// A configuration value outside its range.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{key} = {value} is out of range: it must be {allowed}")]
pub struct OutOfRange {
    /// The dotted key, such as `tracker.keep_lost`.
    pub key: String,
    /// The value given.
    pub value: String,
    /// The allowed range.
    pub allowed: String,
}

/// Checks that `value` is in [low, high]; NaN is not.
///
/// # Errors
/// [`OutOfRange`] with key, value and range.
pub fn within<T: PartialOrd + Display>(
    key: &str,
    value: T,
    low: T,
    high: T,
) -> Result<(), OutOfRange> {
    if value >= low && value <= high {
        Ok(())
    } else {
        Err(OutOfRange {
            key: key.into(),
            value: value.to_string(),
            allowed: format!("from {low} to {high}"),
        })
    }
}

/// Checks that `value` is in [0, 1].
///
/// # Errors
/// [`OutOfRange`] with key, value and range.
pub fn share(key: &str, value: f32) -> Result<(), OutOfRange> {
    within(key, value, 0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_for_a_value_out_of_range_has_key_and_range() {
        assert_eq!(
            share("tracker.sure", 1.5).unwrap_err().to_string(),
            "tracker.sure = 1.5 is out of range: it must be from 0 to 1"
        );
        assert!(share("x", f32::NAN).is_err());
        assert!(within("n", 3, 1, 3).is_ok());
    }
}
