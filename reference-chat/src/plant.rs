//! What goes wrong on purpose, so that whoever looks for it can be tested. What is done to tokens is
//! done and counted here; the plants of the stores are in their modules.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mock_llm::distribution::parse_duration;
use mock_llm::unknown;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::job::Job;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// One token in so many is dropped.
    Drop(u64),
    /// One in so many comes twice.
    Double(u64),
    /// One in so many changes places with the next.
    Swap(u64),
    /// One in so many comes as something else.
    Alter(u64),
    /// Before one in so many come eight tokens of another turn.
    Foreign(u64),
    /// The reply is kept until it is whole.
    Buffer,
    /// So many tokens make one.
    Coalesce(u64),
    /// Every token takes so much longer.
    Delay(Duration),
    /// The first tokens of a turn, so many, reach no subscriber, as over Redis; the whole text has them.
    Late(u64),
    /// The same, and the whole text has them neither.
    LateLost(u64),
    /// The model is asked for a title after the first turn of a conversation.
    Titles,
    /// MongoDB takes so much longer for each operation.
    SlowMongo(Duration),
    /// So many documents fill `logs`, which has no index.
    Logs(u64),
    /// Redis takes so many connections.
    RedisMaxClients(u64),
    /// Redis has so many bytes of memory, and evicts nothing.
    RedisMaxMemory(u64),
    /// Each turn takes so many bytes of memory and never gives them back.
    Leak(u64),
    /// The first worker's work costs so many thousandths of the usual.
    WorkerCost(u32),
}

/// What a worker's work usually costs, in thousandths.
pub(crate) const AS_USUAL: u32 = 1_000;

/// The names, as they are written.
const NAMES: [&str; 17] = [
    "drop",
    "double",
    "swap",
    "alter",
    "foreign",
    "buffer",
    "coalesce",
    "delay",
    "late",
    "late-lost",
    "titles",
    "slow-mongo",
    "logs",
    "redis-maxclients",
    "redis-maxmemory",
    "leak",
    "worker-cost",
];

impl Plant {
    /// Reads `drop=50`, `delay=20ms`, `buffer`.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let wanted = || value.ok_or_else(|| format!("`{name}` wants a value, like `{name}=50`"));
        let count = || match wanted()?.parse() {
            Ok(count @ 1..) => Ok(count),
            _ => Err(format!("`{text}` wants a whole number of 1 or more")),
        };
        let alone = |plant| value.map_or(Ok(plant), |_| Err(format!("`{name}` takes no value")));
        match name {
            "drop" => count().map(Self::Drop),
            "double" => count().map(Self::Double),
            "swap" => count().map(Self::Swap),
            "alter" => count().map(Self::Alter),
            "foreign" => count().map(Self::Foreign),
            "buffer" => alone(Self::Buffer),
            "coalesce" => count().map(Self::Coalesce),
            "delay" => parse_duration(wanted()?).map(Self::Delay),
            "late" => count().map(Self::Late),
            "late-lost" => count().map(Self::LateLost),
            "titles" => alone(Self::Titles),
            "slow-mongo" => parse_duration(wanted()?).map(Self::SlowMongo),
            "logs" => count().map(Self::Logs),
            "redis-maxclients" => count().map(Self::RedisMaxClients),
            "redis-maxmemory" => count().map(Self::RedisMaxMemory),
            "leak" => count().map(Self::Leak),
            "worker-cost" => factor(text, wanted()?).map(Self::WorkerCost),
            _ => Err(unknown("plant", name, NAMES.into_iter())),
        }
    }
}

/// A factor in thousandths.
fn factor(text: &str, value: &str) -> Result<u32, String> {
    match value.parse::<f64>() {
        Ok(factor) if (0.001..=1_000.0).contains(&factor) => Ok((factor * f64::from(AS_USUAL)).round() as u32),
        _ => Err(format!("`{text}` wants a number of 0.001 to 1000, like `worker-cost=2`")),
    }
}

/// The tokens of another turn that are told as one's own.
const RUN: usize = 8;
/// The turns whose tokens are kept for that.
const OVERHEARD: usize = 64;

/// What is planted in a deployment, and how often that was done.
pub(crate) struct Planted {
    plants: Vec<Plant>,
    /// Tokens that came by each plant, and those that it harmed, in the order of `plants`.
    counts: Vec<(AtomicU64, AtomicU64)>,
    /// The newest tokens of turns, by job.
    overheard: Mutex<VecDeque<(String, Vec<String>)>>,
    /// What turns took and never give back.
    leaked: Mutex<Vec<Vec<u8>>>,
}

impl Planted {
    pub(crate) fn new(plants: &[Plant]) -> Self {
        let counts = plants.iter().map(|_| (AtomicU64::new(0), AtomicU64::new(0))).collect();
        Self { plants: plants.to_vec(), counts, overheard: Mutex::default(), leaked: Mutex::default() }
    }

