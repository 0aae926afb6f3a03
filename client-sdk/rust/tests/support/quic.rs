//! The model's QUIC side: one task per connection, one per lane.

use std::sync::{Arc, Mutex, atomic::Ordering};

use bytes::Bytes;
use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, RecvStream, SendStream, TransportConfig, VarInt,
    crypto::rustls::QuicServerConfig,
};
use rustls::ServerConfig;
use talaria_protocol::{frame::FrameDecoder, session::Lane};
use tokio::{
    io::AsyncReadExt,
    sync::{mpsc, watch},
};

use super::Server;

type Tls = Box<dyn Fn() -> ServerConfig + Send + Sync>;

/// What is behind the server's UDP port.
#[derive(Clone)]
pub struct Udp {
    endpoint: Option<Endpoint>,
    tls: Arc<Tls>,
    /// Open connections.
    connections: Arc<Mutex<Vec<Connection>>>,
    /// Whether bulk streams move.
    bulk: watch::Sender<bool>,
    /// A socket that swallows.
    _socket: Option<Arc<std::net::UdpSocket>>,
}

fn config(mut tls: ServerConfig) -> quinn::ServerConfig {
    tls.max_early_data_size = u32::MAX;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let mut transport = TransportConfig::default();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(4));
    config.transport_config(Arc::new(transport));
    config
}

impl Udp {
    pub(super) fn start(server: &Server, socket: std::net::UdpSocket, serves: bool, tls: Tls) -> Self {
        let connections = Arc::<Mutex<Vec<Connection>>>::default();
        let (tls, bulk) = (Arc::new(tls), watch::channel(true).0);
        if !serves {
            return Self { endpoint: None, tls, connections, bulk, _socket: Some(Arc::new(socket)) };
        }
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint =
            Endpoint::new(EndpointConfig::default(), Some(config(tls())), socket, runtime).unwrap();
        let (server, accepting, open) = (server.clone(), endpoint.clone(), Arc::clone(&connections));
        let gate = bulk.subscribe();
        tokio::spawn(async move {
            while let Some(incoming) = accepting.accept().await {
                tokio::spawn(serve(server.clone(), incoming, Arc::clone(&open), gate.clone()));
            }
        });
        Self { endpoint: Some(endpoint), tls, connections, bulk, _socket: None }
    }

    /// Nothing moves on bulk streams, or all does again.
    pub fn hold_bulk(&self, hold: bool) {
        self.bulk.send_replace(!hold);
    }

    /// Sessions of before are not resumed any more, as after a restart: early data is refused.
    pub fn forget_sessions(&self) {
        self.endpoint.as_ref().unwrap().set_server_config(Some(config((self.tls)())));
    }

    /// Nothing that comes is answered any more.
    pub fn go_deaf(&self) {
        let nowhere = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        self.endpoint.as_ref().unwrap().rebind(nowhere).unwrap();
    }

    /// Opens streams of types that no version knows, one of them twice as long as a frame may be.
    pub async fn open_strange_streams(&self) {
        let open: Vec<_> = self.connections.lock().unwrap().clone();
        for connection in open {
            for kind in [0, 9, 200] {
                let mut stream = connection.open_uni().await.unwrap();
                stream.write_all(&[kind; 64]).await.unwrap();
                // Refused with STOP_SENDING(0x10).
                assert_eq!(stream.stopped().await.unwrap(), Some(VarInt::from_u32(0x10)));
            }
        }
    }

    /// Closes all with an error code and no frame.
    pub fn close_all(&self, code: u32) {
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.close(VarInt::from_u32(code), b"told by the code");
        }
    }
}

type Gate = watch::Receiver<bool>;

