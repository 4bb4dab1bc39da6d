//! Requests that HTTP/2 can write down and HTTP/1.1 cannot, or not in this way: none reaches the upstream as another.

use crate::attacks::gate;
use crate::attacks_bodies::mirror;
use crate::harness::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RESET, Told, block, frame, get,
};
use crate::harness::scopegate::{APPS, Setup};
use crate::harness::upstream::Upstream;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

const PROTOCOL_ERROR: u32 = 1;

/// A request for `/health` with another value for a name, or without it where that is empty.
fn with(changes: &[(&str, &[u8])]) -> Fields {
    let mut fields: Fields = Vec::new();
    for (name, value) in
        [(":method", &b"GET"[..]), (":scheme", b"http"), (":authority", b"a"), (":path", b"/health")]
    {
        let value = changes.iter().find(|(known, _)| *known == name).map_or(value, |(_, value)| value);
        if !value.is_empty() {
            fields.push((name.into(), value.to_vec()));
        }
    }
    let pseudo = |name: &str| [":method", ":scheme", ":authority", ":path"].contains(&name);
    fields.extend(
        changes
            .iter()
            .filter(|(name, _)| !pseudo(name))
            .map(|(name, value)| ((*name).into(), value.to_vec())),
    );
    fields
}

/// A request for `/health` with this field behind the others.
fn and(name: &[u8], value: &[u8]) -> Fields {
    let mut fields = with(&[]);
    fields.push((name.to_vec(), value.to_vec()));
    fields
}

/// The same, twice.
fn twice(name: &[u8], value: &[u8]) -> Fields {
    let mut fields = and(name, value);
    fields.push((name.to_vec(), value.to_vec()));
    fields
}

