use super::*;

fn pairing(addresses: &[&str], sandbox: Sandbox) -> Pairing {
    Pairing {
        host: "mxabc".parse().unwrap(),
        pod: "eth0".parse().unwrap(),
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        mtu: 1_500,
        sandbox,
    }
}

fn position(steps: &[WiringStep], wanted: impl Fn(&WiringStep) -> bool) -> usize {
    steps.iter().position(wanted).unwrap()
}

fn key(step: &WiringStep) -> &str {
    match step {
        WiringStep::Sysctl(sysctl) => sysctl.key.path(),
        _ => "",
    }
}

#[test]
fn nothing_moves_before_sysctls_and_addresses_are_in_place() {
    let steps = plan(&pairing(&["10.65.0.2", "fd00::2"], Sandbox::default()));
    let raised = position(&steps, |step| *step == WiringStep::RaisePod);
    for (place, step) in steps.iter().enumerate() {
        match step {
            WiringStep::Sysctl(_)
            | WiringStep::Address(_)
            | WiringStep::MakePair
            | WiringStep::GatewayOfPair
            | WiringStep::GatewayLinkLocal => {
                assert!(place < raised, "{step:?}");
            }
            WiringStep::DefaultRoute(_) | WiringStep::GatewayNeighbour(_) | WiringStep::GatewayOnLink => {
                assert!(place > raised, "{step:?}");
            }
            _ => {}
        }
    }
    for wanted in ["ipv4/conf/mxabc/proxy_arp", "ipv4/neigh/mxabc/proxy_delay", "ipv6/conf/mxabc/accept_dad"] {
        assert!(steps.iter().any(|step| key(step).ends_with(wanted)), "{wanted}");
    }
}

#[test]
fn the_pods_namespace_is_entered_once() {
    let steps = plan(&pairing(&["10.65.0.2", "fd00::2"], Sandbox::default()));
    let sides: Vec<_> = steps.chunk_by(|one, next| one.side() == next.side()).map(|steps| steps[0].side()).collect();
    assert_eq!(sides, [Side::Host, Side::Pod, Side::Host]);
}

#[test]
fn a_family_without_an_address_is_left_alone_but_router_advertisements_are_never_taken() {
    let steps = plan(&pairing(&["10.65.0.2"], Sandbox::default()));
    let ipv6: Vec<_> = steps.iter().filter(|step| key(step).contains("ipv6")).collect();
    assert_eq!(ipv6.len(), 2);
    for step in ipv6 {
        assert!(matches!(step, WiringStep::Sysctl(Sysctl { absent: Absent::IsFine, .. })), "{step:?}");
        assert!(key(step).ends_with("accept_ra"));
    }
    let steps = plan(&pairing(&["fd00::2"], Sandbox::default()));
    assert!(!steps.iter().any(|step| key(step).contains("ipv4") || *step == WiringStep::GatewayAddress));
}

#[test]
fn another_networks_default_route_stays_and_ours_is_not_put() {
    let sandbox = Sandbox { loopback_up: true, default_routes: BTreeSet::from([Family::Ipv4]) };
    let pairing = pairing(&["10.65.0.2", "fd00::2"], sandbox);
    let steps = plan(&pairing);
    assert!(!steps.contains(&WiringStep::DefaultRoute(Family::Ipv4)) && !steps.contains(&WiringStep::GatewayOnLink));
    assert!(steps.contains(&WiringStep::DefaultRoute(Family::Ipv6)));
    assert_eq!(pairing.default_routes().collect::<Vec<_>>(), [Family::Ipv6]);
}

#[test]
fn only_the_nodes_shared_address_outlives_a_failure() {
    let steps = plan(&pairing(&["10.65.0.2", "fd00::2"], Sandbox::default()));
    let stays: Vec<_> = steps.iter().filter(|step| step.undo() == Undo::Stays).collect();
    assert_eq!(stays, [&WiringStep::GatewayAddress]);
}
