//! Health and metrics over HTTP, for operators on the same machine: `/healthz` (the process lives and its shards
//! answer), `/readyz` (clients may be sent here; JSON with the reason when not), `/metrics` (Prometheus). Read-only;
//! has a thread of its own, so that it answers while a shard is stuck.

mod listener;

use std::{future::IntoFuture, net::TcpListener, sync::Arc, thread::JoinHandle, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::sync::{mpsc, oneshot};

use crate::{lifecycle::Lifecycle, limits::PROBE, metrics::Metrics};
use listener::LimitedListener;

/// Asks a shard whether it is there.
pub type Probe = oneshot::Sender<()>;

/// Histograms are folded this often.
const UPKEEP: Duration = Duration::from_secs(5);

/// What the admin port knows.
#[derive(Clone)]
pub struct Admin {
    /// Ready or not.
    pub lifecycle: Arc<Lifecycle>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// One per shard.
    pub shards: Vec<mpsc::Sender<Probe>>,
}

impl Admin {
    /// Starts the thread. It ends when `stop` is sent or dropped.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        self,
        listener: TcpListener,
        stop: oneshot::Receiver<()>,
    ) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let served = runtime.and_then(|runtime| runtime.block_on(self.serve(listener, stop)));
            if let Err(error) = served {
                tracing::error!(%error, "the admin port is gone");
            }
        })
    }

    async fn serve(self, listener: TcpListener, stop: oneshot::Receiver<()>) -> std::io::Result<()> {
        let listener = LimitedListener::new(tokio::net::TcpListener::from_std(listener)?);
        let metrics = self.metrics.clone();
        let router = Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_text))
            .with_state(self);
        tokio::select! {
            served = axum::serve(listener, router).into_future() => served,
            () = upkeep(&metrics) => Ok(()),
            _ = stop => Ok(()),
        }
    }

    async fn shards_answer(&self) -> bool {
        for shard in &self.shards {
            let (ask, answer) = oneshot::channel();
            let asked = shard.try_send(ask).is_ok();
            if !asked || !matches!(tokio::time::timeout(PROBE, answer).await, Ok(Ok(()))) {
                return false;
            }
        }
        true
    }
}

async fn upkeep(metrics: &Metrics) {
    loop {
        tokio::time::sleep(UPKEEP).await;
        metrics.run_upkeep();
    }
}

async fn healthz(State(admin): State<Admin>) -> Response {
    if admin.shards_answer().await {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "a shard thread does not answer\n").into_response()
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let (status, body) = match admin.lifecycle.not_ready() {
        None => (StatusCode::OK, serde_json::json!({ "ready": true })),
        Some(reason) => {
            (StatusCode::SERVICE_UNAVAILABLE, serde_json::json!({ "ready": false, "reason": reason }))
        }
    };
    (status, [(CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

async fn metrics_text(State(admin): State<Admin>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], admin.metrics.render()).into_response()
}
