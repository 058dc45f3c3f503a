//! One virtual user: comes, and until it is told to go: says something, reads the answer, thinks.

use std::rc::Rc;

use super::Interrupt;
use super::shard::Shard;
use crate::clock::{self, Nanos, SECOND};
use crate::driver::{Live, Prompt, Session};
use crate::plan::UserPlan;
use crate::record::{Outcome, Turn};

/// The least pause after a turn that failed, so that a target that refuses at once is not
/// hammered by users without think time.
const PAUSE_AFTER_FAILURE: Nanos = SECOND;

/// The life of user `number`, who comes at `comes`.
pub(super) async fn live(shard: Rc<Shard>, number: u32, comes: Nanos) {
    let mut plan = shard.plan.user(number);
    let mut session = Session::default();
    if !shard.sleep_until(comes).await {
        return;
    }
    let _present = shard.present();
    let mut intended = comes + plan.first_wait();
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

/// One turn, recorded whatever happens to it.
async fn speak(shard: &Shard, plan: &mut UserPlan, session: &mut Session, intended: Nanos) -> Turn {
    let saying = plan.say();
    let prompt = Prompt { text: saying.text, opens: saying.opens, continues: saying.continues };
    let mut turn = Turn::new(intended, clock::monotonic());
    let place = shard.recorder.borrow_mut().begin(intended);
    let spoken = shard.driver.turn(session, &prompt, &mut turn, Live::new(&shard.recorder, place));
    let cut = tokio::select! {
        biased;
        () = spoken => false,
        () = shard.stopped(Interrupt::Now) => true,
    };
    if cut {
        turn.outcome = Outcome::Interrupted;
        turn.ended = clock::monotonic();
        turn.released = turn.ended;
        *session = Session::default();
    }
    shard.recorder.borrow_mut().finish(place, &turn);
    turn
}
