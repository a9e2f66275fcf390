use super::*;

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

fn path(octets: &[u8]) -> Result<AsPath, Unreadable> {
    AsPath::parse(octets, Width::Two, Confederation::Malformed)
}

#[test]
fn rfc4271_9_1_2_2a_a_set_counts_as_one_as() {
    let path = path(&[2, 2, 0xfc, 0, 0xfc, 1, 1, 3, 0, 7, 0, 8, 0, 9]).unwrap();
    assert_eq!(path.to_string(), "64512 64513 {7,8,9}");
    assert_eq!(path.length(), 3);
    assert_eq!(path.first(), Some(asn(64_512)));
    assert!(path.contains(asn(8)) && !path.contains(asn(10)));
}

#[test]
fn rfc4271_5_1_2_prepending_opens_a_new_sequence_before_a_set_and_before_a_full_sequence() {
    let set = path(&[1, 1, 0, 7]).unwrap();
    assert_eq!(set.first(), None);
    assert_eq!(set.prepended(asn(5)).to_string(), "5 {7}");
    let full = AsPath::sequence((1..=255).map(asn));
    assert_eq!(full.segments().count(), 1);
    let longer = full.prepended(asn(900));
    assert_eq!(longer.segments().map(|s| s.asns().len()).collect::<Vec<_>>(), [1, 255]);
    assert_eq!(longer.length(), 256);
    assert_eq!(AsPath::empty().prepended(asn(5)), AsPath::sequence([asn(5)]));
}

#[test]
fn rfc7606_7_2_empty_segments_unknown_types_and_overruns_are_malformed() {
    for (octets, left) in [
        (&[2, 0][..], 2),
        (&[5, 1, 0, 1], 4),
        (&[3, 1, 0, 1], 4),
        (&[2, 1, 0, 1, 2, 2, 0, 1], 2),
        (&[2, 1, 0, 1, 2], 0),
        (&[2, 2, 0, 1, 0, 0], 6),
    ] {
        assert_eq!(path(octets), Err(Unreadable { left }), "{octets:?}");
    }
}

#[test]
fn rfc6793_4_2_3_what_old_speakers_added_goes_in_front_of_as4_path() {
    let trans = Asn::TRANS.two_octets().to_be_bytes();
    let as_path = path(&[2, 3, 0, 1, 0, 2, trans[0], trans[1]]).unwrap();
    let as4_path = AsPath::sequence([asn(4_200_000_000)]);
    assert_eq!(as_path.clone().merged(&as4_path), AsPath::sequence([asn(1), asn(2), asn(4_200_000_000)]));
    // An AS4_PATH that is longer than the path cannot belong to it.
    let longer = AsPath::sequence([asn(1), asn(2), asn(3), asn(4)]);
    assert_eq!(as_path.clone().merged(&longer), as_path);
    let with_set = path(&[1, 2, 0, 1, 0, 2, 2, 2, 0, 3, trans[0], trans[1]]).unwrap();
    assert_eq!(with_set.merged(&as4_path).to_string(), "{1,2} 3 4200000000");
}

#[test]
fn rfc6793_6_confederation_segments_of_as4_path_are_passed_over() {
    let octets = [3, 1, 0, 0, 0, 9, 2, 1, 0, 0, 0, 5];
    let parsed = AsPath::parse(&octets, Width::Four, Confederation::PassedOver);
    assert_eq!(parsed, Ok(AsPath::sequence([asn(5)])));
}

#[test]
fn rfc6793_4_2_2_numbers_that_do_not_fit_are_as_trans_in_two_octets() {
    let path = AsPath::sequence([asn(64_512), asn(4_200_000_000)]);
    assert!(path.needs_four_octets());
    let mut out = BytesMut::new();
    path.put_two_octets(&mut out);
    assert_eq!(out[..], [2, 2, 0xfc, 0, 0x5b, 0xa0]);
    assert_eq!(path.two_octet_length(), out.len());
}
