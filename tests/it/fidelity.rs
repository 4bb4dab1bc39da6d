//! What passes arrives as it was sent, byte for byte, both ways.

use crate::harness::bearer;
use crate::harness::client::{Client, get, request};
use crate::harness::scopegate::{ALL, Setup};
use crate::harness::upstream::Upstream;

#[test]
fn a_target_goes_on_as_it_came() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    for target in [
        "/api/v1/webhooks?",
        "/api/v1/webhooks/a?b?c=d&&e=%zz&f=%2F%2f",
        "/api/v1/webhooks/a?x=[1]{2}|3^4`5",
        "/api/v1/webhooks/%E2%82%AC/~!$&'()*+,:@=-._",
        "/api/v1/webhooks/a?q=../../etc&r=//x",
        "/api/v1/webhooks/a/",
    ] {
        assert_eq!(get(scopegate.address, target, "").status, 200, "{target}");
        assert_eq!(upstream.seen().pop().expect("a request").target, target);
    }
}

#[test]
fn header_values_and_repeated_headers_pass_both_ways() {
    let upstream = Upstream::with(|exchange| {
        exchange.reply(
            "299 Very Own",
            "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nX-Odd: \t(a), \"b\" ;\r\nVary: origin\r\nVary: accept\r\n\
             WWW-Authenticate: Basic realm=\"theirs\"\r\nServer: Theirs/1\r\nDate: Tue, 24 Nov 2026 10:00:00 GMT\r\n\
             Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n\
             Scopegate-Reason: forged\r\nX-Request-Id: theirs\r\n",
            "hello",
        )
    });
    let scopegate = Setup::new(&upstream).start();
    let long = "v".repeat(30_000);
    let headers =
        format!("{}X-Twice: 1\r\nX-Other: y\r\nX-Twice: 2\r\nX-Long: {long}\r\nX-Empty:\r\n", bearer(ALL));
    let answer = get(scopegate.address, "/api/v1/apps", &headers);
    let seen = upstream.nth(0);
    let all = |name: &str| {
        let values = seen.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        values.map(|(_, value)| value.clone()).collect::<Vec<_>>()
    };
    assert_eq!(all("x-twice"), ["1", "2"]);
    assert_eq!((all("x-long"), all("x-empty")), (vec![long], vec![String::new()]));
    let all = |name: &str| {
        let values = answer.headers.iter().filter(|(known, _)| known == name);
        values.map(|(_, value)| value.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(answer.status, 299);
    assert_eq!(all("set-cookie"), ["a=1; Path=/", "b=2"]);
    assert_eq!(all("vary"), ["origin", "accept"]);
    assert_eq!(all("x-odd"), ["(a), \"b\" ;"]);
    assert_eq!(all("www-authenticate"), ["Basic realm=\"theirs\""]);
    assert_eq!((all("server"), all("date")), (vec!["Theirs/1"], vec!["Tue, 24 Nov 2026 10:00:00 GMT"]));
    for hop in ["x-hop", "keep-alive", "proxy-authenticate", "scopegate-reason"] {
        assert!(all(hop).is_empty(), "{hop}: {answer:?}");
    }
    let ids = all("x-request-id");
    assert_eq!(ids.len(), 1);
    assert_ne!(ids, ["theirs"]);
}

#[test]
fn bytes_outside_of_ascii_in_header_values_pass_both_ways() {
    let upstream = Upstream::with(|exchange| {
        exchange.read_body();
        exchange
            .write([b"HTTP/1.1 200 OK\r\nX-Odd: \xe9\xff\r\nContent-Length: 0\r\n\r\n".as_slice()].concat())
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send(b"GET /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nX-Odd: \xe9\xff\r\n\r\n");
    let mut answer = [0; 512];
    let count = std::io::Read::read(&mut client.stream, &mut answer).expect("an answer");
    assert!(answer[..count].windows(2).any(|two| two == b"\xe9\xff"), "{:?}", &answer[..count]);
}

#[test]
fn the_framing_of_a_body_stays_what_it_was() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let head =
        |method: &str, more: &str| format!("{method} /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\n{more}\r\n");
    let cases = [
        (head("GET", ""), None, None, ""),
        (head("DELETE", ""), None, None, ""),
        (head("POST", "Content-Length: 0\r\n"), Some("0"), None, ""),
        (head("POST", "Content-Length: 2\r\n") + "hi", Some("2"), None, "hi"),
        (head("GET", "Content-Length: 2\r\n") + "hi", Some("2"), None, "hi"),
        (
            head("POST", "Transfer-Encoding: chunked\r\n") + "2\r\nhi\r\n0\r\n\r\n",
            None,
            Some("chunked"),
            "hi",
        ),
        (head("POST", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", None, Some("chunked"), ""),
    ];
    for (bytes, length, encoding, body) in cases {
        let mut client = Client::connect(scopegate.address);
        assert_eq!(client.ask(&bytes).status, 200, "{bytes}");
        let seen = upstream.seen().pop().expect("a request");
        assert_eq!(
            (seen.header("content-length"), seen.header("transfer-encoding"), &*seen.body),
            (length, encoding, body.as_bytes()),
            "{bytes}"
        );
        assert_eq!(client.ask(request("GET", "/health", "", "")).status, 200, "the connection goes on");
    }
}

#[test]
fn an_answer_without_a_length_ends_with_its_connection() {
    let upstream = Upstream::with(|exchange| {
        exchange.last("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it")
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    for _ in 0..2 {
        let answer = client.ask(request("GET", "/health", "", ""));
        assert_eq!((answer.status, answer.whole, &*answer.text()), (200, true, "all of it"));
    }
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_large_body_arrives_whole_both_ways() {
    let upstream = Upstream::with(|exchange| {
        exchange.read_body();
        let body = exchange.request.body.clone();
        exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()));
        exchange.write(body)
    });
    let scopegate = Setup::new(&upstream).start();
    let body: String = (0..400_000).map(|number| format!("{number:07}\n")).collect();
    let mut client = Client::connect(scopegate.address);
    let answer = client.ask(request("POST", "/api/v1/webhooks/a", "", &body));
    assert!(answer.body == body.as_bytes(), "{} of {} bytes", answer.body.len(), body.len());
    let line = scopegate.log_line(|line| line["surface"] == "webhooks");
    assert_eq!((line["received"].as_u64(), line["sent"].as_u64()), (Some(3_200_000), Some(3_200_000)));
}

#[test]
fn many_clients_at_once_each_get_their_own_answer() {
    const CLIENTS: usize = 40;
    const EACH: usize = 25;
    let upstream = Upstream::with(|exchange| {
        let target = exchange.request.target.clone();
        exchange.reply("200 OK", "", &target)
    });
    let scopegate = Setup::new(&upstream).with("workers: 1", "workers: 3").start();
    let address = scopegate.address;
    let clients = (0..CLIENTS).map(|client| {
        std::thread::spawn(move || {
            let mut connection = Client::connect(address);
            for number in 0..EACH {
                let target = format!("/api/v1/apps/{client}/{number}");
                let answer = connection.ask(request("GET", &target, &bearer(ALL), ""));
                assert_eq!((answer.status, answer.text()), (200, target));
            }
        })
    });
    clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().expect("a client"));
    let counted = r#"scopegate_requests_total{method="GET",reason="passed",route="/api/v1/apps/**",status="2xx",surface="sdk"}"#;
    crate::harness::eventually("all of them counted", || {
        (scopegate.metric(counted) == (CLIENTS * EACH) as f64).then_some(())
    });
    assert!(
        upstream.connections() <= CLIENTS,
        "{} connections for {CLIENTS} clients",
        upstream.connections()
    );
}
