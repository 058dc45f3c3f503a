//! A reply that is not what it should be, read word by word: what was lost, doubled, reordered, altered, or
//! is somebody else's.
//!
//! Where words differ, the place is looked for at which both go on alike for a few words, the nearest first;
//! what lies between is compared. No word comes twice within 64, so a place is known by two or three words.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use mock_llm::script::{DISTINCT_WINDOW, END_MODULUS, Script, Tag, TagKind, is_in_vocabulary};

use super::WhiteSpace;
use crate::record::{Checked, Finding, Flaw, Flaws};
use crate::secret::{Secret, escaped, redacted};

/// How many tokens in a row may be lost and still be counted exactly.
const AHEAD: u64 = 512;
/// The same where only the mock could tell the difference: the beginning of a long reply was missed.
const FAR: u64 = 20_000;
/// How many words are kept while no place is found.
const PENDING: usize = 48;
/// How far ahead a place is looked for that a single word at the very end must show.
const NEAR: u64 = 8;
/// As many foreign words in a row are another turn's.
const FOREIGN_RUN: usize = 4;
/// The findings that a turn keeps.
const FINDINGS: usize = 3;
/// Characters of a finding's texts.
const AROUND: usize = 40;
/// A longer word is cut: the script has none.
const LONGEST_WORD: usize = 256;

/// A word as it came.
#[derive(Debug, Clone)]
struct Word {
    text: String,
    /// Whether exactly one space stood before it, where that matters.
    spaced: bool,
}

/// The words of a script by their position, as far as they may be asked for.
#[derive(Debug)]
struct Expected {
    script: Script,
    tag: Tag,
    words: VecDeque<String>,
    first: u64,
}

impl Expected {
    fn new(marker: &str) -> Self {
        Self { script: Script::traced(marker), tag: Tag::new(marker), words: VecDeque::new(), first: 0 }
    }

    fn word(&mut self, position: u64) -> &str {
        while self.first + self.words.len() as u64 <= position {
            let mut word = String::new();
            self.script.write_word(&mut word);
            self.words.push_back(word);
        }
        position.checked_sub(self.first).map_or("", |index| &self.words[index as usize])
    }

    /// Forgets what is too far back to be asked for again.
    fn forget_before(&mut self, position: u64) {
        while self.first < position && self.words.len() > 1 {
            self.words.pop_front();
            self.first += 1;
        }
    }

    /// Whether a word may stand at a position: as the script has it, or as the end of the reply.
    fn is_at(&mut self, word: &str, position: u64) -> Option<Place> {
        if self.word(position) == word {
            return Some(Place::Inside);
        }
        let ends =
            Tag::read(word).is_some_and(|(tag, kind)| tag == self.tag && kind == TagKind::End(position % END_MODULUS));
        ends.then_some(Place::End)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Inside,
    End,
}

/// A place at which something is wrong, as it came.
#[derive(Debug)]
struct Found {
    flaw: Flaw,
    position: u64,
    expected: String,
    got: Vec<String>,
}

impl Found {
    fn told(self, marker: &str, secrets: &[Secret]) -> Finding {
        // As one text first: a secret may have spaces. Then word by word, for what is no secret that is known.
        let got = redacted(&self.got.join(" "), secrets);
        let got: Vec<String> = got.split(' ').map(shown).collect();
        Finding {
            flaw: self.flaw,
            turn: marker.to_owned(),
            position: self.position,
            expected: escaped(&self.expected, AROUND),
            got: escaped(&got.join(" "), AROUND),
        }
    }
}

/// The reading of one reply.
#[derive(Debug)]
pub(super) struct Alignment {
    marker: String,
    expected: Expected,
    /// Where the next word belongs.
    next: u64,
    ended: bool,
    white: WhiteSpace,
    word: String,
    space: String,
    /// Words that are not understood yet.
    pending: VecDeque<Word>,
    /// The newest words that were.
    recent: VecDeque<String>,
    /// Positions that were passed over, with their words.
    missing: BTreeMap<u64, String>,
    flaws: Flaws,
    findings: Vec<Found>,
}

impl Alignment {
    /// A reply that is read from this position on; what came before was right, and `ended` tells whether
    /// its end was among it.
    pub(super) fn new(marker: &str, position: u64, ended: bool, white: WhiteSpace) -> Self {
        let mut expected = Expected::new(marker);
        let back = position.saturating_sub(DISTINCT_WINDOW as u64);
        let mut recent: VecDeque<String> = (back..position).map(|at| expected.word(at).to_owned()).collect();
        if let (true, Some(last)) = (ended, recent.back_mut()) {
            *last = expected.tag.end(position - 1);
        }
        expected.forget_before(back);
        Self {
            marker: marker.to_owned(),
            expected,
            next: position,
            ended,
            white,
            word: String::new(),
            space: String::new(),
            pending: VecDeque::new(),
            recent,
            missing: BTreeMap::new(),
            flaws: Flaws::default(),
            findings: Vec::new(),
        }
    }

