//! The report as Markdown, for a pull request.

use comfy_table::{Cell as Laid, CellAlignment, Table as Grid, presets};

use super::view::{Block, Cell, Table, View, bar};
use super::words;
use crate::lang::Texts;
use crate::result::RunResult;

/// The whole report in GitHub-flavoured Markdown.
pub fn markdown(result: &RunResult, texts: &Texts) -> String {
    let view = View::new(result, texts);
    let badge = format!("{} {}", words::mark(view.verdict), view.verdict_word);
    let mut parts =
        vec![format!("# {}", escaped(&view.headline)), format!("**{}** · {}", escaped(&badge), escaped(&view.subject))];
    for (question, answer) in &view.answers {
        parts.push(format!("**{}**  \n{}", escaped(question), escaped(answer)));
    }
    if !view.notes.is_empty() {
        parts.push(list(&view.notes, "> - "));
    }
    for section in &view.sections {
        let blocks: Vec<String> = section.blocks.iter().filter_map(block).collect();
        if !blocks.is_empty() {
            parts.push(format!("## {}", escaped(&section.title)));
            parts.extend(blocks);
        }
    }
    parts.join("\n\n") + "\n"
}

fn block(block: &Block) -> Option<String> {
    match block {
        Block::Text(text) => Some(escaped(text)),
        Block::List(lines) => Some(list(lines, "- ")),
        Block::Table(table) => Some(format!("{}:\n\n{}", escaped(&table.caption), grid(table))),
        Block::Charts(_) => None,
    }
}

fn list(lines: &[String], bullet: &str) -> String {
    lines.iter().map(|line| format!("{bullet}{}", escaped(line))).collect::<Vec<_>>().join("\n")
}

fn grid(table: &Table) -> String {
    let mut grid = Grid::new();
    grid.load_style(presets::ASCII_MARKDOWN);
    grid.set_header(table.head.iter().map(|head| lines(head)));
    for row in &table.rows {
        grid.add_row(row.iter().map(laid));
    }
    for (column, cells) in grid.column_iter_mut().enumerate() {
        if table.is_number(column) {
            cells.set_cell_alignment(CellAlignment::Right);
        }
    }
    grid.to_string()
}

fn laid(cell: &Cell) -> Laid {
    match cell {
        Cell::Text(text) | Cell::Number(text) => Laid::new(lines(text)),
        Cell::Verdict(verdict, word) => Laid::new(format!("{} {}", words::mark(*verdict), escaped(word))),
        Cell::Bar(share, text) => Laid::new(format!("{} {}", bar(*share), escaped(text))),
        Cell::Foreign(text) => Laid::new(code(text)),
    }
}

/// A text of several lines in a cell.
fn lines(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("<br>")
}

/// A foreign text as a code span: nothing in it is markup, and no name is called by it.
fn code(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    // In a table the bar ends the cell even within code.
    format!("{fence}{pad}{}{pad}{fence}", text.replace('\n', " ").replace('|', "\\|"))
}

/// A text in which nothing is markup.
fn escaped(text: &str) -> String {
    // No address that a target made up becomes a link.
    let text = text.replace("://", ":\u{1}//").replace("www.", "www\u{1}.");
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\u{1}' => out.push('\\'),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            // Would call somebody by name.
            '@' => out.push_str("&#64;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' | '!' => out.extend(['\\', c]),
            '\n' => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_spans_hold_whatever_is_in_them() {
        assert_eq!(code("a|b"), "`a\\|b`");
        assert_eq!(code("x`y``z"), "```x`y``z```");
        assert_eq!(code("`"), "`` ` ``");
        assert_eq!(escaped("http://a.example, www.b.example"), "http:\\//a.example, www\\.b.example");
        assert_eq!(escaped("<b>*a*</b> @you"), "&lt;b&gt;\\*a\\*&lt;/b&gt; &#64;you");
    }
}
