//! Redis: the connections, and what is counted and kept there besides streams.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, IntoConnectionInfo as _, Pipeline};

use super::hub::Hub;
use super::{PATIENCE, RedisSettings, StoreError, secrets, shown};
use crate::limits::{Limiter, Standing, Who};
use crate::plant::Plant;
use crate::settings::Limit;

/// The flag that names the server.
pub(crate) const FLAG: &str = "--redis-url";
/// What Redis knows the connections as.
const CLIENT_NAME: &str = "reference-chat";
const NAME: &str = "Redis";
/// How long a connection may take.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// How long a command may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long an open turn counts, should nobody close it.
const PENDING: Duration = Duration::from_secs(120);
/// Keys of one step of a removal.
const STEP: usize = 1_000;

/// A deployment's Redis. Like a LibreChat process it has three connections.
pub(crate) struct Redis {
    /// For what is kept and counted.
    pub(super) commands: Line,
    /// For the frames of streams.
    pub(super) publishing: Line,
    pub(super) hub: Hub,
    pub(super) prefix: String,
    scratch: bool,
    /// Settings of the server that were changed, with their old values.
    changed: Mutex<Vec<(&'static str, String)>>,
}

/// One connection, made anew after it was lost.
pub(super) struct Line {
    client: redis::Client,
    secrets: Vec<String>,
    open: tokio::sync::Mutex<(u64, Option<MultiplexedConnection>)>,
}

impl Line {
    fn new(client: &redis::Client, secrets: &[String]) -> Self {
        Self { client: client.clone(), secrets: secrets.to_vec(), open: tokio::sync::Mutex::default() }
    }

    fn failed(&self, error: &redis::RedisError) -> StoreError {
        StoreError::Refused { store: NAME, what: shown(error, &self.secrets) }
    }

    /// The connection and its number; whoever comes while it is being made waits for it.
    async fn connection(&self) -> redis::RedisResult<(u64, MultiplexedConnection)> {
        let mut open = self.open.lock().await;
        if let (number, Some(connection)) = &*open {
            return Ok((*number, connection.clone()));
        }
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER));
        let mut connection = Box::pin(self.client.get_multiplexed_async_connection_with_config(&config)).await?;
        redis::cmd("CLIENT").arg("SETNAME").arg(CLIENT_NAME).exec_async(&mut connection).await?;
        open.0 += 1;
        open.1 = Some(connection.clone());
        Ok((open.0, connection))
    }

    /// Runs commands in one go. After a broken connection the next one who asks makes a new one.
    pub(super) async fn run<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, StoreError> {
        let (number, mut connection) = self.connection().await.map_err(|error| self.failed(&error))?;
        let result: redis::RedisResult<T> = commands.query_async(&mut connection).await;
        if let Err(error) = &result
            && (error.is_io_error() || error.is_unrecoverable_error())
        {
            let mut open = self.open.lock().await;
            // Somebody else may have made a new one already.
            if open.0 == number {
                open.1 = None;
            }
        }
        result.map_err(|error| self.failed(&error))
    }
}

