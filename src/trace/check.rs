//! The text of a traced reply, held against its script as it arrives, whatever the chunking.
//!
//! As long as the text is what it should be it is compared byte by byte, and nothing of it is kept. From the
//! first difference on it is read word by word ([`super::align`]).

use mock_llm::script::{Script, Tag};

use super::WhiteSpace;
use super::align::Alignment;
use crate::record::{Checked, Flaw};
use crate::secret::Secret;

/// White space at the end that is kept, in bytes.
const HELD: usize = 256;

/// The check of one reply.
#[derive(Debug)]
pub struct Check {
    marker: String,
    white: WhiteSpace,
    state: State,
    /// White space that counts only if something follows it.
    held: String,
    /// Whether anything but white space has come.
    begun: bool,
    /// What had leaked before the reply was told anew: that stays.
    leaked: Option<Box<Checked>>,
}

#[derive(Debug)]
enum State {
    Equal(Box<Equal>),
    Astray(Box<Alignment>),
}

impl Check {
    /// The check of the reply to the turn with this marker (`cc:RUN:USER:TURN`).
    pub fn new(marker: &str, white: WhiteSpace) -> Self {
        let state = State::Equal(Box::new(Equal::new(marker, white)));
        Self { marker: marker.to_owned(), white, state, held: String::new(), begun: false, leaked: None }
    }

    /// A check of the same reply, from its beginning.
    pub fn again(&self) -> Self {
        Self::new(&self.marker, self.white)
    }

    /// The reply is told anew, from its beginning.
    pub fn restart(&mut self) {
        let anew = self.again();
        let mut before = std::mem::replace(self, anew).finish(false, &[]);
        before.findings.retain(|finding| finding.flaw == Flaw::Leaked);
        self.leaked = (before.flaws.leaked > 0).then(|| Box::new(before));
    }

    /// Whether something was found: then who finishes it must say what is not to be shown.
    pub fn is_astray(&self) -> bool {
        matches!(self.state, State::Astray(_)) || self.leaked.is_some()
    }

    /// More of the reply; gives how many tokens began with it.
    pub fn feed(&mut self, text: &str) -> u64 {
        match self.white {
            WhiteSpace::Exact => self.compare(text),
            WhiteSpace::TrimEnds | WhiteSpace::Collapse => {
                let plain = self.without_ends(text);
                self.compare(&plain)
            }
        }
    }

    fn compare(&mut self, text: &str) -> u64 {
        match &mut self.state {
            State::Astray(alignment) => alignment.feed(text),
            State::Equal(equal) => match equal.feed(text) {
                Ok(tokens) => tokens,
                Err(Difference { position, ended, rest, before, counted }) => {
                    let mut alignment = Box::new(Alignment::new(&self.marker, position, ended, self.white));
                    let tokens = (counted + alignment.feed(&rest)).saturating_sub(before);
                    self.state = State::Astray(alignment);
                    tokens
                }
            },
        }
    }

    /// The text without white space at the reply's ends, as far as it is known to be inside.
    fn without_ends(&mut self, text: &str) -> String {
        let mut plain = String::with_capacity(text.len() + 1);
        for character in text.chars() {
            if !character.is_whitespace() {
                plain.push_str(&self.held);
                self.held.clear();
                plain.push(character);
                self.begun = true;
            } else if self.begun && self.white == WhiteSpace::TrimEnds {
                // More than this is no longer compared, and not kept.
                if self.held.len() < HELD {
                    self.held.push(character);
                }
            } else if self.begun && self.held.is_empty() {
                self.held.push(' ');
            }
        }
        plain
    }

