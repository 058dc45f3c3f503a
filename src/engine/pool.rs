//! The users of an open load: a turn that comes takes one who is free, and where no shard has one it is dropped.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use tokio::sync::mpsc;

use crate::clock::Nanos;

/// A turn that looks for a free user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    /// When it was meant to start.
    pub(super) intended: Nanos,
    /// How many shards have been asked already.
    pub(super) asked: usize,
}

/// What becomes of an offer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// The user of this number has it.
    ByOld(u32),
    /// A user of this number must be made for it, and has it then.
    ByNew(u32),
    /// Nobody here is free.
    Not,
}

/// The users of one shard.
#[derive(Default)]
pub(super) struct Pool {
    inner: RefCell<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Who has been made, and how it is told of a turn.
    users: BTreeMap<u32, mpsc::UnboundedSender<Nanos>>,
    /// Who is free, the longest first: so everybody has some time to think.
    free: VecDeque<u32>,
    /// Numbers of users that may still be made.
    unmade: VecDeque<u32>,
}

impl Pool {
    /// More users may be made.
    pub(super) fn allow(&self, numbers: impl Iterator<Item = u32>) {
        self.inner.borrow_mut().unmade.extend(numbers);
    }

    /// Gives a turn to a free user.
    pub(super) fn take(&self, intended: Nanos) -> Taken {
        let mut inner = self.inner.borrow_mut();
        if let Some(number) = inner.free.pop_front()
            && let Some(sender) = inner.users.get(&number)
            && sender.send(intended).is_ok()
        {
            return Taken::ByOld(number);
        }
        inner.unmade.pop_front().map_or(Taken::Not, Taken::ByNew)
    }

    /// A user was made; what it listens to, with its first turn in it.
    pub(super) fn make(&self, number: u32, intended: Nanos) -> mpsc::UnboundedReceiver<Nanos> {
        let (sender, receiver) = mpsc::unbounded_channel();
        // The receiver is here: this cannot fail.
        let _ = sender.send(intended);
        self.inner.borrow_mut().users.insert(number, sender);
        receiver
    }

    /// A user has spoken its turn.
    pub(super) fn set_free(&self, number: u32) {
        self.inner.borrow_mut().free.push_back(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_takes_who_is_free_the_longest_before_somebody_new_is_made() {
        let pool = Pool::default();
        assert_eq!(pool.take(1), Taken::Not);
        pool.allow([0, 2].into_iter());
        let mut listening = Vec::new();
        for (intended, number) in [(1, 0), (2, 2)] {
            assert_eq!(pool.take(intended), Taken::ByNew(number));
            listening.push(pool.make(number, intended));
        }
        assert_eq!(pool.take(3), Taken::Not);
        pool.set_free(2);
        pool.set_free(0);
        assert_eq!((pool.take(4), pool.take(5), pool.take(6)), (Taken::ByOld(2), Taken::ByOld(0), Taken::Not));
        let heard = |listener: &mut mpsc::UnboundedReceiver<Nanos>| (listener.try_recv(), listener.try_recv());
        assert_eq!(heard(&mut listening[0]), (Ok(1), Ok(5)));
        assert_eq!(heard(&mut listening[1]), (Ok(2), Ok(4)));
    }
}
