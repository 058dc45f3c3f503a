//! Finds the turns of a run in the mock's journal, while the run goes on.
//!
//! Both sides are bounded: shards hand their ended turns over through a queue of fixed length, the journal is read
//! in pages, and what waits for its other half is given up after a while and counted.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use mock_llm::journal::{self, Call, TurnOutcome};
use tokio::sync::{mpsc, oneshot};

use super::{MockAdmin, Offset, Spoken, TraceError, WhiteSpace, join};
use crate::clock::{self, Nanos, Pairing, SECOND};
use crate::metric::MetricSet;
use crate::record::{Outcome, Record, Recorder, TierTrace};

/// How often the journal is read.
const ROUND: Duration = Duration::from_millis(500);
/// Turns that are handed over and not taken yet.
const QUEUE: usize = 16_384;
/// Calls of the mock whose turn has not ended yet, as far as we know.
const CALLS: usize = 5_000;
/// How long a turn that has ended waits for its call.
const PATIENCE: Nanos = 30 * SECOND;
/// How long the journal is read once no user is left.
const LAST_PATIENCE: Nanos = 3 * SECOND;
/// Exchanges with the clock in a round; the quickest counts.
const EXCHANGES: usize = 3;
/// Pages in a round.
const PAGES: usize = 100;

/// A shard's line to the tracer.
#[derive(Debug, Clone)]
pub struct Tracing {
    /// How exactly white space is compared.
    pub white: WhiteSpace,
    sender: mpsc::Sender<Spoken>,
    missed: Arc<AtomicU64>,
}

impl Tracing {
    /// A turn has ended. One that never had a token, or was cut off by the end of the run, is nothing to trace.
    pub fn tell(&self, spoken: Spoken) {
        let turn = &spoken.turn;
        let traced = turn.checked.is_some() && turn.first_token.is_some() && turn.outcome != Outcome::Interrupted;
        if traced && self.sender.try_send(spoken).is_err() {
            self.missed.fetch_add(1, Relaxed);
        }
    }
}

/// What tracing has found.
#[derive(Debug, Default)]
pub struct Traces {
    /// Metrics of turns found on both sides.
    pub record: Record,
    /// By tier.
    pub tiers: Vec<TierTrace>,
    /// The distance of the mock's clock.
    pub offset: Offset,
    /// Calls of the mock for a turn that it had been asked for already.
    pub retries: u64,
    /// Calls about a turn that are not its stream: a title, a summary.
    pub asides: u64,
    /// Entries of the journal that were gone before they were read.
    pub lost_entries: u64,
    /// Turns that could not be handed over.
    pub missed: u64,
    /// Why the journal could not be read at the end, if so.
    pub unreadable: Option<String>,
}

/// The reader of the journal.
pub struct Tracer {
    admin: MockAdmin,
    /// What the markers of this run begin with.
    prefix: String,
    turns: mpsc::Receiver<Spoken>,
    missed: Arc<AtomicU64>,
    after: u64,
    /// Turns that wait for their call, and since when.
    waiting: HashMap<String, (Spoken, Nanos)>,
    /// Calls that wait for their turn, and the order in which they came.
    calls: HashMap<String, journal::Turn>,
    order: VecDeque<String>,
    pairing: Pairing,
    recorder: Recorder,
    found: Traces,
}

impl Tracer {
    /// The tracer of run `run`, from the journal's newest entry on, and the shards' line to it.
    ///
    /// # Errors
    /// When the mock's admin listener does not answer.
    pub async fn new(
        admin: MockAdmin,
        run: &str,
        white: WhiteSpace,
        budgeted: MetricSet,
    ) -> Result<(Self, Tracing), TraceError> {
        let (sender, turns) = mpsc::channel(QUEUE);
        let missed = Arc::new(AtomicU64::new(0));
        let host = admin.clock().await?.host;
        let same = host.is_some() && host == mock_llm::host();
        let offset = if same { Offset::same_host() } else { Offset::default() };
        let mut tracer = Self {
            after: admin.newest().await?,
            admin,
            prefix: format!("cc:{run}:"),
            turns,
            missed: Arc::clone(&missed),
            waiting: HashMap::new(),
            calls: HashMap::new(),
            order: VecDeque::new(),
            pairing: Pairing::measure(),
            recorder: Recorder::new(Arc::default(), budgeted),
            found: Traces { offset, ..Traces::default() },
        };
        tracer.exchange().await?;
        Ok((tracer, Tracing { white, sender, missed }))
    }

