//! Waiting for a condition, with a deadline.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use crate::LabError;

/// How long to sleep between two looks.
const POLL: Duration = Duration::from_millis(20);

/// Calls `attempt` until it gives a value. After `within` the error names `what` and the last complaint of `attempt`.
pub fn wait_for<T, E: Display>(
    what: &str,
    within: Duration,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, LabError> {
    let deadline = Instant::now() + within;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(complaint) if Instant::now() >= deadline => {
                return Err(LabError::Timeout { what: what.to_owned(), within, last: complaint.to_string() });
            }
            Err(_) => thread::sleep(POLL),
        }
    }
}

/// Looks until `condition` holds. After `within` the error names `what`.
pub fn wait_until(what: &str, within: Duration, mut condition: impl FnMut() -> bool) -> Result<(), LabError> {
    wait_for(what, within, || if condition() { Ok(()) } else { Err("not yet") })
}
