//! Access control of `twintrack serve`: users, sessions, roles, tokens, the audit log, and what
//! browsers are told.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/http.rs"]
mod http;

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use common::{Running, text, until};
use http::{Request, Service, account, command, connect};
use serde_json::Value;
use tungstenite::Message;
use tungstenite::client::IntoClientRequest as _;
use twintrack::serve::access::requirement::Requirement;
use twintrack::serve::access::role::Role;
use twintrack::serve::server::routes;

const PASSWORD: &str = "correct horse";

/// Adds a user with [`PASSWORD`].
fn add_user(dir: &Path, name: &str, role: &str) {
    let add = ["user", "add", name, "--role", role, "--password-stdin"];
    account(dir, &add, &format!("{PASSWORD}\n"));
}

fn add_token(dir: &Path, name: &str, role: &str) -> String {
    account(dir, &["token", "add", name, "--role", role], "")
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Opens the live events; returns whether the stream has events and then ends when `end` is called.
fn stream_ends(service: &Service, header: (&'static str, &str), end: impl FnOnce()) -> bool {
    let address = format!("ws://127.0.0.1:{}/api/v1/live", service.port);
    let mut request = address.into_client_request().unwrap();
    request
        .headers_mut()
        .insert(header.0, header.1.parse().unwrap());
    let (mut socket, _) = tungstenite::client::client(request, connect(service.port)).unwrap();
    assert!(matches!(socket.read().unwrap(), Message::Text(_)));
    end();
    // Each event arrives within seconds, so an open stream runs into the test's limit.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while std::time::Instant::now() < deadline {
        match socket.read() {
            Ok(Message::Close(_)) | Err(_) => return true,
            Ok(_) => {}
        }
    }
    false
}

#[test]
fn users_log_in_see_and_log_out() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "anna", "admin");
    let service = Service::start(dir.path(), "");
    // A browser is sent to the login page, a program gets a problem.
    let html = [("accept", "text/html,*/*")];
    let page = service.get("/", &html);
    assert_eq!(
        (page.status, page.header("location")),
        (303, Some("/login"))
    );
    let login = service.get("/login", &html);
    assert!(login.status == 200 && login.text().contains("<form id=\"login\""));
    assert_eq!(service.get("/api/v1/cameras", &[]).problem().1, "login");
    assert_eq!(
        service.get("/", &[]).header("www-authenticate"),
        Some("Bearer")
    );

    for (name, password) in [
        ("anna", "correct horsf"),
        ("nobody", PASSWORD),
        ("ANNA", PASSWORD),
    ] {
        let answer = service.log_in(name, password);
        let (status, code, _) = answer.problem();
        assert_eq!((status, code.as_str()), (401, "login-failed"), "{name}");
        assert!(answer.header("set-cookie").is_none());
    }
    let answer = service.log_in("anna", PASSWORD);
    assert_eq!(answer.status, 200, "{answer:?}");
    let cookie = answer.header("set-cookie").unwrap();
    let (value, attributes) = cookie.split_once("; ").unwrap();
    assert!(
        value.starts_with("twintrack_session=") && value.len() == 18 + 64,
        "{value}"
    );
    assert_eq!(attributes, "HttpOnly; SameSite=Strict; Path=/");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let (cookie, csrf) = (answer.cookie(), answer.json()["csrf_token"].clone());
    let cookie = ("cookie", cookie.as_str());
    for path in [
        "/",
        "/api/v1/cameras",
        "/metrics",
        "/api/v1/cameras/c1/picture.jpg",
    ] {
        assert_eq!(service.get(path, &[cookie]).status, 200, "{path}");
    }
    let who = service.get("/api/v1/session", &[cookie]).json();
    assert_eq!(
        (&who["name"], &who["role"], &who["kind"]),
        (&"anna".into(), &"admin".into(), &"user".into())
    );
    assert_eq!(who["csrf_token"], csrf);

    // Requests that a page of another origin can cause are refused.
    let (csrf, own) = (csrf.as_str().unwrap(), ("sec-fetch-site", "same-origin"));
    let (token, origin) = (
        ("x-csrf-token", csrf),
        format!("http://127.0.0.1:{}", service.port),
    );
    let log_out = |headers: &[(&str, &str)]| {
        service.send(
            &Request::new("DELETE", "/api/v1/session")
                .with(&[cookie])
                .with(headers),
        )
    };
    let wrong = "0".repeat(64);
    for headers in [
        vec![own],
        vec![token],
        vec![own, ("x-csrf-token", &wrong)],
        vec![token, ("sec-fetch-site", "cross-site")],
    ] {
        assert_eq!(log_out(&headers).problem().1, "csrf", "{headers:?}");
    }
    let evil = [token, ("origin", "https://evil.example")];
    assert_eq!(log_out(&evil).problem().1, "origin");
    assert_eq!(service.get("/api/v1/session", &[cookie]).status, 200);

    // Logging out ends the session and its open streams, and the browser forgets the cookie.
    let ended = stream_ends(&service, ("cookie", cookie.1), || {
        let answer = log_out(&[token, ("origin", &origin)]);
        assert_eq!(answer.status, 204, "{answer:?}");
        assert!(answer.header("set-cookie").unwrap().contains("Max-Age=0"));
    });
    assert!(ended);
    assert_eq!(service.get("/api/v1/cameras", &[cookie]).status, 401);
    assert!(!service.log().contains(PASSWORD));
}

