//! The forms of a report as files, and `capacity-check report`, which makes them again.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;

use super::console::Console;
use crate::exit::Exit;
use crate::lang::{Lang, Texts};
use crate::report;
use crate::result::{RunResult, read};
use crate::scenario::file::Form;

/// The flags of `capacity-check report`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReportArgs {
    /// The result.json of a run.
    result: PathBuf,
    /// The forms to write; without it the report is shown here.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FORM,..")]
    format: Vec<Form>,
    /// Where they go. [default: the folder of the result]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The language of the report. [default: that of the locale]
    #[arg(long, value_enum)]
    lang: Option<Lang>,
}

/// Renders a report from a result.
pub(super) fn run(args: &ReportArgs) -> Exit {
    let console = Console { json: false };
    match render(args, console) {
        Ok(()) => Exit::Pass,
        Err(error) => {
            console.complain(&format!("{error:#}"));
            Exit::Usage
        }
    }
}

fn render(args: &ReportArgs, console: Console) -> anyhow::Result<()> {
    let path = &args.result;
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let result = read(&text).with_context(|| format!("{} cannot be rendered", path.display()))?;
    let texts = Texts::new(args.lang.unwrap_or_else(Lang::of_locale));
    if args.format.is_empty() {
        console.say(&report::terminal(&result, &texts, io::stdout().is_terminal()));
        return Ok(());
    }
    let beside = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = args.out.as_deref().unwrap_or(beside);
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for form in &args.format {
        let to = folder.join(name(*form));
        // The result of an older version is somebody's original.
        let same = to.canonicalize().ok().is_some_and(|to| path.canonicalize().is_ok_and(|path| path == to));
        anyhow::ensure!(
            !same || self::form(*form, &result, &texts) == text,
            "{} would be written over in the form of this version; name another folder with --out",
            to.display()
        );
        console.say(&write(folder, *form, &result, &texts)?.display().to_string());
    }
    Ok(())
}

/// The file of a form.
fn name(form: Form) -> &'static str {
    match form {
        Form::Md => "report.md",
        Form::Html => "report.html",
        Form::Json => "result.json",
        Form::Junit => "junit.xml",
    }
}

/// A result in a form.
pub(super) fn form(form: Form, result: &RunResult, texts: &Texts) -> String {
    match form {
        Form::Md => report::markdown(result, texts),
        Form::Html => report::html(result, texts),
        Form::Json => serde_json::to_string_pretty(result).expect("a result is plain data") + "\n",
        Form::Junit => report::junit(result, texts),
    }
}

/// Writes a form of a result into a folder, and gives the path.
pub(super) fn write(folder: &Path, wanted: Form, result: &RunResult, texts: &Texts) -> anyhow::Result<PathBuf> {
    let path = folder.join(name(wanted));
    let text = form(wanted, result, texts);
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
