//! How the mock behaves: what a TOML file, a flag or `PUT /admin/behaviour` may say.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::{Value, json};

use crate::distribution::{Distribution, Unit, Written, parse_duration};
use crate::section::{Problem, Section};

/// The name of the model that an empty configuration has.
pub const DEFAULT_MODEL: &str = "mock-fast";

/// Everything that can be set about the mock.
#[derive(Debug, Clone, PartialEq)]
pub struct Behaviour {
    /// Replies, lengths and timings are drawn from this seed and the prompt.
    pub seed: u64,
    /// Threads that serve streams, each with a deadline heap of its own. Read at start only.
    pub threads: usize,
    /// Turns that the journal keeps; the oldest go first. Read at start only.
    pub journal_turns: usize,
    /// The share of traced turns whose token stamps the journal keeps, from 0 to 1, by their markers.
    pub trace_share: f64,
    /// With more streams open at once the share is smaller, so that no more than about so many have them.
    pub trace_streams: u64,
    /// The key that chat calls must carry as the bearer (with Anthropic's Messages also as `x-api-key`), if any.
    pub api_key: Option<String>,
    /// The models by name.
    pub models: BTreeMap<String, ModelBehaviour>,
}

/// How one model behaves.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelBehaviour {
    /// Admission to first token, in microseconds.
    pub ttft: Distribution,
    /// Between tokens, in microseconds.
    pub gap: Distribution,
    /// Tokens of a reply; drawn values are rounded, at least 1.
    pub tokens: Distribution,
    /// Requests served at once (a GPU server's batch limit); without it there is no limit.
    pub slots: Option<usize>,
    /// Requests that may wait for a slot; the next one is refused with 503.
    pub queue: usize,
    /// Requests admitted in a window; the next one is refused with 429.
    pub rate_limit: Option<RateLimit>,
    /// What goes wrong, and how often.
    pub faults: Faults,
}

/// A fixed-window request limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// Requests in a window.
    pub requests: u64,
    /// The window's length.
    pub per: Duration,
}

/// Something that the mock does wrong on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Answers 500 at once.
    Http500,
    /// Answers 503 at once.
    Http503,
    /// Sends an error event in mid-stream and ends.
    ErrorEvent,
    /// Resets the TCP connection in mid-stream.
    Reset,
    /// Sends nothing more from mid-stream on, until the caller leaves.
    Stall,
    /// Sends an event that is no JSON in the place of a token, and goes on; it counts as no token.
    MalformedJson,
    /// Ends the stream without its terminal event (`[DONE]` of chat completions).
    NoDone,
}

impl Fault {
    /// Every fault, with its key.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Http500, "http_500"),
        (Self::Http503, "http_503"),
        (Self::ErrorEvent, "error_event"),
        (Self::Reset, "reset"),
        (Self::Stall, "stall"),
        (Self::MalformedJson, "malformed_json"),
        (Self::NoDone, "no_done"),
    ];
}

/// The probability of each fault of [`Fault::ALL`], in that order. Their sum is at most 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Faults(pub [f64; Fault::ALL.len()]);

impl Faults {
    /// Always this fault.
    pub fn always(fault: Fault) -> Self {
        let mut faults = Self::default();
        for (share, (candidate, _)) in faults.0.iter_mut().zip(Fault::ALL) {
            *share = if candidate == fault { 1.0 } else { 0.0 };
        }
        faults
    }

    /// Draws at most one fault.
    pub fn draw(&self, rng: &mut ChaCha8Rng) -> Option<Fault> {
        let mut point: f64 = rng.random();
        for (share, (fault, _)) in self.0.iter().zip(Fault::ALL) {
            if point < *share {
                return Some(fault);
            }
            point -= share;
        }
        None
    }
}

