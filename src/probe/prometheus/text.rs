//! The Prometheus text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats), as far as values
//! are concerned: a line that cannot be read is passed over.

use std::collections::HashMap;

/// What a series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It goes up and down.
    Level,
    /// It only grows.
    Counter,
    /// A histogram or summary: a sum and a count.
    Distribution,
}

/// Which series are meant: a name, and labels that must be so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector {
    /// As it was written.
    pub(super) written: String,
    name: String,
    labels: Labels,
}

impl Selector {
    pub(super) fn parse(written: &str) -> Self {
        let (name, labels) =
            written.split_once('{').map_or((written, ""), |(name, rest)| (name, rest.trim_end_matches('}')));
        Self { written: written.to_owned(), name: name.trim().to_owned(), labels: labels_of(labels).0 }
    }

    fn fits(&self, labels: &[(String, String)]) -> bool {
        self.labels.iter().all(|wanted| labels.contains(wanted))
    }
}

/// Names and values of labels.
type Labels = Vec<(String, String)>;
/// A sample: its labels and its value.
type Sample = (Labels, f64);

/// All metrics of an answer.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    kinds: HashMap<String, Kind>,
    samples: HashMap<String, Vec<Sample>>,
}

impl Metrics {
    pub(super) fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let mut words = rest.split_whitespace();
                let kind = |word| match word {
                    "counter" => Kind::Counter,
                    "histogram" | "summary" => Kind::Distribution,
                    _ => Kind::Level,
                };
                if let (Some(name), Some(word)) = (words.next(), words.next()) {
                    metrics.kinds.insert(name.to_owned(), kind(word));
                }
            } else if let Some((name, labels, value)) = sample(line) {
                metrics.samples.entry(name).or_default().push((labels, value));
            }
        }
        metrics
    }

    pub(super) fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// What a series is; `None`: there is none.
    pub(super) fn kind(&self, selector: &Selector) -> Option<Kind> {
        let name = &selector.name;
        let has = |end: &str| self.samples.contains_key(&format!("{name}{end}"));
        let guessed = if name.ends_with("_total") { Kind::Counter } else { Kind::Level };
        match self.kinds.get(name) {
            Some(Kind::Distribution) if has("_sum") && has("_count") => Some(Kind::Distribution),
            Some(kind) if has("") => Some(*kind),
            None if has("") => Some(guessed),
            None if has("_sum") && has("_count") => Some(Kind::Distribution),
            _ => None,
        }
    }

    /// The greatest of all label sets that fit.
    pub(super) fn most(&self, selector: &Selector) -> Option<f64> {
        let samples = self.samples.get(&selector.name)?;
        let fitting = samples.iter().filter(|(labels, value)| selector.fits(labels) && value.is_finite());
        fitting.map(|(_, value)| *value).reduce(f64::max)
    }

    /// The sum over all label sets that fit.
    pub(super) fn sum(&self, selector: &Selector, end: &str) -> Option<f64> {
        let samples = self.samples.get(&format!("{}{end}", selector.name))?;
        let fitting = samples.iter().filter(|(labels, value)| selector.fits(labels) && value.is_finite());
        fitting.map(|(_, value)| *value).reduce(|sum, value| sum + value)
    }
}

/// `name{label="value",..} value [time]`.
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' ', '\t'])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => {
            let (labels, used) = labels_of(inside);
            (labels, inside.get(used..)?)
        }
        None => (Vec::new(), rest),
    };
    let value = match rest.split_whitespace().next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        text => text.parse().ok()?,
    };
    Some((name.to_owned(), labels, value))
}

/// Labels up to the closing brace or the end, and how many bytes they took, the brace included.
fn labels_of(text: &str) -> (Labels, usize) {
    let mut labels = Vec::new();
    let (mut name, mut value) = (String::new(), String::new());
    let (mut quoted, mut escaped) = (false, false);
    for (index, c) in text.char_indices() {
        match (quoted, c) {
            (true, c) if std::mem::take(&mut escaped) => value.push(if c == 'n' { '\n' } else { c }),
            (true, '\\') => escaped = true,
            (true, '"') => {
                quoted = false;
                labels.push((std::mem::take(&mut name), std::mem::take(&mut value)));
            }
            (true, c) => value.push(c),
            (false, '"') => quoted = true,
            (false, '}') => return (labels, index + 1),
            (false, '=' | ',' | ' ') => {}
            (false, c) => name.push(c),
        }
    }
    (labels, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP http_requests_total Requests.\n# TYPE http_requests_total counter\n\
        http_requests_total{method=\"GET\",path=\"/a,b}\\\"\"} 5 1395066363000\n\
        http_requests_total{method=\"POST\",path=\"/\"} 7\n# TYPE lag gauge\nlag 0.25\n\
        # TYPE wait histogram\nwait_bucket{le=\"+Inf\"} 4\nwait_sum 2.5\nwait_count 4\nno_type_total 3\nbroken line here\nnan NaN\n";

    #[test]
    fn series_are_summed_over_the_labels_that_were_not_named() {
        let metrics = Metrics::parse(TEXT);
        let of = |written: &str, end: &str| metrics.sum(&Selector::parse(written), end);
        assert_eq!(of("http_requests_total", ""), Some(12.0));
        assert_eq!(of("http_requests_total{method=\"GET\"}", ""), Some(5.0));
        assert_eq!(of("http_requests_total{path=\"/a,b}\\\"\"}", ""), Some(5.0));
        assert_eq!(of("http_requests_total{method=\"PUT\"}", ""), None);
        assert_eq!((of("wait", "_sum"), of("wait", "_count"), of("nan", "")), (Some(2.5), Some(4.0), None));
    }

    #[test]
    fn kinds_are_told_or_guessed_by_the_name() {
        let metrics = Metrics::parse(TEXT);
        let kind = |written: &str| metrics.kind(&Selector::parse(written));
        assert_eq!(kind("http_requests_total"), Some(Kind::Counter));
        assert_eq!((kind("lag"), kind("wait")), (Some(Kind::Level), Some(Kind::Distribution)));
        assert_eq!((kind("no_type_total"), kind("nothing")), (Some(Kind::Counter), None));
        assert!(Metrics::parse("<!DOCTYPE html>\n<html lang=\"en\">").is_empty());
    }
}
