//! `scopegate check`: what `serve` would say, before it matters.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::process::ExitCode;

use super::PROBLEMS;
use crate::config::problem::Problems;
use crate::config::sources::Source;
use crate::config::upstream::{Address, Upstream};
use crate::config::{Config, limits::Timeouts};
use crate::keys::{SourceError, remote};
use crate::reload::Files;
use crate::tls::originator::Originator;

/// Prints every problem; ends with [`PROBLEMS`] where one is more than a warning.
pub(super) fn run(path: &Path, connect: bool) -> ExitCode {
    let (problems, files) = match Files::load(path) {
        Ok(loaded) => (loaded.problems, Some(loaded.value)),
        Err(problems) => (problems, None),
    };
    eprint!("{problems}");
    let (mut errors, warnings) = count(&problems);
    if let Some(files) = &files
        && connect
    {
        errors += unreachable(files.config()) + silent(files.config());
    }
    if errors > 0 {
        eprintln!("{}: errors: {errors}, warnings: {warnings}", path.display());
        return ExitCode::from(PROBLEMS);
    }
    if let Some(files) = files {
        let live = &files.config().live;
        let routes: usize = live.surfaces.iter().map(|surface| surface.routes.len()).sum();
        println!(
            "{}: good: {} surfaces, {routes} routes, {} teams, {} keys{}",
            path.display(),
            live.surfaces.len(),
            files.tables().iter().map(|table| table.teams).sum::<usize>(),
            files.tables().iter().map(|table| table.len()).sum::<usize>(),
            if warnings > 0 { format!(", {warnings} warnings") } else { String::new() },
        );
    }
    ExitCode::SUCCESS
}

fn count(problems: &Problems) -> (usize, usize) {
    (problems.errors(), problems.iter().count() - problems.errors())
}

/// Says which upstreams do not take a connection from here, and how many.
fn unreachable(config: &Config) -> usize {
    let timeouts = &config.live.timeouts;
    let problems = config.live.upstreams.iter().filter_map(|upstream| reach(upstream, timeouts).err());
    problems.inspect(|problem| eprintln!("{problem}")).count()
}

/// Says which sources of keys do not answer from here, and how many.
fn silent(config: &Config) -> usize {
    let (platform, hashing) = (&config.live.scopes, &config.fixed.key_digest.hashing);
    let remotes = config.live.keys.iter().filter_map(|source| match source {
        Source::File(_) | Source::Folder(_) => None,
        Source::Remote(remote) => Some(remote),
    });
    let problems = remotes.filter_map(|remote| remote::probe(remote, platform, hashing).err());
    problems.inspect(|problem| eprintln!("keys: error: {problem}\n  hint: {}", hint(problem))).count()
}

fn hint(problem: &SourceError) -> &'static str {
    match problem {
        SourceError::Invalid { .. } => {
            "every key would be refused with 503 until this is mended; see docs/keys.md"
        }
        SourceError::Down { .. }
        | SourceError::Late { .. }
        | SourceError::Unsettled { .. }
        | SourceError::Keyless { .. }
        | SourceError::Busy { .. } => "`serve` would start, not be ready, and go on trying",
    }
}

fn reach(upstream: &Upstream, timeouts: &Timeouts) -> Result<(), String> {
    let addresses: Vec<SocketAddr> = match &upstream.address {
        Address::Socket(address) => vec![*address],
        Address::Name { host, port } => (&**host, *port)
            .to_socket_addrs()
            .map_err(|error| {
                format!("upstream `{}`: error: `{host}` cannot be resolved: {error}\n  hint: `serve` would start, not be ready, and go on trying", upstream.name)
            })?
            .collect(),
    };
    for address in addresses {
        let tcp = TcpStream::connect_timeout(&address, timeouts.connect).map_err(|error| {
            format!("upstream `{}`: error: {address} takes no connection: {error}\n  hint: is it running, and reachable from here?", upstream.name)
        })?;
        if let Some(trust) = &upstream.tls {
            Originator::try_once(trust, tcp, timeouts.connect).map_err(|error| {
                format!("upstream `{}`: error: no TLS with {address}: {error}\n  hint: see \"Towards upstreams\" in docs/tls.md", upstream.name)
            })?;
        }
    }
    Ok(())
}
