//! A scenario as it is written in TOML. The doc comments here are the descriptions of its JSON Schema.
//!
//! Everything may be left out but the number of users; texts are read later, so that every problem
//! can be told at once.

mod probe;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::grade::Verdict;
use crate::lang::Lang;
pub use probe::{
    HealthSection, MongoSection, Preset, ProbeSection, ProcessSection, PrometheusSection, QuerySection, RedisSection,
};

/// What a run of capacity-check is asked to do. Flags override what stands here; a switch that is on
/// here cannot be turned off by one.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "A scenario of capacity-check")]
pub struct ScenarioFile {
    /// Names the folder of the report: letters, digits, `-`, `_` and `.`. Without it the file's name.
    pub name: Option<String>,
    /// What the run is for, in a sentence or two; it stands in the report.
    pub description: Option<String>,
    /// Seed of prompts and think times; equal seeds, equal users. 1 without it.
    pub seed: Option<u64>,
    /// A first look: tiers of 10 s, think time 2 s; not comparable, never fails.
    pub quick: Option<bool>,
    /// Public hosts that you may test.
    pub authorized: Vec<String>,
    /// What is tested; without a URL the embedded reference deployment.
    pub target: TargetSection,
    /// Who the users are, where the deployment wants logins.
    pub accounts: AccountsSection,
    /// What one user does.
    pub journey: JourneySection,
    /// How many users there are, and for how long.
    pub load: LoadSection,
    /// The tiers one by one, with expectations and budgets of their own. With `load.users` and its
    /// like, or flags in their place, these describe the tiers of equal size.
    pub tiers: Vec<TierSection>,
    /// How the embedded mock LLM behaves: what `mock-llm --config` reads, or `config = "FILE"` alone.
    pub mock: Map<String, Value>,
    /// The embedded reference deployment.
    pub reference: ReferenceSection,
    /// What must hold in every tier. What stands here replaces the default budgets, but for that of
    /// error_rate, which always holds.
    pub budgets: BudgetsSection,
    /// What comes of a verdict.
    pub verdict: VerdictSection,
    /// When a run is given up.
    pub guards: GuardsSection,
    /// What is watched beside the users.
    pub probe: ProbeSection,
    /// What is written where.
    pub output: OutputSection,
}

/// What is tested.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TargetSection {
    /// Base URL of the deployment, such as `https://chat.staging.internal`.
    pub url: Option<String>,
    /// How the deployment is spoken to; `openai` without it.
    #[schemars(with = "Profile")]
    pub profile: Option<Profile>,
    /// Admin listener of the mock LLM behind the target; its token is read from MOCK_LLM_ADMIN_TOKEN.
    pub mock_admin: Option<String>,
    /// LibreChat's custom endpoint to ask; without it the one that reaches our mock.
    pub endpoint: Option<String>,
    /// The model to ask for; without it the first that the target lists, or that is our mock's.
    pub model: Option<String>,
    /// The environment variable that holds the bearer key; CAPACITY_CHECK_API_KEY without it.
    pub api_key_env: Option<String>,
    /// Headers to send with every turn: the name, and the environment variable that holds the value,
    /// which may be a secret.
    pub headers_env: BTreeMap<String, String>,
    /// Further certificate authorities, PEM. Relative to this file.
    pub ca_file: Option<PathBuf>,
    /// Accept any certificate; said in the result.
    pub insecure: Option<bool>,
    /// How exactly white space of replies is compared with what the mock sent; `exact` without it.
    #[schemars(with = "WhiteSpace")]
    pub white_space: Option<WhiteSpace>,
    /// The target's model need not be our mock: somebody pays for its tokens.
    pub real_model: Option<bool>,
    /// For TCP and TLS together; 10s without it.
    pub connect_timeout: Option<String>,
    /// A turn without a single byte for so long is stalled; 30s without it.
    pub stall_timeout: Option<String>,
    /// The longest that a turn may take; 120s without it.
    pub turn_timeout: Option<String>,
}

/// How a deployment is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// OpenAI's chat completions over SSE.
    Openai,
    /// LibreChat's web API, v0.7.9 and later.
    Librechat,
}

/// How exactly white space of a traced reply is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum WhiteSpace {
    /// As the mock sent it.
    #[default]
    Exact,
    /// Not at the ends of the reply.
    TrimEnds,
    /// Any run of it is one space, and none stands at the ends.
    Collapse,
}

