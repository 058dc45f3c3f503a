//! Limiters and bans, as express-rate-limit and LibreChat's violations make them.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::settings::{Limit, Limits};

/// How long a ban lasts.
pub(crate) const BAN: Duration = Duration::from_secs(2 * 3_600);
/// Keys that are kept; beyond it the windows that are over are thrown away.
const KEPT: usize = 10_000;

/// What was counted in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) max: u32,
    pub(crate) remaining: u32,
    pub(crate) admitted: bool,
    /// Until the window is over.
    pub(crate) reset: Duration,
}

/// Counts by key in windows that begin with their first hit.
pub(crate) struct Windows<K> {
    limit: Limit,
    open: HashMap<K, (Instant, u32)>,
}

impl<K: Hash + Eq> Windows<K> {
    pub(crate) fn new(limit: Limit) -> Self {
        Self { limit, open: HashMap::new() }
    }

    /// Counts one hit.
    pub(crate) fn hit(&mut self, key: K, now: Instant) -> Standing {
        let Limit { max, per } = self.limit;
        if self.open.len() >= KEPT {
            self.open.retain(|_, (began, _)| now.duration_since(*began) < per);
        }
        let (began, count) = self.open.entry(key).or_insert((now, 0));
        if now.duration_since(*began) >= per {
            (*began, *count) = (now, 0);
        }
        *count += 1;
        Standing {
            max,
            remaining: max.saturating_sub(*count),
            admitted: *count <= max,
            reset: per - now.duration_since(*began),
        }
    }
}

/// Whom a violation or a ban is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Who {
    Address(std::net::IpAddr),
    User(String),
}

/// All limiters of a deployment.
pub(crate) struct Gate {
    pub(crate) limits: Limits,
    login: Option<Windows<Who>>,
    register: Option<Windows<Who>>,
    message_ip: Option<Windows<Who>>,
    message_user: Option<Windows<Who>>,
    violations: HashMap<(Who, Violation), u32>,
    banned: HashMap<Who, Instant>,
}

/// What somebody did wrong; each kind is counted for itself. A login or registration too many is
/// none: nobody is known yet whom it could be held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Violation {
    /// Too many messages in a window.
    Messages,
    /// Too many turns at once.
    Concurrent,
    /// Not a browser.
    NonBrowser,
}

impl Violation {
    fn score(self) -> u32 {
        match self {
            Self::Messages | Self::Concurrent => 1,
            Self::NonBrowser => 20,
        }
    }
}

/// The limiters that have windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limiter {
    Login,
    Register,
    MessageIp,
    MessageUser,
}

impl Limits {
    /// What a limiter with windows allows, where it is on.
    pub(crate) fn of(&self, limiter: Limiter) -> Option<Limit> {
        match limiter {
            Limiter::Login => self.login,
            Limiter::Register => self.register,
            Limiter::MessageIp => self.message_ip,
            Limiter::MessageUser => self.message_user,
        }
    }
}

impl Gate {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            login: limits.login.map(Windows::new),
            register: limits.register.map(Windows::new),
            message_ip: limits.message_ip.map(Windows::new),
            message_user: limits.message_user.map(Windows::new),
            violations: HashMap::new(),
            banned: HashMap::new(),
        }
    }

    /// Counts one hit, where the limiter is on.
    pub(crate) fn hit(&mut self, limiter: Limiter, who: Who, now: Instant) -> Option<Standing> {
        let windows = match limiter {
            Limiter::Login => &mut self.login,
            Limiter::Register => &mut self.register,
            Limiter::MessageIp => &mut self.message_ip,
            Limiter::MessageUser => &mut self.message_user,
        };
        Some(windows.as_mut()?.hit(who, now))
    }

    /// Notes a violation; from a score of `ban_at` on everybody concerned is banned. Gives the
    /// score so far.
    pub(crate) fn violate(&mut self, concerned: &[Who], violation: Violation, now: Instant) -> u32 {
        let mut most = 0;
        for who in concerned {
            let count = self.violations.entry((who.clone(), violation)).or_default();
            *count += violation.score();
            most = most.max(*count);
        }
        if self.limits.ban_at.is_some_and(|at| most >= at) {
            for who in concerned {
                self.violations.remove(&(who.clone(), violation));
                self.banned.insert(who.clone(), now + BAN);
            }
        }
        most
    }

    /// Whether somebody is banned.
    pub(crate) fn is_banned(&self, who: &Who, now: Instant) -> bool {
        self.banned.get(who).is_some_and(|until| *until > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Who {
        Who::User(name.to_owned())
    }

    #[test]
    fn a_window_admits_its_number_and_begins_anew() {
        let mut windows = Windows::new(Limit { max: 2, per: Duration::from_secs(60) });
        let now = Instant::now();
        let admitted: Vec<bool> = (0..3).map(|_| windows.hit(1, now).admitted).collect();
        assert_eq!(admitted, [true, true, false]);
        assert!(windows.hit(2, now).admitted, "another key has its own window");
        let later = windows.hit(1, now + Duration::from_secs(60));
        assert_eq!((later.admitted, later.remaining), (true, 1));
    }

    #[test]
    fn enough_violations_ban_for_two_hours() {
        let mut gate = Gate::new(Limits { ban_at: Some(3), ..Limits::default() });
        let now = Instant::now();
        let both = [user("a"), Who::Address([127, 0, 0, 1].into())];
        assert_eq!(gate.violate(&both, Violation::Messages, now), 1);
        gate.violate(&both, Violation::Messages, now);
        assert!(!gate.is_banned(&both[0], now));
        gate.violate(&both, Violation::Messages, now);
        assert!(both.iter().all(|who| gate.is_banned(who, now)));
        assert!(!gate.is_banned(&user("b"), now));
        assert!(!gate.is_banned(&both[0], now + BAN));
        assert_eq!(gate.hit(Limiter::Login, user("a"), now), None, "a limiter that is off says nothing");
    }
}
