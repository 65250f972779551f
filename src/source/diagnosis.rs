//! Determines why a camera could not be opened. FFmpeg reports only the failure; this module
//! contacts the same host again, step by step.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use http_auth::{PasswordClient, PasswordParams};
use percent_encoding::percent_decode_str;
use url::Url;

use crate::address::Address;

/// Schemes that FFmpeg opens as streams.
const SCHEMES: [&str; 13] = [
    "rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "rtp", "srt", "srtp", "tcp", "tls", "udp",
    "mmsh",
];
/// Maximum length of an answer in bytes.
const LONGEST: usize = 16 * 1024;

/// The reason, without any secret. Blocks for a few times `timeout` at most, plus name resolution.
pub(super) fn why(address: &Address, timeout: Duration) -> String {
    let Some(url) = Url::parse(address.expose()).ok().filter(Url::has_host) else {
        return silent(timeout);
    };
    let (scheme, host) = (url.scheme(), url.host_str().unwrap_or_default());
    if !SCHEMES.contains(&scheme) {
        return format!("'{scheme}' is not a stream protocol of FFmpeg; use rtsp:// or http://");
    }
    let usual = match scheme {
        "rtsp" => Some(554),
        "http" => Some(80),
        "https" => Some(443),
        "rtmp" => Some(1935),
        _ => None,
    };
    let Some(port) = url.port().or(usual).filter(|_| usual.is_some()) else {
        return silent(timeout);
    };
    let bare = host.trim_matches(['[', ']']);
    let places = match (bare, port).to_socket_addrs() {
        Ok(places) => places,
        Err(_) => {
            return format!("the host {host} is not known (its name cannot be resolved)");
        }
    };
    // The first address that accepts a connection, else the error of the last one.
    let mut connected = None;
    for place in places {
        let stream = TcpStream::connect_timeout(&place, timeout);
        connected = Some(stream.map(|stream| (stream, place)));
        if matches!(connected, Some(Ok(_))) {
            break;
        }
    }
    let (stream, place) = match connected {
        None => return format!("the host {host} has no address"),
        Some(Ok(connected)) => connected,
        Some(Err(e)) if e.kind() == io::ErrorKind::ConnectionRefused => {
            return format!("{host} refuses connections on port {port}: nothing listens there");
        }
        Some(Err(e)) if e.kind() == io::ErrorKind::TimedOut => {
            return format!(
                "{host} does not answer on port {port} within {} s",
                timeout.as_secs_f64()
            );
        }
        Some(Err(e)) => return format!("{host} cannot be reached on port {port} ({e})"),
    };
    drop(stream);
    if !matches!(scheme, "rtsp" | "http") {
        return format!("{host} answers on port {port}, but no stream could be opened");
    }
    match status(&url, place, timeout) {
        Ok(401) if url.username().is_empty() => "it asks for user and password (401)".into(),
        Ok(401) => "it rejects this user and password (401)".into(),
        Ok(403) => "it denies access (403)".into(),
        Ok(404) => "there is no stream at this path (404)".into(),
        Ok(code) if (200..300).contains(&code) => format!(
            "it answers, but sends no video that can be decoded within {} s",
            timeout.as_secs_f64()
        ),
        Ok(code) => format!("it answers with status {code}"),
        Err(_) => format!(
            "what listens on port {port} of {host} does not answer as {} does within {} s",
            scheme.to_uppercase(),
            timeout.as_secs_f64()
        ),
    }
}

fn silent(timeout: Duration) -> String {
    format!(
        "no answer within {} s, or the connection was refused",
        timeout.as_secs_f64()
    )
}

