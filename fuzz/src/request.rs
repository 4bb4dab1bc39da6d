//! The head of a request over HTTP/1: what is taken of it, and what the upstream is sent.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use http::Version;
use percent_encoding::percent_decode_str;
use scopegate::accept::clock::Clock;
use scopegate::accept::peer::Peer;
use scopegate::config::route::Access;
use scopegate::decide::call::Call;
use scopegate::decide::path::Path;
use scopegate::decide::permit::{Ask, Permit};
use scopegate::forward::headers::{self, Announced, Outbound};
use scopegate::message::framing::Framing;
use scopegate::message::gathered::Gathered;
use scopegate::message::head::Head;
use scopegate::observe::record::Id;

use super::wire::{Pairs, all, are_fields, nominated, pairs, parsed};
use super::world::{LIMITS, SHIPPED, World, now};

const PEER: &str = "192.0.2.1";

thread_local! {
    static WORLD: World = World::new(SHIPPED);
    static CLIENT: Rc<Peer> =
        Rc::new(Peer::new(SocketAddr::new(PEER.parse().expect("an address"), 4711), &Rc::new(Clock::default())));
}

pub fn run(input: &[u8]) {
    let whole = in_pieces(input, input.len().max(1));
    for size in [1, usize::from(input.first().copied().unwrap_or_default() % 32) + 2] {
        same(whole.as_ref(), in_pieces(input, size).as_ref());
    }
    let Some((_, end)) = whole else { return };
    let (head, length) = Head::read(input, &LIMITS).expect("a head").expect("all of it");
    assert_eq!(length, end);
    let text = &input[..length];
    assert!(length <= LIMITS.head && head.target.len() <= LIMITS.target);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'\n' => assert_eq!(text.get(at.wrapping_sub(1)), Some(&b'\r'), "LF alone"),
            b'\r' => assert_eq!(text.get(at + 1), Some(&b'\n'), "CR alone"),
            byte => assert!(*byte == b'\t' || *byte >= b' ' && *byte != 0x7f, "a control character"),
        }
    }
    let came = pairs(&head.fields);
    assert!(came.len() <= LIMITS.fields);
    are_fields(&came);
    framing(&head, &came);
    if Path::read(head.path()).is_ok() {
        one_reading(head.path());
    }
    let Ok(call) = Call::read(&head, now()) else { return };
    hosts(&head, &came);
    WORLD.with(|world| {
        if let (_, Ok(permit)) = world.decide(&call) {
            for (trusted, strip) in [(false, true), (true, false)] {
                sent(world, &head, &came, &permit, trusted, strip);
            }
        }
    });
}

/// A head that comes in pieces of this size, and where it ends; what stands behind it is left.
fn in_pieces(input: &[u8], size: usize) -> Option<(Head, usize)> {
    let mut gathered = Gathered::default();
    let mut passed = 0;
    for piece in input.chunks(size) {
        let mut more = Bytes::copy_from_slice(piece);
        passed += piece.len();
        if let Some(head) = gathered.head(&mut more, &LIMITS).ok()? {
            return Some((head, passed - more.len()));
        }
        assert!(more.is_empty(), "what is not taken would be lost");
    }
    None
}

fn same(one: Option<&(Head, usize)>, other: Option<&(Head, usize)>) {
    let shown = |(head, end): &(Head, usize)| {
        (head.method.clone(), head.version, head.target.clone(), pairs(&head.fields), *end)
    };
    assert_eq!(one.map(shown), other.map(shown), "however its bytes are cut");
}

/// One reading of where the body ends, from the fields alone (RFC 9112, 6.3).
fn framing(head: &Head, came: &Pairs) {
    let (codings, lengths) = (all(came, "transfer-encoding"), all(came, "content-length"));
    match head.framing() {
        Err(_) => assert!(!codings.is_empty() || !lengths.is_empty()),
        Ok(None) => {
            let nothing = |value: &&[u8]| !value.is_empty() && value.iter().all(|byte| *byte == b'0');
            assert!(codings.is_empty() && lengths.len() <= 1 && lengths.iter().all(nothing));
        }
        Ok(Some(Framing::Length(length))) => {
            let [one] = *lengths else { panic!("one length") };
            assert!(codings.is_empty() && one.iter().all(u8::is_ascii_digit));
            assert_eq!(std::str::from_utf8(one).expect("digits").parse(), Ok(length));
        }
        Ok(Some(Framing::Chunked(_))) => {
            let [one] = *codings else { panic!("one coding") };
            assert!(lengths.is_empty() && one.eq_ignore_ascii_case(b"chunked"));
            assert_eq!(head.version, Version::HTTP_11);
        }
        Ok(Some(Framing::Close)) => panic!("a request has an end"),
    }
    let expected = all(came, "expect");
    if head.expects() == Ok(true) {
        assert!(matches!(*expected, [one] if one.eq_ignore_ascii_case(b"100-continue")));
    }
    let says = |word: &str| {
        let values = all(came, "connection");
        values.iter().any(|value| {
            String::from_utf8_lossy(value).split(',').any(|one| one.trim().eq_ignore_ascii_case(word))
        })
    };
    let stays = !says("close") && (head.version == Version::HTTP_11 || says("keep-alive"));
    assert_eq!(head.keeps_alive(), stays);
}

