//! What was watched beside the users: series on the run's clock, with their limits and gaps.

use serde::{Deserialize, Serialize};

use super::gauge::{Gauge, Unit};

/// The most points that a series keeps: a point a second for an hour, then wider ones.
pub const POINTS: usize = 3_600;
/// The most series of one thing that is watched; what comes beyond is counted.
pub const SERIES: usize = 96;
/// The most events and reasons of one thing that is watched.
const TOLD: usize = 200;

/// What kind of thing is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// A MongoDB server or replica set.
    Mongo,
    /// A Redis server, Sentinel's master and replicas, or a Cluster.
    Redis,
    /// Processes of the server.
    Process,
    /// A control group with its processes.
    Cgroup,
    /// A cheap path of the deployment.
    Health,
    /// An endpoint that tells Prometheus metrics.
    Prometheus,
}

/// Everything that one probe has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Watched {
    /// What it is.
    pub probe: Probe,
    /// Its name: an address, a process, a path. Never a secret.
    pub name: String,
    /// What does not change while it is watched, such as `version`; in the order in which it was seen.
    pub facts: Vec<(String, String)>,
    /// The series, in the order in which they began.
    pub series: Vec<Series>,
    /// What could not be watched, each once, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub missing: Vec<Missing>,
    /// When nothing was seen.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub gaps: Vec<Gap>,
    /// What happened.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub events: Vec<Event>,
    /// Series, events and reasons beyond what is kept.
    #[serde(default)]
    pub left_out: u64,
}

/// Something that could not be watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Missing {
    /// What, such as `serverStatus`.
    pub what: String,
    /// Why, and what to do.
    pub why: String,
}

/// A time in which a probe saw nothing, in seconds of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Gap {
    /// Its first second.
    pub from_s: f64,
    /// When something was seen again; `None`: not before the end of the run.
    pub to_s: Option<f64>,
    /// Why.
    pub why: String,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// Another server took over: a Redis failover, a new primary.
    Failover,
    /// Slots of a Cluster change their node.
    Resharding,
    /// Keys were evicted for want of memory.
    Evictions,
    /// Connections were refused because there were as many as there may be.
    MaxClients,
    /// Every connection of the deployment's pool was busy.
    PoolFull,
    /// Connections were lost because the listen queue was full.
    ListenOverflow,
    /// A process ended, or a server was started anew.
    Restarted,
    /// Something ended and did not come back.
    Gone,
    /// Commands that Redis itself calls slow.
    Slow,
    /// A process or control group was killed, or throttled, for want of memory.
    OutOfMemory,
}

/// Something that happened to what is watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Event {
    /// When, in seconds of the run.
    pub t_s: f64,
    /// What.
    pub kind: EventKind,
    /// The details, as the server tells them.
    pub detail: String,
}

/// Where a limit is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitSource {
    /// The scenario, or a flag.
    Scenario,
    /// The environment of the watched processes.
    Environment,
    /// The server itself tells it.
    Server,
    /// More than this were never seen, although all were busy.
    Plateau,
}

/// The most that there can be of something.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Limit {
    /// In the unit of its series.
    pub value: f64,
    /// Where it is known from.
    pub source: LimitSource,
}

/// One quantity over the time of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Series {
    /// What it is.
    pub gauge: Gauge,
    /// Of which part: a process, a node, an application; nothing: of all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub of: Option<String>,
    /// Its unit.
    pub unit: Unit,
    /// The most that there can be, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub limit: Option<Limit>,
    /// Seconds that a point stands for.
    pub step_s: u32,
    /// The points in the order of time; seconds without a value have none.
    pub points: Vec<Point>,
}

/// A point of a series: `[t_s, mean]`, or `[t_s, mean, min, max]` where these differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// The second of the run at which it ends.
    pub t_s: u32,
    /// The mean of what was measured in it.
    pub mean: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// How many measurements it has; not told in a result.
    count: u32,
}

impl Point {
    /// A point of one measurement.
    pub fn new(t_s: u32, value: f64) -> Self {
        Self { t_s, mean: value, min: value, max: value, count: 1 }
    }

    fn merge(&mut self, other: &Self) {
        let count = self.count + other.count;
        self.mean += (other.mean - self.mean) * f64::from(other.count) / f64::from(count);
        (self.min, self.max) = (self.min.min(other.min), self.max.max(other.max));
        (self.t_s, self.count) = (self.t_s.max(other.t_s), count);
    }
}

