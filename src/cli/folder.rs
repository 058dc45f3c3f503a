//! The folder of a run: `OUT/<UTC time>-<scenario>/`, and `OUT/latest` that points there.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Whether reports can be written below `out`; makes it if need be.
///
/// # Errors
/// What is in the way.
pub(super) fn check(out: &Path) -> io::Result<()> {
    let told = |error: io::Error| io::Error::new(error.kind(), format!("cannot write to {}: {error}", out.display()));
    std::fs::create_dir_all(out).map_err(told)?;
    let probe = out.join(format!(".capacity-check-{}", std::process::id()));
    std::fs::write(&probe, b"").map_err(told)?;
    std::fs::remove_file(&probe).map_err(told)
}

/// Makes the folder of a run that began at `started`.
///
/// # Errors
/// When it cannot be made.
pub(super) fn create(out: &Path, name: &str, started: SystemTime) -> io::Result<PathBuf> {
    let time = humantime::format_rfc3339_seconds(started).to_string().replace(':', "-");
    for number in 1..1_000 {
        // A second run within the same second gets a number.
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let folder = out.join(format!("{time}-{name}{suffix}"));
        match std::fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "a thousand runs began in the same second"))
}

/// Points `OUT/latest` at a run's folder, in one step, so that a reader never finds it missing.
///
/// # Errors
/// When the link cannot be made.
pub(super) fn point_latest(folder: &Path) -> io::Result<()> {
    let (Some(out), Some(name)) = (folder.parent(), folder.file_name()) else { return Ok(()) };
    let fresh = out.join(format!(".latest-{}", std::process::id()));
    std::os::unix::fs::symlink(name, &fresh)?;
    std::fs::rename(&fresh, out.join("latest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_runs_in_a_second_have_two_folders_and_latest_is_the_newest() {
        let out = tempfile::tempdir().unwrap();
        check(out.path()).unwrap();
        let first = create(out.path(), "embedded", SystemTime::UNIX_EPOCH).unwrap();
        assert!(first.ends_with("1970-01-01T00-00-00Z-embedded"));
        point_latest(&first).unwrap();
        let second = create(out.path(), "embedded", SystemTime::UNIX_EPOCH).unwrap();
        point_latest(&second).unwrap();
        let latest = std::fs::canonicalize(out.path().join("latest")).unwrap();
        assert_eq!(latest, std::fs::canonicalize(&second).unwrap());
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let out = tempfile::tempdir().unwrap();
        let file = out.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        assert!(check(&file.join("below")).unwrap_err().to_string().contains("cannot write to"));
    }
}
