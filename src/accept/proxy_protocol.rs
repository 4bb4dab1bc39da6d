//! The header of the PROXY protocol, versions 1 and 2 (haproxy.org, "The PROXY protocol"): who is behind a hop that
//! passes bytes on.
//!
//! It is read strictly: what is not exactly as the protocol has it is no header. A length that lies would have bytes of
//! the client read as the hop's, or the other way round.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::peer::Scheme;

/// A header of version 1 is a line, with its end no longer than this (2.1).
const LINE: usize = 107;
/// A header of version 2 as we take it. The addresses need 216 bytes; what stands behind them may hold names and the
/// client's certificate, which fit into a page.
pub const MOST: usize = 4096;
const SIGNATURE_1: &[u8; 6] = b"PROXY ";
const SIGNATURE_2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length (2.2).
const START: usize = 16;
/// Types of what may stand behind the addresses (2.2).
const CRC32C: u8 = 0x03;
const SSL: u8 = 0x20;
/// Of an entry of the type SSL: the client came over TLS.
const CLIENT_SSL: u8 = 0x01;

/// What a hop says of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Where it comes from.
    pub source: Source,
    /// How the client came to the hop, where that says so; else plain.
    pub scheme: Scheme,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The hop itself, which looks whether we live.
    Hop,
    /// This client.
    Client(SocketAddr),
    /// Somebody whom the hop cannot name.
    Unknown,
}

/// Why a connection that must begin with a header is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproxied {
    /// Its sender may not say who a client is.
    Untrusted,
    /// It begins with something else.
    Missing,
    /// It is not what the protocol says.
    Malformed(&'static str),
    /// It did not come whole in time.
    Late,
}

impl Unproxied {
    /// All names, as logs and metrics have them.
    pub const NAMES: [&str; 4] = ["untrusted", "missing", "malformed", "late"];

    /// Its place in [`Unproxied::NAMES`].
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Untrusted => 0,
            Self::Missing => 1,
            Self::Malformed(_) => 2,
            Self::Late => 3,
        }
    }

    /// What the operator is told beside the name.
    #[must_use]
    pub fn detail(self) -> &'static str {
        match self {
            Self::Untrusted => "the peer is not one of trusted_proxies",
            Self::Missing => "the connection begins with something else",
            Self::Malformed(why) => why,
            Self::Late => "it was not whole within timeouts.head",
        }
    }
}

/// Reads a header at the beginning of these bytes, when all of it is there, and says how long it is. Where it is not,
/// every byte belongs to it.
pub fn read(bytes: &[u8]) -> Result<Option<(Header, usize)>, Unproxied> {
    if let Some(rest) = bytes.strip_prefix(SIGNATURE_1) {
        version_1(rest)
    } else if let Some(rest) = bytes.strip_prefix(SIGNATURE_2) {
        version_2(bytes, rest)
    } else if SIGNATURE_1.starts_with(bytes) || SIGNATURE_2.starts_with(bytes) {
        Ok(None)
    } else {
        Err(Unproxied::Missing)
    }
}

/// `TCP4 source destination port port`, or `UNKNOWN` and whatever the hop likes.
fn version_1(rest: &[u8]) -> Result<Option<(Header, usize)>, Unproxied> {
    let most = LINE - SIGNATURE_1.len();
    let line = rest.get(..most).unwrap_or(rest);
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if rest.len() < most {
            Ok(None)
        } else {
            Err(Unproxied::Malformed("its line is longer than 107 bytes"))
        };
    };
    let line = line.get(..end).and_then(|line| std::str::from_utf8(line).ok());
    let line = line.ok_or(Unproxied::Malformed("its line is not text"))?;
    let source = if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        Source::Unknown
    } else {
        let client = client_of(line).ok_or(Unproxied::Malformed("its line is not what version 1 has"))?;
        Source::Client(client)
    };
    Ok(Some((Header { source, scheme: Scheme::Http }, SIGNATURE_1.len() + end + 2)))
}

fn client_of(line: &str) -> Option<SocketAddr> {
    let words: Vec<_> = line.split(' ').collect();
    let [family, source, destination, from, to] = *words else { return None };
    let address = |text: &str| match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    };
    let (source, _) = (address(source)?, address(destination)?);
    let (from, _) = (port(from)?, port(to)?);
    Some(SocketAddr::new(source, from))
}

/// In decimal, without zeros before it.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn version_2(bytes: &[u8], rest: &[u8]) -> Result<Option<(Header, usize)>, Unproxied> {
    let Some(([command, family, high, low], rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    if START + length > MOST {
        return Err(Unproxied::Malformed("it is longer than 4096 bytes"));
    }
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Unproxied::Malformed("its version or command is unknown")),
    };
    let Some(block) = rest.get(..length) else { return Ok(None) };
    let whole = bytes.get(..START + length).unwrap_or(bytes);
    // What else the hop says of its own connection is not looked at (2.2).
    let header = if is_local {
        Header { source: Source::Hop, scheme: Scheme::Http }
    } else {
        proxied(*family, block, whole)?
    };
    Ok(Some((header, whole.len())))
}

