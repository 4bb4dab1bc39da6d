//! The head of an upstream's answer. The first line of the input is the method that was asked.

use bytes::Bytes;
use http::Method;
use scopegate::forward::answer::Head;
use scopegate::message::framing::Framing;

use super::wire::{Pairs, all, are_fields, nominated, pairs, parsed};

/// Of one connection (RFC 9110, 7.6.1), or ours to say.
const END_HERE: [&str; 13] = [
    "connection",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "scopegate-reason",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
    "content-length",
];

pub fn run(input: &[u8]) {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return };
    let Ok(method) = Method::from_bytes(&input[..end]) else { return };
    let bytes = Bytes::copy_from_slice(&input[end + 1..]);
    let mut rest = bytes.clone();
    let Ok(Some(head)) = Head::read(&mut rest, &method) else {
        return assert_eq!(rest, bytes, "what is no head is not taken");
    };
    let text = &bytes[..bytes.len() - rest.len()];
    assert!(bytes.ends_with(&rest));
    for end in (0..text.len()).rev().step_by(text.len() / 16 + 1) {
        let mut part = Bytes::copy_from_slice(&text[..end]);
        assert!(matches!(Head::read(&mut part, &method), Ok(None)), "it ends where it ends");
    }
    assert!(!text.starts_with(b"\r") && !text.starts_with(b"\n"));
    let (_, came) = as_others(text);
    let passed = pairs(&head.fields);
    are_fields(&passed);
    framing(&method, &head, &came);
    let listed = nominated(&came);
    let ends_here = |name: &str| END_HERE.contains(&name) || listed.iter().any(|word| word == name);
    let wanted: Pairs = came.iter().filter(|(name, _)| !ends_here(name)).cloned().collect();
    let plain: Pairs = passed.iter().filter(|(name, _)| name != "content-length").cloned().collect();
    assert_eq!(plain, wanted, "all the others, as they came");
    let status = head.status.as_u16();
    // RFC 9110, 8.6: these say none.
    let lengths = if status < 200 || status == 204 { 0 } else { all(&came, "content-length").len().min(1) };
    assert_eq!(all(&passed, "content-length").len(), lengths);
    if head.switches {
        let words = all(&came, "upgrade").join(&b',').to_ascii_lowercase();
        let words: Vec<_> =
            String::from_utf8_lossy(&words).split(',').map(|word| word.trim().to_owned()).collect();
        assert_eq!(status, 101);
        assert!(words.iter().all(|word| word.is_empty() || word == "websocket"), "{words:?}");
        assert!(listed.iter().any(|word| word == "upgrade"));
    }
    written(&head, &passed);
}

fn as_others(text: &[u8]) -> (u16, Pairs) {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut parsed_head = httparse::Response::new(&mut fields);
    let read = parsed_head.parse(text).expect("a head");
    assert_eq!(read, httparse::Status::Complete(text.len()));
    (parsed_head.code.expect("a status"), parsed(parsed_head.headers))
}

/// The end of the body, from its fields alone (RFC 9112, 6.3).
fn framing(method: &Method, head: &Head, came: &Pairs) {
    let (codings, lengths) = (all(came, "transfer-encoding"), all(came, "content-length"));
    assert!(codings.is_empty() || lengths.is_empty() || head.framing.is_none());
    let status = head.status.as_u16();
    if *method == Method::HEAD || status < 200 || status == 204 || status == 304 {
        return assert!(head.framing.is_none());
    }
    let zero = |value: &&[u8]| value.iter().all(|byte| *byte == b'0');
    match &head.framing {
        None => assert!(codings.is_empty() && lengths.iter().all(zero)),
        Some(Framing::Close) => assert!(codings.is_empty() && lengths.is_empty() && !head.keeps_alive),
        Some(Framing::Chunked(_)) => {
            assert!(lengths.is_empty());
            assert!(matches!(*codings, [one] if one.eq_ignore_ascii_case(b"chunked")));
        }
        Some(Framing::Length(length)) => {
            let same =
                |value: &&[u8]| std::str::from_utf8(value).is_ok_and(|text| text.parse() == Ok(*length));
            assert!(codings.is_empty() && !lengths.is_empty() && lengths.iter().all(same));
        }
    }
}

/// Written as a client is sent it, it is read as the same.
fn written(head: &Head, passed: &Pairs) {
    let reason = head.reason.as_deref().or(head.status.canonical_reason()).unwrap_or_default();
    let mut out = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_str()).into_bytes();
    for field in head.fields.iter() {
        field.write(&mut out);
    }
    out.extend_from_slice(b"\r\n");
    assert_eq!(as_others(&out), (head.status.as_u16(), passed.clone()));
    let again = Head::read(&mut Bytes::from(out), &Method::GET).expect("a head").expect("all of it");
    assert_eq!(again.reason, head.reason);
}
