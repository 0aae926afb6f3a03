//! The model server behind real TLS over TCP and behind QUIC, for tests of the driver alone.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

#[path = "quic.rs"]
mod quic;

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, version::TLS13};
use rustls_pki_types::PrivatePkcs8KeyDer;
use talaria_protocol::{frame::FrameDecoder, limits::ALPN, session::Millis};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use super::model::Model;

/// What the server's UDP port does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Udp {
    Quic,
    /// It takes packets and says nothing, as a firewall does.
    Swallows,
    /// Nobody is there.
    Closed,
}

/// What came.
#[derive(Default)]
pub struct Counts {
    pub tcp: AtomicU32,
    pub quic: AtomicU32,
    /// Hellos that came before the handshake's end.
    pub early: AtomicU32,
    /// Connections whose peer moved to another address.
    pub moved: AtomicU32,
    /// Connections that the client closed with code 0.
    pub closed_well: AtomicU32,
}

#[derive(Clone)]
pub struct Server {
    pub address: String,
    pub counts: Arc<Counts>,
    pub udp: Option<quic::Udp>,
    pub ca: String,
    pub model: Arc<Mutex<Model>>,
    origin: Instant,
    /// Counts what happened: connections look for output when it moves.
    version: watch::Sender<u64>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(Udp::Quic).await
    }

    pub async fn start_with(udp: Udp) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &issuer).unwrap();
        let chain = vec![leaf.der().clone()];
        let tls = move || {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let key = PrivatePkcs8KeyDer::from(key.serialize_der());
            let mut tls = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&[&TLS13])
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(chain.clone(), key.into())
                .unwrap();
            tls.alpn_protocols = vec![ALPN.to_vec()];
            tls
        };
        let (listener, socket) = bind(udp).await;
        let mut server = Self {
            address: listener.local_addr().unwrap().to_string(),
            counts: Arc::default(),
            udp: None,
            ca: issuer.pem(),
            model: Arc::new(Mutex::new(Model::new(1))),
            origin: Instant::now(),
            version: watch::channel(0).0,
        };
        let acceptor = TlsAcceptor::from(Arc::new(tls()));
        let serving = server.clone();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tokio::spawn(serving.clone().serve(acceptor.clone(), tcp));
            }
        });
        server.udp = socket.map(|socket| quic::Udp::start(&server, socket, udp == Udp::Quic, Box::new(tls)));
        server
    }

    fn now(&self) -> Millis {
        Millis::default().after(self.origin.elapsed())
    }

    /// Changes the model and lets everybody see.
    pub fn with<T>(&self, change: impl FnOnce(&mut Model) -> T) -> T {
        let result = change(&mut self.model.lock().unwrap());
        self.version.send_modify(|version| *version += 1);
        result
    }

    async fn serve(self, acceptor: TlsAcceptor, tcp: TcpStream) {
        let Ok(mut stream) = acceptor.accept(tcp).await else { return };
        self.counts.tcp.fetch_add(1, Ordering::Relaxed);
        let id = self.with(|model| model.connect(self.now()));
        let mut decoder = FrameDecoder::new(1 << 14);
        let mut version = self.version.subscribe();
        loop {
            let mut output = Vec::new();
            let closed = {
                let mut model = self.model.lock().unwrap();
                model.deliver();
                while let Some(frame) = model.poll_transmit(id) {
                    output.extend_from_slice(&frame);
                }
                model.is_closed(id)
            };
            if stream.write_all(&output).await.is_err() || stream.flush().await.is_err() || closed {
                break;
            }
            tokio::select! {
                _ = version.changed() => {}
                read = stream.read_buf(decoder.read_buf()) => {
                    if !matches!(read, Ok(1..)) {
                        break;
                    }
                    loop {
                        decoder.set_frame_bytes_max(self.model.lock().unwrap().frame_bytes_max(id));
                        let Some(payload) = decoder.poll_frame().unwrap() else { break };
                        self.with(|model| model.handle_frame(self.now(), id, payload));
                    }
                }
            }
        }
        let _ = stream.shutdown().await;
        self.with(|model| model.disconnect(id));
    }
}

/// The same port of both kinds.
async fn bind(udp: Udp) -> (TcpListener, Option<std::net::UdpSocket>) {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if udp == Udp::Closed {
            return (listener, None);
        }
        if let Ok(socket) = std::net::UdpSocket::bind(listener.local_addr().unwrap()) {
            return (listener, Some(socket));
        }
    }
}