/// The login page needs its script and style before anybody has logged in.
#[test]
fn files_of_the_pages_are_served_without_a_login_and_with_entity_tags() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "anna", "admin");
    let service = Service::start(dir.path(), "base_path = \"/watch\"");
    let login = service.get("/watch/login", &[]).text();
    let files: Vec<&str> = login
        .split("\"./assets/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(files.len() >= 2, "{login}");
    for file in files {
        let path = format!("/watch/assets/{file}");
        let plain = service.get(&path, &[]);
        assert_eq!(plain.status, 200, "{path}");
        let kind = if file.ends_with(".js") {
            "text/javascript"
        } else {
            "text/css"
        };
        assert!(plain.header("content-type").unwrap().starts_with(kind));
        assert_eq!(plain.header("cache-control"), Some("no-cache"));
        assert_eq!(plain.header("content-encoding"), None);
        let zipped = service.get(&path, &[("accept-encoding", "gzip, br")]);
        assert_eq!(zipped.header("content-encoding"), Some("gzip"));
        assert!(zipped.body.starts_with(&[0x1f, 0x8b]) && zipped.body.len() < plain.body.len());
        // Each form has its own tag; with it the answer is short.
        let tags = [&plain, &zipped].map(|a| a.header("etag").unwrap().to_string());
        assert_ne!(tags[0], tags[1]);
        let again = service.get(&path, &[("if-none-match", &tags[0])]);
        assert_eq!((again.status, again.body.len()), (304, 0));
        let other = service.get(&path, &[("if-none-match", &tags[1])]);
        assert_eq!(other.status, 200);
    }
    for path in [
        "/watch/assets/users.toml",
        "/watch/assets/..%2Findex.html",
        "/watch/assets/../login",
        "/assets/app.js",
    ] {
        assert_eq!(service.get(path, &[]).problem().0, 404, "{path}");
    }
}