impl Serialize for Point {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Six digits are more than any of these is exact to, and half the bytes.
        let short = |value: f64| {
            let scale = if value == 0.0 { 1.0 } else { 10_f64.powf(5.0 - value.abs().log10().floor()) };
            let rounded = (value * scale).round() / scale;
            // The least and the greatest numbers have no such scale.
            if rounded.is_finite() { rounded } else { value }
        };
        if self.min == self.max {
            (self.t_s, short(self.mean)).serialize(serializer)
        } else {
            (self.t_s, short(self.mean), short(self.min), short(self.max)).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Point {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let numbers = Vec::<f64>::deserialize(deserializer)?;
        match numbers[..] {
            [t_s, value] => Ok(Self::new(t_s as u32, value)),
            [t_s, mean, min, max] => Ok(Self { t_s: t_s as u32, mean, min, max, count: 1 }),
            _ => Err(serde::de::Error::custom("a point is [t_s, mean] or [t_s, mean, min, max]")),
        }
    }
}

impl schemars::JsonSchema for Point {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Point".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "[t_s, mean], or [t_s, mean, min, max] where these differ",
            "type": "array", "items": { "type": "number" }, "minItems": 2, "maxItems": 4
        })
    }
}

impl Series {
    fn new(gauge: Gauge, of: Option<String>) -> Self {
        Self { unit: gauge.unit(), gauge, of, limit: None, step_s: 1, points: Vec::new() }
    }

    /// Notes what was measured at a second, in whatever order. Several of one point make its mean, least and most.
    pub fn put(&mut self, t_s: u32, value: f64) {
        if !value.is_finite() {
            return;
        }
        let (point, slot) = (Point::new(t_s, value), t_s / self.step_s);
        // Nearly always it is the last one, or after it.
        let before = self.points.iter().rposition(|known| known.t_s / self.step_s <= slot);
        match before {
            Some(index) if self.points[index].t_s / self.step_s == slot => self.points[index].merge(&point),
            Some(index) => self.points.insert(index + 1, point),
            None => self.points.insert(0, point),
        }
        if self.points.len() > POINTS {
            self.widen();
        }
    }

    /// Each two neighbouring points become one: so a series is bounded, however long the run.
    fn widen(&mut self) {
        self.step_s *= 2;
        let mut wide: Vec<Point> = Vec::with_capacity(POINTS);
        for point in self.points.drain(..) {
            match wide.last_mut() {
                Some(last) if last.t_s / self.step_s == point.t_s / self.step_s => last.merge(&point),
                _ => wide.push(point),
            }
        }
        self.points = wide;
    }

    /// The points whose second lies in a window, `from < t <= to`, in seconds of the run.
    pub fn during(&self, from_s: f64, to_s: f64) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(move |point| f64::from(point.t_s) > from_s && f64::from(point.t_s) <= to_s)
    }

    /// The highest point.
    pub fn highest(&self) -> Option<&Point> {
        self.points.iter().max_by(|one, other| one.max.total_cmp(&other.max))
    }
}

impl Watched {
    /// A thing of which nothing is known yet.
    pub fn new(probe: Probe, name: impl Into<String>) -> Self {
        Self {
            probe,
            name: name.into(),
            facts: Vec::new(),
            series: Vec::new(),
            missing: Vec::new(),
            gaps: Vec::new(),
            events: Vec::new(),
            left_out: 0,
        }
    }

    /// Notes what was measured at a second of the run.
    pub fn put(&mut self, t_s: u32, gauge: Gauge, of: Option<&str>, value: f64) {
        if let Some(series) = self.series_mut(gauge, of) {
            series.put(t_s, value);
        }
    }

    /// Notes the most that there can be of something.
    pub fn limit(&mut self, gauge: &Gauge, of: Option<&str>, value: f64, source: LimitSource) {
        if let Some(series) = self.series_mut(gauge.clone(), of)
            && value.is_finite()
        {
            series.limit = Some(Limit { value, source });
        }
    }

    fn series_mut(&mut self, gauge: Gauge, of: Option<&str>) -> Option<&mut Series> {
        let known = self.series.iter().position(|series| series.gauge == gauge && series.of.as_deref() == of);
        if known.is_none() && self.series.len() >= SERIES {
            self.left_out += 1;
            return None;
        }
        let index = known.unwrap_or_else(|| {
            self.series.push(Series::new(gauge, of.map(str::to_owned)));
            self.series.len() - 1
        });
        self.series.get_mut(index)
    }

    /// A series, if it was ever measured.
    pub fn find(&self, gauge: &Gauge, of: Option<&str>) -> Option<&Series> {
        self.series
            .iter()
            .find(|series| series.gauge == *gauge && series.of.as_deref() == of && !series.points.is_empty())
    }