    pub(crate) fn has(&self, plant: Plant) -> bool {
        self.plants.contains(&plant)
    }

    /// A turn began: what it leaks is taken, and written to, for memory counts only then.
    pub(crate) fn leak(&self) {
        for plant in &self.plants {
            if let Plant::Leak(bytes) = plant {
                let taken = vec![0x5a; usize::try_from(*bytes).unwrap_or(usize::MAX)];
                self.leaked.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
            }
        }
    }

    /// How many tokens each has harmed, by name.
    pub(crate) fn told(&self) -> Value {
        let one = |(plant, (_, harmed)): (&Plant, &(AtomicU64, AtomicU64))| {
            (plant.name().to_owned(), json!(harmed.load(Relaxed)))
        };
        Value::Object(self.plants.iter().zip(&self.counts).map(one).collect())
    }

    /// Whether it is this token's turn, one in `n`.
    fn falls(&self, plant: usize, n: u64) -> bool {
        self.counts[plant].0.fetch_add(1, Relaxed) % n == n - 1
    }

    fn harmed(&self, plant: usize, tokens: u64) {
        self.counts[plant].1.fetch_add(tokens, Relaxed);
    }

    fn overhear(&self, job: &str, text: &str) {
        let mut overheard = self.overheard.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((_, tokens)) = overheard.iter_mut().find(|(id, _)| id == job) else {
            overheard.push_back((job.to_owned(), vec![text.to_owned()]));
            if overheard.len() > OVERHEARD {
                overheard.pop_front();
            }
            return;
        };
        tokens.push(text.to_owned());
        if tokens.len() > RUN {
            tokens.remove(0);
        }
    }

    /// The newest tokens of a turn that is not this one.
    fn foreign(&self, job: &str) -> Option<Vec<String>> {
        let overheard = self.overheard.lock().unwrap_or_else(PoisonError::into_inner);
        overheard.iter().rev().find(|(id, tokens)| id != job && tokens.len() == RUN).map(|(_, tokens)| tokens.clone())
    }
}

impl Plant {
    /// Its name, as it is written.
    pub(crate) fn name(self) -> &'static str {
        NAMES[self.number()]
    }

    fn number(self) -> usize {
        match self {
            Self::Drop(_) => 0,
            Self::Double(_) => 1,
            Self::Swap(_) => 2,
            Self::Alter(_) => 3,
            Self::Foreign(_) => 4,
            Self::Buffer => 5,
            Self::Coalesce(_) => 6,
            Self::Delay(_) => 7,
            Self::Late(_) => 8,
            Self::LateLost(_) => 9,
            Self::Titles => 10,
            Self::SlowMongo(_) => 11,
            Self::Logs(_) => 12,
            Self::RedisMaxClients(_) => 13,
            Self::RedisMaxMemory(_) => 14,
            Self::Leak(_) => 15,
            Self::WorkerCost(_) => 16,
        }
    }
}

/// How a token reaches whoever reads the job.
enum Way {
    /// At once.
    Straight,
    /// Through a task that lets each wait.
    Delayed { sender: mpsc::UnboundedSender<(Instant, String)>, task: JoinHandle<()>, delay: Duration },
    /// With all the others, in the end.
    Buffered(Vec<String>),
}

/// The way of one turn's tokens from the model to the job.
pub(crate) struct Relay<'a> {
    planted: &'a Planted,
    job: Arc<Job>,
    step: String,
    way: Way,
    /// A token that waits for the next, to change places with it, and by which plant.
    held: Option<(usize, String)>,
    /// Tokens that wait to be one.
    joined: (u64, String),
    /// Tokens so far.
    count: u64,
}

impl<'a> Relay<'a> {
    pub(crate) fn new(planted: &'a Planted, job: &Arc<Job>, step: &str) -> Self {
        let delay = planted.plants.iter().find_map(|plant| match plant {
            Plant::Delay(delay) => Some(*delay),
            _ => None,
        });
        let way = match delay {
            _ if planted.has(Plant::Buffer) => Way::Buffered(Vec::new()),
            Some(delay) => delayed(Arc::clone(job), step.to_owned(), delay),
            None => Way::Straight,
        };
        let job = Arc::clone(job);
        Self { planted, job, step: step.to_owned(), way, held: None, joined: (0, String::new()), count: 0 }
    }

    /// A token of the model.
    pub(crate) fn take(&mut self, text: &str) {
        self.count += 1;
        let mut tokens = vec![text.to_owned()];
        for (number, plant) in self.planted.plants.iter().enumerate() {
            tokens = self.harm(number, *plant, tokens);
        }
        for token in tokens {
            self.join(token);
        }
    }

