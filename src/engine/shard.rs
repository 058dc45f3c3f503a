//! A shard: one thread, one runtime, its users as local tasks, its own recorder.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, RwLock};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Interrupt;
use super::pool::{Offer, Pool, Taken};
use super::user;
use crate::clock::{self, MILLISECOND, Nanos, SECOND};
use crate::driver::Driver;
use crate::metric::MetricSet;
use crate::net;
use crate::plan::{Moments, Plan};
use crate::record::{Delta, Record, Recorder, Stages};
use crate::trace::Tracing;

/// The heartbeat that measures the loop's delay.
const HEARTBEAT: Nanos = 5 * MILLISECOND;
/// How often a shard tells its oldest pending turn.
const TELL: Nanos = 100 * MILLISECOND;

/// What a shard is told.
#[derive(Debug)]
pub(super) enum Order {
    /// A level begins, at a moment: its newcomers come, and whoever is too many goes; of an open load its turns come.
    Level(usize, Nanos),
    /// A turn that found no free user on another shard.
    Offer(Offer),
}

/// What a shard tells.
#[derive(Debug)]
pub(super) enum Report {
    /// A second of the run is over.
    Second(u64, Box<Delta>),
    /// The earliest intended start of a turn that is expected or open, as seen at a moment.
    Pending { shard: usize, oldest: Nanos, at: Nanos },
    /// The last user has gone; the last second that was told.
    Empty(u64),
}

/// What a shard's thread is given.
pub(super) struct Start {
    pub(super) number: usize,
    pub(super) shards: usize,
    pub(super) epoch: Nanos,
    pub(super) plan: Arc<Plan>,
    pub(super) driver: Arc<Driver>,
    pub(super) stages: Arc<RwLock<Stages>>,
    pub(super) budgeted: MetricSet,
    pub(super) tracing: Option<Tracing>,
    pub(super) reports: mpsc::UnboundedSender<Report>,
    pub(super) stop: watch::Receiver<Option<Interrupt>>,
    /// How each shard is told something, this one among them.
    pub(super) others: Vec<mpsc::UnboundedSender<Order>>,
}

/// What the users of a shard share.
pub(super) struct Shard {
    pub(super) plan: Arc<Plan>,
    pub(super) driver: Arc<Driver>,
    pub(super) recorder: RefCell<Recorder>,
    pub(super) tracing: Option<Tracing>,
    stop: watch::Receiver<Option<Interrupt>>,
    /// Users from this number on go.
    stay: watch::Sender<u32>,
    pool: Pool,
    users: Cell<u64>,
    /// The next turn of an open load, which may be due already.
    due: Cell<Nanos>,
    /// The intended start of each user's expected or open turn, by user number over shards.
    pending: RefCell<Vec<Nanos>>,
    shards: usize,
}

/// No turn is pending.
const NONE: Nanos = Nanos::MAX;

impl Shard {
    /// A user sleeps; false if it must go.
    pub(super) async fn sleep_until(&self, user: u32, at: Nanos) -> bool {
        if at <= clock::monotonic() {
            return self.stop.borrow().is_none() && user < *self.stay.borrow();
        }
        tokio::select! {
            biased;
            () = self.gone(user) => false,
            () = tokio::time::sleep_until(clock::instant(at).into()) => true,
        }
    }

    /// Waits until a user must go: the run is being stopped, or there are to be fewer users.
    pub(super) async fn gone(&self, user: u32) {
        let mut stay = self.stay.subscribe();
        tokio::select! {
            biased;
            () = self.stopped(Interrupt::Drain) => {}
            // The sender lives as long as the shard.
            _ = stay.wait_for(|stay| user >= *stay) => {}
        }
    }

    /// A user of an open load can take another turn.
    pub(super) fn set_free(&self, user: u32) {
        self.pool.set_free(user);
    }

    /// A turn of an open load was given to a user whose task has not taken it up yet.
    fn note_pending(&self, user: u32, intended: Nanos) {
        let slot = user as usize / self.shards;
        let mut pending = self.pending.borrow_mut();
        if pending.len() <= slot {
            pending.resize(slot + 1, NONE);
        }
        pending[slot] = intended;
    }

    /// Waits until the run is stopped at least this hard.
    pub(super) async fn stopped(&self, hard: Interrupt) {
        let mut stop = self.stop.clone();
        // The sender is gone only when the run has been stopped.
        let _ = stop.wait_for(|stop| *stop >= Some(hard)).await;
    }