#[test]
fn every_route_requires_its_role_and_is_documented() {
    let dir = tempfile::tempdir().unwrap();
    let tokens: Vec<(Role, String)> = Role::ALL
        .into_iter()
        .map(|role| (role, add_token(dir.path(), role.name(), role.name())))
        .collect();
    let service = Service::start(dir.path(), "");
    let reference = std::fs::read_to_string(common::repository("docs/reference/http.md")).unwrap();
    let table = routes().table();
    assert!(table.len() >= 12, "{table:?}");
    for route in &table {
        let method = route.method.as_str();
        let path = route.path.replace("{camera}", "c1");
        let path = path.replace("{run}", "00000000-0000-0000-0000-000000000000");
        let path = path.replace("{track}", "1").replace("{crop}", "1");
        let path = path.replace("{name}", "x");
        let send = |token: Option<&str>| {
            let bearer = token.map(|t| format!("Bearer {t}"));
            let headers: Vec<(&str, &str)> = bearer
                .iter()
                .map(|b| ("authorization", b.as_str()))
                .collect();
            let body = Request::json(method, &path, "{}");
            let plain = Request::new(method, &path);
            let request = if method == "GET" || method == "DELETE" {
                plain
            } else {
                body
            };
            service.send(&request.with(&headers))
        };
        let row = |least: &str| format!("| `{method} {}` | {least} |", route.path);
        match route.requirement {
            Requirement::Nothing => {
                assert!([200, 503].contains(&send(None).status), "{route:?}");
                assert!(reference.contains(&row("nothing")), "{}", row("nothing"));
            }
            Requirement::OwnOrigin => {
                assert!(![401, 403].contains(&send(None).status), "{route:?}");
                let evil = [("origin", "https://evil.example")];
                let answer = service.send(&Request::json(method, &path, "{}").with(&evil));
                assert_eq!(answer.problem().1, "origin", "{route:?}");
                assert!(reference.contains(&row("no login")), "{}", row("no login"));
            }
            Requirement::Role(least) => {
                assert_eq!(send(None).problem().0, 401, "{route:?}");
                assert_eq!(send(Some("tt_wrong")).problem().0, 401, "{route:?}");
                for (role, token) in &tokens {
                    let answer = send(Some(token));
                    if *role < least {
                        let (status, code, _) = answer.problem();
                        assert_eq!((status, code.as_str()), (403, "role"), "{route:?}");
                    } else {
                        let refused = [401, 403, 405].contains(&answer.status);
                        assert!(!refused, "{route:?} {role}: {answer:?}");
                        assert!(!answer.text().contains("nothing at /"), "{route:?}");
                    }
                }
                assert!(
                    reference.contains(&row(least.name())),
                    "{}",
                    row(least.name())
                );
            }
        }
    }
    // Each method of a path has its own requirement; other methods are refused.
    assert_eq!(
        service
            .send(&Request::new("PATCH", "/api/v1/session"))
            .status,
        405
    );
    // Every answer tells browsers what they may do.
    for (path, status) in [
        ("/healthz", 200),
        ("/", 401),
        ("/nothing", 404),
        ("/login", 200),
    ] {
        let answer = service.get(path, &[]);
        assert_eq!(answer.status, status, "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(
            answer.header("referrer-policy"),
            Some("no-referrer"),
            "{path}"
        );
        assert_eq!(answer.header("strict-transport-security"), None, "no TLS");
    }
}

