//! One recorder a shard, owned by its thread: no lock and no atomic on the token path.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::block::{Block, Blocks};
use super::delta::Delta;
use super::flaw::{Finding, Flaws};
use super::metric::Metrics;
use super::outcome::{Outcome, OutcomeCounts};
use super::step::{Step, Steps};
use super::trace::Joined;
use super::turn::{Example, Turn};
use super::window::Stages;
use super::wire::Wire;
use crate::clock::{MILLISECOND, Nanos, micros};
use crate::metric::{Metric, MetricSet};

/// The examples of outcomes that a tier keeps, a few of each.
const EXAMPLES_OF_AN_OUTCOME: usize = 3;
const EXAMPLES: usize = 30;
/// The findings that a tier keeps.
const FINDINGS: usize = 20;

/// A first token whose bounds are wider than this is not known well enough.
pub const WIDE: Nanos = 10 * MILLISECOND;

/// Counts of turns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// Turns that the load model wanted.
    pub intended: u64,
    /// Turns that were begun.
    pub started: u64,
    /// Turns that could not be begun.
    pub dropped: u64,
    /// How the begun ones ended.
    pub outcomes: OutcomeCounts,
    /// Content tokens of all of them.
    pub tokens: u64,
    /// Requests sent again because a kept-alive connection was closing.
    pub retries: u64,
    /// Streams taken up again after they had broken off.
    pub resumes: u64,
    /// Turns after which the deployment wanted to be left alone for a while.
    pub told_to_wait: u64,
    /// Of them, those after which it was.
    pub waited: u64,
    /// Words of whole texts that never arrived as tokens.
    pub late: u64,
    /// Turns whose whole reply was held against what was sent.
    pub checked: u64,
    /// Tokens by what was wrong with them, where that is known.
    pub flaws: Flaws,
    /// Turns by what carried them; those that came to no connection are in none.
    pub wires: BTreeMap<Wire, u64>,
}

impl Totals {
    /// Adds another's counts.
    pub fn merge(&mut self, other: &Self) {
        self.intended += other.intended;
        self.started += other.started;
        self.dropped += other.dropped;
        self.outcomes.merge(&other.outcomes);
        self.tokens += other.tokens;
        self.retries += other.retries;
        self.resumes += other.resumes;
        self.told_to_wait += other.told_to_wait;
        self.waited += other.waited;
        self.late += other.late;
        self.checked += other.checked;
        self.flaws.merge(&other.flaws);
        for (wire, turns) in &other.wires {
            *self.wires.entry(*wire).or_default() += turns;
        }
    }

    /// Whether every intended turn was begun or dropped, and every begun one has an outcome.
    pub fn is_balanced(&self) -> bool {
        self.started + self.dropped == self.intended && self.outcomes.total() == self.started
    }
}

/// What the turns of one tier's steady phase have measured.
#[derive(Debug, Clone)]
pub struct TierRecord {
    /// Counts of turns.
    pub totals: Totals,
    /// Metrics of turns that completed, and of the generator.
    pub metrics: Metrics,
    /// Metrics of turns that did not complete.
    pub failed: Metrics,
    /// First tokens, and of them those whose stamp is only a bound, and a wide one.
    pub first_tokens: u64,
    /// First tokens whose stamp is an upper bound.
    pub first_tokens_bounded: u64,
    /// First tokens whose bounds are more than 10 ms apart.
    pub first_tokens_wide: u64,
    /// Arrivals stamped in user space, because the kernel gave no stamp.
    pub user_space_stamps: u64,
    /// Arrivals in all.
    pub arrivals: u64,
    /// A few turns of each outcome but success.
    pub examples: Vec<Example>,
    /// A few places at which replies are not what they should be, the worst first.
    pub findings: Vec<Finding>,
    above: [u64; Metric::COUNT],
    blocks: Blocks,
}

impl Default for TierRecord {
    /// A tier in which nothing was recorded.
    fn default() -> Self {
        Self::new(MetricSet::default())
    }
}

