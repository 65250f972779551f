//! Addresses of cameras and receivers. When an address is displayed, everything that may be a
//! secret is masked.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use url::Url;

/// An address, or the path of a file. Displayed, logged and serialised with its secrets masked.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// Wraps an address.
    pub fn new(address: impl Into<String>) -> Self {
        Address(address.into())
    }

    /// The address with its secrets, to open it. Must not be logged or displayed.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the address holds a login: a user or password before the host, or a value in the
    /// query whose name says so. True for an address that cannot be parsed unambiguously.
    pub fn has_login(&self) -> bool {
        const SECRETS: [&str; 8] = [
            "auth", "key", "pass", "passwd", "password", "pwd", "token", "user",
        ];
        if !self.0.contains("://") {
            return false;
        }
        match Url::parse(&self.0) {
            Ok(url) if url.has_host() && !is_ambiguous(&self.0, &url) => {
                let names = |name: &str| SECRETS.contains(&name.to_ascii_lowercase().as_str());
                !url.username().is_empty()
                    || url.password().is_some()
                    || url.query_pairs().any(|(name, _)| names(&name))
            }
            Ok(url) => url.has_host(),
            Err(_) => true,
        }
    }

    /// Whether the address is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Scheme, host and port only, for messages about receivers, because their whole path may be a
    /// secret.
    pub fn origin(&self) -> String {
        match Url::parse(&self.0) {
            Ok(url) if url.has_host() && is_ambiguous(&self.0, &url) => last_host(&self.0),
            Ok(url) if url.has_host() => format!("{}://{}", url.scheme(), host_and_port(&url)),
            _ => masked(&self.0),
        }
    }

    /// Checks that the address can be parsed unambiguously, has a host, and has a scheme that
    /// FFmpeg supports. An address with an unescaped `/`, `?` or `#` in its password is ambiguous.
    /// Paths of files are accepted.
    ///
    /// # Errors
    /// The message states what is wrong and what to do, without secrets.
    pub fn check(&self) -> Result<(), String> {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return Ok(());
        };
        let scheme = scheme.to_ascii_lowercase();
        if !SCHEMES.contains(&scheme.as_str()) {
            return Err(format!(
                "FFmpeg cannot read {scheme}:// addresses; give the camera's rtsp:// or http:// \
                 address"
            ));
        }
        match Url::parse(&self.0) {
            Err(e @ (url::ParseError::InvalidPort | url::ParseError::EmptyHost)) => {
                Err(format!("{e}; {ESCAPE}"))
            }
            _ if scheme != "file" && (rest.is_empty() || rest.starts_with('/')) => {
                Err("it has no host".into())
            }
            _ => Ok(()),
        }
    }

    /// A hint for an address that cannot be reached: an `@` after the host may belong to a password
    /// with an unescaped reserved character.
    pub fn hint(&self) -> Option<&'static str> {
        let url = Url::parse(&self.0).ok().filter(Url::has_host)?;
        is_ambiguous(&self.0, &url).then_some(ESCAPE)
    }
}

/// Schemes of addresses that FFmpeg reads.
const SCHEMES: [&str; 20] = [
    "file", "ftp", "http", "https", "mmsh", "mmst", "rtmp", "rtmpe", "rtmps", "rtmpt", "rtmpte",
    "rtmpts", "rtp", "rtsp", "rtsps", "sftp", "srt", "srtp", "tcp", "udp",
];

/// The remedy for reserved characters in a password.
const ESCAPE: &str = "in a user name or password write %2F for /, %3F for ?, %23 for # and %40 \
                      for @, or set `user` and `password` of the camera in a configuration file";

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&masked(&self.0))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", masked(&self.0))
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&masked(&self.0))
    }
}

/// The address with its secrets replaced by `***`: user and password, the fragment, values in the
/// query, and segments of the path that contain `=` (`user=a_password=b`) or look like a key. The
/// path of a file is returned unchanged.
pub fn masked(address: &str) -> String {
    if !address.contains("://") {
        return address.to_string();
    }
    match Url::parse(address) {
        Ok(url) if url.has_host() => mask_parts(address, &url),
        Ok(url) if url.scheme() == "file" => address.to_string(),
        _ => last_host(address),
    }
}

