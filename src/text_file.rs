//! Reads text files; the error for another encoding than UTF-8 names the remedy.

use std::io;
use std::path::Path;

/// Reads the whole file at `path`, which must be UTF-8.
///
/// # Errors
/// If the file cannot be read or is not UTF-8. The message does not name the file.
pub fn read(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path).map_err(explained)
}

/// The error of reading a text, with a remedy if the text is not UTF-8.
fn explained(e: io::Error) -> io::Error {
    if e.kind() == io::ErrorKind::InvalidData {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not UTF-8 text; it may have another encoding, such as UTF-16, or be a binary \
             file; save it as UTF-8 text",
        )
    } else {
        e
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_encoding_is_named_with_the_remedy() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), b"\xff\xfe1\0,\0").expect("written");
        let e = read(file.path()).expect_err("UTF-16").to_string();
        assert!(e.contains("save it as UTF-8"), "{e}");
        std::fs::write(file.path(), "1,ü").expect("written");
        assert_eq!(read(file.path()).expect("UTF-8"), "1,ü");
    }
}
