//! The controller: leads all shards through the tiers and puts together what they tell.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::generator::{GeneratorSample, peak_rss_bytes};
use super::shard::{self, Order, Report, ShardOutput, Start};
use super::{Interrupt, Output, Progress, Stage, Stop, TierRun, Tripped};
use crate::clock::{self, Nanos, SECOND};
use crate::driver::Driver;
use crate::grade::Role;
use crate::metric::MetricSet;
use crate::plan::{Level, Plan, Translation};
use crate::record::{Delta, Record, Stages, Timeline, Window};
use crate::trace::Tracing;

/// The error guard looks at this many seconds, and judges from this many turns on.
const GUARD_SECONDS: usize = 10;
const GUARD_TURNS: u64 = 20;
/// The turns that a ramp must have shown for its rate to count.
const RATE_TURNS: u64 = 20;

/// What a run is made of.
pub struct Settings {
    /// What is to be done.
    pub plan: Plan,
    /// The protocol.
    pub driver: Driver,
    /// Threads that carry users.
    pub shards: usize,
    /// Metrics that are kept by block too.
    pub budgeted: MetricSet,
    /// How turns are traced, where they are.
    pub tracing: Option<Tracing>,
    /// The mean turn, as known before the run.
    pub expected_turn: Duration,
    /// The longest that a turn may take.
    pub turn_limit: Duration,
    /// How long a drain may take, and open turns at the end of a run that belong to no tier any more.
    pub patience: Patience,
    /// Give up when the error rate of the last 10 s is above this.
    pub abort_error_rate: Option<f64>,
    /// Give up after this long.
    pub max_duration: Option<Duration>,
}

/// How long the engine waits for turns to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the measured turns of a tier.
    pub drain: Nanos,
    /// For open turns at the end of a run, when they belong to no tier any more.
    pub farewell: Nanos,
}

impl Patience {
    /// Every measured turn is waited for, for as long as it may take.
    pub fn whole(turn_limit: Duration) -> Self {
        Self { drain: clock::nanos(turn_limit) + SECOND, farewell: 10 * SECOND }
    }

    /// A first look must end, even where turns take a minute.
    pub const QUICK: Self = Self { drain: 2 * SECOND, farewell: 2 * SECOND };
}

