//! A PostgreSQL server of a test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use scopegate::identity::key::Digest;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_postgres::{Client, Config, NoTls};

use super::stores::{Row, Store, Team};
use super::{eventually, found, free_port};

const SCHEMA: &str = include_str!("../../../deploy/postgres/schema.sql");
/// Of the roles that the program and its commands have, which may do no more than the schema's page says.
const PASSWORD: &str = "open sesame";
const ROLE: &str = "CREATE ROLE gate LOGIN PASSWORD 'open sesame';
    GRANT USAGE ON SCHEMA scopegate TO gate;
    GRANT EXECUTE ON FUNCTION scopegate.find(bytea) TO gate;
    CREATE ROLE keymaster LOGIN PASSWORD 'open sesame';
    GRANT USAGE ON SCHEMA scopegate TO keymaster;
    GRANT SELECT ON scopegate.teams, scopegate.keys TO keymaster;
    GRANT INSERT, UPDATE ON scopegate.keys TO keymaster;";

/// A server on a port and in a folder of its own, with the schema that is shipped.
pub struct Postgres {
    port: u16,
    folder: TempDir,
    process: Option<Child>,
    runtime: Runtime,
    client: Option<Client>,
}

impl Postgres {
    /// `None` where it is not installed.
    pub fn start() -> Option<Self> {
        let template = template()?;
        let folder = tempfile::tempdir().expect("a folder");
        run(Command::new("cp").arg("-a").arg(template).arg(folder.path().join("data")));
        fs::write(folder.path().join("password"), format!("{PASSWORD}\n")).expect("a file");
        give(folder.path());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut postgres = Self { port: free_port(), folder, process: None, runtime, client: None };
        postgres.resume();
        postgres.run(SCHEMA);
        postgres.run(ROLE);
        Some(postgres)
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.client = None;
        if let Some(mut process) = self.process.take() {
            // Its children with it: they would hold what the next one needs. It may have ended already.
            for signal in ["-QUIT", "-CONT"] {
                let _ = Command::new("kill").args([signal, &process.id().to_string()]).output();
            }
            process.wait().expect("its end");
        }
    }

    /// Starts it again, on the same port, with what it had.
    pub fn resume(&mut self) {
        self.resume_with(&[]);
    }

    /// The same with other settings.
    pub fn resume_with(&mut self, settings: &[&str]) {
        let mut command = as_owner(&program("postgres").expect("it is installed"));
        command.arg("-D").arg(self.folder.path().join("data")).arg("-k").arg(self.folder.path());
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-c", "shared_buffers=1MB"]);
        // The system outlives it.
        command.args(["-c", "max_connections=20", "-c", "fsync=off", "-c", "autovacuum=off"]);
        command.args(settings.iter().flat_map(|setting| ["-c", setting]));
        let log = fs::File::create(self.folder.path().join("log")).expect("a file");
        self.process = Some(command.stdout(Stdio::null()).stderr(log).spawn().expect("a server"));
        let mut config = Config::new();
        config.host_path(self.folder.path()).port(self.port).user("postgres").dbname("postgres");
        self.client = Some(eventually("a server", || {
            self.runtime.block_on(async {
                let (client, connection) = config.connect(NoTls).await.ok()?;
                tokio::spawn(connection);
                Some(client)
            })
        }));
    }

    /// Sends all of it a signal: `STOP` makes it a server that hangs.
    pub fn signal(&self, name: &str) {
        let main = self.process.as_ref().expect("it runs").id().to_string();
        let children = Command::new("pgrep").args(["-P", &main]).output().expect("pgrep").stdout;
        let children = String::from_utf8_lossy(&children).into_owned();
        run(Command::new("kill").arg(format!("-{name}")).arg(&main).args(children.split_whitespace()));
    }

    /// Runs statements as the one who may do anything.
    pub fn run(&mut self, statements: &str) {
        let client = self.client.as_ref().expect("it runs");
        self.runtime.block_on(client.batch_execute(statements)).expect(statements);
    }

    /// The first column of the one row that a query gives.
    pub fn number(&mut self, query: &str) -> i64 {
        let client = self.client.as_ref().expect("it runs");
        self.runtime.block_on(client.query_one(query, &[])).expect(query).get(0)
    }

    /// A file beside its data.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Files that a test has put beside its data, to who runs it.
    pub fn give(&self) {
        give(self.folder.path());
    }

    /// What stands in `keys:`, with more fields.
    pub fn section_with(&self, more: &str) -> String {
        let (port, password) = (self.port, self.file("password"));
        let url = format!("postgres://gate@127.0.0.1:{port}/postgres");
        format!("postgres: {{ url: '{url}', password_file: '{}'{more} }}", password.display())
    }
}

