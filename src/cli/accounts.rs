//! `capacity-check accounts`: makes marked accounts for a test, and removes them with all they left.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use url::Url;

use super::console::Console;
use super::resolve::consent;
use super::sign_in::{Pace, by_password, made_up, register};
use crate::account::{Store, new_list, parse_mark, write_list};
use crate::clock;
use crate::driver::Limits;
use crate::driver::librechat::LibreChat;
use crate::exit::Exit;
use crate::net::{Endpoint, TlsSettings, client_config};
use crate::record::{Outcome, Steps, Turn};
use crate::scenario::plain_url;
use crate::secret::{Secret, escaped};

/// The variable of the connection string where the flag names none.
const URI_VARIABLE: &str = "MONGO_URI";
/// The addresses that are listed before a removal.
const LISTED: usize = 5;

/// Accounts for a test: marked, so that they can be found and removed.
#[derive(Debug, Clone, Args)]
pub(crate) struct AccountsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Make accounts cc-MARK-N@capacity-check.test, by registration (--target) or in the database (--mongo-uri).
    Create(Create),
    /// Remove marked accounts with their conversations, messages, transactions and sessions.
    Remove(Remove),
}

#[derive(Debug, Clone, Args)]
struct Create {
    /// How many.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Names this set of accounts: small letters and digits. [default: one made from the time]
    #[arg(long, value_name = "MARK", value_parser = parse_mark)]
    mark: Option<String>,
    /// Where the list goes, readable for you alone. [default: accounts-MARK.csv]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    way: Way,
    /// Registrations a second.
    #[arg(long, value_name = "RATE", default_value_t = 5.0)]
    login_rate: f64,
}

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false, id = "way", args = ["target", "mongo_uri"])]
struct Way {
    /// The deployment's base URL: accounts are made by registration.
    #[arg(long, value_name = "URL")]
    target: Option<String>,
    /// LibreChat's database: accounts are made as documents. Without a value MONGO_URI of the environment.
    #[arg(long, value_name = "URI", num_args = 0..=1, default_missing_value = "")]
    mongo_uri: Option<String>,
    /// Further certificate authorities, PEM.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Accept any certificate.
    #[arg(long)]
    insecure: bool,
    /// You may make accounts on this public host; repeatable.
    #[arg(long, value_name = "HOST")]
    i_am_authorized_to_test: Vec<String>,
}

