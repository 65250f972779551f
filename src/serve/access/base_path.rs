//! The path below which a reverse proxy serves the web server.

/// `serve.base_path`, without a slash at its end; empty for none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BasePath(String);

impl BasePath {
    /// Parses a setting such as `/twintrack`; `""` and `/` are none.
    ///
    /// # Errors
    /// When it does not begin with a slash, or has an empty segment, a `.` or `..`, or other
    /// characters than letters, digits, `-`, `_`, `.` and `~`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let path = text.strip_suffix('/').unwrap_or(text);
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
        let valid = |segment: &str| {
            !segment.is_empty() && ![".", ".."].contains(&segment) && segment.chars().all(allowed)
        };
        let mut segments = path.split('/');
        if segments.next() == Some("") && (path.is_empty() || segments.all(valid)) {
            Ok(BasePath(path.into()))
        } else {
            Err(format!(
                "serve.base_path = \"{text}\" is not a path such as /twintrack"
            ))
        }
    }

    /// The path without a slash at its end; empty for none.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of the page, with a slash at its end.
    pub fn page(&self) -> String {
        format!("{}/", self.0)
    }

    /// The `Path` of cookies.
    pub fn cookies(&self) -> &str {
        if self.0.is_empty() { "/" } else { &self.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_paths_are_accepted() {
        for (text, path) in [
            ("", ""),
            ("/", ""),
            ("/twintrack", "/twintrack"),
            ("/twintrack/", "/twintrack"),
            ("/a/b-c_d.e~f", "/a/b-c_d.e~f"),
        ] {
            assert_eq!(BasePath::parse(text), Ok(BasePath(path.into())), "{text}");
        }
        for text in [
            "twintrack",
            "//",
            "/a//b",
            "/a/../b",
            "/.",
            "/a b",
            "/{x}",
            "/a?b",
            "/a#b",
            "/a;b",
            "/ä",
            "https://host/a",
        ] {
            assert!(BasePath::parse(text).is_err(), "{text}");
        }
        let base = BasePath::parse("/twintrack").expect("valid");
        assert_eq!(
            (base.page().as_str(), base.cookies()),
            ("/twintrack/", "/twintrack")
        );
        assert_eq!(BasePath::default().page(), "/");
        assert_eq!(BasePath::default().cookies(), "/");
    }
}
