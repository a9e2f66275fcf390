use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

#[test]
fn a_pod_comes_before_a_block_and_a_block_before_what_bgp_says() {
    let mut desired = Desired::default();
    let host = prefix("10.0.0.1/32");
    let hop: IpAddr = "192.0.2.1".parse().unwrap();
    let interface: InterfaceName = "mx0".parse().unwrap();
    desired.learn(host, vec![hop]);
    assert_eq!(desired.wanted(&host), Some(Wanted::Learned(&[hop])));
    assert_eq!(desired.own_blocks(BTreeSet::from([host])), [host]);
    assert_eq!(desired.wanted(&host), Some(Wanted::OwnBlock));
    desired.attach(host.addr(), interface.clone());
    assert_eq!(desired.wanted(&host), Some(Wanted::Pod(&interface)));
    desired.detach(host.addr());
    assert_eq!(desired.wanted(&host), Some(Wanted::OwnBlock));
    desired.own_blocks(BTreeSet::new());
    desired.unlearn(&host);
    assert_eq!(desired.wanted(&host), None);
}

#[test]
fn only_routes_through_a_next_hop_are_concerned_by_it() {
    let mut desired = Desired::default();
    let [one, two] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().unwrap());
    desired.learn(prefix("10.0.1.0/26"), vec![one]);
    desired.learn(prefix("10.0.2.0/26"), vec![one, two]);
    assert_eq!(desired.learned_through(&BTreeSet::from([two])), [prefix("10.0.2.0/26")]);
}
