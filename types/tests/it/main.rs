//! What this crate promises to those who stored its values.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

mod stored;
