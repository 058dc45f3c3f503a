//! Why a probe sees nothing: each reason with the next step.

use mongodb::error::{Error as MongoError, ErrorKind};
use redis::{ErrorKind as RedisKind, RedisError};

use crate::secret::{Secret, escaped, without_url_secrets};

/// The longest text of a server that is repeated.
const FOREIGN: usize = 300;

/// How long a MongoDB server may take to be found, in seconds.
pub(super) const SELECTION_S: u64 = 2;

/// Why a probe sees nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The connection string is none.
    #[error("the connection string cannot be read; it looks like {example}")]
    Url {
        /// One that can.
        example: &'static str,
    },
    /// Nobody listens.
    #[error("nothing listens there: {said}")]
    Refused {
        /// What the driver said.
        said: String,
    },
    /// It takes too long.
    #[error("no answer in {seconds} s")]
    Silent {
        /// The time.
        seconds: u64,
    },
    /// Somebody listens and says nothing.
    #[error("what listens there says nothing in {seconds} s: it hangs, or is no {wanted}")]
    Mute {
        /// What was expected.
        wanted: &'static str,
        /// The time.
        seconds: u64,
    },
    /// The connection was cut.
    #[error("the connection was cut ({said}): the server has ended, or is no {wanted}")]
    Cut {
        /// What was expected.
        wanted: &'static str,
        /// What the client said.
        said: String,
    },
    /// User or password is wrong.
    #[error("it does not let us in: {said}; check user, password and, for MongoDB, authSource")]
    Credentials {
        /// What the server said.
        said: String,
    },
    /// Something else than expected answers.
    #[error("what answers there is no {wanted}: {said}")]
    Other {
        /// What was expected.
        wanted: &'static str,
        /// What came.
        said: String,
    },
    /// We may not.
    #[error("not allowed: {said}; {grant}")]
    Denied {
        /// What the server said.
        said: String,
        /// What would allow it.
        grant: &'static str,
    },
    /// Whatever else went wrong.
    #[error("{said}")]
    Failed {
        /// What was said.
        said: String,
    },
}

impl ProbeError {
    /// Whatever else went wrong.
    pub(super) fn failed(said: impl std::fmt::Display) -> Self {
        Self::Failed { said: escaped(&said.to_string(), FOREIGN) }
    }

    /// Whether it is a matter of privileges, which the next look will not find otherwise.
    pub(super) fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }

    /// What MongoDB's driver says.
    pub(super) fn mongo(error: &MongoError, uri: &Secret) -> Self {
        let said = escaped(&without_url_secrets(&error.to_string(), uri), FOREIGN);
        match error.kind.as_ref() {
            ErrorKind::Authentication { .. } => Self::Credentials { said },
            ErrorKind::Command(command) if [13, 8000].contains(&command.code) => {
                let grant =
                    "grant the account the role clusterMonitor, and read on the deployment's database for the indexes";
                Self::Denied { said, grant }
            }
            // What only looks like MongoDB does not know all its commands.
            ErrorKind::Command(command) if [59, 115].contains(&command.code) => {
                Self::Denied { said, grant: "the server does not offer it" }
            }
            ErrorKind::Command(command) if command.code == 18 => Self::Credentials { said },
            // The driver wraps what it met while it looked for a server.
            ErrorKind::ServerSelection { message, .. } => Self::selection(message, said),
            ErrorKind::InvalidResponse { .. } | ErrorKind::BsonDeserialization(_) => {
                Self::Other { wanted: "MongoDB", said }
            }
            _ if of_another_server(&said) => Self::Other { wanted: "MongoDB", said },
            _ => Self::Failed { said },
        }
    }

    fn selection(message: &str, said: String) -> Self {
        if message.contains("Connection refused") {
            return Self::Refused { said: refused(message) };
        }
        if message.contains("uthentication failed") || message.contains("SCRAM failure") {
            return Self::Credentials { said };
        }
        if of_another_server(message) {
            return Self::Other { wanted: "MongoDB", said };
        }
        if !message.contains("Error") {
            // Whoever listens there has said nothing: a server that hangs, or one that waits for other words.
            return Self::Mute { wanted: "MongoDB", seconds: SELECTION_S };
        }
        Self::Failed { said }
    }

    /// What Redis' client says.
    pub(super) fn redis(error: &RedisError, url: &Secret) -> Self {
        let said = escaped(&without_url_secrets(&error.to_string(), url), FOREIGN);
        if error.is_connection_refusal() {
            return Self::Refused { said };
        }
        match (error.kind(), error.code()) {
            (_, Some("NOPERM")) => {
                Self::Denied { said, grant: "allow it in the ACL: +info +client|list +slowlog +latency +config|get" }
            }
            (RedisKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => Self::Credentials { said },
            // Managed servers rename what they do not offer.
            (_, Some("ERR")) if said.contains("unknown command") => {
                Self::Denied { said, grant: "the server does not offer it" }
            }
            (RedisKind::Parse | RedisKind::UnexpectedReturnType, _) => Self::Other { wanted: "Redis", said },
            _ if error.is_connection_dropped() => Self::Cut { wanted: "Redis", said },
            _ if error.is_timeout() => Self::Silent { seconds: super::PATIENCE.as_secs() },
            _ => Self::Failed { said },
        }
    }
}

/// The one sentence of the driver's long one that says who refused.
fn refused(message: &str) -> String {
    let from = message.find("Connection refused").unwrap_or(0);
    escaped(message.get(from..).unwrap_or(message).split([',', '}']).next().unwrap_or(""), FOREIGN)
}

/// What the driver says of bytes that are no MongoDB's.
fn of_another_server(message: &str) -> bool {
    [
        "wire protocol",
        "invalid reply",
        "maximum message length",
        "Message length",
        "message length",
        "header length",
        "expected header",
        "Invalid OpCode",
    ]
    .iter()
    .any(|part| message.contains(part))
}
