//! What is rendered, as one reads it in `iptables-save`, without the stamps.

use types::config::MarkMask;
use types::policy::{PortRange, Protocol};

use super::*;
use crate::policy::program::{
    Class, ClassId, ClassKey, ClassRule, PeerMatch, PortClause, Rules as ClassRules, SetId, Verdict,
};

fn layout() -> Layout {
    Layout {
        mark: MarkSpace::new(MarkMask::default()),
        interfaces: "mx+".to_owned(),
        to_host: EndpointToHost::Accept,
        log: None,
        guard: Guard { ports: BTreeSet::from([179, 1790]), own_port: 1790, vxlan: false, tunnels: false },
        masquerade: true,
        services: BTreeSet::new(),
    }
}

/// Rules without their comments.
fn shown(rules: &[Rule]) -> Vec<String> {
    let bare = |rule: &Rule| {
        let (before, after) = rule.spec.split_once("-m comment --comment ").unwrap();
        format!("{before}{}", after.split_once(' ').unwrap().1)
    };
    rules.iter().map(bare).collect()
}

fn allow(peer: PeerMatch, port: PortClause) -> ClassRule {
    ClassRule { peer, port, verdict: Verdict::Allow }
}

fn class(ingress: ClassRules, egress: ClassRules) -> Class {
    Class { key: ClassKey(0xfeed), ingress, egress }
}

fn rendered(class: &Class, direction: Direction) -> Vec<String> {
    let (rules, _) = class_rules(ClassId::new(12).unwrap(), class, &[Family::Ipv4]);
    shown(&rules[&(Family::Ipv4, ClassChain::whole(direction))])
}

#[test]
fn the_forward_hook_is_first_and_touches_only_pods_interfaces() {
    let table = table(&layout(), Family::Ipv4, TableName::Mangle, &[2, 3, 0x20], []);
    assert!(table.hooks.iter().all(|hook| hook.place == Place::First));
    assert_eq!(
        shown(&table.chains["manx-forward"]),
        [
            "-i mx+ -j manx-guard",
            "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
            "-m conntrack --ctstate DNAT -m set --match-set manx-speakers4 dst,dst -g manx-refuse",
            "-i mx+ -m set --match-set manx-homes4 dst,src -j RETURN",
            "-i mx+ -j manx-from",
            "-o mx+ -j manx-to",
            "-i mx+ -j MARK --set-xmark 0x0/0xff0000",
            "-o mx+ -j MARK --set-xmark 0x0/0xff0000",
        ]
    );
    assert_eq!(
        shown(&table.chains["manx-from"]),
        [
            "-m conntrack --ctstate INVALID -j DROP",
            "-j MARK --set-xmark 0x0/0xff0000",
            "-j SET --map-set manx-c4 src --map-mark",
            "-m mark --mark 0x0/0xff0000 -j DROP",
            "-m mark --mark 0x10000/0xff0000 -j RETURN",
            "-m mark --mark 0x0/0xf00000 -g manx-from-0",
            "-m mark --mark 0x200000/0xf00000 -g manx-from-2",
            "-j DROP",
        ]
    );
    assert_eq!(
        shown(&table.chains["manx-to-0"]),
        ["-m mark --mark 0x20000/0xff0000 -g manx-i-2", "-m mark --mark 0x30000/0xff0000 -g manx-i-3", "-j DROP"]
    );
}

#[test]
fn what_is_closed_to_pods_comes_ahead_of_connection_tracking_and_most_packets_leave_by_one_rule() {
    let chain =
        |layout: &Layout, family, name: &str| shown(&table(layout, family, TableName::Mangle, &[], []).chains[name]);
    assert_eq!(
        chain(&layout(), Family::Ipv4, "manx-guard"),
        [
            "-p tcp -m multiport ! --ports 179,1790 -j RETURN",
            "-p udp -m multiport ! --ports 68,3784,3785,4784,4789,8472 -j RETURN",
            "-p icmp -j RETURN",
            "-p udp -m multiport --dports 4789,8472 -g manx-refuse",
            "-p 4 -g manx-refuse",
            "-p 41 -g manx-refuse",
            "-p 47 -g manx-refuse",
            "-p 50 -g manx-refuse",
            "-p 51 -g manx-refuse",
            "-m set --match-set manx-speakers4 dst,dst -g manx-refuse",
            "-m set --match-set manx-speakers4 dst,src -g manx-refuse",
        ]
    );
    let input = chain(&layout(), Family::Ipv6, "manx-guard-in");
    assert_eq!(input[0], "-d fe80::/10 ! -p ipv6-icmp -g manx-refuse");
    assert_eq!(input[2], "-p udp -m multiport ! --ports 546,3784,3785,4784,4789,8472 -j RETURN");
    assert_eq!(
        input[3..6],
        [
            "-p ipv6-icmp -m icmp6 --icmpv6-type 134 -g manx-refuse",
            "-p ipv6-icmp -m icmp6 --icmpv6-type 137 -g manx-refuse",
            "-p ipv6-icmp -j RETURN",
        ]
    );
    assert_eq!(
        input[11..],
        [
            "-m set --match-set manx-routers6 src -j RETURN",
            "-p tcp -m tcp --dport 1790 -g manx-refuse",
            "-p udp -m multiport --dports 3784,3785,4784,546 -g manx-refuse",
            "-m set --match-set manx-speakers6 dst,dst -g manx-refuse",
            "-m set --match-set manx-speakers6 dst,src -g manx-refuse",
        ]
    );
    assert_eq!(chain(&layout(), Family::Ipv4, "manx-guard-in")[0], "-d 169.254.1.1/32 ! -p icmp -g manx-refuse");
    let guard = Guard { ports: (1..=16).collect(), vxlan: true, tunnels: true, ..layout().guard };
    let allowed = chain(&Layout { guard, ..layout() }, Family::Ipv4, "manx-guard");
    assert_eq!(allowed.len(), 4, "too many ports for one rule, so that each packet is looked up: {allowed:?}");
}

