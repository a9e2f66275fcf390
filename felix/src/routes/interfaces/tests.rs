use super::*;

fn link(name: &str, up: bool, mtu: u32) -> Interface {
    Interface { name: name.to_owned(), up, running: up, mtu, is_pods: false }
}

#[test]
fn of_two_links_of_one_name_the_newer_counts_whatever_the_order_of_the_news() {
    let name: InterfaceName = "mx0".parse().unwrap();
    let mut interfaces = Interfaces::default();
    assert_eq!(interfaces.ready(&name), Err(Trouble::NoInterface(name.clone())));
    interfaces.put(8, link("mx0", true, 1500));
    interfaces.put(5, link("mx0", false, 1500));
    assert_eq!(interfaces.ready(&name), Ok(8));
    interfaces.remove(5);
    assert_eq!(interfaces.ready(&name), Ok(8));
    interfaces.put(8, link("mx0", false, 1500));
    assert_eq!(interfaces.ready(&name), Err(Trouble::InterfaceDown(name.clone())));
    interfaces.put(8, link("mx1", true, 1500));
    assert_eq!(interfaces.ready(&name), Err(Trouble::NoInterface(name)));
}

#[test]
fn an_address_is_a_source_only_after_duplicate_address_detection() {
    let mut interfaces = Interfaces::default();
    let address = InterfaceAddress::new(2, "2001:db8::9".parse().unwrap(), 64);
    interfaces.put_address(&address.clone().with_flags(AddressFlags::TENTATIVE));
    assert!(!interfaces.has_address(address.address));
    interfaces.put_address(&address);
    assert!(interfaces.has_address(address.address));
    interfaces.remove_address(&address);
    assert!(!interfaces.has_address(address.address));
}

#[test]
fn the_smallest_mtu_is_that_of_the_interfaces_asked_for() {
    let mut interfaces = Interfaces::default();
    for (index, mtu) in [(1, 1280), (2, 9000), (3, 1500)] {
        interfaces.put(index, link("eth", true, mtu));
    }
    assert_eq!(interfaces.smallest_mtu(&BTreeSet::from([2, 3])), Some(1500));
    assert_eq!(interfaces.smallest_mtu(&BTreeSet::from([7])), None);
}
