//! MongoDB, watched from outside: `serverStatus`, replication, and whose connections are busy.
//!
//! A server cannot see a client's wait queue. It is seen how many of the deployment's connections are in use; how long
//! operations wait for one is told by the deployment or inferred later.

mod audit;
mod pools;
mod status;

use std::time::Duration;

use mongodb::bson::{Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};

use super::error::SELECTION_S;
use super::process::environment;
use super::{APP_NAME, Moment, ProbeError, Rates};
use crate::record::{EventKind, Gauge, LimitSource, Watched};
use crate::scenario::{MongoProbe, ProcessProbe};
use crate::secret::{Secret, escaped};
pub use audit::audit;
pub(super) use pools::too_few;
pub use pools::{Demand, mongo_pools};

/// How long a server may take to be found, and a connection to be made.
const SELECTION: Duration = Duration::from_secs(SELECTION_S);
/// How long the end of a client may take.
const FAREWELL: Duration = Duration::from_millis(500);
/// The variable of LibreChat's pool, and the driver's default where a process has no such variable.
const POOL_VARIABLE: &str = "MONGO_MAX_POOL_SIZE";
/// Applications and hosts that have a series of their own.
const GROUPS: usize = 8;
/// A pool is taken to be full where so many looks found the same most in use, no less than this, and hardly any idle.
const PLATEAU_LOOKS: u32 = 10;
const PLATEAU_LEAST: f64 = 5.0;
/// Connections of a driver besides its pool: those that watch the server.
const MONITORS: f64 = 2.0;
/// MongoDB's port where the connection string names none.
const PORT: u16 = 27_017;
/// LibreChat's database where the connection string names none.
const DATABASE: &str = "LibreChat";

/// The options of our own connections to a store.
///
/// # Errors
/// When the string is none; what the driver says of it may repeat a password and is not told.
async fn options(uri: &Secret) -> Result<ClientOptions, ProbeError> {
    let example = "mongodb://USER:PASSWORD@HOST:PORT/DATABASE, with special characters percent-encoded";
    let mut options = ClientOptions::parse(uri.expose()).await.map_err(|_| ProbeError::Url { example })?;
    options.app_name = Some(APP_NAME.to_owned());
    options.server_selection_timeout = Some(SELECTION);
    options.connect_timeout = Some(SELECTION);
    options.max_pool_size = Some(2);
    options.min_pool_size = Some(0);
    Ok(options)
}

/// Ends a client and its connections, as far as that is done in a moment: the driver waits for all its tasks, and what
/// was given up in the middle of a checkout may keep one for ever.
async fn let_go(client: Client) {
    let _ = tokio::time::timeout(FAREWELL, client.shutdown().immediate(true)).await;
}

/// The watcher of a MongoDB.
pub(super) struct Mongo {
    uri: Secret,
    settings: MongoProbe,
    /// The most connections that the environment of the deployment's processes allows.
    environment: Option<f64>,
    client: Option<Client>,
    rates: Rates,
    /// Which server answered last, and how long it had been up, in milliseconds.
    server: Option<(String, f64)>,
    /// The application that counts as the deployment, where none was named.
    app: Option<String>,
    primary: Option<String>,
    denied: Vec<&'static str>,
    full: bool,
    plateau: Plateau,
}

/// The most connections in use, and how often they were all that there were.
#[derive(Debug, Default)]
struct Plateau {
    busy: f64,
    looks: u32,
}

impl Plateau {
    fn look(&mut self, open: f64, busy: f64) {
        if busy > self.busy {
            *self = Self { busy, looks: 0 };
        }
        if busy > 0.0 && busy >= self.busy && open - busy <= MONITORS {
            self.looks += 1;
        }
    }
}

impl Mongo {
    pub(super) fn new(uri: Secret, settings: MongoProbe, processes: &[ProcessProbe]) -> Self {
        let port = |host: &str| host.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(PORT);
        let ports: Vec<u16> = uri.hosts().split(',').map(port).collect();
        let pools = environment(processes, POOL_VARIABLE, &ports);
        Self {
            uri,
            settings,
            environment: pools,
            client: None,
            rates: Rates::default(),
            server: None,
            app: None,
            primary: None,
            denied: Vec::new(),
            full: false,
            plateau: Plateau::default(),
        }
    }

    async fn admin(&mut self) -> Result<Database, ProbeError> {
        let client = match &self.client {
            Some(client) => client.clone(),
            None => {
                let options = options(&self.uri).await?;
                let client = Client::with_options(options).map_err(|error| ProbeError::mongo(&error, &self.uri))?;
                self.client.insert(client).clone()
            }
        };
        Ok(client.database("admin"))
    }

    pub(super) async fn look(&mut self, moment: Moment, out: &mut Watched) -> Result<(), ProbeError> {
        let admin = self.admin().await?;
        let mut seen = false;
        if let Some(status) = self.ask(&admin, "serverStatus", status::server_status(), out).await? {
            seen = true;
            self.restarted(&status, moment, out);
            status::record(&status, &mut self.rates, moment, out);
            if status.get_document("repl").is_ok() {
                self.replication(&admin, moment, out).await?;
            }
        }
        if !self.denied.contains(&"$currentOp") {
            match status::connections(&admin, self.settings.app_name.as_deref()).await {
                Ok(groups) => {
                    seen = true;
                    self.connections(&groups, moment, out);
                }
                Err(error) => self.refused("$currentOp", &error, out)?,
            }
        }
        if seen { Ok(()) } else { Err(ProbeError::failed("nothing of it may be looked at; see what is missing")) }
    }

