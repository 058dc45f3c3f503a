//! What the mock answers: the marker that names a turn, and the reply that follows from a prompt. Whoever
//! sends a traced prompt uses the same code, and so knows the reply in advance.

use std::collections::{HashSet, VecDeque};
use std::sync::LazyLock;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The words that replies are made of: English and Korean words of the BIP-39 lists.
static VOCABULARY: LazyLock<Vec<&'static str>> = LazyLock::new(|| include_str!("vocabulary.txt").lines().collect());

/// No word comes twice within this many tokens, so that a doubled or swapped token shows.
pub const DISTINCT_WINDOW: usize = 64;

/// The newest marker `[[cc:RUN:USER:TURN]]` in a text, without its brackets (`cc:RUN:USER:TURN`).
pub fn newest_marker(text: &str) -> Option<&str> {
    let start = text.rfind("[[cc:")? + 2;
    let length = text[start..].find("]]")?;
    let marker = &text[start..start + length];
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '-' | '_');
    (length <= 96 && marker.chars().all(plain)).then_some(marker)
}

/// A stable 64-bit hash (FNV-1a), the same on every machine and in every version.
pub fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        // A separator that no UTF-8 text contains keeps ("a", "b") apart from ("ab").
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

/// The generator from which everything about one reply is drawn.
pub fn generator(seed: u64, model: &str, prompt: &str) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(stable_hash(&[&seed.to_le_bytes(), model.as_bytes(), prompt.as_bytes()]))
}

/// Every so many tokens the word is the turn's tag.
pub const TAG_EVERY: u64 = 8;

/// The reply to a prompt, word by word: a token is a space and a word.
///
/// A traced reply follows from its marker alone, so that whoever sent the prompt knows it in advance: every
/// eighth word is the turn's [`Tag`], and the last one says that, and where, the reply ends.
#[derive(Debug)]
pub struct Script {
    words: Words,
    tag: Option<Tag>,
    position: u64,
    /// How many words there are, where that is known.
    length: u64,
}

impl Script {
    /// The reply to the turn with this marker (`cc:RUN:USER:TURN`), without its end.
    pub fn traced(marker: &str) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(stable_hash(&[b"script", marker.as_bytes()]));
        Self { words: Words::new(rng), tag: Some(Tag::new(marker)), position: 0, length: u64::MAX }
    }

    /// The reply to a prompt without a marker: it has no tags.
    pub fn untraced(rng: ChaCha8Rng) -> Self {
        Self { words: Words::new(rng), tag: None, position: 0, length: u64::MAX }
    }

    /// The same, of so many words.
    pub fn of_length(self, words: u64) -> Self {
        Self { length: words, ..self }
    }

    /// Appends the next word, without the space before it.
    pub fn write_word(&mut self, out: &mut String) {
        let position = self.position;
        self.position += 1;
        match &self.tag {
            Some(tag) if position + 1 == self.length => out.push_str(&tag.end(position)),
            Some(tag) if position % TAG_EVERY == TAG_EVERY - 1 => out.push_str(&tag.at(position)),
            _ => out.push_str(self.words.next().unwrap_or_default()),
        }
    }
}

/// The short word by which a token's turn is known: five characters of the turn, of which the first is a digit, a
/// counter and a check character. One that ends a reply has a `z` before it, so that neither begins like the other.
/// Words of the vocabulary have no digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag([u8; 5]);

/// What a word is that looks like a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagKind {
    /// One in the middle of a reply.
    Inside,
    /// The last word of a reply, at this position modulo [`END_MODULUS`].
    End(u64),
}

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// Coprime to 36: a single character that is changed always shows.
const WEIGHTS: [u64; 7] = [1, 5, 7, 11, 13, 17, 19];
/// The position of the last word is told modulo this.
pub const END_MODULUS: u64 = 36 * 36;

impl Tag {
    /// The tag of a turn.
    pub fn new(marker: &str) -> Self {
        let mut hash = stable_hash(&[b"tag", marker.as_bytes()]);
        let mut draw = |base: u64| {
            let digit = DIGITS[(hash % base) as usize];
            hash /= base;
            digit
        };
        Self([draw(10), draw(36), draw(36), draw(36), draw(36)])
    }

    fn with(&self, counter: &[u64]) -> String {
        let digits = self.0.iter().copied().chain(counter.iter().map(|digit| DIGITS[*digit as usize]));
        let mut word: String = digits.map(char::from).collect();
        word.push(char::from(check(word.as_bytes())));
        word
    }

    /// The tag in the middle of a reply, at a position from 0.
    pub fn at(&self, position: u64) -> String {
        self.with(&[position / TAG_EVERY % 36])
    }

    /// The tag that ends a reply, at a position from 0.
    pub fn end(&self, position: u64) -> String {
        let position = position % END_MODULUS;
        format!("z{}", self.with(&[position / 36, position % 36]))
    }

    /// Reads a word as a tag; whose it is says [`PartialEq`]. A word that somebody changed is none.
    pub fn read(word: &str) -> Option<(Self, TagKind)> {
        let (bytes, ends) = match word.strip_prefix('z') {
            Some(rest) => (rest.as_bytes(), true),
            None => (word.as_bytes(), false),
        };
        let (last, body) = bytes.split_last()?;
        let digits = body.iter().all(|byte| DIGITS.contains(byte)) && body.first()?.is_ascii_digit();
        if !digits || body.len() != 6 + usize::from(ends) || check(body) != *last {
            return None;
        }
        let kind = match body {
            [.., high, low] if ends => TagKind::End(value(*high) * 36 + value(*low)),
            _ => TagKind::Inside,
        };
        Some((Self(body[..5].try_into().ok()?), kind))
    }
}

