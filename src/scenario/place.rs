//! Where something stands in a TOML text.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A line and a column, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl Place {
    /// The place of a byte of a text.
    pub fn of(text: &str, byte: usize) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The places of all keys of a document, by path such as `load.users` or `tiers[1].expect`.
#[derive(Debug, Clone, Default)]
pub struct Places(BTreeMap<String, Place>);

impl Places {
    /// The places of a parsed document.
    pub(super) fn new(text: &str, table: &DeTable<'_>) -> Self {
        let mut places = Self::default();
        places.table(text, "", table);
        places
    }

    /// The place of a path, or of the nearest table around it that was written.
    pub fn find(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return Some(*place);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    fn table(&mut self, text: &str, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let below = join(path, key.get_ref());
            self.note(text, &below, &key.span());
            self.value(text, &below, value);
        }
    }

    fn value(&mut self, text: &str, path: &str, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(text, path, table),
            DeValue::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    let below = format!("{path}[{index}]");
                    self.note(text, &below, &value.span());
                    self.value(text, &below, value);
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, text: &str, path: &str, span: &Range<usize>) {
        self.0.entry(path.to_owned()).or_insert_with(|| Place::of(text, span.start));
    }
}

/// A path one step down.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
