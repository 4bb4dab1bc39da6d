//! Why and how a channel over HTTP/2 is ended by us.

use crate::channel_http2::{CANCEL, assert_open, echo, health, open, part, told};
use crate::harness::eventually;
use crate::harness::frames::{DATA, Frames, GOAWAY, Told, connect, frame, get};
use crate::harness::scopegate::{Setup, row};
use crate::harness::upstream::Upstream;

const VICTIM: &str = "sk_live_victim";
/// A whole frame of a client: what we say comes between two of them.
const FRAME: &[u8] = &[0x82, 0x83, 0, 0, 0, 0, 1, 2, 3];

#[test]
fn a_flag_that_is_turned_off_closes_it_for_good_and_nothing_beside_it() {
    let upstream = Upstream::with(echo);
    let scopegate = Setup::new(&upstream).start();
    let mut frames = open(&scopegate, &[]);
    assert_open(&mut frames, FRAME);
    scopegate.edit("scopegate.yaml", "webrtc: true", "webrtc: false");
    let (message, code) = told(&mut frames);
    assert_eq!((code, &message["error"]["code"]), (4003, &"flag_off".into()));
    part(&mut frames, code);
    frames.send(get(3, &health()));
    assert_eq!(frames.told(3), Told::Answer(200, "hello".to_owned()));
    let line = scopegate.log_line(|line| line["surface"] == "channel");
    assert_eq!((&line["reason"], &line["status"]), (&"flag_off".into(), &200.into()), "{line}");
    assert_eq!(line["detail"], "closed by scopegate with 4003");
    // And what is asked for from now on is told at once.
    frames.send(connect(5, "/ws/session?sessionId=a&token=b", &[]));
    assert_eq!(frames.begins(5), 200);
    assert!(matches!(&frames.body(5, 1)[..], [0x81]));
}

#[test]
fn a_key_that_dies_takes_its_channel_with_it() {
    let upstream = Upstream::with(echo);
    let surface =
        "surfaces:\n  calls: { access: key, upgrade: websocket, routes: { GET /ws/calls: READ_TEAM_APPS } }";
    let mut setup = Setup::new(&upstream).with("surfaces:", surface);
    setup.keys += &row(VICTIM, "acme", "READ_TEAM_APPS", "");
    let scopegate = setup.start();
    let mut frames = Frames::connect(scopegate.address, &[]);
    frames.send(connect(1, "/ws/calls", &[("x-api-key", VICTIM)]));
    assert_eq!(frames.begins(1), 200);
    assert_open(&mut frames, FRAME);
    let keys = std::fs::read_to_string(scopegate.file("keys.yaml")).expect("a file");
    let without = keys.replace(&row(VICTIM, "acme", "READ_TEAM_APPS", ""), "");
    scopegate.replace("keys.yaml", &without);
    let (message, code) = told(&mut frames);
    assert_eq!((code, &message["error"]["code"]), (4001, &"key_revoked".into()));
    part(&mut frames, code);
    let line = scopegate.log_line(|line| line["surface"] == "calls");
    assert_eq!((&line["reason"], &line["key"]), (&"key_revoked".into(), &"id-victim".into()), "{line}");
}

#[test]
fn a_drain_says_goaway_and_closes_it_with_1001() {
    let upstream = Upstream::with(echo);
    let mut scopegate = Setup::new(&upstream).with("grace: 5s", "grace: 2s").start();
    let mut frames = open(&scopegate, &[]);
    assert_open(&mut frames, FRAME);
    scopegate.signal("TERM");
    let mut goaway = false;
    let close = loop {
        let (kind, _, _, payload) = frames.next().expect("a close before the end");
        goaway |= kind == GOAWAY;
        if kind == DATA {
            break payload;
        }
    };
    assert!(goaway);
    assert_eq!(close, [0x88, 2, 3, 0xe9]);
    frames.send(frame(DATA, 0, 1, &[0x88, 0x82, 0, 0, 0, 0, 3, 0xe9]));
    while frames.next().is_some() {}
    assert_eq!(scopegate.wait_exit().code(), Some(0));
    assert_eq!(scopegate.log_line(|line| line["surface"] == "channel")["reason"], "drained");
}

#[test]
fn a_client_that_hears_no_goodbye_is_cut() {
    let upstream = Upstream::with(echo);
    let scopegate = Setup::new(&upstream).start();
    // Its window is closed: nothing of what it is told can be sent.
    let mut frames = open(&scopegate, &[0, 4, 0, 0, 0, 0]);
    frames.send(frame(DATA, 0, 1, &FRAME.repeat(1_000)));
    scopegate.edit("scopegate.yaml", "webrtc: true", "webrtc: false");
    assert_eq!(frames.told(1), Told::Reset(CANCEL));
    eventually("no open tunnel", || (scopegate.metric("scopegate_tunnels") == 0.0).then_some(()));
}
