//! Certificates that change while many shake hands.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::harness::certificates::{Authority, ONE, start};
use crate::harness::eventually;
use crate::harness::handshake::{believer, serial_of};
use crate::harness::upstream::Upstream;

/// Shakes hands, asks, and gives the number of the certificate that was shown.
async fn visit(address: SocketAddr, config: &Arc<ClientConfig>) -> u64 {
    let tcp = TcpStream::connect(address).await.expect("a connection");
    let name = ServerName::try_from("a.example").expect("a name");
    let stream = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await.expect("a handshake");
    let (shown, agreed) = (serial_of(stream.get_ref().1), stream.get_ref().1.alpn_protocol() == Some(b"h2"));
    let stream = TokioIo::new(stream);
    let request = Request::get("https://a.example/health").header("host", "a.example");
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    let answer = if agreed {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = http1::handshake(stream).await.expect("HTTP/1");
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    assert_eq!(answer.expect("an answer").status(), 200);
    shown
}

#[test]
fn certificates_change_under_load_and_no_handshake_fails() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let scopegate = start(&upstream, ONE, |folder| {
        authority.make(&["a.example"], 100, |_| {}).write(folder, "a");
        fs::write(folder.join("ca.pem"), &authority.pem).expect("a file");
    });
    let (done, address) = (AtomicBool::new(false), scopegate.address);
    // Of each client, what it was shown last. Who resumes a session is shown nothing.
    let shown: [AtomicU64; 4] = Default::default();
    let configs = ["h2", "http/1.1", "h2", "http/1.1"].map(|protocol| {
        let mut config = believer(&authority, None, |_| {});
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config.resumption = Resumption::disabled();
        Arc::new(config)
    });
    let all_are_shown = |wanted: u64| {
        eventually("the new certificate", || {
            shown.iter().all(|shown| shown.load(Ordering::Relaxed) == wanted).then_some(())
        });
    };
    thread::scope(|scope| {
        let clients: Vec<_> = shown
            .iter()
            .zip(&configs)
            .map(|(shown, config)| {
                let done = &done;
                scope.spawn(move || {
                    let runtime = Runtime::new().expect("a runtime");
                    while !done.load(Ordering::Relaxed) {
                        shown.store(runtime.block_on(visit(address, config)), Ordering::Relaxed);
                    }
                })
            })
            .collect();
        all_are_shown(100);
        for serial in 101..=103 {
            // One after the other: what stands between fits nowhere, and is not used.
            let made = authority.make(&["a.example"], serial, |_| {});
            scopegate.replace("a.crt", &made.certificate);
            scopegate.replace("a.key", &made.key);
            all_are_shown(serial);
        }
        done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("no handshake fails");
        }
    });
    assert_eq!(scopegate.metric("scopegate_tls_handshakes_failed_total{reason=\"other\"}"), 0.0);
}
