//! WebSocket on both sides of scopegate.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use super::script::Script;
use super::soon;

/// One end of a channel.
pub(crate) type Channel = WebSocketStream<TcpStream>;

/// What the SDK asks for.
pub(crate) const SESSION: &str = "/ws/session?sessionId=s%2D1&token=t0k3n";

/// Opens a channel; an HTTP answer instead is an error that holds it.
pub(crate) async fn open(address: SocketAddr, target: &str) -> Result<Channel, Error> {
    let stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
    let mut request = format!("ws://api.example{target}").into_client_request().unwrap();
    request.headers_mut().insert("origin", "https://app.example".parse().unwrap());
    soon("a handshake", client_async(request, stream)).await.map(|(channel, _)| channel)
}

/// An upstream that takes every channel, sends texts back, and closes on the order `close:CODE:REASON`.
pub(crate) async fn upstream() -> Script {
    Script::start(|line| async move {
        let mut channel = accept_async(line.stream).await.unwrap();
        while let Some(Ok(message)) = channel.next().await {
            let Message::Text(text) = &message else { continue };
            let Some(order) = text.strip_prefix("close:") else {
                channel.send(message).await.unwrap();
                continue;
            };
            let (code, reason) = order.split_once(':').unwrap();
            let code = code.parse::<u16>().unwrap().into();
            channel.close(Some(CloseFrame { code, reason: reason.into() })).await.unwrap();
        }
    })
    .await
}

/// Sends a text and waits for the next one.
pub(crate) async fn say(channel: &mut Channel, text: &str) -> String {
    channel.send(Message::text(text)).await.unwrap();
    heard(channel).await
}

/// The next text.
pub(crate) async fn heard(channel: &mut Channel) -> String {
    match soon("a message", channel.next()).await {
        Some(Ok(Message::Text(text))) => text.to_string(),
        other => panic!("no text: {other:?}"),
    }
}

/// The close frame that comes next: code and reason.
pub(crate) async fn closed(channel: &mut Channel) -> (u16, String) {
    match soon("a close", channel.next()).await {
        Some(Ok(Message::Close(Some(frame)))) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("no close: {other:?}"),
    }
}
