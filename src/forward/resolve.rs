//! Names of upstreams become addresses.

use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::timeout;

use super::upstream::Upstream;
use crate::config::upstream::Address;

/// A resolver that does not answer by then has no answer: a reload, and other names, wait for it.
const LIMIT: Duration = Duration::from_secs(2);

/// Looks a name up; the addresses that are known stay in use where that fails. Blocks nobody but its caller.
pub async fn look_up(upstream: &Upstream) {
    let Address::Name { host, port } = &upstream.config.address else { return };
    let name = &upstream.config.name;
    match timeout(LIMIT, lookup_host((&**host, *port))).await {
        Ok(Ok(addresses)) => {
            let addresses: Vec<_> = addresses.collect();
            let count = addresses.len();
            if count > 0 && upstream.resolved(addresses) {
                tracing::info!(upstream = %name, %host, addresses = count, "resolved");
            }
        }
        Ok(Err(error)) => {
            tracing::warn!(upstream = %name, %host, %error, "cannot be resolved; addresses that are known stay in use");
        }
        Err(_) => {
            tracing::warn!(upstream = %name, %host, "the resolver does not answer; addresses that are known stay in use");
        }
    }
}