impl Store for Postgres {
    fn section(&self) -> String {
        self.section_with("")
    }

    fn role(&self) -> Option<&'static str> {
        Some("keymaster")
    }

    fn team(&mut self, Team { name, scopes, enabled, deleted }: &Team) {
        let scopes = scopes.replace(' ', ",");
        self.run(&format!(
            "INSERT INTO scopegate.teams (name, scopes, enabled, deleted)
                VALUES ('{name}', '{{{scopes}}}', {enabled}, {deleted})
            ON CONFLICT (name) DO UPDATE SET (scopes, enabled, deleted) =
                (excluded.scopes, excluded.enabled, excluded.deleted)"
        ));
    }

    fn key(&mut self, key: &str, Row { id, team, scopes, disabled, expires }: &Row) {
        let (hex, scopes) = (Digest::of(key.as_bytes()).hex(), scopes.replace(' ', ","));
        let expires = expires.map_or_else(|| "NULL".to_owned(), |time| format!("'{time}'"));
        self.run(&format!(
            "INSERT INTO scopegate.teams (name) VALUES ('{team}') ON CONFLICT DO NOTHING;
            INSERT INTO scopegate.keys (id, team, digest, scopes, disabled, expires)
                VALUES ('{id}', '{team}', '\\x{hex}', '{{{scopes}}}', {disabled}, {expires})
            ON CONFLICT (id) DO UPDATE SET (team, digest, scopes, disabled, expires) =
                (excluded.team, excluded.digest, excluded.scopes, excluded.disabled, excluded.expires)"
        ));
    }

    fn remove(&mut self, key: &str) {
        let hex = Digest::of(key.as_bytes()).hex();
        self.run(&format!("DELETE FROM scopegate.keys WHERE digest = '\\x{hex}'"));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A cluster that was never started. It is made once, kept in cargo's folder, and copied for each test.
fn template() -> Option<&'static Path> {
    static TEMPLATE: OnceLock<Option<PathBuf>> = OnceLock::new();
    TEMPLATE.get_or_init(make_template).as_deref()
}

fn make_template() -> Option<PathBuf> {
    let initdb = program("initdb");
    if !found("PostgreSQL", initdb.is_some()) {
        return None;
    }
    let initdb = initdb?;
    let version = Command::new(&initdb).arg("--version").output().expect("initdb").stdout;
    let version = String::from_utf8_lossy(&version).replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("{version}{}", rustix::process::geteuid().as_raw()));
    if !kept.exists() {
        let folder = tempfile::tempdir().expect("a folder");
        give(folder.path());
        let data = folder.path().join("data");
        let mut command = as_owner(&initdb);
        command.args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"]);
        command.args(["--encoding=UTF8", "--locale=C", "--wal-segsize=1", "--no-sync"]);
        // Nobody comes from elsewhere as the one who may do anything.
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).expect("a file");
        command.arg("--pwfile").arg(&password).arg("-D").arg(&data).stdout(Stdio::null());
        give(folder.path());
        run(&mut command);
        let mine = kept.with_extension(std::process::id().to_string());
        run(Command::new("cp").arg("-a").arg(&data).arg(&mine));
        if fs::rename(&mine, &kept).is_err() {
            // Another process was faster.
            fs::remove_dir_all(&mine).expect("a folder");
        }
    }
    Some(kept)
}

/// Debian keeps its programs beside the path.
fn program(name: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut there: Vec<_> =
        versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).collect();
    there.sort();
    let on_path = || Command::new(name).arg("--version").output().ok().map(|_| PathBuf::from(name));
    there.pop().or_else(on_path)
}

/// PostgreSQL does not run as root.
fn owner() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let known = |name| Command::new("id").arg(name).output().is_ok_and(|output| output.status.success());
    Some(if known("postgres") { "postgres" } else { "nobody" })
}

fn as_owner(program: &Path) -> Command {
    let Some(owner) = owner() else { return Command::new(program) };
    let group = Command::new("id").args(["-g", owner]).output().expect("id").stdout;
    let group = String::from_utf8_lossy(&group).trim().to_owned();
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={owner}"), &format!("--regid={group}"), "--clear-groups"]).arg(program);
    // Where it is started may be closed to it.
    command.current_dir("/");
    command
}

/// All of a folder to who will run the server.
fn give(folder: &Path) {
    if let Some(owner) = owner() {
        run(Command::new("chown").args(["-R", owner]).arg(folder));
    }
}

fn run(command: &mut Command) {
    let output = command.stdout(Stdio::null()).output().expect("a program");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
