//! Tables for people, JSON and YAML for programs. The only place that writes to standard output.

use std::io::{self, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::Output;

/// Prints a value: as the table that `table` makes of it, or as JSON or YAML.
pub(crate) fn print<T: Serialize>(output: Output, value: &T, table: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    let text = match output {
        Output::Table | Output::Wide => table(value),
        Output::Json => serde_json::to_string_pretty(value)?,
        Output::Yaml => serde_saphyr::to_string(value)?,
    };
    say(text.trim_end())
}

/// Prints one or several lines.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    // `manxctl ... | head` is not an error.
    say_on(text).map(drop)
}

/// Prints one or several lines of an output that goes on; false when nobody reads it any more.
pub(crate) fn say_on(text: &str) -> anyhow::Result<bool> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => Ok(result.map(|()| true)?),
    }
}

/// Prints what went wrong; nobody is left to tell if even that fails.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "manxctl: {text}");
}

/// A table without borders, as kubectl prints it.
pub(crate) fn table<R, C>(header: &[&str], rows: R) -> String
where
    R: IntoIterator<Item = C>,
    C: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// Seconds as people say them: `42s`, `7m12s`, `5h3m`, `3d4h`.
pub(crate) fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// Milliseconds since 1970 as RFC 3339 writes them, in UTC: `2026-11-21T10:47:00.123Z`. What lies behind the year 9999,
/// which RFC 3339 cannot write, is written as the last moment that it can.
pub(crate) fn rfc3339(ms: u64) -> String {
    let time = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", time.unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests;
