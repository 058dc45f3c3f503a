//! The run journal: an append-only file of one JSON line a second, and one an event.
//!
//! What a run that died left behind can be read from it.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde_json::{Map, Value, json};

use super::delta::Delta;

/// The longest line: 20 MB an hour are 5,555 bytes a second.
pub const LINE_LIMIT: usize = 5_400;

/// An open journal.
pub struct Journal {
    file: File,
}

impl Journal {
    /// Creates the file.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::create(path)? })
    }

    /// Notes an event at second `t_s` of the run.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn event(&mut self, t_s: f64, event: &str, detail: &Value) -> io::Result<()> {
        self.write(&json!({ "t_s": t_s, "event": event, "detail": detail }))
    }

    /// Notes a second.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn second(&mut self, t_s: u64, delta: &Delta) -> io::Result<()> {
        self.write(&line(t_s, delta))
    }

    fn write(&mut self, value: &Value) -> io::Result<()> {
        let mut line = value.to_string();
        line.push('\n');
        self.file.write_all(line.as_bytes())
    }
}

/// A second as a line; histograms that would make it too long are left out, the largest first,
/// and named.
fn line(t_s: u64, delta: &Delta) -> Value {
    let mut histograms: Vec<(&str, String)> = [("ttft", &delta.ttft), ("itl", &delta.itl), ("turn", &delta.turn)]
        .into_iter()
        .filter_map(|(name, histogram)| Some((name, encode(histogram.get()?))))
        .collect();
    let mut omitted = Vec::new();
    while histograms.iter().map(|(_, text)| text.len()).sum::<usize>() > LINE_LIMIT - 400 {
        let largest = (0..histograms.len()).max_by_key(|index| histograms[*index].1.len());
        omitted.extend(largest.map(|index| histograms.remove(index).0));
    }
    let mut value = json!({
        "t_s": t_s,
        "users": delta.users,
        "in_flight": delta.in_flight,
        "started": delta.started,
        "turns": delta.turns,
        "errors": delta.errors,
        "tokens": delta.tokens,
        "histograms": histograms.into_iter().map(|(name, text)| (name.to_owned(), json!(text))).collect::<Map<_, _>>(),
    });
    if !omitted.is_empty() {
        value["omitted"] = json!(omitted);
    }
    value
}

/// A histogram as base64 of HdrHistogram's V2 deflate form.
pub(crate) fn encode<T: hdrhistogram::Counter>(histogram: &Histogram<T>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("writing to memory does not fail");
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn no_second_is_longer_than_the_hour_s_share() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        // The worst case: values all over the range, counts all over theirs.
        for spread in [12.0, 22.0] {
            let mut delta = Delta::default();
            for _ in 0..300_000 {
                let mut draw = || 2_f64.powf(4.0 + spread * rng.random::<f64>()) as u64;
                delta.ttft.record(draw());
                delta.itl.record(draw());
                delta.turn.record(draw());
            }
            let text = line(9, &delta).to_string();
            assert!(text.len() < LINE_LIMIT, "{} bytes", text.len());
        }
        let mut delta = Delta::default();
        for _ in 0..2_000 {
            delta.itl.record((50_000.0 + 10_000.0 * rng.random::<f64>()) as u64);
        }
        let value = line(9, &delta);
        assert!(value.get("omitted").is_none() && value["histograms"]["itl"].is_string());
    }
}
