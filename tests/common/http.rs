//! A service with a web server, and a client that sends any request, also over TLS.
#![allow(dead_code, reason = "each test program uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::common::{Running, clip, complete_lines, text, twintrack, until};

/// A running service with one camera, `c1`.
pub struct Service {
    /// The program.
    pub child: Running,
    /// Port of its web server.
    pub port: u16,
    /// Folder of its files.
    pub dir: PathBuf,
}

impl Service {
    /// Starts the service with these lines in `[serve]`; its state is in `dir/state`. Waits until
    /// events are written, so that there is a picture.
    pub fn start(dir: &Path, settings: &str) -> Self {
        let file = dir.join("cameras.toml");
        let toml = format!(
            "[serve]\nlisten = \"127.0.0.1:0\"\nstate_dir = {:?}\n{settings}\n\
             [detector]\nsize = \"416x320\"\n[cameras.c1]\nurl = {:?}\nrepeat = true\n",
            dir.join("state"),
            clip()
        );
        std::fs::write(&file, toml).expect("written");
        let log = std::fs::File::create(dir.join("log")).expect("created");
        let child = Running::start(
            twintrack()
                .args(["serve", "--config"])
                .arg(&file)
                .arg("--output")
                .arg(dir.join("out.jsonl"))
                .stderr(log),
        );
        let mut service = Service {
            child,
            port: 0,
            dir: dir.into(),
        };
        let port = || {
            let log = service.log();
            let line = log
                .lines()
                .find_map(|l| l.strip_prefix("page, live events and metrics: "))?;
            let rest = line.rsplit_once(':')?.1;
            rest.split('/').next()?.parse::<u16>().ok()
        };
        let ready = || port().is_some() && complete_lines(&dir.join("out.jsonl")).len() > 3;
        assert!(until(120, ready), "{}", service.log());
        service.port = port().expect("ready");
        service
    }

    /// What the service has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Sends a request without TLS.
    pub fn send(&self, request: &Request<'_>) -> Answer {
        let mut stream = connect(self.port);
        request.send(&mut stream, &format!("127.0.0.1:{}", self.port))
    }

    /// Sends a GET request with these headers.
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(&Request::new("GET", path).with(headers))
    }

    /// Logs in from a page of the service.
    pub fn log_in(&self, name: &str, password: &str) -> Answer {
        let body = serde_json::json!({"name": name, "password": password}).to_string();
        self.send(&Request::json("POST", "/api/v1/session", &body))
    }

    /// Logs in; returns the cookie and the CSRF token.
    pub fn session(&self, name: &str, password: &str) -> (String, String) {
        let answer = self.log_in(name, password);
        assert_eq!(answer.status, 200, "{answer:?}");
        let token = answer.json()["csrf_token"]
            .as_str()
            .expect("a token")
            .to_string();
        (answer.cookie(), token)
    }
}

/// A connection to this machine.
pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    let limit = Some(Duration::from_secs(60));
    stream.set_read_timeout(limit).expect("set");
    stream.set_write_timeout(limit).expect("set");
    stream
}

/// A TLS connection to this machine under the name `host`, or the error of the handshake.
pub fn connect_tls(
    port: u16,
    host: &str,
    trusted: &CertificateDer<'static>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Result<StreamOwned<ClientConnection, TcpStream>, std::io::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .expect("supported")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_string()).expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("valid");
    let mut stream = StreamOwned::new(connection, connect(port));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// A request.
pub struct Request<'a> {
    method: &'a str,
    path: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: Vec<u8>,
}

impl<'a> Request<'a> {
    pub fn new(method: &'a str, path: &'a str) -> Self {
        Request {
            method,
            path,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    /// A request with a JSON body, as a page of the same origin sends it.
    pub fn json(method: &'a str, path: &'a str, body: &str) -> Self {
        let mut request = Request::new(method, path).with(&[
            ("content-type", "application/json"),
            ("sec-fetch-site", "same-origin"),
        ]);
        request.body = body.into();
        request
    }

    /// A request with a body of this media type, as a page of the same origin sends it.
    pub fn bytes(method: &'a str, path: &'a str, kind: &'a str, body: &[u8]) -> Self {
        let headers = [("content-type", kind), ("sec-fetch-site", "same-origin")];
        let mut request = Request::new(method, path).with(&headers);
        request.body = body.into();
        request
    }

    pub fn with(mut self, headers: &[(&'a str, &'a str)]) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Sends the request over `stream`, with the header `Host: {host}` if it has none, and reads the
    /// answer. Of an answer without `Content-Length`, only status and headers are read.
    pub fn send(&self, stream: &mut (impl Read + Write), host: &str) -> Answer {
        let named = self.headers.iter().any(|(name, _)| *name == "host");
        let host = if named {
            String::new()
        } else {
            format!("Host: {host}\r\n")
        };
        let headers: String = self
            .headers
            .iter()
            .map(|(n, v)| format!("{n}: {v}\r\n"))
            .collect();
        let length = self.body.len();
        let head = format!(
            "{} {} HTTP/1.1\r\n{host}{headers}Content-Length: {length}\r\n\
             Connection: close\r\n\r\n",
            self.method, self.path
        );
        stream.write_all(head.as_bytes()).expect("sent");
        // The server may answer and close before it has read a huge body.
        let _ = stream.write_all(&self.body).and_then(|()| stream.flush());
        Answer::read(stream)
    }
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn read(stream: &mut impl Read) -> Self {
        let mut stream = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            stream.read_line(&mut line).expect("an answer");
            line.trim_end().to_string()
        };
        let first = line();
        let status = first.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no answer: {first:?}"));
        let mut headers = Vec::new();
        loop {
            let line = line();
            let Some((name, value)) = line.split_once(": ") else {
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.to_string()));
        }
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        let length = answer
            .header("content-length")
            .and_then(|l| l.parse::<usize>().ok());
        if let Some(length) = length {
            answer.body = vec![0; length];
            stream.read_exact(&mut answer.body).expect("the body");
        }
        answer
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        text(&self.body)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Asserts that this is a problem (RFC 9457); returns status, code and field.
    pub fn problem(&self) -> (u16, String, String) {
        let kind = self.header("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        let of = |key: &str| problem[key].as_str().unwrap_or_default().to_string();
        assert!(
            !of("detail").is_empty() && !of("title").is_empty(),
            "{problem}"
        );
        (self.status, of("code"), of("field"))
    }

    /// The first cookie, as the browser sends it back.
    pub fn cookie(&self) -> String {
        let cookie = self.header("set-cookie").expect("a cookie");
        cookie.split(';').next().unwrap_or_default().to_string()
    }
}

/// Runs `twintrack` with these arguments and this standard input.
pub fn command(arguments: &[&str], input: &str) -> Output {
    let mut child = twintrack()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("piped");
    let _ = stdin.write_all(input.as_bytes()); // the command may not read it
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// Runs `twintrack user …` or `twintrack token …` on the state folder `dir/state`, and asserts
/// success; returns standard output.
pub fn account(dir: &Path, arguments: &[&str], input: &str) -> String {
    let state = dir.join("state");
    let state = state.to_str().expect("UTF-8");
    let out = command(&[arguments, &["--state-dir", state]].concat(), input);
    assert!(out.status.success(), "{arguments:?}: {}", text(&out.stderr));
    text(&out.stdout).trim_end().to_string()
}