/// No server that decodes once, or twice, or reads `\` as `/`, finds a way up or another path in it.
fn one_reading(path: &str) {
    let once = percent_decode_str(path).decode_utf8().expect("UTF-8");
    let twice = percent_decode_str(&once).decode_utf8().expect("UTF-8");
    assert_eq!(once, twice, "a second decoding changes it");
    assert!(path.starts_with('/') && path.is_ascii() && !path.contains("//"));
    assert!(!path.contains([';', '?', '#']) && !once.contains('\\'));
    assert!(!once.bytes().any(|byte| byte < b' ' || byte == 0x7f));
    assert!(!once.split('/').any(|segment| segment == "." || segment == ".."), "a dot segment");
}

fn hosts(head: &Head, came: &Pairs) {
    let hosts = all(came, "host");
    assert!(hosts.len() == 1 || hosts.is_empty() && head.version == Version::HTTP_10);
    if let (Some(named), Some(host)) = (head.authority(), hosts.first()) {
        assert!(host.eq_ignore_ascii_case(named.as_bytes()));
    }
    for host in hosts {
        assert!(!host.starts_with(b".") && !host.windows(2).any(|two| two == b".."), "an empty label");
    }
}

/// A name as a careless backend reads it.
fn folded(name: &str) -> String {
    name.replace(['_', '.'], "-")
}

/// Names of which the upstream sees only what we say ourselves, or nothing.
fn is_ours(name: &str) -> bool {
    let plain = [
        "connection",
        "content-length",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
        // Of a key, joined, or without some of its words.
        "authorization",
        "cookie",
        "trailer",
        "cf-connecting-ip",
        "cf-pseudo-ipv4",
        "client-ip",
        "fastly-client-ip",
        "forwarded-for",
        "front-end-https",
        "proxy-client-ip",
        "true-client-ip",
        "wl-proxy-client-ip",
        "wl-proxy-ssl",
        "x-api-key",
        "x-appengine-user-ip",
        "x-azure-clientip",
        "x-azure-socketip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-envoy-external-address",
        "x-forwarded",
        "x-host",
        "x-http-host-override",
        "x-original-forwarded-for",
        "x-original-host",
        "x-originating-ip",
        "x-real-ip",
        "x-remote-addr",
        "x-remote-ip",
        "x-request-id",
        "x-url-scheme",
    ];
    // Ours to read, and to the upstream as they came.
    let read = ["access-control-request-method", "scopegate-reason", "sec-websocket-key"];
    let folded = folded(name);
    plain.contains(&&*folded)
        || folded.starts_with("x-forwarded-")
        || folded.starts_with("x-scopegate-")
        || read.contains(&&*folded) && folded != name
}

fn is_override(name: &str) -> bool {
    let known = [
        "proxy",
        "x-envoy-original-path",
        "x-http-method",
        "x-http-method-override",
        "x-http-path-override",
        "x-method-override",
        "x-original-method",
        "x-original-path",
        "x-original-uri",
        "x-original-url",
        "x-override-url",
        "x-rewrite-uri",
        "x-rewrite-url",
    ];
    known.contains(&&*folded(name))
}