/// Scheme and host of an ambiguous address: only the text after its last `@` is certainly not part
/// of a password.
fn last_host(address: &str) -> String {
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    match rest.rsplit_once('@') {
        Some((_, host)) => format!(
            "{scheme}://***@{}",
            host.split(['/', '?', '#']).next().unwrap_or_default()
        ),
        None => format!("{scheme}://***"),
    }
}

/// Whether an `@` after the host may end a password that contains a `/`, `?` or `#`, so that the
/// beginning of the password was parsed as the host.
fn is_ambiguous(address: &str, url: &Url) -> bool {
    // `Url` removes the colon of an empty port, although a password may follow the colon, and
    // accepts a backslash after the colon; so the text decides.
    let text = address.split_once("://").map_or("", |(_, rest)| rest);
    let authority = text.split(['/', '\\', '?', '#']).next();
    let authority = authority.unwrap_or_default();
    // `Url` removes segments of the path before `..`, also one with the `@` behind a password.
    let path = text[authority.len()..].split(['?', '#']).next();
    let after_host = authority.rsplit(']').next().unwrap_or_default();
    let has_login =
        !url.username().is_empty() || url.password().is_some() || after_host.contains([':', '@']);
    let rest = [url.query(), url.fragment()].into_iter().flatten();
    path.is_some_and(|path| path.contains('@'))
        || (has_login && rest.into_iter().any(|part| part.contains('@')))
}

fn mask_parts(address: &str, url: &Url) -> String {
    if is_ambiguous(address, url) {
        let count = |text: &str| text.matches('@').count();
        if count(url.as_str()) != count(address) {
            return last_host(address);
        }
        let host = url.as_str().rsplit('@').next().unwrap_or_default();
        let host = host.split(['?', '#']).next().unwrap_or_default();
        return format!("{}://***@{}", url.scheme(), mask_path(host));
    }
    let path = mask_path(url.path());
    let login = if url.username().is_empty() && url.password().is_none() {
        ""
    } else {
        "***@"
    };
    let query = url.query().map(|q| {
        let masked = q.split('&').map(|pair| {
            pair.split_once('=')
                .map_or("***".to_string(), |(key, _)| format!("{key}=***"))
        });
        format!("?{}", masked.collect::<Vec<_>>().join("&"))
    });
    let fragment = if url.fragment().is_some() { "#***" } else { "" };
    format!(
        "{}://{login}{}{path}{}{fragment}",
        url.scheme(),
        host_and_port(url),
        query.unwrap_or_default()
    )
}

fn mask_path(path: &str) -> String {
    let words = path.split('/');
    let masked = words.map(|word| if may_be_secret(word) { "***" } else { word });
    masked.collect::<Vec<_>>().join("/")
}

fn host_and_port(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_string(), |port| format!("{host}:{port}"))
}

/// A path segment that consists of letters and digits, with at least one of each, is treated as a
/// key if it has at least this many bytes.
const KEY_LENGTH: usize = 16;

