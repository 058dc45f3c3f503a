//! One virtual user: comes, follows its journey until it is told to go: says something, reads the answer, thinks.

use std::rc::Rc;

use tokio::sync::mpsc;

use super::shard::Shard;
use crate::clock::{self, Nanos, SECOND};
use crate::driver::{Act, Live, Prompt, Session, Trace};
use crate::plan::{Saying, UserPlan};
use crate::record::{Outcome, Place, Step, Turn};
use crate::scenario::{JourneyStep, Turns};
use crate::trace::Spoken;

/// The least pause after a turn that failed, so that a target that refuses at once is not
/// hammered by users without think time.
const PAUSE_AFTER_FAILURE: Nanos = SECOND;

/// Turns of an open load have no step of their own: nothing happens in their middle but the share of all.
const PLAIN: Turns = Turns { count: None, think: None, abort: None, reload: None, drop: None };

/// The run is being stopped, or the user has gone.
struct Gone;

/// One user, and where it is in time.
struct User {
    shard: Rc<Shard>,
    number: u32,
    plan: UserPlan,
    session: Session,
    /// When the newest thing that it did was over: what follows counts from here.
    at: Nanos,
}

/// The life of user `number`, who comes at `comes`.
pub(super) async fn live(shard: Rc<Shard>, number: u32, comes: Nanos) {
    let (plan, session) = (shard.plan.user(number), shard.driver.session(number));
    let mut user = User { shard: Rc::clone(&shard), number, plan, session, at: comes };
    if user.wait(comes).await.is_err() {
        return;
    }
    let _present = shard.present();
    let journey = shard.plan.journeys[user.plan.journey()].clone();
    // Nobody says anything before the page is there, and nobody waits longer for it than it takes.
    let own = journey.steps.iter().find_map(|step| match step {
        JourneyStep::Turns(turns) => turns.think.as_ref(),
        _ => None,
    });
    let mut first = Some(comes + user.plan.first_wait(own));
    loop {
        let before = user.at;
        for step in &journey.steps {
            if user.step(step, &mut first).await.is_err() {
                return;
            }
        }
        if user.at <= before {
            // A journey of steps that take no time must not spin.
            user.at = before.max(clock::monotonic()) + PAUSE_AFTER_FAILURE;
            if user.wait(user.at).await.is_err() {
                return;
            }
        }
    }
}

/// The life of a user of an open load: speaks the turns that it is given, by their intended start, and tells when it is
/// free again.
pub(super) async fn serve(shard: Rc<Shard>, number: u32, turns: mpsc::UnboundedReceiver<Nanos>) {
    let mut turns = Given { shard: Rc::clone(&shard), turns };
    let (plan, session) = (shard.plan.user(number), shard.driver.session(number));
    let mut user = User { shard: Rc::clone(&shard), number, plan, session, at: clock::monotonic() };
    let _present = shard.present();
    loop {
        let intended = tokio::select! {
            biased;
            turn = turns.turns.recv() => match turn {
                Some(intended) => intended,
                None => return,
            },
            () = shard.gone(number) => return,
            () = shard.driver.idle(&mut user.session) => unreachable!("nobody idles to an end"),
        };
        let end = {
            let _pending = shard.expect(number, intended);
            speak(&shard, &mut user.plan, &mut user.session, &PLAIN, intended).await
        };
        // Who is told to come again later is not free until then.
        if let Some(wait) = end.retry_after
            && user.wait(end.released + wait).await.is_err()
        {
            return;
        }
        shard.set_free(number);
    }
}

/// The turns that a user of an open load is given. Those that it never came to are dropped with it.
struct Given {
    shard: Rc<Shard>,
    turns: mpsc::UnboundedReceiver<Nanos>,
}

impl Drop for Given {
    fn drop(&mut self) {
        self.turns.close();
        while let Ok(intended) = self.turns.try_recv() {
            self.shard.recorder.borrow_mut().drop_turn(intended);
        }
    }
}

impl User {
    /// Sleeps, and keeps the connection alive meanwhile.
    async fn wait(&mut self, until: Nanos) -> Result<(), Gone> {
        let stays = tokio::select! {
            biased;
            stays = self.shard.sleep_until(self.number, until) => stays,
            () = self.shard.driver.idle(&mut self.session) => unreachable!("nobody idles to an end"),
        };
        if stays { Ok(()) } else { Err(Gone) }
    }