fn proxied(family: u8, block: &[u8], whole: &[u8]) -> Result<Header, Unproxied> {
    const SHORT: Unproxied = Unproxied::Malformed("its length is below that of its addresses");
    let (source, entries) = match family {
        // Somebody whom the hop cannot name, nor say where the addresses end.
        0x00 => return Ok(Header { source: Source::Unknown, scheme: Scheme::Http }),
        0x11 => {
            let (addresses, entries) = block.split_first_chunk::<12>().ok_or(SHORT)?;
            let [a, b, c, d, _, _, _, _, high, low, ..] = *addresses;
            let from = u16::from_be_bytes([high, low]);
            (Source::Client(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), from)), entries)
        }
        0x21 => {
            let (source, rest) = block.split_first_chunk::<16>().ok_or(SHORT)?;
            let (_destination, rest) = rest.split_first_chunk::<16>().ok_or(SHORT)?;
            let ([high, low, _, _], entries) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
            let from = u16::from_be_bytes([*high, *low]);
            (Source::Client(SocketAddr::new(Ipv6Addr::from(*source).into(), from)), entries)
        }
        // A socket of the hop's machine.
        0x31 => (Source::Unknown, block.get(216..).ok_or(SHORT)?),
        _ => return Err(Unproxied::Malformed("its family is none of a stream")),
    };
    Ok(Header { source, scheme: entries_of(entries, whole)? })
}

/// Looks at what stands behind the addresses: a checksum is checked, what is said of TLS is taken, the rest is skipped.
fn entries_of(mut entries: &[u8], whole: &[u8]) -> Result<Scheme, Unproxied> {
    const CUT: Unproxied = Unproxied::Malformed("an entry is longer than what is left");
    let (mut scheme, mut sum) = (None, None);
    while let Some(([kind, high, low], rest)) = entries.split_first_chunk::<3>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(CUT)?;
        match *kind {
            CRC32C => {
                let said = value.try_into().map(u32::from_be_bytes);
                let said = said.map_err(|_| Unproxied::Malformed("its checksum has not four bytes"))?;
                if sum.replace(said).is_some() || said != crc32c(whole, whole.len() - rest.len() - 4) {
                    return Err(Unproxied::Malformed("its checksum does not fit"));
                }
            }
            SSL => {
                let ([client, ..], _) = value
                    .split_first_chunk::<5>()
                    .ok_or(Unproxied::Malformed("its entry of TLS is short"))?;
                let said = if client & CLIENT_SSL == 0 { Scheme::Http } else { Scheme::Https };
                if scheme.replace(said).is_some() {
                    return Err(Unproxied::Malformed("it has two entries of TLS"));
                }
            }
            _ => {}
        }
        entries = rest;
    }
    if entries.is_empty() { Ok(scheme.unwrap_or(Scheme::Http)) } else { Err(CUT) }
}

