use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn it_holds_what_an_ordinary_set_holds_in_either_form(
        steps in prop::collection::vec((any::<bool>(), prop_oneof![0..300_u32, 0..100_000_u32]), 0..900),
    ) {
        let (mut set, mut plain) = (IdSet::default(), BTreeSet::new());
        for (insert, id) in steps {
            if insert {
                prop_assert_eq!(set.insert(id), plain.insert(id));
            } else {
                prop_assert_eq!(set.remove(id), plain.remove(&id));
            }
            prop_assert_eq!(set.len(), plain.len());
            prop_assert_eq!(set.contains(id), insert);
        }
        prop_assert_eq!(set.iter().collect::<Vec<_>>(), plain.into_iter().collect::<Vec<_>>());
    }
}