#[test]
fn changes_of_users_and_tokens_hold_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let service = Service::start(path, "");
    // Without users everybody on this machine is allowed.
    let who = service.get("/api/v1/session", &[]).json();
    assert_eq!(
        (&who["kind"], &who["role"]),
        (&"local".into(), &"admin".into())
    );
    assert_eq!(service.get("/login", &[]).header("location"), Some("/"));
    let elsewhere = service.get("/", &[("host", "gate.example")]);
    assert_eq!(elsewhere.problem().1, "origin");
    // After the first user has been added, a login is required.
    add_user(path, "anna", "viewer");
    let status = |headers: &[(&str, &str)]| service.get("/api/v1/audit", headers).status;
    assert!(until(30, || status(&[]) == 401));
    let (cookie, _) = service.session("anna", PASSWORD);
    let cookie = [("cookie", cookie.as_str())];
    assert_eq!(status(&cookie), 403);
    account(path, &["user", "role", "anna", "admin"], "");
    assert!(
        until(30, || status(&cookie) == 200),
        "the role holds for open sessions"
    );

    let ended = stream_ends(&service, ("cookie", cookie[0].1), || {
        let change = ["user", "password", "anna", "--password-stdin"];
        account(path, &change, "another password\r\n");
    });
    assert!(ended, "another password ends the sessions");
    assert_eq!(status(&cookie), 401);
    assert_eq!(service.log_in("anna", PASSWORD).status, 401);
    let (cookie, _) = service.session("anna", "another password");
    add_user(path, "berta", "viewer");
    account(path, &["user", "remove", "anna"], "");
    assert!(until(30, || status(&[("cookie", &cookie)]) == 401));
    assert_eq!(service.log_in("anna", "another password").status, 401);

    let token = add_token(path, "grafana", "viewer");
    let bearer = format!("Bearer {token}");
    let cameras = || {
        service
            .get("/api/v1/cameras", &[("authorization", &bearer)])
            .status
    };
    assert!(until(30, || cameras() == 200));
    assert_eq!(
        service
            .get(&format!("/api/v1/cameras?token={token}"), &[])
            .status,
        200
    );
    let page = service.get(&format!("/?token={token}"), &[]);
    assert_eq!((page.status, page.header("location")), (303, Some("/")));
    let by_cookie = page.cookie();
    assert_eq!(
        service
            .get("/api/v1/cameras", &[("cookie", &by_cookie)])
            .status,
        200
    );
    let ended = stream_ends(&service, ("authorization", &bearer), || {
        account(path, &["token", "remove", "grafana"], "");
    });
    assert!(ended, "a removed token ends its streams");
    assert_eq!(cameras(), 401);
    assert_eq!(
        service
            .get("/api/v1/cameras", &[("cookie", &by_cookie)])
            .status,
        401
    );

    // A file that cannot be read changes nothing.
    let users = path.join("state/users.toml");
    let before = std::fs::read(&users).unwrap();
    std::fs::write(&users, "users = 3").unwrap();
    assert!(until(30, || service
        .log()
        .contains("cannot read the users again")));
    assert_eq!(service.log_in("berta", PASSWORD).status, 200);
    // An expired token, and SIGHUP.
    std::fs::write(&users, before).unwrap();
    let token = account(
        path,
        &["token", "add", "old", "--role", "admin", "--expires", "1d"],
        "",
    );
    let text = std::fs::read_to_string(&users).unwrap();
    let (head, tail) = text.split_once("expires = \"").unwrap();
    let rest = tail.split_once('"').unwrap().1;
    std::fs::write(
        &users,
        format!("{head}expires = \"2020-01-01T00:00:00Z\"{rest}"),
    )
    .unwrap();
    service.child.signal("HUP");
    let counted = || service.log().matches("tokens=1").count();
    assert!(until(30, || counted() >= 1), "{}", service.log());
    let bearer = format!("Bearer {token}");
    let answer = service.get("/metrics", &[("authorization", &bearer)]);
    assert_eq!(answer.problem().0, 401);
    assert!(account(path, &["token", "list"], "").contains("has expired"));
}

#[test]
fn failed_logins_are_limited_by_name() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "anna", "admin");
    add_user(dir.path(), "berta", "admin");
    let service = Service::start(dir.path(), "");
    for _ in 0..3 {
        assert_eq!(
            service.log_in("berta", PASSWORD).status,
            200,
            "successes are not counted"
        );
    }
    let answers: Vec<_> = (0..12)
        .map(|_| service.log_in("anna", "wrong password"))
        .collect();
    let refused: Vec<u16> = answers.iter().map(|a| a.status).collect();
    assert_eq!(&refused[..10], &[401; 10]);
    // (On a slow machine a further attempt may be allowed meanwhile.)
    let limited = answers.iter().find(|a| a.status == 429).expect("limited");
    assert_eq!(limited.problem().1, "login-limit");
    let wait: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(
        service.log_in("berta", PASSWORD).status,
        200,
        "another name"
    );
    // X-Forwarded-For is not believed, so it makes no new address.
    let body = r#"{"name": "anna", "password": "wrong password"}"#;
    let spoofed = Request::json("POST", "/api/v1/session", body);
    let limited = |request: &Request<'_>| service.send(request).status == 429;
    let spoofed = spoofed.with(&[("x-forwarded-for", "203.0.113.77")]);
    assert!(until(30, || limited(&spoofed)));
}

