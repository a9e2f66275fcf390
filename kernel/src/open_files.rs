//! How many files this process may have open.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the limit of open files (RLIMIT_NOFILE) to this many if it is lower, as far as the hard limit allows, which a
/// process with CAP_SYS_RESOURCE can raise as well. Returns the limit that holds.
pub fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= wanted {
        return Ok(soft);
    }
    if setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).is_ok() {
        return Ok(wanted);
    }
    let possible = wanted.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, possible, hard)?;
    Ok(possible)
}

#[cfg(test)]
mod tests {
    use super::raise_open_files;

    #[test]
    fn the_limit_is_raised_as_far_as_it_goes_and_never_lowered() {
        let now = raise_open_files(1).unwrap();
        let raised = raise_open_files(now + 1).unwrap();
        assert!(raised >= now);
        assert_eq!(raise_open_files(1).unwrap(), raised);
    }
}
