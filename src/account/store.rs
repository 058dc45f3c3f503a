//! Accounts as LibreChat's MongoDB has them: made as documents of `users`, and removed with
//! everything that their users left behind.

use std::time::Duration;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, doc};
use mongodb::options::ClientOptions;
use mongodb::{Client, Database};

use super::{local_part, marked_pattern};
use crate::secret::{Secret, without_url_secrets};

/// How long a server may take to be found.
const SELECTION: Duration = Duration::from_secs(5);
/// The cost of LibreChat's password hashes.
const HASH_COST: u32 = 10;
/// Documents of one insert, users of one delete.
const BATCH: usize = 500;
/// The database where the URI names none; mongoose's default.
const DATABASE: &str = "test";

/// Where a user's things are: collection, and the field that names the user, as a text or as an
/// ObjectId (LibreChat has both). From its schemas and its own deletion of a user, v0.8.
const OWNED: [(&str, &str); 13] = [
    ("messages", "user"),
    ("conversations", "user"),
    ("conversationtags", "user"),
    ("presets", "user"),
    ("sharedlinks", "user"),
    ("transactions", "user"),
    ("balances", "user"),
    ("files", "user"),
    ("toolcalls", "user"),
    ("tokens", "userId"),
    ("keys", "userId"),
    ("pluginauths", "userId"),
    ("sessions", "user"),
];

/// Why the store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What the driver said, without secrets.
    #[error("MongoDB: {0}")]
    Mongo(String),
    /// The connection string is none.
    #[error(
        "the connection string cannot be read or its host not be found; it looks like \
         mongodb://USER:PASSWORD@HOST:PORT/DATABASE, with special characters of the password percent-encoded"
    )]
    Uri,
    /// The mark is taken.
    #[error("{count} accounts with the mark `{mark}` are there already; choose another with --mark, or remove them")]
    Taken {
        /// The mark.
        mark: String,
        /// How many there are.
        count: u64,
    },
    /// No hash could be made.
    #[error("cannot hash the password: {0}")]
    Hash(#[from] bcrypt::BcryptError),
}

/// A deployment's database.
pub struct Store {
    database: Database,
    uri: Secret,
}

/// What belongs to marked accounts.
#[derive(Debug)]
pub struct Belongings {
    /// Addresses and ids of the accounts.
    users: Vec<(String, ObjectId)>,
    /// Documents by collection, those that have any.
    pub counts: Vec<(&'static str, u64)>,
}

impl Belongings {
    /// The accounts' addresses.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.users.iter().map(|(email, _)| email.as_str())
    }
}

impl Store {
    /// Connects; a server that cannot be found in 5 s is an error at the first use.
    ///
    /// # Errors
    /// When the URI is none.
    pub async fn connect(uri: Secret) -> Result<Self, StoreError> {
        let said = |error: mongodb::error::Error| StoreError::Mongo(shown(&error, &uri));
        // What the driver says of a string that it cannot read repeats parts of it, the password perhaps.
        let mut options = ClientOptions::parse(uri.expose()).await.map_err(|_| StoreError::Uri)?;
        options.server_selection_timeout = Some(SELECTION);
        options.app_name = Some("capacity-check accounts".to_owned());
        let client = Client::with_options(options).map_err(said)?;
        let database = client.default_database().unwrap_or_else(|| client.database(DATABASE));
        Ok(Self { database, uri })
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        self.database.name()
    }

    fn failed(&self, error: &mongodb::error::Error) -> StoreError {
        StoreError::Mongo(shown(error, &self.uri))
    }

    fn users(&self) -> mongodb::Collection<Document> {
        self.database.collection("users")
    }

