//! What processes say of who still uses keys that others have replaced.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

/// An admin listener is on this machine, or at the end of a port-forward.
const PATIENCE: Duration = Duration::from_secs(5);
/// All that a process remembers has some 2 MB.
const LONGEST: u64 = 16 << 20;

/// What these processes have seen.
pub(super) struct Used {
    /// Since when all of them have watched.
    pub(super) watched_since: SystemTime,
    /// By team and id of the key: when the key before was used last, and how often.
    keys: HashMap<(String, String), (SystemTime, u64)>,
}

#[derive(Deserialize)]
struct Page {
    watched_since: String,
    keys: Vec<Line>,
}

#[derive(Deserialize)]
struct Line {
    team: String,
    key: String,
    last_used: String,
    requests: u64,
}

impl Used {
    /// Asks each of these admin listeners, `http://host:port`.
    pub(super) fn ask(admins: &[String]) -> anyhow::Result<Option<Self>> {
        let mut all: Option<Self> = None;
        for admin in admins {
            let page = page(admin).with_context(|| format!("{admin} does not say who uses old keys"))?;
            let since = humantime::parse_rfc3339(&page.watched_since)?;
            let used = all.get_or_insert_with(|| Self { watched_since: since, keys: HashMap::new() });
            used.watched_since = used.watched_since.max(since);
            for Line { team, key, last_used, requests } in page.keys {
                let at = humantime::parse_rfc3339(&last_used)?;
                let (last, count) = used.keys.entry((team, key)).or_insert((at, 0));
                *last = at.max(*last);
                *count += requests;
            }
        }
        Ok(all)
    }

    /// When the key that this one has replaced was used last, and how often; nothing where that was before it was replaced.
    pub(super) fn of(
        &self,
        team: &str,
        key: &str,
        replaced: Option<SystemTime>,
    ) -> Option<(SystemTime, u64)> {
        let used = self.keys.get(&(team.to_owned(), key.to_owned()))?;
        (replaced.is_none_or(|replaced| used.0 >= replaced)).then_some(*used)
    }
}

fn page(admin: &str) -> anyhow::Result<Page> {
    let authority = admin.trim_start_matches("http://").trim_end_matches('/');
    let address = authority.to_socket_addrs().context("write http://host:port")?.next();
    let mut stream = TcpStream::connect_timeout(&address.context("it has no address")?, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /keys/previous HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer)?;
    let answer = String::from_utf8(answer).context("its answer is no text")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("it does not speak HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(head.starts_with("HTTP/1."), "it does not speak HTTP");
    if status != "200" {
        bail!("status {status}: {}", body.lines().next().unwrap_or_default());
    }
    serde_json::from_str(body).context("its answer cannot be read")
}
