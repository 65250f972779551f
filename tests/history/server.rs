//! A PostgreSQL server of its own for a test.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::free_port;

/// Folders of PostgreSQL's programs.
const PROGRAMS: [&str; 3] = [
    "/usr/lib/postgresql/15/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/17/bin",
];

/// A running server, which is stopped when this value is dropped.
pub struct Server {
    programs: PathBuf,
    folder: tempfile::TempDir,
    port: u16,
}

/// Whether the tests run as root, whom PostgreSQL refuses.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

impl Server {
    /// Starts a server in a temporary folder, listening on the loopback only. None, with a message,
    /// if PostgreSQL or pgvector is not installed.
    pub fn start() -> Option<Server> {
        let programs = PROGRAMS.iter().map(PathBuf::from).find(|p| {
            let share = p.parent().and_then(Path::file_name).unwrap_or_default();
            let control = Path::new("/usr/share/postgresql").join(share);
            p.join("initdb").exists() && control.join("extension/vector.control").exists()
        });
        let Some(programs) = programs else {
            eprintln!(
                "SKIPPED on PostgreSQL: it needs the packages postgresql and \
                 postgresql-15-pgvector (`make setup-test`)"
            );
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // The user `postgres` must reach the folder.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let server = Server {
            programs,
            folder,
            port: free_port(),
        };
        let data = server.data();
        let initdb = [
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--no-sync",
            "-D",
        ];
        server.run("initdb", &initdb, Some(&data));
        // A certificate for the loopback address, which is its own authority.
        let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
                       -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
                       -addext basicConstraints=critical,CA:FALSE";
        let mut request: Vec<&str> = request.split_whitespace().collect();
        let (key, certificate) = (data.join("server.key"), server.certificate());
        let (key, certificate) = (key.to_str().unwrap(), certificate.to_str().unwrap());
        request.extend(["-keyout", key, "-out", certificate]);
        server.run("/usr/bin/openssl", &request, None);
        server.begin();
        Some(server)
    }

    /// The server's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.data().join("server.crt")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Runs one of PostgreSQL's programs as the user `postgres`.
    fn run(&self, program: &str, arguments: &[&str], last: Option<&Path>) {
        let path = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
            command.arg(path);
            command
        } else {
            Command::new(path)
        };
        command.args(arguments).args(last).current_dir("/");
        // The server inherits the streams, so that pipes would never end.
        let log = self.folder.path().join("log");
        let out = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&log)
            .unwrap();
        let status = command
            .stdin(Stdio::null())
            .stderr(out.try_clone().unwrap())
            .stdout(out)
            .status()
            .unwrap();
        let says = std::fs::read_to_string(&log).unwrap_or_default();
        assert!(status.success(), "{command:?}: {status}\n{says}");
    }

    /// Starts the server.
    pub fn begin(&self) {
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={} -c unix_socket_directories='' \
             -c max_connections=50 -c ssl=on",
            self.port
        );
        self.run(
            "pg_ctl",
            &["start", "-w", "-o", &options, "-D"],
            Some(&self.data()),
        );
    }

    /// Stops the server at once, without a clean shutdown, as a power failure would.
    pub fn stop(&self) {
        self.run(
            "pg_ctl",
            &["stop", "-m", "immediate", "-D"],
            Some(&self.data()),
        );
    }

    /// The address of a new database.
    pub fn database(&self, name: &str) -> String {
        let at = format!("postgres://postgres@127.0.0.1:{}", self.port);
        let mut client =
            postgres::Client::connect(&format!("{at}/postgres"), postgres::NoTls).unwrap();
        client
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .unwrap();
        format!("{at}/{name}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
