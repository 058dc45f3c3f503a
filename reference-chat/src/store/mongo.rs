//! MongoDB: the connection with its pool as LibreChat sets it, the indexes, and what is planted.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::error::{Error, ErrorKind};
use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use mongodb::options::{ClientOptions, IndexOptions};
use mongodb::{Client, Collection, Database, IndexModel};

use super::{MongoSettings, PATIENCE, StoreError, secrets, shown};
use crate::metrics::Metrics;
use crate::plant::Plant;

/// The flag that names the database.
pub(crate) const FLAG: &str = "--mongo-uri";
/// What MongoDB knows the deployment as; the plant of slowness is for this name alone.
const APP_NAME: &str = "LibreChat";
const NAME: &str = "MongoDB";
/// How long a server may take to be found.
const SELECTION: Duration = Duration::from_secs(2);
/// Connections that are there from the start, where the pool holds so many.
const WARM: u32 = 10;
/// Documents of one insert.
const BATCH: u64 = 1_000;
/// The server's code for a command that it does not know.
const COMMAND_NOT_FOUND: i32 = 59;

/// A deployment's database.
pub(crate) struct Mongo {
    client: Client,
    database: Database,
    pub(super) metrics: Arc<Metrics>,
    secrets: Vec<String>,
    /// Marks what fills `logs`.
    filler: String,
    planted: Mutex<Planted>,
}

#[derive(Default, Clone, Copy)]
struct Planted {
    slow: bool,
    filled: bool,
}