impl Redis {
    /// Connects and waits for an answer.
    pub(crate) async fn open(settings: &RedisSettings, scratch: bool) -> Result<Self, StoreError> {
        let said = |what: &str| StoreError::Refused { store: NAME, what: what.to_owned() };
        // What the client says of a URL that it cannot read may repeat the password.
        let unreadable = "the URL cannot be read; it looks like redis://USER:PASSWORD@HOST:PORT";
        let info = settings.url.as_str().into_connection_info().map_err(|_| said(unreadable))?;
        let named = info.redis_settings().clone().set_lib_name(CLIENT_NAME, env!("CARGO_PKG_VERSION"));
        let client = redis::Client::open(info.set_redis_settings(named)).map_err(|_| said(unreadable))?;
        let secrets = secrets(&settings.url);
        let redis = Self {
            commands: Line::new(&client, &secrets),
            publishing: Line::new(&client, &secrets),
            hub: Hub::start(client),
            prefix: settings.prefix.clone(),
            scratch,
            changed: Mutex::default(),
        };
        let mut ping = redis::pipe();
        ping.cmd("PING").ignore();
        let ready = async {
            redis.commands.run::<()>(&ping).await?;
            redis.publishing.run::<()>(&ping).await
        };
        match tokio::time::timeout(PATIENCE, ready).await {
            Ok(result) => result.map(|()| redis),
            Err(_) => Err(said(&format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    /// A key with the prefix in front.
    pub(super) fn key(&self, rest: &str) -> String {
        format!("{}::{rest}", self.prefix)
    }

    /// Counts a hit in a window that begins with its first.
    pub(crate) async fn hit(&self, limiter: Limiter, who: &Who, limit: Limit) -> Result<Standing, StoreError> {
        let key = self.limiter_key(limiter, who);
        let mut hit = redis::pipe();
        hit.cmd("INCR").arg(key.as_str()).cmd("PTTL").arg(key.as_str());
        let (count, left): (u64, i64) = self.commands.run(&hit).await?;
        let reset = match u64::try_from(left) {
            Ok(left) => Duration::from_millis(left),
            // The first of its window, or one whose first hit never set the end.
            Err(_) => {
                let mut begin = redis::pipe();
                begin.cmd("PEXPIRE").arg(key.as_str()).arg(limit.per.as_millis() as u64).ignore();
                self.commands.run::<()>(&begin).await?;
                limit.per
            }
        };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let remaining = limit.max.saturating_sub(count);
        Ok(Standing { max: limit.max, remaining, admitted: count <= limit.max, reset })
    }

    /// LibreChat's limiters have no prefix; for scratch they have, so that they can be removed.
    fn limiter_key(&self, limiter: Limiter, who: &Who) -> String {
        let name = match limiter {
            Limiter::Login => "login_limiter",
            Limiter::Register => "register_limiter",
            Limiter::MessageIp => "message_ip_limiter",
            Limiter::MessageUser => "message_user_limiter",
        };
        let key = format!("{name}:{}", who.name());
        if self.scratch { self.key(&key) } else { key }
    }

    /// Keeps a session's user.
    pub(crate) async fn keep_session(&self, session: &str, user: &str, life: Duration) -> Result<(), StoreError> {
        let mut keep = redis::pipe();
        let key = self.key(&format!("session:{session}"));
        keep.cmd("SET").arg(key).arg(user).arg("EX").arg(life.as_secs()).ignore();
        self.commands.run(&keep).await
    }

    /// Takes a session away and tells whose it was; one alone of several who ask is told.
    pub(crate) async fn take_session(&self, session: &str) -> Result<Option<String>, StoreError> {
        let mut take = redis::pipe();
        let key = self.key(&format!("session:{session}"));
        // In one transaction, for GETDEL is younger than Redis 6.2.
        take.atomic().cmd("GET").arg(key.as_str()).cmd("DEL").arg(key.as_str()).ignore();
        let (user,): (Option<String>,) = self.commands.run(&take).await?;
        Ok(user)
    }

    fn pending_key(&self, user: &str) -> String {
        self.key(&format!("pending_req:{user}"))
    }

    /// Opens one more turn of a user; gives how many are open with it.
    pub(crate) async fn enter(&self, user: &str) -> Result<u32, StoreError> {
        let mut enter = redis::pipe();
        let key = self.pending_key(user);
        enter.cmd("INCR").arg(key.as_str());
        enter.cmd("EXPIRE").arg(key.as_str()).arg(PENDING.as_secs()).ignore();
        let (open,): (i64,) = self.commands.run(&enter).await?;
        // A count that ran out under long turns goes below nothing when they end.
        Ok(u32::try_from(open.max(1)).unwrap_or(u32::MAX))
    }

    /// Closes a turn of a user.
    pub(crate) async fn leave(&self, user: &str) -> Result<(), StoreError> {
        let key = self.pending_key(user);
        let mut leave = redis::pipe();
        leave.cmd("DECR").arg(key.as_str());
        let (open,): (i64,) = self.commands.run(&leave).await?;
        if open <= 0 {
            let mut remove = redis::pipe();
            remove.cmd("DEL").arg(key.as_str()).ignore();
            self.commands.run::<()>(&remove).await?;
        }
        Ok(())
    }

    fn changed(&self) -> std::sync::MutexGuard<'_, Vec<(&'static str, String)>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn plant(&self, plants: &[Plant]) -> Result<(), StoreError> {
        for plant in plants {
            match plant {
                Plant::RedisMaxClients(count) => self.change("maxclients", &count.to_string()).await?,
                Plant::RedisMaxMemory(bytes) => {
                    self.change("maxmemory-policy", "noeviction").await?;
                    self.change("maxmemory", &bytes.to_string()).await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Changes a setting of the server, and notes what it was.
    async fn change(&self, name: &'static str, value: &str) -> Result<(), StoreError> {
        let mut ask = redis::pipe();
        ask.cmd("CONFIG").arg("GET").arg(name);
        let (found,): (Vec<String>,) = self.commands.run(&ask).await?;
        let Some(old) = found.into_iter().nth(1) else {
            return Err(StoreError::Refused { store: NAME, what: format!("the server has no setting `{name}`") });
        };
        // Noted before it is sent: one whose answer is lost is taken back too.
        self.changed().push((name, old));
        self.set(name, value).await
    }

    async fn set(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let mut set = redis::pipe();
        set.cmd("CONFIG").arg("SET").arg(name).arg(value).ignore();
        self.commands.run(&set).await
    }

    /// Takes back what was changed, the last first; then, for scratch, removes all keys with the prefix.
    pub(super) async fn close(&self, scratch: bool) -> Result<(), StoreError> {
        let changed = std::mem::take(&mut *self.changed());
        let mut result = Ok(());
        for (name, old) in changed.into_iter().rev() {
            result = result.and(self.set(name, &old).await);
        }
        // Without a prefix it would be everything that anybody has there.
        if scratch && !self.prefix.is_empty() {
            result = result.and(self.remove_all().await);
        }
        result
    }

    async fn remove_all(&self) -> Result<(), StoreError> {
        let pattern = format!("{}*", literally(&self.prefix));
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::pipe();
            scan.cmd("SCAN").arg(cursor).arg("MATCH").arg(pattern.as_str()).arg("COUNT").arg(STEP);
            let ((next, keys),): ((u64, Vec<Vec<u8>>),) = self.commands.run(&scan).await?;
            if !keys.is_empty() {
                let mut remove = redis::pipe();
                remove.cmd("DEL").arg(keys).ignore();
                self.commands.run::<()>(&remove).await?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }
}

/// A text that stands for itself in a pattern of Redis.
fn literally(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

impl Who {
    /// As keys have it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Address(address) => address_name(*address),
            Self::User(user) => user.clone(),
        }
    }
}

/// An address as Node writes it: one of IPv4 that came in through IPv6 is one of IPv4.
fn address_name(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_stands_for_itself_in_a_pattern() {
        assert_eq!(literally("chat"), "chat");
        assert_eq!(literally("a*[b]"), "a\\*\\[b\\]");
    }

    #[test]
    fn a_limiters_key_names_whom_it_counts() {
        assert_eq!(Who::User("a".to_owned()).name(), "a");
        assert_eq!(Who::Address("::ffff:127.0.0.1".parse().unwrap()).name(), "127.0.0.1");
    }
}