#[test]
fn neighbour_discovery_passes_to_the_host_whatever_the_policy() {
    for to_host in [EndpointToHost::Accept, EndpointToHost::Policed, EndpointToHost::Drop] {
        let layout = Layout { to_host, ..layout() };
        let rules = shown(&table(&layout, Family::Ipv6, TableName::Mangle, &[], []).chains["manx-input"]);
        for kind in [133, 135, 136] {
            let rule = format!("-p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j RETURN");
            assert!(rules.iter().position(|line| *line == rule).unwrap() < rules.len() - 1);
        }
        assert_eq!(rules.first().map(String::as_str), Some("-j manx-guard-in"));
        let end: Vec<_> = rules.iter().skip(9).map(String::as_str).collect();
        match to_host {
            EndpointToHost::Accept => assert_eq!(end[2], "-m mark --mark 0x0/0xff0000 -j DROP"),
            EndpointToHost::Policed => assert_eq!(end[0], "-j manx-from"),
            EndpointToHost::Drop => assert_eq!(end, ["-j DROP"]),
        }
    }
}

#[test]
fn a_governed_class_begins_with_the_syn_check_and_ends_with_drop_and_its_open_direction_returns() {
    let class = class(ClassRules::Only(vec![]), ClassRules::Open);
    let syn = "-p tcp -m conntrack --ctstate NEW -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN";
    let ingress = [format!("{syn} -g manx-drop-in"), "-g manx-drop-in".to_owned()];
    assert_eq!(rendered(&class, Direction::Ingress), ingress);
    assert_eq!(rendered(&class, Direction::Egress), [format!("{syn} -g manx-drop-out"), "-j RETURN".to_owned()]);
}

#[test]
fn peers_are_the_source_on_ingress_and_the_destination_on_egress_and_ports_always_the_destinations() {
    let narrow = SetId::Narrow(ClassId::new(12).unwrap(), Direction::Ingress);
    let rules = vec![
        allow(PeerMatch::PortIn(narrow), PortClause::Any),
        allow(PeerMatch::In(SetId::Selector(0xab)), PortClause::All(Protocol::Sctp)),
        allow(PeerMatch::Any, PortClause::Ranges(Protocol::Udp, vec![PortRange::new(53, 54).unwrap()])),
        ClassRule { verdict: Verdict::Deny, ..allow(PeerMatch::Any, PortClause::Any) },
    ];
    let class = class(ClassRules::Only(rules.clone()), ClassRules::Only(rules));
    assert_eq!(
        rendered(&class, Direction::Ingress)[1..],
        [
            "-m set --match-set manx-4i12 src,dst -j RETURN",
            "-p sctp -m set --match-set manx-4s00000000000000ab src -j RETURN",
            "-p udp -m udp --dport 53:54 -j RETURN",
            "-g manx-drop-in",
            "-g manx-drop-in",
        ]
    );
    assert_eq!(rendered(&class, Direction::Egress)[1], "-m set --match-set manx-4i12 dst,dst -j RETURN");
}

#[test]
fn more_than_fifteen_ports_take_several_rules_and_a_range_counts_twice() {
    let ranges: Vec<_> =
        (0..16).map(|port| PortRange::new(port * 10, port * 10 + u16::from(port == 3)).unwrap()).collect();
    let rule = allow(PeerMatch::Any, PortClause::Ranges(Protocol::Tcp, ranges));
    let lines = rendered(&class(ClassRules::Only(vec![rule]), ClassRules::Open), Direction::Ingress);
    assert_eq!(lines[1], "-p tcp -m multiport --dports 0,10,20,30:31,40,50,60,70,80,90,100,110,120,130 -j RETURN");
    assert_eq!(lines[2], "-p tcp -m multiport --dports 140,150 -j RETURN");
    assert_eq!(lines.len(), 4);
}

