//! The flags of a run, as they are typed.

use std::path::PathBuf;

use clap::Args;

use crate::lang::Lang;
use crate::scenario::file::{FailOn, Form, Profile, WhiteSpace};

pub(super) const EXAMPLES: &str = "\
Examples:
  capacity-check --users 500
      The tiers 50, 100 and 500 against the embedded deployment.
  capacity-check --users 500 --quick
      A first look in under 45 s; not comparable, never fails.
  capacity-check --users 200 --target http://127.0.0.1:8000 --mock-admin http://127.0.0.1:8090
      An OpenAI-compatible gateway before a mock LLM of yours.
  capacity-check --users 100 --profile librechat --target https://chat.staging.internal \\
      --mock-admin http://mock.staging.internal:8090 --accounts accounts.csv
      LibreChat, before a mock LLM of yours; `accounts create` makes the list.
  capacity-check --users 100 --profile librechat --target http://127.0.0.1:3080 ... \
      --mongo-uri --redis-url --watch-port 3080 --scrape http://127.0.0.1:3080/metrics
      The same, with what its stores and processes do meanwhile.
  capacity-check --users 50 --reference-mongo mongodb://127.0.0.1 --reference-redis redis://127.0.0.1
      The embedded deployment on real stores, which are watched.
  capacity-check --headcount 2000 --active-share 25% --budget 'ttft.p95=800ms,2s'
      2,000 people of whom a quarter chat at once, with a budget of your own.
  capacity-check --rate 5,20 --max-users 400
      Turns that come 5 and 20 times a second, whatever becomes of those before.
  capacity-check --scenario scenarios/librechat-tiers.toml
      What stands in a file; `plan --scenario FILE` says beforehand what it will do.
  capacity-check report reports/latest/result.json --format md,html --lang ko
      The report once more, from the result alone.
  capacity-check calibrate
      What this machine carries as a generator, in 20 s.
  capacity-check mock-llm --ttft 'lognormal 300ms 900ms' --slots 64
      The mock LLM alone.

Exit codes: 0 pass or warn, 1 fail, 2 bad usage, 3 inconclusive, 4 preflight failed or stopped by a
guard, 130 interrupted.";

