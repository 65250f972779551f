//! The access control of the running service: decides who sends a request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::secret::Secret;
use crate::serve::access::accounts_file::AccountsFile;
use crate::serve::access::audit::AuditLog;
use crate::serve::access::audit_file::AuditFile;
use crate::serve::access::base_path::BasePath;
use crate::serve::access::client::{Client, Peer, TrustedProxies};
use crate::serve::access::live_accounts::LiveAccounts;
use crate::serve::access::login_limits::LoginLimits;
use crate::serve::access::password::PasswordVerifier;
use crate::serve::access::principal::{CONFIGURED_TOKEN, Principal, PrincipalKind};
use crate::serve::access::role::Role;
use crate::serve::access::sessions::{Sessions, hash};
use crate::serve::access::{cookies, origin};
use crate::serve::config::ServeConfig;
use crate::serve::tls::Certificate;

/// Interval at which the files of users and certificates are checked for changes, and sessions for
/// expiry.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The access control. Clones share its state.
#[derive(Clone)]
pub struct AccessControl(Arc<Shared>);

struct Shared {
    /// Whether the server listens on this machine only.
    loopback: bool,
    /// The token of the configuration.
    token: Option<Secret>,
    accounts: LiveAccounts,
    sessions: Sessions,
    limits: LoginLimits,
    passwords: PasswordVerifier,
    proxies: TrustedProxies,
    base: BasePath,
    certificate: Option<Arc<Certificate>>,
    audit: AuditLog,
    /// Makes CSRF tokens of cookies.
    csrf_key: Secret,
}

impl AccessControl {
    /// Reads the users and the certificate. `address`: where the server listens; `token`: the token
    /// of the configuration.
    ///
    /// # Errors
    /// When the users or the certificate cannot be read, or a setting is invalid.
    pub fn open(
        config: &ServeConfig,
        address: SocketAddr,
        token: Option<Secret>,
    ) -> Result<Self, String> {
        let state = config.state();
        let file = AccountsFile::in_folder(&state);
        let audit = AuditFile::in_folder(&state, config.audit_bytes, config.audit_keep);
        let seconds = Duration::from_secs_f64;
        Ok(AccessControl(Arc::new(Shared {
            loopback: address.ip().is_loopback(),
            token,
            accounts: LiveAccounts::open(file).map_err(|e| e.to_string())?,
            sessions: Sessions::new(
                seconds(config.session_idle),
                seconds(config.session_lifetime),
            ),
            limits: LoginLimits::default(),
            passwords: PasswordVerifier::default(),
            proxies: TrustedProxies::parse(&config.trusted_proxies)?,
            base: BasePath::parse(&config.base_path)?,
            certificate: config
                .tls_files()?
                .map(Certificate::open)
                .transpose()
                .map_err(|e| e.to_string())?,
            audit: AuditLog::start(audit)?,
            csrf_key: crate::serve::access::sessions::random_secret()?,
        })))
    }

    /// Whether requests need neither a user nor a token: the server listens on this machine only,
    /// and there have been neither users nor tokens since the start.
    pub fn is_open(&self) -> bool {
        self.0.loopback && self.0.token.is_none() && self.0.accounts.have_never_existed()
    }

    /// Whether there are users, who log in.
    pub fn has_users(&self) -> bool {
        self.0.accounts.has_users()
    }

    /// The path below which the server is reached.
    pub fn base_path(&self) -> &BasePath {
        &self.0.base
    }

    /// The certificate; None without TLS.
    pub fn certificate(&self) -> Option<&Arc<Certificate>> {
        self.0.certificate.as_ref()
    }

    /// The audit log.
    pub fn audit(&self) -> &AuditLog {
        &self.0.audit
    }

    /// The sessions.
    pub(super) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// The users and named tokens.
    pub(super) fn accounts(&self) -> &LiveAccounts {
        &self.0.accounts
    }

    /// The limits on logins.
    pub(super) fn limits(&self) -> &LoginLimits {
        &self.0.limits
    }

    /// The verification of passwords.
    pub(super) fn passwords(&self) -> &PasswordVerifier {
        &self.0.passwords
    }

    /// Where a request comes from.
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> Client {
        self.0.proxies.client(peer, headers)
    }