impl Mongo {
    /// Connects, waits for an answer, fills the pool and makes the indexes.
    pub(crate) async fn open(settings: &MongoSettings, metrics: &Arc<Metrics>) -> Result<Self, StoreError> {
        let said = |what: String| StoreError::Refused { store: NAME, what };
        let secrets = secrets(&settings.uri);
        // What the driver says of a string that it cannot read repeats parts of it, the password perhaps.
        let parsed = tokio::time::timeout(PATIENCE, ClientOptions::parse(settings.uri.as_str())).await;
        let Ok(Ok(mut options)) = parsed else { return Err(said(UNREADABLE.to_owned())) };
        options.app_name = Some(APP_NAME.to_owned());
        options.server_selection_timeout = Some(SELECTION);
        options.connect_timeout = Some(SELECTION);
        options.max_pool_size = Some(settings.pool);
        options.min_pool_size = Some(settings.pool.min(WARM));
        options.cmap_event_handler = Some(pool_events(Arc::clone(metrics)));
        metrics.pool.max.add(i64::from(settings.pool));
        let client = Client::with_options(options).map_err(|error| said(shown(&error, &secrets)))?;
        let database = client.database(&settings.database);
        let mongo = Self {
            client,
            database,
            metrics: Arc::clone(metrics),
            secrets,
            filler: uuid::Uuid::new_v4().to_string(),
            planted: Mutex::default(),
        };
        let ready = async {
            mongo.database.run_command(doc! { "ping": 1 }).await?;
            mongo.client.warm_connection_pool().await;
            Ok::<_, Error>(())
        };
        match tokio::time::timeout(PATIENCE, ready).await {
            Ok(answered) => answered.map_err(|error| mongo.failed(&error))?,
            Err(_) => return Err(said(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
        // On a database that is full already this may take its time.
        mongo.make_indexes().await.map_err(|error| mongo.failed(&error))?;
        Ok(mongo)
    }

    /// The indexes that LibreChat has, as far as they matter here. `logs` has none but `_id`.
    async fn make_indexes(&self) -> Result<(), Error> {
        let plain = |keys: Document| IndexModel::builder().keys(keys).build();
        let unique = IndexOptions::builder().unique(true).build();
        let users = IndexModel::builder().keys(doc! { "email": 1 }).options(unique).build();
        let messages =
            [doc! { "messageId": 1 }, doc! { "conversationId": 1 }, doc! { "user": 1 }, doc! { "createdAt": 1 }];
        let conversations = [doc! { "conversationId": 1 }, doc! { "user": 1 }, doc! { "createdAt": 1, "updatedAt": 1 }];
        self.documents("users").create_index(users).await?;
        self.documents("messages").create_indexes(messages.map(plain)).await?;
        self.documents("conversations").create_indexes(conversations.map(plain)).await?;
        self.documents("transactions").create_index(plain(doc! { "user": 1 })).await?;
        Ok(())
    }

    pub(super) fn documents(&self, collection: &str) -> Collection<Document> {
        self.database.collection(collection)
    }

    /// What the driver said, without secrets.
    pub(super) fn failed(&self, error: &Error) -> StoreError {
        StoreError::Refused { store: NAME, what: shown(error, &self.secrets) }
    }

    /// One operation, measured from asking for a connection to its answer.
    pub(super) async fn timed<T>(
        &self,
        operation: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T, StoreError> {
        self.measured(operation).await.map_err(|error| self.failed(&error))
    }

    /// The same, with the driver's own error.
    pub(super) async fn measured<T>(
        &self,
        operation: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> mongodb::error::Result<T> {
        let began = Instant::now();
        let result = operation.into_future().await;
        self.metrics.pool.query.observe(began.elapsed());
        result
    }

    fn planted(&self) -> std::sync::MutexGuard<'_, Planted> {
        self.planted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `logs` first: slowness would slow that down too.
    pub(super) async fn plant(&self, plants: &[Plant]) -> Result<(), StoreError> {
        for plant in plants {
            if let Plant::Logs(count) = plant {
                self.planted().filled = true;
                self.fill_logs(*count).await.map_err(|error| self.failed(&error))?;
            }
        }
        for plant in plants {
            if let Plant::SlowMongo(delay) = plant {
                // Noted before it is sent: one whose answer is lost is taken back too.
                self.planted().slow = true;
                self.slow_down(*delay).await?;
            }
        }
        Ok(())
    }

    async fn fill_logs(&self, count: u64) -> Result<(), Error> {
        let logs = self.documents("logs");
        let mut made = 0;
        while made < count {
            let end = count.min(made + BATCH);
            let batch: Vec<Document> = (made..end)
                .map(|number| {
                    let key = format!("filler:{}:{number}", self.filler);
                    doc! { "key": key, "value": "{\"value\":1,\"expires\":null}", "filler": &self.filler }
                })
                .collect();
            logs.insert_many(batch).await?;
            made = end;
        }
        Ok(())
    }

    async fn slow_down(&self, delay: Duration) -> Result<(), StoreError> {
        let millis = i32::try_from(delay.as_millis()).unwrap_or(i32::MAX);
        let command = doc! {
            "configureFailPoint": "failCommand", "mode": "alwaysOn",
            "data": {
                "failCommands": ["find", "update", "insert", "aggregate", "findAndModify"],
                "blockConnection": true, "blockTimeMS": millis, "appName": APP_NAME,
            },
        };
        match self.client.database("admin").run_command(command).await {
            Ok(_) => Ok(()),
            Err(error) if is_unknown_command(&error) => Err(StoreError::Plant(
                "the plant `slow-mongo` wants a mongod that was started with --setParameter enableTestCommands=1"
                    .to_owned(),
            )),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Takes back what was planted, then, for scratch, drops the database.
    pub(super) async fn close(&self, scratch: bool) -> Result<(), StoreError> {
        let Planted { slow, filled } = std::mem::take(&mut *self.planted());
        let mut result = Ok(());
        if slow {
            let command = doc! { "configureFailPoint": "failCommand", "mode": "off" };
            result = result.and(self.client.database("admin").run_command(command).await.map(drop));
        }
        if scratch {
            result = result.and(self.database.drop().await);
        } else if filled {
            let filler = doc! { "filler": &self.filler };
            result = result.and(self.documents("logs").delete_many(filler).await.map(drop));
        }
        result.map_err(|error| self.failed(&error))
    }
}

/// What is said of a connection string that the driver does not take.
const UNREADABLE: &str = "the connection string cannot be read or its host not be found; it looks like \
     mongodb://USER:PASSWORD@HOST:PORT/DATABASE, with special characters of the password percent-encoded";

/// The database that a connection string names.
///
/// # Errors
/// When it is none.
pub(crate) fn named_database(uri: &str) -> Result<Option<String>, StoreError> {
    // What the driver says of it might repeat the password.
    let parsed = mongodb::options::ConnectionString::parse(uri).map_err(|_| StoreError::Unusable {
        store: NAME,
        flag: FLAG,
        what: UNREADABLE.to_owned(),
    })?;
    Ok(parsed.default_database)
}

fn is_unknown_command(error: &Error) -> bool {
    matches!(error.kind.as_ref(), ErrorKind::Command(said) if said.code == COMMAND_NOT_FOUND)
}

/// Counts connections and measures how long they were waited for.
fn pool_events(metrics: Arc<Metrics>) -> EventHandler<CmapEvent> {
    // By name: a connection that warms the pool is checked in without ever having been checked out.
    let busy = Mutex::new(HashSet::new());
    EventHandler::callback(move |event| {
        let pool = &metrics.pool;
        let mut busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            CmapEvent::ConnectionCreated(_) => pool.open.add(1),
            CmapEvent::ConnectionClosed(event) => {
                pool.open.add(-1);
                pool.busy.add(-i64::from(busy.remove(&event.connection_id)));
            }
            CmapEvent::ConnectionCheckedOut(event) => {
                pool.busy.add(i64::from(busy.insert(event.connection_id)));
                pool.checkout.observe(event.duration);
            }
            CmapEvent::ConnectionCheckoutFailed(event) => pool.checkout.observe(event.duration),
            CmapEvent::ConnectionCheckedIn(event) => pool.busy.add(-i64::from(busy.remove(&event.connection_id))),
            _ => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_the_one_that_the_uri_names() {
        assert_eq!(named_database("mongodb://me:word@127.0.0.1:27017/chat").unwrap().as_deref(), Some("chat"));
        assert_eq!(named_database("mongodb://127.0.0.1:27017").unwrap(), None);
        let error = named_database("me:w@rd@nowhere").unwrap_err().to_string();
        assert!(error.starts_with("cannot use MongoDB (--mongo-uri)") && !error.contains("rd@"), "{error}");
    }
}