impl TierRecord {
    fn new(budgeted: MetricSet) -> Self {
        Self {
            totals: Totals::default(),
            metrics: Metrics::default(),
            failed: Metrics::default(),
            first_tokens: 0,
            first_tokens_bounded: 0,
            first_tokens_wide: 0,
            user_space_stamps: 0,
            arrivals: 0,
            examples: Vec::new(),
            findings: Vec::new(),
            above: [0; Metric::COUNT],
            blocks: Blocks::new(budgeted),
        }
    }

    /// Turns that never came to have a metric, and count as above every bound.
    pub fn above(&self, metric: Metric) -> u64 {
        self.above[metric as usize]
    }

    /// The blocks of the steady phase, and the length of each.
    pub fn blocks(&self) -> (&[Block], Nanos) {
        (self.blocks.all(), self.blocks.width())
    }

    fn merge(&mut self, other: Self) {
        self.totals.merge(&other.totals);
        self.metrics.merge(&other.metrics);
        self.failed.merge(&other.failed);
        self.first_tokens += other.first_tokens;
        self.first_tokens_bounded += other.first_tokens_bounded;
        self.first_tokens_wide += other.first_tokens_wide;
        self.user_space_stamps += other.user_space_stamps;
        self.arrivals += other.arrivals;
        for (mine, theirs) in self.above.iter_mut().zip(other.above) {
            *mine += theirs;
        }
        for example in other.examples {
            self.keep_example(example);
        }
        self.keep_findings(&other.findings);
        self.blocks.merge(other.blocks);
    }

    fn keep_findings(&mut self, findings: &[Finding]) {
        self.findings.extend_from_slice(findings);
        self.findings.sort_by_key(|finding| finding.flaw);
        self.findings.truncate(FINDINGS);
    }

    fn keep_example(&mut self, example: Example) {
        let same = self.examples.iter().filter(|kept| kept.outcome == example.outcome).count();
        if same < EXAMPLES_OF_AN_OUTCOME && self.examples.len() < EXAMPLES {
            self.examples.push(example);
        }
    }

    /// Records a turn that was meant to start `offset` after the steady phase began.
    fn finish(&mut self, offset: Nanos, turn: &Turn) {
        self.metrics.record(Metric::StartLag, micros(turn.started - turn.intended));
        if let Some(checked) = &turn.checked {
            self.keep_findings(&checked.findings);
        }
        if let Some(first) = turn.first_token {
            self.note_first_token(first.latest - first.earliest);
        }
        // What a cancelled turn came to have, it had as any other; only its end says nothing.
        if !matches!(turn.outcome, Outcome::Completed | Outcome::Aborted) {
            self.finish_failed(offset, turn);
            return;
        }
        let mut record = |metric, value| {
            self.metrics.record(metric, value);
            self.blocks.record(offset, metric, value);
        };
        for (metric, duration) in durations(turn) {
            record(metric, micros(duration));
        }
        for gap in turn.gaps() {
            record(Metric::Itl, gap);
        }
        if turn.outcome == Outcome::Completed {
            record(Metric::Turn, micros(turn.ended - turn.intended));
        } else {
            self.failed.record(Metric::Turn, micros(turn.ended - turn.intended));
        }
        if turn.first_token.is_none() {
            // A whole turn without a single token: nothing was ever seen.
            self.note_above(offset, Metric::Ttft);
            self.note_above_traced(offset, turn, &[Metric::TtftOverhead]);
        }
    }

    /// What only a traced turn can miss.
    fn note_above_traced(&mut self, offset: Nanos, turn: &Turn, metrics: &[Metric]) {
        for metric in metrics.iter().filter(|_| turn.checked.is_some()) {
            self.note_above(offset, *metric);
        }
    }