    /// Counts a user as long as the guard lives.
    pub(super) fn present(&self) -> impl Drop + '_ {
        struct Present<'a>(&'a Shard);
        impl Drop for Present<'_> {
            fn drop(&mut self) {
                self.0.users.set(self.0.users.get() - 1);
            }
        }
        self.users.set(self.users.get() + 1);
        Present(self)
    }

    /// Notes that a user's turn is expected at a moment, as long as the guard lives.
    pub(super) fn expect(&self, user: u32, intended: Nanos) -> impl Drop + '_ {
        struct Pending<'a>(&'a Shard, usize);
        impl Drop for Pending<'_> {
            fn drop(&mut self) {
                self.0.pending.borrow_mut()[self.1] = NONE;
            }
        }
        self.note_pending(user, intended);
        Pending(self, user as usize / self.shards)
    }

    fn oldest_pending(&self) -> Nanos {
        self.pending.borrow().iter().copied().min().unwrap_or(NONE).min(self.due.get())
    }
}

/// What a shard leaves behind.
pub(super) struct ShardOutput {
    pub(super) record: Record,
    pub(super) clock_steps: u64,
}

/// The thread of a shard: runs until it is told to stop and its users have gone.
pub(super) fn run(start: Start, orders: mpsc::UnboundedReceiver<Order>) -> std::io::Result<ShardOutput> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .on_thread_unpark(net::loop_turned)
        .build_local(Default::default())?;
    net::refresh_pairing();
    let record = runtime.block_on(lead(start, orders));
    Ok(ShardOutput { record, clock_steps: net::clock_stepped() })
}

async fn lead(start: Start, mut orders: mpsc::UnboundedReceiver<Order>) -> Record {
    let shard = Rc::new(Shard {
        plan: Arc::clone(&start.plan),
        driver: Arc::clone(&start.driver),
        recorder: RefCell::new(Recorder::new(Arc::clone(&start.stages), start.budgeted)),
        tracing: start.tracing.clone(),
        stop: start.stop.clone(),
        stay: watch::Sender::new(u32::MAX),
        pool: Pool::default(),
        users: Cell::new(0),
        due: Cell::new(NONE),
        pending: RefCell::default(),
        shards: start.shards,
    });
    let mut users = JoinSet::new();
    let mut pulse = Pulse::new(start.epoch);
    let mut coming = Coming::default();
    let mut cut = false;
    loop {
        tokio::select! {
            biased;
            now = pulse.beat() => pulse.tell(now, &shard, &start),
            Some(order) = orders.recv() => match order {
                Order::Level(level, from) => {
                    for intended in coming.overdue(&shard, from) {
                        place(&shard, &start, &mut users, Offer { intended, asked: 0 });
                    }
                    begin_level(&shard, &start, &mut users, level, from);
                    coming = Coming::of(&start, level, from);
                    shard.due.set(coming.next.unwrap_or(NONE));
                }
                // Nobody is made any more who would only be cut off.
                Order::Offer(offer) if cut => shard.recorder.borrow_mut().drop_turn(offer.intended),
                Order::Offer(offer) => place(&shard, &start, &mut users, offer),
            },
            // From here on no turn is intended any more; those that were due are.
            () = shard.stopped(Interrupt::Drain), if coming.next.is_some() => {
                for intended in coming.overdue(&shard, clock::monotonic()) {
                    shard.recorder.borrow_mut().drop_turn(intended);
                }
            }
            intended = coming.next() => {
                shard.due.set(coming.next.unwrap_or(NONE));
                place(&shard, &start, &mut users, Offer { intended, asked: 0 });
            }
            Some(_) = users.join_next(), if !users.is_empty() => {}
            () = shard.stopped(Interrupt::Drain), if users.is_empty() => break,
            () = shard.stopped(Interrupt::Now), if !cut => {
                cut = true;
                users.abort_all();
            }
        }
    }
    // Offers that no shard has taken any more were intended all the same.
    orders.close();
    while let Ok(order) = orders.try_recv() {
        if let Order::Offer(offer) = order {
            shard.recorder.borrow_mut().drop_turn(offer.intended);
        }
    }
    drop(users);
    pulse.last(&shard, &start);
    // The controller may have gone already; then nobody asks.
    let _ = start.reports.send(Report::Empty(pulse.second - 1));
    match Rc::try_unwrap(shard) {
        Ok(shard) => shard.recorder.into_inner().into_record(),
        Err(_) => unreachable!("every user's task has ended"),
    }
}

