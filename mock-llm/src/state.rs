//! What all threads of the mock share: models with their limits, journal, metrics.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::behaviour::{Behaviour, Fault, ModelBehaviour, RateLimit};
use crate::clock::WallClock;
use crate::journal::{Call, Journal, Turn, TurnOutcome};
use crate::metrics::{Metrics, lock};
use crate::script;

/// The token stamps of a longer reply are not kept.
const LONGEST_TRACED: u64 = 20_000;

/// The shared state of one mock.
pub(crate) struct State {
    live: RwLock<Arc<Live>>,
    pub(crate) journal: Mutex<Journal>,
    pub(crate) metrics: Metrics,
    requests: AtomicU64,
    pub(crate) clock: WallClock,
    attempts: Mutex<Attempts>,
}

/// The markers of the newest turns that were asked for, by hash: who comes twice is a retry.
#[derive(Default)]
struct Attempts {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

/// A behaviour in force, with what its limits need to count.
pub(crate) struct Live {
    pub(crate) behaviour: Behaviour,
    models: BTreeMap<String, Arc<LiveModel>>,
}

/// A model with its slots and its rate window.
pub(crate) struct LiveModel {
    pub(crate) behaviour: ModelBehaviour,
    slots: Option<Arc<Semaphore>>,
    waiting: Mutex<usize>,
    window: Mutex<Window>,
}

#[derive(Clone, Copy)]
struct Window {
    started: Instant,
    used: u64,
}

/// Where a request stands against the rate limit, for the `x-ratelimit-*` headers.
#[derive(Clone, Copy)]
pub(crate) struct RateStanding {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    pub(crate) reset: Duration,
    pub(crate) admitted: bool,
}

impl State {
    pub(crate) fn new(behaviour: Behaviour, clock: WallClock) -> Self {
        Self {
            clock,
            attempts: Mutex::default(),
            journal: Mutex::new(Journal::new(behaviour.journal_turns)),
            live: RwLock::new(Arc::new(Live::new(behaviour))),
            metrics: Metrics::new(),
            requests: AtomicU64::new(0),
        }
    }

    /// The behaviour in force now.
    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Puts a behaviour in force for the requests that come from now on.
    pub(crate) fn replace(&self, behaviour: Behaviour) {
        *self.live.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(Live::new(behaviour));
    }

    /// What a call is whose last user message carries a marker.
    fn call(&self, marker: &str, prompt: &str) -> Call {
        if !prompt.trim_end().ends_with(&format!("[[{marker}]]")) {
            return Call::Aside;
        }
        let hash = script::stable_hash(&[marker.as_bytes()]);
        let most = self.live().behaviour.journal_turns;
        let mut attempts = lock(&self.attempts);
        if !attempts.known.insert(hash) {
            return Call::Retry;
        }
        attempts.order.push_back(hash);
        if attempts.order.len() > most
            && let Some(oldest) = attempts.order.pop_front()
        {
            attempts.known.remove(&oldest);
        }
        Call::Turn
    }

    /// Whether the token stamps of a turn are kept: of a share of the turns, by their markers, and of no more
    /// than so many streams at once.
    fn keeps_stamps(&self, marker: &str) -> bool {
        let behaviour = &self.live().behaviour;
        let place = script::stable_hash(&[b"share", marker.as_bytes()]) as f64 / u64::MAX as f64;
        let open = self.metrics.streams.load(Relaxed).max(1);
        place < behaviour.trace_share.min(behaviour.trace_streams as f64 / open as f64)
    }

    /// Draws the fault of the next request. By request number rather than by prompt, so that
    /// a prompt that failed once can succeed when it is retried.
    pub(crate) fn draw_fault(&self, live: &Live, model: &LiveModel) -> Option<Fault> {
        let number = self.requests.fetch_add(1, Relaxed);
        let mut rng = script::generator(live.behaviour.seed, "faults", &number.to_string());
        model.behaviour.faults.draw(&mut rng)
    }
}

impl Live {
    fn new(behaviour: Behaviour) -> Self {
        let models = behaviour
            .models
            .iter()
            .map(|(name, model)| {
                let live = LiveModel {
                    behaviour: model.clone(),
                    slots: model.slots.map(|slots| Arc::new(Semaphore::new(slots))),
                    waiting: Mutex::new(0),
                    window: Mutex::new(Window { started: Instant::now(), used: 0 }),
                };
                (name.clone(), Arc::new(live))
            })
            .collect();
        Self { behaviour, models }
    }

    /// A model by name.
    pub(crate) fn model(&self, name: &str) -> Option<&Arc<LiveModel>> {
        self.models.get(name)
    }
}

impl LiveModel {
    /// Counts a request against the rate limit, if there is one.
    pub(crate) fn rate(&self, now: Instant) -> Option<RateStanding> {
        let RateLimit { requests: limit, per } = self.behaviour.rate_limit?;
        let mut window = lock(&self.window);
        if now.duration_since(window.started) >= per {
            *window = Window { started: now, used: 0 };
        }
        let admitted = window.used < limit;
        window.used += u64::from(admitted);
        let reset = per.saturating_sub(now.duration_since(window.started));
        Some(RateStanding { limit, remaining: limit - window.used, reset, admitted })
    }

