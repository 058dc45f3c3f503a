//! What a run is to show, which its shape says: that a load is carried, or that a crowd is survived.

use super::load::{Form, Load, is_open, length};
use crate::lang::Texts;
use crate::result::{RunResult, Verdict};

/// What a run is to show, with its load as a noun phrase.
pub(super) enum Claim {
    /// That the deployment can be opened to so many users.
    Opened(String),
    /// That it carries a load of another kind.
    Carried(String),
    /// That it comes back so soon after a crowd.
    Back { crowd: String, within: String },
}

impl Claim {
    pub(super) fn of(result: &RunResult, texts: &Texts) -> Self {
        let shape = &result.scenario["load"]["shape"];
        let time = |name: &str| length(texts, shape[name].as_f64().unwrap_or(0.0));
        let load = Load::asked(result).size(texts, Form::Concurrent);
        match shape["kind"].as_str() {
            Some("spike") => Self::Back { crowd: load, within: time("recover_within_s") },
            Some("linear") => Self::Carried(texts.with("load-rise", &[("load", &load)])),
            Some("soak") => Self::Carried(texts.with("load-held", &[("load", &load), ("length", &time("hold_s"))])),
            _ if is_open(result) => Self::Carried(load),
            _ => Self::Opened(load),
        }
    }

    /// Whether it was shown, in one sentence about `who`.
    pub(super) fn verdict(&self, verdict: Verdict, who: &str, texts: &Texts) -> String {
        match self {
            Self::Opened(load) | Self::Carried(load) => {
                let key = match verdict {
                    Verdict::Pass => "headline-pass",
                    Verdict::Warn => "headline-warn",
                    Verdict::Inconclusive => "headline-inconclusive",
                    Verdict::Fail => "headline-fail",
                };
                texts.with(key, &[("load", load), ("who", who)])
            }
            Self::Back { crowd, within } => {
                let key = match verdict {
                    Verdict::Pass => "headline-back-pass",
                    Verdict::Warn => "headline-back-warn",
                    Verdict::Inconclusive => "headline-back-inconclusive",
                    Verdict::Fail => "headline-back-fail",
                };
                texts.with(key, &[("load", crowd), ("within", within), ("who", who)])
            }
        }
    }

    /// The same as a question.
    pub(super) fn question(&self, texts: &Texts) -> String {
        match self {
            Self::Opened(load) => texts.with("question-open", &[("load", load)]),
            Self::Carried(load) => texts.with("question-carried", &[("load", load)]),
            Self::Back { crowd, within } => texts.with("question-back", &[("load", crowd), ("within", within)]),
        }
    }
}
