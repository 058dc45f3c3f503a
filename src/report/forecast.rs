//! What a run will do, before it does.

use std::time::Duration;

use super::load::{Load, head};
use super::terminal::grid;
use super::view::{Cell, Table};
use super::words;
use crate::grade::Role;
use crate::lang::Texts;
use crate::plan::{Assumed, Documents, Forecast, TierForecast};

/// A forecast as a terminal shows it; `known` where the model is our own, and the assumption is none.
pub fn forecast(forecast: &Forecast, assumed: Assumed, known: bool, texts: &Texts) -> String {
    let row = |tier: &TierForecast| {
        vec![
            Load::new(tier.wish.users, tier.wish.rate, Role::Step).cell(texts),
            Cell::Number(words::decimal(tier.wish.turns_per_second())),
            Cell::Number(words::decimal(tier.wish.streams())),
            Cell::Number(words::number(tier.streams_peak)),
            Cell::Number(clock(tier.steady)),
        ]
    };
    let first = head(forecast.tiers.iter().any(|tier| tier.wish.rate.is_some()));
    let keys = [first, "head-turn-rate", "head-streams", "head-streams-peak", "head-steady"];
    let table = Table {
        caption: String::new(),
        head: keys.iter().map(|key| texts.get(key)).collect(),
        rows: forecast.tiers.iter().map(row).collect(),
    };
    let about = |value: f64| words::number(value.round() as u64);
    let (expected, most) = forecast.duration;
    let (expected, most, sign_in) = (clock(expected), clock(most), clock(forecast.sign_in));
    let (turn, tokens) =
        (words::duration(assumed.turn.as_micros() as f64), words::number(assumed.tokens.round() as u64));
    let mut lines = vec![
        grid(&table, false),
        String::new(),
        texts.with("plan-duration", &[("expected", &expected), ("most", &most), ("login", &sign_in)]),
        texts.with(
            "plan-turns",
            &[
                ("turns", &about(forecast.turns)),
                ("tokens", &about(forecast.tokens)),
                ("conversations", &about(forecast.conversations)),
            ],
        ),
    ];
    lines.push(match forecast.accounts {
        0 => texts.get("plan-no-accounts"),
        accounts => texts.with("plan-accounts", &[("accounts", &words::number(u64::from(accounts)))]),
    });
    lines.push(forecast.documents.map_or_else(|| texts.get("plan-no-documents"), |written| documents(&written, texts)));
    let key = if known { "plan-known" } else { "plan-assumed" };
    lines.push(texts.with(key, &[("turn", &turn), ("tokens", &tokens)]));
    lines.join("\n")
}

fn documents(written: &Documents, texts: &Texts) -> String {
    let about = |value: f64| words::number(value.round() as u64);
    texts.with(
        "plan-documents",
        &[
            ("messages", &about(written.messages)),
            ("conversations", &about(written.conversations)),
            ("transactions", &about(written.transactions)),
            ("sessions", &words::number(u64::from(written.sessions))),
            ("accounts", &words::number(u64::from(written.accounts))),
        ],
    )
}

fn clock(duration: Duration) -> String {
    words::clock(duration.as_secs_f64())
}
