use super::*;

fn candidate(interface: &str, address: &str) -> Candidate {
    Candidate { interface: interface.to_owned(), address: address.parse().unwrap(), global: true, up: true }
}

fn found(method: &str, family: Family) -> Result<Option<String>, String> {
    let down = Candidate { up: false, ..candidate("eth9", "192.0.2.9") };
    let candidates = [
        candidate("lo", "192.0.2.100"),
        candidate("docker0", "172.17.0.1"),
        down,
        candidate("eth0", "169.254.7.7"),
        candidate("eth0", "192.0.2.1"),
        candidate("eth1", "198.51.100.1"),
        candidate("eth1", "fe80::1"),
        candidate("eth1", "2001:db8::1"),
    ];
    let kubernetes = ["198.51.100.7".parse().unwrap()];
    address(&method.parse().unwrap(), family, &candidates, &kubernetes, None, |_| "192.0.2.1".parse().ok())
        .map(|address| address.map(|address| address.to_string()))
        .map_err(|error| error.to_string())
}

#[test]
fn every_method_finds_what_its_name_says() {
    for (method, family, address) in [
        ("first-found", Family::Ipv4, "192.0.2.1"),
        ("first-found", Family::Ipv6, "2001:db8::1"),
        ("interface=eth1", Family::Ipv4, "198.51.100.1"),
        ("interface=eth1", Family::Ipv6, "2001:db8::1"),
        ("cidr=198.51.100.0/24", Family::Ipv4, "198.51.100.1"),
        ("can-reach=203.0.113.1", Family::Ipv4, "192.0.2.1"),
        ("kubernetes-internal-ip", Family::Ipv4, "198.51.100.7"),
        ("192.0.2.77", Family::Ipv4, "192.0.2.77"),
    ] {
        assert_eq!(found(method, family).unwrap().as_deref(), Some(address), "{method}");
    }
    assert_eq!(found("none", Family::Ipv4), Ok(None));
    assert_eq!(found("kubernetes-internal-ip", Family::Ipv6), Ok(None), "the cluster has no such addresses");
}

#[test]
fn a_method_that_finds_nothing_is_an_error_naming_its_key() {
    for method in ["interface=eth7", "interface=eth9", "cidr=203.0.113.0/24", "2001:db8::1"] {
        let error = found(method, Family::Ipv4).unwrap_err();
        assert!(error.starts_with("addressDetection.ipv4: "), "{error}");
    }
}