#[test]
fn what_a_rule_passes_to_begins_a_chain_of_its_own() {
    let id = ClassId::new(12).unwrap();
    let rule = |verdict, port| ClassRule {
        verdict,
        ..allow(PeerMatch::Any, PortClause::Ranges(Protocol::Tcp, vec![PortRange::single(port)]))
    };
    let rules =
        vec![rule(Verdict::Pass(2), 1), rule(Verdict::Deny, 2), rule(Verdict::Pass(4), 3), rule(Verdict::Allow, 4)];
    let class = class(ClassRules::Open, ClassRules::Only(rules));
    let (rules, _) = class_rules(id, &class, &[Family::Ipv4]);
    let chain = |part| {
        let rules = &rules[&(Family::Ipv4, ClassChain { direction: Direction::Egress, part })];
        shown(&for_number(rules, 5, None, Direction::Egress, id))
    };
    let [port1, port2, port3, port4] = [1, 2, 3, 4].map(|port| format!("-p tcp -m tcp --dport {port}"));
    assert_eq!(
        chain(0)[1..],
        [format!("{port1} -g manx-e-5-2"), format!("{port2} -g manx-drop-out"), "-g manx-e-5-2".to_owned()]
    );
    // No tier is left: dropped.
    assert_eq!(
        chain(2),
        [format!("{port3} -g manx-drop-out"), format!("{port4} -j RETURN"), "-g manx-drop-out".to_owned()]
    );
}

#[test]
fn the_log_comes_before_the_drop_and_names_direction_and_class() {
    let id = ClassId::new(12).unwrap();
    let class = class(ClassRules::Only(vec![]), ClassRules::Open);
    let (rules, _) = class_rules(id, &class, &[Family::Ipv4]);
    let log = |direction| {
        shown(&for_number(&rules[&(Family::Ipv4, ClassChain::whole(direction))], 5, Some(7), direction, id))
    };
    let ingress = log(Direction::Ingress);
    assert_eq!(ingress[1..], ["-j NFLOG --nflog-group 7 --nflog-prefix manx-i12", "-g manx-drop-in"]);
    assert_eq!(log(Direction::Egress).len(), 2, "nothing to log");
}

#[test]
fn masquerade_is_appended_and_accept_only_where_filter_drops() {
    let nat = table(&layout(), Family::Ipv6, TableName::Nat, &[], []);
    assert_eq!(nat.hooks[0].place, Place::Last);
    let rule = "-m set --match-set manx-masq6 src -m set ! --match-set manx-pools6 dst -j MASQUERADE --random-fully";
    assert_eq!(shown(&nat.chains["manx-nat"]), [rule]);
    let without = Layout { masquerade: false, ..layout() };
    assert_eq!(table(&without, Family::Ipv6, TableName::Nat, &[], []), WantedTable::default());
    let filter = table(&layout(), Family::Ipv4, TableName::Filter, &[], []);
    assert!(filter.hooks.iter().all(|hook| hook.place == Place::LastWherePolicyDrops));
}

#[test]
fn what_goes_to_a_range_of_services_past_every_service_is_dropped_where_it_is_of_the_family_and_not_the_nodes_own() {
    let ranges: BTreeSet<Prefix> =
        ["10.96.0.0/16", "203.0.113.0/24", "fd00:96::/112"].map(|it| it.parse().unwrap()).into();
    let layout = Layout { services: ranges, ..layout() };
    let ipv4 = table(&layout, Family::Ipv4, TableName::Mangle, &[], []);
    assert_eq!(
        shown(&ipv4.chains["manx-services"]),
        [
            "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
            "-d 10.96.0.0/16 -m addrtype ! --src-type LOCAL -j DROP",
            "-d 203.0.113.0/24 -m addrtype ! --src-type LOCAL -j DROP",
        ]
    );
    let hook = ipv4.hooks.iter().find(|hook| hook.chain == "POSTROUTING").unwrap();
    assert_eq!(shown(std::slice::from_ref(&hook.rule)), ["-j manx-services"]);
    let ipv6 = table(&layout, Family::Ipv6, TableName::Mangle, &[], []);
    assert_eq!(ipv6.chains["manx-services"].len(), 2);
    let without = Layout { services: BTreeSet::new(), ..layout };
    let without = table(&without, Family::Ipv4, TableName::Mangle, &[], []);
    assert!(!without.chains.contains_key("manx-services"));
    assert!(without.hooks.iter().all(|hook| hook.chain != "POSTROUTING"));
}
