//! Reads a configuration tree and collects every problem with its key, instead of stopping at the first.

use serde_json::{Map, Value};

/// One problem of a configuration: where, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key, such as `models.fast.ttft`.
    pub key: String,
    /// What is wrong with it, and what would be right.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// A table whose keys are taken out one by one; what is left at the end is unknown.
pub(crate) struct Section<'a> {
    path: String,
    values: Map<String, Value>,
    known: Vec<&'static str>,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Section<'a> {
    /// Opens a table at `path` (empty for the root); anything else is a problem and reads as empty.
    pub(crate) fn open(path: &str, value: Value, problems: &'a mut Vec<Problem>) -> Self {
        let values = match value {
            Value::Object(values) => values,
            other => {
                let key = if path.is_empty() { "(root)" } else { path }.to_owned();
                problems.push(Problem { key, message: format!("is {}, but should be a table", kind(&other)) });
                Map::new()
            }
        };
        Self { path: path.to_owned(), values, known: Vec::new(), problems }
    }

    /// The full key of an entry.
    pub(crate) fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Takes an entry out, unread.
    pub(crate) fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.values.remove(name)
    }

    /// Takes an entry and reads it; a sentence from `read` becomes a problem at this key.
    pub(crate) fn read<T>(&mut self, name: &'static str, read: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let value = self.take(name)?;
        match read(&value) {
            Ok(read) => Some(read),
            Err(message) => {
                self.problem(name, message);
                None
            }
        }
    }

    /// Takes a whole number within `range`.
    pub(crate) fn whole(&mut self, name: &'static str, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        self.read(name, |value| match value.as_u64() {
            Some(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("is {value}, but should be a whole number from {} to {}", range.start(), range.end())),
        })
    }

    /// Notes a problem at an entry of this table.
    pub(crate) fn problem(&mut self, name: &str, message: String) {
        let key = self.key(name);
        self.problems.push(Problem { key, message });
    }

    /// All further problems of nested tables go to the same list.
    pub(crate) fn problems(&mut self) -> &mut Vec<Problem> {
        self.problems
    }

    /// Closes the table: every entry not taken is unknown.
    pub(crate) fn close(mut self) {
        let names: Vec<String> = std::mem::take(&mut self.values).into_iter().map(|(name, _)| name).collect();
        for name in names {
            let message = unknown("key", &name, self.known.iter().copied());
            self.problem(&name, message);
        }
    }
}

/// "unknown WHAT `name`; did you mean `nearest`?", or the list of what there is.
pub fn unknown<'n>(what: &str, name: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    let nearest = known
        .clone()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(name.len()) / 4);
    match nearest {
        Some((_, candidate)) => format!("unknown {what} `{name}`; did you mean `{candidate}`?"),
        None => format!("unknown {what} `{name}`; known: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// What a value is, for a message.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}
