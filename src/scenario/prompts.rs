//! What users say: conversations, one a line of a JSONL file, as `{"turns": ["..", ".."]}`.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

/// The largest file that is read.
const LARGEST: u64 = 64 * 1024 * 1024;
/// The first problems that are told of a file.
const TOLD: usize = 10;

const ENGLISH: &str = include_str!("../../fixtures/prompts/en.jsonl");
const KOREAN: &str = include_str!("../../fixtures/prompts/ko.jsonl");

/// The conversations that users have.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompts {
    source: String,
    conversations: Arc<[Vec<String>]>,
}

/// A line of a file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    turns: Vec<String>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PromptsError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is larger than what is sensible to keep in memory.
    #[error("{path} is larger than 64 MiB; users draw from it at random, so a part of it does as well")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Its text has problems; the first of them.
    #[error("{}", .0.join("; "))]
    Lines(Vec<String>),
}

impl Prompts {
    /// The names of the bundled sets.
    pub const BUNDLED: [&'static str; 3] = ["mixed", "en", "ko"];

    /// A bundled set: `en`, `ko`, or `mixed`, which is both.
    pub fn bundled(name: &str) -> Option<Self> {
        let text = match name {
            "mixed" => [ENGLISH, KOREAN].concat(),
            "en" => ENGLISH.to_owned(),
            "ko" => KOREAN.to_owned(),
            _ => return None,
        };
        let conversations = conversations(name, &text).expect("the bundled prompts are written correctly");
        Some(Self { source: name.to_owned(), conversations })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, by line.
    pub fn read(path: &Path) -> Result<Self, PromptsError> {
        let unreadable = |source| PromptsError::Unreadable { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(unreadable)?.len() > LARGEST {
            return Err(PromptsError::TooLarge { path: path.to_owned() });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let source = path.display().to_string();
        Ok(Self { conversations: conversations(&source, &text)?, source })
    }

    /// The conversations: at least one, each with at least one message.
    pub fn conversations(&self) -> &[Vec<String>] {
        &self.conversations
    }

    /// The mean number of turns of a conversation that ends after at most `most`.
    pub fn mean_turns(&self, most: u32) -> f64 {
        let turns: usize = self.conversations.iter().map(|turns| turns.len().min(most as usize)).sum();
        turns as f64 / self.conversations.len() as f64
    }
}

impl Serialize for Prompts {
    /// Where they come from and how many: their text is nobody's business in a result.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Prompts", 2)?;
        fields.serialize_field("source", &self.source)?;
        fields.serialize_field("conversations", &self.conversations.len())?;
        fields.end()
    }
}

fn conversations(name: &str, text: &str) -> Result<Arc<[Vec<String>]>, PromptsError> {
    let (mut all, mut problems) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{name}:{}", index + 1);
        match serde_json::from_str::<Line>(line) {
            Ok(Line { turns }) if turns.is_empty() => problems.push(format!("{place}: has no turns")),
            Ok(Line { turns }) if turns.iter().any(|turn| turn.trim().is_empty()) => {
                problems.push(format!("{place}: has an empty turn"));
            }
            // A marker of ours would make the mock answer another turn.
            Ok(Line { turns }) if turns.iter().any(|turn| turn.contains("[[cc:")) => {
                problems.push(format!("{place}: contains `[[cc:`, which marks turns of this tool"));
            }
            Ok(Line { turns }) => all.push(turns),
            Err(error) => problems.push(format!("{place}: {error}; a line is like {{\"turns\": [\"..\", \"..\"]}}")),
        }
    }
    if all.is_empty() && problems.is_empty() {
        problems.push(format!("{name}: has no conversation"));
    }
    let more = problems.len().saturating_sub(TOLD);
    problems.truncate(TOLD);
    if more > 0 {
        problems.push(format!("{more} more problems"));
    }
    if problems.is_empty() { Ok(all.into()) } else { Err(PromptsError::Lines(problems)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_sets_are_there() {
        let all: Vec<usize> =
            Prompts::BUNDLED.iter().map(|name| Prompts::bundled(name).unwrap().conversations().len()).collect();
        assert_eq!(all[0], all[1] + all[2]);
        assert!(all[1] >= 30 && all[2] >= 30, "{all:?}");
        assert_eq!(Prompts::bundled("fr"), None);
        let mixed = Prompts::bundled("mixed").unwrap();
        assert_eq!(mixed.mean_turns(1), 1.0);
        assert!(mixed.mean_turns(4) > 3.9 && mixed.mean_turns(99) > 5.0);
        assert_eq!(serde_json::to_value(&mixed).unwrap()["conversations"], all[0]);
    }

    #[test]
    fn every_problem_of_a_file_has_its_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"turns\":[\"a\"]}\n\n{\"turns\":[]}\nx\n{\"turns\":[\"[[cc:r:1:1]]\"]}\n")
            .unwrap();
        let error = Prompts::read(file.path()).unwrap_err().to_string();
        for part in [":3: has no turns", ":4: expected value", ":5: contains `[[cc:`"] {
            assert!(error.contains(part), "{error}");
        }
        std::fs::write(file.path(), "").unwrap();
        assert!(Prompts::read(file.path()).unwrap_err().to_string().contains("has no conversation"));
        assert!(Prompts::read(Path::new("/nowhere")).unwrap_err().to_string().contains("cannot read /nowhere"));
    }
}