/// Runs all tiers. `needs` says how long the steady phase of a tier must be at so many turns a second;
/// `progress` is told what happens; `interrupts` asks for an early end from outside.
///
/// # Errors
/// When a thread cannot be started, or one has failed.
pub async fn run(
    settings: Settings,
    needs: impl Fn(usize, f64) -> Duration,
    progress: impl FnMut(Progress<'_>),
    interrupts: watch::Receiver<Option<Interrupt>>,
) -> io::Result<Output> {
    let mut control = Control::start(settings, needs, progress, interrupts)?;
    let mut tiers = Vec::new();
    let mut stop = Stop::Finished;
    for tier in 0..control.plan.levels.len() {
        let (run, stopped) = control.tier(tier).await;
        tiers.push(run);
        if let Some(stopped) = stopped {
            stop = stopped;
            (control.progress)(Progress::Stopping(&stop));
            break;
        }
    }
    control.end(tiers, stop).await
}

/// A run in progress.
struct Control<N, P> {
    needs: N,
    progress: P,
    interrupts: watch::Receiver<Option<Interrupt>>,
    plan: Arc<Plan>,
    epoch: Nanos,
    expected_turn: Duration,
    turn_limit: Nanos,
    patience: Patience,
    abort_error_rate: Option<f64>,
    max_duration: Option<Duration>,
    stages: Arc<RwLock<Stages>>,
    orders: Vec<mpsc::UnboundedSender<Order>>,
    reports: mpsc::UnboundedReceiver<Report>,
    stop: watch::Sender<Option<Interrupt>>,
    threads: Vec<JoinHandle<io::Result<ShardOutput>>>,
    timeline: Timeline,
    /// Of each shard: the oldest pending intended start, and when that was seen.
    pending: Vec<(Nanos, Nanos)>,
    /// Turns and errors of the last seconds.
    recent: VecDeque<(u64, u64)>,
    /// Whether the guard of the error rate is on.
    guarded: bool,
    started: u64,
    empty: usize,
}

/// What the controller waits for.
#[derive(Clone, Copy)]
enum Until {
    /// A moment.
    Moment(Nanos),
    /// No turn with an intended start before the first moment is pending; or the second moment.
    Drained(Nanos, Nanos),
    /// Every user has gone; or the moment.
    Empty(Nanos),
}

impl<N: Fn(usize, f64) -> Duration, P: FnMut(Progress<'_>)> Control<N, P> {
    fn start(
        settings: Settings,
        needs: N,
        progress: P,
        interrupts: watch::Receiver<Option<Interrupt>>,
    ) -> io::Result<Self> {
        let (sender, reports) = mpsc::unbounded_channel();
        let (stop, stopped) = watch::channel(None);
        let stages = Arc::new(RwLock::new(Stages::default()));
        let (plan, driver) = (Arc::new(settings.plan), Arc::new(settings.driver));
        let epoch = clock::monotonic();
        let (others, receivers): (Vec<_>, Vec<_>) = (0..settings.shards).map(|_| mpsc::unbounded_channel()).unzip();
        let mut threads = Vec::new();
        for (number, orders) in receivers.into_iter().enumerate() {
            let start = Start {
                number,
                shards: settings.shards,
                epoch,
                plan: Arc::clone(&plan),
                driver: Arc::clone(&driver),
                stages: Arc::clone(&stages),
                budgeted: settings.budgeted,
                tracing: settings.tracing.clone(),
                reports: sender.clone(),
                stop: stopped.clone(),
                others: others.clone(),
            };
            let thread = std::thread::Builder::new().name(format!("shard-{number}"));
            threads.push(thread.spawn(move || shard::run(start, orders))?);
        }
        Ok(Self {
            needs,
            progress,
            interrupts,
            plan,
            epoch,
            expected_turn: settings.expected_turn,
            turn_limit: clock::nanos(settings.turn_limit),
            patience: settings.patience,
            abort_error_rate: settings.abort_error_rate,
            max_duration: settings.max_duration,
            stages,
            orders: others,
            reports,
            stop,
            threads,
            timeline: Timeline::new(settings.shards),
            pending: vec![(0, 0); settings.shards],
            recent: VecDeque::new(),
            guarded: true,
            started: 0,
            empty: 0,
        })
    }

    /// Leads the users through one tier: ramp, steady phase, drain.
    async fn tier(&mut self, tier: usize) -> (TierRun, Option<Stop>) {
        let Level { users, times, role, .. } = self.plan.levels[tier];
        // What becomes of a crowd decides nothing, nor what is left of it in the time that the deployment was given.
        self.guarded = !matches!(role, Role::Spike | Role::Recovery);
        let ramp = clock::nanos(times.settle);
        let ramp_from = clock::monotonic();
        let mut window = Window { ramp_from, steady_from: ramp_from + ramp, steady_to: None };
        // Published before the first newcomer, and its end before that end has come: so a turn
        // can be told its place when it begins.
        self.publish(tier, window);
        for shard in &self.orders {
            // A shard that has failed is noticed when its thread is joined.
            let _ = shard.send(Order::Level(tier, ramp_from));
        }
        let mut stopped = self.stage(tier, Stage::Ramp, ramp, Until::Moment(ramp_from + ramp / 2)).await;
        let (half_time, half_started) = (clock::monotonic(), self.started);
        if stopped.is_none() {
            stopped = self.wait(Until::Moment(window.steady_from)).await;
        }
        if role == Role::Recovery {
            (self.guarded, self.recent) = (true, VecDeque::new());
        }
        let usage = GeneratorSample::now();
        let mut complete = false;
        if stopped.is_none() {
            let rate = self.turn_rate(tier, self.started - half_started, clock::monotonic() - half_time);
            let most = times.steady_max.max(times.steady);
            let steady = clock::nanos((self.needs)(tier, rate).clamp(times.steady, most));
            let steady_to = window.steady_from + steady;
            window.steady_to = Some(steady_to);
            self.publish(tier, window);
            stopped = self.stage(tier, Stage::Steady, steady, Until::Moment(steady_to)).await;
            complete = stopped.is_none();
        }
        let usage = usage.usage();
        let is_crowd = self.plan.levels[tier].role == Role::Spike;
        if !complete {
            let now = clock::monotonic();
            window.steady_to = Some(window.steady_to.map_or(now, |end| end.min(now)).max(window.steady_from));
            self.publish(tier, window);
        }
        // A crowd stays as long as was said: its last turns end beside those of who is left.
        if let (None, Some(end), false) = (&stopped, window.steady_to, is_crowd) {
            // The load goes on while the last measured turns end: they end as the others did.
            let until = Until::Drained(end, end + self.patience.drain);
            stopped = self.stage(tier, Stage::Drain, 0, until).await;
            // Measured turns that are cut off count nowhere: then the tier is not whole.
            complete = stopped.is_none();
        }
        (TierRun { users, window, complete, usage }, stopped)
    }

    fn publish(&self, tier: usize, window: Window) {
        let mut stages = self.stages.write().unwrap_or_else(PoisonError::into_inner);
        stages.0.truncate(tier);
        stages.0.push(window);
    }

    /// The turns a second that a full tier will have: as many as the second half of the ramp
    /// had, for as many users more as there will be; before enough is known, what was expected.
    fn turn_rate(&self, tier: usize, started: u64, during: Nanos) -> f64 {
        let users = self.plan.levels[tier].users;
        if let Some(rate) = self.plan.levels[tier].rate {
            return rate.to;
        }
        if started < RATE_TURNS || during <= 0 {
            let think = Duration::from_nanos((self.plan.think.mean() * 1_000.0) as u64);
            return Translation { users, think, turn: self.expected_turn, rate: None }.turns_per_second();
        }
        let newcomers = self.plan.newcomers(tier);
        let users_before = newcomers.start.min(users);
        let present = f64::from(users_before) + 0.75 * f64::from(users - users_before);
        started as f64 / (during as f64 / SECOND as f64) * f64::from(users) / present
    }

    async fn stage(&mut self, tier: usize, stage: Stage, length: Nanos, until: Until) -> Option<Stop> {
        let users = self.plan.levels[tier].users;
        (self.progress)(Progress::Stage { tier, users, stage, length });
        self.wait(until).await
    }

    /// Takes reports until the time has come; `Some` if the run must stop before.
    async fn wait(&mut self, until: Until) -> Option<Stop> {
        let last = self.max_duration.map(|most| self.epoch + clock::nanos(most));
        let deadline = match until {
            Until::Moment(at) | Until::Drained(_, at) | Until::Empty(at) => at,
        };
        let wake = last.map_or(deadline, |last| last.min(deadline));
        loop {
            if self.is_over(until) {
                return None;
            }
            tokio::select! {
                biased;
                () = asked(&mut self.interrupts, Interrupt::Drain) => return Some(Stop::Interrupted),
                Some(report) = self.reports.recv() => {
                    let stop = self.take(report);
                    if stop.is_some() {
                        return stop;
                    }
                }
                () = tokio::time::sleep_until(clock::instant(wake).into()) => {
                    return match self.max_duration {
                        Some(most) if wake < deadline => {
                            Some(Stop::Guard(Tripped::MaxDuration(most)))
                        }
                        _ => None,
                    };
                }
            }
        }
    }

    fn is_over(&self, until: Until) -> bool {
        match until {
            Until::Moment(at) => clock::monotonic() >= at,
            Until::Drained(end, _) => self.pending.iter().all(|(oldest, at)| *oldest >= end && *at >= end),
            Until::Empty(_) => self.empty == self.threads.len(),
        }
    }

    /// Takes one report; `Some` if a guard is tripped by it.
    fn take(&mut self, report: Report) -> Option<Stop> {
        match report {
            Report::Second(second, delta) => {
                let whole = self.timeline.add(second, &delta);
                self.seconds(whole)
            }
            Report::Pending { shard, oldest, at } => {
                self.pending[shard] = (oldest, at);
                None
            }
            Report::Empty(last) => {
                self.empty += 1;
                let whole = self.timeline.end(last);
                self.seconds(whole)
            }
        }
    }

    /// Tells seconds that are whole; `Some` if a guard is tripped by one.
    fn seconds(&mut self, whole: Vec<(u64, Delta)>) -> Option<Stop> {
        let mut stop = None;
        for (t_s, delta) in &whole {
            self.started += delta.started;
            (self.progress)(Progress::Second { t_s: *t_s, delta });
            stop = stop.or_else(|| banned(delta)).or_else(|| self.guard(delta));
        }
        stop
    }

    fn guard(&mut self, second: &Delta) -> Option<Stop> {
        self.recent.push_back((second.turns, second.errors));
        if self.recent.len() > GUARD_SECONDS {
            self.recent.pop_front();
        }
        let (turns, errors) = self.recent.iter().fold((0, 0), |(t, e), (turns, errors)| (t + turns, e + errors));
        let limit = self.abort_error_rate.filter(|_| self.guarded)?;
        let rate = errors as f64 / turns.max(1) as f64;
        (turns >= GUARD_TURNS && rate > limit).then_some(Stop::Guard(Tripped::ErrorRate { share: rate, turns, limit }))
    }

    /// Lets the users go, joins the shards and puts everything together.
    async fn end(mut self, tiers: Vec<TierRun>, stop: Stop) -> io::Result<Output> {
        let patience = if stop == Stop::Interrupted { self.turn_limit } else { self.patience.farewell };
        self.stop.send_replace(Some(Interrupt::Drain));
        self.let_go(clock::monotonic() + patience).await;
        self.stop.send_replace(Some(Interrupt::Now));
        let mut record = Record::default();
        let mut clock_steps = 0;
        for thread in std::mem::take(&mut self.threads) {
            let output = thread.join().map_err(|_| io::Error::other("a shard's thread panicked"))??;
            record.merge(output.record);
            clock_steps = clock_steps.max(output.clock_steps);
        }
        while let Ok(report) = self.reports.try_recv() {
            self.take(report);
        }
        let rest = self.timeline.finish();
        self.seconds(rest);
        Ok(Output {
            record,
            tiers,
            timeline: self.timeline.points,
            stop,
            clock_steps,
            peak_rss_bytes: peak_rss_bytes(),
        })
    }

    /// Waits for open turns to end, until a moment or until somebody insists.
    async fn let_go(&mut self, until: Nanos) {
        let mut interrupts = self.interrupts.clone();
        let insisted = asked(&mut interrupts, Interrupt::Now);
        tokio::pin!(insisted);
        while !self.is_over(Until::Empty(until)) {
            tokio::select! {
                biased;
                () = &mut insisted => return,
                Some(report) = self.reports.recv() => {
                    self.take(report);
                }
                () = tokio::time::sleep_until(clock::instant(until).into()) => return,
            }
        }
    }
}

/// A deployment that bans is left at once: every further request would be refused, and would
/// tell nothing about its capacity.
fn banned(second: &Delta) -> Option<Stop> {
    second.banned.clone().map(|said| Stop::Guard(Tripped::Banned(said)))
}

/// Waits until somebody outside asks for an end at least this hard.
pub async fn asked(interrupts: &mut watch::Receiver<Option<Interrupt>>, hard: Interrupt) {
    if interrupts.wait_for(|interrupt| *interrupt >= Some(hard)).await.is_err() {
        // Nobody is left who could ask.
        std::future::pending::<()>().await;
    }
}
