use super::*;

#[test]
fn names_fit_the_kernels_limits_and_are_read_back() {
    let class = ClassId::new(u16::MAX).unwrap();
    let program = [
        SetId::Narrow(class, Direction::Ingress),
        SetId::Narrow(class, Direction::Egress),
        SetId::Selector(u64::MAX),
        SetId::SelectorPort(7),
        SetId::Block(0),
    ];
    for family in Family::ALL {
        let fixed = SetRef::base(family).into_iter().chain([SetRef::Pools(family), SetRef::Masquerade(family)]);
        for set in fixed.chain(program.map(|set| SetRef::Program(set, family))) {
            let name = set.to_string();
            assert!(name.len() < 31, "room for the mark of a larger copy: {name}");
            assert_eq!(SetRef::parse(&name), Some(set), "{name}");
            assert_eq!(set.kernel_name().as_str(), name);
            assert_eq!(SetRef::parse(set.larger_name().as_str()), None);
        }
    }
    for direction in Direction::ALL {
        for part in [0, 7, 9_999_999] {
            let chain = ClassChain { direction, part };
            let name = chain.name(u16::MAX);
            assert!(name.len() <= 28, "{name}");
            assert_eq!(ClassChain::parse(&name), Some((chain, u16::MAX)));
        }
    }
    assert!(branch_chain(FROM, 0x7f).len() <= 28);
    for foreign in ["KUBE-FORWARD", "manx-from-3", "manx-i-", "manx-i-x", "manx-i-3-0", "cali-i-3"] {
        assert_eq!(ClassChain::parse(foreign), None, "{foreign}");
    }
}