impl Default for ModelBehaviour {
    /// 200 ms to the first token, then 50 tokens 20 ms apart, without limits or faults.
    fn default() -> Self {
        Self {
            ttft: Distribution::Constant(200_000.0),
            gap: Distribution::Constant(20_000.0),
            tokens: Distribution::Constant(50.0),
            slots: None,
            queue: 1_000_000,
            rate_limit: None,
            faults: Faults::default(),
        }
    }
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            seed: 1,
            threads: 1,
            journal_turns: 100_000,
            trace_share: 1.0,
            trace_streams: 2_000,
            api_key: None,
            models: BTreeMap::from([(DEFAULT_MODEL.to_owned(), ModelBehaviour::default())]),
        }
    }
}

impl ModelBehaviour {
    /// The mean length of a turn without queueing: time to first token, then the gaps.
    pub fn mean_turn(&self) -> Duration {
        let micros = self.ttft.mean() + self.gap.mean() * (self.tokens.mean() - 1.0).max(0.0);
        Duration::from_nanos((micros * 1_000.0) as u64)
    }
}

impl Behaviour {
    /// One model, with everything else as by default.
    pub fn single(name: &str, model: ModelBehaviour) -> Self {
        Self { models: BTreeMap::from([(name.to_owned(), model)]), ..Self::default() }
    }

    /// Reads a TOML text.
    ///
    /// # Errors
    /// Every problem of the text, each with its key; a syntax error is one, with its place.
    pub fn from_toml(text: &str) -> Result<Self, Vec<Problem>> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            vec![Problem { key: "(syntax)".to_owned(), message: error.to_string().trim_end().to_owned() }]
        })?;
        match serde_json::to_value(table) {
            Ok(value) => Self::from_value(value),
            Err(error) => Err(vec![Problem { key: "(syntax)".to_owned(), message: error.to_string() }]),
        }
    }

    /// Reads a tree, as it comes from TOML or JSON. A `[defaults]` table applies to every model.
    ///
    /// # Errors
    /// Every problem, each with its key.
    pub fn from_value(value: Value) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let fallback = Self::default();
        let mut root = Section::open("", value, &mut problems);
        let seed = root.whole("seed", 0..=u64::MAX).unwrap_or(fallback.seed);
        let threads = root.whole("threads", 1..=256).map_or(fallback.threads, |threads| threads as usize);
        let journal_turns =
            root.whole("journal_turns", 1..=10_000_000).map_or(fallback.journal_turns, |turns| turns as usize);
        let trace_share = root.read("trace_share", |value| match value.as_f64() {
            Some(share) if (0.0..=1.0).contains(&share) => Ok(share),
            _ => Err(format!("is {value}, but should be a share from 0 to 1")),
        });
        let trace_share = trace_share.unwrap_or(fallback.trace_share);
        let trace_streams = root.whole("trace_streams", 0..=10_000_000).unwrap_or(fallback.trace_streams);
        let api_key = root.read("api_key", |value| match value.as_str() {
            Some(key) if !key.is_empty() => Ok(key.to_owned()),
            _ => Err("should be a text that is not empty".to_owned()),
        });
        let defaults = match root.take("defaults") {
            Some(value) => read_model("defaults", value, &ModelBehaviour::default(), root.problems()),
            None => ModelBehaviour::default(),
        };
        let models = match root.take("models") {
            Some(Value::Object(entries)) if !entries.is_empty() => entries
                .into_iter()
                .map(|(name, value)| {
                    let model = read_model(&format!("models.{name}"), value, &defaults, root.problems());
                    (name, model)
                })
                .collect(),
            Some(_) => {
                root.problem("models", "should be tables like [models.NAME], at least one".to_owned());
                BTreeMap::new()
            }
            None => BTreeMap::from([(DEFAULT_MODEL.to_owned(), defaults)]),
        };
        root.close();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self { seed, threads, journal_turns, trace_share, trace_streams, api_key, models })
    }

    /// The behaviour as a tree that [`Behaviour::from_value`] reads; the key is left out.
    pub fn to_value(&self) -> Value {
        let models: serde_json::Map<String, Value> =
            self.models.iter().map(|(name, model)| (name.clone(), model.to_value())).collect();
        json!({
            "seed": self.seed, "threads": self.threads, "journal_turns": self.journal_turns,
            "trace_share": self.trace_share, "trace_streams": self.trace_streams, "models": models,
        })
    }
}