async fn serve(server: Server, incoming: Incoming, open: Arc<Mutex<Vec<Connection>>>, bulk: Gate) {
    let Ok(connecting) = incoming.accept() else { return };
    let Ok((connection, complete)) = connecting.into_0rtt() else { return };
    let is_complete = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let done = Arc::clone(&is_complete);
    tokio::spawn(async move { done.store(complete.await, Ordering::Relaxed) });
    let Ok((send, mut control)) = connection.accept_bi().await else { return };
    let mut kind = [0];
    if control.read_exact(&mut kind).await.is_err() {
        return;
    }
    assert_eq!(kind, [1], "the control stream says so");
    if control.is_0rtt() && !is_complete.load(Ordering::Relaxed) {
        server.counts.early.fetch_add(1, Ordering::Relaxed);
    }
    server.counts.quic.fetch_add(1, Ordering::Relaxed);
    open.lock().unwrap().push(connection.clone());
    let first = connection.remote_address();
    let open_gate = watch::channel(true).1;
    let lanes = [writer(send), lane(&connection, 2, open_gate), lane(&connection, 3, bulk)];
    session(&server, lanes, control).await;
    if connection.remote_address() != first {
        server.counts.moved.fetch_add(1, Ordering::Relaxed);
    }
    if let quinn::ConnectionError::ApplicationClosed(close) = connection.closed().await
        && close.error_code == VarInt::from_u32(0)
    {
        server.counts.closed_well.fetch_add(1, Ordering::Relaxed);
    }
    open.lock().unwrap().retain(|other| other.stable_id() != connection.stable_id());
}

/// Until either end has had enough.
async fn session(server: &Server, lanes: [mpsc::UnboundedSender<Bytes>; 3], mut control: RecvStream) {
    let id = server.with(|model| model.connect(server.now()));
    let mut decoder = FrameDecoder::new(1 << 14);
    let mut version = server.version.subscribe();
    loop {
        let closed = {
            let mut model = server.model.lock().unwrap();
            model.deliver();
            for lane in [Lane::Bulk, Lane::Live, Lane::Control] {
                while let Some(frame) = model.poll_lane(id, lane) {
                    let _ = lanes[lane as usize].send(frame);
                }
            }
            model.is_closed(id)
        };
        if closed {
            break;
        }
        tokio::select! {
            _ = version.changed() => {}
            read = control.read_buf(decoder.read_buf()) => {
                if !matches!(read, Ok(1..)) {
                    break;
                }
                loop {
                    decoder.set_frame_bytes_max(server.model.lock().unwrap().frame_bytes_max(id));
                    let Some(payload) = decoder.poll_frame().unwrap() else { break };
                    server.with(|model| model.handle_frame(server.now(), id, payload));
                }
            }
        }
    }
    server.with(|model| model.disconnect(id));
}

fn writer(mut stream: SendStream) -> mpsc::UnboundedSender<Bytes> {
    let (sender, mut frames) = mpsc::unbounded_channel::<Bytes>();
    tokio::spawn(async move {
        while let Some(frame) = frames.recv().await {
            if stream.write_all(&frame).await.is_err() {
                return;
            }
        }
        let _ = stream.finish();
    });
    sender
}

/// A lane's own stream, opened when there is something for it.
fn lane(connection: &Connection, kind: u8, mut gate: Gate) -> mpsc::UnboundedSender<Bytes> {
    let (sender, mut frames) = mpsc::unbounded_channel::<Bytes>();
    let connection = connection.clone();
    tokio::spawn(async move {
        let Some(first) = frames.recv().await else { return };
        let _ = gate.wait_for(|open| *open).await;
        let Ok(mut stream) = connection.open_uni().await else { return };
        let _ = stream.set_priority(if kind == 2 { 1 } else { 0 });
        if stream.write_all(&[kind]).await.is_err() || stream.write_all(&first).await.is_err() {
            return;
        }
        while let Some(frame) = frames.recv().await {
            let _ = gate.wait_for(|open| *open).await;
            if stream.write_all(&frame).await.is_err() {
                return;
            }
        }
        let _ = stream.finish();
    });
    sender
}
