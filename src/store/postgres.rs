//! PostgreSQL with the extension pgvector.
//!
//! All tables are in the schema `twintrack`, so that their names do not collide with those of other
//! programs in the same database.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use postgres::config::{Host, SslMode};
use postgres::error::SqlState;
use postgres::types::{FromSql, IsNull, ToSql, Type};
use postgres::{Client, Config, NoTls, Statement};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::secret::Secret;
use crate::store::database::{Database, Dialect, Row, Value};
use crate::store::error::StoreError;

/// Timeout of connecting.
const CONNECT: Duration = Duration::from_secs(10);
/// Seconds without a statement after which the server ends a transaction.
const IDLE_IN_TRANSACTION: u64 = 30;
/// Timeout of data that the other side of the connection does not confirm.
const UNCONFIRMED: Duration = Duration::from_secs(30);
/// Time without data after which the connection is probed, and interval of the probes.
const PROBES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// Number of probes without an answer after which the connection counts as broken.
const MISSED_PROBES: u32 = 3;
/// Largest number of prepared statements that a connection keeps.
const STATEMENTS: usize = 128;

/// A connection to a PostgreSQL server.
pub struct Postgres {
    client: Client,
    statements: HashMap<String, Statement>,
}

/// Parses an address without connecting.
///
/// # Errors
/// A message without the address, because it holds the password.
pub fn parse(url: &Secret) -> Result<Config, String> {
    let wrong = || {
        "url is not a PostgreSQL address, such as postgres://user:password@host/database \
         (in a password write %40 for @, %2F for /, %3A for :)"
            .to_string()
    };
    let mut config: Config = url.expose().parse().map_err(|_| wrong())?;
    // The rest of a password with an unescaped @.
    let is_password = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
    if config.get_hosts().iter().any(is_password) {
        return Err(wrong());
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT);
    }
    if config.get_application_name().is_none() {
        config.application_name("twintrack");
    }
    // By default a connection that was cut would block its thread for up to two hours.
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(UNCONFIRMED);
    }
    if config.get_keepalives_idle() == Config::new().get_keepalives_idle() {
        config.keepalives_idle(PROBES.0);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(PROBES.1);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(MISSED_PROBES);
    }
    Ok(config)
}

/// Host and name of the database, for messages.
pub fn shown(url: &Secret) -> String {
    let Ok(config) = parse(url) else {
        return "PostgreSQL".into();
    };
    let host = config.get_hosts().first().map(|h| match h {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    format!(
        "{} at {}",
        config.get_dbname().unwrap_or("(default database)"),
        host.unwrap_or_else(|| "localhost".into())
    )
}

/// TLS with the certificate authorities of `ca_file`, or Mozilla's list.
///
/// # Errors
/// When the file cannot be read, or holds no certificate.
pub fn tls(ca_file: Option<&Path>) -> Result<MakeRustlsConnect, String> {
    // An error is ignored: it means that another part of the program has installed a provider
    // already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = rustls::RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let wrong = |e: String| format!("ca_file {}: {e}", path.display());
            let certificates = CertificateDer::pem_file_iter(path)
                .map_err(|e| wrong(e.to_string()))?
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| wrong(e.to_string()))?;
            if certificates.is_empty() {
                return Err(wrong("it holds no certificate".into()));
            }
            for certificate in certificates {
                roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Whether to connect without TLS: if the address says so, or the server is on this machine and
/// neither the address nor a CA's certificate asks for TLS. (Debian's servers have a certificate
/// that nobody can verify.)
fn is_plain(config: &Config, ca_file: Option<&Path>) -> bool {
    let is_local = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let address = name.parse::<std::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|a| a.is_loopback())
        }
    };
    match config.get_ssl_mode() {
        SslMode::Disable => true,
        SslMode::Prefer => ca_file.is_none() && config.get_hosts().iter().all(is_local),
        _ => false,
    }
}

