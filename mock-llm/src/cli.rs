//! The command line of the mock, shared by its own binary and `capacity-check mock-llm`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::behaviour::{Behaviour, DEFAULT_MODEL, Fault};
use crate::clock::Wrong;
use crate::process::{announce, ended, listen};
use crate::section::Problem;
use crate::server::{Options, serve};

/// Flags of the mock LLM.
#[derive(Debug, Clone, Args)]
pub struct MockArgs {
    /// Address of the APIs (OpenAI chat completions and Responses, Anthropic Messages, Ollama chat); port 0 takes a
    /// free one.
    #[arg(long, default_value = "127.0.0.1:8089", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Address of the admin listener (metrics, journal, behaviour, clock).
    #[arg(long, default_value = "127.0.0.1:8090", value_name = "ADDR")]
    pub admin: SocketAddr,
    /// Behaviour as TOML; the flags below change its models.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Time to first token: 200ms, "uniform 50ms 99ms", "exponential 20ms", "lognormal 200ms 600ms".
    #[arg(long, value_name = "DIST")]
    pub ttft: Option<String>,
    /// Gap between tokens, written like --ttft.
    #[arg(long, value_name = "DIST")]
    pub gap: Option<String>,
    /// Tokens of a reply: 50, "uniform 10 90", "lognormal 100 400".
    #[arg(long, value_name = "DIST")]
    pub tokens: Option<String>,
    /// Requests served at once; more wait in the queue.
    #[arg(long, value_name = "N")]
    pub slots: Option<u64>,
    /// Requests that may wait for a slot; more get 503.
    #[arg(long, value_name = "N")]
    pub queue: Option<u64>,
    /// A fault and its probability, such as reset=0.01; repeatable.
    #[arg(long, value_name = "FAULT=P")]
    pub fault: Vec<String>,
    /// Seed of replies, lengths and timings.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Threads that serve streams.
    #[arg(long, value_name = "N")]
    pub threads: Option<u64>,
    /// Milliseconds by which the wall clock is ahead on purpose: for tests of those who correct for it.
    #[arg(long, default_value_t = 0, value_name = "MS", allow_negative_numbers = true)]
    pub clock_offset: i64,
    /// Millionths by which it runs faster on purpose.
    #[arg(long, default_value_t = 0.0, value_name = "PPM", allow_negative_numbers = true)]
    pub clock_skew: f64,
    /// Print the custom endpoint for LibreChat's librechat.yaml and the settings that a test needs, and end.
    #[arg(long)]
    pub print_librechat_yaml: bool,
    /// End when standard input ends, so that a parent's death ends the mock too.
    #[arg(long, hide = true)]
    pub exit_with_stdin: bool,
}

/// What the mock prints on standard output when it listens: one line of JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listening {
    /// Where chat is served, as `http://ADDR`.
    pub api: String,
    /// Where the admin listener is, as `http://ADDR`.
    pub admin: String,
}

/// Why the mock did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum MockError {
    /// The configuration is wrong; every problem is listed.
    #[error("the mock's behaviour has {} problem(s):{}", .0.len(), list(.0))]
    Behaviour(Vec<Problem>),
    /// The configuration file cannot be read.
    #[error("cannot read {path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with {flag}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The flag that sets it.
        flag: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Serving failed.
    #[error("the mock stopped: {0}")]
    Serve(#[from] io::Error),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("\n  - {problem}")).collect()
}

impl MockArgs {
    /// The behaviour that file and flags together ask for.
    ///
    /// # Errors
    /// Every problem of both, each with its key or flag.
    pub fn behaviour(&self) -> Result<Behaviour, MockError> {
        let mut tree = match &self.config {
            Some(path) => {
                let text =
                    std::fs::read_to_string(path).map_err(|source| MockError::Config { path: path.clone(), source })?;
                // Reads the file on its own first, so that its problems carry its keys and places.
                Behaviour::from_toml(&text).map_err(MockError::Behaviour)?;
                text.parse::<toml::Table>().ok().and_then(|table| serde_json::to_value(table).ok())
            }
            None => None,
        }
        .unwrap_or_else(|| json!({}));
        let (changes, mut problems) = self.model_changes();
        for (name, value) in [("seed", self.seed), ("threads", self.threads)] {
            if let Some(value) = value {
                tree[name] = json!(value);
            }
        }
        if tree.get("models").is_none() {
            let defaults = tree.get("defaults").cloned().unwrap_or_else(|| json!({}));
            tree["models"] = json!({ DEFAULT_MODEL: defaults });
        }
        if let Some(models) = tree["models"].as_object_mut() {
            for model in models.values_mut().filter_map(Value::as_object_mut) {
                model.extend(changes.clone());
            }
        }
        let read = Behaviour::from_value(tree).map_err(|found| problems.extend(found));
        match read {
            Ok(behaviour) if problems.is_empty() => Ok(behaviour),
            _ => Err(MockError::Behaviour(problems)),
        }
    }

    /// What the flags change about every model.
    fn model_changes(&self) -> (Map<String, Value>, Vec<Problem>) {
        let (mut changes, mut problems) = (Map::new(), Vec::new());
        for (name, value) in [("ttft", &self.ttft), ("gap", &self.gap), ("tokens", &self.tokens)] {
            if let Some(value) = value {
                changes.insert(name.to_owned(), json!(value));
            }
        }
        for (name, value) in [("slots", self.slots), ("queue", self.queue)] {
            if let Some(value) = value {
                changes.insert(name.to_owned(), json!(value));
            }
        }
        let mut faults = Map::new();
        for text in &self.fault {
            match text.split_once('=').map(|(name, share)| (name, share.parse::<f64>())) {
                Some((name, Ok(share))) => {
                    faults.insert(name.to_owned(), json!(share));
                }
                _ => {
                    let names: Vec<&str> = Fault::ALL.iter().map(|(_, name)| *name).collect();
                    let message = format!("`{text}` should be FAULT=P with one of {}", names.join(", "));
                    problems.push(Problem { key: "--fault".to_owned(), message });
                }
            }
        }
        if !faults.is_empty() {
            changes.insert("faults".to_owned(), Value::Object(faults));
        }
        (changes, problems)
    }

    /// Listens, says where on standard output, and serves until interrupted.
    ///
    /// # Errors
    /// When the behaviour is wrong or an address cannot be used.
    pub async fn run(self) -> Result<(), MockError> {
        let behaviour = self.behaviour()?;
        if self.print_librechat_yaml {
            let base = format!("http://{}/v1", self.listen);
            io::stdout().write_all(crate::librechat::yaml(&base, &behaviour).as_bytes())?;
            return Ok(());
        }
        let bind = |address, flag| listen(address).map_err(|source| MockError::Listen { address, flag, source });
        let (api, admin) = (bind(self.listen, "--listen")?, bind(self.admin, "--admin")?);
        let listening = Listening {
            api: format!("http://{}", api.local_addr()?),
            admin: format!("http://{}", admin.local_addr()?),
        };
        announce(&listening)?;
        let options = Options {
            admin_token: std::env::var("MOCK_LLM_ADMIN_TOKEN").ok().filter(|token| !token.is_empty()),
            clock: Wrong { offset_us: self.clock_offset.saturating_mul(1_000), skew_ppm: self.clock_skew },
        };
        serve(api, admin, behaviour, options, ended(self.exit_with_stdin)).await?;
        Ok(())
    }
}
