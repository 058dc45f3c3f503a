//! The listener and its connections.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tower_service::Service as _;

use crate::api::{Peer, router};
use crate::app::App;
use crate::metrics::Metrics;
use crate::plant::{AS_USUAL, Plant};
use crate::settings::Settings;
use crate::store::{StoreError, Stores};
use crate::work::Workers;

/// How long an idle connection is kept, as Node's servers keep it: after a think time nearly
/// every turn must connect anew.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Opens the stores, then serves a deployment until `shutdown` resolves; open streams are cut
/// then, and what was planted in a store is taken back.
///
/// # Errors
/// When a store or the listener cannot be used, or a thread or the HTTP client cannot be set up.
pub async fn serve(listener: TcpListener, settings: Settings, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let opened = Box::pin(Opened::new(settings)).await?;
    opened.serve(listener, shutdown).await
}

/// A deployment whose stores have answered, before it takes requests.
pub(crate) struct Opened {
    settings: Settings,
    stores: Stores,
    metrics: Arc<Metrics>,
}

impl Opened {
    /// Opens the stores that the settings name.
    pub(crate) async fn new(settings: Settings) -> Result<Self, StoreError> {
        choose_cryptography();
        let metrics = Arc::new(Metrics::default());
        let stores = Stores::open(&settings, &metrics).await?;
        Ok(Self { settings, stores, metrics })
    }

    /// Gives the stores up before anything was served.
    pub(crate) async fn close(self) -> Result<(), StoreError> {
        self.stores.close().await
    }

    /// Serves until `shutdown` resolves, then closes the stores.
    pub(crate) async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let (listener, workers, client) = match self.prepare(listener) {
            Ok(prepared) => prepared,
            Err(error) => {
                // The first error is the one that is told.
                let _ = self.stores.close().await;
                return Err(error);
            }
        };
        let app = Arc::new(App::new(self.settings, workers, client, self.stores, self.metrics));
        let mut connections = JoinSet::new();
        tokio::select! {
            () = accept(listener, router(Arc::clone(&app)), &mut connections) => {}
            () = shutdown => {}
        }
        connections.shutdown().await;
        app.end_tasks().await;
        Ok(app.stores.close().await?)
    }

    fn prepare(&self, listener: TcpListener) -> io::Result<(tokio::net::TcpListener, Workers, reqwest::Client)> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let first = self.settings.plants.iter().find_map(|plant| match plant {
            Plant::WorkerCost(per_mille) => Some(*per_mille),
            _ => None,
        });
        let first = first.unwrap_or(AS_USUAL);
        let workers = Workers::start(self.settings.workers, self.settings.burn, first, &self.metrics.lag)?;
        Ok((listener, workers, client()?))
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        Self::other(error)
    }
}

async fn accept(listener: tokio::net::TcpListener, router: axum::Router, connections: &mut JoinSet<()>) {
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            // Out of descriptors: wait for some to come back.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        // A connection that is gone already fails on its first read.
        let _ = stream.set_nodelay(true);
        let router = router.clone();
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(Peer(address.ip()));
            router.clone().call(request)
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).header_read_timeout(KEEP_ALIVE);
        // How a connection ended is its peer's affair.
        connections.spawn(async move { drop(server.serve_connection(TokioIo::new(stream), service).await) });
        while connections.try_join_next().is_some() {}
    }
}

/// Another part of the process may have chosen one already.
fn choose_cryptography() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The client for the model's API. Its certificates are checked against the system's authorities.
fn client() -> io::Result<reqwest::Client> {
    reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(10))
        .build()
        .map_err(io::Error::other)
}