    /// Waits for a slot, first come first served; says whether it had to. `Err` when the queue is full.
    pub(crate) async fn slot(&self, metrics: &Metrics) -> Result<(Option<OwnedSemaphorePermit>, bool), ()> {
        let Some(slots) = &self.slots else { return Ok((None, false)) };
        if let Ok(permit) = Arc::clone(slots).try_acquire_owned() {
            return Ok((Some(permit), false));
        }
        let _waiting = Waiting::enter(self, metrics)?;
        Arc::clone(slots).acquire_owned().await.map(|permit| (Some(permit), true)).map_err(|_| ())
    }
}

/// A place in the queue, given back on drop, also when the caller goes away.
struct Waiting<'a> {
    model: &'a LiveModel,
    metrics: &'a Metrics,
}

impl<'a> Waiting<'a> {
    fn enter(model: &'a LiveModel, metrics: &'a Metrics) -> Result<Self, ()> {
        let mut waiting = lock(&model.waiting);
        if *waiting >= model.behaviour.queue {
            return Err(());
        }
        *waiting += 1;
        metrics.queued.fetch_add(1, Relaxed);
        Ok(Self { model, metrics })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *lock(&self.model.waiting) -= 1;
        self.metrics.queued.fetch_sub(1, Relaxed);
    }
}

/// A request from its arrival to its journal entry, which is written on drop: whatever
/// happens to a request, it is in the journal once.
pub(crate) struct OpenTurn {
    state: Arc<State>,
    entry: Turn,
    admitted: bool,
}

impl OpenTurn {
    /// A request that has just been read, `lag` after it had come. It counts as abandoned by its caller until told
    /// otherwise.
    pub(crate) fn new(state: Arc<State>, lag: Duration) -> Self {
        let entry = Turn {
            seq: 0,
            marker: None,
            model: String::new(),
            stream: false,
            call: None,
            received_us: state.clock.unix_us().saturating_sub(lag.as_micros() as u64),
            admitted_us: None,
            first_token_us: None,
            last_token_us: None,
            ended_us: 0,
            tokens: 0,
            sends_us: None,
            outcome: TurnOutcome::CallerGone,
            lateness_max_us: 0,
        };
        Self { state, entry, admitted: false }
    }

    pub(crate) fn describe(&mut self, model: &str, stream: bool, prompt: &str) {
        model.clone_into(&mut self.entry.model);
        self.entry.stream = stream;
        if let Some(marker) = script::newest_marker(prompt) {
            self.entry.call = Some(self.state.call(marker, prompt));
            self.entry.marker = Some(marker.to_owned());
        }
    }

    /// The marker of the turn whose reply is known in advance, if this is one.
    pub(crate) fn traced(&self) -> Option<&str> {
        self.entry.marker.as_deref().filter(|_| self.entry.call != Some(Call::Aside))
    }

    /// The request got its slot.
    pub(crate) fn admit(&mut self) {
        self.entry.admitted_us = Some(self.state.clock.unix_us());
        self.admitted = true;
        if self.entry.stream && self.traced().is_some_and(|marker| self.state.keeps_stamps(marker)) {
            self.entry.sends_us = Some(Vec::new());
        }
        self.state.metrics.streams.fetch_add(1, Relaxed);
    }

    /// A token is being handed to the socket.
    pub(crate) fn token(&mut self, due: Instant, now: Instant) {
        let late = now.saturating_duration_since(due);
        self.state.metrics.token(late);
        self.entry.lateness_max_us = self.entry.lateness_max_us.max(late.as_micros() as u64);
        let now_us = self.tokens(1);
        if let Some(sends) = self.entry.sends_us.as_mut() {
            sends.push(u32::try_from(now_us.saturating_sub(self.entry.received_us)).unwrap_or(u32::MAX));
        }
        if self.entry.tokens > LONGEST_TRACED {
            self.entry.sends_us = None;
        }
    }

    /// Tokens are being handed over, without a schedule of their own. Gives the moment.
    pub(crate) fn tokens(&mut self, count: u64) -> u64 {
        let now_us = self.state.clock.unix_us();
        self.entry.first_token_us.get_or_insert(now_us);
        self.entry.last_token_us = Some(now_us);
        self.entry.tokens += count;
        now_us
    }

    /// How the request will have ended.
    pub(crate) fn outcome(&mut self, outcome: TurnOutcome) {
        self.entry.outcome = outcome;
    }
}

impl Drop for OpenTurn {
    fn drop(&mut self) {
        if self.admitted {
            self.state.metrics.streams.fetch_sub(1, Relaxed);
        }
        self.entry.ended_us = self.state.clock.unix_us();
        self.state.metrics.ended(self.entry.outcome);
        let sends_us = self.entry.sends_us.take();
        lock(&self.state.journal).push(Turn { sends_us, ..self.entry.clone() });
    }
}
