//! Frames through a tunnel whose two ends are pipes in memory: what forwarding costs beside the system.

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use scopegate::forward::tunnel::{Side, run};
use scopegate::message::chunk::Chunk;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::spawn_local;

/// A whole text message of 100 bytes, masked as a client must (RFC 6455, 5.3); to the tunnel its payload is nothing but bytes.
const FRAME: [u8; 106] = {
    let mut frame = [b'x'; 106];
    (frame[0], frame[1]) = (0x81, 0x80 | 0x64);
    frame
};

/// An open tunnel, and what is outside of its ends.
pub(crate) struct Piped {
    runtime: LocalRuntime,
    client: DuplexStream,
    upstream: DuplexStream,
}

impl Piped {
    pub(crate) fn new() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .expect("a runtime");
        let (client, ours) = duplex(4096);
        let (upstream, theirs) = duplex(4096);
        let side = |socket| Side { socket, early: Bytes::new() };
        runtime.block_on(async {
            spawn_local(async move {
                run(side(ours), side(theirs), &Chunk::default(), Duration::from_secs(3600), pending()).await
            });
        });
        Self { runtime, client, upstream }
    }

    /// One frame there, and one back.
    pub(crate) fn echo(&mut self) {
        let Self { runtime, client, upstream } = self;
        runtime.block_on(async {
            let mut come = [0; FRAME.len()];
            client.write_all(&FRAME).await.expect("an open tunnel");
            upstream.read_exact(&mut come).await.expect("a frame");
            upstream.write_all(&come).await.expect("an open tunnel");
            client.read_exact(&mut come).await.expect("a frame");
            assert_eq!(come, FRAME);
        });
    }
}