    /// A failed turn keeps what it measured apart, and counts as above every bound of what it
    /// never came to: so an overloaded tier cannot pass by never finishing.
    fn finish_failed(&mut self, offset: Nanos, turn: &Turn) {
        for (metric, duration) in durations(turn) {
            self.failed.record(metric, micros(duration));
        }
        for gap in turn.gaps() {
            self.failed.record(Metric::Itl, gap);
        }
        self.failed.record(Metric::Turn, micros(turn.ended - turn.intended));
        if turn.outcome == Outcome::Interrupted {
            return;
        }
        if turn.first_token.is_none() {
            self.note_above(offset, Metric::Ttft);
            self.note_above_traced(offset, turn, &[Metric::TtftOverhead]);
        }
        self.note_above(offset, Metric::Turn);
        self.note_above(offset, Metric::Tpot);
        self.note_above_traced(offset, turn, &[Metric::Finalise, Metric::OverheadShare]);
        if matches!(turn.outcome, Outcome::ConnectRefused | Outcome::ConnectTimeout | Outcome::Dns | Outcome::Tls) {
            self.note_above(offset, Metric::Connect);
        }
        self.keep_example(Example { outcome: turn.outcome.to_string(), detail: turn.detail.clone() });
    }

    fn note_above(&mut self, offset: Nanos, metric: Metric) {
        self.above[metric as usize] += 1;
        self.blocks.record_above(offset, metric);
    }

    fn note_first_token(&mut self, width: Nanos) {
        self.first_tokens += 1;
        if width > 0 {
            self.first_tokens_bounded += 1;
            self.metrics.record(Metric::FirstTokenWidth, micros(width));
        }
        self.first_tokens_wide += u64::from(width > WIDE);
    }
}

/// The latencies that a turn has, whatever its outcome.
fn durations(turn: &Turn) -> impl Iterator<Item = (Metric, Nanos)> {
    let first = turn.first_token.map(|first| first.latest);
    let tpot = match (first, turn.last_token) {
        (Some(first), Some(last)) if turn.tokens > 1 => Some((last - first) / (turn.tokens as Nanos - 1)),
        _ => None,
    };
    [
        (Metric::Ttft, first.map(|first| first - turn.intended)),
        (Metric::TtftFromSend, first.zip(turn.sent).map(|(first, sent)| first - sent)),
        (Metric::Tpot, tpot),
        (Metric::Connect, turn.connect),
        (Metric::Tls, turn.tls),
    ]
    .into_iter()
    .filter_map(|(metric, duration)| Some((metric, duration?)))
}

/// Where a turn belongs, decided when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(Option<(usize, Nanos)>);

impl Place {
    /// The tier in whose steady phase it was meant to start, by number.
    pub fn tier(self) -> Option<usize> {
        self.0.map(|(tier, _)| tier)
    }
}

/// The recorder of one shard.
pub struct Recorder {
    stages: Arc<RwLock<Stages>>,
    budgeted: MetricSet,
    record: Record,
    delta: Delta,
}

/// Everything that was recorded: the tiers, and the turns of ramps and drains.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The steady phases, by tier.
    pub tiers: Vec<TierRecord>,
    /// Turns that were meant to start outside a steady phase.
    pub outside: Totals,
    /// What users did besides turns.
    pub steps: Steps,
}

impl Record {
    /// Adds another shard's record.
    pub fn merge(&mut self, other: Self) {
        self.outside.merge(&other.outside);
        self.steps.merge(other.steps);
        for (index, tier) in other.tiers.into_iter().enumerate() {
            match self.tiers.get_mut(index) {
                Some(mine) => mine.merge(tier),
                None => self.tiers.push(tier),
            }
        }
    }

    /// All turns of the run.
    pub fn totals(&self) -> Totals {
        let mut all = self.outside.clone();
        for tier in &self.tiers {
            all.merge(&tier.totals);
        }
        all
    }
}

impl Recorder {
    /// An empty recorder; `stages` tells which tier a moment belongs to, `budgeted` which
    /// metrics are kept by block too.
    pub fn new(stages: Arc<RwLock<Stages>>, budgeted: MetricSet) -> Self {
        Self { stages, budgeted, record: Record::default(), delta: Delta::default() }
    }

    fn tier_at(&self, at: Nanos) -> Option<(usize, Nanos)> {
        self.stages.read().unwrap_or_else(PoisonError::into_inner).tier_at(at)
    }

