//! Who is at the other end of a socket.

use std::net::{IpAddr, SocketAddr};

use http::HeaderValue;
use ipnet::IpNet;

/// The other end of a client's connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address; an IPv4 address that came over an IPv6 socket is the IPv4 address.
    pub ip: IpAddr,
    /// The same, as forwarded headers have it.
    pub text: HeaderValue,
}

impl Peer {
    /// From the socket.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical();
        let text = HeaderValue::from_str(&ip.to_string()).expect("an address is visible ASCII");
        Self { ip, text }
    }

    /// Whether it may say where its requests really came from.
    #[must_use]
    pub fn is_trusted(&self, proxies: &[IpNet]) -> bool {
        proxies.iter().any(|net| net.contains(&self.ip))
    }
}