    /// What one plant makes of the tokens that come by.
    fn harm(&mut self, number: usize, plant: Plant, tokens: Vec<String>) -> Vec<String> {
        let planted = self.planted;
        let mut out = Vec::new();
        for token in tokens {
            match plant {
                Plant::Drop(n) if planted.falls(number, n) => planted.harmed(number, 1),
                Plant::Double(n) if planted.falls(number, n) => {
                    planted.harmed(number, 1);
                    out.extend([token.clone(), token]);
                }
                Plant::Swap(n) => match self.held.take() {
                    Some((_, before)) => {
                        planted.harmed(number, 1);
                        out.extend([token, before]);
                    }
                    None if planted.falls(number, n) => self.held = Some((number, token)),
                    None => out.push(token),
                },
                Plant::Alter(n) if planted.falls(number, n) => {
                    planted.harmed(number, 1);
                    out.push(format!("{token}~"));
                }
                Plant::Foreign(n) => {
                    planted.overhear(&self.job.id, &token);
                    if planted.falls(number, n)
                        && let Some(foreign) = planted.foreign(&self.job.id)
                    {
                        planted.harmed(number, foreign.len() as u64);
                        out.extend(foreign);
                    }
                    out.push(token);
                }
                Plant::Late(first) | Plant::LateLost(first) if self.count <= first => {
                    planted.harmed(number, 1);
                    if plant == Plant::Late(first) {
                        self.job.unsent_token(&token);
                    }
                }
                _ => out.push(token),
            }
        }
        out
    }

    fn join(&mut self, token: String) {
        let most = self.planted.plants.iter().find_map(|plant| match plant {
            Plant::Coalesce(count) => Some(*count),
            _ => None,
        });
        let Some(most) = most else { return self.send(token) };
        self.joined.0 += 1;
        self.joined.1.push_str(&token);
        if self.joined.0 >= most {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let (count, text) = std::mem::take(&mut self.joined);
        if count > 0 {
            self.send(text);
        }
    }

    fn send(&mut self, text: String) {
        match &mut self.way {
            Way::Straight => self.job.token(&self.step, &text),
            Way::Buffered(texts) => texts.push(text),
            Way::Delayed { sender, delay, .. } => {
                // The task lives as long as this sender.
                let _ = sender.send((Instant::now() + *delay, text));
            }
        }
    }

    /// The model's reply is over: what is still on its way is told.
    pub(crate) async fn finish(mut self) {
        // Nothing came after it to change places with.
        if let Some((_, token)) = self.held.take() {
            self.join(token);
        }
        self.flush();
        match self.way {
            Way::Straight => {}
            Way::Buffered(texts) => texts.iter().for_each(|text| self.job.token(&self.step, text)),
            Way::Delayed { sender, task, .. } => {
                drop(sender);
                // It has nothing to fail on.
                let _ = task.await;
            }
        }
    }
}

fn delayed(job: Arc<Job>, step: String, delay: Duration) -> Way {
    let (sender, mut tokens) = mpsc::unbounded_channel::<(Instant, String)>();
    let task = tokio::spawn(async move {
        while let Some((due, text)) = tokens.recv().await {
            tokio::time::sleep_until(due.into()).await;
            job.token(&step, &text);
        }
    });
    Way::Delayed { sender, task, delay }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plants_read_as_written_and_mistakes_are_told() {
        assert_eq!(Plant::parse("drop=50"), Ok(Plant::Drop(50)));
        assert_eq!(Plant::parse("delay=20ms"), Ok(Plant::Delay(Duration::from_millis(20))));
        assert_eq!(Plant::parse("buffer"), Ok(Plant::Buffer));
        assert_eq!(Plant::parse("slow-mongo=30ms"), Ok(Plant::SlowMongo(Duration::from_millis(30))));
        assert_eq!(Plant::parse("worker-cost=2.5"), Ok(Plant::WorkerCost(2_500)));
        for (text, part) in [
            ("drip=5", "did you mean `drop`?"),
            ("drop", "like `drop=50`"),
            ("drop=0", "1 or more"),
            ("buffer=1", "takes no value"),
            ("delay=20", "unit"),
            ("worker-cost=NaN", "0.001 to 1000"),
            ("worker-cost=0", "0.001 to 1000"),
            ("redis-maxclient=5", "did you mean `redis-maxclients`?"),
        ] {
            let error = Plant::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn every_plant_has_its_name() {
        for (number, name) in NAMES.iter().enumerate() {
            let text = match *name {
                "buffer" | "titles" => (*name).to_owned(),
                "delay" | "slow-mongo" => format!("{name}=1s"),
                name => format!("{name}=3"),
            };
            assert_eq!(Plant::parse(&text).unwrap().number(), number);
        }
    }
}