#[test]
fn bad_input_is_refused_with_the_field_and_reveals_nothing() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "anna", "admin");
    let token = add_token(dir.path(), "t", "admin");
    let service = Service::start(dir.path(), "");
    let post = |body: &str| service.send(&Request::json("POST", "/api/v1/session", body));
    let long = "x".repeat(65);
    for (body, status, field) in [
        ("", 400, ""),
        ("{", 400, ""),
        ("nonsense", 400, ""),
        ("{\"name\": \"a\", \"password\": \"SECRET\"} more", 400, ""),
        ("{}", 422, "name"),
        ("{\"name\": \"anna\"}", 422, "password"),
        ("{\"name\": 1, \"password\": \"x\"}", 422, "name"),
        ("{\"name\": \"anna\", \"password\": null}", 422, "password"),
        (
            "{\"name\": \"anna\", \"password\": \"x\", \"role\": \"admin\"}",
            422,
            "role",
        ),
        ("{\"name\": \"\", \"password\": \"x\"}", 422, "name"),
        ("{\"name\": \"anna\", \"password\": \"\"}", 422, "password"),
        (
            &format!("{{\"name\": \"{long}\", \"password\": \"x\"}}"),
            422,
            "name",
        ),
    ] {
        let answer = post(body);
        let (given, _, of) = answer.problem();
        assert_eq!((given, of.as_str()), (status, field), "{body}");
        assert!(!answer.text().contains("SECRET"), "{}", answer.text());
    }
    // Names that could break headers or lines are names of nobody.
    for name in [
        "a\\r\\nSet-Cookie: x=y",
        "a\\u0000",
        "../../etc/passwd",
        "' OR 1=1 --",
    ] {
        let answer = post(&format!("{{\"name\": \"{name}\", \"password\": \"x\"}}"));
        assert_eq!(answer.problem().0, 401, "{name}");
        assert!(answer.header("set-cookie").is_none());
    }
    assert_eq!(post(&"x".repeat(1 << 20)).problem().0, 413);
    let form = Request::json("POST", "/api/v1/session", "name=anna");
    let form = service.send(&form.with(&[("content-type", "text/plain")]));
    assert!([400, 415].contains(&form.problem().0));
    let cookies = [
        "twintrack_session=",
        "twintrack_session=zz",
        &format!("twintrack_session={}", "0".repeat(64)),
        &format!("twintrack_session={}", "f".repeat(4000)),
    ];
    for cookie in cookies {
        assert_eq!(
            service.get("/api/v1/session", &[("cookie", cookie)]).status,
            401,
            "{cookie}"
        );
    }
    let bearer = format!("Bearer {token}");
    let bearer = [("authorization", bearer.as_str())];
    for path in [
        "/api/v1/cameras/../../etc/passwd",
        "/api/v1/cameras/..%2f..%2f..%2fetc%2fpasswd/picture.jpg",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/api/v1/cameras/%00/picture.jpg",
    ] {
        let answer = service.get(path, &bearer);
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text().contains("root:"));
    }
    for query in ["limit=0", "limit=1001"] {
        let answer = service.get(&format!("/api/v1/audit?{query}"), &bearer);
        let (status, _, field) = answer.problem();
        assert_eq!((status, field.as_str()), (422, "limit"), "{query}");
    }
    for query in ["limit=x", "limit=-1", "unknown=1"] {
        let answer = service.get(&format!("/api/v1/audit?{query}"), &bearer);
        assert_eq!(answer.problem().0, 400, "{query}");
    }
    // A token in an address must not change anything: addresses are logged.
    let path = format!("/api/v1/session?token={token}");
    let request = Request::new("DELETE", &path).with(&[("sec-fetch-site", "same-origin")]);
    assert_eq!(service.send(&request).problem().0, 401);
}

