//! What users say: the bundled conversations, those of a file of yours, or words of which only the number is known.

mod generated;
mod lines;
mod table;

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mock_llm::distribution::Written;
use rand::Rng;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

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
    said: Said,
}

#[derive(Debug, Clone, PartialEq)]
enum Said {
    /// Word for word.
    Fixed(Arc<[Vec<String>]>),
    /// Drawn when it is said: so many words.
    Generated(Written),
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
        let conversations = lines::read(name, &text).settled().expect("the bundled prompts are written correctly");
        Some(Self { source: name.to_owned(), said: Said::Fixed(conversations) })
    }

    /// Whether a name is that of a file: it ends in `.jsonl` or `.csv`.
    pub fn is_file(name: &str) -> bool {
        Path::new(name).extension().is_some_and(|extension| extension == "jsonl" || extension == "csv")
    }

    /// Reads a file: CSV where it ends in `.csv`, otherwise JSONL.
    ///
    /// # Errors
    /// What is wrong with it, by line.
    pub fn read(path: &Path) -> Result<Self, PromptsError> {
        let unreadable = |source| PromptsError::Unreadable { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > LARGEST {
            return Err(PromptsError::TooLarge { path: path.to_owned() });
        }
        let source = path.display().to_string();
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = 1 + newlines(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
            PromptsError::Lines(vec![format!("{source}:{line}: is no UTF-8; save the file as UTF-8")])
        })?;
        // Spreadsheets begin a file with a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let is_table = path.extension().is_some_and(|extension| extension == "csv");
        let found = if is_table { table::read(&source, text) } else { lines::read(&source, text) };
        Ok(Self { said: Said::Fixed(found.settled()?), source })
    }

    /// Prompts of which only the lengths are known: a distribution of the number of words, such as
    /// `lognormal 40 400` (median, 95th percentile). Each has 1 to 100,000 words of one language,
    /// from the bundled conversations.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn generated(lengths: &str) -> Result<Self, String> {
        Ok(Self { source: "generated".to_owned(), said: Said::Generated(generated::lengths(lengths)?) })
    }

    /// How many conversations there are to choose from, at least one. Generated ones differ in their language alone.
    pub fn choices(&self) -> usize {
        match &self.said {
            Said::Fixed(conversations) => conversations.len(),
            Said::Generated(_) => generated::LANGUAGES,
        }
    }

    /// How many turns one of the [`choices`](Self::choices) has, at least one; generated conversations have no end.
    pub fn turns(&self, choice: usize) -> usize {
        match &self.said {
            Said::Fixed(conversations) => conversations[choice].len(),
            Said::Generated(_) => usize::MAX,
        }
    }

    /// What is said in a turn, from 0, of one of the choices. Nothing is drawn where it is fixed; equal generators
    /// give equal texts.
    pub fn text(&self, choice: usize, turn: usize, rng: &mut impl Rng) -> Cow<'_, str> {
        match &self.said {
            Said::Fixed(conversations) => Cow::Borrowed(&conversations[choice][turn]),
            Said::Generated(lengths) => Cow::Owned(generated::text(&lengths.distribution, choice, rng)),
        }
    }

    /// The mean number of turns of a conversation that ends after at most `most`.
    pub fn mean_turns(&self, most: u32) -> f64 {
        match &self.said {
            Said::Fixed(conversations) => {
                let turns: usize = conversations.iter().map(|turns| turns.len().min(most as usize)).sum();
                turns as f64 / conversations.len() as f64
            }
            Said::Generated(_) => f64::from(most),
        }
    }
}

impl Serialize for Prompts {
    /// Where they come from and how many, or how many words they have: their text is nobody's business in a result.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Prompts", 2)?;
        fields.serialize_field("source", &self.source)?;
        match &self.said {
            Said::Fixed(conversations) => fields.serialize_field("conversations", &conversations.len())?,
            Said::Generated(lengths) => fields.serialize_field("words", lengths)?,
        }
        fields.end()
    }
}

