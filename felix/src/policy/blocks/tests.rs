use proptest::prelude::*;

use super::*;

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn holes_are_subtracted_and_the_whole_of_a_family_is_two_halves() {
    let cases: [(&str, &[&str], &[&str]); 6] = [
        ("10.0.0.0/8", &[], &["10.0.0.0/8"]),
        ("0.0.0.0/0", &[], &["0.0.0.0/1", "128.0.0.0/1"]),
        ("::/0", &["8000::/1", "10.0.0.0/8"], &["::/1"]),
        ("10.0.0.0/30", &["10.0.0.1/32", "10.0.0.2/32"], &["10.0.0.0/32", "10.0.0.3/32"]),
        ("10.0.0.0/30", &["10.0.0.0/8"], &[]),
        ("10.0.0.7/32", &["10.0.0.7/32"], &[]),
    ];
    for (block, holes, left) in cases {
        assert_eq!(subtract(block.parse().unwrap(), &prefixes(holes)), prefixes(left), "{block}");
    }
}

proptest! {
    #[test]
    fn what_is_left_is_in_the_block_and_in_no_hole_and_nowhere_twice(
        block in (any::<u32>(), 0..=32_u8),
        holes in prop::collection::vec((any::<u32>(), 0..=32_u8, any::<bool>()), 0..6),
        probes in prop::collection::vec(any::<u32>(), 32),
    ) {
        let prefix = |addr: u32, len| Prefix::new(IpAddr::V4(Ipv4Addr::from_bits(addr)), len).unwrap();
        let block = prefix(block.0, block.1);
        let first = match block.addr() { IpAddr::V4(addr) => addr.to_bits(), IpAddr::V6(_) => unreachable!() };
        let within = |addr: u32| if block.len() == 0 { addr } else { first | (addr & (u32::MAX >> (block.len() - 1) >> 1)) };
        let holes: Vec<_> =
            holes.into_iter().map(|(addr, len, inside)| prefix(if inside { within(addr) } else { addr }, len)).collect();
        let left = subtract(block, &holes);
        for probe in probes {
            for addr in [probe, within(probe)] {
                let addr = IpAddr::V4(Ipv4Addr::from_bits(addr));
                let fits = block.contains(addr) && !holes.iter().any(|hole| hole.contains(addr));
                prop_assert_eq!(left.iter().filter(|prefix| prefix.contains(addr)).count(), usize::from(fits));
            }
        }
    }
}
