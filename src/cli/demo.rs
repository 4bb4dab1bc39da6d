//! `scopegate demo`: everything that it takes to see a sidecar decide, in one process.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use data_encoding::BASE64URL_NOPAD;
use tokio::signal::unix::{SignalKind, signal};

use super::stand_in::StandIn;
use crate::app::{App, Bound};
use crate::config::listen::Events;
use crate::identity::key::Digest;
use crate::observe::events;
use crate::reload::Files;

/// What `serve` would be given in front of TelAPI.
const CONFIG: &str = include_str!("../../config/telapi.yaml");

/// A key for each scope that TelAPI has.
struct DemoKeys {
    mint: String,
    read: String,
    apps: String,
}

/// Starts the service, its webhooks and scopegate on free loopback ports, and says what to try.
pub(super) fn run() -> anyhow::Result<ExitCode> {
    let _events = events::init(Events::Text);
    let stand_in = StandIn::start().context("the stand-in for TelAPI cannot start")?;
    let folder = tempfile::Builder::new().prefix("scopegate-demo-").tempdir()?.keep();
    let keys = DemoKeys::new()?;
    let config = folder.join("scopegate.yaml");
    std::fs::write(folder.join("keys.yaml"), keys.file())?;
    std::fs::write(&config, configuration(&stand_in)?)?;
    let files = Files::load(&config)?.value;
    let app = App::bind(files)?;
    let welcome = welcome(app.bound(), &stand_in, &folder, &keys)?;
    app.run(|| {
        let mut interrupt = signal(SignalKind::interrupt())?;
        print!("{welcome}");
        Ok(async move {
            interrupt.recv().await;
        })
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The shipped configuration, with the demo's ports, and a short way out.
fn configuration(stand_in: &StandIn) -> anyhow::Result<String> {
    let mut text = CONFIG.to_owned();
    for (shipped, ours) in [
        ("0.0.0.0:8080", "127.0.0.1:0".to_owned()),
        ("127.0.0.1:9901", "127.0.0.1:0".to_owned()),
        ("127.0.0.1:3001", stand_in.telapi.to_string()),
        ("127.0.0.1:3002", stand_in.webhooks.to_string()),
    ] {
        anyhow::ensure!(text.contains(shipped), "config/telapi.yaml has no {shipped}");
        text = text.replace(shipped, &ours);
    }
    anyhow::ensure!(!text.contains("\ndrain:"), "config/telapi.yaml has a drain section: adapt it here");
    Ok(format!(
        "{text}\n# A demo need not wait for a load balancer to look away.\ndrain: {{ delay: 0s, grace: 5s }}\n"
    ))
}

impl DemoKeys {
    fn new() -> anyhow::Result<Self> {
        let key = || -> anyhow::Result<String> {
            let mut bytes = [0; 18];
            getrandom::fill(&mut bytes)
                .map_err(|error| anyhow::anyhow!("the system has no randomness: {error}"))?;
            Ok(format!("demo_{}", BASE64URL_NOPAD.encode(&bytes)))
        };
        Ok(Self { mint: key()?, read: key()?, apps: key()? })
    }

    fn file(&self) -> String {
        let mut text =
            "teams:\n  demo: { scopes: [CREATE_CALL_TOKEN, READ_CALL_TOKEN, READ_TEAM_APPS] }\nkeys:\n"
                .to_owned();
        for (id, key, scope) in [
            ("demo-mint", &self.mint, "CREATE_CALL_TOKEN"),
            ("demo-read", &self.read, "READ_CALL_TOKEN"),
            ("demo-apps", &self.apps, "READ_TEAM_APPS"),
        ] {
            let digest = Digest::of(key.as_bytes());
            text += &format!(
                "  - id: {id}\n    team: demo\n    name: {id}\n    digest: {digest}\n    scopes: [{scope}]\n"
            );
        }
        text
    }
}

/// What the person at the terminal reads. Each `curl` line ends in the answer that it gets.
fn welcome(bound: &Bound, stand_in: &StandIn, folder: &Path, keys: &DemoKeys) -> anyhow::Result<String> {
    let address = bound.listen.first().context("the shipped configuration listens somewhere")?;
    let DemoKeys { mint, read, apps } = keys;
    let url = format!("http://{address}");
    let api = format!("{url}/api/v1");
    let json = "-H 'Content-Type: application/json'";
    let bearer = |key: &str| format!("-H 'Authorization: Bearer {key}'");
    let body = r#"-d '{"endpointId":"ep-1"}'"#;
    let upgrade = "-H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13' -H 'Sec-WebSocket-Key: c2NvcGVnYXRlIGRlbW8hIQ=='";
    let lines = [
        ("What passes:", String::new(), ""),
        ("", format!("{url}/health"), "200"),
        ("", format!("{} {json} {body} {api}/call-tokens", bearer(mint)), "201"),
        ("", format!("{} {api}/call-tokens/t-1", bearer(read)), "200"),
        ("", format!("-H 'X-API-Key: {apps}' {api}/apps"), "200"),
        ("", format!("-H 'X-API-Key: {mint}' {json} {body} {api}/sessions/token"), "200"),
        ("", format!("-X POST -d 'a result' '{api}/webhooks/llm/callback-7?token=one-shot'"), "202"),
        ("", format!("--max-time 3 {upgrade} '{url}/ws/session?sessionId=s-1&token=t-1'"), "101"),
        ("What does not:", String::new(), ""),
        ("", format!("{api}/apps"), "401 key_missing"),
        ("", format!("{} {api}/apps", bearer("not-a-key")), "401 key_unknown"),
        ("", format!("{} -H 'X-API-Key: {read}' {api}/apps", bearer(apps)), "401 key_conflict"),
        ("", format!("{} {api}/apps", bearer(mint)), "403 scope_missing"),
        ("", format!("{} {json} {body} {api}/call-tokens", bearer(read)), "403 scope_missing"),
        ("", format!("{} -X DELETE {api}/apps", bearer(apps)), "405 method_unknown"),
        ("", format!("{} {api}/invoices", bearer(apps)), "404 route_unknown"),
        ("", format!("--path-as-is {api}/webhooks/../apps"), "400 path_ambiguous"),
    ];
    let mut text = format!(
        "scopegate is at {url}, its admin door at http://{admin}\n\
         behind it a stand-in for TelAPI at http://{telapi}, and one for the webhooks at http://{webhooks}\n\n\
         Three keys, new each time:\n  CREATE_CALL_TOKEN  {mint}\n  READ_CALL_TOKEN    {read}\n  READ_TEAM_APPS     {apps}\n",
        admin = bound.admin,
        telapi = stand_in.telapi,
        webhooks = stand_in.webhooks,
    );
    for (title, arguments, answer) in lines {
        text += &if title.is_empty() {
            format!("curl -si {arguments} # {answer}\n")
        } else {
            format!("\n{title}\n")
        };
    }
    text += &format!(
        "\nIt runs on these files; change one and save it, and the next request sees it:\n  {config}\n  {keys}\n\
         Turn `webrtc` off in scopegate.yaml, and the keys above open nothing. The folder is yours to remove. Metrics: curl -s http://{admin}/metrics\n\
         Ctrl-C ends it.\n\n",
        config = folder.join("scopegate.yaml").display(),
        keys = folder.join("keys.yaml").display(),
        admin = bound.admin,
    );
    Ok(text)
}