    /// The reply is over; `whole` tells whether its end must have come, `secrets` what must not be shown.
    pub fn finish(self, whole: bool, secrets: &[Secret]) -> Checked {
        let mut checked = match self.state {
            State::Equal(equal) if equal.is_at_an_end(whole) => {
                Checked { position: equal.position(), ended: equal.ended, whole, ..Checked::default() }
            }
            State::Equal(equal) => {
                let mut alignment = Alignment::new(&self.marker, equal.index, false, self.white);
                alignment.feed(&equal.word[..equal.at]);
                alignment.finish(whole, secrets)
            }
            State::Astray(alignment) => alignment.finish(whole, secrets),
        };
        if let Some(leaked) = self.leaked {
            checked.flaws.leaked += leaked.flaws.leaked;
            checked.findings.splice(0..0, leaked.findings);
        }
        checked
    }
}

/// A reply that has been equal so far.
#[derive(Debug)]
struct Equal {
    script: Script,
    tag: Tag,
    /// The word that is coming, with the space before it.
    word: String,
    /// How much of it has come, in bytes.
    at: usize,
    /// Its place in the reply.
    index: u64,
    /// How many tokens have begun.
    begun: u64,
    /// Whether this word is the last one.
    last: bool,
    ended: bool,
}

/// Where the text stopped being equal: what came from the beginning of that word on.
struct Difference {
    position: u64,
    /// Whether the reply had ended before it.
    ended: bool,
    rest: String,
    /// Tokens that had begun before this piece, and those that have without what is in `rest`.
    before: u64,
    counted: u64,
}

impl Equal {
    fn new(marker: &str, white: WhiteSpace) -> Self {
        let mut equal = Self {
            script: Script::traced(marker),
            tag: Tag::new(marker),
            word: String::new(),
            at: 0,
            index: 0,
            begun: 0,
            last: false,
            ended: false,
        };
        equal.load();
        // The space before the first word stands at an end of the reply.
        equal.at = usize::from(white != WhiteSpace::Exact);
        equal
    }

    fn load(&mut self) {
        self.word.clear();
        self.word.push(' ');
        self.script.write_word(&mut self.word);
        self.at = 0;
    }

