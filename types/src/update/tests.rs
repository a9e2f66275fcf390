//! Whatever a source goes through, its receivers end with the state that its last whole listing and the changes since say.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Change, Listing, Mirror, Repeated, Update};

type Reports = Vec<Update<u8, u8>>;

/// One thing that happens to a source.
#[derive(Debug, Clone)]
enum Happening {
    /// An object of the source is made or changed.
    Put(u8, u8),
    /// An object of the source is deleted.
    Remove(u8),
    /// The source lists anew, as far as this many objects: it may break off.
    List(usize),
    /// Its history is lost: what happens next is not reported, up to the next listing.
    Deafen,
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        4 => (0..6u8, 0..4u8).prop_map(|(key, value)| Happening::Put(key, value)),
        3 => (0..6u8).prop_map(Happening::Remove),
        2 => (0..12usize).prop_map(Happening::List),
        1 => Just(Happening::Deafen),
    ];
    vec(happening, 0..40)
}

/// What a source that goes through this reports, ending with a whole listing; and what it has in the end.
fn reports(happenings: &[Happening]) -> (Reports, BTreeMap<u8, u8>) {
    let mut has: BTreeMap<u8, u8> = BTreeMap::new();
    let mut reports = Vec::new();
    let mut is_heard = false;
    for happening in happenings {
        match happening {
            Happening::Put(key, value) => {
                has.insert(*key, *value);
                if is_heard {
                    reports.push(Update::Set(*key, *value));
                }
            }
            Happening::Remove(key) => {
                if has.remove(key).is_some() && is_heard {
                    reports.push(Update::Delete(*key));
                }
            }
            Happening::List(length) => {
                reports.push(Update::Restart);
                reports.extend(has.iter().take(*length).map(|(key, value)| Update::Set(*key, *value)));
                // A listing that breaks off leaves the source deaf.
                is_heard = *length >= has.len();
                if is_heard {
                    reports.push(Update::InSync);
                }
            }
            Happening::Deafen => is_heard = false,
        }
    }
    if !is_heard {
        reports.push(Update::Restart);
        reports.extend(has.iter().rev().map(|(key, value)| Update::Set(*key, *value)));
        reports.push(Update::InSync);
    }
    (reports, has)
}

fn mirrored(reports: Reports) -> Mirror<u8, u8> {
    let mut mirror = Mirror::new();
    for report in reports {
        mirror.apply(report);
    }
    mirror
}

