//! The two time limits of a turn on one timer, which is not touched for every token.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::Sleep;

use super::Limits;
use crate::clock::{self, Nanos};
use crate::record::Outcome;

/// Ends a turn that is silent for too long, or too long altogether.
pub(super) struct Watchdog {
    deadline: Nanos,
    stall: Nanos,
    last_sign: Nanos,
    sleep: Pin<Box<Sleep>>,
}

impl Watchdog {
    /// For a turn that started at `started`; the silence counts from now.
    pub(super) fn new(limits: &Limits, started: Nanos) -> Self {
        let (deadline, stall) = (started + clock::nanos(limits.turn), clock::nanos(limits.stall));
        let last_sign = clock::monotonic();
        let first = deadline.min(last_sign + stall);
        Self { deadline, stall, last_sign, sleep: Box::pin(tokio::time::sleep_until(clock::instant(first).into())) }
    }

    /// The target gave a sign of life. The timer stays as it is: when it fires, it is set anew
    /// from here, so that a token costs one store.
    pub(super) fn sign(&mut self, at: Nanos) {
        self.last_sign = self.last_sign.max(at);
    }

    /// Ready when a limit is passed, with the outcome that this is.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = clock::monotonic();
            if now >= self.deadline {
                return Poll::Ready(Outcome::TimedOut);
            }
            let silent_until = self.last_sign + self.stall;
            if now >= silent_until {
                return Poll::Ready(Outcome::Stalled);
            }
            self.sleep.as_mut().reset(clock::instant(self.deadline.min(silent_until)).into());
        }
        Poll::Pending
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
