//! The statistics of a sample. Pure.

use std::time::Duration;

/// The value that `percent` per cent of the sample do not exceed (nearest rank). None of an empty sample.
pub(crate) fn percentile(sample: &[f64], percent: u8) -> Option<f64> {
    let mut sorted = sample.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (sorted.len() * usize::from(percent)).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// The middle of the sample; of an even number, half-way between the middle two. None of an empty sample.
pub(crate) fn median(sample: &[f64]) -> Option<f64> {
    let mut sorted = sample.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(*upper);
    }
    let lower = sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(*lower, *upper))
}

/// Converts each duration to milliseconds.
pub(crate) fn milliseconds(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|time| time.as_secs_f64() * 1_000.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_value_of_the_sample_that_so_many_do_not_exceed() {
        let sample: Vec<f64> = (1..=10).rev().map(f64::from).collect();
        assert_eq!(percentile(&sample, 50), Some(5.0));
        assert_eq!(percentile(&sample, 90), Some(9.0));
        assert_eq!(percentile(&sample, 91), Some(10.0));
        assert_eq!(percentile(&sample, 100), Some(10.0));
        assert_eq!(percentile(&sample, 0), Some(1.0));
        assert_eq!(percentile(&[7.0], 90), Some(7.0));
    }

    #[test]
    fn a_median_does_not_move_with_one_slow_round() {
        assert_eq!(median(&[2.0, 900.0, 1.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }

    #[test]
    fn an_empty_sample_has_no_statistics() {
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn times_become_milliseconds() {
        assert_eq!(milliseconds(&[Duration::from_micros(1_500)]), [1.5]);
    }
}
