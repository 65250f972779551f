//! Addresses of cameras and receivers: whatever in them may be a secret is never shown.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use url::Url;

/// An address, or the path of a file. Shown, logged and serialised without its secrets; opened as it was given.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// Takes an address as it was given.
    pub fn new(address: impl Into<String>) -> Self {
        Address(address.into())
    }

    /// The address itself, for opening it; whoever asks must not show it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Scheme and host only: for receivers, whose whole path may be a secret.
    pub fn origin(&self) -> String {
        match Url::parse(&self.0) {
            Ok(url) if url.has_host() => format!("{}://{}", url.scheme(), place(&url)),
            _ => masked(&self.0),
        }
    }

    /// Refuses an address that no program can take apart, as one with a `/`, `?` or `#` in its password. The path of a file
    /// is fine.
    ///
    /// # Errors
    /// What is wrong with it and what to do; without its secrets.
    pub fn check(&self) -> Result<(), String> {
        let is_address = self.0.contains("://");
        match Url::parse(&self.0) {
            Err(e @ (url::ParseError::InvalidPort | url::ParseError::EmptyHost)) if is_address => {
                Err(format!("{e}; {ESCAPE}"))
            }
            _ => Ok(()),
        }
    }

    /// What may be wrong with an address that is not answered: an `@` behind the host may belong to a password.
    pub fn doubt(&self) -> Option<&'static str> {
        let url = Url::parse(&self.0).ok().filter(Url::has_host)?;
        is_doubtful(&url).then_some(ESCAPE)
    }
}

/// The remedy for reserved characters in a password.
const ESCAPE: &str = "in a user name or password write %2F for /, %3F for ?, %23 for # and %40 for @, or give `user` and `password` apart in a file of cameras";

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

/// The address without its secrets: `***` stands for user and password, for values in the query and in the path
/// (`user=a_password=b`), and for long random words in the path. The path of a file is shown as it is.
pub fn masked(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else {
        return address.to_string();
    };
    match Url::parse(address) {
        Ok(url) if url.has_host() => of_parts(&url),
        Ok(url) if url.scheme() == "file" => address.to_string(),
        // What the parts are is not known: only what stands behind the last @ cannot be a password.
        _ => match rest.rsplit_once('@') {
            Some((_, host)) => format!(
                "{scheme}://***@{}",
                host.split(['/', '?', '#']).next().unwrap_or_default()
            ),
            None => format!("{scheme}://***"),
        },
    }
}

/// Whether an `@` behind the host may end a password with a `/`, `?` or `#` in it, whose beginning was then taken for the host.
fn is_doubtful(url: &Url) -> bool {
    let has_login = !url.username().is_empty() || url.password().is_some() || url.port().is_some();
    let behind = [url.query(), url.fragment()].into_iter().flatten();
    url.path().contains('@') || (has_login && behind.into_iter().any(|part| part.contains('@')))
}

fn of_parts(url: &Url) -> String {
    if is_doubtful(url) {
        let host = url.as_str().rsplit('@').next().unwrap_or_default();
        return format!(
            "{}://***@{}",
            url.scheme(),
            host.split(['?', '#']).next().unwrap_or_default()
        );
    }
    let path = url
        .path()
        .split('/')
        .map(|word| if may_be_secret(word) { "***" } else { word })
        .collect::<Vec<_>>()
        .join("/");
    let login = if url.username().is_empty() && url.password().is_none() {
        ""
    } else {
        "***@"
    };
    let query = url.query().map(|q| {
        let shown = q.split('&').map(|pair| {
            pair.split_once('=')
                .map_or("***".to_string(), |(key, _)| format!("{key}=***"))
        });
        format!("?{}", shown.collect::<Vec<_>>().join("&"))
    });
    let fragment = if url.fragment().is_some() { "#***" } else { "" };
    format!(
        "{}://{login}{}{path}{}{fragment}",
        url.scheme(),
        place(url),
        query.unwrap_or_default()
    )
}

/// Host and port.
fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_string(), |port| format!("{host}:{port}"))
}

/// Length from which on a word of letters and digits is taken for a key.
const LONG: usize = 16;

fn may_be_secret(word: &str) -> bool {
    let has = |test: fn(&char) -> bool| word.chars().any(|c| test(&c));
    let random = word.len() >= LONG
        && has(char::is_ascii_digit)
        && has(char::is_ascii_alphabetic)
        && word.chars().all(|c| c.is_ascii_alphanumeric());
    word.contains('=') || random
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_may_be_a_secret_is_shown() {
        for (address, shown) in [
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
            assert_eq!(it.to_string(), shown, "{address}");
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
    fn of_a_receiver_only_its_host_is_shown() {
        assert_eq!(
            Address::new("https://u:p@hooks.example:8443/T00/B11/SECRET?k=v").origin(),
            "https://hooks.example:8443"
        );
        assert_eq!(Address::new("not an address").origin(), "not an address");
    }

    #[test]
    fn a_password_that_cannot_be_told_apart_is_refused_with_the_remedy() {
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
                .doubt()
                .expect("an @ in the path")
                .contains("%2F")
        );
        assert_eq!(Address::new("rtsp://admin:1@host/x").doubt(), None);
    }
}