/// The server's status code for the stream, after authentication if it asks for it.
fn status(url: &Url, place: std::net::SocketAddr, timeout: Duration) -> io::Result<u16> {
    let first = ask(url, place, timeout, None)?;
    if first.code != 401 || url.username().is_empty() {
        return Ok(first.code);
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = (
        decoded(url.username()),
        decoded(url.password().unwrap_or_default()),
    );
    let answer = PasswordClient::try_from(first.challenge.as_str()).and_then(|mut client| {
        let (method, uri) = request_of(url);
        client.respond(&PasswordParams {
            username: &user,
            password: &password,
            uri: &uri,
            method,
            body: Some(&[]),
        })
    });
    answer.map_or(Ok(401), |login| {
        ask(url, place, timeout, Some(&login)).map(|a| a.code)
    })
}

/// Method and address of the request; the address without the login.
fn request_of(url: &Url) -> (&'static str, String) {
    if url.scheme() == "http" {
        return (
            "GET",
            url[url::Position::BeforePath..url::Position::AfterQuery].to_string(),
        );
    }
    let mut plain = url.clone();
    let _ = (plain.set_username(""), plain.set_password(None)); // cannot fail: the URL has a host
    ("DESCRIBE", plain.to_string())
}

struct Answer {
    code: u16,
    challenge: String,
}

fn ask(
    url: &Url,
    place: std::net::SocketAddr,
    timeout: Duration,
    login: Option<&str>,
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&place, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let (method, uri) = request_of(url);
    let login = login
        .map(|l| format!("Authorization: {l}\r\n"))
        .unwrap_or_default();
    let request = if method == "GET" {
        format!(
            "GET {uri} HTTP/1.1\r\nHost: {}\r\n{login}Connection: close\r\n\r\n",
            url.host_str().unwrap_or_default()
        )
    } else {
        format!("DESCRIBE {uri} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n{login}\r\n")
    };
    stream.write_all(request.as_bytes())?;
    let (mut head, mut part) = (Vec::new(), [0; 1024]);
    while head.len() < LONGEST && !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => break,
            n => head.extend_from_slice(&part[..n]),
        }
    }
    let head = String::from_utf8_lossy(&head);
    let code = head
        .split_whitespace()
        .nth(1)
        .filter(|_| head.starts_with("RTSP/") || head.starts_with("HTTP/"))
        .and_then(|c| c.parse().ok());
    let challenges = head
        .lines()
        .filter_map(|l| l.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
    let challenge = challenges
        .map(|(_, value)| value.trim())
        .collect::<Vec<_>>()
        .join(", ");
    code.map(|code| Answer { code, challenge })
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server whose answer depends on the text of the request.
    fn server(answer: impl Fn(&str) -> String + Send + 'static) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten().take(8) {
                let mut request = Vec::new();
                let mut byte = [0];
                while !request.ends_with(b"\r\n\r\n")
                    && stream.read(&mut byte).is_ok_and(|n| n == 1)
                {
                    request.push(byte[0]);
                }
                if !request.is_empty() {
                    let _ = stream.write_all(answer(&String::from_utf8_lossy(&request)).as_bytes()); // the client may be gone
                }
            }
        });
        port
    }

    fn why_of(address: &str) -> String {
        why(&Address::new(address), Duration::from_secs(30))
    }

    /// `localhost` usually has the addresses ::1, where nothing listens here, and 127.0.0.1.
    #[test]
    fn all_addresses_of_a_host_are_tried() {
        let port = server(|_| "RTSP/1.0 404 Not Found\r\nCSeq: 1\r\n\r\n".into());
        let why = why_of(&format!("rtsp://localhost:{port}/x"));
        assert!(why.contains("404"), "{why}");
    }

    #[test]
    fn each_reason_has_its_own_message() {
        let closed = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a port")
            .port();
        let status = |line: &'static str| server(move |_| format!("{line}\r\nCSeq: 1\r\n\r\n"));
        for (address, reason) in [
            (
                "rtsp://no-such-host.invalid/x".to_string(),
                "no-such-host.invalid is not known",
            ),
            (
                format!("rtsp://127.0.0.1:{closed}/x"),
                "refuses connections on port",
            ),
            (
                "rstp://127.0.0.1/x".to_string(),
                "'rstp' is not a stream protocol",
            ),
            (
                format!("rtsp://127.0.0.1:{}/x", status("RTSP/1.0 404 Not Found")),
                "no stream at this path (404)",
            ),
            (
                format!(
                    "http://127.0.0.1:{}/x.mjpg",
                    status("HTTP/1.1 403 Forbidden")
                ),
                "denies access (403)",
            ),
            (
                format!("rtsp://127.0.0.1:{}/x", status("RTSP/1.0 401 Unauthorized")),
                "asks for user and password (401)",
            ),
            (
                format!("rtsp://127.0.0.1:{}/x", status("RTSP/1.0 200 OK")),
                "no video that can be decoded",
            ),
            (
                format!("rtsp://127.0.0.1:{}/x", status("SSH-2.0-x")),
                "does not answer as RTSP does",
            ),
        ] {
            assert!(
                why_of(&address).contains(reason),
                "{address}: {}",
                why_of(&address)
            );
        }
    }

    #[test]
    fn a_wrong_path_and_a_wrong_password_have_different_messages() {
        let port = server(|request| {
            let challenge = "RTSP/1.0 401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"cam\", nonce=\"abc\"\r\n\r\n";
            let right =
                request.contains("username=\"ada\"") && request.contains("uri=\"rtsp://127.0.0.1:");
            if right {
                "RTSP/1.0 404 Not Found\r\n\r\n".into()
            } else {
                challenge.into()
            }
        });
        assert!(why_of(&format!("rtsp://ada:right@127.0.0.1:{port}/x")).contains("(404)"));
        assert!(
            why_of(&format!("rtsp://bob:wrong@127.0.0.1:{port}/x"))
                .contains("rejects this user and password (401)")
        );
    }
}
