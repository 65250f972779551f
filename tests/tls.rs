//! TLS of `twintrack serve`, and a reverse proxy in front of it.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/http.rs"]
mod http;
#[path = "common/pages.rs"]
mod pages;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Running, free_port, until};
use http::{Request, Service, account, connect, connect_tls};
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use tungstenite::Message;
use tungstenite::client::IntoClientRequest as _;

const PASSWORD: &str = "correct horse";

/// Writes a certificate for `host` and its key to `dir/cert.pem` and `dir/key.pem`.
fn write_pair(dir: &Path, host: &str) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([host.to_string()]).unwrap();
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    made.cert.der().clone()
}

fn add_user(dir: &Path) {
    let add = ["user", "add", "anna", "--role", "admin", "--password-stdin"];
    account(dir, &add, PASSWORD);
}

/// A login from a page of `https://HOST`.
fn login() -> String {
    serde_json::json!({"name": "anna", "password": PASSWORD}).to_string()
}

#[test]
fn tls_is_served_with_the_newest_valid_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let first = write_pair(path, "gate.example");
    add_user(path);
    let files = format!(
        "tls_certificate = {:?}\ntls_key = {:?}\n",
        path.join("cert.pem"),
        path.join("key.pem")
    );
    let service = Service::start(path, &files);
    assert!(
        service.log().contains("metrics: https://127.0.0.1:"),
        "{}",
        service.log()
    );
    let body = login();
    for version in [&TLS12, &TLS13] {
        let mut stream = connect_tls(service.port, "gate.example", &first, version).unwrap();
        let host = format!("gate.example:{}", service.port);
        let request = Request::json("POST", "/api/v1/session", &body);
        let answer = request.send(&mut stream, &host);
        assert_eq!(answer.status, 200, "{answer:?}");
        let age = answer.header("strict-transport-security").unwrap();
        assert!(age.starts_with("max-age="), "{age}");
        let cookie = answer.header("set-cookie").unwrap();
        assert!(
            cookie.starts_with("__Host-twintrack_session=") && cookie.ends_with("; Secure"),
            "{cookie}"
        );
        let mut stream = connect_tls(service.port, "gate.example", &first, version).unwrap();
        let cookie = answer.cookie();
        let request = Request::new("GET", "/api/v1/cameras").with(&[("cookie", &cookie)]);
        assert_eq!(request.send(&mut stream, &host).status, 200);
        // The cookie of a page without https is another.
        let plain = cookie.replace("__Host-", "");
        let mut stream = connect_tls(service.port, "gate.example", &first, version).unwrap();
        let request = Request::new("GET", "/api/v1/cameras").with(&[("cookie", &plain)]);
        assert_eq!(request.send(&mut stream, &host).status, 401);
    }
    // HTTP without TLS is not answered.
    let mut plain = connect(service.port);
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer); // closed, perhaps by a reset
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");

    // A new pair is noticed, and one that does not fit is not used.
    let trusts = |certificate: &CertificateDer<'static>| {
        connect_tls(service.port, "gate.example", certificate, &TLS13).is_ok()
    };
    let second = write_pair(path, "gate.example");
    assert!(until(30, || trusts(&second)), "{}", service.log());
    assert!(!trusts(&first), "the first certificate is still served");
    std::fs::write(path.join("cert.pem"), "no PEM").unwrap();
    assert!(until(30, || service
        .log()
        .contains("cannot read the certificate again")));
    assert!(trusts(&second));
    // SIGHUP reads the files also if they have not changed.
    let read = || {
        service
            .log()
            .matches("the certificate has been read again")
            .count()
    };
    let third = write_pair(path, "gate.example");
    assert!(until(30, || trusts(&third)));
    let before = read();
    service.child.signal("HUP");
    assert!(until(30, || read() > before), "{}", service.log());
    assert!(trusts(&third));
}

/// The recipe of the guide, with the ports and files of this test.
fn nginx_recipe(dir: &Path, port: u16, upstream: u16) -> String {
    let guide = pages::page("docs/guide/access.md");
    let recipe = guide
        .split("```nginx\n")
        .nth(1)
        .and_then(|r| r.split("```").next())
        .unwrap();
    let replaced = [
        ("listen 443 ssl;", format!("listen 127.0.0.1:{port} ssl;")),
        (
            "/etc/ssl/gate.example.pem",
            dir.join("cert.pem").display().to_string(),
        ),
        (
            "/etc/ssl/gate.example.key",
            dir.join("key.pem").display().to_string(),
        ),
        ("127.0.0.1:8090", format!("127.0.0.1:{upstream}")),
    ];
    replaced
        .iter()
        .fold(recipe.to_string(), |text, (from, to)| {
            assert_eq!(text.matches(from).count(), 1, "{from}");
            text.replace(from, to)
        })
}

/// The settings that the guide gives for the recipe.
fn proxy_settings() -> String {
    let guide = pages::page("docs/guide/access.md");
    let settings = guide
        .split("```toml\n")
        .filter_map(|block| block.split("```").next())
        .find(|block| block.contains("base_path"))
        .unwrap();
    let keys = settings
        .lines()
        .filter(|l| l.starts_with("base_path") || l.starts_with("trusted"));
    keys.collect::<Vec<_>>().join("\n")
}

