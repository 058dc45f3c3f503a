//! What the mock answers: the marker that names a turn, and the reply that follows from a prompt.

use std::collections::VecDeque;
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

/// The words of a reply, one word a token, without end: no word twice within
/// [`DISTINCT_WINDOW`]. Equal generators give equal words.
#[derive(Debug)]
pub struct Words {
    rng: ChaCha8Rng,
    recent: VecDeque<usize>,
    /// The same as a set of bits: asked for every token of every stream.
    is_recent: Vec<u64>,
}

impl Words {
    /// The words that follow from a generator.
    pub fn new(rng: ChaCha8Rng) -> Self {
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
            && let Some(oldest) = self.recent.pop_front()
        {
            self.is_recent[oldest / 64] &= !(1 << (oldest % 64));
        }
        self.is_recent[index / 64] |= 1 << (index % 64);
        self.recent.push_back(index);
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

    #[test]
    fn words_are_deterministic_and_distinct_within_the_window() {
        let take = || Words::new(generator(1, "m", "p")).take(5_000).collect::<Vec<_>>();
        let words = take();
        assert_eq!(words, take());
        for window in words.windows(DISTINCT_WINDOW) {
            let mut sorted = window.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), DISTINCT_WINDOW);
        }
        assert_ne!(words, Words::new(generator(2, "m", "p")).take(5_000).collect::<Vec<_>>());
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
