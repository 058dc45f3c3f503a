//! The event loops: where work waits for its turn, in virtual time or on a real, busy thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::metrics::Lag;
use crate::plant::AS_USUAL;
use crate::queue::Queue;

/// Waits shorter than this are not slept, for timers round up to a whole millisecond: they stay
/// in the queue as work that is not done yet, and whoever comes next waits for it too.
const SLEEPABLE: Duration = Duration::from_millis(2);

/// The event loops of a deployment.
pub(crate) struct Workers {
    loops: Vec<Arc<EventLoop>>,
    next: AtomicUsize,
}

/// One event loop.
pub(crate) struct EventLoop {
    kind: Kind,
    /// What its work costs, in thousandths of the usual.
    per_mille: u32,
    lag: Arc<Lag>,
}

/// How costs are paid.
enum Kind {
    /// They are counted.
    Virtual { queue: Mutex<Queue>, epoch: Instant },
    /// They are burnt by a thread.
    Burning(mpsc::Sender<Work>),
}

/// Work for a burning thread, and whom to tell when it is done.
struct Work(Duration, oneshot::Sender<()>);

impl Workers {
    /// `count` event loops, the first of which may be dearer than the others; how long work waits
    /// for them is noted.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(crate) fn start(count: usize, burn: bool, first: u32, lag: &Arc<Lag>) -> std::io::Result<Self> {
        let epoch = Instant::now();
        let make = |number| {
            let kind = if burn {
                let (sender, receiver) = mpsc::channel();
                std::thread::Builder::new().name(format!("reference-{number}")).spawn(move || toil(&receiver))?;
                Kind::Burning(sender)
            } else {
                Kind::Virtual { queue: Mutex::default(), epoch }
            };
            let per_mille = if number == 0 { first } else { AS_USUAL };
            Ok(Arc::new(EventLoop { kind, per_mille, lag: Arc::clone(lag) }))
        };
        Ok(Self { loops: (0..count.max(1)).map(make).collect::<std::io::Result<_>>()?, next: AtomicUsize::new(0) })
    }

    /// The event loop for the next piece of work, dealt out in turn as a balancer does.
    pub(crate) fn next(&self) -> Arc<EventLoop> {
        Arc::clone(&self.loops[self.next.fetch_add(1, Ordering::Relaxed) % self.loops.len()])
    }
}

impl EventLoop {
    /// Waits until this loop has done work of `cost` that comes now.
    pub(crate) async fn pass(&self, cost: Duration) {
        if cost.is_zero() {
            return;
        }
        let cost = if self.per_mille == AS_USUAL { cost } else { cost * self.per_mille / AS_USUAL };
        match &self.kind {
            Kind::Virtual { queue, epoch } => {
                let now = epoch.elapsed();
                let done = queue.lock().unwrap_or_else(PoisonError::into_inner).take(now, cost);
                self.lag.observe(done.saturating_sub(now + cost));
                if done >= now + SLEEPABLE {
                    tokio::time::sleep_until((*epoch + done).into()).await;
                }
            }
            Kind::Burning(sender) => {
                let (done, wait) = oneshot::channel();
                let began = Instant::now();
                // The thread lives as long as the loop does.
                if sender.send(Work(cost, done)).is_ok() {
                    let _ = wait.await;
                    self.lag.observe(began.elapsed().saturating_sub(cost));
                }
            }
        }
    }
}

/// Burns what comes, in order.
fn toil(work: &mpsc::Receiver<Work>) {
    for Work(cost, done) in work {
        let until = Instant::now() + cost;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        // Whoever waited may have gone.
        let _ = done.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn short_waits_are_owed_and_paid_together() {
        let workers = Workers::start(1, false, AS_USUAL, &Arc::default()).unwrap();
        let one = workers.next();
        let Kind::Virtual { queue, .. } = &one.kind else { panic!("virtual") };
        one.pass(Duration::from_micros(1_500)).await;
        one.pass(Duration::from_micros(1_500)).await;
        one.pass(Duration::ZERO).await;
        let mut queue = queue.lock().unwrap();
        assert!(queue.take(Duration::ZERO, Duration::ZERO) >= Duration::from_millis(3));
    }

    #[tokio::test]
    async fn burning_takes_cpu_time_one_after_the_other() {
        let workers = Workers::start(1, true, AS_USUAL, &Arc::default()).unwrap();
        let (one, two) = (workers.next(), workers.next());
        let began = Instant::now();
        tokio::join!(one.pass(Duration::from_millis(5)), two.pass(Duration::from_millis(5)));
        assert!(began.elapsed() >= Duration::from_millis(10), "one worker does one thing at a time");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_worker_alone_may_be_dearer() {
        let workers = Workers::start(2, false, 2 * AS_USUAL, &Arc::default()).unwrap();
        for wanted in [Duration::from_millis(2), Duration::from_millis(1)] {
            let one = workers.next();
            one.pass(Duration::from_millis(1)).await;
            let Kind::Virtual { queue, epoch } = &one.kind else { panic!("virtual") };
            let owed = queue.lock().unwrap().take(Duration::ZERO, Duration::ZERO);
            // In real time next to nothing has passed since the beginning.
            assert!(owed >= wanted && owed < wanted + epoch.elapsed() + Duration::from_micros(1), "{owed:?}");
        }
    }
}
