//! Conversations as CSV (RFC 4180): a turn a row. Rows of one `conversation` are its turns in order, wherever they
//! stand; without that column each row is a conversation of its own.

use std::collections::HashMap;

use csv::{Position, ReaderBuilder, StringRecord};

use super::{Found, newlines, refusal};

const HEADER: &str = "the first line should name the columns: `text`, or `conversation` and `text`";

/// Where the columns are.
#[derive(Debug)]
struct Columns {
    conversation: Option<usize>,
    text: usize,
}

impl Columns {
    /// `None` where one is missing, there twice, or not known.
    fn of(header: &StringRecord) -> Option<Self> {
        let place = |name: &str| header.iter().position(|column| column.trim().eq_ignore_ascii_case(name));
        let columns = Self { conversation: place("conversation"), text: place("text")? };
        (header.len() == columns.count()).then_some(columns)
    }

    fn count(&self) -> usize {
        1 + usize::from(self.conversation.is_some())
    }

    /// What is wrong with a row; `raw` is how it is written.
    fn problem(&self, row: &StringRecord, raw: &str) -> Option<String> {
        // Section 2, rules 5 to 7: within quotation marks they are doubled, and elsewhere there are none. One that
        // is not closed takes all that follows for its text.
        if raw.matches('"').count() % 2 == 1 {
            return Some("has a quotation mark that is not closed, or not doubled".to_owned());
        }
        if row.len() != self.count() {
            let (fields, columns) = (row.len(), self.count());
            let hint = "a text with a comma wants quotation marks";
            return Some(format!("has {fields} field(s) for {columns} column(s); {hint}"));
        }
        if self.conversation.is_some_and(|place| row[place].trim().is_empty()) {
            return Some("`conversation` is empty".to_owned());
        }
        refusal(&row[self.text]).map(str::to_owned)
    }
}

/// Reads a text; `name` stands before its problems.
pub(super) fn read<'n>(name: &'n str, text: &str) -> Found<'n> {
    let mut found = Found::new(name);
    let mut reader = ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    let Some(columns) = reader.headers().ok().and_then(Columns::of) else {
        found.problem(1, HEADER);
        return found;
    };
    let mut written = Written { text, seen: 0, line: 1 };
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut row = StringRecord::new();
    loop {
        let read = reader.read_record(&mut row);
        let (line, raw) = written.row(row.position().map_or(0, Position::byte), reader.position().byte());
        match read {
            Ok(true) => {}
            Ok(false) => return found,
            Err(error) => {
                found.problem(line, &error.to_string());
                return found;
            }
        }
        if let Some(what) = columns.problem(&row, raw) {
            found.problem(line, &what);
            continue;
        }
        let turn = row[columns.text].to_owned();
        let next = found.conversations.len();
        let known = |place: usize| *places.entry(row[place].trim().to_owned()).or_insert(next);
        let place = columns.conversation.map_or(next, known);
        if place == next {
            found.conversations.push(Vec::new());
        }
        found.conversations[place].push(turn);
    }
}

/// A text as it is written. The reader's own count of lines takes neither a line feed after a carriage return nor a
/// blank line before a row into account.
struct Written<'t> {
    text: &'t str,
    seen: usize,
    line: usize,
}

impl<'t> Written<'t> {
    /// The row between two bytes, and the line, from 1, that it begins in. Rows are asked for in order.
    fn row(&mut self, from: u64, to: u64) -> (usize, &'t str) {
        let (from, to) = (from as usize, (to as usize).min(self.text.len()));
        let raw = self.text.get(from..to).unwrap_or_default().trim_start_matches(['\r', '\n']);
        let begin = (to - raw.len()).max(self.seen);
        self.line += newlines(&self.text.as_bytes()[self.seen..begin]);
        self.seen = begin;
        (self.line, raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversations(text: &str) -> Vec<Vec<String>> {
        read("own.csv", text).settled().unwrap().to_vec()
    }

    fn problems(text: &str) -> String {
        read("own.csv", text).settled().unwrap_err().to_string()
    }

    #[test]
    fn rows_of_a_conversation_are_its_turns_wherever_they_stand() {
        let text = "conversation,Text\nb,one\na,\"first, with \"\"commas\"\"\nand lines\"\nb,two\n a ,second\n";
        assert_eq!(
            conversations(text),
            [["one", "two"], ["first, with \"commas\"\nand lines", "second"]],
            "in the order in which they begin"
        );
        assert_eq!(conversations("text\r\none\r\ntwo"), [["one"], ["two"]]);
        assert_eq!(conversations("text,conversation\nhi,1\nthere,1\n"), [["hi", "there"]]);
    }

    #[test]
    fn every_problem_has_its_line() {
        for newline in ["\n", "\r\n"] {
            let lines = [
                "conversation,text",
                "1,\"two",
                "lines\"",
                "",
                "1,a, b",
                "1",
                ",no name",
                "1,  ",
                "1,say [[cc:r:1:1]]",
                "1,fine",
                "1,\"open",
                "1,swallowed",
            ];
            let expected = [
                "own.csv:5: has 3 field(s) for 2 column(s); a text with a comma wants quotation marks",
                "own.csv:6: has 1 field(s) for 2 column(s); a text with a comma wants quotation marks",
                "own.csv:7: `conversation` is empty",
                "own.csv:8: has an empty turn",
                "own.csv:9: contains `[[cc:`, which marks turns of this tool",
                "own.csv:11: has a quotation mark that is not closed, or not doubled",
            ];
            assert_eq!(problems(&lines.join(newline)), expected.join("; "), "{newline:?}");
        }
    }

    #[test]
    fn a_header_is_needed_and_names_what_is_known() {
        for text in ["", "hello\nthere\n", "text,text\na,b\n", "text,model\na,b\n", "conversation\n1\n"] {
            assert_eq!(problems(text), format!("own.csv:1: {HEADER}"), "{text}");
        }
        assert_eq!(problems("text\n"), "own.csv: has no conversation");
    }
}
