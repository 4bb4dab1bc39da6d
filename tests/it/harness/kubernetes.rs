//! Secrets of Kubernetes: of a cluster where `TEST_KUBECONFIG` names one, else of a stand-in that speaks as much of its
//! API as is asked for here.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::stores::{Row, Store, Team, keys_file};
use super::upstream::{Exchange, Upstream};

/// A team a Secret.
pub struct Secrets {
    place: Place,
    folder: TempDir,
    teams: BTreeMap<&'static str, Team>,
    keys: BTreeMap<String, Row>,
}

enum Place {
    /// A namespace of its own in a cluster.
    Cluster {
        kubeconfig: PathBuf,
        namespace: String,
    },
    StandIn(StandIn),
}

impl Secrets {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let place = if let Ok(kubeconfig) = std::env::var("TEST_KUBECONFIG") {
            let namespace = format!("scopegate-test-{:08x}", fastrand::u32(..));
            let place = Place::Cluster { kubeconfig: kubeconfig.into(), namespace };
            place.kubectl(&["create", "namespace", place.namespace()], "");
            place
        } else {
            let said = "not checked: no API server of Kubernetes was used (TEST_KUBECONFIG names none), only a stand-in";
            writeln!(std::io::stderr(), "{said}").expect("standard error");
            let stand_in = StandIn::start();
            fs::write(folder.path().join("kubeconfig"), stand_in.kubeconfig()).expect("a file");
            Place::StandIn(stand_in)
        };
        Self { place, folder, teams: BTreeMap::new(), keys: BTreeMap::new() }
    }

    fn write(&self, team: &str) {
        let teams = self.teams.get(team);
        let keys = self.keys.iter().filter(|(_, row)| row.team == team);
        self.place.apply(&format!("team-{team}"), &keys_file(teams, keys));
    }
}

impl Place {
    fn namespace(&self) -> &str {
        match self {
            Self::Cluster { namespace, .. } => namespace,
            Self::StandIn(_) => StandIn::NAMESPACE,
        }
    }

    fn apply(&self, name: &str, text: &str) {
        match self {
            Self::Cluster { namespace, .. } => {
                let secret = secret(namespace, name, text, None).to_string();
                self.kubectl(&["apply", "-f", "-"], &secret);
            }
            Self::StandIn(api) => api.apply(name, text),
        }
    }

    fn kubectl(&self, words: &[&str], input: &str) {
        let Self::Cluster { kubeconfig, .. } = self else { panic!("no cluster") };
        let mut command = Command::new("kubectl");
        let command = command.arg("--kubeconfig").arg(kubeconfig).args(words);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("kubectl");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("a pipe");
        assert!(child.wait().expect("kubectl").success(), "kubectl {words:?}");
    }
}

impl Store for Secrets {
    fn section(&self) -> String {
        let kubeconfig = match &self.place {
            Place::Cluster { kubeconfig, .. } => kubeconfig.clone(),
            Place::StandIn(_) => self.folder.path().join("kubeconfig"),
        };
        let namespace = self.place.namespace();
        format!("kubernetes: {{ kubeconfig: '{}', namespace: {namespace} }}", kubeconfig.display())
    }

    fn team(&mut self, team: &Team) {
        self.teams.insert(team.name, team.clone());
        self.write(team.name);
    }

    fn key(&mut self, key: &str, row: &Row) {
        let before = self.keys.insert(key.to_owned(), row.clone());
        if let Some(before) = before.filter(|before| before.team != row.team) {
            self.write(before.team);
        }
        self.write(row.team);
    }

    fn remove(&mut self, key: &str) {
        if let Some(row) = self.keys.remove(key) {
            self.write(row.team);
        }
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        if let Place::Cluster { namespace, .. } = &self.place {
            self.place.kubectl(&["delete", "namespace", "--wait=false", namespace], "");
        }
    }
}

fn secret(namespace: &str, name: &str, text: &str, version: Option<u64>) -> Value {
    let mut metadata = json!({ "name": name, "namespace": namespace, "labels": { "scopegate": "keys" } });
    if let Some(version) = version {
        metadata["resourceVersion"] = version.to_string().into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "data": { "keys.yaml": BASE64.encode(text.as_bytes()), "README": BASE64.encode(b"\xff no keys") },
    })
}

/// Lists and watches the Secrets of one namespace, as the API documents it: pages, versions, bookmarks, and 410.
pub struct StandIn {
    upstream: Upstream,
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    version: u64,
    secrets: BTreeMap<String, Value>,
    events: Vec<(u64, Value)>,
    /// What is older has been forgotten.
    history: u64,
    refused: Option<(u16, &'static str)>,
    /// Watches of before are cut.
    cuts: usize,
    lists: usize,
}

impl StandIn {
    pub const NAMESPACE: &str = "team-keys";
    const TOKEN: &str = "a-token-of-a-service-account";
    /// So that every list has pages.
    const PAGE: usize = 2;

    pub fn start() -> Self {
        let shared = Arc::<(Mutex<State>, Condvar)>::default();
        let its = Arc::clone(&shared);
        let upstream = Upstream::with(move |exchange| answer(exchange, &its));
        Self { upstream, shared }
    }