    /// More of the reply; gives how many words began with it.
    pub(super) fn feed(&mut self, text: &str) -> u64 {
        let mut begun = 0;
        for character in text.chars() {
            if character.is_whitespace() {
                self.end_word();
                if self.space.len() < LONGEST_WORD {
                    self.space.push(character);
                }
                continue;
            }
            if self.word.len() >= LONGEST_WORD {
                self.end_word();
            }
            begun += u64::from(self.word.is_empty());
            self.word.push(character);
        }
        begun
    }

    fn end_word(&mut self) {
        if self.word.is_empty() {
            return;
        }
        let first = self.next == 0 && self.pending.is_empty();
        let spaced = match self.white {
            WhiteSpace::Exact => self.space == " ",
            WhiteSpace::TrimEnds => self.space == " " || first,
            WhiteSpace::Collapse => true,
        };
        let word = Word { text: std::mem::take(&mut self.word), spaced };
        self.space.clear();
        self.take(word);
    }

    fn take(&mut self, word: Word) {
        if self.pending.is_empty()
            && !self.ended
            && let Some(place) = self.expected.is_at(&word.text, self.next)
        {
            self.accept(word, place);
            return;
        }
        self.pending.push_back(word);
        self.resume(false);
        if self.pending.len() > PENDING {
            match self.far() {
                Some(skipped) => {
                    self.settle(skipped, 0);
                    self.go_on();
                }
                // Half of it is given up as something that has no place here.
                None => self.settle(0, PENDING / 2),
            }
        }
    }

    /// A word in its place.
    fn accept(&mut self, word: Word, place: Place) {
        if !word.spaced {
            self.flaws.add(Flaw::Altered, 1);
            self.find(Flaw::Altered, self.next, &[&word.text]);
        }
        self.remember(word.text);
        self.next += 1;
        self.ended |= place == Place::End;
        self.expected.forget_before(self.next.saturating_sub(DISTINCT_WINDOW as u64));
    }

    fn remember(&mut self, word: String) {
        if self.recent.len() == DISTINCT_WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(word);
    }

    /// Looks for the nearest place at which both go on alike, and goes on from there.
    fn resume(&mut self, over: bool) {
        // Before the newest word came there was no such place: it must be part of one.
        let mut from = if over { 0 } else { self.pending.len().saturating_sub(3) };
        while !self.pending.is_empty() && !self.ended {
            let Some((skipped, extra)) = self.nearest(from, over) else { return };
            self.settle(skipped, extra);
            self.go_on();
            from = 0;
        }
    }

    /// Takes the words that are where they belong.
    fn go_on(&mut self) {
        while !self.ended
            && let Some(word) = self.pending.front()
            && let Some(place) = self.expected.is_at(&word.text, self.next)
            && let Some(word) = self.pending.pop_front()
        {
            self.accept(word, place);
        }
    }

    /// How many words of the script were lost, where what came goes on beyond what is looked at word by word.
    fn far(&self) -> Option<u64> {
        let first: Vec<&str> = self.pending.iter().take(FOREIGN_RUN).map(|word| word.text.as_str()).collect();
        let mut script = Script::traced(&self.marker);
        let mut window: VecDeque<String> = VecDeque::new();
        for position in 0..self.next + FAR {
            let mut word = String::new();
            script.write_word(&mut word);
            window.push_back(word);
            if window.len() > first.len() {
                window.pop_front();
            }
            let begins = (position + 1).checked_sub(first.len() as u64);
            if let Some(begins) = begins.filter(|begins| *begins > self.next)
                && window.iter().eq(first.iter())
            {
                return Some(begins - self.next);
            }
        }
        None
    }

