//! The real program, on a configuration of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use scopegate::identity::key::Digest;
use serde_json::Value;
use tempfile::TempDir;

use super::client::{Answer, Client, get, request};
use super::upstream::Upstream;
use super::{bearer, eventually};

/// A key with every scope, and one for each.
pub const ALL: &str = "sk_live_all";
pub const MINT: &str = "sk_live_mint";
pub const READ: &str = "sk_live_read";
pub const APPS: &str = "sk_live_apps";
/// No scope; a team that may only read; ended; turned off; a team turned off; a team deleted.
pub const NONE: &str = "sk_live_none";
pub const POOR_TEAM: &str = "sk_live_poor_team";
pub const EXPIRED: &str = "sk_live_expired";
pub const DISABLED: &str = "sk_live_disabled";
pub const OFF_TEAM: &str = "sk_live_off_team";
pub const GONE_TEAM: &str = "sk_live_gone_team";

const CONFIG: &str = "\
listen: [{ address: 127.0.0.1:0 }]
admin: { address: 127.0.0.1:0 }
workers: 1
upstreams: { telapi: { address: TELAPI }, webhooks: { address: WEBHOOKS } }
flags: { webrtc: true, apiAccess: true }
scopes: [CREATE_CALL_TOKEN, READ_CALL_TOKEN, READ_TEAM_APPS]
keys: { file: keys.yaml }
drain: { delay: 100ms, grace: 5s }
surfaces:
  health: { access: open, routes: [GET /health] }
  webhooks: { access: open, upstream: webhooks, private: true, encoded_slash: true, routes: [/api/v1/webhooks/**] }
  channel:
    access: open
    flags: [webrtc]
    upgrade: websocket
    routes: ['GET /ws/session?sessionId&token']
  sdk:
    access: key
    flags: [webrtc, apiAccess]
    routes:
      POST /api/v1/call-tokens: CREATE_CALL_TOKEN
      GET /api/v1/call-tokens/{id}: READ_CALL_TOKEN
      GET /api/v1/apps/**: READ_TEAM_APPS
      POST /api/v1/sessions/token: { scope: CREATE_CALL_TOKEN, errors: text }
      GET /api/v1/runtime/capabilities: { any: [CREATE_CALL_TOKEN, READ_TEAM_APPS] }
      GET /api/v1/both: { all: [CREATE_CALL_TOKEN, READ_TEAM_APPS] }
      GET /api/v1/whoami: { key_only: true }
      PUT /api/v1/whoami: { key_only: true }
";

/// A configuration that is about to be started.
pub struct Setup {
    pub config: String,
    pub keys: String,
}

/// A program that runs.
pub struct Scopegate {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub folder: TempDir,
    child: Child,
    out: Lines,
    err: Lines,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Setup {
    /// In front of one upstream for everything.
    pub fn new(upstream: &Upstream) -> Self {
        Self::at(&upstream.address.to_string(), &upstream.address.to_string())
    }

    /// In front of these addresses.
    pub fn at(telapi: &str, webhooks: &str) -> Self {
        let config = CONFIG.replace("TELAPI", telapi).replace("WEBHOOKS", webhooks);
        Self { config, keys: keys() }
    }

    /// With another text in the configuration.
    pub fn with(mut self, from: &str, to: &str) -> Self {
        assert!(self.config.contains(from), "the configuration has no {from}");
        self.config = self.config.replace(from, to);
        self
    }

    /// With a section more.
    pub fn and(mut self, section: &str) -> Self {
        self.config = format!("{section}\n{}", self.config);
        self
    }

    pub fn start(self) -> Scopegate {
        Scopegate::start(self.write())
    }

    /// The files alone, `scopegate.yaml` and the keys.
    pub fn write(self) -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("keys.yaml"), &self.keys).expect("a file");
        fs::write(folder.path().join("scopegate.yaml"), &self.config).expect("a file");
        folder
    }
}

/// The keys file of every test.
pub fn keys() -> String {
    let mut text = "teams:\n  acme: { scopes: [CREATE_CALL_TOKEN, READ_CALL_TOKEN, READ_TEAM_APPS] }\n  poor: { scopes: [READ_CALL_TOKEN] }\n  \
                    off: { scopes: [READ_TEAM_APPS], enabled: false }\n  gone: { scopes: [READ_TEAM_APPS], deleted: true }\nkeys:\n"
        .to_owned();
    let all = "CREATE_CALL_TOKEN, READ_CALL_TOKEN, READ_TEAM_APPS";
    for (key, team, scopes, more) in [
        (ALL, "acme", all, ""),
        (MINT, "acme", "CREATE_CALL_TOKEN", ""),
        (READ, "acme", "READ_CALL_TOKEN", ""),
        (APPS, "acme", "READ_TEAM_APPS", ""),
        (NONE, "acme", "", ""),
        (POOR_TEAM, "poor", all, ""),
        (EXPIRED, "acme", all, ", expires: 2020-01-01"),
        (DISABLED, "acme", all, ", disabled: true"),
        (OFF_TEAM, "off", all, ""),
        (GONE_TEAM, "gone", all, ""),
    ] {
        text += &row(key, team, scopes, more);
    }
    text
}

/// A row of the keys file; the id is the key without its prefix.
pub fn row(key: &str, team: &str, scopes: &str, more: &str) -> String {
    let (id, digest) = (key.trim_start_matches("sk_live_"), Digest::of(key.as_bytes()));
    format!("  - {{ id: id-{id}, team: {team}, digest: '{digest}', scopes: [{scopes}]{more} }}\n")
}

/// What a request with this key is told: a status, and why where it was refused.
pub fn told(scopegate: &Scopegate, key: &str) -> (u16, String) {
    let answer = get(scopegate.address, "/api/v1/apps", &bearer(key));
    (answer.status, answer.reason().to_owned())
}

impl Scopegate {
    /// On the files of a folder.
    pub fn start(folder: TempDir) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_scopegate"))
            .args(["serve", "--config"])
            .arg(folder.path().join("scopegate.yaml"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let (out, err) = (Lines::default(), Lines::default());
        out.follow(child.stdout.take().expect("a pipe"));
        err.follow(child.stderr.take().expect("a pipe"));
        let mut listening = |door: &str| {
            eventually("the program to listen", || {
                let event = err.json(|event| event["message"] == "listening" && event["door"] == door);
                let ended = child.try_wait().expect("a child");
                assert!(event.is_some() || ended.is_none(), "{ended:?}: {:?}", err.all());
                event?["address"].as_str()?.parse().ok()
            })
        };
        let (address, admin) = (listening("gateway"), listening("admin"));
        Self { address, admin, folder, child, out, err }
    }

    /// A file of its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts another text in place of a file, as a careful editor does.
    pub fn replace(&self, name: &str, text: &str) {
        let new = self.file(&format!(".{name}.new"));
        fs::write(&new, text).expect("a file");
        fs::rename(&new, self.file(name)).expect("a rename");
    }

    /// Edits a file.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.file(name)).expect("a file");
        assert!(text.contains(from), "{name} has no {from}");
        self.replace(name, &text.replace(from, to));
    }

    /// An answer of the admin listener.
    pub fn ask_admin(&self, path: &str) -> Answer {
        self.tell_admin("GET", path, "", "")
    }

    /// A request to the admin listener, as curl on this machine sends it.
    pub fn tell_admin(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let request = request(method, path, headers, body).replace("telapi.example", "localhost:9901");
        Client::connect(self.admin).ask(request)
    }

    /// Waits until it is.
    pub fn ready(&self) {
        eventually("readiness", || (self.ask_admin("/readyz").status == 200).then_some(()));
    }

    /// The value of a metric, its labels written as Prometheus does; 0 where it is not there.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.ask_admin("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Bytes of memory that it had at the most, as the system says.
    pub fn peak_memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
    }

    /// The access line that this is true of, once it has been written.
    pub fn log_line(&self, is: impl Fn(&Value) -> bool) -> Value {
        eventually("a line of the access log", || self.out.json(&is))
    }

    /// The event that this is true of, once it has been written.
    pub fn event(&self, is: impl Fn(&Value) -> bool) -> Value {
        eventually("an event", || self.err.json(&is))
    }

    /// Everything that has been written so far.
    pub fn everything_said(&self) -> String {
        let (mut all, err) = (self.out.all(), self.err.all());
        all.extend(err);
        all.join("\n")
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    pub fn wait_exit(&mut self) -> ExitStatus {
        eventually("the program to end", || self.child.try_wait().expect("a child"))
    }
}

impl Drop for Scopegate {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lines {
    fn follow(&self, from: impl Read + Send + 'static) {
        let lines = Arc::clone(&self.0);
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                lines.lock().expect("no panic").push(line);
            }
        });
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }

    fn json(&self, is: impl Fn(&Value) -> bool) -> Option<Value> {
        let lines = self.0.lock().expect("no panic");
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).find(|value| is(value))
    }
}