    pub fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: here\ncontexts: [{{ name: here, context: {{ cluster: c, user: u }} }}]\n\
             clusters: [{{ name: c, cluster: {{ server: 'http://{}' }} }}]\nusers: [{{ name: u, user: {{ token: {} }} }}]\n",
            self.upstream.address,
            Self::TOKEN,
        )
    }

    pub fn apply(&self, name: &str, text: &str) {
        self.change(|state| {
            state.version += 1;
            let secret = secret(Self::NAMESPACE, name, text, Some(state.version));
            let before = state.secrets.insert(name.to_owned(), secret.clone());
            let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
            state.events.push((state.version, json!({ "type": kind, "object": secret })));
        });
    }

    pub fn delete(&self, name: &str) {
        self.change(|state| {
            state.version += 1;
            let mut secret = state.secrets.remove(name).expect("it is there");
            secret["metadata"]["resourceVersion"] = state.version.to_string().into();
            state.events.push((state.version, json!({ "type": "DELETED", "object": secret })));
        });
    }

    /// From now on everything is refused so, or again nothing; watches are cut.
    pub fn refuse(&self, refused: Option<(u16, &'static str)>) {
        self.change(|state| {
            state.refused = refused;
            state.cuts += 1;
        });
    }

    /// Cuts the watches.
    pub fn cut(&self) {
        self.change(|state| state.cuts += 1);
    }

    /// What has happened so far cannot be watched from any more, and was not told.
    pub fn forget(&self) {
        self.change(|state| {
            state.version += 10;
            state.history = state.version;
            state.events.clear();
            state.cuts += 1;
        });
    }

    pub fn lists(&self) -> usize {
        self.shared.0.lock().expect("no panic").lists
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.0.lock().expect("no panic"));
        self.shared.1.notify_all();
    }
}

fn answer(exchange: &mut Exchange<'_>, shared: &(Mutex<State>, Condvar)) -> bool {
    let target = exchange.request.target.replace("%3D", "=");
    let query = |name: &str| {
        let pairs = target.split_once('?').map(|(_, query)| query.split('&')).into_iter().flatten();
        pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let bearer = format!("Bearer {}", StandIn::TOKEN);
    let path = format!("/api/v1/namespaces/{}/secrets?", StandIn::NAMESPACE);
    let is_good = target.starts_with(&path)
        && exchange.request.header("authorization") == Some(&bearer)
        && query("labelSelector") == Some("scopegate=keys");
    let refused = shared.0.lock().expect("no panic").refused.or((!is_good).then_some((400, "BadRequest")));
    if let Some((code, reason)) = refused {
        let body = failure(code, reason).to_string();
        return exchange.reply(&format!("{code} {reason}"), "Content-Type: application/json\r\n", &body);
    }
    if query("watch") == Some("true") {
        let from = query("resourceVersion").and_then(|text| text.parse().ok()).expect("a version");
        let seconds = query("timeoutSeconds").and_then(|text| text.parse().ok()).expect("a time");
        assert_eq!(query("allowWatchBookmarks"), Some("true"));
        return watch(exchange, shared, from, Duration::from_secs(seconds));
    }
    let from = query("continue").map_or(0, |text| text.parse().expect("a token of ours"));
    let body = list(&mut shared.0.lock().expect("no panic"), from).to_string();
    exchange.reply("200 OK", "Content-Type: application/json\r\n", &body)
}

fn failure(code: u16, reason: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": format!("secrets: {reason}"), "reason": reason, "code": code,
    })
}

fn list(state: &mut State, from: usize) -> Value {
    state.lists += 1;
    let items: Vec<_> = state.secrets.values().skip(from).take(StandIn::PAGE).collect();
    let next = from + items.len();
    let more = if next < state.secrets.len() { next.to_string() } else { String::new() };
    let metadata = json!({ "resourceVersion": state.version.to_string(), "continue": more });
    json!({ "apiVersion": "v1", "kind": "SecretList", "metadata": metadata, "items": items })
}

fn watch(
    exchange: &mut Exchange<'_>,
    shared: &(Mutex<State>, Condvar),
    mut seen: u64,
    most: Duration,
) -> bool {
    let (state, changed) = shared;
    let end = Instant::now() + most;
    exchange.write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut say = |event: &Value| {
        let line = format!("{event}\n");
        exchange.stream.get_mut().write_all(format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).is_ok()
    };
    let mut state = state.lock().expect("no panic");
    let cuts = state.cuts;
    if seen < state.history {
        say(&json!({ "type": "ERROR", "object": failure(410, "Expired") }));
        return false;
    }
    while state.cuts == cuts && Instant::now() < end {
        let from = seen;
        for (version, event) in state.events.iter().filter(|(version, _)| *version > from) {
            if !say(event) {
                return false;
            }
            seen = *version;
        }
        let wait = changed.wait_timeout(state, Duration::from_millis(200)).expect("no panic");
        state = wait.0;
        let version = json!({ "resourceVersion": seen.to_string(), "creationTimestamp": null });
        let bookmark = json!({ "kind": "Secret", "apiVersion": "v1", "metadata": version });
        if wait.1.timed_out() && !say(&json!({ "type": "BOOKMARK", "object": bookmark })) {
            return false;
        }
    }
    drop(state);
    let _ = exchange.stream.get_mut().write_all(b"0\r\n\r\n");
    false
}
