//! The wish in other words: users, turns a second and streams in flight, by Little's law.

use std::fmt;
use std::time::Duration;

/// What a number of users means for the target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Translation {
    /// Users.
    pub users: u32,
    /// The mean think time.
    pub think: Duration,
    /// The mean turn.
    pub turn: Duration,
    /// Turns a second, where they come at moments of their own.
    pub rate: Option<f64>,
}

impl Translation {
    /// Turns a second: each user has one every think time and turn (the interactive response
    /// time law; Denning and Buzen, "The Operational Analysis of Queueing Network Models", 1978).
    pub fn turns_per_second(&self) -> f64 {
        if let Some(rate) = self.rate {
            return rate;
        }
        let cycle = (self.think + self.turn).as_secs_f64();
        if cycle > 0.0 { f64::from(self.users) / cycle } else { f64::INFINITY }
    }

    /// Streams in flight: turns a second times the mean turn (Little's law).
    pub fn streams(&self) -> f64 {
        if let Some(rate) = self.rate {
            return (rate * self.turn.as_secs_f64()).min(f64::from(self.users));
        }
        let cycle = (self.think + self.turn).as_secs_f64();
        if cycle > 0.0 { f64::from(self.users) * self.turn.as_secs_f64() / cycle } else { f64::from(self.users) }
    }
}

impl fmt::Display for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(rate) = self.rate {
            let (users, turn, streams) = (self.users, seconds(self.turn), rounded(self.streams()));
            let rate = rounded(rate);
            return write!(f, "{rate} turns/s, turn {turn} on average: {streams} streams in flight of at most {users}");
        }
        write!(
            f,
            "{} users, think {} and turn {} on average: {} turns/s, {} streams in flight",
            self.users,
            seconds(self.think),
            seconds(self.turn),
            rounded(self.turns_per_second()),
            rounded(self.streams())
        )
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Whole from 10 on, one digit below.
fn rounded(value: f64) -> String {
    if value >= 9.95 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_hundred_users_are_thirty_streams() {
        let wish = Translation {
            users: 500,
            think: Duration::from_millis(18_750),
            turn: Duration::from_millis(1_200),
            rate: None,
        };
        assert_eq!(
            wish.to_string(),
            "500 users, think 18.8 s and turn 1.2 s on average: 25 turns/s, 30 streams in flight"
        );
        let all = Translation { users: 7, think: Duration::ZERO, turn: Duration::from_secs(2), rate: None };
        assert_eq!((all.streams(), all.turns_per_second()), (7.0, 3.5));
        let open = Translation { users: 400, rate: Some(50.0), ..wish };
        assert_eq!(open.to_string(), "50 turns/s, turn 1.2 s on average: 60 streams in flight of at most 400");
    }
}