/// Starts nginx with the recipe. None, with a message, if it is not installed.
fn nginx(dir: &Path, port: u16, upstream: u16) -> Option<Running> {
    let program = [PathBuf::from("/usr/sbin/nginx"), PathBuf::from("nginx")]
        .into_iter()
        .find(|p| {
            Command::new(p)
                .arg("-v")
                .stderr(Stdio::null())
                .status()
                .is_ok()
        });
    let Some(program) = program else {
        eprintln!("SKIPPED: nginx is not installed (`make setup-test` installs it)");
        return None;
    };
    let d = dir.display();
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = kinds
        .iter()
        .map(|kind| format!("{kind}_temp_path {d}/{kind};\n"))
        .collect();
    // Without `user root`, workers of an nginx that root starts cannot use the folder.
    let user = if common::text(&common::run(Command::new("id").arg("-u")).stdout).trim() == "0" {
        "user root;"
    } else {
        ""
    };
    let text = format!(
        "daemon off; {user}\npid {d}/nginx.pid;\nerror_log {d}/nginx.log;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}{}\n}}\n",
        nginx_recipe(dir, port, upstream)
    );
    std::fs::write(dir.join("nginx.conf"), text).unwrap();
    let running = Running::start(
        Command::new(program)
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .arg("-e")
            .arg(dir.join("nginx.log"))
            .stderr(std::fs::File::create(dir.join("nginx.err")).unwrap()),
    );
    let said = || std::fs::read_to_string(dir.join("nginx.err")).unwrap();
    let up = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!(until(30, up), "nginx did not start: {}", said());
    Some(running)
}

#[test]
fn page_login_and_live_events_work_behind_the_nginx_of_the_guide() {
    let dir = tempfile::tempdir().unwrap();
    let certificate = write_pair(dir.path(), "gate.example");
    add_user(dir.path());
    let service = Service::start(dir.path(), &proxy_settings());
    let port = free_port();
    let Some(mut nginx) = nginx(dir.path(), port, service.port) else {
        return;
    };
    let host = format!("gate.example:{port}");
    let stream = || connect_tls(port, "gate.example", &certificate, &TLS13).unwrap();
    let send = |request: Request<'_>| request.send(&mut stream(), &host);

    // The page without a session leads to the login, below the base path.
    let html = [("accept", "text/html")];
    let bare = send(Request::new("GET", "/twintrack").with(&html));
    let location = bare.header("location").unwrap().to_string();
    assert!(
        (301..304).contains(&bare.status) && location.ends_with("/twintrack/"),
        "{bare:?}"
    );
    let page = send(Request::new("GET", "/twintrack/").with(&html));
    assert_eq!(
        (page.status, page.header("location")),
        (303, Some("/twintrack/login"))
    );
    let login_page = send(Request::new("GET", "/twintrack/login").with(&html));
    assert!(login_page.status == 200 && login_page.text().contains("id=\"login\""));
    assert_eq!(send(Request::new("GET", "/twintrack/readyz")).status, 200);
    assert_eq!(service.get("/readyz", &[]).status, 200, "without the proxy");

    let (body, origin) = (login(), format!("https://{host}"));
    let own = [("origin", origin.as_str())];
    let path = "/twintrack/api/v1/session";
    let answer = send(Request::json("POST", path, &body).with(&own));
    assert_eq!(answer.status, 200, "{answer:?}");
    let cookie = answer.header("set-cookie").unwrap();
    assert!(
        cookie.starts_with("__Secure-twintrack_session=")
            && cookie.contains("; Path=/twintrack; Secure"),
        "{cookie}"
    );
    assert!(answer.header("strict-transport-security").is_some());
    let csrf = answer.json()["csrf_token"].as_str().unwrap().to_string();
    let value = answer.cookie();
    let cookie = [("cookie", value.as_str())];
    let page = send(Request::new("GET", "/twintrack/").with(&cookie));
    assert!(page.status == 200 && page.text().contains("<title>twintrack</title>"));
    assert_eq!(
        send(Request::new("GET", "/twintrack/api/v1/cameras").with(&cookie)).status,
        200
    );

    // A WebSocket, and server-sent events that are not held back.
    let address = format!("wss://{host}/twintrack/api/v1/live");
    let mut request = address.into_client_request().unwrap();
    request
        .headers_mut()
        .insert("cookie", value.parse().unwrap());
    request
        .headers_mut()
        .insert("origin", origin.parse().unwrap());
    let (mut socket, _) = tungstenite::client::client(request, stream()).unwrap();
    let events = (0..5)
        .filter(|_| matches!(socket.read().unwrap(), Message::Text(_)))
        .count();
    assert!(events > 0, "no events over the WebSocket");
    let mut stream = stream();
    let live = Request::new("GET", "/twintrack/api/v1/live").with(&cookie);
    let answer = live.send(&mut stream, &host);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let mut read = String::new();
    while !read.contains("\ndata: {") {
        let mut part = [0; 1000];
        let n = stream.read(&mut part).unwrap();
        assert!(n > 0, "the stream has ended: {read}");
        read += &String::from_utf8_lossy(&part[..n]);
    }

    // The audit log has the address that nginx saw, not one that the client states.
    let spoofed = Request::json("POST", path, &body.replace("horse", "cow"));
    let spoofed = spoofed
        .with(&own)
        .with(&[("x-forwarded-for", "203.0.113.77")]);
    assert_eq!(send(spoofed).status, 401);
    let audit = send(Request::new("GET", "/twintrack/api/v1/audit?limit=1").with(&cookie));
    let entry = &audit.json()["entries"][0];
    assert_eq!(
        (&entry["action"], &entry["address"]),
        (&"login".into(), &"127.0.0.1".into())
    );

    let own = [("origin", origin.as_str()), ("x-csrf-token", csrf.as_str())];
    let log_out = Request::new("DELETE", path).with(&cookie).with(&own);
    assert_eq!(send(log_out).status, 204);
    assert_eq!(send(Request::new("GET", path).with(&cookie)).status, 401);
    nginx.signal("TERM");
    assert_eq!(nginx.code(20), Some(0));
}