/// What was found in a text: conversations, and its first problems.
struct Found<'n> {
    name: &'n str,
    conversations: Vec<Vec<String>>,
    told: Vec<String>,
    more: usize,
}

impl<'n> Found<'n> {
    fn new(name: &'n str) -> Self {
        Self { name, conversations: Vec::new(), told: Vec::new(), more: 0 }
    }

    /// Notes a problem of a line, from 1.
    fn problem(&mut self, line: usize, what: &str) {
        if self.told.len() < TOLD {
            self.told.push(format!("{}:{line}: {what}", self.name));
        } else {
            self.more += 1;
        }
    }

    /// The conversations, if there is no problem.
    fn settled(mut self) -> Result<Arc<[Vec<String>]>, PromptsError> {
        if self.conversations.is_empty() && self.told.is_empty() {
            self.told.push(format!("{}: has no conversation", self.name));
        }
        if self.more > 0 {
            self.told.push(format!("{} more problems", self.more));
        }
        if self.told.is_empty() { Ok(self.conversations.into()) } else { Err(PromptsError::Lines(self.told)) }
    }
}

/// Why nobody can say this.
fn refusal(text: &str) -> Option<&'static str> {
    if text.trim().is_empty() {
        return Some("has an empty turn");
    }
    // A marker of ours would make the mock answer another turn.
    text.contains("[[cc:").then_some("contains `[[cc:`, which marks turns of this tool")
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_sets_are_there() {
        let all: Vec<usize> = Prompts::BUNDLED.iter().map(|name| Prompts::bundled(name).unwrap().choices()).collect();
        assert_eq!(all[0], all[1] + all[2]);
        assert!(all[1] >= 30 && all[2] >= 30, "{all:?}");
        assert_eq!(Prompts::bundled("fr"), None);
        let mixed = Prompts::bundled("mixed").unwrap();
        assert_eq!(mixed.mean_turns(1), 1.0);
        assert!(mixed.mean_turns(4) > 3.9 && mixed.mean_turns(99) > 5.0);
        assert_eq!(serde_json::to_value(&mixed).unwrap()["conversations"], all[0]);
    }

    /// What is said of a file that ends so.
    fn said_of(suffix: &str, bytes: &[u8]) -> String {
        let file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        Prompts::read(file.path()).map_or_else(|error| error.to_string(), |prompts| format!("{:?}", prompts.said))
    }

    #[test]
    fn a_file_is_read_as_what_its_name_says() {
        assert_eq!(said_of(".jsonl", b"{\"turns\":[\"a\",\"b\"]}\n"), r#"Fixed([["a", "b"]])"#);
        assert_eq!(said_of(".csv", "\u{feff}text\na\nb\n".as_bytes()), r#"Fixed([["a"], ["b"]])"#);
        for (name, is_file) in [("own.csv", true), ("a.b/own.jsonl", true), ("own.txt", false), ("csv", false)] {
            assert_eq!(Prompts::is_file(name), is_file, "{name}");
        }
        assert!(Prompts::read(Path::new("/nowhere")).unwrap_err().to_string().contains("cannot read /nowhere"));
    }

    #[test]
    fn problems_of_a_file_are_few_and_have_their_lines() {
        // Korean as spreadsheets save it without being asked for UTF-8: CP949.
        assert!(said_of(".csv", b"text\nfine\n\xb0\xa1\xb3\xaa\n").contains(".csv:3: is no UTF-8"));
        let many = said_of(".jsonl", "x\n".repeat(30).as_bytes());
        assert!(many.contains(".jsonl:10: ") && !many.contains(".jsonl:11: "), "{many}");
        assert!(many.ends_with("; 20 more problems"), "{many}");
    }

    #[test]
    fn a_file_without_end_is_too_large() {
        let error = Prompts::read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("/dev/zero is larger than 64 MiB"), "{error}");
    }
}