/// What is typed. Texts are read later, so that every problem can be told at once.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunArgs {
    /// What to do, as TOML (`capacity-check schema` describes it); flags override what stands there.
    #[arg(long, value_name = "FILE", help_heading = "Load")]
    pub(crate) scenario: Option<PathBuf>,
    /// Concurrent users; the tiers 50, 100, 500, 1000, 2000, 5000 below come first.
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub(crate) users: Option<u32>,
    /// The tiers themselves, rising, such as 20,40,80.
    #[arg(long, value_name = "N,N,..", value_delimiter = ',', conflicts_with = "users", help_heading = "Load")]
    pub(crate) tiers: Vec<u32>,
    /// People who have an account; with --active-share the other way to ask.
    #[arg(long, value_name = "N", conflicts_with_all = ["users", "tiers"], help_heading = "Load")]
    pub(crate) headcount: Option<u32>,
    /// The share of the headcount that chats at once, such as 25%.
    #[arg(long, value_name = "SHARE", help_heading = "Load")]
    pub(crate) active_share: Option<String>,
    /// Turns a second that come whether or not earlier ones have ended (an open load), tier by tier, such as 10,50.
    #[arg(
        long, value_name = "R,R,..", value_delimiter = ',', conflicts_with_all = ["users", "tiers", "headcount"],
        help_heading = "Load"
    )]
    pub(crate) rate: Vec<f64>,
    /// When they come: poisson, constant, or a .txt file with a moment a line, in seconds. [default: poisson]
    #[arg(long, value_name = "PROCESS", conflicts_with_all = ["users", "tiers", "headcount"], help_heading = "Load")]
    pub(crate) arrivals: Option<String>,
    /// The most users at once of an open load; a turn for which none is free is dropped and counted.
    #[arg(long, value_name = "N", conflicts_with_all = ["users", "tiers", "headcount"], help_heading = "Load")]
    pub(crate) max_users: Option<u32>,
    /// Users who are told to come again later do not wait for that.
    #[arg(long, help_heading = "Load")]
    pub(crate) ignore_retry_after: bool,
    /// Between turns: a duration or a distribution. [default: lognormal 15s 45s (median, p95)]
    #[arg(long, value_name = "DIST", help_heading = "Load")]
    pub(crate) think: Option<String>,
    /// The share of turns that the user cancels in the middle of the reply, such as 5%.
    #[arg(long, value_name = "SHARE", help_heading = "Load")]
    pub(crate) cancel_share: Option<String>,
    /// The most turns of a conversation; the next one begins without history. [default: 4]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub(crate) turns: Option<u32>,
    /// What users say: the bundled conversations en, ko or mixed; a .jsonl file with a conversation a line,
    /// {"turns": ["..", ".."]}, or a .csv file with the columns conversation and text, or text alone; or words of
    /// which only the number is known, such as 'generated: lognormal 40 400' (median, p95). [default: mixed]
    #[arg(long, value_name = "SET", help_heading = "Load")]
    pub(crate) prompts: Option<String>,
    /// Over how long the new users of a tier come. [default: 20s]
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    pub(crate) ramp: Option<String>,
    /// The least length of a tier's steady phase. [default: 60s]
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    pub(crate) steady: Option<String>,
    /// The greatest, where the budgets want more samples. [default: 180s]
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    pub(crate) steady_max: Option<String>,
    /// A first look: tiers of 10 s, think time 2 s; not comparable, never fails.
    #[arg(long, help_heading = "Load")]
    pub(crate) quick: bool,
    /// Seed of prompts and think times. [default: 1]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub(crate) seed: Option<u64>,
    /// Threads that carry users. [default: the cores, less one where the mock runs here too]
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub(crate) shards: Option<u32>,

    /// Base URL of the deployment; without it an embedded one is started and tested: the reference
    /// deployment before the mock LLM.
    #[arg(long, value_name = "URL", help_heading = "Target")]
    pub(crate) target: Option<String>,
    /// How the deployment is spoken to. [default: openai]
    #[arg(long, value_enum, help_heading = "Target")]
    pub(crate) profile: Option<Profile>,
    /// Processes of the embedded reference deployment. [default: 1]
    #[arg(long, value_name = "N", help_heading = "Target")]
    pub(crate) reference_workers: Option<u32>,
    /// Keep the embedded deployment's data in this MongoDB, in a database of its own that is dropped after the run; it
    /// is watched as with --mongo-uri. Without a value MONGO_URI of the environment.
    #[arg(long, value_name = "URI", num_args = 0..=1, default_missing_value = "", help_heading = "Target")]
    pub(crate) reference_mongo: Option<String>,
    /// Keep its sessions, limits and streams in this Redis, likewise. Without a value REDIS_URI of the environment.
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "", help_heading = "Target")]
    pub(crate) reference_redis: Option<String>,
    /// Connections of its pool to MongoDB. [default: 100]
    #[arg(long, value_name = "N", help_heading = "Target")]
    pub(crate) reference_mongo_pool: Option<u32>,
    /// The custom endpoint to ask. [default: the one that reaches our mock]
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    pub(crate) endpoint: Option<String>,
    /// The users' accounts, CSV with the columns email,password, or id,email,username (tokens are
    /// minted with JWT_SECRET from the environment), or token, or cookie.
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub(crate) accounts: Option<PathBuf>,
    /// Make the accounts by registration, before the run; they stay there.
    #[arg(long, conflicts_with = "accounts", help_heading = "Target")]
    pub(crate) register: bool,
    /// Logins and registrations a second, before the first tier. [default: 5]
    #[arg(long, value_name = "RATE", help_heading = "Target")]
    pub(crate) login_rate: Option<f64>,
    /// The model to ask for. [default: the first that the target lists, or that is our mock's]
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    pub(crate) model: Option<String>,
    /// Admin listener of the mock LLM behind the target; its token is read from MOCK_LLM_ADMIN_TOKEN.
    #[arg(long, value_name = "URL", help_heading = "Target")]
    pub(crate) mock_admin: Option<String>,
    /// How exactly white space of replies is compared with what the mock sent. [default: exact]
    #[arg(long, value_enum, value_name = "MODE", help_heading = "Target")]
    pub(crate) white_space: Option<WhiteSpace>,
    /// Behaviour of the bundled mock LLM, as TOML.
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub(crate) mock_config: Option<PathBuf>,
    /// The environment variable that holds the bearer key. [default: CAPACITY_CHECK_API_KEY]
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    pub(crate) api_key_env: Option<String>,
    /// A header to send with every turn, 'Name: value'; repeatable, never shown.
    #[arg(long, value_name = "HEADER", help_heading = "Target")]
    pub(crate) header: Vec<String>,
    /// Further certificate authorities, PEM.
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Accept any certificate; said in the result.
    #[arg(long, help_heading = "Target")]
    pub(crate) insecure: bool,
    /// Speak HTTP/1.1 to the target, even where it offers HTTP/2.
    #[arg(long, help_heading = "Target")]
    pub(crate) http1: bool,
    /// The name that TLS asks for and verifies, where it is not the URL's host.
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    pub(crate) sni: Option<String>,
    /// Our certificate, PEM, for a deployment that asks for one, with its chain behind it.
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub(crate) client_cert: Option<PathBuf>,
    /// Its private key, PEM. [default: in the file of --client-cert]
    #[arg(long, value_name = "FILE", help_heading = "Target")]
    pub(crate) client_key: Option<PathBuf>,
    /// Connect to this address instead of asking the resolver; repeatable. The URL's host stays what is asked for.
    #[arg(long, value_name = "HOST:PORT:ADDRESS", help_heading = "Target")]
    pub(crate) resolve: Vec<String>,
    /// An HTTP proxy, http://host:port, which is asked for a tunnel by CONNECT; its credentials are read from
    /// CAPACITY_CHECK_PROXY_AUTH, user:password.
    #[arg(long, value_name = "URL", help_heading = "Target")]
    pub(crate) proxy: Option<String>,
    /// Addresses of this machine that connections come from in turn: each has its own range of ports.
    #[arg(long, value_name = "ADDRESS,..", value_delimiter = ',', help_heading = "Target")]
    pub(crate) source_address: Vec<String>,

    /// For TCP, a proxy's tunnel and TLS together. [default: 10s]
    #[arg(long, value_name = "TIME", help_heading = "Target")]
    pub(crate) connect_timeout: Option<String>,
    /// A turn without a single byte for so long is stalled. [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Target")]
    pub(crate) stall_timeout: Option<String>,
    /// The longest that a turn may take. [default: 120s]
    #[arg(long, value_name = "TIME", help_heading = "Target")]
    pub(crate) turn_timeout: Option<String>,

    /// Watch the deployment's MongoDB. Without a value MONGO_URI of the environment.
    #[arg(long, value_name = "URI", num_args = 0..=1, default_missing_value = "", help_heading = "Probes")]
    pub(crate) mongo_uri: Option<String>,
    /// Watch the deployment's Redis: a server, redis+sentinel://HOST:PORT/MASTER, or a node of a Cluster. Without a
    /// value REDIS_URI of the environment.
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "", help_heading = "Probes")]
    pub(crate) redis_url: Option<String>,
    /// Watch a process of the server on this machine, with its descendants; repeatable.
    #[arg(long, value_name = "PID", help_heading = "Probes")]
    pub(crate) watch_pid: Vec<u32>,
    /// Watch the processes that listen on a port; repeatable.
    #[arg(long, value_name = "PORT", help_heading = "Probes")]
    pub(crate) watch_port: Vec<u16>,
    /// Watch a control group (v2), below /sys/fs/cgroup; repeatable.
    #[arg(long, value_name = "PATH", help_heading = "Probes")]
    pub(crate) watch_cgroup: Vec<PathBuf>,
    /// Scrape an endpoint of Prometheus metrics; repeatable. METRICS_SECRET of the environment is sent to the target
    /// alone.
    #[arg(long, value_name = "URL", help_heading = "Probes")]
    pub(crate) scrape: Vec<String>,
    /// After the run, try pools of a ladder of sizes with load of our own, on a scratch database and scratch keys of
    /// the stores that are watched.
    #[arg(long, help_heading = "Probes")]
    pub(crate) probe_pools: bool,

    /// A budget with its pass and warn bounds, METRIC.STATISTIC=PASS,WARN; repeatable. Those that
    /// are given stand instead of the default ones, but for error_rate and spoilt replies, which always hold.
    /// [default with our mock: ttft_overhead.p95=500ms,1500ms token_delay.p99=200ms,500ms error_rate=1%,5%;
    /// else: ttft.p95=1s,3s itl.p95=200ms,500ms error_rate=1%,5%]
    #[arg(long, value_name = "BUDGET", help_heading = "Verdict")]
    pub(crate) budget: Vec<String>,
    /// What fails the run besides fail.
    #[arg(long, value_enum, value_name = "VERDICT", help_heading = "Verdict")]
    pub(crate) fail_on: Option<FailOn>,

    /// Give up when the error rate of the last 10 s is above this; `never` does not.
    /// [default: error_rate>50%]
    #[arg(long, value_name = "GUARD", help_heading = "Safety")]
    pub(crate) abort_on: Option<String>,
    /// Give up after this long.
    #[arg(long, value_name = "TIME", help_heading = "Safety")]
    pub(crate) max_duration: Option<String>,
    /// The target's model need not be our mock: somebody pays for its tokens.
    #[arg(long, help_heading = "Safety")]
    pub(crate) real_model: bool,
    /// You may test this public host; repeatable.
    #[arg(long, value_name = "HOST", help_heading = "Safety")]
    pub(crate) i_am_authorized_to_test: Vec<String>,

    /// Where reports go. [default: reports]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) out: Option<PathBuf>,
    /// The forms of the report besides result.json. [default: md,html,junit]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FORM,..", help_heading = "Output")]
    pub(crate) format: Vec<Form>,
    /// The language of the report. [default: that of the locale]
    #[arg(long, value_enum, help_heading = "Output")]
    pub(crate) lang: Option<Lang>,
    /// The result on standard output, and nothing else there.
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
    /// No live progress.
    #[arg(long, help_heading = "Output")]
    pub(crate) no_progress: bool,
}
