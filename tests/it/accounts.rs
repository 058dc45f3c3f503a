//! `capacity-check accounts` against a real mongod and the reference deployment.

use std::process::Output;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, doc};

use crate::support::chat::Reference;
use crate::support::stores::Mongod;
use crate::support::{Mock, tool};

/// Does something with LibreChat's database.
fn with<T>(mongo: &Mongod, act: impl AsyncFnOnce(mongodb::Database) -> mongodb::error::Result<T>) -> T {
    mongo.with(async |client| act(client.database("LibreChat")).await)
}

fn count(mongo: &Mongod, collection: &str) -> u64 {
    with(mongo, async |database| database.collection::<Document>(collection).count_documents(doc! {}).await)
}

fn accounts(flags: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } =
        tool().env_remove("MONGO_URI").arg("accounts").args(flags).output().expect("the tool runs");
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code().unwrap_or(-1), text)
}

#[test]
fn accounts_are_made_in_the_database_and_removed_with_all_that_they_left() {
    let mongo = Mongod::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("accounts.csv");
    let file = file.to_str().unwrap();
    // Somebody real, with things of their own.
    let real = ObjectId::new();
    with(&mongo, async |database| {
        let users = database.collection::<Document>("users");
        users.insert_one(doc! { "_id": real, "email": "ann@example.org", "username": "ann" }).await?;
        let messages = database.collection::<Document>("messages");
        messages.insert_one(doc! { "user": real.to_hex(), "text": "mine" }).await
    });
    let create = ["create", "--count", "3", "--mark", "load1", "--mongo-uri", &mongo.uri, "--out", file];
    let (code, said) = accounts(&create);
    assert_eq!(code, 0, "{said}");
    let text = std::fs::read_to_string(file).unwrap();
    let first: Vec<&str> = text.lines().nth(1).unwrap().split(',').collect();
    assert_eq!((first[1], first[2]), ("cc-load1-0@capacity-check.test", "cc-load1-0"));
    let hash = with(&mongo, async |database| {
        let users = database.collection::<Document>("users");
        let found = users.find_one(doc! { "_id": ObjectId::parse_str(first[0]).unwrap() }).await?.expect("the user");
        assert!(found.get_bool("emailVerified").unwrap() && found.get_str("role").unwrap() == "USER");
        assert!(!found.contains_key("expiresAt"), "MongoDB would delete the user");
        Ok(found.get_str("password").unwrap().to_owned())
    });
    assert!(hash.starts_with("$2a$10$") && bcrypt::verify(first[3], &hash).unwrap());
    // What they leave behind, with both forms of an id.
    with(&mongo, async |database| {
        let id = ObjectId::parse_str(first[0]).unwrap();
        for collection in ["messages", "conversations"] {
            database.collection::<Document>(collection).insert_one(doc! { "user": first[0] }).await?;
        }
        for collection in ["transactions", "sessions"] {
            database.collection::<Document>(collection).insert_one(doc! { "user": id }).await?;
        }
        Ok(())
    });
    let (code, said) = accounts(&[&create[..7], &["--out", "/tmp/never-written.csv"]].concat());
    assert!(code == 4 && said.contains("`load1` are there already"), "{code} {said}");

    let remove = ["remove", "--mark", "load1", "--mongo-uri", &mongo.uri];
    let (code, said) = accounts(&remove);
    assert!(code == 2 && said.contains("nothing was removed; say --yes"), "{code} {said}");
    for line in ["3  users", "1  messages", "1  conversations", "1  transactions", "1  sessions", "cc-load1-0@"] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert_eq!(count(&mongo, "users"), 4, "listed, not removed");
    let (code, said) = accounts(&[&remove[..], &["--yes"]].concat());
    assert!(code == 0 && said.contains("7 documents removed"), "{code} {said}");
    let left: Vec<u64> = ["users", "messages", "conversations", "transactions", "sessions"]
        .map(|collection| count(&mongo, collection))
        .to_vec();
    assert_eq!(left, [1, 1, 0, 0, 0], "what is Ann's stays");
    let (code, said) = accounts(&["remove", "--all-marks", "--yes", "--mongo-uri", &mongo.uri]);
    assert!(code == 0 && said.contains("Nothing to remove"), "{code} {said}");
}

#[test]
fn accounts_are_made_by_registration_and_let_in() {
    let mock = Mock::start("[models.m]");
    let reference = Reference::start(&mock, |_| {});
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("accounts.csv");
    let file = file.to_str().unwrap();
    let create = ["create", "--count", "3", "--target", &reference.base, "--login-rate", "50", "--out", file];
    let (code, said) = accounts(&create);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("accounts remove --mark"), "{said}");
    let text = std::fs::read_to_string(file).unwrap();
    assert_eq!(text.lines().next(), Some("email,password"));
    let (email, password) = text.lines().nth(3).unwrap().split_once(',').unwrap();
    let login = format!("{{\"email\":\"{email}\",\"password\":\"{password}\"}}");
    let (status, _) = crate::support::exchange(&reference.base, "POST", "/api/auth/login", "application/json", &login);
    assert_eq!(status, 200);
    let (code, said) = accounts(&create);
    assert!(code == 2 && said.contains("is there already"), "{code} {said}");
    // A mark that is taken: registration says nothing, but its password lets nobody in.
    let other = folder.path().join("other.csv");
    let mark = email.split('-').nth(1).unwrap();
    let again = ["create", "--count", "3", "--mark", mark, "--target", &reference.base, "--login-rate", "50", "--out"];
    let (code, said) = accounts(&[&again[..], &[other.to_str().unwrap()]].concat());
    assert!(code == 4 && said.contains("is the mark taken?"), "{code} {said}");
    assert!(!other.exists(), "no list of accounts that cannot log in");
    let nowhere = folder.path().join("missing/list.csv");
    let (code, said) =
        accounts(&["create", "--count", "1", "--target", &reference.base, "--out", nowhere.to_str().unwrap()]);
    assert!(code == 4 && said.contains("missing/list.csv"), "{code} {said}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let (code, said) = accounts(&["create", "--count", "3"]);
    assert!(code == 2 && said.contains("--mongo-uri"), "{said}");
    let (code, said) = accounts(&["create", "--count", "3", "--target", "https://chat.example.com"]);
    assert!(code == 2 && said.contains("--i-am-authorized-to-test chat.example.com"), "{said}");
    let (code, said) = accounts(&["create", "--count", "1", "--mark", "No!", "--mongo-uri"]);
    assert!(code == 2 && said.contains("small letters and digits"), "{said}");
    let (code, said) = accounts(&["remove", "--mark", "x", "--mongo-uri"]);
    assert!(code == 2 && said.contains("the environment has no MONGO_URI"), "{said}");
    let (code, said) = accounts(&["remove", "--mark", "x", "--mongo-uri", "mongodb://u:hunter2@127.0.0.1:1/db"]);
    assert!(code == 4 && said.contains("MongoDB:") && !said.contains("hunter2"), "{code} {said}");
}
