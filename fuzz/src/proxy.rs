//! The header of the PROXY protocol: who a hop says that its client is, and where what the client says begins.

use std::net::IpAddr;

use scopegate::accept::peer::Scheme;
use scopegate::accept::proxy_protocol::{MOST, Source, read};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

pub fn run(input: &[u8]) {
    // However little of it has come, it is whole once, or wrong once, and stays so.
    let mut end = None;
    for length in 0..=input.len().min(MOST + 1) {
        let result = read(&input[..length]);
        match (end, result) {
            (None, Ok(None)) => assert!(length < MOST, "it is waited for without a bound"),
            (None, result) => end = Some((length, result)),
            (Some((_, first)), result) => assert_eq!(first, result, "what stands behind it changed it"),
        }
    }
    let Some((length, Ok(Some((header, said))))) = end else { return };
    assert_eq!(length, said, "no byte of it, and no other, is taken");
    let text = &input[..length];
    if let Some(rest) = text.strip_prefix(SIGNATURE) {
        let announced = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        assert_eq!(length, SIGNATURE.len() + 4 + announced);
        let block = &rest[4..];
        match (rest[0], rest[1], header.source) {
            (0x20, _, Source::Hop) | (0x21, 0x00 | 0x31, Source::Unknown) => {}
            (0x21, 0x11, Source::Client(client)) => {
                let IpAddr::V4(ip) = client.ip() else { panic!("of its family") };
                assert_eq!(
                    (&ip.octets()[..], &client.port().to_be_bytes()[..]),
                    (&block[..4], &block[8..10])
                );
            }
            (0x21, 0x21, Source::Client(client)) => {
                let IpAddr::V6(ip) = client.ip() else { panic!("of its family") };
                assert_eq!(
                    (&ip.octets()[..], &client.port().to_be_bytes()[..]),
                    (&block[..16], &block[32..34])
                );
            }
            (command, family, source) => panic!("{command:x} {family:x} is {source:?}"),
        }
    } else {
        assert!(length <= 107 && header.scheme == Scheme::Http && header.source != Source::Hop);
        let line = text.strip_suffix(b"\r\n").expect("the end of a line");
        let line = std::str::from_utf8(line).expect("text").strip_prefix("PROXY ").expect("its name");
        assert!(!line.contains("\r\n"));
        if let Source::Client(client) = header.source {
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!(words.len(), 5);
            assert_eq!(words[0], if client.is_ipv4() { "TCP4" } else { "TCP6" });
            assert_eq!((words[1].parse(), words[3]), (Ok(client.ip()), &*client.port().to_string()));
        } else {
            assert!(line.starts_with("UNKNOWN"));
        }
    }
}
