//! The two time limits of a turn on one timer, which is not touched for every token.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::Sleep;

use super::Limits;
use crate::clock::{self, MILLISECOND, Nanos};
use crate::record::Outcome;

/// How far the clocks of stamps and timers may be apart.
const CLOCKS: Nanos = 10 * MILLISECOND;

/// Ends a turn that is silent for too long, or too long altogether.
pub(super) struct Watchdog {
    deadline: Nanos,
    stall: Nanos,
    last_sign: Nanos,
    sleep: Pin<Box<Sleep>>,
    /// When the timer fires.
    fires: Nanos,
    /// Whether it knows whom to wake.
    armed: bool,
}

impl Watchdog {
    /// For a turn that started at `started`; the silence counts from now.
    pub(super) fn new(limits: &Limits, started: Nanos) -> Self {
        let (deadline, stall) = (started + clock::nanos(limits.turn), clock::nanos(limits.stall));
        let last_sign = clock::monotonic();
        let fires = deadline.min(last_sign + stall);
        let sleep = Box::pin(tokio::time::sleep_until(clock::instant(fires).into()));
        Self { deadline, stall, last_sign, sleep, fires, armed: false }
    }

    /// The target gave a sign of life. The timer stays as it is: when it fires, it is set anew
    /// from here, so that a token costs one store.
    pub(super) fn sign(&mut self, at: Nanos) {
        self.last_sign = self.last_sign.max(at);
    }

    /// How long the turn may still take.
    pub(super) fn left(&self) -> Duration {
        Duration::from_nanos((self.deadline - clock::monotonic()).max(0) as u64)
    }

    /// Ready when a limit is passed, with the outcome that this is.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        // A flood of data may use up what tokio lets a task do at once, and must not put the limits off with it.
        while Pin::new(&mut unconstrained(self.sleep.as_mut())).poll(cx).is_ready() {
            let now = clock::monotonic();
            if now >= self.deadline {
                return Poll::Ready(Outcome::TimedOut);
            }
            let silent_until = self.last_sign + self.stall;
            if now >= silent_until {
                return Poll::Ready(Outcome::Stalled);
            }
            self.fires = self.deadline.min(silent_until);
            self.sleep.as_mut().reset(clock::instant(self.fires).into());
        }
        self.armed = true;
        Poll::Pending
    }

    /// The same of a task that was awake at a moment since it was last woken: if that is before the timer's time, the
    /// timer has not fired, knows the task already, and is left alone.
    pub(super) fn poll_awake(&mut self, awake: Option<Nanos>, cx: &mut Context<'_>) -> Poll<Outcome> {
        match awake {
            Some(awake) if self.armed && awake + CLOCKS < self.fires => Poll::Pending,
            _ => self.poll(cx),
        }
    }

    /// What `future` gives, unless a limit is passed before.
    pub(super) async fn guard<T>(&mut self, future: impl Future<Output = T>) -> Result<T, Outcome> {
        let mut future = std::pin::pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending => self.poll(cx).map(Err),
        })
        .await
    }
}