    /// How many expected and how many received words to leave out; of these at least `from`.
    fn nearest(&mut self, from: usize, over: bool) -> Option<(u64, usize)> {
        let words: Vec<String> = self.pending.iter().map(|word| word.text.clone()).collect();
        for distance in from as u64..AHEAD + words.len() as u64 {
            for extra in from..words.len().min(distance as usize + 1) {
                let skipped = distance - extra as u64;
                if skipped < AHEAD && self.goes_on(&words[extra..], self.next + skipped, distance, over) {
                    return Some((skipped, extra));
                }
            }
        }
        None
    }

    /// Whether words go on like the script from a position: for two words nearby, three further off, or
    /// to the end of the reply.
    fn goes_on(&mut self, words: &[String], position: u64, distance: u64, over: bool) -> bool {
        let enough = if distance <= 8 { 2 } else { 3 };
        for (index, word) in words.iter().take(enough).enumerate() {
            match self.expected.is_at(word, position + index as u64) {
                Some(Place::Inside) => {}
                Some(Place::End) => return true,
                None => return false,
            }
        }
        words.len() >= enough || over && distance <= NEAR
    }

    /// Judges the words between: `skipped` of the script did not come in their place, `extra` came instead.
    fn settle(&mut self, skipped: u64, extra: usize) {
        let from = self.next;
        let came: Vec<String> = self.pending.drain(..extra).map(|word| word.text).collect();
        let mut missing: BTreeSet<u64> = (from..from + skipped).collect();
        let mut flaws = Flaws::default();
        let (mut places, mut strangers) = (Vec::new(), Vec::new());
        for word in &came {
            let within = missing.iter().copied().find(|at| self.expected.word(*at) == word);
            let before = self.missing.iter().find(|(_, missed)| *missed == word).map(|(at, _)| *at);
            if let Some(at) = within {
                missing.remove(&at);
                places.push(at);
            } else if let Some(at) = before {
                self.missing.remove(&at);
                self.flaws.lost -= 1;
                if self.flaws.lost == 0 {
                    // Nothing is missing any more: what was taken for it came later.
                    self.findings.retain(|finding| finding.flaw != Flaw::Lost);
                }
                flaws.reordered += 1;
            } else {
                strangers.push(word.clone());
            }
        }
        flaws.reordered += places.len() as u64 - longest_rise(&places);
        let known = self.known(&strangers);
        let others: Vec<&String> =
            strangers.iter().zip(&known).filter(|(_, known)| !**known).map(|(word, _)| word).collect();
        flaws.doubled += (strangers.len() - others.len()) as u64;
        // That a single word was here a moment ago may be chance.
        let (again, unknown): (Vec<&String>, Vec<&String>) =
            others.iter().partition(|word| self.recent.contains(*word));
        if self.is_foreign(&unknown) {
            flaws.leaked += others.len() as u64;
        } else {
            flaws.doubled += again.len() as u64;
            let unknown = unknown.len() as u64;
            flaws.altered += unknown;
            // What came in the place of another was altered; the other was not lost besides.
            for _ in 0..unknown {
                missing.pop_first();
            }
        }
        flaws.lost += missing.len() as u64;
        for flaw in Flaw::ALL.into_iter().filter(|flaw| flaws.get(*flaw) > 0) {
            let shown: Vec<&str> = came.iter().map(String::as_str).collect();
            self.find(flaw, from, &shown);
        }
        for at in missing {
            let word = self.expected.word(at).to_owned();
            self.missing.insert(at, word);
        }
        while self.missing.len() > AHEAD as usize {
            self.missing.pop_first();
        }
        self.flaws.merge(&flaws);
        self.next += skipped;
        self.expected.forget_before(self.next.saturating_sub(DISTINCT_WINDOW as u64));
        for word in came {
            self.remember(word);
        }
    }

