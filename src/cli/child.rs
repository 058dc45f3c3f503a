//! The bundled mock LLM as a child process, which ends with its parent.

use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mock_llm::cli::Listening;
use url::Url;

/// How long the child may take to end by itself.
const PATIENCE: Duration = Duration::from_secs(3);

/// A running mock LLM.
pub(super) struct MockChild {
    child: Child,
    /// The base of its API, with `/v1`.
    pub(super) api: Url,
    /// Its admin listener.
    pub(super) admin: Url,
}

impl MockChild {
    /// Starts the mock on free ports of 127.0.0.1 and waits until it listens.
    ///
    /// # Errors
    /// When it cannot be started, or says something else than where it listens.
    pub(super) fn start(config: Option<&Path>) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["mock-llm", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--exit-with-stdin"]);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        // A process group of its own: Ctrl-C in the terminal must not end the mock while open
        // turns still read from it.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).env_remove("MOCK_LLM_ADMIN_TOKEN");
        let mut child = command.spawn()?;
        match listening(&mut child) {
            Ok((api, admin)) => Ok(Self { child, api, admin }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }
}

fn listening(child: &mut Child) -> io::Result<(Url, Url)> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    let silent = || io::Error::other("the mock LLM did not start; what it said stands above");
    let listening: Listening = serde_json::from_str(&line).map_err(|_| silent())?;
    let api = format!("{}/v1", listening.api).parse().map_err(|_| silent())?;
    Ok((api, listening.admin.parse().map_err(|_| silent())?))
}

impl Drop for MockChild {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Closes the child's standard input, on which it ends, and sees that it does.
fn end(child: &mut Child) {
    drop(child.stdin.take());
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(10)),
            _ => return,
        }
    }
    // It had its chance; a kill that fails means that it has just gone.
    let _ = child.kill();
    let _ = child.wait();
}
