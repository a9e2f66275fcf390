use super::*;

fn pod(wish: Option<&str>, declared: &[(Protocol, u16)]) -> PodPorts {
    let declared = declared.iter().map(|(protocol, port)| DeclaredPort {
        protocol: *protocol,
        container_port: *port,
        host_port: None,
    });
    PodPorts { wish: wish.map(str::to_owned), told: None, declared: declared.collect() }
}

fn wanted(of: &[(u16, &[Protocol])]) -> Wanted {
    of.iter().map(|(port, protocols)| (*port, protocols.iter().copied().collect())).collect()
}

#[test]
fn auto_means_every_declared_port_and_a_list_those_that_it_names() {
    use Protocol::{Tcp, Udp};
    let declared = [(Tcp, 8080), (Udp, 53), (Tcp, 53)];
    let asked = |wish: &str| pod(Some(wish), &declared).wanted().unwrap().unwrap();
    assert_eq!(asked("auto"), wanted(&[(53, &[Tcp, Udp]), (8080, &[Tcp])]));
    assert_eq!(asked(" auto "), asked("auto"));
    assert_eq!(asked("53"), wanted(&[(53, &[Tcp, Udp])]), "in the protocols in which it is declared");
    assert_eq!(asked("53/udp, 8080"), wanted(&[(53, &[Udp]), (8080, &[Tcp])]));
    assert_eq!(asked("9090"), wanted(&[(9090, &[Tcp])]), "declaring ports is not an obligation");
    assert_eq!(asked("9090/UDP,9090"), wanted(&[(9090, &[Tcp, Udp])]));
    assert_eq!(pod(None, &declared).wanted(), Ok(None));
}

#[test]
fn what_cannot_be_given_is_refused_by_name() {
    let refused = |wish: &str| pod(Some(wish), &[]).wanted().unwrap_err();
    for (wish, item) in [("", ""), ("yes", "yes"), ("0", "0"), ("80,", ""), ("65536", "65536"), ("80/ICMP", "80/ICMP")]
    {
        assert_eq!(refused(wish), WishError::Malformed(item.to_owned()), "{wish:?}");
    }
    assert_eq!(refused("auto"), WishError::NothingDeclared);
    assert_eq!(refused("80, 81/SCTP"), WishError::Sctp(81));
    let declared = pod(Some("auto"), &[(Protocol::Tcp, 80), (Protocol::Sctp, 81)]);
    assert_eq!(declared.wanted(), Err(WishError::Sctp(81)));
}

#[test]
fn the_annotation_says_addresses_and_port_of_each_container_port() {
    let addresses = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let port = HostPort { protocol: Protocol::Udp, container_port: 53, host_port: 20_001 };
    let said: serde_json::Value = serde_json::from_str(&annotation(&addresses, &[port])).unwrap();
    let expected = json!([{
        "containerPort": 53, "protocol": "UDP", "hostPort": 20_001, "hostIPs": ["192.0.2.1", "2001:db8::1"],
    }]);
    assert_eq!(said, expected);
}

#[test]
fn a_range_is_not_empty_and_leaves_the_hosts_own_ports_alone() {
    let range: PortRange = "20000-20002".parse().unwrap();
    assert_eq!(range.to_string(), "20000-20002");
    assert_eq!(range.ports_from(20_001).collect::<Vec<_>>(), [20_001, 20_002, 20_000]);
    assert_eq!(range.ports_from(7).collect::<Vec<_>>(), [20_000, 20_001, 20_002]);
    let last = PortRange::new(65_534, 65_535).unwrap();
    assert_eq!(last.ports_from(65_535).collect::<Vec<_>>(), [65_535, 65_534]);
    for text in ["", "20000", "20002-20000", "1023-2000", "20000-65536", "a-b"] {
        assert!(text.parse::<PortRange>().is_err(), "{text:?}");
    }
}
