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
use crate::settings::Settings;
use crate::work::Workers;

/// How long an idle connection is kept, as Node's servers keep it: after a think time nearly
/// every turn must connect anew.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Serves a deployment until `shutdown` resolves; open streams are cut then.
///
/// # Errors
/// When the listener cannot be used, or a thread or the HTTP client cannot be set up.
pub async fn serve(listener: TcpListener, settings: Settings, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let workers = Workers::start(settings.workers, settings.burn)?;
    let router = router(Arc::new(App::new(settings, workers, client()?)));
    let mut connections = JoinSet::new();
    let accept = async {
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
    };
    tokio::select! {
        () = accept => {}
        () = shutdown => {}
    }
    Ok(())
}

/// The client for the model's API. Its certificates are checked against the system's authorities.
fn client() -> io::Result<reqwest::Client> {
    // Another part of the process may have chosen one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .no_proxy()
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(10))
        .build()
        .map_err(io::Error::other)
}