    fn tier(&mut self, index: usize) -> &mut TierRecord {
        let tiers = &mut self.record.tiers;
        while tiers.len() <= index {
            tiers.push(TierRecord::new(self.budgeted));
        }
        &mut tiers[index]
    }

    fn totals(&mut self, place: Place) -> &mut Totals {
        match place.0 {
            Some((tier, _)) => &mut self.tier(tier).totals,
            None => &mut self.record.outside,
        }
    }

    /// A turn begins; where its numbers go is decided by its intended start.
    pub fn begin(&mut self, intended: Nanos) -> Place {
        let place = Place(self.tier_at(intended).map(|(tier, from)| (tier, intended - from)));
        let totals = self.totals(place);
        totals.intended += 1;
        totals.started += 1;
        self.delta.started += 1;
        self.delta.in_flight += 1;
        place
    }

    /// A turn was meant to begin, and nobody was free to speak it.
    pub fn drop_turn(&mut self, intended: Nanos) {
        let place = Place(self.tier_at(intended).map(|(tier, from)| (tier, intended - from)));
        let totals = self.totals(place);
        totals.intended += 1;
        totals.dropped += 1;
        self.delta.dropped += 1;
    }

    /// The deployment wants to be left alone by a user, who obeys or does not.
    pub fn told_to_wait(&mut self, place: Place, obeys: bool) {
        let totals = self.totals(place);
        totals.told_to_wait += 1;
        totals.waited += u64::from(obeys);
    }

    /// Tokens arrived, `lag` before they were read; `kernel` tells whose stamp says so.
    pub fn arrival(&mut self, place: Place, tokens: u64, lag: Nanos, kernel: bool) {
        self.delta.tokens += tokens;
        if let Some((tier, _)) = place.0 {
            let tier = self.tier(tier);
            tier.arrivals += 1;
            tier.user_space_stamps += u64::from(!kernel);
            tier.metrics.record(Metric::ReceiveLag, micros(lag));
        }
    }

    /// A turn's first token arrived.
    pub fn first_token(&mut self, ttft: Nanos) {
        self.delta.ttft.record(micros(ttft));
    }

    /// A user did something besides a turn.
    pub fn step(&mut self, step: Step, outcome: Outcome, took: Nanos, detail: &str) {
        self.record.steps.record(step, outcome, took, detail);
    }

    /// A shard's heartbeat was this late.
    pub fn loop_delay(&mut self, now: Nanos, delay: Nanos) {
        if let Some((tier, _)) = self.tier_at(now) {
            self.tier(tier).metrics.record(Metric::LoopDelay, micros(delay));
        }
    }

    /// A turn has ended.
    pub fn finish(&mut self, place: Place, turn: &Turn) {
        let totals = self.totals(place);
        totals.outcomes.add(turn.outcome);
        totals.tokens += turn.tokens;
        totals.retries += u64::from(turn.retries);
        totals.resumes += u64::from(turn.resumes);
        totals.late += turn.late;
        if let Some(wire) = turn.wire {
            *totals.wires.entry(wire).or_default() += 1;
        }
        if let Some(checked) = &turn.checked {
            totals.checked += u64::from(checked.whole);
            totals.flaws.merge(&checked.flaws);
        }
        self.delta.finish(turn);
        if let Some((tier, offset)) = place.0 {
            self.tier(tier).finish(offset, turn);
        }
    }

    /// Users that are there now, for the timeline.
    pub fn set_users(&mut self, users: u64) {
        self.delta.users = users;
    }

    /// What happened since the last call.
    pub fn take_delta(&mut self) -> Delta {
        self.delta.take()
    }

    /// A turn was found in the mock's journal: what follows from both sides.
    pub fn traced(&mut self, place: Place, joined: &Joined) {
        self.totals(place).flaws.merge(&joined.flaws);
        let Some((index, offset)) = place.0.filter(|_| joined.counts) else { return };
        let tier = self.tier(index);
        for (metric, micros) in joined.metrics() {
            tier.metrics.record(metric, micros);
            tier.blocks.record(offset, metric, micros);
        }
    }

    /// The whole record.
    pub fn into_record(self) -> Record {
        self.record
    }
}
