//! Durations as people and Go write them: `500ms`, `90s`, `1m30s`, `24h`.

use std::time::Duration;

/// The longest duration that is accepted: an instant plus this much must still fit into an instant.
const LONGEST: Duration = Duration::from_secs(u32::MAX as u64 * 3_600);

/// The most characters that a text may have: enough for every unit several times.
const LONGEST_TEXT: usize = 128;

/// The most digits that one number may have: [`LONGEST`] in seconds has 14.
const LONGEST_NUMBER: usize = 14;

/// Reads a duration: whole numbers, each with one of the units `h`, `m`, `s` and `ms`, without spaces and without a sign. `None`
/// for anything else and for more than 2^32 - 1 hours.
///
/// The library knows more spellings (`1day`, `2 hours`, a bare `0`). They are refused, because resources are written once and
/// read by agents of several versions: a spelling that only some of them read would make the others drop the resource.
pub fn parse(text: &str) -> Option<Duration> {
    let is_ours = text.ends_with(['h', 'm', 's']) && text.bytes().all(|c| c.is_ascii_digit() || b"hms".contains(&c));
    // The library panics on sums just at the end of its range; numbers this few and this short never come near it.
    let is_short =
        text.len() <= LONGEST_TEXT && text.split(['h', 'm', 's']).all(|number| number.len() <= LONGEST_NUMBER);
    let duration = (is_ours && is_short).then(|| humantime::parse_duration(text).ok()).flatten()?;
    (duration <= LONGEST).then_some(duration)
}

#[cfg(test)]
mod tests;