fn may_be_secret(word: &str) -> bool {
    let has = |test: fn(&char) -> bool| word.chars().any(|c| test(&c));
    let random = word.len() >= KEY_LENGTH
        && has(char::is_ascii_digit)
        && has(char::is_ascii_alphabetic)
        && word.chars().all(|c| c.is_ascii_alphanumeric());
    word.contains('=') || random
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_found_before_the_host_and_in_the_query() {
        for with in [
            "rtsp://admin:pw@host/x",
            "rtsp://admin@host/x",
            "rtsp://admin:pa/ss@host/x",
            "http://host/flv?user=a&password=b",
            "http://host/flv?channel=1&Token=b",
            "rtsp://[bad",
        ] {
            assert!(Address::new(with).has_login(), "{with}");
        }
        for without in [
            "rtsp://host/x",
            "rtsp://host:554/cam?channel=1&subtype=0",
            "clips/a@b.mp4",
            "file:///a/b.mp4",
            "/dev/video0",
        ] {
            assert!(!Address::new(without).has_login(), "{without}");
        }
    }

    #[test]
    fn secrets_are_masked_when_displayed_and_serialised() {
        for (address, masked) in [
            (
                "rtsp://admin:SECRET@10.0.0.9:554/live",
                "rtsp://***@10.0.0.9:554/live",
            ),
            (
                "rtsp://admin:SEC@RET@10.0.0.9/live",
                "rtsp://***@10.0.0.9/live",
            ),
            ("rtsp://SECRET@h/x", "rtsp://***@h/x"),
            ("rtsp://admin:SEC/RET@host/x", "rtsp://***@host"),
            ("rtsp://admin:12/SECRET@host/x", "rtsp://***@host/x"),
            ("rtsp://admin:SEC?RET@host/x", "rtsp://***@host"),
            ("rtsp://admin:SEC#RET@host/x", "rtsp://***@host"),
            ("rtsp://admin:SEC@RET?x@host/y", "rtsp://***@host/y"),
            ("rtsp://admin:12?SECRET@host", "rtsp://***@host"),
            ("rtsp://admin:?SECRET@host", "rtsp://***@host"),
            ("rtsp://admin:/a/SECRET#@host/x", "rtsp://***@host/x"),
            ("rtsp://admin:\\SECRET?@host/x", "rtsp://***@host/x"),
            ("rtsp://admin:12?@host/user=SECRET", "rtsp://***@host/***"),
            ("rtsp://admin:/SECRET@host/../x", "rtsp://***@host"),
            ("rtsp://admin:/a@SECRET/b@host/..", "rtsp://***@host"),
            ("http://h/flv?user=me@mail.example", "http://h/flv?user=***"),
            (
                "http://h/flv?user=a&password=SECRET",
                "http://h/flv?user=***&password=***",
            ),
            ("http://h/flv?SECRET", "http://h/flv?***"),
            (
                "rtsp://h:554/user=a_password=SECRET_channel=1.sdp",
                "rtsp://h:554/***",
            ),
            ("rtsp://h:7447/SECRET8Rxc3v9FzCK", "rtsp://h:7447/***"),
            ("rtsp://h/x#SECRET", "rtsp://h/x#***"),
            (
                "rtsp://[fd00::1]:554/Streaming/Channels/101",
                "rtsp://[fd00::1]:554/Streaming/Channels/101",
            ),
            ("file:///videos/a%20b.mp4", "file:///videos/a%20b.mp4"),
            ("user=a_password=b.mp4", "user=a_password=b.mp4"),
        ] {
            let it = Address::new(address);
            assert_eq!(it.to_string(), masked, "{address}");
            assert!(
                !format!(
                    "{it:?}{}{}",
                    serde_json::to_string(&it).expect("serialises"),
                    it.origin()
                )
                .contains("SECRET"),
                "{address}"
            );
            assert_eq!(it.expose(), address);
        }
    }

    #[test]
    fn the_origin_has_only_scheme_host_and_port() {
        assert_eq!(
            Address::new("https://u:p@hooks.example:8443/T00/B11/SECRET?k=v").origin(),
            "https://hooks.example:8443"
        );
        assert_eq!(Address::new("not an address").origin(), "not an address");
        // The password has an `@` before its `/`, so that the text between them would be parsed as
        // the host.
        assert_eq!(
            Address::new("rtsp://admin:a@0SECRET./b@host/x").origin(),
            "rtsp://***@host"
        );
    }

    #[test]
    fn an_ambiguous_password_is_rejected_with_the_remedy() {
        for address in [
            "rtsp://admin:pa/ss@host/x",
            "rtsp://admin:pa?ss@host/x",
            "rtsp://admin:pa#ss@host/x",
            "rtsp://:554/x",
        ] {
            assert!(
                Address::new(address)
                    .check()
                    .expect_err(address)
                    .contains("%2F"),
                "{address}"
            );
        }
        for address in [
            "rtsp://admin:pa@ss@host/x",
            "rtsp://host:554/a b",
            "clip.mp4",
            "/dev/video0",
            "2026-11-26T10:00:00.mp4",
        ] {
            assert_eq!(Address::new(address).check(), Ok(()), "{address}");
        }
        assert!(
            Address::new("rtsp://admin:12/34@host/x")
                .hint()
                .expect("an @ in the path")
                .contains("%2F")
        );
        assert_eq!(Address::new("rtsp://admin:1@host/x").hint(), None);
    }
}