impl ModelBehaviour {
    fn to_value(&self) -> Value {
        let faults: serde_json::Map<String, Value> = self
            .faults
            .0
            .iter()
            .zip(Fault::ALL)
            .filter(|(share, _)| **share > 0.0)
            .map(|(share, (_, key))| (key.to_owned(), json!(share)))
            .collect();
        let mut value = json!({
            "ttft": Written::duration(self.ttft),
            "gap": Written::duration(self.gap),
            "tokens": Written::count(self.tokens),
            "queue": self.queue,
            "faults": faults,
        });
        if let Some(slots) = self.slots {
            value["slots"] = json!(slots);
        }
        if let Some(RateLimit { requests, per }) = self.rate_limit {
            value["rate_limit"] = json!({ "requests": requests, "per": Written::duration(Distribution::Constant(per.as_micros() as f64)) });
        }
        value
    }
}

fn read_model(path: &str, value: Value, fallback: &ModelBehaviour, problems: &mut Vec<Problem>) -> ModelBehaviour {
    let mut section = Section::open(path, value, problems);
    let ttft = section.read("ttft", |value| distribution(value, Unit::Duration)).unwrap_or(fallback.ttft);
    let gap = section.read("gap", |value| distribution(value, Unit::Duration)).unwrap_or(fallback.gap);
    let tokens = section.read("tokens", |value| distribution(value, Unit::Count)).unwrap_or(fallback.tokens);
    let slots = section.whole("slots", 1..=1_000_000).map(|slots| slots as usize).or(fallback.slots);
    let queue = section.whole("queue", 0..=1_000_000).map_or(fallback.queue, |queue| queue as usize);
    let rate_limit = match section.take("rate_limit") {
        Some(value) => read_rate_limit(&format!("{path}.rate_limit"), value, section.problems()),
        None => fallback.rate_limit,
    };
    let faults = match section.take("faults") {
        Some(value) => read_faults(&format!("{path}.faults"), value, section.problems()),
        None => fallback.faults,
    };
    section.close();
    ModelBehaviour { ttft, gap, tokens, slots, queue, rate_limit, faults }
}

fn distribution(value: &Value, unit: Unit) -> Result<Distribution, String> {
    match (value, unit) {
        (Value::String(text), _) => Distribution::parse(text, unit),
        (Value::Number(number), Unit::Count) => Distribution::parse(&number.to_string(), unit),
        (Value::Number(number), Unit::Duration) => {
            Err(format!("is {number}, but a duration needs a unit, like \"{number}ms\""))
        }
        _ => Err("should be a text such as \"uniform 50ms 99ms\"".to_owned()),
    }
}

fn read_rate_limit(path: &str, value: Value, problems: &mut Vec<Problem>) -> Option<RateLimit> {
    let mut section = Section::open(path, value, problems);
    let requests = match section.take("requests") {
        Some(value) => value.as_u64().filter(|requests| *requests > 0).or_else(|| {
            section.problem("requests", format!("is {value}, but should be a whole number of 1 or more"));
            None
        }),
        None => {
            section.problem("requests", "is missing".to_owned());
            None
        }
    };
    let per = section.read("per", |value| match value.as_str().map(parse_duration) {
        Some(Ok(per)) if !per.is_zero() => Ok(per),
        Some(Err(error)) => Err(error),
        _ => Err("should be a duration above 0, like \"1s\"".to_owned()),
    });
    section.close();
    Some(RateLimit { requests: requests?, per: per.unwrap_or(Duration::from_mins(1)) })
}