fn value(digit: u8) -> u64 {
    DIGITS.iter().position(|known| *known == digit).unwrap_or(0) as u64
}

fn check(body: &[u8]) -> u8 {
    let sum: u64 = body.iter().zip(WEIGHTS).map(|(digit, weight)| value(*digit) * weight).sum();
    DIGITS[(sum % 36) as usize]
}

/// Whether a word is one that replies are made of.
pub fn is_in_vocabulary(word: &str) -> bool {
    static ALL: LazyLock<HashSet<&'static str>> = LazyLock::new(|| VOCABULARY.iter().copied().collect());
    ALL.contains(word)
}

/// Words of the vocabulary, without end: none twice within [`DISTINCT_WINDOW`]. Equal generators
/// give equal words.
#[derive(Debug)]
struct Words {
    rng: ChaCha8Rng,
    recent: VecDeque<u16>,
    /// The same as a set of bits: asked for every token of every stream.
    is_recent: Vec<u64>,
}

impl Words {
    fn new(rng: ChaCha8Rng) -> Self {
        let is_recent = vec![0; VOCABULARY.len().div_ceil(64)];
        Self { rng, recent: VecDeque::with_capacity(DISTINCT_WINDOW), is_recent }
    }
}

impl Iterator for Words {
    type Item = &'static str;

    fn next(&mut self) -> Option<&'static str> {
        let vocabulary: &[&'static str] = &VOCABULARY;
        let index = loop {
            let index = self.rng.random_range(0..vocabulary.len());
            if self.is_recent[index / 64] & (1 << (index % 64)) == 0 {
                break index;
            }
        };
        if self.recent.len() == DISTINCT_WINDOW - 1
            && let Some(oldest) = self.recent.pop_front().map(usize::from)
        {
            self.is_recent[oldest / 64] &= !(1 << (oldest % 64));
        }
        self.is_recent[index / 64] |= 1 << (index % 64);
        self.recent.push_back(index as u16);
        Some(vocabulary[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_marker_wins_and_only_a_plain_one_counts() {
        assert_eq!(newest_marker("hi [[cc:r1:4:0]] and [[cc:r1:4:1]]"), Some("cc:r1:4:1"));
        assert_eq!(newest_marker("hi [[cc:r1:<b>]]"), None);
        assert_eq!(newest_marker("hi [[cc:r1:4"), None);
        assert_eq!(newest_marker("plain"), None);
    }

    fn words(script: &mut Script, count: usize) -> Vec<String> {
        let word = |_| {
            let mut word = String::new();
            script.write_word(&mut word);
            word
        };
        (0..count).map(word).collect()
    }

    fn are_distinct_within_the_window(words: &[String]) {
        for window in words.windows(DISTINCT_WINDOW) {
            let mut sorted = window.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), DISTINCT_WINDOW);
        }
    }

    #[test]
    fn words_are_deterministic_and_distinct_within_the_window() {
        let take = |seed| words(&mut Script::untraced(generator(seed, "m", "p")), 5_000);
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
        are_distinct_within_the_window(&take(1));
    }

    #[test]
    fn a_traced_reply_follows_from_its_marker_carries_its_tag_and_says_where_it_ends() {
        let take = |marker: &str, length| words(&mut Script::traced(marker).of_length(length), 5_000);
        let mine = take("cc:r:1:0", u64::MAX);
        assert_eq!(mine, take("cc:r:1:0", u64::MAX));
        are_distinct_within_the_window(&mine);
        let tag = Tag::new("cc:r:1:0");
        for (position, word) in mine.iter().enumerate() {
            let is_tag = position % 8 == 7;
            assert_eq!(Tag::read(word), is_tag.then(|| (tag.clone(), TagKind::Inside)), "{word}");
            assert_eq!(is_in_vocabulary(word), !is_tag);
        }
        for length in [1, 7, 8, 9, 1_300] {
            let ended = take("cc:r:1:0", length as u64);
            assert_eq!(ended[..length - 1], mine[..length - 1]);
            let end = TagKind::End((length as u64 - 1) % END_MODULUS);
            assert_eq!(Tag::read(&ended[length - 1]), Some((tag.clone(), end)));
        }
        assert_ne!(tag, Tag::new("cc:r:1:1"));
    }

    #[test]
    fn a_tag_in_which_a_character_was_changed_is_none() {
        let tag = Tag::new("cc:r:1:0");
        for word in [tag.at(7), tag.end(99)] {
            for place in 0..word.len() {
                for digit in DIGITS.iter().filter(|digit| **digit != word.as_bytes()[place]) {
                    let mut changed = word.clone().into_bytes();
                    changed[place] = *digit;
                    assert_eq!(Tag::read(&String::from_utf8(changed).unwrap()), None);
                }
            }
        }
        for none in ["", "1", "abandon", "가격", "12345", "1234567890"] {
            assert_eq!(Tag::read(none), None);
        }
    }

    #[test]
    fn the_vocabulary_has_no_word_twice_and_nothing_to_escape() {
        let mut words = VOCABULARY.clone();
        assert!(words.len() >= 1_024);
        assert!(words.iter().all(|word| word.chars().all(char::is_alphanumeric)));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), VOCABULARY.len());
    }
}