    /// Whether a request comes from a page of another origin. Without users and tokens, also
    /// whether it was sent to another host name than localhost (as by DNS rebinding), or from
    /// another machine through a trusted proxy.
    pub(super) fn is_foreign(&self, headers: &HeaderMap, client: &Client) -> bool {
        let other_host = || !origin::is_loopback(&client.host) || !client.address.is_loopback();
        origin::is_foreign(headers, &client.host) || (self.is_open() && other_host())
    }

    /// Who sends a request: by a bearer token, by the token in the query, by the session of a
    /// cookie, or by the token of a cookie. None if none of these is valid. The local principal if
    /// [`AccessControl::is_open`].
    pub(super) fn principal(
        &self,
        headers: &HeaderMap,
        in_query: Option<&str>,
        client: &Client,
    ) -> Option<Principal> {
        if self.is_open() {
            return Some(Principal::local());
        }
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok()?.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
            .map(|(_, token)| token.trim_start());
        let by_token = [bearer, in_query].into_iter().flatten();
        by_token
            .filter_map(|token| self.token(token))
            .next()
            .or_else(|| self.session(headers, client))
            .or_else(|| {
                let token = cookies::find(headers, cookies::TOKEN)?;
                let principal = self.token(token)?;
                Some(Principal {
                    csrf_token: Some(self.csrf_token(token)),
                    ..principal
                })
            })
    }

    /// The principal of a token: the one of the configuration, or a named one.
    pub(super) fn token(&self, given: &str) -> Option<Principal> {
        // The comparison takes constant time: the time does not depend on the number of equal
        // characters.
        let configured = self.0.token.as_ref().is_some_and(|token| {
            !given.is_empty() && given.as_bytes().ct_eq(token.expose().as_bytes()).into()
        });
        if configured {
            let never = CancellationToken::new();
            return Some(Principal::token(
                CONFIGURED_TOKEN,
                Role::Admin,
                hash(given),
                never,
            ));
        }
        self.0.accounts.token(given, crate::clock::now())
    }

