use super::*;

fn node() -> Seen {
    let interface = |name: &str, accept_ra: &str, forwarding: &str| InterfaceSeen {
        name: name.parse().unwrap(),
        accept_ra: accept_ra.to_owned(),
        forwarding: forwarding.to_owned(),
    };
    let binary = |name: &str| BinarySeen { name: name.to_owned(), there: There::Nothing };
    Seen {
        ipv4_forwarding: Some("0".to_owned()),
        ipv6_forwarding: Some("0".to_owned()),
        interfaces: vec![
            interface("eth0", "1", "0"),
            interface("eth1", "0", "0"),
            interface("eth2", "2", "0"),
            interface("eth3", "1", "1"),
            interface("mxabcdefghijkl2", "1", "0"),
        ],
        legacy_iptables: false,
        systemd: true,
        networkd: None,
        binaries: vec![binary("manx"), binary("portmap")],
    }
}

/// All but modules, which are asked for every time.
fn words(seen: &Seen) -> Vec<String> {
    let steps = plan(seen).into_iter().filter(|step| !matches!(step, InstallStep::Module(_)));
    steps.map(|step| step.to_string()).collect()
}

#[test]
fn a_new_node_is_told_of_routers_before_it_becomes_one_and_gets_its_binaries_last() {
    assert_eq!(
        words(&node()),
        [
            "/etc/systemd/networkd.conf.d/50-manx.conf: written",
            "sysctl net/ipv6/conf/eth0/accept_ra: 2",
            "sysctl net/ipv6/conf/all/forwarding: 1",
            "sysctl net/ipv4/ip_forward: 1",
            "/opt/cni/bin/manx: installed",
            "/opt/cni/bin/portmap: installed",
        ]
    );
}

#[test]
fn a_node_that_has_it_all_is_left_alone() {
    let mut seen = node();
    seen.ipv4_forwarding = Some("1".to_owned());
    seen.ipv6_forwarding = Some("1".to_owned());
    seen.networkd = Some(NETWORKD_TEXT.to_owned());
    seen.binaries.iter_mut().for_each(|binary| binary.there = There::Same);
    assert!(words(&seen).is_empty());
}

#[test]
fn an_upgrade_replaces_what_is_ours_and_leaves_what_others_share() {
    let mut seen = node();
    seen.binaries.iter_mut().for_each(|binary| binary.there = There::Other);
    let binaries: Vec<_> = words(&seen).into_iter().filter(|words| words.ends_with("installed")).collect();
    assert_eq!(binaries, ["/opt/cni/bin/manx: installed"]);
}

#[test]
fn what_the_host_does_not_have_is_not_missed() {
    let seen = Seen { ipv4_forwarding: Some("0".to_owned()), ..Seen::default() };
    assert_eq!(words(&seen), ["sysctl net/ipv4/ip_forward: 1"]);
}

#[test]
fn the_legacy_modules_are_for_hosts_that_use_them() {
    let asked = |seen: &Seen| plan(seen).contains(&InstallStep::Module("ip6_tables"));
    assert!(!asked(&node()));
    assert!(asked(&Seen { legacy_iptables: true, ..node() }));
}