proptest! {
    #[test]
    fn any_interleaving_of_restarts_gives_the_state_that_the_last_listing_says(happenings in happenings()) {
        let (reports, has) = reports(&happenings);
        let mirror = mirrored(reports);
        prop_assert_eq!(mirror.entries(), &has);
        prop_assert!(mirror.is_known() && !mirror.is_listing());
    }

    #[test]
    fn the_order_in_which_a_listing_names_its_objects_does_not_matter(
        before in happenings(),
        objects in vec((0..6u8, 0..4u8), 0..6),
    ) {
        let objects: BTreeMap<u8, u8> = objects.into_iter().collect();
        let listing = |objects: Vec<(&u8, &u8)>| {
            let named = objects.into_iter().map(|(key, value)| Update::Set(*key, *value));
            let (before, _) = reports(&before);
            let whole = before.into_iter().chain([Update::Restart]).chain(named).chain([Update::InSync]);
            mirrored(whole.collect())
        };
        let (forwards, backwards) = (listing(objects.iter().collect()), listing(objects.iter().rev().collect()));
        prop_assert_eq!(forwards.entries(), &objects);
        prop_assert_eq!(backwards.entries(), &objects);
    }

    #[test]
    fn absence_acts_only_when_a_listing_is_complete(happenings in happenings()) {
        let mut mirror = Mirror::new();
        for report in reports(&happenings).0 {
            let before: BTreeSet<u8> = mirror.entries().keys().copied().collect();
            let (deleted, is_complete) = match &report {
                Update::Delete(key) => (Some(*key), false),
                report => (None, *report == Update::InSync),
            };
            mirror.apply(report);
            let lost = before.into_iter().filter(|key| !mirror.entries().contains_key(key));
            for key in lost {
                prop_assert!(is_complete || deleted == Some(key), "{} went without a reason", key);
            }
        }
    }

    #[test]
    fn a_report_is_a_change_just_where_a_reader_sees_one(happenings in happenings()) {
        let mut mirror = Mirror::new();
        for report in reports(&happenings).0 {
            let before = (mirror.entries().clone(), mirror.is_known());
            let is_change = mirror.changes(report.clone());
            prop_assert_eq!(is_change, before != (mirror.entries().clone(), mirror.is_known()), "{:?}", report);
        }
    }

    #[test]
    fn the_keys_that_a_report_names_are_those_that_differ_or_were_repeated(happenings in happenings()) {
        let mut mirror = Mirror::new();
        for report in reports(&happenings).0 {
            let before = mirror.entries().clone();
            let named = mirror.apply(report.clone());
            let after = mirror.entries();
            for key in 0..6u8 {
                let (is_named, is_set) = (named.contains(&key), matches!(report, Update::Set(set, _) if set == key));
                prop_assert_eq!(is_named, is_set || before.get(&key) != after.get(&key), "{} at {:?}", key, report);
            }
        }
    }

    #[test]
    fn receivers_with_a_form_of_their_own_keep_what_a_mirror_keeps(happenings in happenings()) {
        let (reports, has) = reports(&happenings);
        let (mut kept, mut listing) = (BTreeMap::new(), Listing::new());
        let (mut filed, mut repeated) = (BTreeMap::new(), Repeated::new());
        for report in reports {
            if let Some(named) = repeated.follow(&report) {
                filed.retain(|key, _| named.contains(key));
            }
            match report {
                Update::Set(key, value) => drop(filed.insert(key, value)),
                Update::Delete(key) => drop(filed.remove(&key)),
                Update::Restart | Update::InSync => {}
            }
            match listing.follow(report, || kept.keys().copied().collect::<Vec<_>>()) {
                Change::Set(key, value) => drop(kept.insert(key, value)),
                Change::Gone(keys) => kept.retain(|key, _| !keys.contains(key)),
            }
        }
        prop_assert_eq!(&kept, &has);
        prop_assert_eq!(&filed, &has);
    }

    #[test]
    fn a_part_of_a_source_in_other_words_is_that_part_of_its_state(happenings in happenings()) {
        let (reports, has) = reports(&happenings);
        let mut part = Mirror::new();
        for report in reports {
            let even = report.filter_map(|key| (key % 2 == 0).then(|| format!("object {key}")));
            let Some(even) = even else { continue };
            let read = even.try_map(|_, value| if value == 3 { Err("three") } else { Ok(u32::from(value) * 10) });
            let report = read.unwrap_or_else(|(key, _)| Update::Delete(key));
            part.apply(report.map(|key| key, |key, value| format!("{key} is {value}")));
        }
        let wanted = has.into_iter().filter(|(key, value)| key % 2 == 0 && *value != 3);
        let wanted = wanted.map(|(key, value)| (format!("object {key}"), format!("object {key} is {}", value * 10)));
        prop_assert_eq!(part.entries(), &wanted.collect());
    }
}

#[test]
fn after_a_restart_only_what_is_not_set_again_is_gone_and_only_once_in_sync() {
    let mut mirror = Mirror::new();
    for update in [Update::Restart, Update::Set("a", 1), Update::Set("b", 1)] {
        mirror.apply(update);
    }
    assert!(!mirror.is_known() && mirror.is_listing());
    assert!(mirror.apply(Update::InSync).is_empty() && mirror.is_known() && !mirror.is_listing());

    mirror.apply(Update::Restart);
    assert_eq!(mirror.apply(Update::Set("b", 2)), ["b"]);
    assert_eq!(mirror.entries().len(), 2);
    assert_eq!(mirror.apply(Update::InSync), ["a"]);
    assert_eq!(mirror.entries(), &BTreeMap::from([("b", 2)]));

    assert_eq!(mirror.apply(Update::Delete("b")), ["b"]);
    assert!(mirror.apply(Update::Delete("b")).is_empty() && mirror.entries().is_empty());
}

#[test]
fn a_report_that_changes_nothing_says_so() {
    let mut mirror = Mirror::new();
    assert!(!mirror.changes(Update::Restart));
    assert!(mirror.changes(Update::Set(1, 1)));
    assert!(mirror.changes(Update::InSync), "becoming known is a change");
    assert!(!mirror.changes(Update::Restart));
    assert!(!mirror.changes(Update::Set(1, 1)));
    assert!(!mirror.changes(Update::InSync));
}

#[test]
fn what_was_learned_past_the_source_stays_until_the_source_says_otherwise() {
    let mut mirror = Mirror::new();
    mirror.learn("a", 1);
    mirror.apply(Update::InSync);
    mirror.learn("a", 2);
    assert_eq!(mirror.entries(), &BTreeMap::from([("a", 1)]));
    mirror.apply(Update::Restart);
    assert_eq!(mirror.apply(Update::InSync), ["a"]);
}