fn read_faults(path: &str, value: Value, problems: &mut Vec<Problem>) -> Faults {
    let mut section = Section::open(path, value, problems);
    let mut faults = Faults::default();
    for (share, (_, key)) in faults.0.iter_mut().zip(Fault::ALL) {
        *share = section
            .read(key, |value| match value.as_f64() {
                Some(share) if (0.0..=1.0).contains(&share) => Ok(share),
                _ => Err(format!("is {value}, but should be a probability from 0 to 1")),
            })
            .unwrap_or(0.0);
    }
    section.close();
    let sum: f64 = faults.0.iter().sum();
    if sum > 1.0 + 1e-9 {
        problems.push(Problem { key: path.to_owned(), message: format!("the probabilities sum to {sum}, above 1") });
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_reads_and_writes_back() {
        let text = r#"
            seed = 9
            [defaults]
            queue = 7
            [models.fast]
            ttft = "uniform 50ms 99ms"
            gap = "50ms"
            tokens = 200
            slots = 8
            rate_limit = { requests = 10, per = "1s" }
            faults = { reset = 0.25, stall = 0.25 }
            [models.slow]
            ttft = "lognormal 1s 4s"
        "#;
        let behaviour = Behaviour::from_toml(text).unwrap();
        let fast = &behaviour.models["fast"];
        assert_eq!(fast.ttft, Distribution::Uniform { low: 50_000.0, high: 99_000.0 });
        assert_eq!((fast.slots, fast.queue), (Some(8), 7));
        assert_eq!(fast.rate_limit, Some(RateLimit { requests: 10, per: Duration::from_secs(1) }));
        assert_eq!(Behaviour::from_value(behaviour.to_value()), Ok(behaviour));
    }

    #[test]
    fn every_problem_is_reported_at_once_with_its_key() {
        let text = r#"
            sead = 9
            threads = 0
            [models.fast]
            ttft = 200
            gap = "soon"
            slots = -1
            rate_limit = { per = "1s" }
            faults = { rest = 0.1, stall = 1.5 }
            [models.slow]
            faults = { stall = 0.7, reset = 0.7 }
        "#;
        let problems: Vec<String> = Behaviour::from_toml(text).unwrap_err().iter().map(ToString::to_string).collect();
        for expected in [
            "sead: unknown key `sead`; did you mean `seed`?",
            "threads: is 0, but should be a whole number from 1 to 256",
            "models.fast.ttft: is 200, but a duration needs a unit",
            "models.fast.gap: `soon` is no duration",
            "models.fast.slots: is -1",
            "models.fast.rate_limit.requests: is missing",
            "models.fast.faults.rest: unknown key `rest`; did you mean `reset`?",
            "models.fast.faults.stall: is 1.5",
            "models.slow.faults: the probabilities sum to 1.4",
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected} in {problems:#?}");
        }
        assert_eq!(problems.len(), 9, "{problems:#?}");
        assert_eq!(Behaviour::from_toml("a = ").unwrap_err()[0].key, "(syntax)");
    }

    #[test]
    fn faults_are_drawn_as_often_as_asked() {
        let mut rng = crate::script::generator(1, "faults", "");
        let faults = Faults([0.1, 0.0, 0.0, 0.3, 0.0, 0.0, 0.2]);
        let mut counts = BTreeMap::new();
        for _ in 0..20_000 {
            *counts.entry(faults.draw(&mut rng)).or_insert(0) += 1;
        }
        let share = |fault| f64::from(counts[&fault]) / 20_000.0;
        assert!((share(Some(Fault::Http500)) - 0.1).abs() < 0.01);
        assert!((share(Some(Fault::Reset)) - 0.3).abs() < 0.015);
        assert!((share(Some(Fault::NoDone)) - 0.2).abs() < 0.015);
        assert_eq!(counts.len(), 4);
    }
}