    /// Which words are certainly this turn's own, said once more: they are its tag, or come in a pair as they do
    /// somewhere in its script.
    fn known(&self, words: &[String]) -> Vec<bool> {
        let mine = |word: &String| Tag::read(word).is_some_and(|(tag, _)| tag == self.expected.tag);
        let mut known: Vec<bool> = words.iter().map(mine).collect();
        if words.len() < FOREIGN_RUN {
            return known;
        }
        let wanted: HashSet<(&str, &str)> = words.windows(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
        let mut script = Script::traced(&self.marker);
        let (mut before, mut found) = (String::new(), HashSet::new());
        for _ in 0..self.next + AHEAD {
            let mut word = String::new();
            script.write_word(&mut word);
            if wanted.contains(&(before.as_str(), word.as_str())) {
                found.insert((before.clone(), word.clone()));
            }
            before = word;
        }
        for (index, pair) in words.windows(2).enumerate() {
            if found.contains(&(pair[0].clone(), pair[1].clone())) {
                (known[index], known[index + 1]) = (true, true);
            }
        }
        known
    }

    /// Whether words that are not this turn's are another turn's: they carry its tag, or too many could be its. A
    /// number can look like a tag by chance; then no word of the vocabulary stands with it.
    fn is_foreign(&self, words: &[&String]) -> bool {
        let tags = words.iter().filter(|word| Tag::read(word).is_some()).count();
        let run = words.split(|word| !is_in_vocabulary(word)).map(<[&String]>::len).max().unwrap_or(0);
        tags > 0 && run > 0 || run >= FOREIGN_RUN
    }

    /// Keeps a place, if it is among the first of its turn; a leak always.
    fn find(&mut self, flaw: Flaw, position: u64, came: &[&str]) {
        if self.findings.len() == FINDINGS {
            if flaw != Flaw::Leaked || self.findings[0].flaw == Flaw::Leaked {
                return;
            }
            self.findings.pop();
        }
        let back = position.saturating_sub(2).max(self.expected.first);
        let expected: Vec<String> = (back..position + 4).map(|at| self.expected.word(at).to_owned()).collect();
        let before = self.recent.iter().rev().take((position - back) as usize).rev().map(String::as_str);
        let after = self.pending.iter().map(|word| word.text.as_str());
        let got: Vec<String> = before.chain(came.iter().copied()).chain(after).take(12).map(str::to_owned).collect();
        self.findings.push(Found { flaw, position, expected: expected.join(" "), got });
        self.findings.sort_by_key(|finding| finding.flaw);
    }

    /// The reply is over; `whole` tells whether its end must have come. What must not be shown is taken out of
    /// the findings before anything of them is cut.
    pub(super) fn finish(mut self, whole: bool, secrets: &[Secret]) -> Checked {
        let cut = self.pending.is_empty() && self.expected.word(self.next).starts_with(&self.word);
        if whole && !(cut && self.expected.word(self.next) != self.word) {
            self.end_word();
        } else {
            // Cut in the middle of a word, which then never came.
            self.word.clear();
        }
        self.resume(true);
        if whole && self.ended && self.white == WhiteSpace::Exact && !self.space.is_empty() {
            self.flaws.add(Flaw::Altered, 1);
            self.find(Flaw::Altered, self.next, &[]);
        }
        if !self.ended && whole && self.pending.len() == 1 && self.ends_altered() {
            self.settle(1, 1);
            self.ended = true;
        }
        let rest = self.pending.len();
        if rest > 0 {
            self.settle(0, rest);
        }
        if whole && !self.ended {
            // How many more there were only the mock knows.
            self.flaws.add(Flaw::Lost, 1);
            self.find(Flaw::Lost, self.next, &[]);
        }
        let findings = self.findings.into_iter().map(|found| found.told(&self.marker, secrets)).collect();
        Checked { flaws: self.flaws, findings, late: 0, position: self.next, ended: self.ended, whole }
    }

    /// Whether the one word that is left is the end of the reply, but for a character or two.
    fn ends_altered(&self) -> bool {
        let end = self.expected.tag.end(self.next);
        self.pending.front().is_some_and(|word| strsim::levenshtein(&word.text, &end) <= 2)
    }
}

/// A word in a finding. No word of a script is long; a long one may be anything, a secret among it.
fn shown(word: &str) -> String {
    if word.chars().count() <= 16 {
        return word.to_owned();
    }
    let beginning: String = word.chars().take(6).collect();
    format!("{beginning}…")
}

/// The length of the longest rising subsequence: so many are in order, the others are not.
fn longest_rise(places: &[u64]) -> u64 {
    let mut tails: Vec<u64> = Vec::new();
    for place in places {
        let at = tails.partition_point(|tail| tail < place);
        match tails.get_mut(at) {
            Some(tail) => *tail = *place,
            None => tails.push(*place),
        }
    }
    tails.len() as u64
}
