//! Settings of the NATS sink, and their validation.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{ConnectOptions, ServerAddr};
use derive_setters::Setters;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::address::masked;
use crate::range::OutOfRange;
use crate::secret::Secret;
use crate::sink::client_tls::{ClientTls, install_provider};
use crate::sink::delivery::check_events;
use crate::sink::sink::SinkError;
use crate::sink::spool::SpoolLimits;
use crate::trajectory::EventKind;

/// Settings of the NATS sink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Setters)]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct NatsConfig {
    /// Address of the server: nats://host:4222, or tls://host:4222, which requires TLS. Several
    /// servers of a cluster are separated by commas. Required.
    pub url: String,
    /// Name of the connection, which the server shows to its operator.
    pub name: String,
    /// User name, for servers with user names and passwords.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Password. Prefer `password_env` or `password_file`, which keep the password out of this
    /// file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Environment variable that holds the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// File whose first line is the password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Token, for servers with a token. Prefer `token_env` or `token_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// Environment variable that holds the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
    /// File whose first line is the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Seed (S…) of an nkey, for servers with nkeys. Prefer `nkey_env` or `nkey_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nkey: Option<Secret>,
    /// Environment variable that holds the nkey's seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nkey_env: Option<String>,
    /// File whose first line is the nkey's seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nkey_file: Option<PathBuf>,
    /// Credentials file (.creds) with a JWT and its nkey, for servers with accounts by JWT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// CA certificate (PEM) with which the server's certificate is verified. Absent: the system's
    /// certificates.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Client certificate (PEM).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// Key (PEM) of the client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// Prefix of every subject, without wildcards (* and >).
    pub subject: String,
    /// Stream of JetStream that stores the events; it must exist and take the subjects. Absent:
    /// events are published without JetStream, for those who have subscribed at that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Kinds of events to send: trajectory, track_ended, zone, line, camera_status.
    pub events: Vec<EventKind>,
    /// Limits of the spool that holds events until they are delivered.
    pub spool: SpoolLimits,
}

impl Default for NatsConfig {
    fn default() -> Self {
        NatsConfig {
            url: String::new(),
            name: "twintrack".into(),
            user: None,
            password: None,
            password_env: None,
            password_file: None,
            token: None,
            token_env: None,
            token_file: None,
            nkey: None,
            nkey_env: None,
            nkey_file: None,
            credentials_file: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            subject: "twintrack".into(),
            stream: None,
            events: EventKind::ALL.to_vec(),
            spool: SpoolLimits::default(),
        }
    }
}

/// Timeout of a connection to one address, until the server has accepted the login.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval of pings on an idle connection. A connection counts as broken when a third ping is due
/// and none was answered.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// How the client proves who it is.
#[derive(Debug, Clone)]
enum Login {
    None,
    Password(String, Secret),
    Token(Secret),
    Nkey(Secret),
    /// The text of a credentials file.
    Credentials(Secret),
}

/// Validated settings of the connection, with the contents of secrets.
#[derive(Clone)]
pub(super) struct Server {
    pub config: NatsConfig,
    pub addresses: Vec<ServerAddr>,
    login: Login,
}

fn settings_error(reason: String) -> SinkError {
    SinkError::Settings {
        sink: "nats",
        reason,
    }
}

/// Whether a text can be the part of a subject: words separated by full stops, without wildcards
/// and white space.
fn is_subject(text: &str) -> bool {
    let is_word = |word: &str| {
        let wrong = |c: char| c.is_whitespace() || c.is_control() || "*>".contains(c);
        !word.is_empty() && !word.contains(wrong)
    };
    text.split('.').all(is_word)
}

