//! One virtual user: comes, and until it is told to go: says something, reads the answer, thinks.

use std::rc::Rc;

use super::Interrupt;
use super::shard::Shard;
use crate::clock::{self, Nanos, SECOND};
use crate::driver::{Live, Prompt, Session, Trace};
use crate::plan::{Saying, UserPlan};
use crate::record::{Outcome, Place, Step, Turn};
use crate::trace::Spoken;

/// The least pause after a turn that failed, so that a target that refuses at once is not
/// hammered by users without think time.
const PAUSE_AFTER_FAILURE: Nanos = SECOND;

/// The life of user `number`, who comes at `comes`.
pub(super) async fn live(shard: Rc<Shard>, number: u32, comes: Nanos) {
    let mut plan = shard.plan.user(number);
    let mut session = shard.driver.session(number);
    if !shard.sleep_until(comes).await {
        return;
    }
    let _present = shard.present();
    let Some(loaded) = arrive(&shard, &mut session, comes).await else { return };
    // Nobody says anything before the page is there, and nobody waits longer for it than it takes.
    let mut intended = loaded.max(comes + plan.first_wait());
    loop {
        let pending = shard.expect(number, intended);
        if !shard.sleep_until(intended).await {
            return;
        }
        let turn = speak(&shard, &mut plan, &mut session, intended).await;
        drop(pending);
        let pause = if turn.outcome.is_error() { PAUSE_AFTER_FAILURE } else { 0 };
        // From the kernel's stamp of the reply's end, not from when this task got to see it.
        intended = turn.released + plan.think().max(pause);
    }
}

/// The user comes: loads the page, where the protocol's client has one. Gives the moment at which
/// that is done, or `None` if the run is being stopped.
async fn arrive(shard: &Shard, session: &mut Session, comes: Nanos) -> Option<Nanos> {
    let mut visit = Turn::new(comes, clock::monotonic());
    let visited = tokio::select! {
        biased;
        visited = shard.driver.arrive(session, &mut visit) => visited,
        () = shard.stopped(Interrupt::Drain) => return None,
    };
    if !visited {
        return Some(comes);
    }
    let took = visit.ended - visit.started;
    shard.recorder.borrow_mut().step(Step::PageLoad, visit.outcome, took, &visit.detail);
    Some(visit.ended)
}

/// One turn, recorded whatever happens to it.
async fn speak(shard: &Shard, plan: &mut UserPlan, session: &mut Session, intended: Nanos) -> End {
    let Saying { text, marker, opens, continues, disturb } = plan.say();
    let trace = shard.tracing.as_ref().map(|tracing| Trace { marker: marker.clone(), white: tracing.white });
    let prompt = Prompt { text, opens, continues, disturb, trace };
    let place = shard.recorder.borrow_mut().begin(intended);
    let mut spoken = Recorded { shard, place, marker, turn: Turn::new(intended, clock::monotonic()) };
    shard.driver.turn(session, &prompt, &mut spoken.turn, Live::new(&shard.recorder, place)).await;
    End { outcome: spoken.turn.outcome, released: spoken.turn.released }
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
}