    /// Follows one step of the journey. `first` is when a user who has just come says something at the earliest.
    async fn step(&mut self, step: &JourneyStep, first: &mut Option<Nanos>) -> Result<(), Gone> {
        match step {
            JourneyStep::Login => self.act(Act::Login, Step::Login).await,
            JourneyStep::Page => self.act(Act::Page, Step::PageLoad).await,
            JourneyStep::History => self.act(Act::History, Step::History).await,
            JourneyStep::Turns(turns) => self.turns(turns, first).await,
            JourneyStep::Leave { away } => {
                self.act(Act::Leave, Step::Leave).await?;
                self.plan.begin_visit();
                self.at += self.plan.away(away);
                self.wait(self.at).await
            }
        }
    }

    /// Does something besides turns, where the protocol has it.
    async fn act(&mut self, act: Act, step: Step) -> Result<(), Gone> {
        let mut visit = Turn::new(self.at, clock::monotonic());
        let done = tokio::select! {
            biased;
            done = self.shard.driver.act(act, &mut self.session, &mut visit) => done,
            () = self.shard.gone(self.number) => return Err(Gone),
        };
        if done {
            let took = visit.ended - visit.started;
            self.shard.recorder.borrow_mut().step(step, visit.outcome, took, &visit.detail);
            self.at = self.at.max(visit.ended);
        }
        Ok(())
    }

    /// Says one thing after the other, and thinks before each.
    async fn turns(&mut self, turns: &Turns, first: &mut Option<Nanos>) -> Result<(), Gone> {
        let mut said = 0;
        while turns.count.is_none_or(|count| said < count) {
            let intended = match first.take() {
                Some(earliest) => earliest.max(self.at),
                None => self.at + self.plan.think(turns.think.as_ref()),
            };
            let shard = Rc::clone(&self.shard);
            let pending = shard.expect(self.number, intended);
            self.wait(intended).await?;
            let end = speak(&shard, &mut self.plan, &mut self.session, turns, intended).await;
            drop(pending);
            // From the kernel's stamp of the reply's end, not from when this task got to see it.
            self.at = end.released;
            if end.outcome.is_error() {
                let pause = end.retry_after.unwrap_or(0).max(PAUSE_AFTER_FAILURE);
                *first = Some(end.released + self.plan.think(turns.think.as_ref()).max(pause));
            }
            said += 1;
        }
        Ok(())
    }
}

/// One turn, recorded whatever happens to it.
async fn speak(shard: &Shard, plan: &mut UserPlan, session: &mut Session, turns: &Turns, intended: Nanos) -> End {
    let Saying { text, marker, opens, continues, disturb } = plan.say(turns);
    let trace = shard.tracing.as_ref().map(|tracing| Trace { marker: marker.clone(), white: tracing.white });
    let prompt = Prompt { text, opens, continues, disturb, trace };
    let place = shard.recorder.borrow_mut().begin(intended);
    let mut spoken = Recorded { shard, place, marker, turn: Turn::new(intended, clock::monotonic()) };
    shard.driver.turn(session, &prompt, &mut spoken.turn, Live::new(&shard.recorder, place)).await;
    let turn = &spoken.turn;
    // A turn that completed after all was told so on its way.
    let obeys = shard.plan.obey_retry_after && turn.outcome.is_error();
    if turn.retry_after.is_some() {
        shard.recorder.borrow_mut().told_to_wait(place, obeys);
    }
    let retry_after = turn.retry_after.filter(|_| obeys);
    End { outcome: turn.outcome, released: turn.released, retry_after }
}

/// A turn that is written down when it is dropped: ended by itself, or with its user where the run is stopped at
/// once. Asking for that at every token would cost more than reading the token's stamp.
struct Recorded<'a> {
    shard: &'a Shard,
    place: Place,
    marker: String,
    turn: Turn,
}

impl Drop for Recorded<'_> {
    fn drop(&mut self) {
        let mut turn = std::mem::replace(&mut self.turn, Turn::new(0, 0));
        if turn.outcome == Outcome::Interrupted {
            turn.ended = clock::monotonic();
            turn.released = turn.ended;
        }
        self.shard.recorder.borrow_mut().finish(self.place, &turn);
        if let Some(tracing) = &self.shard.tracing {
            tracing.tell(Spoken { marker: std::mem::take(&mut self.marker), place: self.place, turn });
        }
    }
}

/// What a user must know of its turn to go on.
struct End {
    outcome: Outcome,
    released: Nanos,
    /// For how long the deployment wants to be left alone, where that is obeyed.
    retry_after: Option<Nanos>,
}
