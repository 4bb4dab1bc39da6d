//! `scopegate check`: what `serve` would say, before it matters.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::PROBLEMS;
use crate::config::problem::Problems;
use crate::config::sources::Source;
use crate::config::upstream::{Address, Protocol, Upstream};
use crate::config::{Config, limits::Timeouts};
use crate::keys::{SourceError, remote};
use crate::reload::Files;
use crate::tls::originator::{Offer, Originator};

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
        let mut tcp = TcpStream::connect_timeout(&address, timeouts.connect).map_err(|error| {
            format!("upstream `{}`: error: {address} takes no connection: {error}\n  hint: is it running, and reachable from here?", upstream.name)
        })?;
        if let Some(trust) = &upstream.tls {
            let offer = match upstream.protocol {
                Protocol::Http1 => Offer::Http1,
                Protocol::Http2 => Offer::Http2,
                Protocol::Auto => Offer::Either,
            };
            Originator::try_once(trust, offer, &mut tcp, timeouts.connect).map_err(|error| {
                format!("upstream `{}`: error: no TLS with {address}: {error}\n  hint: see \"Towards upstreams\" in docs/tls.md", upstream.name)
            })?;
        } else if upstream.protocol == Protocol::Http2 {
            speaks_http2(&mut tcp, timeouts.connect).map_err(|error| {
                format!("upstream `{}`: error: no HTTP/2 with {address}: {error}\n  hint: write `protocol: http1`, unless it takes HTTP/2 without TLS", upstream.name)
            })?;
        }
    }
    Ok(())
}

/// Whether a server begins as one of HTTP/2 does, with its settings (RFC 9113, 3.4).
fn speaks_http2(tcp: &mut TcpStream, limit: Duration) -> io::Result<()> {
    tcp.set_read_timeout(Some(limit))?;
    // Ours are those that nobody has to name.
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")?;
    let mut head = [0; 9];
    tcp.read_exact(&mut head)?;
    match head {
        [_, _, _, 4, flags, 0, 0, 0, 0] if flags & 1 == 0 => Ok(()),
        _ => Err(io::Error::other("it speaks something else")),
    }
}
