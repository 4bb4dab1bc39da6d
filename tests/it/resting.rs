//! A connection on which nothing is asked is taken apart; nobody may notice.

use std::io::{ErrorKind, Read as _};
use std::time::Duration;

use crate::harness::client::{Client, request};
use crate::harness::scopegate::Setup;
use crate::harness::upstream::Upstream;

/// Longer than it takes to be taken apart.
const A_WHILE: Duration = Duration::from_millis(400);

/// Nothing comes for a while, and the connection stays open.
fn silence(client: &mut Client) {
    let limit = |limit| client.stream.get_ref().set_read_timeout(limit).expect("a timeout");
    limit(Some(A_WHILE));
    let read = client.stream.get_ref().read(&mut [0]);
    assert!(
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
        "it stays open, and says nothing"
    );
    limit(Some(crate::harness::PATIENCE));
}

#[test]
fn it_goes_on_where_it_was() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    silence(&mut client);
    for _ in 0..2 {
        assert_eq!(client.ask(request("GET", "/health", "", "")).status, 200);
        silence(&mut client);
    }
    client.send("GET /health HTTP/1.1\r\nHo");
    silence(&mut client);
    client.send("st: a\r\n\r\n");
    assert_eq!(client.answer(false).status, 200);
    silence(&mut client);
    client.send("P");
    silence(&mut client);
    client.send("OST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nha");
    silence(&mut client);
    client.send("lf");
    assert_eq!(client.answer(false).status, 200);
    assert_eq!(upstream.seen().last().expect("the last").body, b"half");
}

#[test]
fn a_slow_upstream_is_waited_for() {
    let upstream = Upstream::with(|exchange| {
        let _ = exchange.stream.get_ref().set_read_timeout(Some(A_WHILE));
        let _ = exchange.stream.get_ref().read(&mut [0]);
        exchange.reply("200 OK", "", "late")
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    for _ in 0..2 {
        assert_eq!(client.ask(request("GET", "/health", "", "")).text(), "late");
    }
}

#[test]
fn a_client_that_does_not_read_for_a_while_gets_all_of_its_answer() {
    let whole = "x".repeat(8 << 20);
    let long = whole.clone();
    let upstream = Upstream::with(move |exchange| exchange.reply("200 OK", "", &long));
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/health", "", ""));
    let mut other = Client::connect(scopegate.address);
    silence(&mut other);
    let answer = client.answer(false);
    assert!(answer.whole && answer.text() == whole, "{} bytes", answer.text().len());
    assert_eq!(client.ask(request("GET", "/health", "", "")).status, 200);
}
