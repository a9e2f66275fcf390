use super::*;

#[test]
fn rfc4271_4_3_bits_behind_the_length_mean_nothing() {
    let mut prefixes = Vec::new();
    parse(Family::Ipv4, &[9, 10, 0xff, 0, 32, 192, 0, 2, 1], &mut prefixes).unwrap();
    let texts: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["10.128.0.0/9", "0.0.0.0/0", "192.0.2.1/32"]);
    let mut out = BytesMut::new();
    prefixes.iter().for_each(|prefix| put(&mut out, prefix));
    assert_eq!(out[..], [9, 10, 0x80, 0, 32, 192, 0, 2, 1]);
    assert_eq!(out.len(), prefixes.iter().map(length).sum::<usize>());
}

#[test]
fn rfc7606_5_3_a_length_that_the_family_does_not_have_and_a_cut_prefix_are_errors_with_their_place() {
    for (family, octets, left) in [
        (Family::Ipv4, &[24, 10, 0, 0, 33, 1, 2, 3, 4, 5][..], 6),
        (Family::Ipv4, &[24, 10, 0], 2),
        (Family::Ipv6, &[129], 1),
    ] {
        assert_eq!(parse(family, octets, &mut Vec::new()), Err(Unreadable { left }), "{octets:?}");
    }
}
