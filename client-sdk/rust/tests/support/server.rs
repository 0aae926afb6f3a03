//! The model server behind real TLS, for tests of the driver alone.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

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

#[derive(Clone)]
pub struct Server {
    pub address: String,
    pub ca: String,
    pub model: Arc<Mutex<Model>>,
    origin: Instant,
    /// Counts what happened: connections look for output when it moves.
    version: watch::Sender<u64>,
}

impl Server {
    pub async fn start() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            address: listener.local_addr().unwrap().to_string(),
            ca: issuer.pem(),
            model: Arc::new(Mutex::new(Model::new(1))),
            origin: Instant::now(),
            version: watch::channel(0).0,
        };
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let serving = server.clone();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                tokio::spawn(serving.clone().serve(acceptor.clone(), tcp));
            }
        });
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
