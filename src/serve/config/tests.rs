use super::*;
use crate::serve::access::role::Role;

#[test]
fn only_loopback_is_allowed_without_a_long_token_or_users() {
    let dir = tempfile::tempdir().expect("a folder");
    let with = |listen: &str, token: Option<&str>| {
        ServeConfig {
            listen: listen.into(),
            token: token.map(Secret::new),
            state_dir: Some(dir.path().into()),
            ..ServeConfig::default()
        }
        .listen_address()
    };
    assert!(with("127.0.0.1:0", None).is_ok_and(|d| d.is_some_and(|(_, token)| token.is_none())));
    assert!(with("[::1]:8090", None).is_ok());
    assert!(
        with("0.0.0.0:8090", None)
            .expect_err("open to all")
            .contains("token")
    );
    assert!(with("0.0.0.0:8090", Some("short")).is_err());
    assert!(with("0.0.0.0:8090", Some("0123456789abcdef")).is_ok());
    assert!(with("", None).is_ok_and(|d| d.is_none()));
    assert!(with("localhost", None).is_err());
    let file = AccountsFile::in_folder(dir.path());
    file.update(|accounts| accounts.add_token("t", Role::Viewer, None, crate::clock::now()))
        .expect("written");
    assert!(with("0.0.0.0:8090", None).is_ok());
    assert!(
        with("0.0.0.0:8090", Some("short")).is_err(),
        "a short token is weak beside users too"
    );
    std::fs::write(file.path(), "nonsense").expect("written");
    assert!(with("0.0.0.0:8090", None).is_err_and(|e| e.contains("users.toml")));
}

#[test]
fn privacy_overrides_what_may_be_stored() {
    let with = |privacy: &str| {
        let text = format!(
            "[cameras.a]\nurl = \"x\"\n[output]\nembeddings = true\n\
             [history]\ncrops = true\nembeddings = true\n[privacy]\n{privacy}\n"
        );
        let read = ServiceConfig::from_toml(&text, Path::new("cameras.toml"));
        let (service, config) = read.expect("valid");
        let history = service.history.expect("set");
        (history.crops, history.embeddings, config.output.embeddings)
    };
    assert_eq!(with(""), (true, true, true));
    assert_eq!(with("crops = false"), (false, true, true));
    assert_eq!(with("embeddings = false"), (true, false, false));
}

#[test]
fn settings_of_access_are_checked() {
    let with = |toml: &str| {
        let text = format!("[serve]\n{toml}\n[cameras.a]\nurl = \"x\"\n");
        ServiceConfig::from_toml(&text, Path::new("cameras.toml")).map(|_| ())
    };
    with("base_path = \"/a\"\ntrusted_proxies = [\"10.0.0.0/8\"]").expect("valid");
    for (toml, named) in [
        ("base_path = \"a\"", "base_path"),
        ("trusted_proxies = [\"localhost\"]", "trusted_proxies"),
        ("tls_key = \"key.pem\"", "tls_certificate"),
        ("session_idle = 1", "session_idle"),
        ("session_lifetime = 1e9", "session_lifetime"),
        ("audit_bytes = 1", "audit_bytes"),
        ("audit_keep = 2000", "audit_keep"),
    ] {
        let error = with(toml).expect_err(toml).to_string();
        assert!(error.contains(named), "{toml}: {error}");
    }
}
