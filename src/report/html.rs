//! The report as one HTML file: no script, no remote asset, light and dark, fit for A4.

use maud::{DOCTYPE, Markup, PreEscaped, html as markup};

use super::chart::{self, Figure, swatch};
use super::view::{Block, Cell, Section, Table, View};
use super::words;
use crate::lang::Texts;
use crate::result::{RunResult, Verdict};

const STYLE: &str = include_str!("style.css");
/// Nothing may be loaded or run, whatever has got into the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The whole report.
pub fn html(result: &RunResult, texts: &Texts) -> String {
    let view = View::new(result, texts);
    let figures = chart::all(result, texts);
    let page = markup! {
        (DOCTYPE)
        html lang=(view.lang.tag()) {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (view.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    (first_screen(&view))
                    (chart::patterns())
                    @for section in &view.sections { (part(section, &figures)) }
                }
            }
        }
    };
    page.into_string()
}

fn first_screen(view: &View) -> Markup {
    markup! {
        header {
            p.badge-line { (badge(view.verdict, &view.verdict_word)) }
            h1 { (view.headline) }
            p.subject { (view.subject) }
            dl.answers {
                @for (question, answer) in &view.answers {
                    div { dt { (question) } dd { (answer) } }
                }
            }
            @if !view.notes.is_empty() {
                ul.notes { @for note in &view.notes { li { (note) } } }
            }
        }
    }
}

fn part(section: &Section, figures: &[Figure]) -> Markup {
    markup! {
        section aria-labelledby=(section.id) {
            h2 id=(section.id) { (section.title) }
            @for block in &section.blocks {
                @match block {
                    Block::Text(text) => p { (text) },
                    Block::List(lines) => ul { @for line in lines { li { (line) } } },
                    Block::Table(table) => (grid(table)),
                    Block::Charts(group) => div.charts {
                        @for figure in figures.iter().filter(|figure| figure.group == *group) { (drawn(figure)) }
                    },
                }
            }
        }
    }
}

fn drawn(figure: &Figure) -> Markup {
    markup! {
        figure id=(format!("chart-{}", figure.id)) {
            h3 { (figure.title) }
            @if !figure.legend.is_empty() {
                ul.legend { @for (series, name) in &figure.legend { li { (swatch(*series, figure.areas)) span { (name) } } } }
            }
            (figure.svg)
            figcaption { (figure.note) }
        }
    }
}

/// A table that scrolls by itself where the screen is narrow.
fn grid(table: &Table) -> Markup {
    markup! {
        div.scroll tabindex="0" role="region" aria-label=(table.caption) {
            table {
                caption { (table.caption) }
                thead { tr { @for (column, head) in table.head.iter().enumerate() {
                    th scope="col" class=[table.is_number(column).then_some("number")] { (lines(head)) }
                } } }
                tbody { @for row in &table.rows { tr { @for cell in row { (laid(cell)) } } } }
            }
        }
    }
}

fn laid(cell: &Cell) -> Markup {
    match cell {
        Cell::Text(text) => markup! { td { (lines(text)) } },
        Cell::Number(text) => markup! { td.number { (lines(text)) } },
        Cell::Verdict(verdict, word) => markup! { td { (badge(*verdict, word)) } },
        Cell::Bar(share, text) => markup! { td.share { (bar(*share)) (text) } },
        Cell::Foreign(text) => markup! { td.foreign { @if !text.is_empty() { code { (text) } } } },
    }
}

/// A share of something; its text stands beside it, so nobody has to see it.
fn bar(share: f64) -> Markup {
    let full = format!("{:.1}", share.clamp(0.0, 1.0) * 100.0);
    markup! {
        svg class="meter" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" xmlns="http://www.w3.org/2000/svg" {
            rect class="meter-room" width="100" height="10" {}
            rect class="meter-full" width=(full) height="10" {}
        }
    }
}

fn lines(text: &str) -> Markup {
    markup! {
        @for (index, line) in text.split('\n').enumerate() {
            @if index > 0 { br; }
            (line)
        }
    }
}

/// A verdict by mark, word and colour.
fn badge(verdict: Verdict, word: &str) -> Markup {
    markup! { span class=(format!("badge {}", verdict.name())) { (words::mark(verdict)) " " (word) } }
}