/// Who the users are.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccountsSection {
    /// A list, CSV, with the columns email,password, or id,email,username (tokens are minted with
    /// JWT_SECRET from the environment), or token, or cookie. Relative to this file.
    pub file: Option<PathBuf>,
    /// Make the accounts by registration, before the run; they stay there.
    pub register: Option<bool>,
    /// Logins and registrations a second, before the first tier; 5 without it.
    pub login_rate: Option<f64>,
}

/// What one user does.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JourneySection {
    /// The most turns of a conversation; the next one begins without history. 4 without it.
    pub turns: Option<u32>,
    /// Between turns: a duration, or a distribution such as `lognormal 15s 45s` (median, 95th
    /// percentile), which it is without this.
    pub think: Option<String>,
    /// The share of turns that the user cancels in the middle of the reply, such as `5%`.
    pub cancel_share: Option<Text>,
    /// What users say: the bundled conversations `en`, `ko` or `mixed` (which it is without this), or
    /// a file of yours: ending in .jsonl with a conversation a line, `{"turns": ["..", ".."]}`, or in
    /// .csv with the columns `conversation` and `text`, a turn a row, or `text` alone, a conversation
    /// a row. Relative to this file. Or words of which only the number is known:
    /// `generated: lognormal 40 400` (median, 95th percentile).
    pub prompts: Option<String>,
}

/// How many users there are, and for how long.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadSection {
    /// Concurrent users; the tiers 50, 100, 500, 1000, 2000 and 5000 below come first.
    pub users: Option<u32>,
    /// The tiers themselves, rising.
    pub tiers: Option<Vec<u32>>,
    /// People who have an account; with active_share the other way to ask.
    pub headcount: Option<u32>,
    /// The share of the headcount that chats at once, such as `25%`.
    pub active_share: Option<Text>,
    /// Over how long the new users of a tier come; 20s without it.
    pub ramp: Option<String>,
    /// The least length of a tier's steady phase; 60s without it.
    pub steady: Option<String>,
    /// The greatest, where the budgets want more samples; 180s without it.
    pub steady_max: Option<String>,
    /// Threads that carry users; without it the cores, less one where the mock runs here too.
    pub shards: Option<u32>,
}

/// One tier.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TierSection {
    /// Concurrent users.
    pub users: u32,
    /// The least verdict that is good enough here: the run passes if this tier is at least that good.
    #[serde(default)]
    #[schemars(with = "Expectation")]
    pub expect: Option<Expectation>,
    /// Budgets of this tier, in the place of those for every tier of the same metric and statistic.
    #[serde(default)]
    pub budgets: BudgetsSection,
}

/// What may be expected of a tier. Not to know is never good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// Every budget is proved to hold.
    Pass,
    /// No budget is proved to fail.
    Warn,
    /// Whatever is decided.
    Fail,
}

impl From<Expectation> for Verdict {
    fn from(expectation: Expectation) -> Self {
        match expectation {
            Expectation::Pass => Self::Pass,
            Expectation::Warn => Self::Warn,
            Expectation::Fail => Self::Fail,
        }
    }
}

/// The embedded reference deployment.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReferenceSection {
    /// Node processes that share the work; 1 without it.
    pub workers: Option<u32>,
    /// LibreChat's default limits and bans.
    pub default_limits: Option<bool>,
    /// Speak as v0.8.1 and before: the POST answers with the stream.
    pub one_step: Option<bool>,
    /// Exclusive time of a login.
    pub login_cost: Option<String>,
    /// Exclusive time of a turn before the model is asked.
    pub turn_cost: Option<String>,
    /// Exclusive time of a token.
    pub token_cost: Option<String>,
    /// Time that a turn waits besides, not exclusive.
    pub fixed_latency: Option<String>,
    /// Keep its data in the MongoDB whose connection string this environment variable holds: in a database of its own
    /// that is dropped after the run.
    pub mongo_env: Option<String>,
    /// Connections of its pool; 100 without it.
    pub mongo_pool: Option<u32>,
    /// Keep its sessions, limits and streams in the Redis whose URL this environment variable holds: under a prefix of
    /// its own, removed after the run.
    pub redis_env: Option<String>,
    /// What goes wrong on purpose, such as `drop=100` or `delay=20ms`: see `reference-chat --help`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plants: Vec<String>,
}

