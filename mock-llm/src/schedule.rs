//! One deadline heap a thread: what is due is woken together, on an absolute schedule.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;
use std::task::Waker;
use std::time::Instant;

use tokio::sync::Notify;

/// The deadlines of one thread. Clones share the heap.
///
/// A timer a token would cost a timer-wheel registration each; here a token costs one heap
/// push, and the runtime knows a single timer: that of the earliest deadline.
#[derive(Clone, Default)]
pub(crate) struct Schedule {
    heap: Rc<RefCell<BinaryHeap<Reverse<Entry>>>>,
    earlier: Rc<Notify>,
}

struct Entry {
    due: Instant,
    waker: Waker,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

impl Schedule {
    /// Wakes `waker` once, when `due` has come.
    pub(crate) fn wake_at(&self, due: Instant, waker: &Waker) {
        let mut heap = self.heap.borrow_mut();
        let first = heap.peek().is_none_or(|Reverse(entry)| due < entry.due);
        heap.push(Reverse(Entry { due, waker: waker.clone() }));
        if first {
            self.earlier.notify_one();
        }
    }

    /// Runs the schedule until it is dropped: sleeps to the earliest deadline, wakes all that is due.
    pub(crate) async fn run(self) {
        let sleep = tokio::time::sleep_until(Instant::now().into());
        tokio::pin!(sleep);
        loop {
            let next = self.wake_due();
            match next {
                Some(due) => {
                    sleep.as_mut().reset(due.into());
                    tokio::select! {
                        () = &mut sleep => {}
                        () = self.earlier.notified() => {}
                    }
                }
                None => self.earlier.notified().await,
            }
        }
    }

    /// Wakes what is due and says when the next deadline is.
    fn wake_due(&self) -> Option<Instant> {
        let mut heap = self.heap.borrow_mut();
        let now = Instant::now();
        while heap.peek().is_some_and(|Reverse(entry)| entry.due <= now) {
            if let Some(Reverse(entry)) = heap.pop() {
                entry.waker.wake();
            }
        }
        heap.peek().map(|Reverse(entry)| entry.due)
    }
}
