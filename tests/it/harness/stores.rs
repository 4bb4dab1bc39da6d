//! Where keys live, as a test changes them there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tempfile::TempDir;

use super::introspection::Introspection;
use super::postgres::Postgres;
use super::redis::Redis;
use super::scopegate::row;

/// A key that may be used, until a test says otherwise.
#[derive(Clone)]
pub struct Row {
    pub id: &'static str,
    pub team: &'static str,
    /// With spaces between.
    pub scopes: &'static str,
    pub disabled: bool,
    pub expires: Option<&'static str>,
}

/// A team.
#[derive(Clone)]
pub struct Team {
    pub name: &'static str,
    pub scopes: &'static str,
    pub enabled: bool,
    pub deleted: bool,
}

impl Default for Row {
    fn default() -> Self {
        Self { id: "id-a", team: "acme", scopes: "READ_TEAM_APPS", disabled: false, expires: None }
    }
}

impl Default for Team {
    fn default() -> Self {
        let scopes = "CREATE_CALL_TOKEN READ_CALL_TOKEN READ_TEAM_APPS";
        Self { name: "acme", scopes, enabled: true, deleted: false }
    }
}

/// Where keys live. A change is told as its users would tell it.
pub trait Store {
    /// What stands in `keys:`.
    fn section(&self) -> String;
    /// Who may change keys there, where that is somebody else.
    fn role(&self) -> Option<&'static str> {
        None
    }
    fn team(&mut self, team: &Team);
    fn key(&mut self, key: &str, row: &Row);
    fn remove(&mut self, key: &str);
}

/// One of each that is installed.
pub fn stores() -> Vec<(&'static str, Box<dyn Store>)> {
    let mut stores: Vec<(_, Box<dyn Store>)> = vec![("file", Box::new(File::default()))];
    if let Some(redis) = Redis::start() {
        stores.push(("redis", Box::new(redis)));
    }
    if let Some(postgres) = Postgres::start() {
        stores.push(("postgres", Box::new(postgres)));
    }
    stores.push(("http", Box::new(Introspection::start())));
    #[cfg(feature = "kubernetes")]
    stores.push(("kubernetes", Box::new(super::kubernetes::Secrets::start())));
    stores
}

/// Those that `scopegate keys` changes.
pub fn writable() -> Vec<(&'static str, Box<dyn Store>)> {
    stores().into_iter().filter(|(name, _)| !matches!(*name, "http" | "kubernetes")).collect()
}

/// A keys file.
pub struct File {
    folder: TempDir,
    teams: BTreeMap<&'static str, Team>,
    keys: BTreeMap<String, Row>,
}

impl Default for File {
    fn default() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = Self { folder, teams: BTreeMap::new(), keys: BTreeMap::new() };
        file.write();
        file
    }
}

impl File {
    fn path(&self) -> PathBuf {
        self.folder.path().join("store.yaml")
    }

    fn write(&self) {
        let text = keys_file(self.teams.values(), &self.keys);
        let new = self.folder.path().join("new.yaml");
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(new, self.path()).expect("a rename");
    }
}

/// The text of a keys file.
pub fn keys_file<'a>(
    teams: impl IntoIterator<Item = &'a Team>,
    keys: impl IntoIterator<Item = (&'a String, &'a Row)>,
) -> String {
    let mut text = String::new();
    for Team { name, scopes, enabled, deleted } in teams {
        let scopes = scopes.replace(' ', ", ");
        text += &format!("  {name}: {{ scopes: [{scopes}], enabled: {enabled}, deleted: {deleted} }}\n");
    }
    text = if text.is_empty() { "teams: {}\n".to_owned() } else { format!("teams:\n{text}") };
    text += "keys:\n";
    for (key, Row { id, team, scopes, disabled, expires }) in keys {
        let expires = expires.map_or_else(String::new, |time| format!(", expires: '{time}'"));
        let more = format!(", name: {id}, disabled: {disabled}{expires}");
        let named = row(key, team, &scopes.replace(' ', ", "), &more);
        text +=
            &named.replace(&format!("id: id-{}", key.trim_start_matches("sk_live_")), &format!("id: {id}"));
    }
    text
}

impl Store for File {
    fn section(&self) -> String {
        format!("file: {}", self.path().display())
    }

    fn team(&mut self, team: &Team) {
        self.teams.insert(team.name, team.clone());
        self.write();
    }

    fn key(&mut self, key: &str, row: &Row) {
        self.keys.insert(key.to_owned(), row.clone());
        self.write();
    }

    fn remove(&mut self, key: &str) {
        self.keys.remove(key);
        self.write();
    }
}
