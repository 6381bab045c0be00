//! One client connection after its upgrade: a single task that reads requests, works them off one
//! at a time, writes answers and events in the order of the connection's queue, pings, and gives
//! the session up when the connection ends. It never waits for one of these while another could go
//! on, so a slow session delays no pong and a slow reader no other client.

mod bridge;
mod call;
mod connection;
mod crash;
mod dtmf;
mod endpoint;
pub mod envelope;
mod method;
mod params;
mod playback;
mod recording;
mod session;
mod stats;
mod vad;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use rtpbridge_shared::id::SessionId;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use self::connection::Connection;
use crate::app::App;
use crate::event::queue::{Capacity, Mailbox};
use crate::session::admission::Slot;

/// Small, because most connections are idle most of the time; larger messages take more reads.
const READ_BUFFER_BYTES: usize = 2 * 1024;
/// For the closing handshake (RFC 6455 section 7).
const FAREWELL: Duration = Duration::from_millis(500);

/// Runs the connection to its end. `attach` names an orphaned session to claim at once.
pub async fn serve(
    app: Arc<App>,
    stream: TcpStream,
    read_ahead: Bytes,
    slot: Slot,
    attach: Option<SessionId>,
) {
    let mailbox = Arc::new(Mailbox::new(Capacity {
        events: app.config.event_channel_size,
        critical: app.config.critical_event_channel_size,
    }));
    let entered = slot.enter(&mailbox);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(app.config.ws_max_message_bytes))
        .max_frame_size(Some(app.config.ws_max_message_bytes));
    let socket = if read_ahead.is_empty() {
        WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
    } else {
        let part = read_ahead.to_vec();
        WebSocketStream::from_partially_read(stream, part, Role::Server, Some(config)).await
    };
    let mut connection = Connection::new(app, socket, mailbox);
    if let Some(session) = attach {
        connection.attach(session);
    }
    let ending = connection.run().await;
    connection.give_up(ending);
    // A peer that does not take part in the closing handshake is dropped all the same.
    let _ = timeout(FAREWELL, connection.close(ending)).await;
    drop(connection);
    drop(entered);
}