    fn feed(&mut self, text: &str) -> Result<u64, Difference> {
        let before = self.begun;
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            if self.at == self.word.len() && !self.ended {
                self.index += 1;
                self.load();
            }
            let wanted = &self.word.as_bytes()[self.at..];
            let length = wanted.len().min(rest.len());
            if length > 0 && wanted[..length] == rest[..length] {
                self.begun = self.index + 1;
                self.at += length;
                rest = &rest[length..];
                self.ended = self.last && self.at == self.word.len();
            } else if !self.take_for_last(rest) {
                return Err(self.difference(text, rest.len(), before));
            }
        }
        Ok(self.begun - before)
    }

    /// Whether this word is the one that ends the reply; then it is expected from now on.
    fn take_for_last(&mut self, rest: &[u8]) -> bool {
        if self.last {
            return false;
        }
        let end = format!(" {}", self.tag.end(self.index));
        let length = end.len().saturating_sub(self.at).min(rest.len());
        let same_so_far = end.as_bytes().get(..self.at) == Some(&self.word.as_bytes()[..self.at]);
        let is_last = same_so_far && length > 0 && end.as_bytes()[self.at..self.at + length] == rest[..length];
        if is_last {
            self.word = end;
            self.last = true;
        }
        is_last
    }

    fn difference(&self, text: &str, rest: usize, before: u64) -> Difference {
        // A difference within a character of several bytes begins with the character.
        let mut split = text.len() - rest;
        while !text.is_char_boundary(split) {
            split -= 1;
        }
        let rest = &text[split..];
        if self.ended && rest.starts_with(char::is_whitespace) {
            let (position, counted) = (self.index + 1, self.begun);
            return Difference { position, ended: true, rest: rest.to_owned(), before, counted };
        }
        let whole = (0..=self.at).rev().find(|at| self.word.is_char_boundary(*at)).unwrap_or(0);
        let rest = format!("{}{rest}", &self.word[..whole]);
        // This word is counted with the rest: where it had begun before this piece, that takes one away.
        Difference { position: self.index, ended: false, rest, before, counted: self.begun.min(self.index) }
    }

    /// How many tokens are whole.
    fn position(&self) -> u64 {
        self.index + u64::from(self.at == self.word.len())
    }

    /// Whether the reply may end here: with its last word, or, cut off on purpose, anywhere.
    fn is_at_an_end(&self, whole: bool) -> bool {
        self.ended || !whole
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::Flaws;

    const MARKER: &str = "cc:r1:4:0";

    pub(super) fn words(marker: &str, length: u64) -> Vec<String> {
        let mut script = Script::traced(marker).of_length(length);
        let word = |_| {
            let mut word = String::new();
            script.write_word(&mut word);
            word
        };
        (0..length).map(word).collect()
    }

    fn text(words: &[String]) -> String {
        words.iter().flat_map(|word| [" ", word]).collect()
    }

    fn check(white: WhiteSpace, pieces: &[&str]) -> Checked {
        let mut check = Check::new(MARKER, white);
        for piece in pieces {
            check.feed(piece);
        }
        check.finish(true, &[])
    }

    fn flaws(words: &[String]) -> Flaws {
        check(WhiteSpace::Exact, &[&text(words)]).flaws
    }

    #[test]
    fn a_hundred_thousand_clean_tokens_have_no_finding() {
        for turn in 0..200 {
            let marker = format!("cc:r1:{turn}:0");
            let all = words(&marker, 500);
            let mut check = Check::new(&marker, WhiteSpace::Exact);
            let tokens: u64 = all.iter().map(|word| check.feed(&format!(" {word}"))).sum();
            let checked = check.finish(true, &[]);
            assert_eq!(
                (tokens, checked),
                (500, Checked { position: 500, ended: true, whole: true, ..Checked::default() })
            );
        }
    }

    #[test]
    fn each_flaw_is_found_in_its_class_with_the_count_planted() {
        let all = words(MARKER, 300);
        for at in [0, 1, 6, 7, 8, 63, 64, 150, 297, 298] {
            let mut lost = all.clone();
            lost.remove(at);
            assert_eq!(flaws(&lost), Flaws { lost: 1, ..Flaws::default() }, "{at}");
            let mut doubled = all.clone();
            doubled.insert(at, all[at].clone());
            assert_eq!(flaws(&doubled), Flaws { doubled: 1, ..Flaws::default() }, "{at}");
            let mut swapped = all.clone();
            swapped.swap(at, at + 1);
            assert_eq!(flaws(&swapped), Flaws { reordered: 1, ..Flaws::default() }, "{at}");
            let mut altered = all.clone();
            altered[at] = format!("{}#", all[at]);
            assert_eq!(flaws(&altered), Flaws { altered: 1, ..Flaws::default() }, "{at}");
            let mut leaked = all.clone();
            leaked.splice(at..at, words("cc:r1:5:0", 400)[40..48].iter().cloned());
            assert_eq!(flaws(&leaked), Flaws { leaked: 8, ..Flaws::default() }, "{at}");
        }
        for gone in [1, 9, 200] {
            assert_eq!(flaws(&all[gone..]), Flaws { lost: gone as u64, ..Flaws::default() }, "the first {gone}");
            // Nobody but the mock knows how many came after.
            let cut = check(WhiteSpace::Exact, &[&text(&all[..300 - gone])]);
            assert_eq!((cut.flaws.lost, cut.position, cut.ended), (1, 300 - gone as u64, false));
            let mut middle = all.clone();
            middle.drain(50..50 + gone);
            assert_eq!(flaws(&middle), Flaws { lost: gone as u64, ..Flaws::default() }, "{gone} in the middle");
            let mut end = all.clone();
            end.drain(299 - gone..299);
            assert_eq!(flaws(&end), Flaws { lost: gone as u64, ..Flaws::default() }, "{gone} before the end");
        }
        let late: Vec<String> = [&all[1..20], &all[..1], &all[20..]].concat();
        assert_eq!(flaws(&late), Flaws { reordered: 1, ..Flaws::default() });
        let mut end = all.clone();
        end[299].push('#');
        assert_eq!(flaws(&end), Flaws { altered: 1, ..Flaws::default() }, "the last word");
        let twice: Vec<String> = [&all[..], &all[299..]].concat();
        assert_eq!(flaws(&twice), Flaws { doubled: 1, ..Flaws::default() }, "the last word");
    }

    #[test]
    fn a_whole_foreign_reply_is_a_leak_and_a_foreign_text_is_none() {
        let foreign = flaws(&words("cc:r1:5:0", 300));
        assert_eq!((foreign.leaked, foreign.altered), (300, 0));
        let three: Vec<String> =
            [&words(MARKER, 60)[..20], &words("cc:r1:6:0", 60)[8..11], &words(MARKER, 60)[20..]].concat();
        assert_eq!(flaws(&three), Flaws { altered: 3, ..Flaws::default() }, "three words prove nothing");
        let other = check(WhiteSpace::Exact, &["Sorry, I cannot help with that."]).flaws;
        assert_eq!((other.leaked, other.altered, other.lost), (0, 6, 1));
    }

    #[test]
    fn replies_of_every_length_end_where_they_end() {
        for turn in 0..40 {
            let marker = format!("cc:r2:{turn}:0");
            for length in 1..70 {
                let mut check = Check::new(&marker, WhiteSpace::Exact);
                let tokens = check.feed(&text(&words(&marker, length)));
                let checked = check.finish(true, &[]);
                assert_eq!(
                    (tokens, checked.flaws, checked.ended),
                    (length, Flaws::default(), true),
                    "{marker} {length}"
                );
            }
        }
    }

    #[test]
    fn a_turn_s_own_words_are_never_somebody_else_s() {
        let all = words(MARKER, 900);
        // The beginning is told once more, long after it was.
        let again: Vec<String> = [&all[..400], &all[..60], &all[400..]].concat();
        assert_eq!(flaws(&again), Flaws { doubled: 60, ..Flaws::default() });
        // Ten words come a hundred later.
        let late: Vec<String> = [&all[..50], &all[60..160], &all[50..60], &all[160..]].concat();
        assert_eq!(flaws(&late), Flaws { reordered: 10, ..Flaws::default() });
        // More is missing than is looked at word by word.
        let found = flaws(&all[700..]);
        assert_eq!((found.leaked, found.lost), (0, 700), "{found:?}");
        // A number that looks like a tag.
        assert!(Tag::read("1000001").is_some());
        let mut order = all.clone();
        order.insert(100, "1000001".to_owned());
        assert_eq!(flaws(&order), Flaws { altered: 1, ..Flaws::default() });
    }

    #[test]
    fn what_leaked_stays_though_the_reply_is_told_anew() {
        let all = words(MARKER, 60);
        let mut check = Check::new(MARKER, WhiteSpace::Exact);
        check.feed(&text(&[&all[..10], &words("cc:r1:5:0", 60)[8..16]].concat()));
        // Of a word that nothing follows nobody knows whether it was whole.
        check.feed(" ");
        check.restart();
        check.feed(&text(&all));
        let checked = check.finish(true, &[]);
        assert_eq!((checked.flaws, checked.ended), (Flaws { leaked: 8, ..Flaws::default() }, true));
        assert_eq!(checked.findings.len(), 1);
    }

    #[test]
    fn a_reply_that_ends_in_the_middle_of_a_word_lost_it() {
        let all = words(MARKER, 60);
        let whole = text(&all[..20]);
        let cut = check(WhiteSpace::Exact, &[&whole[..whole.len() - 1]]);
        assert_eq!((cut.flaws, cut.position), (Flaws { lost: 1, ..Flaws::default() }, 19));
    }

    #[test]
    fn secrets_are_taken_out_before_anything_is_cut() {
        let mut all = words(MARKER, 40);
        all[20] = "sk-planted-and-longer-than-a-word".to_owned();
        all[21] = "hunter2".to_owned();
        let mut check = Check::new(MARKER, WhiteSpace::Exact);
        check.feed(&text(&all));
        let secrets = [Secret::new("sk-planted-and-longer-than-a-word"), Secret::new("hunter2")];
        let told = format!("{:?}", check.finish(true, &secrets).findings);
        assert!(!told.contains("sk-pl") && !told.contains("hunter"), "{told}");
    }

    #[test]
    fn findings_tell_where_and_what() {
        let mut all = words(MARKER, 40);
        all[20] = "<b>\u{7}".to_owned();
        let checked = check(WhiteSpace::Exact, &[&text(&all)]);
        let [finding] = checked.findings.as_slice() else { panic!("{checked:?}") };
        assert_eq!((finding.position, finding.turn.as_str()), (20, MARKER));
        assert!(finding.expected.contains(&words(MARKER, 40)[20]), "{finding:?}");
        assert!(finding.got.contains("<b>") && !finding.got.contains('\u{7}'), "{finding:?}");
        assert!(finding.expected.chars().count() <= 48 && finding.got.chars().count() <= 48, "{finding:?}");
    }

    #[test]
    fn white_space_is_compared_as_asked() {
        let all = words(MARKER, 30);
        let exact = text(&all);
        let trimmed = exact.trim().to_owned();
        let padded = format!("{exact}\n\n");
        let collapsed = exact.replacen(' ', "\n\n ", 5).trim().to_owned();
        for (white, pass) in [
            (WhiteSpace::Exact, [true, false, false, false]),
            (WhiteSpace::TrimEnds, [true, true, true, false]),
            (WhiteSpace::Collapse, [true, true, true, true]),
        ] {
            for (text, pass) in [&exact, &trimmed, &padded, &collapsed].into_iter().zip(pass) {
                let found = check(white, &[text]).flaws;
                assert_eq!(found.total() == 0, pass, "{white:?}: {text:?}: {found:?}");
                assert_eq!(found.total(), found.altered, "white space is altered, nothing else");
            }
        }
    }

    #[test]
    fn a_reply_that_was_cut_on_purpose_is_equal_so_far() {
        let all = text(&words(MARKER, 30));
        let mut check = Check::new(MARKER, WhiteSpace::Exact);
        check.feed(&all[..90]);
        assert_eq!(check.finish(false, &[]).flaws, Flaws::default());
    }

    proptest! {
        /// However a reply is cut, its tokens are counted and nothing is found; and a flaw is found
        /// however it is cut.
        #[test]
        fn chunks_do_not_matter(cuts in proptest::collection::vec(0_usize..2_000, 0..40), white in 0_usize..3, flawed in any::<bool>()) {
            let white = [WhiteSpace::Exact, WhiteSpace::TrimEnds, WhiteSpace::Collapse][white];
            let mut all = words(MARKER, 200);
            if flawed {
                all.remove(77);
            }
            let whole = text(&all);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| whole.is_char_boundary(*cut)).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let mut check = Check::new(MARKER, white);
            let tokens: u64 = cuts.windows(2).map(|pair| check.feed(&whole[pair[0]..pair[1]])).sum();
            let checked = check.finish(true, &[]);
            prop_assert_eq!(tokens, all.len() as u64);
            prop_assert_eq!(checked.flaws, Flaws { lost: u64::from(flawed), ..Flaws::default() });
            prop_assert!(checked.ended);
            prop_assert_eq!(checked.position, 200);
        }

        /// Nothing that a target may send makes the check panic or grow.
        #[test]
        fn any_text_is_taken(pieces in proptest::collection::vec(".*", 0..20)) {
            let mut check = Check::new(MARKER, WhiteSpace::Exact);
            for piece in &pieces {
                check.feed(piece);
            }
            check.finish(true, &[]);
        }
    }
}