    /// Reads until told that no turn will come any more, and then what is still missing.
    pub async fn run(mut self, mut over: oneshot::Receiver<()>) -> Traces {
        let mut tick = tokio::time::interval(ROUND);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while over.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
            tokio::select! {
                _ = tick.tick() => {}
                _ = &mut over => break,
            }
            self.round().await;
        }
        let deadline = clock::monotonic() + LAST_PATIENCE;
        loop {
            self.round().await;
            if self.waiting.is_empty() || clock::monotonic() > deadline {
                break;
            }
            tokio::time::sleep(ROUND / 5).await;
        }
        self.give_up(0);
        self.found.missed = self.missed.load(Relaxed);
        self.found.record = self.recorder.into_record();
        self.found
    }

    async fn round(&mut self) {
        let now = clock::monotonic();
        while let Ok(spoken) = self.turns.try_recv() {
            self.waiting.insert(spoken.marker.clone(), (spoken, now));
        }
        let read = self.read().await;
        self.join_all();
        if read.is_ok() {
            // What could not be read is nothing that is missing.
            self.give_up(PATIENCE);
        }
        self.found.unreadable = read.err().map(|error| error.to_string());
    }

    async fn read(&mut self) -> Result<(), TraceError> {
        self.pairing = Pairing::measure();
        self.exchange().await?;
        for _ in 0..PAGES {
            let page = self.admin.page(self.after).await?;
            self.after = page.next;
            self.found.lost_entries += page.lost;
            for call in page.turns {
                self.take(call);
            }
            if !page.more {
                break;
            }
        }
        Ok(())
    }

    /// Asks the mock's clock, where it is another one than ours.
    async fn exchange(&mut self) -> Result<(), TraceError> {
        if self.found.offset.is_same_host() {
            return Ok(());
        }
        for _ in 0..EXCHANGES {
            let sent = clock::monotonic();
            let theirs = self.admin.clock().await?.unix_us as Nanos * 1_000;
            let answered = clock::monotonic();
            let pairing = self.pairing;
            self.found.offset.exchange(sent, answered, theirs, |at| pairing.to_realtime(at));
        }
        Ok(())
    }

    fn take(&mut self, call: journal::Turn) {
        let Some(marker) = call.marker.clone().filter(|marker| marker.starts_with(&self.prefix)) else { return };
        match call.call {
            Some(Call::Aside) => {
                self.found.asides += 1;
                return;
            }
            Some(Call::Retry) => self.found.retries += 1,
            Some(Call::Turn) | None => {}
        }
        // Of those that brought a token the turn's stream is the one that completed, or was asked for last: one that
        // was given up may end later.
        let rank = |call: &journal::Turn| (call.outcome == TurnOutcome::Completed, call.received_us);
        if call.tokens == 0 || self.calls.get(&marker).is_some_and(|known| rank(known) > rank(&call)) {
            return;
        }
        if self.calls.insert(marker.clone(), call).is_none() {
            self.order.push_back(marker);
        }
        while self.calls.len() > CALLS
            && let Some(oldest) = self.order.pop_front()
        {
            self.calls.remove(&oldest);
        }
    }

    fn join_all(&mut self) {
        let markers: Vec<String> =
            self.waiting.keys().filter(|marker| self.calls.contains_key(*marker)).cloned().collect();
        let (offset, pairing) = (&self.found.offset, self.pairing);
        for marker in markers {
            let (Some((spoken, _)), Some(call)) = (self.waiting.remove(&marker), self.calls.remove(&marker)) else {
                continue;
            };
            let clock = |unix_us: u64| {
                offset.to_run((unix_us as Nanos).saturating_mul(1_000), |wall| pairing.to_monotonic(wall))
            };
            let joined = join(&spoken, &call, clock);
            let tier = spoken.place.tier().map(|tier| tier_trace(&mut self.found.tiers, tier));
            match (joined, tier) {
                (Some(joined), tier) => {
                    self.recorder.traced(spoken.place, &joined);
                    if let Some(tier) = tier {
                        tier.take(&joined);
                    }
                }
                (None, Some(tier)) => tier.unjoined += 1,
                (None, None) => {}
            }
        }
        // What was joined is forgotten in the order too, before that grows.
        if self.order.len() > 2 * CALLS {
            self.order.retain(|marker| self.calls.contains_key(marker));
        }
    }

    /// Counts turns that have waited for their call for so long.
    fn give_up(&mut self, patience: Nanos) {
        let since = clock::monotonic() - patience;
        let tiers = &mut self.found.tiers;
        self.waiting.retain(|_, (spoken, came)| {
            let waits = *came > since;
            // A turn that broke off may still be at work on the other side.
            let counts = matches!(spoken.turn.outcome, Outcome::Completed | Outcome::Aborted);
            if let (false, true, Some(tier)) = (waits, counts, spoken.place.tier()) {
                tier_trace(tiers, tier).unjoined += 1;
            }
            waits
        });
    }
}

fn tier_trace(tiers: &mut Vec<TierTrace>, tier: usize) -> &mut TierTrace {
    if tiers.len() <= tier {
        tiers.resize_with(tier + 1, TierTrace::default);
    }
    &mut tiers[tier]
}