#[test]
fn the_audit_log_says_who_did_what_from_where() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "anna", "admin");
    let service = Service::start(dir.path(), "");
    service.log_in("anna", "the wrong one");
    service.log_in("a password by mistake", "x");
    let (cookie, csrf) = service.session("anna", PASSWORD);
    let cookie = ("cookie", cookie.as_str());
    for _ in 0..3 {
        assert_eq!(
            service
                .get("/api/v1/cameras/c1/picture.jpg", &[cookie])
                .status,
            200
        );
        assert_eq!(service.get("/api/v1/live", &[cookie]).status, 200);
        service.get("/api/v1/cameras/nobody/picture.jpg", &[cookie]);
        service.get("/api/v1/live?cameras=c1,nobody", &[cookie]);
    }
    let audit = |query: &str| {
        service
            .get(&format!("/api/v1/audit{query}"), &[cookie])
            .json()
    };
    // An answer waits for the disk, but at most 2 s.
    let mut page = Value::Null;
    until(60, || {
        page = audit("");
        page["entries"].as_array().is_some_and(|e| e.len() >= 7)
    });
    let entries = page["entries"].as_array().unwrap();
    let summary: Vec<String> = entries
        .iter()
        .rev()
        .map(|e| {
            let of = |key: &str| e[key].as_str().unwrap_or("-").to_string();
            assert_eq!(of("schema"), "twintrack.audit/1");
            [
                of("action"),
                of("principal"),
                of("address"),
                of("object"),
                of("result"),
            ]
            .join(" ")
        })
        .collect();
    let who = summary[0].split(' ').nth(1).unwrap();
    assert_eq!(
        summary,
        [
            &format!("user-changed {who} - user anna added as admin ok"),
            "login - 127.0.0.1 anna refused",
            "login - 127.0.0.1 an unknown name refused",
            "login anna 127.0.0.1 anna ok",
            "picture-seen anna 127.0.0.1 c1 ok",
            "live-seen anna 127.0.0.1 all cameras ok",
            "live-seen anna 127.0.0.1 c1 ok",
        ]
    );
    // By pages.
    let first = audit("?limit=2");
    let next = first["next"].as_str().unwrap();
    let second = audit(&format!("?limit=2&before={next}"));
    assert_eq!(first["entries"].as_array().unwrap()[..], entries[..2]);
    assert_eq!(second["entries"].as_array().unwrap()[..], entries[2..4]);
    assert_eq!(page["next"], Value::Null);
    let headers = [
        cookie,
        ("x-csrf-token", csrf.as_str()),
        ("sec-fetch-site", "same-origin"),
    ];
    let log_out = Request::new("DELETE", "/api/v1/session").with(&headers);
    assert_eq!(service.send(&log_out).status, 204);
    let mut child = service.child;
    child.signal("TERM");
    assert_eq!(child.code(20), Some(0));
    let file = dir.path().join("state/audit.jsonl");
    let log = std::fs::read_to_string(&file).unwrap();
    assert!(
        log.contains("\"logout\"") && !log.contains(PASSWORD),
        "{log}"
    );
    assert!(!log.contains("by mistake") && mode(&file) == 0o600, "{log}");
}

#[test]
fn users_and_tokens_are_kept_as_hashes_in_a_private_file() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "anna", "operator");
    let token = add_token(dir.path(), "grafana", "viewer");
    let file = dir.path().join("state/users.toml");
    let stored = std::fs::read_to_string(&file).unwrap();
    assert!(
        stored.contains("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{stored}"
    );
    assert!(
        !stored.contains(PASSWORD) && !stored.contains(&token[3..]),
        "{stored}"
    );
    assert_eq!(
        (mode(&file), mode(&dir.path().join("state"))),
        (0o600, 0o700)
    );
    let users = account(dir.path(), &["user", "list"], "");
    assert!(users.contains("anna") && users.contains("operator") && !users.contains("argon"));
    let tokens = account(dir.path(), &["token", "list"], "");
    assert!(
        tokens.contains("grafana") && tokens.contains("never"),
        "{tokens}"
    );
    let state = dir.path().join("state");
    let rejected = |arguments: &[&str], input: &str| {
        let state = ["--state-dir", state.to_str().unwrap()];
        let out = command(&[arguments, &state].concat(), input);
        assert!(!out.status.success(), "{arguments:?}");
        text(&out.stderr)
    };
    let add = |name| ["user", "add", name, "--role", "viewer", "--password-stdin"];
    for (arguments, input, reason) in [
        (&add("anna")[..], "long enough\n", "already"),
        (&add("berta"), "1234567\n", "at least 8"),
        (&add("berta"), "", "at least 8"),
        (&add("a b"), "long enough\n", "not allowed"),
        (&add("serve.token"), "long enough\n", "reserved"),
        (&["user", "add", "berta", "--role", "root"], "", "operator"),
        (
            &["user", "add", "berta", "--role", "viewer"],
            "",
            "--password-stdin",
        ),
        (&["user", "remove", "berta"], "", "no user 'berta'"),
        (&["user", "role", "berta", "viewer"], "", "no user 'berta'"),
        (
            &["user", "password", "berta", "--password-stdin"],
            "x",
            "no user 'berta'",
        ),
        (
            &["token", "add", "grafana", "--role", "viewer"],
            "",
            "already",
        ),
        (
            &["token", "add", "t", "--role", "viewer", "--expires", "soon"],
            "",
            "90d",
        ),
        (&["token", "remove", "t"], "", "no token 't'"),
    ] {
        let error = rejected(arguments, input);
        assert!(error.contains(reason), "{arguments:?}: {error}");
        assert!(
            !error.contains("long enough") && !error.contains("1234567"),
            "{error}"
        );
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), stored);
    // The state folder that a configuration names.
    let config = dir.path().join("cameras.toml");
    std::fs::write(&config, format!("[serve]\nstate_dir = {state:?}\n")).unwrap();
    let out = command(&["user", "list", "--config", config.to_str().unwrap()], "");
    assert!(text(&out.stdout).contains("anna"));
}

