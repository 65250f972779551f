//! Formats errors for users. Shared with the program `twintrack-train`.

/// The error with its causes. A cause is left out if the text before it contains it already.
pub fn message(e: &anyhow::Error) -> String {
    e.chain()
        .skip(1)
        .map(ToString::to_string)
        .fold(e.to_string(), |text, cause| {
            if text.contains(&cause) {
                text
            } else {
                format!("{text}: {cause}")
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_does_not_repeat_causes() {
        let text = message(
            &anyhow::anyhow!("no such file")
                .context("cannot read x: no such file")
                .context("sequence a"),
        );
        assert_eq!(text, "sequence a: cannot read x: no such file");
    }
}
