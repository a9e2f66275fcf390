use super::*;

#[test]
fn a_stamp_is_read_back_and_foreign_comments_are_not() {
    let class = (ClassId::new(12).unwrap(), ClassKey(0xabc));
    for class in [None, Some(class)] {
        let stamp = Stamp { hash: 0x1234, class };
        assert_eq!(Stamp::parse(&stamp.to_string()), Some(stamp));
    }
    for foreign in ["cali:abc", "manx", "manx:", "manx:zz", "manx:1:2", "manx:1:0:3", "manx:1:2:3:4"] {
        assert_eq!(Stamp::parse(foreign), None, "{foreign}");
    }
}

#[test]
fn rules_that_differ_have_different_hashes() {
    let rules = [
        Rule::new("-p tcp", "-j DROP"),
        Rule::new("-p tcp", "-j RETURN"),
        Rule::new("", "-p tcp -j DROP"),
        Rule::of_class("-p tcp", "-j DROP", ClassId::OPEN, ClassKey(1)),
    ];
    let mut hashes: Vec<_> = rules.iter().map(|rule| rule.hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), rules.len());
}

/// What the first version of this hash gave: kernels of nodes that run have these values in the comments of rules.
#[test]
fn hashes_are_what_they_have_always_been() {
    assert_eq!(hash(["", "", ""]), 0xf998_341b_e47b_ae14);
    assert_eq!(hash(["-p tcp", "-j DROP", ""]), 0xea91_7ef6_be6f_2b42);
    assert_eq!(hash(["-m set --match-set manx-4s1 src", "-j RETURN", "12:abc"]), 0x6a7d_d64b_d4de_9f1d);
}