/// Whether the terminal that `script` has made does not show what is typed.
fn has_no_echo(script: u32) -> bool {
    let children = std::fs::read_to_string(format!("/proc/{script}/task/{script}/children"));
    let children = children.unwrap_or_default();
    let Some(child) = children.split_whitespace().next() else {
        return false;
    };
    let terminal = std::fs::read_link(format!("/proc/{child}/fd/0"));
    terminal.is_ok_and(|terminal| {
        let mut stty = std::process::Command::new("stty");
        let out = stty.arg("-F").arg(terminal).arg("-a").output().unwrap();
        text(&out.stdout).contains(" -echo ")
    })
}

/// Types passwords on a terminal. `script` gives the command one.
#[test]
fn passwords_are_asked_for_twice_without_echo() {
    let dir = tempfile::tempdir().unwrap();
    let add = |name: &str, passwords: [&str; 2]| {
        let program = common::twintrack();
        let line = format!(
            "{} user add {name} --role viewer --state-dir {}",
            program.get_program().display(),
            dir.path().display()
        );
        let child = std::process::Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        let mut child = Running(child);
        let (mut keyboard, mut screen) = (child.0.stdin.take().unwrap(), String::new());
        let mut output = child.0.stdout.take().unwrap();
        let (send, parts) = channel();
        std::thread::spawn(move || {
            let mut part = [0; 200];
            while let Ok(n @ 1..) = output.read(&mut part) {
                let _ = send.send(text(&part[..n])); // the test may have failed
            }
        });
        let mut read_until = |end: Option<&str>| {
            while end.is_none_or(|end| !screen.contains(end)) {
                match parts.recv_timeout(Duration::from_secs(60)) {
                    Ok(part) => screen += &part,
                    Err(RecvTimeoutError::Disconnected) => break,
                    Err(RecvTimeoutError::Timeout) => panic!("{screen} and no more"),
                }
            }
            screen.clone()
        };
        for (question, password) in ["characters): ", "again: "].into_iter().zip(passwords) {
            read_until(Some(question));
            // The echo is turned off just after the question is written.
            assert!(until(30, || has_no_echo(child.0.id())));
            keyboard
                .write_all(format!("{password}\n").as_bytes())
                .unwrap();
        }
        let screen = read_until(None);
        Ok::<_, std::io::Error>((child.code(60) == Some(0), screen))
    };
    let Ok((added, screen)) = add("anna", [PASSWORD, PASSWORD]) else {
        eprintln!("SKIPPED: the program script is not installed (Debian: bsdutils)");
        return;
    };
    assert!(added && screen.contains("user anna added"), "{screen}");
    assert!(!screen.contains(PASSWORD), "{screen}");
    let (added, differ) = add("berta", [PASSWORD, "another horse"]).unwrap();
    assert!(!added && differ.contains("differ"), "{differ}");
    let users = std::fs::read_to_string(dir.path().join("users.toml")).unwrap();
    assert!(
        users.contains("anna") && !users.contains("berta"),
        "{users}"
    );
}

#[test]
fn a_service_with_users_may_listen_on_other_addresses() {
    let dir = tempfile::tempdir().unwrap();
    add_user(dir.path(), "anna", "viewer");
    let mut service = Service::start(dir.path(), "");
    service.child.signal("TERM");
    service.child.code(20);
    let config = dir.path().join("cameras.toml");
    let toml = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, toml.replace("127.0.0.1:0", "0.0.0.0:0")).unwrap();
    let check = ["serve", "--check", "--config", config.to_str().unwrap()];
    assert!(command(&check, "").status.success());
    account(dir.path(), &["user", "remove", "anna"], "");
    let out = command(&check, "");
    assert!(!out.status.success() && text(&out.stderr).contains("twintrack user add"));
}
