//! Accounts as a CSV file. The columns, by name, say what lets a user in: `token`, or `cookie`,
//! or `email,password`, or `id,email,username`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{Credentials, local_part};
use crate::secret::Secret;

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line that is no CSV.
    #[error("{path}: {source}")]
    Csv {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: csv::Error,
    },
    /// The columns are none of those that let somebody in.
    #[error("{path}: the first line names {found}; wanted are email,password or id,email,username or token or cookie")]
    Columns {
        /// The file.
        path: PathBuf,
        /// What it names.
        found: String,
    },
    /// A field that must not be empty is.
    #[error("{path}, line {line}: `{column}` is empty")]
    Empty {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column.
        column: &'static str,
    },
}

/// The ways to be let in, by the columns that they want, in order of preference.
const WAYS: [&[&str]; 4] = [&["token"], &["cookie"], &["email", "password"], &["id", "email", "username"]];

/// Reads a list of accounts. `mint` prefers tokens that are minted to logins, where the columns allow both.
///
/// # Errors
/// What is wrong, and where.
pub fn read_list(path: &Path, mint: bool) -> Result<Vec<Credentials>, ListError> {
    let file = File::open(path).map_err(|source| ListError::Io { path: path.to_owned(), source })?;
    let broken = |source| ListError::Csv { path: path.to_owned(), source };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
    let header = reader.headers().map_err(broken)?.clone();
    let place = |name: &str| header.iter().position(|column| column.eq_ignore_ascii_case(name));
    let fits = |way: &&[&'static str]| way.iter().all(|column| place(column).is_some());
    let ways = if mint { [WAYS[0], WAYS[1], WAYS[3], WAYS[2]] } else { WAYS };
    let Some(way) = ways.into_iter().find(fits) else {
        // Without a header the first line is an account: of what is not a column's name nothing is repeated.
        let known =
            |column: &&str| WAYS.iter().flat_map(|way| way.iter()).any(|name| name.eq_ignore_ascii_case(column));
        let named: Vec<&str> = header.iter().filter(known).collect();
        let found = if named.is_empty() { "no column that is known".to_owned() } else { named.join(",") };
        return Err(ListError::Columns { path: path.to_owned(), found });
    };
    let mut list = Vec::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let line = record.position().map_or(0, csv::Position::line);
        let mut fields = Vec::new();
        for column in way {
            let value = place(column).and_then(|place| record.get(place)).unwrap_or_default();
            if value.is_empty() {
                return Err(ListError::Empty { path: path.to_owned(), line, column });
            }
            fields.push(value.to_owned());
        }
        list.extend(credentials(way, fields));
    }
    Ok(list)
}

fn credentials(way: &[&str], fields: Vec<String>) -> Option<Credentials> {
    let mut fields = fields.into_iter();
    let first = fields.next()?;
    Some(match way[0] {
        "token" => Credentials::Bearer(Secret::new(first)),
        "cookie" => Credentials::Cookies(Secret::new(first)),
        "email" => Credentials::Password { email: first, password: Secret::new(fields.next()?) },
        _ => Credentials::Minted { id: first, email: fields.next()?, username: fields.next()? },
    })
}

/// Makes the file for a list, for the owner's eyes alone. An existing one is not overwritten.
///
/// # Errors
/// When it is there already or cannot be made.
pub fn new_list(path: &Path) -> Result<File, ListError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|source| ListError::Io { path: path.to_owned(), source })
}

/// Writes accounts with their passwords into a new list. `ids` are those of the deployment, where
/// they are known.
///
/// # Errors
/// When the file cannot be written; `path` is its name for that.
pub fn write_list(
    file: File,
    path: &Path,
    accounts: &[(String, Secret)],
    ids: Option<&[String]>,
) -> Result<(), ListError> {
    let failed = |source| ListError::Io { path: path.to_owned(), source };
    let mut writer = csv::Writer::from_writer(file);
    let mut write = || -> csv::Result<()> {
        match ids {
            Some(ids) => {
                writer.write_record(["id", "email", "username", "password"])?;
                for ((email, password), id) in accounts.iter().zip(ids) {
                    writer.write_record([id, email, local_part(email), password.expose()])?;
                }
            }
            None => {
                writer.write_record(["email", "password"])?;
                for (email, password) in accounts {
                    writer.write_record([email, password.expose()])?;
                }
            }
        }
        writer.flush()?;
        Ok(())
    };
    write().map_err(|source| ListError::Csv { path: path.to_owned(), source })?;
    writer.get_ref().flush().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, mint: bool) -> Result<Vec<Credentials>, ListError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        read_list(file.path(), mint)
    }

    #[test]
    fn the_columns_say_what_lets_in() {
        let both = "id,email,username,password\n1,a@x.test,a,secret12\n";
        let Credentials::Password { email, password } = &read(both, false).unwrap()[0] else { panic!() };
        assert_eq!((email.as_str(), password.expose()), ("a@x.test", "secret12"));
        assert!(matches!(&read(both, true).unwrap()[0], Credentials::Minted { id, .. } if id == "1"));
        assert!(matches!(&read("Token\nabc\n", false).unwrap()[0], Credentials::Bearer(_)));
        assert!(matches!(&read("cookie\n\"a=b; c=d\"\n", false).unwrap()[0], Credentials::Cookies(_)));
    }

    #[test]
    fn a_wrong_list_says_where() {
        let said = |text| read(text, false).unwrap_err().to_string();
        assert!(said("email,pass\na,b\n").contains("names email; wanted are email,password"));
        let headless = said("ann@x.test,hunter2\n");
        assert!(headless.contains("no column that is known") && !headless.contains("hunter2"), "{headless}");
        assert!(said("email,password\na@x.test,\n").contains("line 2: `password` is empty"));
        assert!(said("email,password\na@x.test\n").contains("line: 2"), "{}", said("email,password\na@x.test\n"));
        assert!(read_list(Path::new("/nowhere.csv"), false).unwrap_err().to_string().contains("/nowhere.csv"));
    }

    #[test]
    fn what_is_written_is_read_again_and_is_for_the_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accounts.csv");
        let accounts = [("cc-a-0@capacity-check.test".to_owned(), Secret::new("p,\"w"))];
        write_list(new_list(&path).unwrap(), &path, &accounts, Some(&["65".to_owned()])).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(
            matches!(&read_list(&path, false).unwrap()[0], Credentials::Password { password, .. } if password.expose() == "p,\"w")
        );
        assert!(
            matches!(&read_list(&path, true).unwrap()[0], Credentials::Minted { id, username, .. } if id == "65" && username == "cc-a-0")
        );
        assert!(new_list(&path).is_err(), "an existing list is not overwritten");
    }
}
