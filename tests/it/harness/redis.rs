//! A Redis server of a test's own.

use std::process::{Child, Command, Stdio};

use redis::{Client, Commands as _, Connection};
use scopegate::identity::key::Digest;
use tempfile::TempDir;

use super::stores::{Row, Store, Team};
use super::{eventually, free_port, installed};

/// A server on a port of its own, which keeps nothing.
pub struct Redis {
    port: u16,
    folder: TempDir,
    process: Option<Child>,
    connection: Option<Connection>,
}

impl Redis {
    /// `None` where it is not installed.
    pub fn start() -> Option<Self> {
        installed("redis-server").then(|| {
            let folder = tempfile::tempdir().expect("a folder");
            let mut redis = Self { port: free_port(), folder, process: None, connection: None };
            redis.resume();
            redis
        })
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.connection = None;
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a process");
            process.wait().expect("its end");
        }
    }

    /// Starts it again, on the same port, with what it had when it was saved.
    pub fn resume(&mut self) {
        let command = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(self.folder.path())
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .stdout(Stdio::null())
            .spawn();
        self.process = Some(command.expect("redis-server"));
        let client = Client::open(format!("redis://127.0.0.1:{}", self.port)).expect("an address");
        self.connection = Some(eventually("redis-server", || {
            let mut connection = client.get_connection().ok()?;
            redis::cmd("PING").query::<String>(&mut connection).ok()?;
            Some(connection)
        }));
    }

    pub fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("it runs")
    }

    /// It takes what is sent, and answers nothing until it may go on.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    pub fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args(["-s", name, &process]).status();
        assert!(status.expect("kill").success());
    }

    pub fn publish(&mut self, news: &str) {
        self.connection().publish::<_, _, i64>("scopegate:changes", news).expect("redis-server");
    }
}

impl Store for Redis {
    fn section(&self) -> String {
        format!("redis: {{ url: 'redis://127.0.0.1:{}' }}", self.port)
    }

    fn team(&mut self, team: &Team) {
        let name = format!("scopegate:team:{}", team.name);
        let fields = [
            ("scopes", team.scopes.to_owned()),
            ("enabled", team.enabled.to_string()),
            ("deleted", team.deleted.to_string()),
        ];
        self.connection().hset_multiple::<_, _, _, ()>(name, &fields).expect("redis-server");
        self.publish(&format!("team {}", team.name));
    }

    fn key(&mut self, key: &str, row: &Row) {
        let hex = Digest::of(key.as_bytes()).hex();
        let name = format!("scopegate:key:{hex}");
        let mut fields = vec![
            ("id", row.id.to_owned()),
            ("team", row.team.to_owned()),
            ("scopes", row.scopes.to_owned()),
            ("disabled", row.disabled.to_string()),
        ];
        fields.extend(row.expires.map(|time| ("expires", time.to_owned())));
        let connection = self.connection();
        connection.del::<_, ()>(&name).expect("redis-server");
        connection.hset_multiple::<_, _, _, ()>(&name, &fields).expect("redis-server");
        self.publish(&format!("key {hex}"));
    }

    fn remove(&mut self, key: &str) {
        let hex = Digest::of(key.as_bytes()).hex();
        self.connection().del::<_, ()>(format!("scopegate:key:{hex}")).expect("redis-server");
        self.publish(&format!("key {hex}"));
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