impl Postgres {
    /// Connects, creates the schema if it is missing, and checks that pgvector is there. Must not
    /// be called on a thread of an async runtime.
    ///
    /// # Errors
    /// When the address is invalid, the CA's file cannot be used, the server cannot be reached or
    /// refuses the user, or pgvector is missing.
    pub fn open(url: &Secret, ca_file: Option<&Path>) -> Result<Self, StoreError> {
        let config = parse(url).map_err(StoreError::Settings)?;
        let client = if is_plain(&config, ca_file) {
            config.connect(NoTls)
        } else {
            config.connect(tls(ca_file).map_err(StoreError::Settings)?)
        };
        let client = client.map_err(|e| match failure(&e) {
            StoreError::Unavailable(reason) => StoreError::Unavailable(reason),
            other => StoreError::Open {
                database: shown(url),
                reason: other.to_string(),
            },
        })?;
        let mut db = Postgres {
            client,
            statements: HashMap::new(),
        };
        // The locks of a process that is paused within a transaction, or whose machine was cut off,
        // would stop all writers.
        let (idle, interval) = (PROBES.0.as_secs(), PROBES.1.as_secs());
        db.batch(&format!(
            "SET client_min_messages = warning; SET synchronous_commit = on; \
             SET idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION}s'; \
             SET tcp_keepalives_idle = {idle}; SET tcp_keepalives_interval = {interval}; \
             SET tcp_keepalives_count = {MISSED_PROBES}"
        ))?;
        let found = db.query(
            "SELECT 1 FROM pg_namespace WHERE nspname = 'twintrack'",
            &[],
        )?;
        if found.is_empty() {
            db.batch("CREATE SCHEMA IF NOT EXISTS twintrack")?;
        }
        let vector = "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n \
                      ON n.oid = e.extnamespace WHERE e.extname = 'vector'";
        let schema = match db.query(vector, &[])?.first() {
            Some(row) => row.text(0)?,
            None => db.install_pgvector(url)?,
        };
        db.batch(&format!(
            "SET search_path = twintrack, public, \"{}\"",
            schema.replace('"', "\"\"")
        ))?;
        Ok(db)
    }

    fn install_pgvector(&mut self, url: &Secret) -> Result<String, StoreError> {
        let created = self.batch("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public");
        created.map_err(|e| match e {
            StoreError::Statement(reason) => StoreError::Open {
                database: shown(url),
                reason: format!(
                    "it needs the extension pgvector ({reason}): install it on the server, then \
                     let a superuser run CREATE EXTENSION vector in this database"
                ),
            },
            other => other,
        })?;
        Ok("public".into())
    }

    fn prepared(&mut self, sql: &str) -> Result<Statement, StoreError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self
            .client
            .prepare(&numbered(sql))
            .map_err(|e| failure(&e))?;
        if self.statements.len() >= STATEMENTS {
            self.statements.clear();
        }
        self.statements.insert(sql.into(), statement.clone());
        Ok(statement)
    }
}

/// The statement with `$1`, `$2`, … instead of `?`. Statements of this module have no `?` in string
/// literals.
fn numbered(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 16);
    for (n, part) in sql.split('?').enumerate() {
        if n > 0 {
            out.push_str(&format!("${n}"));
        }
        out.push_str(part);
    }
    out
}

fn failure(e: &postgres::Error) -> StoreError {
    let Some(db) = e.as_db_error() else {
        // The server has reported no error: the connection failed, or a value has the wrong type.
        let says = e.to_string();
        let cause = std::error::Error::source(e).map_or(String::new(), |c| format!(": {c}"));
        return if says.contains("serializ") {
            StoreError::Statement(format!("{says}{cause}"))
        } else {
            StoreError::Unavailable(format!("{says}{cause}"))
        };
    };
    let reason = format!("{} ({})", db.message(), db.code().code());
    let transient = ["08", "53", "57", "58"];
    if transient
        .iter()
        .any(|class| db.code().code().starts_with(class))
        || [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            SqlState::READ_ONLY_SQL_TRANSACTION,
        ]
        .contains(db.code())
    {
        StoreError::Unavailable(reason)
    } else {
        StoreError::Statement(reason)
    }
}

/// Most dimensions of a `vector`.
const MAX_DIMENSION: usize = 16_000;

type Boxed = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(v) if *ty == Type::INT4 => i32::try_from(*v)?.to_sql(ty, out),
            Value::Int(v) if *ty == Type::FLOAT8 => (*v as f64).to_sql(ty, out),
            Value::Int(v) => v.to_sql(ty, out),
            Value::Real(v) => v.to_sql(ty, out),
            // PostgreSQL's texts cannot hold the character 0.
            Value::Text(v) if v.contains('\0') => v.replace('\0', "").to_sql(ty, out),
            Value::Text(v) => v.to_sql(ty, out),
            Value::Bytes(v) => v.to_sql(ty, out),
            Value::Vector(v) => {
                if v.len() > MAX_DIMENSION {
                    return Err(format!("an embedding of {} dimensions", v.len()).into());
                }
                // pgvector's binary form: dimension and an unused number of 16 bits, then float32.
                out.extend_from_slice(&(v.len() as u16).to_be_bytes());
                out.extend_from_slice(&[0, 0]);
                v.iter()
                    .for_each(|x| out.extend_from_slice(&x.to_be_bytes()));
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn to_sql_checked(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        let fits = match self {
            Value::Null => true,
            Value::Int(_) => [Type::INT8, Type::INT4, Type::FLOAT8].contains(ty),
            Value::Real(_) => *ty == Type::FLOAT8,
            Value::Text(_) => [Type::TEXT, Type::VARCHAR].contains(ty),
            Value::Bytes(_) => *ty == Type::BYTEA,
            Value::Vector(_) => ty.name() == "vector",
        };
        if fits {
            self.to_sql(ty, out)
        } else {
            Err(format!("{self:?} does not fit the type {ty}").into())
        }
    }
}

