//! The one table of exit codes.

use std::process::ExitCode;

/// How the program ends.
///
/// | code | meaning |
/// |---|---|
/// | 0 | pass, or warn without `--fail-on warn`, or a finished `--quick` run |
/// | 1 | fail, or warn with `--fail-on warn` |
/// | 2 | bad usage or scenario; nothing was run |
/// | 3 | inconclusive |
/// | 4 | preflight failed, or stopped by a guard |
/// | 130 | interrupted |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0.
    Pass,
    /// 1.
    Fail,
    /// 2.
    Usage,
    /// 3.
    Inconclusive,
    /// 4.
    Stopped,
    /// 130.
    Interrupted,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::Usage => 2,
            Self::Inconclusive => 3,
            Self::Stopped => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
