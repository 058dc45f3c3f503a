//! Recording without lying: what one turn was, which histogram it goes to, how shards merge.

mod block;
mod delta;
mod flaw;
mod gauge;
mod journal;
mod metric;
mod outcome;
mod recorder;
mod step;
mod study;
mod trace;
mod turn;
mod watch;
mod window;
mod wire;

pub use block::{BLOCK, Block};
pub use delta::{Delta, SecondHistogram, Timeline, TimelinePoint};
pub use flaw::{Checked, Finding, Flaw, Flaws};
pub use gauge::{Gauge, Unit};
pub(crate) use journal::encode;
pub use journal::{Journal, LINE_LIMIT};
pub use metric::{Metrics, new_histogram};
pub use outcome::{Outcome, OutcomeCounts};
pub use recorder::{Place, Record, Recorder, TierRecord, Totals, WIDE};
pub use step::{Step, StepRecord, Steps};
pub use study::{IndexAudit, IndexFinding, IndexProblem, PoolStudy, PoolTrial, Smallest};
pub use trace::{Joined, Parts, Reading, Relay, Slow, TierTrace};
pub use turn::{Arrival, Batch, Example, Turn};
pub use watch::{Event, EventKind, Gap, Limit, LimitSource, Missing, POINTS, Point, Probe, SERIES, Series, Watched};
pub use window::{Stages, Window};
pub use wire::Wire;
