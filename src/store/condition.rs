//! Conditions of a statement that are joined by AND, with their values.

use crate::store::database::Value;

/// The conditions so far.
#[derive(Debug, Default)]
pub struct Conditions {
    text: Vec<String>,
    /// The values, in the order of their `?`.
    pub values: Vec<Value>,
}

impl Conditions {
    /// Adds a condition with a `?` for the value.
    pub fn with(&mut self, condition: &str, value: impl Into<Value>) {
        self.text.push(condition.into());
        self.values.push(value.into());
    }

    /// Adds a condition with two `?`.
    pub fn with_two(&mut self, condition: &str, first: impl Into<Value>, second: impl Into<Value>) {
        self.with(condition, first);
        self.values.push(second.into());
    }

    /// The text after WHERE.
    pub fn text(&self) -> String {
        if self.text.is_empty() {
            "1 = 1".into()
        } else {
            self.text.join(" AND ")
        }
    }
}