/// Budgets by metric and statistic, such as `ttft.p95 = { pass = "1s", warn = "3s" }`.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BudgetsSection {
    /// Time to first token: intended start to the first content token.
    pub ttft: Quantiles,
    /// Inter-token latency: the gap between arrivals of tokens of a turn.
    pub itl: Quantiles,
    /// (Last token - first token) / (tokens - 1).
    pub tpot: Quantiles,
    /// Intended start to terminal event.
    pub turn: Quantiles,
    /// The TCP handshake, where a turn needed a new connection.
    pub connect: Quantiles,
    /// Actual send to received by the mock LLM, of traced turns.
    pub before_llm: Quantiles,
    /// What the deployment added to the time to first token, of traced turns.
    pub ttft_overhead: Quantiles,
    /// From the mock LLM's sending of a token to its arrival.
    pub token_delay: Quantiles,
    /// From the mock LLM's last token to the terminal event.
    pub finalise: Quantiles,
    /// The deployment's share of a turn's latency, of traced turns: bounds are shares such as `10%`.
    pub overhead_share: Quantiles,
    /// The share of turns that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Bounds")]
    pub error_rate: Option<Bounds>,
}

/// Bounds of the quantiles of a latency.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Quantiles {
    /// The median.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Bounds")]
    pub p50: Option<Bounds>,
    /// The 90th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Bounds")]
    pub p90: Option<Bounds>,
    /// The 95th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Bounds")]
    pub p95: Option<Bounds>,
    /// The 99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Bounds")]
    pub p99: Option<Bounds>,
    /// The 99.9th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Bounds")]
    pub p999: Option<Bounds>,
}

/// The two bounds of a budget: durations such as `800ms`, or shares such as `1%`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Within it: pass.
    pub pass: Text,
    /// Above it: fail. Without it the pass bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Text")]
    pub warn: Option<Text>,
}

/// What comes of a verdict.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VerdictSection {
    /// What fails the run besides fail.
    #[schemars(with = "FailOn")]
    pub fail_on: Option<FailOn>,
}

/// What fails a run besides a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum FailOn {
    /// A warning.
    Warn,
}

/// When a run is given up.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GuardsSection {
    /// Give up when the error rate of the last 10 s is above this; `error_rate>50%` without it, `never`
    /// does not.
    pub abort_on: Option<String>,
    /// Give up after this long.
    pub max_duration: Option<String>,
}

/// What is written where.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OutputSection {
    /// Where the folder of the run goes; `reports` without it. Relative to where the tool is started.
    pub dir: Option<PathBuf>,
    /// The forms of the report besides result.json: `md`, `html`, `junit`; all without it.
    pub formats: Option<Vec<Form>>,
    /// The language of the reports; without it that of the locale.
    #[schemars(with = "Lang")]
    pub lang: Option<Lang>,
}

/// A form of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Markdown: report.md.
    Md,
    /// One HTML file without remote assets: report.html.
    Html,
    /// The result itself: result.json.
    Json,
    /// For CI: junit.xml.
    Junit,
}

/// A text, or a number that reads as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            Value::Number(number) => Ok(Self(number.to_string())),
            _ => Err(serde::de::Error::custom("should be a text or a number")),
        }
    }
}

impl JsonSchema for Text {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number"] })
    }
}

impl BudgetsSection {
    /// The budgets as flags write them, such as `ttft.p95=1s,3s`, each with its key in this section.
    pub fn written(&self) -> Vec<(String, String)> {
        let tree = serde_json::to_value(self).expect("budgets are plain data");
        let mut all = Vec::new();
        for (metric, value) in tree.as_object().into_iter().flatten() {
            if value.get("pass").is_some() {
                all.push((metric.clone(), bounds(metric, value)));
                continue;
            }
            for (statistic, value) in value.as_object().into_iter().flatten() {
                let key = format!("{metric}.{statistic}");
                all.push((key.clone(), bounds(&key, value)));
            }
        }
        all
    }
}

fn bounds(metric: &str, value: &Value) -> String {
    let of = |name: &str| value.get(name).and_then(Value::as_str);
    let pass = of("pass").unwrap_or_default();
    format!("{metric}={pass},{}", of("warn").unwrap_or(pass))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::Metric;

    #[test]
    fn every_budgeted_metric_can_be_written() {
        let bounds = serde_json::json!({ "pass": "1s", "warn": 3 });
        for metric in Metric::BUDGETED {
            let section = serde_json::json!({ metric.name(): { "p95": bounds } });
            let section: BudgetsSection = serde_json::from_value(section).unwrap();
            let name = format!("{}.p95", metric.name());
            assert_eq!(section.written(), [(name.clone(), format!("{name}=1s,3"))]);
        }
        let section: BudgetsSection =
            serde_json::from_value(serde_json::json!({ "error_rate": { "pass": "1%" } })).unwrap();
        assert_eq!(section.written(), [("error_rate".to_owned(), "error_rate=1%,1%".to_owned())]);
    }
}
