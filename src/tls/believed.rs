//! Whose word is taken for who a server is: of an upstream, and of a server that knows keys.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::client::WantsClientCert;
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, RootCertStore};

use super::read;
use crate::config::problem::Problem;

/// Where a problem is that is in no file of ours.
const SYSTEM: &str = "the system's authorities";

/// A client that believes the authorities in a PEM file; the system's own where it is `None`.
pub fn client(ca_file: Option<&Path>) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Problem> {
    let builder = ClientConfig::builder_with_provider(Arc::new(read::provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("the provider has both");
    Ok(builder.with_root_certificates(roots(ca_file)?))
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, Problem> {
    let Some(file) = ca_file else {
        let mut roots = RootCertStore::empty();
        // What of a system's store cannot be read is nothing that anybody relies on.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let hint = "give the authorities of the server: `ca_file: ca.pem`";
            return Err(read::unusable(SYSTEM.as_ref(), "there is no authority to believe", hint));
        }
        return Ok(roots);
    };
    read::roots(file)
}