/// CRC-32C (RFC 3309, appendix B) with four bytes read as zero, where the sum itself stands. One bit at a time: it is
/// done once a connection, where a hop asks for it.
fn crc32c(bytes: &[u8], sum_at: usize) -> u32 {
    let is_sum = |at: usize| (sum_at..sum_at + 4).contains(&at);
    !bytes.iter().enumerate().fold(u32::MAX, |crc, (at, byte)| {
        let byte = if is_sum(at) { 0 } else { *byte };
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str, scheme: Scheme) -> Header {
        Header { source: Source::Client(text.parse().expect("an address")), scheme }
    }

    /// Whatever is cut off its end, it is not whole; and what stands behind it is not looked at.
    fn check(bytes: &[u8], wanted: Header) {
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Ok(None), "{end} bytes of {bytes:?}");
        }
        let more = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(read(&more), Ok(Some((wanted, bytes.len()))), "{bytes:?}");
    }

    fn wrong(bytes: &[u8], name: &str) {
        match read(bytes) {
            Err(why) => assert_eq!(Unproxied::NAMES[why.index()], name, "{bytes:?}"),
            read => panic!("{bytes:?} is read as {read:?}"),
        }
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).expect("short").to_be_bytes();
        [&SIGNATURE_2[..], &[command, family], &length, block].concat()
    }

    fn entry(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &u16::try_from(value.len()).expect("short").to_be_bytes(), value].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0x1f, 0x90];

    #[test]
    fn version_1_is_one_line() {
        let plain = |text| client(text, Scheme::Http);
        check(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n", plain("192.0.2.7:4711"));
        check(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", plain("255.255.255.255:65535"));
        check(b"PROXY TCP6 2001:db8::7 ::1 0 80\r\n", plain("[2001:db8::7]:0"));
        let unknown = Header { source: Source::Unknown, scheme: Scheme::Http };
        check(b"PROXY UNKNOWN\r\n", unknown);
        let long = "f".repeat(LINE - "PROXY UNKNOWN \r\n".len());
        check(format!("PROXY UNKNOWN {long}\r\n").as_bytes(), unknown);
        wrong(format!("PROXY UNKNOWN f{long}\r\n").as_bytes(), "malformed");
        for line in [
            "TCP4 192.0.2.7 10.0.0.1 4711",
            "TCP4 192.0.2.7 10.0.0.1 4711 80 ",
            "TCP4  192.0.2.7 10.0.0.1 4711 80",
            "TCP4 192.0.2.07 10.0.0.1 4711 80",
            "TCP4 192.0.2.256 10.0.0.1 4711 80",
            "TCP4 192.0.2.7 10.0.0.1 65536 80",
            "TCP4 192.0.2.7 10.0.0.1 04711 80",
            "TCP4 192.0.2.7 10.0.0.1 +4711 80",
            "TCP4 2001:db8::7 ::1 4711 80",
            "TCP4 192.0.2.7 ::1 4711 80",
            "TCP6 192.0.2.7 10.0.0.1 4711 80",
            "TCP6 fe80::1%eth0 ::1 4711 80",
            "UDP4 192.0.2.7 10.0.0.1 4711 80",
            "tcp4 192.0.2.7 10.0.0.1 4711 80",
            "UNKNOWNX",
            "",
            "TCP4 192.0.2.7\n10.0.0.1 4711 80",
        ] {
            wrong(format!("PROXY {line}\r\n").as_bytes(), "malformed");
        }
        wrong(b"PROXY \xff\r\n", "malformed");
        wrong(&[&b"PROXY "[..], &[b'x'; 200]].concat(), "malformed");
    }

    #[test]
    fn what_is_no_header_is_missing() {
        for text in [
            "GET / HTTP/1.1\r\n",
            "PRI * HTTP/2.0",
            "POST",
            "\r\n\r\nGET",
            "proxy ",
            "\x16\x03\x01",
            "PROXY\r\n",
        ] {
            wrong(text.as_bytes(), "missing");
        }
    }

    #[test]
    fn version_2_is_as_long_as_it_says() {
        check(&v2(0x21, 0x11, &V4), client("192.0.2.7:4711", Scheme::Http));
        let mut v6 = [0; 36];
        (v6[0], v6[1], v6[15], v6[32], v6[33]) = (0x20, 0x01, 7, 0x12, 0x67);
        check(&v2(0x21, 0x21, &v6), client("[2001::7]:4711", Scheme::Http));
        let (hop, unknown) = (Source::Hop, Source::Unknown);
        let of = |source| Header { source, scheme: Scheme::Http };
        check(&v2(0x20, 0x00, &[]), of(hop));
        check(&v2(0x20, 0x11, &[1, 2, 3]), of(hop));
        check(&v2(0x21, 0x00, &[]), of(unknown));
        check(&v2(0x21, 0x00, &[1, 2, 3]), of(unknown));
        check(&v2(0x21, 0x31, &[0; 216]), of(unknown));
        check(
            &v2(0x21, 0x11, &[&V4[..], &entry(0x04, &[0; MOST - START - 12 - 3])].concat()),
            client("192.0.2.7:4711", Scheme::Http),
        );
        for (command, family, block) in [
            (0x11, 0x11, &V4[..]),
            (0x22, 0x11, &V4),
            (0x21, 0x12, &V4),
            (0x21, 0x41, &V4),
            (0x21, 0x01, &V4),
            (0x21, 0x11, &V4[..11]),
            (0x21, 0x21, &[0; 35]),
            (0x21, 0x31, &[0; 215]),
            (0x21, 0x11, &[&V4[..], &[4]].concat()),
            (0x21, 0x11, &[&V4[..], &[4, 0, 1]].concat()),
            (0x21, 0x11, &[&V4[..], &[0x20, 0, 1, 1]].concat()),
            (0x21, 0x00, &[0; MOST - START + 1]),
        ] {
            wrong(&v2(command, family, block), "malformed");
        }
        // Known before what it announces has come.
        wrong(&[&SIGNATURE_2[..], &[0x21, 0x11, 0xff, 0xff]].concat(), "malformed");
    }

    #[test]
    fn what_stands_behind_the_addresses_is_looked_at() {
        let with = |entries: &[u8]| v2(0x21, 0x11, &[&V4[..], entries].concat());
        for (ssl, scheme) in
            [(0x01, Scheme::Https), (0x07, Scheme::Https), (0x00, Scheme::Http), (0x06, Scheme::Http)]
        {
            let inner = entry(0x21, b"TLSv1.3");
            let ssl = entry(SSL, &[&[ssl, 0, 0, 0, 0][..], &inner].concat());
            check(&with(&ssl), client("192.0.2.7:4711", scheme));
            wrong(&with(&[&ssl[..], &ssl].concat()), "malformed");
        }
        assert_eq!(crc32c(b"123456789", 9), 0xE306_9283);
        let mut summed = with(&[entry(0x02, b"a.example"), entry(CRC32C, &[0; 4])].concat());
        let at = summed.len() - 4;
        let sum = crc32c(&summed, at).to_be_bytes();
        summed[at..].copy_from_slice(&sum);
        check(&summed, client("192.0.2.7:4711", Scheme::Http));
        summed[at - 8] ^= 1;
        wrong(&summed, "malformed");
        wrong(&with(&entry(CRC32C, &[0; 3])), "malformed");
    }
}
