use super::*;

#[test]
fn it_is_siphash_2_4_as_the_paper_prints_it() {
    let mut hasher = SipHasher24::new_with_keys(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
    let octets: Vec<u8> = (0..15).collect();
    hasher.write(&octets);
    assert_eq!(hasher.finish(), 0xa129_ca61_49be_45e5);
}

#[test]
fn texts_that_are_joined_differ_from_texts_that_are_apart() {
    let hash = |texts: &[&str]| {
        let mut hasher = StableHasher::of("test");
        texts.iter().for_each(|text| hasher.text(text));
        hasher.finish()
    };
    assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
}

/// What the first version of this hash gave: kernels of nodes that run have these values in names and comments.
#[test]
fn it_gives_what_it_has_always_given() {
    let of = |kind: &str, feed: &dyn Fn(&mut StableHasher)| {
        let mut hasher = StableHasher::of(kind);
        feed(&mut hasher);
        hasher.finish()
    };
    assert_eq!(of("test", &|_| {}), 0x5fef_edea_7f1b_95ea);
    let mixed = |hasher: &mut StableHasher| {
        hasher.number(7);
        hasher.text("app=web");
        hasher.octets(&[0, 1, 0xff]);
    };
    assert_eq!(of("selector", &mixed), 0x547d_24bb_d15e_ebc3);
    let long = |hasher: &mut StableHasher| {
        (0..40).for_each(|number| hasher.number(number * number));
        hasher.text("");
        hasher.text("d\u{f6}ner");
    };
    assert_eq!(of("class", &long), 0xd1ac_e2f0_37bf_3141);
    assert_eq!(of("block", &|hasher| hasher.octets(&[0x5a; 700])), 0xbc0f_d5e7_8edb_8983);
}
