//! The quantities that probes watch, by name.

use serde::{Deserialize, Serialize};

/// What the values of a series are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// A number of things.
    Count,
    /// Things a second.
    PerSecond,
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Microseconds.
    Micros,
    /// From 0 to 1.
    Share,
    /// Cores: CPU time over wall time.
    Cores,
    /// Whatever the endpoint counts in.
    Unknown,
}

/// A quantity that is watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gauge {
    /// Connections that a server has.
    Connections,
    /// Of them, those that do something right now.
    ConnectionsActive,
    /// Connections made.
    ConnectionsCreated,
    /// Connections of the deployment to its database.
    PoolOpen,
    /// Of them, those that are in use.
    PoolBusy,
    /// How long an operation of the deployment waits for a connection.
    CheckoutWait,
    /// Connections that were waited for, and given out or refused.
    Checkouts,
    /// Operations that wait for a lock to read.
    QueuedReaders,
    /// Operations that wait for a lock to write.
    QueuedWriters,
    /// Tickets of the storage engine in use by reads.
    ReadTickets,
    /// Tickets of the storage engine in use by writes.
    WriteTickets,
    /// Operations or commands, of all kinds.
    Operations,
    /// Finds and aggregations.
    Queries,
    /// Documents inserted.
    Inserts,
    /// Updates.
    Updates,
    /// Deletes.
    Deletes,
    /// Further batches of cursors.
    GetMores,
    /// Other commands.
    Commands,
    /// The mean time of a read within the server.
    ReadLatency,
    /// The mean time of a write within the server.
    WriteLatency,
    /// The mean time of another command within the server.
    CommandLatency,
    /// Received.
    NetworkIn,
    /// Sent.
    NetworkOut,
    /// Memory in use.
    Memory,
    /// Fill of the cache.
    CacheUsed,
    /// Of it, what is not written yet.
    CacheDirty,
    /// Pages that operations themselves had to evict.
    CacheEvicted,
    /// Open cursors.
    Cursors,
    /// How far the last replica is behind, in time.
    ReplicationLag,
    /// How far the last replica is behind, in bytes.
    ReplicationBehind,
    /// Clients that wait in a blocking command.
    BlockedClients,
    /// What waits in output buffers of clients.
    OutputBuffers,
    /// Resident memory over used memory.
    Fragmentation,
    /// Keys evicted.
    Evicted,
    /// Keys expired.
    Expired,
    /// Connections refused.
    Rejected,
    /// Of look-ups, those that found something.
    HitShare,
    /// Keys.
    Keys,
    /// Entries of the slow log.
    SlowCommands,
    /// Round trip of a PING.
    Ping,
    /// CPU time.
    Cpu,
    /// Share of the time in which it was throttled.
    Throttled,
    /// Open file descriptors.
    Descriptors,
    /// Threads.
    Threads,
    /// Processes.
    Processes,
    /// Context switches because it waited.
    SwitchesVoluntary,
    /// Context switches because somebody else wanted the core.
    SwitchesInvoluntary,
    /// Sockets of its ports that are established.
    SocketsEstablished,
    /// Sockets of its ports that wait for the end.
    SocketsTimeWait,
    /// Sockets of its ports that the other side has closed.
    SocketsCloseWait,
    /// Connections that wait to be accepted.
    ListenQueue,
    /// Connections lost because the listen queue was full, in the whole network namespace.
    ListenOverflows,
    /// How long a cheap request takes.
    HealthLatency,
    /// Cheap requests that failed.
    HealthFailures,
    /// A series that an endpoint tells, by its name there.
    #[serde(untagged)]
    Named(String),
}

impl Gauge {
    /// Its unit.
    pub fn unit(&self) -> Unit {
        match self {
            Self::ConnectionsCreated
            | Self::Checkouts
            | Self::Operations
            | Self::Queries
            | Self::Inserts
            | Self::Updates
            | Self::Deletes
            | Self::GetMores
            | Self::Commands
            | Self::CacheEvicted
            | Self::Evicted
            | Self::Expired
            | Self::Rejected
            | Self::SlowCommands
            | Self::SwitchesVoluntary
            | Self::SwitchesInvoluntary
            | Self::ListenOverflows
            | Self::HealthFailures => Unit::PerSecond,
            Self::CheckoutWait
            | Self::ReadLatency
            | Self::WriteLatency
            | Self::CommandLatency
            | Self::ReplicationLag
            | Self::Ping
            | Self::HealthLatency => Unit::Micros,
            Self::NetworkIn | Self::NetworkOut => Unit::BytesPerSecond,
            Self::Memory | Self::CacheUsed | Self::CacheDirty | Self::ReplicationBehind | Self::OutputBuffers => {
                Unit::Bytes
            }
            Self::HitShare | Self::Throttled => Unit::Share,
            Self::Cpu => Unit::Cores,
            Self::Fragmentation | Self::Named(_) => Unit::Unknown,
            Self::Connections
            | Self::ConnectionsActive
            | Self::PoolOpen
            | Self::PoolBusy
            | Self::QueuedReaders
            | Self::QueuedWriters
            | Self::ReadTickets
            | Self::WriteTickets
            | Self::Cursors
            | Self::BlockedClients
            | Self::Keys
            | Self::Descriptors
            | Self::Threads
            | Self::Processes
            | Self::SocketsEstablished
            | Self::SocketsTimeWait
            | Self::SocketsCloseWait
            | Self::ListenQueue => Unit::Count,
        }
    }
}