/// A level begins: this shard's part of its newcomers come, or may be made; whoever is too many goes.
fn begin_level(shard: &Rc<Shard>, start: &Start, users: &mut JoinSet<()>, level: usize, from: Nanos) {
    let plan = &start.plan;
    let newcomers = plan.newcomers(level).filter(|number| *number as usize % start.shards == start.number);
    if plan.arrivals.is_closed() {
        shard.stay.send_replace(plan.levels[level].users);
        for number in newcomers {
            users.spawn_local(user::live(Rc::clone(shard), number, from + plan.arrival(level, number)));
        }
    } else {
        shard.pool.allow(newcomers);
    }
}

/// A turn of an open load takes a free user, here or on another shard, or is dropped.
fn place(shard: &Rc<Shard>, start: &Start, users: &mut JoinSet<()>, offer: Offer) {
    match shard.pool.take(offer.intended) {
        Taken::ByOld(number) => shard.note_pending(number, offer.intended),
        Taken::ByNew(number) => {
            shard.note_pending(number, offer.intended);
            let turns = shard.pool.make(number, offer.intended);
            users.spawn_local(user::serve(Rc::clone(shard), number, turns));
        }
        Taken::Not => {
            let asked = offer.asked + 1;
            let next = &start.others[(start.number + 1) % start.shards];
            if asked >= start.shards || next.send(Order::Offer(Offer { asked, ..offer })).is_err() {
                shard.recorder.borrow_mut().drop_turn(offer.intended);
            }
        }
    }
}

/// This shard's part of the turns of an open load.
#[derive(Default)]
struct Coming {
    moments: Option<std::iter::StepBy<std::iter::Skip<Moments>>>,
    from: Nanos,
    next: Option<Nanos>,
}

impl Coming {
    fn of(start: &Start, level: usize, from: Nanos) -> Self {
        let all = start.plan.moments(level);
        let mut moments = all.map(|all| all.skip(start.number).step_by(start.shards));
        let next = moments.as_mut().and_then(Iterator::next).map(|moment| from + moment);
        Self { moments, from, next }
    }

    /// Those that should have come before a moment, and none after them.
    fn overdue(&mut self, shard: &Shard, before: Nanos) -> Vec<Nanos> {
        let mut overdue = Vec::new();
        while let Some(intended) = self.next.filter(|next| *next < before) {
            overdue.push(intended);
            self.next = self.moments.as_mut().and_then(Iterator::next).map(|moment| self.from + moment);
        }
        self.next = None;
        shard.due.set(NONE);
        overdue
    }

    /// Waits for the next one, and gives its intended start.
    async fn next(&mut self) -> Nanos {
        let Some(intended) = self.next else { return std::future::pending().await };
        tokio::time::sleep_until(clock::instant(intended).into()).await;
        self.next = self.moments.as_mut().and_then(Iterator::next).map(|moment| self.from + moment);
        intended
    }
}

/// The heartbeat of a shard's loop, and what is done with it.
struct Pulse {
    epoch: Nanos,
    next: Nanos,
    told: Nanos,
    second: u64,
}

impl Pulse {
    fn new(epoch: Nanos) -> Self {
        Self { epoch, next: clock::monotonic() + HEARTBEAT, told: 0, second: 1 }
    }

    async fn beat(&self) -> Nanos {
        tokio::time::sleep_until(clock::instant(self.next).into()).await;
        clock::monotonic()
    }

    fn tell(&mut self, now: Nanos, shard: &Shard, start: &Start) {
        shard.recorder.borrow_mut().loop_delay(now, now - self.next);
        self.next = now + HEARTBEAT;
        if now >= self.epoch + self.second as Nanos * SECOND {
            net::refresh_pairing();
            self.tell_second(shard, start);
        }
        if now - self.told >= TELL {
            self.told = now;
            let report = Report::Pending { shard: start.number, oldest: shard.oldest_pending(), at: now };
            let _ = start.reports.send(report);
        }
    }

    /// Tells the seconds that are over; after a long pause of the whole process there are several.
    fn tell_second(&mut self, shard: &Shard, start: &Start) {
        let now = clock::monotonic();
        while now >= self.epoch + self.second as Nanos * SECOND {
            self.tell_one(shard, start);
        }
    }

    fn tell_one(&mut self, shard: &Shard, start: &Start) {
        let mut recorder = shard.recorder.borrow_mut();
        recorder.set_users(shard.users.get());
        let _ = start.reports.send(Report::Second(self.second, Box::new(recorder.take_delta())));
        self.second += 1;
    }

    /// The last, incomplete second.
    fn last(&mut self, shard: &Shard, start: &Start) {
        self.tell_second(shard, start);
        self.tell_one(shard, start);
    }
}