    /// Notes something that does not change; the last word counts.
    pub fn fact(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.facts.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.facts.push((name.to_owned(), value)),
        }
    }

    /// A fact's value.
    pub fn fact_of(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Notes that something cannot be watched; whatever it is, it is told once.
    pub fn miss(&mut self, what: &str, why: impl Into<String>) {
        if self.missing.iter().any(|missing| missing.what == what) {
            return;
        }
        if self.missing.len() >= TOLD {
            self.left_out += 1;
            return;
        }
        self.missing.push(Missing { what: what.to_owned(), why: why.into() });
    }

    /// Notes that nothing was seen at a moment. Gives whether that is new.
    pub fn blind(&mut self, at_s: f64, why: impl Into<String>) -> bool {
        if self.gaps.last().is_some_and(|gap| gap.to_s.is_none()) {
            return false;
        }
        if self.gaps.len() >= TOLD {
            self.left_out += 1;
            return false;
        }
        self.gaps.push(Gap { from_s: tenth(at_s), to_s: None, why: why.into() });
        true
    }

    /// Notes that something was seen at a moment, which ends a gap. Gives whether one ended.
    pub fn seen(&mut self, at_s: f64) -> bool {
        match self.gaps.last_mut() {
            Some(gap) if gap.to_s.is_none() => {
                gap.to_s = Some(tenth(at_s));
                true
            }
            _ => false,
        }
    }

    /// Notes that something happened.
    pub fn event(&mut self, at_s: f64, kind: EventKind, detail: impl Into<String>) {
        if self.events.len() >= TOLD {
            self.left_out += 1;
            return;
        }
        self.events.push(Event { t_s: tenth(at_s), kind, detail: detail.into() });
    }
}

fn tenth(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_series_is_bounded_and_keeps_its_extremes() {
        let mut series = Series::new(Gauge::Connections, None);
        for second in 0..10_000 {
            series.put(second, if second == 7_777 { 500.0 } else { 10.0 });
        }
        assert!(series.points.len() <= POINTS && series.step_s == 4, "{} {}", series.points.len(), series.step_s);
        let highest = series.highest().unwrap();
        assert_eq!((highest.max, highest.min), (500.0, 10.0));
        assert!((f64::from(highest.t_s) - 7_777.0).abs() < 4.0 && highest.mean > 10.0);
        let sum: f64 = series.points.iter().map(|point| point.mean * f64::from(point.count)).sum();
        assert!((sum - (9_999.0 * 10.0 + 500.0)).abs() < 1e-6, "the mean is exact: {sum}");
    }

    #[test]
    fn ten_measurements_of_a_second_are_a_point() {
        let mut series = Series::new(Gauge::Ping, None);
        for value in [100.0, 300.0, 200.0] {
            series.put(5, value);
        }
        series.put(7, 1.0);
        series.put(4, 9.0);
        series.put(5, 200.0);
        assert_eq!(series.points.iter().map(|point| point.t_s).collect::<Vec<_>>(), [4, 5, 7], "in order");
        series.points.retain(|point| point.t_s == 5);
        series.put(6, f64::NAN);
        assert_eq!(serde_json::to_string(&series.points).unwrap(), "[[5,200.0,100.0,300.0]]");
        let least = serde_json::to_string(&Point::new(1, 1e-310)).unwrap();
        assert!(serde_json::from_str::<Point>(&least).is_ok(), "{least}");
        let read: Vec<Point> = serde_json::from_str("[[5,200.0,100.0,300.0],[6,1.5]]").unwrap();
        assert_eq!((read[0].max, read[1].min), (300.0, 1.5));
    }

    #[test]
    fn gaps_begin_and_end_and_reasons_are_told_once() {
        let mut watched = Watched::new(Probe::Redis, "127.0.0.1:1");
        assert!(watched.blind(3.0, "refused") && !watched.blind(4.0, "refused"));
        assert!(watched.seen(6.04) && !watched.seen(7.0));
        assert_eq!(watched.gaps[0].to_s, Some(6.0));
        watched.miss("CONFIG GET", "denied");
        watched.miss("CONFIG GET", "denied again");
        assert_eq!(watched.missing.len(), 1);
        for number in 0..300 {
            watched.put(1, Gauge::Named(format!("n{number}")), None, 1.0);
        }
        assert_eq!((watched.series.len(), watched.left_out), (SERIES, 300 - SERIES as u64));
    }
}
