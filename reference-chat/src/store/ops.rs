//! What a turn and a login do to the database, operation by operation, as LibreChat v0.8.7 does:
//! 30 operations for a turn in a new conversation, 33 for a follow-up, 9 for a login.

/// How many operations something is to the database, as its server counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operations {
    /// Those that read.
    pub query: u32,
    /// Those that insert.
    pub insert: u32,
    /// Those that update or upsert.
    pub update: u32,
}

impl Operations {
    /// A turn in a new conversation: the request that starts it and the one that reads its stream.
    pub const NEW_TURN: Self = Self { query: 23, insert: 2, update: 5 };
    /// A turn in a conversation that is there already.
    pub const FOLLOW_UP: Self = Self { query: 26, insert: 2, update: 5 };
    /// A login that is let in.
    pub const LOGIN: Self = Self { query: 8, insert: 0, update: 1 };
}

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// `logs.findOne({key})`: is somebody banned? There is no index on `key`.
    Ban,
    /// The user by id.
    User,
    /// A message by id.
    Message,
    /// The messages of the conversation, by time: the thread.
    Thread,
    /// The conversation by id and user.
    Conversation,
    /// The groups of the user.
    Groups,
    /// What the user may see.
    Rights,
    /// The question or the answer, upserted by its id.
    SaveMessage,
    /// The conversation, upserted by id and user.
    SaveConversation,
    /// What the turn cost, a transaction.
    Spend,
    /// The user's last login.
    SaveUser,
}

#[cfg(test)]
impl Op {
    /// Where it goes.
    const fn collection(self) -> &'static str {
        match self {
            Self::Ban => "logs",
            Self::User | Self::SaveUser => "users",
            Self::Message | Self::Thread | Self::SaveMessage => "messages",
            Self::Conversation | Self::SaveConversation => "conversations",
            Self::Groups => "groups",
            Self::Rights => "aclentries",
            Self::Spend => "transactions",
        }
    }
}

/// In the request that starts a turn: who asks, whether user or address is banned, and whose the
/// conversation is. Done by name in the handler; here for the count.
#[cfg(test)]
pub(crate) const ADMISSION: [Op; 4] = [Op::User, Op::Ban, Op::Ban, Op::Conversation];

/// In the request that reads the stream: who asks. A one-step turn has no such request and does it
/// with its rounds.
pub(crate) const STREAM: [Op; 1] = [Op::User];

/// Between the rounds on the event loop before the model is asked, spread evenly.
pub(crate) const ROUNDS: [Op; 18] = [
    Op::Ban,
    Op::User,
    Op::Groups,
    Op::Rights,
    Op::Ban,
    Op::Message,
    Op::Conversation,
    Op::Ban,
    Op::User,
    Op::Groups,
    Op::Rights,
    Op::Ban,
    Op::Message,
    Op::Conversation,
    Op::Ban,
    Op::User,
    Op::Message,
    Op::Ban,
];

/// A follow-up does these besides, after the others. The last [`Op::Thread`] is what the model is told.
pub(crate) const FOLLOW_UP: [Op; 3] = [Op::Thread, Op::Conversation, Op::Thread];

/// The question, before the model is asked.
pub(crate) const BEFORE: [Op; 2] = [Op::SaveMessage, Op::SaveConversation];

/// The answer and the question's count of tokens, after the last token and before the final event.
pub(crate) const AFTER: [Op; 5] = [Op::SaveMessage, Op::SaveConversation, Op::Spend, Op::Spend, Op::SaveMessage];

/// A login, before the password is compared: is the address banned, who is it? Done by name in the
/// handler, as is the ban of the user; here for the count.
#[cfg(test)]
pub(crate) const LOGIN: [Op; 3] = [Op::Ban, Op::User, Op::Ban];

/// The rest of a login that is let in.
pub(crate) const WELCOME: [Op; 6] = [Op::Ban, Op::User, Op::Groups, Op::Rights, Op::User, Op::SaveUser];

/// The operations of one round of `rounds`: all of them are done after the last one, each once.
pub(crate) fn share(all: &[Op], round: usize, rounds: usize) -> &[Op] {
    let rounds = rounds.max(1);
    &all[all.len() * round / rounds..all.len() * (round + 1) / rounds]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn writes(op: Op) -> bool {
        matches!(op, Op::SaveMessage | Op::SaveConversation | Op::Spend | Op::SaveUser)
    }

    fn counted(ops: &[Op], writing: bool) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for op in ops.iter().filter(|op| writes(**op) == writing) {
            *counts.entry(op.collection()).or_default() += 1;
        }
        counts
    }

    fn operations(ops: &[Op]) -> Operations {
        let count = |wanted: fn(Op) -> bool| ops.iter().filter(|op| wanted(**op)).count() as u32;
        Operations {
            query: count(|op| !writes(op)),
            insert: count(|op| op == Op::Spend),
            update: count(|op| writes(op) && op != Op::Spend),
        }
    }

    fn turn() -> Vec<Op> {
        [&ADMISSION[..], &STREAM[..], &ROUNDS[..], &BEFORE[..], &AFTER[..]].concat()
    }

    #[test]
    fn a_turn_in_a_new_conversation_is_thirty_operations() {
        let turn = turn();
        assert_eq!(turn.len(), 30);
        assert_eq!(operations(&turn), Operations::NEW_TURN);
        let reads =
            [("aclentries", 2), ("conversations", 3), ("groups", 2), ("logs", 8), ("messages", 3), ("users", 5)];
        assert_eq!(counted(&turn, false), BTreeMap::from(reads));
        assert_eq!(counted(&turn, true), BTreeMap::from([("conversations", 2), ("messages", 3), ("transactions", 2)]));
    }

    #[test]
    fn a_follow_up_is_three_more_and_a_login_nine() {
        assert_eq!(turn().len() + FOLLOW_UP.len(), 33);
        assert_eq!(operations(&[&turn()[..], &FOLLOW_UP[..]].concat()), Operations::FOLLOW_UP);
        assert_eq!(operations(&[&LOGIN[..], &WELCOME[..]].concat()), Operations::LOGIN);
        assert_eq!(counted(&FOLLOW_UP, false), BTreeMap::from([("conversations", 1), ("messages", 2)]));
        assert_eq!(LOGIN.len() + WELCOME.len(), 9);
        assert_eq!(FOLLOW_UP.last(), Some(&Op::Thread));
    }

    #[test]
    fn the_rounds_share_all_operations_and_each_has_one() {
        for rounds in [1, 2, 10, 18, 40] {
            let all: Vec<Op> = (0..rounds).flat_map(|round| share(&ROUNDS, round, rounds).to_vec()).collect();
            assert_eq!(all, ROUNDS, "{rounds} rounds");
        }
        assert!((0..10).all(|round| !share(&ROUNDS, round, 10).is_empty()));
        assert_eq!(share(&ROUNDS, 0, 0).len(), ROUNDS.len());
    }
}