impl NatsConfig {
    /// The addresses, as they may be logged.
    pub(crate) fn display(&self) -> String {
        let masked: Vec<String> = self.url.split(',').map(masked).collect();
        masked.join(",")
    }

    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        check_events("nats", &self.events)?;
        self.spool.validate("nats")
    }

    /// Checks the settings, and that the secrets and the files can be read, without connecting.
    ///
    /// # Errors
    /// The first invalid setting, or a secret or file that cannot be read.
    pub fn check(&self) -> Result<(), SinkError> {
        self.server().map(drop)
    }

    /// Validates the settings, and reads the files that they name.
    pub(super) fn server(&self) -> Result<Server, SinkError> {
        let addresses = self.url.split(',').map(|a| address(a.trim()));
        let addresses = addresses.collect::<Result<_, _>>()?;
        if !is_subject(&self.subject) {
            return Err(settings_error(format!(
                "subject = \"{}\": write words separated by full stops, without *, > and white \
                 space",
                self.subject
            )));
        }
        if let Some(stream) = &self.stream
            && (!is_subject(stream) || stream.contains(['.', '/', '\\']))
        {
            return Err(settings_error(format!(
                "stream = \"{stream}\" is not the name of a stream: it must not be empty and must \
                 not contain white space or any of . * > / \\"
            )));
        }
        ClientTls::read(&self.ca_file, &self.certificate_file, &self.key_file)
            .map_err(settings_error)?;
        let login = self.login().map_err(settings_error)?;
        let server = Server {
            config: self.clone(),
            addresses,
            login,
        };
        server.options().map_err(settings_error)?;
        Ok(server)
    }

    fn login(&self) -> Result<Login, String> {
        let password = Secret::find(
            "password",
            &self.password,
            &self.password_env,
            &self.password_file,
        )?;
        let token = Secret::find_strong("token", &self.token, &self.token_env, &self.token_file)?;
        let nkey = Secret::find("nkey", &self.nkey, &self.nkey_env, &self.nkey_file)?;
        let credentials = self.credentials_file.as_ref().map(|path| {
            std::fs::read_to_string(path)
                .map(Secret::new)
                .map_err(|e| format!("cannot read {}: {e}", path.display()))
        });
        let by_password = match (&self.user, password) {
            (Some(user), password) => Some(Login::Password(
                user.clone(),
                password.unwrap_or_else(|| Secret::new("")),
            )),
            (None, Some(_)) => return Err("password requires user".into()),
            (None, None) => None,
        };
        let mut given = [
            by_password,
            token.map(Login::Token),
            nkey.map(Login::Nkey),
            credentials.transpose()?.map(Login::Credentials),
        ]
        .into_iter()
        .flatten();
        let login = given.next().unwrap_or(Login::None);
        if given.next().is_some() {
            return Err(
                "there are several ways to log in: set only one of user, token, nkey and \
                 credentials_file"
                    .into(),
            );
        }
        Ok(login)
    }
}

/// Parses the address of a server.
fn address(text: &str) -> Result<ServerAddr, SinkError> {
    let wrong = |reason: &str| settings_error(format!("url = \"{}\": {reason}", masked(text)));
    if !["nats://", "tls://"].iter().any(|s| text.starts_with(s)) {
        return Err(wrong("it must begin with nats:// or tls://"));
    }
    if text.contains('@') {
        return Err(wrong(
            "it holds credentials: write them in user and password (or password_file)",
        ));
    }
    let address: ServerAddr = text.parse().map_err(|_| wrong("it is not an address"))?;
    if address.host().is_empty() {
        return Err(wrong("it has no host"));
    }
    Ok(address)
}

impl Server {
    /// The options of a connection.
    ///
    /// # Errors
    /// When the credentials file is invalid.
    pub fn options(&self) -> Result<ConnectOptions, String> {
        install_provider();
        let c = &self.config;
        let mut options = ConnectOptions::new()
            .name(&c.name)
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL);
        if let Some(ca) = &c.ca_file {
            options = options.add_root_certificates(ca.clone());
        }
        if let (Some(certificate), Some(key)) = (&c.certificate_file, &c.key_file) {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        let text = |secret: &Secret| secret.expose().to_string();
        Ok(match &self.login {
            Login::None => options,
            Login::Password(user, password) => {
                options.user_and_password(user.clone(), text(password))
            }
            Login::Token(token) => options.token(text(token)),
            Login::Nkey(seed) => options.nkey(text(seed)),
            Login::Credentials(credentials) => options
                .credentials(credentials.expose())
                .map_err(|_| "credentials_file has no JWT with an nkey")?,
        })
    }

    /// The addresses, as they may be logged.
    pub fn display(&self) -> String {
        self.config.display()
    }
}