    /// Makes accounts, each with its password; `made` is told how many there are. Gives their ids.
    ///
    /// # Errors
    /// When the mark is taken or the database refuses.
    pub async fn create(
        &self,
        mark: &str,
        accounts: &[(String, Secret)],
        made: &mut u32,
    ) -> Result<Vec<String>, StoreError> {
        let failed = |error: mongodb::error::Error| self.failed(&error);
        let pattern = doc! { "email": { "$regex": marked_pattern(Some(mark)) } };
        let count = self.users().count_documents(pattern).await.map_err(failed)?;
        if count > 0 {
            return Err(StoreError::Taken { mark: mark.to_owned(), count });
        }
        // A deployment with tenants finds a user only within its own.
        let neighbour = self.users().find_one(doc! { "tenantId": { "$exists": true } }).await.map_err(failed)?;
        let tenant = neighbour.and_then(|found| found.get("tenantId").cloned());
        let mut documents = Vec::with_capacity(accounts.len());
        let mut hashed: Option<(&Secret, String)> = None;
        for (email, password) in accounts {
            // One hash for all that share a password: each takes a tenth of a second.
            if hashed.as_ref().is_none_or(|(known, _)| *known != password) {
                let hash = bcrypt::hash_with_result(password.expose(), HASH_COST)?;
                hashed = Some((password, hash.format_for_version(bcrypt::Version::TwoA)));
            }
            let hash = hashed.as_ref().map_or("", |(_, hash)| hash);
            documents.push(user(email, hash, tenant.clone()));
        }
        for batch in documents.chunks(BATCH) {
            self.users().insert_many(batch).await.map_err(failed)?;
            *made += batch.len() as u32;
        }
        let id = |document: &Document| document.get_object_id("_id").map(|id| id.to_hex()).unwrap_or_default();
        Ok(documents.iter().map(id).collect())
    }

    /// What belongs to the accounts of a mark, or of any.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn belongings(&self, mark: Option<&str>) -> Result<Belongings, StoreError> {
        let failed = |error: mongodb::error::Error| self.failed(&error);
        let filter = doc! { "email": { "$regex": marked_pattern(mark) } };
        let mut cursor = self.users().find(filter).projection(doc! { "email": 1 }).await.map_err(failed)?;
        let mut users = Vec::new();
        while cursor.advance().await.map_err(failed)? {
            let found: Document = cursor.deserialize_current().map_err(failed)?;
            if let (Ok(email), Ok(id)) = (found.get_str("email"), found.get_object_id("_id")) {
                users.push((email.to_owned(), id));
            }
        }
        let mut counts = Vec::new();
        for (collection, field) in OWNED {
            let mut count = 0;
            for batch in users.chunks(BATCH) {
                let documents = self.database.collection::<Document>(collection);
                count += documents.count_documents(of(batch, field)).await.map_err(failed)?;
            }
            counts.push((collection, count));
        }
        counts.push(("users", users.len() as u64));
        counts.retain(|(_, count)| *count > 0);
        Ok(Belongings { users, counts })
    }

    /// Removes what was found; the accounts last, so that a removal that breaks off can be done again.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn remove(&self, found: &Belongings) -> Result<u64, StoreError> {
        let failed = |error: mongodb::error::Error| self.failed(&error);
        let mut removed = 0;
        for batch in found.users.chunks(BATCH) {
            for (collection, field) in OWNED {
                let documents = self.database.collection::<Document>(collection);
                removed += documents.delete_many(of(batch, field)).await.map_err(failed)?.deleted_count;
            }
            let ids: Vec<ObjectId> = batch.iter().map(|(_, id)| *id).collect();
            removed += self.users().delete_many(doc! { "_id": { "$in": ids } }).await.map_err(failed)?.deleted_count;
        }
        Ok(removed)
    }
}

/// A filter for what belongs to these users.
fn of(users: &[(String, ObjectId)], field: &str) -> Document {
    let ids: Vec<Bson> = users.iter().flat_map(|(_, id)| [Bson::ObjectId(*id), Bson::String(id.to_hex())]).collect();
    doc! { field: { "$in": ids } }
}

/// A user, as LibreChat's schema wants one. No `expiresAt`: MongoDB would delete the user then.
fn user(email: &str, hash: &str, tenant: Option<Bson>) -> Document {
    let name = local_part(email);
    let now = DateTime::now();
    let mut user = doc! {
        "_id": ObjectId::new(), "name": name, "username": name, "email": email, "emailVerified": true,
        "password": hash, "provider": "local", "role": "USER", "plugins": [], "twoFactorEnabled": false,
        "termsAccepted": true, "createdAt": now, "updatedAt": now, "__v": 0,
    };
    if let Some(tenant) = tenant {
        user.insert("tenantId", tenant);
    }
    user
}

/// What the driver says, without the connection string or its password.
fn shown(error: &mongodb::error::Error, uri: &Secret) -> String {
    crate::secret::escaped(&without_url_secrets(&error.to_string(), uri), 400)
}