#[derive(Debug, Clone, Args)]
struct Remove {
    /// The set of accounts to remove.
    #[arg(long, value_name = "MARK", value_parser = parse_mark, required_unless_present = "all_marks")]
    mark: Option<String>,
    /// Every account that was ever made by this tool.
    #[arg(long, conflicts_with = "mark")]
    all_marks: bool,
    /// LibreChat's database. Without a value, or without the flag, MONGO_URI of the environment.
    #[arg(long, value_name = "URI", num_args = 0..=1, default_missing_value = "")]
    mongo_uri: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Why nothing, or not everything, was done.
enum Refused {
    Usage(String),
    Failed(String),
}

/// Does what the flags say.
pub(super) async fn run(args: AccountsArgs) -> Exit {
    let console = Console { json: false };
    let done = match args.what {
        What::Create(create) => make(create, console).await,
        What::Remove(remove) => clear(remove, console).await,
    };
    match done {
        Ok(()) => Exit::Pass,
        Err(Refused::Usage(text)) => {
            console.complain(&text);
            Exit::Usage
        }
        Err(Refused::Failed(text)) => {
            console.complain(&text);
            Exit::Stopped
        }
    }
}

fn failed(error: impl std::fmt::Display) -> Refused {
    Refused::Failed(error.to_string())
}

async fn make(wish: Create, console: Console) -> Result<(), Refused> {
    let mark = wish.mark.clone().unwrap_or_else(time_mark);
    let path = wish.out.clone().unwrap_or_else(|| PathBuf::from(format!("accounts-{mark}.csv")));
    if path.exists() {
        return Err(Refused::Usage(format!("{} is there already; name another file with --out", path.display())));
    }
    let accounts = made_up(&mark, wish.count);
    let file = new_list(&path).map_err(failed)?;
    let mut made = 0;
    let done = match (&wish.way.target, &wish.way.mongo_uri) {
        (Some(target), _) => by_registration(target, &wish, &accounts, console, &mut made).await.map(|()| None),
        (None, uri) => in_database(uri.as_deref(), &mark, &accounts, &mut made).await.map(Some),
    };
    let ids = done.as_ref().ok().and_then(Option::as_deref);
    if made == 0 {
        // Nothing was made: an empty list would only be in the way.
        let _ = std::fs::remove_file(&path);
        return done.map(|_| ());
    }
    // Where it broke off, those that are not there cannot log in; the others' password is not lost.
    write_list(file, &path, &accounts, ids).map_err(failed)?;
    console.say(&format!("{made} accounts cc-{mark}-N@capacity-check.test; the list is {}.", path.display()));
    console.say(&format!(
        "They stay until `capacity-check accounts remove --mark {mark} --mongo-uri URI`; do not give the list away, it \
         holds their password."
    ));
    done.map(|_| ())
}

async fn in_database(
    uri: Option<&str>,
    mark: &str,
    accounts: &[(String, Secret)],
    made: &mut u32,
) -> Result<Vec<String>, Refused> {
    let store = store(uri).await?;
    store.create(mark, accounts, made).await.map_err(failed)
}

async fn by_registration(
    target: &str,
    wish: &Create,
    accounts: &[(String, Secret)],
    console: Console,
    made: &mut u32,
) -> Result<(), Refused> {
    let wrong = |flag: &'static str| move |error: String| Refused::Usage(format!("{flag}: {error}"));
    let pace = Pace::parse(wish.login_rate).map_err(wrong("--login-rate"))?;
    let base: Url = plain_url(target).map_err(wrong("--target"))?;
    consent(&base, &wish.way.i_am_authorized_to_test).map_err(wrong("--target"))?;
    let Way { ca_file, insecure, .. } = wish.way.clone();
    let settings = TlsSettings { ca_file, insecure, ..TlsSettings::default() };
    let tls = client_config(&settings).map_err(|error| Refused::Usage(error.to_string()))?;
    let limits = Limits::default();
    let endpoint = Endpoint::new(&base, &tls, limits.connect).map_err(|error| Refused::Usage(error.to_string()))?;
    let first = by_password(&accounts[..1]);
    let chat = LibreChat::new(endpoint, &base, first, None, &[], limits).map_err(failed)?;
    console.say(&format!("Making {} accounts: {:.0} s.", wish.count, pace.length(wish.count).as_secs_f64()));
    let mut steps = Steps::default();
    // Who registers an address that is there is told the same as who makes a new one; only a login
    // tells whether the mark was taken.
    register(&chat, &accounts[..1], pace, &mut steps, made).await.map_err(failed)?;
    let mut visit = Turn::new(clock::monotonic(), clock::monotonic());
    chat.sign_in(0, &mut visit).await;
    if matches!(visit.outcome, Outcome::HttpClient(404) | Outcome::Unauthorized) {
        *made = 0;
        return Err(Refused::Failed(format!(
            "{} cannot log in with its new password ({}): is the mark taken? Choose another with --mark",
            accounts[0].0, visit.detail
        )));
    }
    register(&chat, &accounts[1..], pace, &mut steps, made).await.map_err(failed)
}

async fn clear(wish: Remove, console: Console) -> Result<(), Refused> {
    let store = store(wish.mongo_uri.as_deref()).await?;
    let found = store.belongings(wish.mark.as_deref()).await.map_err(failed)?;
    if found.counts.is_empty() {
        console.say(&format!("Nothing to remove in the database `{}`.", escaped(store.name(), 100)));
        return Ok(());
    }
    console.say(&format!("In the database `{}` belong to marked accounts:", escaped(store.name(), 100)));
    for (collection, count) in &found.counts {
        console.say(&format!("  {count:>8}  {collection}"));
    }
    let addresses: Vec<String> = found.addresses().map(|email| escaped(email, 100)).collect();
    let more = if addresses.len() > LISTED { ", .." } else { "" };
    console.say(&format!("  {}{more}", addresses[..addresses.len().min(LISTED)].join(", ")));
    if !wish.yes && !confirmed()? {
        return Err(Refused::Usage("nothing was removed; say --yes to remove them".to_owned()));
    }
    let removed = store.remove(&found).await.map_err(failed)?;
    console.say(&format!("{removed} documents removed."));
    Ok(())
}

/// Asks the person at the terminal; nobody there means no.
fn confirmed() -> Result<bool, Refused> {
    if !io::stdin().is_terminal() {
        return Ok(false);
    }
    print_prompt("Remove them? [y/N] ").map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn print_prompt(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// The database of the flag, or of the environment.
async fn store(flag: Option<&str>) -> Result<Store, Refused> {
    let given = flag.filter(|uri| !uri.is_empty()).map(str::to_owned);
    let uri = given.or_else(|| std::env::var(URI_VARIABLE).ok().filter(|uri| !uri.is_empty()));
    let uri = uri.ok_or_else(|| {
        Refused::Usage(format!("--mongo-uri: names no connection string, and the environment has no {URI_VARIABLE}"))
    })?;
    Store::connect(Secret::new(uri)).await.map_err(failed)
}

/// A mark that nobody has taken: the milliseconds since 1970.
fn time_mark() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("t{:x}", since.as_millis())
}
