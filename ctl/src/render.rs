//! Tables for people, JSON and YAML for programs. The only place that writes to standard output.

use std::io::{self, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::cli::Output;

/// Prints a value: as a table made by `table`, or as the value itself.
pub(crate) fn print<T: Serialize>(output: Output, value: &T, table: impl FnOnce(&T) -> String) -> anyhow::Result<()> {
    let text = match output {
        Output::Table | Output::Wide => table(value),
        Output::Json => serde_json::to_string_pretty(value)?,
        Output::Yaml => serde_saphyr::to_string(value)?,
    };
    say(text.trim_end())
}

/// Prints a line or several.
pub(crate) fn say(text: &str) -> anyhow::Result<()> {
    // `manxctl ... | head` is not an error.
    say_on(text).map(drop)
}

/// Prints a line or several of an output without an end; false when nobody reads it any more.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units_at_most() {
        let printed: Vec<_> = [0, 59, 60, 3_599, 3_600, 86_399, 90_000].into_iter().map(age).collect();
        assert_eq!(printed, ["0s", "59s", "1m0s", "59m59s", "1h0m", "23h59m", "1d1h"]);
    }
}
