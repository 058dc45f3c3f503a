//! `--abort-on`: when a target that is certainly in trouble is left alone.

use std::fmt;

use serde::{Serialize, Serializer};

use super::budget::parse_share;

/// Give the run up when the error rate of the last seconds is above a share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AbortOn {
    /// The share, from 0 to 1.
    pub error_rate: f64,
}

impl AbortOn {
    /// Reads `error_rate>20%`; `never` is no guard.
    ///
    /// # Errors
    /// A sentence that says what was expected.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let compact: String = text.split_whitespace().collect();
        if compact == "never" {
            return Ok(None);
        }
        let wanted = || format!("`{text}` is no guard; write error_rate>20%, or never");
        let share = compact.strip_prefix("error_rate>").ok_or_else(wanted)?;
        Ok(Some(Self { error_rate: parse_share(share).map_err(|_| wanted())? }))
    }
}

impl fmt::Display for AbortOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error_rate>{}%", self.error_rate * 100.0)
    }
}

impl Serialize for AbortOn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_read_as_written() {
        assert_eq!(AbortOn::parse("error_rate > 20%"), Ok(Some(AbortOn { error_rate: 0.2 })));
        assert_eq!(AbortOn::parse("never"), Ok(None));
        assert!(AbortOn::parse("errors>3").unwrap_err().contains("error_rate>20%"));
        assert_eq!(AbortOn { error_rate: 0.2 }.to_string(), "error_rate>20%");
    }
}
