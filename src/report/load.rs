//! What a load is called: its users, or the turns a second of an open load, and what it is for.

use super::quantity::plain;
use super::view::Cell;
use super::words::number;
use crate::lang::Texts;
use crate::result::{Role, RunResult, TierResult};

/// The size of a load, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    users: u32,
    rate: Option<f64>,
    role: Role,
}

/// How a size is said: English has fewer forms than Korean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Where a text speaks of it for the first time: "500 users", at once.
    Concurrent,
    /// Beside others: "500 users".
    Users,
    /// Where it is plain whose number it is.
    Short,
    /// Where English says the number alone.
    Bare,
}

impl Load {
    /// Users, of an open load the most that there may be with its turns a second, and a role.
    pub(super) fn new(users: u32, rate: Option<f64>, role: Role) -> Self {
        Self { users, rate, role }
    }

    /// That of a tier.
    pub(super) fn of(tier: &TierResult) -> Self {
        Self::new(tier.users, tier.rate, tier.role)
    }

    /// That which the run is about: of a crowd the crowd.
    pub(super) fn asked(result: &RunResult) -> Self {
        Self::new(result.asked, result.asked_rate, Role::Step)
    }

    /// Its size: `500 users`, or `50 turns/s`.
    pub(super) fn size(self, texts: &Texts, form: Form) -> String {
        let Some(rate) = self.rate else {
            let key = match form {
                Form::Concurrent => "load-concurrent",
                Form::Users => "load-users",
                Form::Short => "load-short",
                Form::Bare => "load-bare",
            };
            return texts.with(key, &[("users", &number(u64::from(self.users)))]);
        };
        texts.with("load-rate", &[("rate", &plain(rate))])
    }

    /// A tier's name as a noun phrase: its size, and what it is for where it is no step: `50 users (after the crowd)`.
    pub(super) fn name(self, texts: &Texts, form: Form) -> String {
        let size = self.size(texts, form);
        match self.role_word(texts) {
            Some(role) => texts.with("load-with-role", &[("load", &size), ("role", &role)]),
            None => size,
        }
    }

    /// The name in a column under [`head`].
    pub(super) fn cell(self, texts: &Texts) -> Cell {
        let size = if self.rate.is_some() { self.size(texts, Form::Bare) } else { number(u64::from(self.users)) };
        Cell::Number(match self.role_word(texts) {
            Some(role) => format!("{size}\n{role}"),
            None => size,
        })
    }

    /// The size at a place of a chart, in as few characters as can be.
    pub(super) fn tick(self) -> String {
        self.rate.map_or_else(|| number(u64::from(self.users)), |rate| format!("{}/s", plain(rate)))
    }

    /// A name for machines, in which a dot would begin a new part.
    pub(super) fn id(self) -> String {
        let size = self.rate.map_or_else(|| self.users.to_string(), |rate| format!("rate-{rate}").replace('.', "_"));
        if self.role.is_step() { size } else { format!("{size}-{}", self.role.name()) }
    }

    fn role_word(self, texts: &Texts) -> Option<String> {
        let key = match self.role {
            Role::Step => return None,
            Role::Rise => "role-rise",
            Role::Usual => "role-usual",
            Role::Spike => "role-spike",
            Role::Recovery => "role-recovery",
            Role::Soak => "role-soak",
        };
        Some(texts.get(key))
    }
}

/// Whether turns came at moments of their own.
pub(super) fn is_open(result: &RunResult) -> bool {
    result.asked_rate.is_some()
}

/// Whether every tier is a level that was held: only then does anything stand against the size of the load.
pub(super) fn is_levels(result: &RunResult) -> bool {
    result.tiers.iter().all(|tier| matches!(tier.role, Role::Step | Role::Soak))
}

/// The head of a column of [`Load::cell`].
pub(super) fn head(open: bool) -> &'static str {
    if open { "head-load" } else { "head-users" }
}

/// The name of an axis of [`Load::tick`].
pub(super) fn axis(open: bool) -> &'static str {
    if open { "axis-rates" } else { "axis-users" }
}

/// So many seconds in the largest unit that fits: `2 h`, `10 min`, `30 s`.
pub(super) fn length(texts: &Texts, seconds: f64) -> String {
    let (key, count) = match seconds {
        hours if hours >= 3_600.0 => ("length-hours", hours / 3_600.0),
        minutes if minutes >= 120.0 => ("length-minutes", minutes / 60.0),
        few => ("length-seconds", few),
    };
    texts.with(key, &[("count", &plain(count))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lang::Lang;

    #[test]
    fn a_load_is_named_by_its_users_or_its_rate_and_by_what_it_is_for() {
        let (en, ko) = (Texts::new(Lang::En), Texts::new(Lang::Ko));
        let users = Load::new(1_000, None, Role::Step);
        assert_eq!(users.name(&en, Form::Concurrent), "1,000 users");
        assert_eq!(users.name(&en, Form::Bare), "1,000");
        assert_eq!(users.name(&ko, Form::Concurrent), "동시 사용자 1,000명");
        assert_eq!((users.tick(), users.id()), ("1,000".to_owned(), "1000".to_owned()));
        let open = Load::new(400, Some(2.5), Role::Step);
        assert_eq!((open.name(&en, Form::Bare), open.tick()), ("2.5 turns/s".to_owned(), "2.5/s".to_owned()));
        assert_eq!((open.name(&ko, Form::Short), open.id()), ("초당 2.5턴".to_owned(), "rate-2_5".to_owned()));
        let after = Load::new(50, None, Role::Recovery);
        assert_eq!(after.name(&en, Form::Users), "50 users (after the crowd)");
        assert!(matches!(after.cell(&en), Cell::Number(text) if text == "50\nafter the crowd"));
        assert_eq!(after.id(), "50-recovery");
    }

    #[test]
    fn lengths_read_well() {
        let texts = Texts::new(Lang::En);
        let shown = [5_400.0, 600.0, 90.0, 11.0, 0.0].map(|seconds| length(&texts, seconds));
        assert_eq!(shown, ["1.5 h", "10 min", "90 s", "11 s", "0 s"]);
    }
}
