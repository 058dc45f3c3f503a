//! Prompts of which only the lengths are known: words of the bundled conversations, drawn when they are said.

use std::sync::LazyLock;

use mock_llm::distribution::{Distribution, Unit, Written};
use mock_llm::script::is_in_vocabulary;
use rand::{Rng, RngExt};

use super::lines::Line;
use super::{ENGLISH, KOREAN};

/// The most words of a prompt.
const MOST: f64 = 100_000.0;

/// How many languages there are.
pub(super) const LANGUAGES: usize = 2;

/// The words of each language, as often as they are used. Without those of the mock's replies: a deployment that
/// repeats a prompt in a reply would seem to send another turn's words.
static WORDS: LazyLock<[Vec<String>; LANGUAGES]> = LazyLock::new(|| [ENGLISH, KOREAN].map(words));

fn words(text: &str) -> Vec<String> {
    let read = |line: &str| serde_json::from_str::<Line>(line).expect("the bundled prompts are written correctly");
    let fits = |word: &&str| word.chars().all(char::is_alphabetic) && !is_in_vocabulary(word);
    let of_turn = |turn: String| turn.split_whitespace().filter(fits).map(str::to_owned).collect::<Vec<_>>();
    text.lines().flat_map(|line| read(line).turns).flat_map(of_turn).collect()
}

/// Reads a distribution of the number of words.
pub(super) fn lengths(text: &str) -> Result<Written, String> {
    let text = text.trim();
    let distribution = Distribution::parse(text, Unit::Count)?;
    let (least, most) = match distribution {
        Distribution::Constant(words) => (words, words),
        Distribution::Uniform { low, high } => (low, high),
        Distribution::Exponential { mean } => (mean, mean),
        Distribution::Lognormal { median, p95 } => (median, p95),
    };
    if least < 1.0 {
        return Err(format!("`{text}`: a prompt has 1 word or more"));
    }
    if most > MOST {
        return Err(format!("`{text}`: a prompt has at most 100,000 words"));
    }
    Ok(Written::count(distribution))
}

/// Draws a prompt.
pub(super) fn text(lengths: &Distribution, language: usize, rng: &mut impl Rng) -> String {
    let words = &WORDS[language];
    let count = lengths.sample(rng).round().clamp(1.0, MOST) as usize;
    let mut text = String::new();
    for place in 0..count {
        if place > 0 {
            text.push(' ');
        }
        text.push_str(&words[rng.random_range(0..words.len())]);
    }
    text
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::Prompts;
    use super::*;

    #[test]
    fn lengths_are_those_that_were_asked_for() {
        for written in ["50", "uniform 10 30", "exponential 60", "lognormal 40 400"] {
            let lengths = lengths(written).unwrap().distribution;
            let mut rng = ChaCha8Rng::seed_from_u64(11);
            let mut words = 0;
            for turn in 0..20_000 {
                words += text(&lengths, turn % LANGUAGES, &mut rng).split(' ').count();
            }
            let mean = words as f64 / 20_000.0;
            // More than four standard errors of the heaviest tail among them.
            assert!((mean / lengths.mean() - 1.0).abs() < 0.08, "{written}: {mean} is not {}", lengths.mean());
        }
    }

    #[test]
    fn a_prompt_is_of_one_language_and_of_none_of_the_words_of_replies() {
        let prompts = Prompts::generated(" 5000 ").unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let texts: Vec<String> =
            (0..prompts.choices()).map(|language| prompts.text(language, 0, &mut rng).into_owned()).collect();
        assert!(texts[0].is_ascii() && texts[1].chars().any(|c| ('가'..='힣').contains(&c)));
        for text in &texts {
            assert_eq!(text.split(' ').count(), 5_000);
            assert!(text.split(' ').all(|word| !word.is_empty() && !is_in_vocabulary(word)));
        }
        assert_eq!(prompts.mean_turns(7), 7.0);
        let shown = serde_json::to_value(&prompts).unwrap();
        assert_eq!(shown, serde_json::json!({ "source": "generated", "words": "5000" }));
    }

    #[test]
    fn a_prompt_is_bounded_and_has_a_word() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let endless = Distribution::Constant(1e12);
        assert_eq!(text(&endless, 0, &mut rng).split(' ').count(), 100_000);
        assert_eq!(text(&Distribution::Constant(0.0), 0, &mut rng).split(' ').count(), 1);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("200ms", "`200ms` is no number"),
            ("normal 4 5", "`normal 4 5` is no distribution"),
            (" ", "`` is no distribution"),
            ("0", "`0`: a prompt has 1 word or more"),
            ("uniform 5 200000", "at most 100,000 words"),
            ("lognormal 400 100001", "at most 100,000 words"),
        ] {
            let error = lengths(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