impl<'a> FromSql<'a> for Value {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Boxed> {
        Ok(match *ty {
            Type::INT8 => Value::Int(i64::from_sql(ty, raw)?),
            Type::INT4 => Value::Int(i32::from_sql(ty, raw)?.into()),
            Type::FLOAT8 => Value::Real(f64::from_sql(ty, raw)?),
            Type::FLOAT4 => Value::Real(f32::from_sql(ty, raw)?.into()),
            Type::TEXT | Type::VARCHAR | Type::NAME => Value::Text(String::from_sql(ty, raw)?),
            Type::BYTEA => Value::Bytes(raw.to_vec()),
            _ if ty.name() == "vector" => {
                let (numbers, _) = raw.get(4..).unwrap_or_default().as_chunks::<4>();
                Value::Vector(numbers.iter().map(|b| f32::from_be_bytes(*b)).collect())
            }
            _ => return Err(format!("the type {ty} is not expected").into()),
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, Boxed> {
        Ok(Value::Null)
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

impl Database for Postgres {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError> {
        let statement = self.prepared(sql)?;
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|v| v as _).collect();
        let rows = self
            .client
            .query(&statement, &values)
            .map_err(|e| failure(&e))?;
        let cells = |row: &postgres::Row| {
            (0..row.len())
                .map(|c| row.try_get(c))
                .collect::<Result<_, _>>()
                .map(Row)
                .map_err(|e| StoreError::Value(e.to_string()))
        };
        rows.iter().map(cells).collect()
    }

    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, StoreError> {
        let statement = self.prepared(sql)?;
        let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|v| v as _).collect();
        self.client
            .execute(&statement, &values)
            .map_err(|e| failure(&e))
    }

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.client.batch_execute(sql).map_err(|e| failure(&e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_about_an_address_do_not_hold_its_password() {
        let url = Secret::new("postgres://ada:SECRET@db.example:5433/people");
        assert_eq!(shown(&url), "people at db.example");
        for wrong in [
            "postgres://ada:SECRET@h:port/x",
            "mysql://ada:SECRET@h/x",
            "SECRET",
        ] {
            let says = parse(&Secret::new(wrong)).expect_err(wrong);
            assert!(
                !says.contains("SECRET") && says.contains("postgres://"),
                "{says}"
            );
        }
    }

    #[test]
    fn a_connection_that_was_cut_is_noticed_unless_the_address_says_otherwise() {
        let config = |query: &str| {
            let url = format!("postgres://ada@db.example/people{query}");
            parse(&Secret::new(&url)).expect("valid")
        };
        let own = config("");
        assert_eq!(own.get_tcp_user_timeout(), Some(&UNCONFIRMED));
        assert_eq!(own.get_keepalives_idle(), PROBES.0);
        assert_eq!(own.get_keepalives_interval(), Some(PROBES.1));
        let other = config("?tcp_user_timeout=60&keepalives_interval=7&keepalives_idle=9");
        assert_eq!(other.get_tcp_user_timeout(), Some(&Duration::from_secs(60)));
        assert_eq!(other.get_keepalives_idle(), Duration::from_secs(9));
        assert_eq!(
            other.get_keepalives_interval(),
            Some(Duration::from_secs(7))
        );
    }

    #[test]
    fn only_servers_on_this_machine_are_reached_without_tls_unasked() {
        let plain =
            |url: &str, ca: Option<&Path>| is_plain(&parse(&Secret::new(url)).expect("valid"), ca);
        let ca = Path::new("ca.pem");
        for local in [
            "postgres://a@127.0.0.1/x",
            "postgres://a@localhost/x",
            "host=/run/pg",
        ] {
            assert!(plain(local, None), "{local}");
            assert!(!plain(local, Some(ca)), "{local}");
        }
        assert!(!plain("postgres://a@127.0.0.1/x?sslmode=require", None));
        assert!(!plain("postgres://a@10.0.0.9/x", None));
        assert!(!plain("postgres://a@127.0.0.1,db.example/x", None));
        assert!(plain("postgres://a@10.0.0.9/x?sslmode=disable", Some(ca)));
    }

    #[test]
    fn values_are_numbered_in_order() {
        assert_eq!(numbered("a = ? AND b < ?"), "a = $1 AND b < $2");
        assert_eq!(numbered("none"), "none");
    }
}