fn shown(fields: &Fields) -> String {
    let shown =
        |(name, value): &(Vec<u8>, Vec<u8>)| format!("{}: {}", name.escape_ascii(), value.escape_ascii());
    fields.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// The reason in an answer of ours.
fn reason(told: &Told) -> Option<(u16, String)> {
    let Told::Answer(status, body) = told else { return None };
    let json: serde_json::Value = serde_json::from_str(body).ok()?;
    Some((*status, json["error"]["code"].as_str()?.to_owned()))
}

#[test]
fn what_is_no_field_ends_the_connection() {
    let (upstream, scopegate) = gate();
    let mut cases: Vec<Fields> = Vec::new();
    let values: [&[u8]; 8] = [
        b"a\r\nx: y",
        b"a\nb",
        b"a\rb",
        b"\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"a\0b",
        b"\0",
        b"a\x01b",
        b"a\x7fb",
    ];
    cases.extend(values.map(|value| and(b"x", value)));
    let names: [&[u8]; 18] = [
        b"X",
        b"hOst",
        b"X-API-Key",
        b"",
        b"x y",
        b" x",
        b"x ",
        b"x:",
        b"x: y\r\nz",
        b"x\r\n",
        b"x\0",
        b"x\x7f",
        b"x\xc3\xa9",
        b"x(",
        b"x/",
        b":x",
        b":",
        b":Path",
    ];
    cases.extend(names.map(|name| and(name, b"y")));
    cases.extend(
        [(":method", &b"G T"[..]), (":method", b"G\r\nT"), (":path", b"/\xff"), (":authority", b"\xff")]
            .map(|change| with(&[change])),
    );
    for fields in &cases {
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send([get(1, fields), get(3, &with(&[]))].concat());
        assert_eq!(frames.told(1), Told::Goaway(PROTOCOL_ERROR), "{}", shown(fields));
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_malformed_request_ends_its_stream_and_no_other() {
    let (upstream, scopegate) = gate();
    let mut cases: Vec<Fields> = Vec::new();
    cases.extend(
        [
            (&b"connection"[..], &b"close"[..]),
            (b"connection", b"x"),
            (b"keep-alive", b"5"),
            (b"proxy-connection", b"close"),
            (b"transfer-encoding", b"chunked"),
            (b"transfer-encoding", b""),
            (b"upgrade", b"h2c"),
            (b"te", b"gzip"),
            (b"te", b"trailers, gzip"),
            (b"content-length", b"5"),
            (b"content-length", b"x"),
            (b"content-length", b"+0"),
            (b"content-length", b"-0"),
            (b"content-length", b"0, 0"),
            (b"content-length", b"18446744073709551616"),
            (b":path", b"/health"),
            (b":authority", b"a"),
            (b":method", b"GET"),
            (b":scheme", b"http"),
            (b":status", b"200"),
            (b":protocol", b"websocket"),
        ]
        .map(|(name, value)| and(name, value)),
    );
    cases.extend(
        [
            (":method", &b""[..]),
            (":scheme", b""),
            (":path", b""),
            (":scheme", b"ht tp"),
            (":scheme", b"h\0"),
            (":path", b"/hea lth"),
            (":path", b"health"),
            (":path", b"http://b/health"),
            (":path", b"/health\r\nx: y"),
            (":path", b"/health HTTP/1.1\r\nHost: b\r\n\r\n"),
            (":path", b"/\0"),
            (":path", b"/\x7f"),
            (":authority", b"a b"),
            (":authority", b"a\r\nb"),
            (":authority", b"a/b"),
        ]
        .map(|change| with(&[change])),
    );
    // Pseudo-fields twice, late, unknown, or of an answer.
    let mut late = with(&[]);
    late.insert(1, (b"x".to_vec(), b"y".to_vec()));
    cases.push(late);
    for (name, value) in [
        (":path", "/health"),
        (":path", "/"),
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "b"),
        (":status", "200"),
    ] {
        let mut fields = with(&[]);
        fields.insert(0, (name.into(), value.into()));
        cases.push(fields);
    }
    for fields in &cases {
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send([get(1, fields), get(3, &with(&[(":path", b"/health?next")]))].concat());
        assert_eq!(frames.told(1), Told::Reset(PROTOCOL_ERROR), "{}", shown(fields));
        assert_eq!(frames.told(3), Told::Answer(200, "hello".to_owned()), "{}", shown(fields));
    }
    assert!(upstream.seen().iter().all(|seen| seen.target == "/health?next"));
    assert_eq!(upstream.seen().len(), cases.len());
}

#[test]
fn what_can_be_read_is_refused_by_name() {
    let (upstream, scopegate) = gate();
    let (host, target, path) = ((400, "host_invalid"), (400, "target_invalid"), (400, "path_ambiguous"));
    let key = |value: &str| with(&[(":path", b"/api/v1/apps"), ("x-api-key", value.as_bytes())]);
    let two_hosts = twice(b"host", b"a");
    let mut two_keys = key(APPS);
    two_keys.push((b"x-api-key".to_vec(), APPS.into()));
    for (fields, told) in [
        (and(b"host", b"b"), target),
        (and(b"host", b"a:80"), target),
        (and(b"host", b""), host),
        (and(b"host", b"a, a"), host),
        (two_hosts, host),
        (with(&[(":authority", b"")]), host),
        (with(&[(":authority", b""), ("host", b"u@a")]), host),
        (with(&[(":authority", b"u@a")]), target),
        (with(&[(":authority", b"a:x")]), target),
        (with(&[(":authority", b"a:123456")]), target),
        (with(&[(":scheme", b"ftp")]), target),
        (with(&[(":scheme", b"file")]), target),
        (with(&[(":method", b"OPTIONS"), (":path", b"*")]), target),
        (with(&[(":path", b"*")]), target),
        (with(&[(":method", b"CONNECT"), (":scheme", b""), (":path", b"")]), target),
        (with(&[(":path", b"/\xc3\xa9")]), target),
        (with(&[(":path", b"//health")]), path),
        (with(&[(":path", b"/x/../health")]), path),
        (with(&[(":path", b"/api/v1/webhooks/..%2fapps")]), path),
        (with(&[(":path", b"/health%00")]), path),
        (with(&[(":method", b"get")]), (405, "method_unknown")),
        (and(b"expect", b"x"), (417, "expectation_unknown")),
        // RFC 9113, 8.2.1.
        (and(b"x", b" y"), (400, "request_invalid")),
        (and(b"\"x\"", b"y"), (400, "request_invalid")),
        (with(&[(":path", b"?x")]), (400, "target_invalid")),
        (and(b"x", b"y\t"), (400, "request_invalid")),
        // As over HTTP/1: RFC 9112, 6.3 lets one be made of two, and need not.
        (twice(b"content-length", b"0"), (400, "request_invalid")),
        (and(b"host", b"a:65536"), host),
        (with(&[(":authority", b"a..b")]), target),
        (key(&format!(" {APPS}")), (400, "request_invalid")),
        (key(&format!("{APPS}x")), (401, "key_unknown")),
        (key(&format!("{APPS} x")), (401, "key_malformed")),
        (two_keys, (401, "key_repeated")),
        (with(&[(":path", b"/api/v1/apps"), ("x_api_key", APPS.as_bytes())]), (401, "key_missing")),
        (with(&[(":path", b"/api/v1/apps"), ("cookie", APPS.as_bytes())]), (401, "key_missing")),
    ] {
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send(get(1, &fields));
        frames.send(get(3, &key(APPS)));
        let case = shown(&fields);
        let got = frames.told(1);
        assert_eq!(reason(&got), Some((told.0, told.1.to_owned())), "{case}: {got:?}");
        assert_eq!(frames.told(3), Told::Answer(200, "hello".to_owned()), "{case}");
    }
    assert!(
        upstream
            .seen()
            .iter()
            .all(|seen| seen.target == "/api/v1/apps" && seen.header("x-api-key") == Some(APPS))
    );
    // A proxy in front of us may have ended TLS, and what the parser cuts off the upstream does not see.
    let before = upstream.seen().len();
    for fields in [
        with(&[(":scheme", b"https")]),
        with(&[(":path", b"/health#x")]),
        and(b"host", b"a"),
        with(&[(":authority", b""), ("host", b"a")]),
        and(b"te", b"trailers"),
        and(b"x", b"\xff"),
    ] {
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send(get(1, &fields));
        assert_eq!(frames.told(1), Told::Answer(200, "hello".to_owned()), "{}", shown(&fields));
    }
    assert!(
        upstream.seen().iter().skip(before).all(|seen| seen.header("host") == Some("a")),
        "{:?}",
        upstream.seen()
    );
}

#[test]
fn a_channel_has_one_way_in() {
    let (upstream, scopegate) = gate();
    let session: &[u8] = b"/ws/session?sessionId=s&token=t";
    for (fields, status) in [
        (with(&[(":method", b"GET"), (":protocol", b"websocket"), (":path", session)]), None),
        (with(&[(":method", b"CONNECT"), (":scheme", b"")]), None),
        (with(&[(":path", session), ("sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")]), Some(426)),
    ] {
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send(get(1, &fields));
        let told = frames.told(1);
        match status {
            None => assert_eq!(told, Told::Reset(PROTOCOL_ERROR), "{}", shown(&fields)),
            Some(status) => assert_eq!(reason(&told).expect("an answer").0, status, "{}", shown(&fields)),
        }
    }
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_body_is_as_long_as_its_head_says_or_is_none() {
    let upstream = mirror();
    let scopegate = Setup::new(&upstream).start();
    let post = |length: &[u8]| {
        let changes =
            [(":method", &b"POST"[..]), (":path", b"/api/v1/webhooks/a"), ("content-length", length)];
        block(&with(if length.is_empty() { &changes[..2] } else { &changes }))
    };
    let trailers =
        |flags: u8, fields: &[(&str, &str)]| frame(HEADERS, END_HEADERS | flags, 1, &block(fields));
    let (all, part) = (|text: &[u8]| frame(DATA, END_STREAM, 1, text), |text: &[u8]| frame(DATA, 0, 1, text));
    for (head, rest) in [
        (post(b"5"), all(b"hi")),
        (post(b"5"), all(b"")),
        (post(b"1"), all(b"hi")),
        (post(b"0"), all(b"hi")),
        (post(b"5"), [part(b"hello"), all(b"!")].concat()),
        (post(b"5"), [part(b"hi"), trailers(END_STREAM, &[("x", "y")])].concat()),
        (post(b""), [part(b"hi"), trailers(0, &[("x", "y")])].concat()),
        (post(b""), [part(b"hi"), trailers(END_STREAM, &[("X", "y")])].concat()),
        (post(b""), [part(b"hi"), trailers(END_STREAM, &[("x", "a\r\nb")])].concat()),
        (post(b""), [part(b"hi"), trailers(END_STREAM, &[("connection", "x")])].concat()),
        (post(b""), frame(DATA, END_STREAM | 8, 1, &[9, b'h', b'i'])),
        (post(b""), [part(b"hi"), frame(RESET, 0, 1, &[0, 0, 0, 8])].concat()),
    ] {
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send([frame(HEADERS, END_HEADERS, 1, &head), rest.clone()].concat());
        if !rest.ends_with(&frame(RESET, 0, 1, &[0, 0, 0, 8])) {
            let told = frames.told(1);
            assert!(matches!(told, Told::Reset(_) | Told::Goaway(_)), "{}: {told:?}", rest.escape_ascii());
        }
    }
    assert!(upstream.seen().iter().all(|seen| seen.method == "CUT"), "{:?}", upstream.seen());
    // All that stands behind a body passes, or nothing of it.
    let (long, small) = ("y".repeat(1_000), "y".to_owned());
    for (count, value) in [(33, &long), (65, &small), (70, &long), (300, &long), (10_000, &small)] {
        let mut frames = Frames::connect(scopegate.address, &[]);
        let fields = block(&vec![("x-sum", value.as_str()); count]);
        frames.send([frame(HEADERS, END_HEADERS, 1, &post(b"")), part(b"hi")].concat());
        let pieces: Vec<_> = fields.chunks(16_000).collect();
        for (place, piece) in pieces.iter().enumerate() {
            let (kind, ends) = if place == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
            let whole = if place + 1 == pieces.len() { END_HEADERS } else { 0 };
            frames.try_send(frame(kind, ends | whole, 1, piece));
        }
        let told = frames.told(1);
        if count == 33 {
            let Told::Answer(200, body) = told else { panic!("{told:?}") };
            assert_eq!(body.matches("x-sum").count(), 33);
        } else {
            assert!(!matches!(told, Told::Answer(200, _)), "{count} fields: {told:?}");
        }
    }
    // What may not stand behind a body over HTTP/1.1 may not either here.
    let mut frames = Frames::connect(scopegate.address, &[]);
    frames.send(frame(HEADERS, END_HEADERS, 1, &post(b"")));
    let fields = [
        (":path", "evil"),
        ("x-scopegate-team", "evil"),
        ("x_scopegate_team", "evil"),
        ("authorization", "evil"),
        ("host", "evil"),
        ("content-length", "2"),
        ("x\"", "evil"),
        ("x-sum", "1"),
    ];
    frames.send([part(b"hi"), trailers(END_STREAM, &fields)].concat());
    assert_eq!(frames.told(1), Told::Answer(200, "hi|x-sum: 1".to_owned()));
}

#[test]
fn an_answer_that_was_cut_short_is_reset_and_never_ended() {
    for (text, length) in [
        ("Content-Length: 10\r\n\r\nhalf", true),
        ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", true),
        ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n", false),
        ("Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nno colon\r\n\r\n", false),
    ] {
        let upstream =
            Upstream::with(move |exchange| exchange.write(format!("HTTP/1.1 200 OK\r\n{text}")) && !length);
        let scopegate = Setup::new(&upstream).start();
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send(get(1, &with(&[])));
        assert!(matches!(frames.told(1), Told::Reset(_)), "{text}");
    }
}