    /// A command, unless it was denied before. A denial is told once.
    async fn ask(
        &mut self,
        admin: &Database,
        what: &'static str,
        command: Document,
        out: &mut Watched,
    ) -> Result<Option<Document>, ProbeError> {
        if self.denied.contains(&what) {
            return Ok(None);
        }
        match admin.run_command(command).await {
            Ok(answer) => Ok(Some(answer)),
            Err(error) => self.refused(what, &error, out).map(|()| None),
        }
    }

    fn refused(
        &mut self,
        what: &'static str,
        error: &mongodb::error::Error,
        out: &mut Watched,
    ) -> Result<(), ProbeError> {
        let error = ProbeError::mongo(error, &self.uri);
        if !error.is_denied() {
            return Err(error);
        }
        self.denied.push(what);
        out.miss(what, error.to_string());
        Ok(())
    }

    fn restarted(&mut self, status: &Document, moment: Moment, out: &mut Watched) {
        let uptime = status::number(status, "uptimeMillis").unwrap_or(0.0);
        let now = (status::server(status), uptime);
        let Some((server, before)) = self.server.replace(now.clone()) else { return };
        let same = |name: &str| name.split(' ').next().map(str::to_owned);
        if server == now.0 && uptime >= before {
            return;
        }
        // Another server's counters are no continuation of this one's.
        self.rates.forget();
        if same(&server) == same(&now.0) {
            out.event(moment.at_s, EventKind::Restarted, format!("up for {:.1} s", uptime / 1e3));
        }
    }

    async fn replication(&mut self, admin: &Database, moment: Moment, out: &mut Watched) -> Result<(), ProbeError> {
        let Some(set) = self.ask(admin, "replSetGetStatus", doc! { "replSetGetStatus": 1 }, out).await? else {
            return Ok(());
        };
        let (primary, lag_us) = status::replication(&set);
        if let Ok(name) = set.get_str("set") {
            out.fact("replica set", escaped(name, 100));
        }
        out.fact("members", set.get_array("members").map_or(0, Vec::len).to_string());
        if let Some(lag_us) = lag_us {
            out.put(moment.second, Gauge::ReplicationLag, None, lag_us);
        }
        if let Some(primary) = primary {
            let primary = escaped(&primary, 200);
            let before = self.primary.replace(primary.clone());
            if let Some(before) = before.filter(|before| *before != primary) {
                out.event(moment.at_s, EventKind::Failover, format!("{before} -> {primary}"));
            }
        }
        Ok(())
    }

    fn connections(&mut self, groups: &[status::Group], moment: Moment, out: &mut Watched) {
        let app = self.deployment(groups);
        let (deployment, others): (Vec<&status::Group>, Vec<&status::Group>) =
            groups.iter().partition(|group| Some(&group.app) == app.as_ref());
        let sum = |sum: (f64, f64), group: &&status::Group| (sum.0 + group.open, sum.1 + group.busy);
        let (open, busy) = deployment.iter().fold((0.0, 0.0), sum);
        out.put(moment.second, Gauge::PoolOpen, None, open);
        out.put(moment.second, Gauge::PoolBusy, None, busy);
        if groups.len() > 1 {
            for group in deployment.iter().chain(&others).take(GROUPS) {
                out.put(moment.second, Gauge::PoolOpen, Some(&group.name), group.open);
                out.put(moment.second, Gauge::PoolBusy, Some(&group.name), group.busy);
            }
        }
        if let Some(app) = &self.app {
            out.fact("application", escaped(app, 100));
        }
        self.plateau.look(open, busy);
        let Some((limit, source)) = self.limit() else { return };
        out.limit(&Gauge::PoolBusy, None, limit, source);
        let full = busy >= limit;
        if full && !self.full {
            out.event(moment.at_s, EventKind::PoolFull, format!("{busy} of {limit}"));
        }
        // A pool that is full at every other look was not empty in between.
        self.full = full || self.full && busy >= 0.8 * limit;
    }

    /// The application that is the deployment: the one that was named, else the one with the most connections; it
    /// stays so until another one has twice as many.
    fn deployment(&mut self, groups: &[status::Group]) -> Option<String> {
        if let Some(app) = &self.settings.app_name {
            self.app = Some(app.clone());
            return self.app.clone();
        }
        let open = |app: &str| groups.iter().filter(|group| group.app == app).map(|group| group.open).sum::<f64>();
        let most = groups.iter().map(|group| &group.app).max_by(|one, other| open(one).total_cmp(&open(other)))?;
        if self.app.as_ref().is_none_or(|app| open(most) > 2.0 * open(app)) {
            self.app = Some(most.clone());
        }
        self.app.clone()
    }

    /// The most connections of the deployment, where that is said.
    fn limit(&self) -> Option<(f64, LimitSource)> {
        let scenario = self.settings.max_connections.map(|most| (f64::from(most), LimitSource::Scenario));
        scenario.or_else(|| self.environment.map(|most| (most, LimitSource::Environment)))
    }

    pub(super) fn last_words(&mut self, out: &mut Watched) {
        if self.limit().is_none() && self.plateau.looks >= PLATEAU_LOOKS && self.plateau.busy >= PLATEAU_LEAST {
            out.limit(&Gauge::PoolBusy, None, self.plateau.busy, LimitSource::Plateau);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plateau_wants_the_same_most_again_and_again_with_none_idle() {
        let mut plateau = Plateau::default();
        for (open, busy) in [(6.0, 5.0), (6.0, 5.0), (50.0, 5.0), (6.0, 4.0), (8.0, 8.0)] {
            plateau.look(open, busy);
        }
        assert_eq!((plateau.busy, plateau.looks), (8.0, 1));
    }
}
