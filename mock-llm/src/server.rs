//! Listeners and threads: who accepts, who serves, how it ends.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::sync::{mpsc, watch};

use crate::admin::Admin;
use crate::api::{self, Connection};
use crate::behaviour::Behaviour;
use crate::clock::{WallClock, Wrong};
use crate::receive::stamp_arrivals;
use crate::schedule::Schedule;
use crate::socket::{Line, Socket};
use crate::state::State;

/// What a server may be told besides its behaviour.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The bearer token of the admin listener; needed where that is not on loopback.
    pub admin_token: Option<String>,
    /// How wrong its wall clock is.
    pub clock: Wrong,
}

/// Serves until `shutdown` resolves: chat on `api_listener`, everything else on `admin_listener`.
///
/// Streams are served by `behaviour.threads` threads, connections dealt out in turn; the
/// calling task accepts and answers admin requests. On shutdown open streams are cut.
///
/// # Errors
/// When a listener cannot be used, a thread cannot be started, or the admin listener is not on
/// loopback and has no token.
pub async fn serve(
    api_listener: TcpListener,
    admin_listener: TcpListener,
    behaviour: Behaviour,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    if options.admin_token.is_none() && !admin_listener.local_addr()?.ip().is_loopback() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the admin listener is not on loopback and has no token; set MOCK_LLM_ADMIN_TOKEN",
        ));
    }
    let threads = behaviour.threads;
    let state = Arc::new(State::new(behaviour, WallClock::new(options.clock)));
    let (stop, stopped) = watch::channel(());
    let mut workers = Vec::with_capacity(threads);
    let mut joins = Vec::with_capacity(threads);
    for number in 0..threads {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (state, stopped) = (Arc::clone(&state), stopped.clone());
        let thread = std::thread::Builder::new().name(format!("mock-llm-{number}"));
        joins.push(thread.spawn(move || worker(state, receiver, stopped))?);
        workers.push(sender);
    }
    let admin = Rc::new(Admin { state, token: options.admin_token });
    let served = tokio::task::LocalSet::new()
        .run_until(async {
            tokio::select! {
                result = accept_api(api_listener, &workers) => result,
                result = serve_admin(admin_listener, admin) => result,
                () = shutdown => Ok(()),
            }
        })
        .await;
    drop(stop);
    drop(workers);
    for join in joins {
        if join.join().is_err() {
            return Err(io::Error::other("a serving thread panicked"));
        }
    }
    served
}

/// Accepts connections and deals them out in turn.
async fn accept_api(listener: TcpListener, workers: &[mpsc::UnboundedSender<std::net::TcpStream>]) -> io::Result<()> {
    stamp_arrivals(&listener)?;
    let listener = asynchronous(listener)?;
    for number in 0_usize.. {
        let stream = accept(&listener).await.into_std()?;
        // A worker is gone only while everything ends.
        let _ = workers[number % workers.len()].send(stream);
    }
    Ok(())
}

async fn serve_admin(listener: TcpListener, admin: Rc<Admin>) -> io::Result<()> {
    let listener = asynchronous(listener)?;
    loop {
        let socket = Socket::new(accept(&listener).await.into_std()?, Rc::default())?;
        let admin = Rc::clone(&admin);
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let admin = Rc::clone(&admin);
                async move { Ok::<_, std::convert::Infallible>(admin.handle(request).await) }
            });
            // A caller that goes away in mid-answer is its own affair.
            let _ = http1::Builder::new().serve_connection(socket, service).await;
        });
    }
}

fn asynchronous(listener: TcpListener) -> io::Result<tokio::net::TcpListener> {
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

/// Accepts the next connection; out of descriptors it waits for some to come back.
async fn accept(listener: &tokio::net::TcpListener) -> tokio::net::TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// One serving thread: its own runtime, its own deadline heap.
fn worker(
    state: Arc<State>,
    mut connections: mpsc::UnboundedReceiver<std::net::TcpStream>,
    mut stopped: watch::Receiver<()>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    // Without a runtime the receiver drops, and the peer sees its connection closed.
    let Ok(runtime) = runtime else { return };
    runtime.block_on(async move {
        let schedule = Schedule::default();
        tokio::task::spawn_local(schedule.clone().run());
        loop {
            let stream = tokio::select! {
                stream = connections.recv() => stream,
                // The sender is dropped to stop.
                _ = stopped.changed() => None,
            };
            let Some(stream) = stream else { return };
            let line = Rc::new(Line::default());
            let connection =
                Connection { state: Arc::clone(&state), schedule: schedule.clone(), line: Rc::clone(&line) };
            let Ok(socket) = Socket::new(stream, line) else { continue };
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| api::handle(request, connection.clone()));
                // How a connection ended stands in the journal of its requests.
                let _ = http1::Builder::new().max_buf_size(16 << 10).serve_connection(socket, service).await;
            });
        }
    });
}
