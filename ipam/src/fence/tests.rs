use proptest::prelude::*;

use super::*;

fn reading(boot: u64, wall: u64) -> Reading {
    Reading { boot: Duration::from_secs(boot), wall: Duration::from_secs(wall) }
}

fn confirmed(boot: u64, wall: u64) -> Confirmation {
    Confirmation { boot_id: "one".to_owned(), at: reading(boot, wall) }
}

#[test]
fn the_clock_that_has_moved_further_counts_and_one_that_went_back_counts_as_none() {
    let last = confirmed(100, 1_000);
    let age = |boot_id, boot, wall| last.age(boot_id, Some(reading(boot, wall)));
    assert_eq!(age("one", 160, 1_060), Ok(Duration::from_secs(60)));
    assert_eq!(age("one", 160, 1_000), Ok(Duration::from_secs(60)), "a wall clock that stands still");
    assert_eq!(age("one", 101, 9_000), Ok(Duration::from_secs(8_000)), "a machine that was paused");
    assert_eq!(age("one", 160, 999), Err(Unconfirmed::ClockWentBack));
    assert_eq!(age("one", 99, 1_060), Err(Unconfirmed::ClockWentBack));
    assert_eq!(age("two", 160, 1_060), Err(Unconfirmed::Rebooted));
    assert_eq!(last.age("one", None), Err(Unconfirmed::NoClock));
}

proptest! {
    /// Whatever is done to the wall clock, no confirmation is taken for younger than it is.
    #[test]
    fn no_setting_of_the_wall_clock_makes_a_confirmation_younger(
        boot in 0_u64..1 << 40, wall in 0_u64..1 << 40, passed in 0_u64..1 << 30, set in 0_u64..1 << 41,
    ) {
        let age = confirmed(boot, wall).age("one", Some(reading(boot + passed, set)));
        prop_assert!(age.is_ok_and(|age| age >= Duration::from_secs(passed)) || age.is_err());
    }
}