    /// The id of the session in the request's cookie.
    pub(super) fn session_id<'a>(
        &self,
        headers: &'a HeaderMap,
        client: &Client,
    ) -> Option<&'a str> {
        cookies::find(headers, &cookies::session_name(client.https, &self.0.base))
    }

    /// The user of the session in the request's cookie.
    fn session(&self, headers: &HeaderMap, client: &Client) -> Option<Principal> {
        let id = self.session_id(headers, client)?;
        let found = self.0.sessions.find(id, Instant::now())?;
        // A removed user, or another password, ends the session at once.
        let user = self.0.accounts.user(&found.user)?;
        (hash(&user.password) == found.stamp).then(|| Principal {
            name: found.user,
            role: user.role,
            kind: PrincipalKind::User,
            ended: found.ended,
            csrf_token: Some(self.csrf_token(id)),
            credential: Some(hash(id)),
            _lease: Some(found.lease),
        })
    }

    /// The CSRF token that belongs to a cookie: nobody can make it without the key, and it does not
    /// reveal the cookie.
    pub(super) fn csrf_token(&self, cookie: &str) -> Arc<str> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.csrf_key.expose().as_bytes())
            .expect("HMAC accepts keys of any length");
        mac.update(cookie.as_bytes());
        hex::encode(mac.finalize().into_bytes()).into()
    }

    /// Reads users and certificate again when their files change and on SIGHUP, and ends sessions
    /// and tokens that have expired; until `stop` is cancelled.
    pub async fn watch(self, stop: CancellationToken) {
        let mut hangup = signal(SignalKind::hangup())
            .inspect_err(|error| {
                tracing::error!(%error, "cannot listen for SIGHUP: users and certificates are \
                                         read again only when their files change");
            })
            .ok();
        loop {
            let signalled = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let force = tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(WATCH_INTERVAL) => false,
                _ = signalled => true,
            };
            let access = self.clone();
            // Files may be on a slow network drive.
            let checked = tokio::task::spawn_blocking(move || access.check_files(force));
            if checked.await.is_err() {
                tracing::error!("cannot check the files of users and certificates");
            }
            self.sweep();
        }
    }

    fn check_files(&self, force: bool) {
        self.0.accounts.reload(force);
        if let Some(certificate) = &self.0.certificate {
            certificate.reload(force);
        }
    }

    fn sweep(&self) {
        let accounts = &self.0.accounts;
        accounts.sweep(crate::clock::now());
        self.0.sessions.sweep(Instant::now(), |user, stamp| {
            accounts
                .user(user)
                .is_some_and(|u| hash(&u.password) == *stamp)
        });
    }

    /// Whether a request with these headers and query is authorised, without a client's address.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn admits(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        let peer = Peer {
            address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
            tls: false,
        };
        let client = self.client(peer, headers);
        !self.is_foreign(headers, &client)
            && self
                .principal(headers, cookies::token_in_query(query).as_deref(), &client)
                .is_some()
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn open(config: ServeConfig, listen: &str, token: Option<&str>) -> AccessControl {
        let address = listen.parse().expect("an address");
        AccessControl::open(&config, address, token.map(Secret::new)).expect("valid")
    }

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).expect("a value"),
            )
        };
        all.iter().map(pair).collect()
    }

    fn local(host: &str) -> Client {
        Client {
            address: "127.0.0.1".parse().expect("an address"),
            host: host.into(),
            ..Client::default()
        }
    }

    #[test]
    fn the_token_is_required_and_accepted_in_header_cookie_and_query() {
        const TOKEN: &str = "0123456789abcdef";
        let dir = tempfile::tempdir().expect("a folder");
        let config = ServeConfig::default().with_state_dir(Some(dir.path().into()));
        let access = open(config, "127.0.0.1:0", Some(TOKEN));
        let name = |all: &[(&'static str, &str)], query: Option<&str>| {
            let query = cookies::token_in_query(query);
            let principal =
                access.principal(&headers(all), query.as_deref(), &local("localhost"))?;
            assert_eq!(principal.role, Role::Admin);
            Some((principal.name.to_string(), principal.csrf_token.is_some()))
        };
        let by_header = Some((CONFIGURED_TOKEN.to_string(), false));
        let by_cookie = Some((CONFIGURED_TOKEN.to_string(), true));
        assert_eq!(name(&[], None), None);
        for scheme in ["Bearer", "bearer"] {
            let right = format!("{scheme} {TOKEN}");
            assert_eq!(name(&[("authorization", &right)], None), by_header);
        }
        for wrong in [
            "Bearer 0123456789abcdeX",
            "Bearer ",
            "Bearer",
            "Basic 0123456789abcdef",
        ] {
            assert_eq!(name(&[("authorization", wrong)], None), None, "{wrong}");
        }
        let cookie = format!("a=b; twintrack_token={TOKEN}");
        assert_eq!(name(&[("cookie", &cookie)], None), by_cookie);
        let query = format!("cameras=a&token={TOKEN}");
        assert_eq!(name(&[], Some(&query)), by_header);
        assert_eq!(name(&[], Some("token=")), None);
    }

    #[test]
    fn without_users_and_tokens_only_requests_to_this_machine_are_allowed() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = ServeConfig::default()
            .with_state_dir(Some(dir.path().into()))
            .with_trusted_proxies(vec!["127.0.0.1".into()]);
        let access = open(config.clone(), "127.0.0.1:0", None);
        assert!(access.is_open());
        let foreign = |host: &str, all: &[(&'static str, &str)]| {
            access.is_foreign(&headers(all), &local(host))
        };
        assert!(!foreign("127.0.0.1:8090", &[]) && !foreign("localhost:8090", &[]));
        assert!(!foreign("[::1]:8090", &[]) && foreign("evil.example:8090", &[]));
        assert!(foreign(
            "127.0.0.1:8090",
            &[("origin", "https://evil.example")]
        ));
        let proxied = Client {
            address: "203.0.113.9".parse().expect("an address"),
            ..local("127.0.0.1:8090")
        };
        assert!(access.is_foreign(&HeaderMap::new(), &proxied));
        // On other addresses nothing is open, also if the last user has been removed.
        let elsewhere = open(config.clone(), "0.0.0.0:0", None);
        assert!(!elsewhere.is_open());
        let principal = elsewhere.principal(&HeaderMap::new(), None, &local("localhost"));
        assert!(principal.is_none());
        let with_token = open(config, "127.0.0.1:0", Some("0123456789abcdef"));
        assert!(!with_token.is_open());
        let host = local("gate.example");
        let own = headers(&[("origin", "https://gate.example")]);
        let other = headers(&[("origin", "https://evil.example")]);
        assert!(!with_token.is_foreign(&own, &host) && with_token.is_foreign(&other, &host));
    }
}