/// What the upstream is sent is one request, the one that was decided, and says of its own what only we may say.
fn sent(world: &World, head: &Head, came: &Pairs, permit: &Permit<'_>, trusted: bool, strip: bool) {
    let announced = match head.framing() {
        Err(_) => return,
        Ok(Some(Framing::Length(length))) => Announced::Length(length),
        Ok(Some(Framing::Chunked(_))) => Announced::Chunked,
        Ok(Some(Framing::Close) | None) => Announced::Nothing,
    };
    let id = Id::random();
    let out = CLIENT.with(|peer| {
        let identity = Some(&world.live.scopes);
        let with = Outbound {
            peer,
            trusted,
            scheme: "http",
            id: &id,
            strip_credential: strip,
            body_most: u64::MAX,
            identity,
        };
        headers::write(head, "upstream", announced, permit, &with)
    });
    let mut room = [httparse::EMPTY_HEADER; 64];
    let mut again = httparse::Request::new(&mut room);
    assert_eq!(again.parse(&out), Ok(httparse::Status::Complete(out.len())), "one head, and no more");
    let target = match head.query() {
        Some(query) => format!("{}?{query}", head.path()),
        None => head.path().to_owned(),
    };
    assert_eq!((again.method, again.path), (Some(head.method.as_str()), Some(&*target)));
    assert_eq!(again.version, Some(1));
    let fields = parsed(again.headers);
    are_fields(&fields);
    // What a request was decided by cannot be taken away.
    let decided = ["access-control-request-method", "origin", "sec-websocket-key"];
    let ours: Vec<_> = nominated(came).into_iter().filter(|name| !decided.contains(&&**name)).collect();
    let as_it_came = permit.surface.private && permit.surface.access == Access::Open;
    let passes = |(name, _): &&(String, Vec<u8>)| {
        !is_ours(name) && !ours.contains(name) && (as_it_came || !is_override(name))
    };
    let wanted: Pairs = came.iter().filter(passes).cloned().collect();
    let others: Pairs = fields.iter().filter(|(name, _)| !is_ours(name)).cloned().collect();
    assert_eq!(others, wanted, "all the others, as they came");
    framed(&fields, announced, permit.ask);
    if !trusted {
        origin(&fields, came);
    }
    if permit.ask == Ask::Preflight || strip && permit.caller.is_some() {
        let scheme = |value: &[u8]| value.split(u8::is_ascii_whitespace).next().unwrap_or_default().to_vec();
        let stays =
            |value: &&[u8]| permit.ask != Ask::Preflight && !scheme(value).eq_ignore_ascii_case(b"bearer");
        let others: Vec<_> = all(came, "authorization").into_iter().filter(stays).collect();
        assert_eq!((all(&fields, "authorization"), all(&fields, "x-api-key")), (others, vec![]));
    }
    identity(&fields, permit);
    if !as_it_came {
        assert_eq!(all(&fields, "x-request-id"), [id.as_bytes()]);
    }
    for name in all(&fields, "trailer").into_iter().flat_map(|value| value.split(|byte| *byte == b',')) {
        let name = String::from_utf8_lossy(name.trim_ascii()).to_lowercase();
        let passes = !is_ours(&name) && !is_override(&name) && !ours.contains(&name);
        assert!(passes || name.is_empty(), "{name} is announced");
    }
    for (name, _) in &fields {
        let spelt = folded(name) != *name && is_ours(name);
        assert!(!spelt, "{name} is another spelling of what only we may say");
    }
}

/// What belongs to the upstream's connection.
fn framed(fields: &Pairs, announced: Announced, ask: Ask) {
    let (codings, lengths) = (all(fields, "transfer-encoding"), all(fields, "content-length"));
    match announced {
        Announced::Nothing => assert!(codings.is_empty() && (lengths.is_empty() || lengths == [b"0"])),
        Announced::Length(length) => {
            assert!(codings.is_empty());
            assert_eq!(lengths, [length.to_string().as_bytes()]);
        }
        Announced::Chunked => assert!(lengths.is_empty() && codings == [b"chunked"]),
    }
    let (connection, upgrade) = (all(fields, "connection"), all(fields, "upgrade"));
    if ask == Ask::Channel {
        assert_eq!((connection, upgrade), (vec![&b"Upgrade"[..]], vec![&b"websocket"[..]]));
    } else {
        let te = all(fields, "te");
        assert!(upgrade.is_empty());
        assert!(te.is_empty() && connection.is_empty() || te == [b"trailers"] && connection == [b"te"]);
    }
    let gone = ["expect", "http2-settings", "keep-alive", "proxy-authenticate", "proxy-authorization"];
    for name in gone.into_iter().chain(["proxy-connection"]) {
        assert!(all(fields, name).is_empty(), "{name}");
    }
    assert!(all(fields, "cookie").len() <= 1);
}

/// Where a request came from is what we saw ourselves.
fn origin(fields: &Pairs, came: &Pairs) {
    let host = all(came, "host").first().copied().unwrap_or(b"upstream").to_vec();
    assert_eq!(all(fields, "host"), [&*host]);
    for (name, _) in fields {
        let known = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"].contains(&&**name);
        assert!(known || !name.starts_with("x-forwarded-"), "{name}");
        assert!(name != "forwarded" && name != "x-real-ip");
    }
    assert_eq!(all(fields, "x-forwarded-for"), [PEER.as_bytes()]);
    assert_eq!(all(fields, "x-forwarded-proto"), [b"http"]);
    assert_eq!(all(fields, "x-forwarded-host"), [&*host]);
}

/// Who called is said once, by us, where it is known, and never by the client.
fn identity(fields: &Pairs, permit: &Permit<'_>) {
    let said: Vec<_> = fields.iter().filter(|(name, _)| folded(name).starts_with("x-scopegate-")).collect();
    let Some(caller) = &permit.caller else { return assert!(said.is_empty()) };
    assert_eq!(said.len(), 3);
    assert_eq!(all(fields, "x-scopegate-team"), [caller.team().as_bytes()]);
    assert_eq!(all(fields, "x-scopegate-key-id"), [caller.key_id().as_bytes()]);
}
