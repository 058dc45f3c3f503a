//! Live progress: a line that moves on a terminal, a line a stage elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::assemble::reason_of;
use super::console::Console;
use crate::clock::SECOND;
use crate::engine::{Progress, Stage, Stop};
use crate::lang::{Lang, Texts};
use crate::record::Delta;
use crate::report::sentence;
use crate::scenario::Tier;

/// Shows how a run goes on, on standard error.
pub(super) struct Live {
    console: Console,
    bar: Option<ProgressBar>,
    quiet: bool,
    /// What the tiers are called.
    tiers: Vec<String>,
    stage: String,
    errors: u64,
    dropped: u64,
    texts: Texts,
}

impl Live {
    /// Shows progress of a run through tiers, unless it is unwanted.
    pub(super) fn new(console: Console, wanted: bool, tiers: &[Tier]) -> Self {
        let bar = (wanted && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(0);
            // The template is constant; a broken one would only look worse.
            if let Ok(style) = ProgressStyle::with_template("{prefix:<22} {bar:24} {pos:>3}/{len}s  {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        });
        // What goes on is told in English, as all that is no report.
        let (stage, texts, tiers) = (String::new(), Texts::new(Lang::En), tiers.iter().map(called).collect());
        Self { console, bar, quiet: !wanted, tiers, stage, errors: 0, dropped: 0, texts }
    }

    /// Takes what the engine tells.
    pub(super) fn take(&mut self, progress: &Progress<'_>) {
        match progress {
            Progress::Stage { tier, stage, length, .. } => {
                let seconds = (length / SECOND) as u64;
                self.stage = format!("{}, {}", self.tiers[*tier], stage.name());
                match &self.bar {
                    Some(bar) => {
                        bar.set_length(seconds);
                        bar.set_position(0);
                        bar.set_prefix(self.stage.clone());
                    }
                    None if !self.quiet && *stage != Stage::Drain => {
                        self.console.complain(&format!("{}: {seconds} s", self.stage));
                    }
                    None => {}
                }
            }
            Progress::Second { delta, .. } => self.second(delta),
            Progress::Stopping(stop) => {
                let text = match stop {
                    Stop::Finished => return,
                    Stop::Interrupted => {
                        "stopping: open turns come to their end; Ctrl-C again stops at once".to_owned()
                    }
                    Stop::Guard(what) => format!("stopping: {}", sentence(&self.texts, &reason_of(what))),
                };
                match &self.bar {
                    Some(bar) => bar.suspend(|| self.console.complain(&text)),
                    None => self.console.complain(&text),
                }
            }
        }
    }

    fn second(&mut self, delta: &Delta) {
        self.errors += delta.errors;
        self.dropped += delta.dropped;
        let Some(bar) = &self.bar else { return };
        let ttft = delta.ttft.get().map(|ttft| ttft.value_at_quantile(0.95) / 1_000);
        bar.inc(1);
        let mut message = format!(
            "{} users  {} in flight  {} tok/s  TTFT p95 {}  {} errors",
            delta.users,
            delta.in_flight,
            delta.tokens,
            ttft.map_or_else(|| "-".to_owned(), |ttft| format!("{ttft} ms")),
            self.errors
        );
        if self.dropped > 0 {
            message += &format!("  {} turns dropped", self.dropped);
        }
        bar.set_message(message);
    }

    /// Takes the line away.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A tier by its size, and by what it is for where it is no step.
fn called(tier: &Tier) -> String {
    let size = tier.rate.map_or_else(|| format!("{} users", tier.users), |rate| format!("{rate} turns/s"));
    if tier.role.is_step() { size } else { format!("{size} ({})", tier.role.name()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Role, Times};

    #[test]
    fn tiers_are_called_by_users_or_rates() {
        let tier = |rate, role| {
            called(&Tier { users: 400, rate, role, times: Times::default(), expect: None, budgets: Vec::new() })
        };
        assert_eq!(tier(None, Role::Step), "400 users");
        assert_eq!(tier(Some(2.5), Role::Step), "2.5 turns/s");
        assert_eq!(tier(None, Role::Recovery), "400 users (recovery)");
    }
}
