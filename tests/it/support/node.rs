//! Real chat servers in Node before a mock: one over WebSocket, one over Socket.IO.
//!
//! `fixtures/websocket-server` and `fixtures/socketio-server` say what they speak and which faults they know.

use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use super::{get, root};

/// How long a server may take to start. Node reads a few hundred files, on a machine that others load.
const PATIENCE: Duration = Duration::from_secs(60);

/// A chat server on a free port of 127.0.0.1, which ends with its test.
pub(crate) struct NodeServer {
    child: Child,
    address: SocketAddr,
    complaints: Option<JoinHandle<String>>,
}

impl NodeServer {
    /// A chat over WebSocket before the mock at `upstream`, as `http://ADDRESS`.
    pub(crate) fn websocket(upstream: &str, flags: &[&str]) -> Self {
        Self::start("websocket-server", upstream, flags)
    }

    /// A chat over Socket.IO before the mock at `upstream`, as `http://ADDRESS`.
    pub(crate) fn socketio(upstream: &str, flags: &[&str]) -> Self {
        Self::start("socketio-server", upstream, flags)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// What it has counted: connections, messages, codes with which sockets were closed.
    pub(crate) fn stats(&self) -> Value {
        serde_json::from_str(&get(&format!("http://{}", self.address), "/stats")).expect("JSON")
    }

    fn start(name: &str, upstream: &str, flags: &[&str]) -> Self {
        let folder = root().join("fixtures").join(name);
        assert!(folder.join("node_modules").is_dir(), "{name} lacks its packages: tests/run.sh installs them");
        let node = std::env::var_os("CAPACITY_CHECK_NODE").map_or_else(|| PathBuf::from("node"), PathBuf::from);
        let mut child = Command::new(node)
            .arg(folder.join("server.mjs"))
            .args(["--port", "0", "--upstream", upstream])
            .args(flags)
            .env_remove("NODE_OPTIONS")
            // It ends when this pipe does, so also with a test that is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("node runs: tests/run.sh installs it");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut stderr = child.stderr.take().expect("a pipe");
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            let _ = tell.send(line);
            // Read on, so that it never waits for a reader.
            let _ = io::copy(&mut stdout, &mut io::sink());
        });
        let complaints = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        // Whole before the wait, so that it ends also where the wait is in vain.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { child, address: nowhere, complaints: Some(complaints) };
        let line = told.recv_timeout(PATIENCE).unwrap_or_default();
        let address: Option<SocketAddr> =
            line.trim_end().strip_prefix("listening on ").and_then(|address| address.parse().ok());
        let Some(address) = address else {
            panic!("{name} does not listen but says {line:?}\n{}", server.end());
        };
        server.address = address;
        server
    }

    /// Ends it, and gives what it has said on its standard error.
    fn end(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.complaints.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for NodeServer {
    fn drop(&mut self) {
        self.end();
    }
}
