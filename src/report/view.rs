//! What a report says, in one language, before it takes a form.

use super::{answer, section};
use crate::lang::{Lang, Texts};
use crate::result::{Probe, RunResult, Verdict};

/// A whole report.
pub(super) struct View {
    pub(super) lang: Lang,
    pub(super) title: String,
    pub(super) verdict: Verdict,
    pub(super) verdict_word: String,
    /// The verdict in one sentence.
    pub(super) headline: String,
    /// What was tested, when and by what.
    pub(super) subject: String,
    /// Questions with their answers.
    pub(super) answers: Vec<(String, String)>,
    /// What a reader must know before the numbers.
    pub(super) notes: Vec<String>,
    pub(super) sections: Vec<Section>,
}

/// A part of a report.
pub(super) struct Section {
    pub(super) id: &'static str,
    pub(super) title: String,
    pub(super) blocks: Vec<Block>,
}

/// A piece of a section.
pub(super) enum Block {
    Text(String),
    List(Vec<String>),
    Table(Table),
    /// The place of charts, where a form has them.
    Charts(Group),
}

/// Which charts stand together.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// Where the time went.
    Time,
    /// What a kind of probe saw; control groups stand with processes.
    Watch(Probe),
    /// Everything else.
    Run,
}

/// A table.
pub(super) struct Table {
    pub(super) caption: String,
    /// A head may have a second line.
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<Cell>>,
}

/// A cell of a table.
#[derive(Clone)]
pub(super) enum Cell {
    Text(String),
    /// Stands to the right.
    Number(String),
    Verdict(Verdict, String),
    /// A share of something, drawn as a bar, and in words.
    Bar(f64, String),
    /// What the target said, and nothing that we would say.
    Foreign(String),
}

/// A share as a bar of ten characters; more than all of it is drawn as all.
pub(super) fn bar(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * 10.0).round() as usize;
    format!("{}{}", "█".repeat(full), "░".repeat(10 - full))
}

impl Table {
    /// Whether the cells of a column stand to the right.
    pub(super) fn is_number(&self, column: usize) -> bool {
        self.rows.first().and_then(|row| row.get(column)).is_some_and(|cell| matches!(cell, Cell::Number(_)))
    }
}

impl View {
    pub(super) fn new(result: &RunResult, texts: &Texts) -> Self {
        let headline = answer::headline(result, texts);
        Self {
            lang: texts.lang(),
            title: format!("capacity-check: {headline}"),
            verdict: result.verdict,
            verdict_word: super::words::verdict(texts, result.verdict),
            headline,
            subject: section::subject(result, texts),
            answers: answer::answers(result, texts),
            notes: answer::notes(result, texts),
            sections: section::all(result, texts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_ten_characters_whatever_the_share() {
        assert_eq!([-1.0, 0.0, 0.71, 3.0].map(bar), ["░░░░░░░░░░", "░░░░░░░░░░", "███████░░░", "██████████"]);
    }
}
