//! The bundled mock LLM and the reference deployment as child processes, which end with their parent.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mock_llm::behaviour::Behaviour;
use mock_llm::distribution::{Distribution, Written};
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;
use url::Url;

use super::console::Console;
use crate::scenario::Reference;
use crate::secret::Secret;

/// How long the child may take to end by itself, and one that has real stores to clean up.
const PATIENCE: Duration = Duration::from_secs(3);
const CLEANING: Duration = Duration::from_secs(30);

/// A child of ours: this program with a subcommand.
struct Own {
    child: Child,
    patience: Duration,
    /// What may be left behind where it does not end by itself.
    leaves: Option<String>,
}

impl Own {
    /// Starts a subcommand and reads the one line in which it says where it listens.
    fn start<L: DeserializeOwned>(name: &str, arrange: impl FnOnce(&mut Command)) -> io::Result<(Self, L)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([name, "--exit-with-stdin"]);
        for variable in ["MOCK_LLM_ADMIN_TOKEN", "OPENAI_API_KEY", "JWT_SECRET", "METRICS_SECRET"] {
            command.env_remove(variable);
        }
        arrange(&mut command);
        // A process group of its own: Ctrl-C in the terminal must not end the child while open
        // turns still read from it.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut own = Self { child: command.spawn()?, patience: PATIENCE, leaves: None };
        let mut line = String::new();
        if let Some(stdout) = own.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let listening =
            serde_json::from_str(&line).map_err(|_| io::Error::other("it did not start; what it said stands above"))?;
        Ok((own, listening))
    }
}

/// Reads a URL that a child has told.
fn told(text: &str) -> io::Result<Url> {
    text.parse().map_err(|_| io::Error::other(format!("{text} is no URL")))
}

impl Drop for Own {
    /// Closes the child's standard input, on which it ends, and sees that it does.
    fn drop(&mut self) {
        let Self { child, patience, leaves } = self;
        drop(child.stdin.take());
        let deadline = Instant::now() + *patience;
        while Instant::now() < deadline {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                _ => return,
            }
        }
        if let Some(leaves) = leaves {
            Console { json: true }.complain(&format!(
                "the embedded deployment did not end in {} s and is killed; what may be left: {leaves}",
                patience.as_secs()
            ));
        }
        // It had its chance; a kill that fails means that it has just gone.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The bundled mock LLM.
pub(super) struct Mock {
    /// The base of its API, without `/v1`.
    pub(super) api: Url,
    /// Its admin listener.
    pub(super) admin: Url,
    _own: Own,
    _behaviour: NamedTempFile,
}

impl Mock {
    /// Starts one on free ports of 127.0.0.1 and waits until it listens.
    ///
    /// # Errors
    /// When it cannot be started, or says something else than where it listens.
    pub(super) fn start(behaviour: &Behaviour) -> io::Result<Self> {
        let started = || {
            let file = written(behaviour)?;
            let (own, listening) = Own::start::<mock_llm::cli::Listening>("mock-llm", |command| {
                command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]).arg(file.path());
            })?;
            Ok(Self { api: told(&listening.api)?, admin: told(&listening.admin)?, _own: own, _behaviour: file })
        };
        started().map_err(|error: io::Error| io::Error::other(format!("the bundled mock LLM: {error}")))
    }
}

/// The real stores of an embedded deployment.
pub(super) struct Stores<'a> {
    /// Names what it keeps there.
    pub(super) run: &'a str,
    pub(super) mongo: Option<&'a Secret>,
    pub(super) redis: Option<&'a Secret>,
}

/// The embedded deployment: the reference before the mock LLM.
pub(super) struct Embedded {
    /// The deployment's base.
    pub(super) chat: Url,
    /// Its database, where that is a real one: its own, and dropped when it ends.
    pub(super) database: Option<String>,
    /// Whether it keeps anything in a real store.
    pub(super) has_stores: bool,
    // In this order: the deployment goes before its model.
    _reference: Own,
    pub(super) mock: Mock,
}

impl Embedded {
    /// Starts both on free ports of 127.0.0.1 and waits until they listen.
    ///
    /// # Errors
    /// When one cannot be started, or says something else than where it listens.
    pub(super) fn start(
        mock: &Behaviour,
        reference: &Reference,
        jwt_secret: &Secret,
        stores: &Stores<'_>,
    ) -> io::Result<Self> {
        let mock = Mock::start(mock)?;
        let database = stores.mongo.map(|_| format!("capacity_check_{}", stores.run));
        let (mut own, listening) = Own::start::<reference_chat::cli::Listening>("reference-chat", |command| {
            command.args(["--listen", "127.0.0.1:0"]).args(arguments(reference));
            command.arg("--upstream").arg(format!("{}v1", mock.api));
            command.env(reference_chat::cli::SECRET_VARIABLE, jwt_secret.expose());
            // A command line can be read by everybody on this machine, an environment cannot.
            if let (Some(uri), Some(database)) = (stores.mongo, &database) {
                command.env("MONGO_URI", uri.expose()).args(["--mongo-uri", "--mongo-database", database, "--scratch"]);
                command
                    .args(reference.mongo_pool.iter().flat_map(|pool| ["--mongo-pool".to_owned(), pool.to_string()]));
            }
            if let Some(url) = stores.redis {
                let prefix = prefix(stores.run);
                command.env("REDIS_URI", url.expose()).args(["--redis-url", "--redis-prefix", &prefix]);
                if stores.mongo.is_none() {
                    command.arg("--scratch");
                }
            }
        })
        .map_err(|error| io::Error::other(format!("the reference deployment: {error}")))?;
        let has_stores = stores.mongo.is_some() || stores.redis.is_some();
        if has_stores {
            own.patience = CLEANING;
            let database = database.as_ref().map_or_else(String::new, |name| format!("database {name}, "));
            own.leaves = Some(format!("{database}keys {}:*, settings that a plant changed", prefix(stores.run)));
        }
        Ok(Self { chat: told(&listening.chat)?, database, has_stores, _reference: own, mock })
    }
}

/// What the keys of an embedded deployment begin with.
fn prefix(run: &str) -> String {
    format!("capacity-check:{run}")
}

/// The behaviour as a file that the mock reads.
fn written(mock: &Behaviour) -> io::Result<NamedTempFile> {
    let text = toml::to_string(&mock.to_value()).map_err(io::Error::other)?;
    let mut file = NamedTempFile::new()?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

/// The flags of a reference deployment.
fn arguments(reference: &Reference) -> Vec<String> {
    let mut flags = vec!["--workers".to_owned(), reference.workers.to_string()];
    let costs = [
        ("--login-cost", reference.login_cost),
        ("--turn-cost", reference.turn_cost),
        ("--token-cost", reference.token_cost),
        ("--fixed-latency", reference.fixed_latency),
    ];
    for (flag, cost) in costs {
        let written = |cost: Duration| Written::duration(Distribution::Constant(cost.as_micros() as f64)).to_string();
        flags.extend(cost.into_iter().flat_map(|cost| [flag.to_owned(), written(cost)]));
    }
    flags.extend(reference.plants.iter().flat_map(|plant| ["--plant".to_owned(), plant.clone()]));
    let switches = [("--default-limits", reference.default_limits), ("--one-step", reference.one_step)];
    flags.extend(switches.into_iter().filter(|(_, on)| *on).map(|(flag, _)| flag.to_owned()));
    flags
}
