//! The corner cases of NetworkPolicy, one test for each, judged by what the compiled program lets pass.

use types::policy::{
    Action, EffectiveDirection, Flow, Judgement, LabelSelector, Labels, Operator, Party, Policy, PortMatch, PortRange,
    Protocol, Reason, Requirement, Rule, Tier, TierEnd,
};
use types::{NamespacedName, Update};

use super::node::*;
use crate::policy::program::{Change, ClassId};
use crate::policy::{EndpointFacts, Infrastructure, PolicyUpdate};

#[test]
fn point_1_who_is_not_selected_is_open_and_who_is_selected_is_isolated_in_that_direction_alone() {
    let mut node = shop();
    assert!(node.lets_in(WEB, OUTSIDE, TCP, 80) && node.lets_out(WEB, OUTSIDE, None, 0));
    node.policy("deny", policy(Some(vec![]), None));
    assert!(!node.lets_in(WEB, OUTSIDE, TCP, 80) && node.lets_out(WEB, OUTSIDE, TCP, 80));
    node.policy("allow", policy(Some(vec![allow(Some(vec![pods(&[("app", "db")])]), None)]), None));
    assert!(node.lets_in(WEB, DB, TCP, 80), "policies add up, whatever their order");
    assert!(!node.lets_in(WEB, OUTSIDE, TCP, 80));
}

#[test]
fn point_3_a_policy_governs_its_own_namespace_only() {
    let mut node = shop();
    node.local(3, pod("other", &[("app", "web")], &["10.0.0.3"]));
    node.policy("deny", policy(Some(vec![]), Some(vec![])));
    assert!(!node.lets_out(WEB, OUTSIDE, TCP, 80));
    assert!(node.lets_out("10.0.0.3", OUTSIDE, TCP, 80) && node.lets_in("10.0.0.3", OUTSIDE, TCP, 80));
}

#[test]
fn point_4_both_ends_must_allow_when_both_are_here() {
    let mut node = shop();
    node.local(3, pod("other", &[], &["10.0.0.3"]));
    let flow = |source: &str, destination: &str| Flow {
        source: address(source),
        destination: address(destination),
        protocol: TCP,
        port: 80,
    };
    node.policy("deny", policy(None, Some(vec![])));
    assert!(!node.compiler.allows(&flow(WEB, "10.0.0.3")), "the source forbids");
    assert!(node.compiler.allows(&flow("10.0.0.3", WEB)));
    assert!(node.compiler.allows(&flow(OUTSIDE, DB)), "of ends elsewhere this node does not judge");
    let explanation = node.compiler.explain(&flow(WEB, "10.0.0.3"));
    assert_eq!(explanation.verdict, Judgement::Denied);
    assert_eq!(explanation.source.reason, Reason::Isolated { policies: vec![id("deny")] });
    assert_eq!(explanation.destination.reason, Reason::NotGoverned);
}

#[test]
fn point_6_a_rule_without_peers_is_for_all_and_one_without_ports_for_all_protocols_too() {
    let mut node = shop();
    node.policy("p", policy(Some(vec![allow(None, Some(vec![port(Protocol::Tcp, 80)]))]), None));
    assert!(node.lets_in(WEB, OUTSIDE, TCP, 80) && node.lets_in(WEB, DB, TCP, 80) && !node.lets_in(WEB, DB, None, 0));
    node.policy("p", policy(Some(vec![allow(None, None)]), None));
    assert!(node.lets_in(WEB, OUTSIDE, None, 0) && node.lets_in(WEB, OUTSIDE, Some(Protocol::Sctp), 1));
    node.policy("p", policy(Some(vec![allow(Some(vec![]), None), allow(None, Some(vec![]))]), None));
    assert!(!node.lets_in(WEB, DB, TCP, 80), "none of none");
}

#[test]
fn point_7_namespace_and_pod_selector_of_one_peer_must_both_fit_and_of_two_peers_either() {
    let mut node = shop();
    node.namespace("shop", &[("team", "a")]);
    node.namespace("lab", &[("team", "b")]);
    node.remote(3, pod("lab", &[("app", "db")], &["10.0.1.3"]));
    node.remote(4, pod("lab", &[("app", "web")], &["10.0.1.4"]));
    let lab = || labelled(&[("team", "b")]);
    node.policy("p", policy(Some(vec![allow(Some(vec![of_namespaces(lab(), &[("app", "db")])]), None)]), None));
    let reached = |node: &Node| [DB, "10.0.1.3", "10.0.1.4"].map(|from| node.lets_in(WEB, from, TCP, 80));
    assert_eq!(reached(&node), [false, true, false]);
    node.policy(
        "p",
        policy(Some(vec![allow(Some(vec![of_namespaces(lab(), &[]), pods(&[("app", "db")])]), None)]), None),
    );
    assert_eq!(reached(&node), [true, true, true]);
    node.policy("p", policy(Some(vec![allow(Some(vec![of_namespaces(labelled(&[]), &[])]), None)]), None));
    assert_eq!(reached(&node), [true, true, true]);
    assert!(!node.lets_in(WEB, OUTSIDE, TCP, 80), "all namespaces are still only pods");
}

#[test]
fn point_8_negative_requirements_fit_who_has_no_such_label_and_a_namespace_always_has_its_name() {
    let mut node = shop();
    node.remote(3, pod("unheard-of", &[("app", "x")], &["10.0.1.3"]));
    let expression = |key: &str, operator, values: &[&str]| LabelSelector {
        match_labels: Labels::new(),
        match_expressions: vec![Requirement {
            key: key.to_owned(),
            operator,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        }],
    };
    let rule = |namespaces| Some(vec![allow(Some(vec![of_namespaces(namespaces, &[])]), None)]);
    node.policy("p", policy(rule(expression("team", Operator::NotIn, &["a"])), None));
    assert!(node.lets_in(WEB, "10.0.1.3", TCP, 80) && node.lets_in(WEB, DB, TCP, 80));
    node.namespace("unheard-of", &[("team", "a")]);
    assert!(!node.lets_in(WEB, "10.0.1.3", TCP, 80));
    node.policy("p", policy(rule(expression("team", Operator::DoesNotExist, &[])), None));
    assert!(!node.lets_in(WEB, "10.0.1.3", TCP, 80) && node.lets_in(WEB, DB, TCP, 80));
    node.policy("p", policy(rule(labelled(&[("kubernetes.io/metadata.name", "shop")])), None));
    assert!(node.lets_in(WEB, DB, TCP, 80) && !node.lets_in(WEB, "10.0.1.3", TCP, 80));
}

#[test]
fn point_9_an_exception_denies_nothing_that_another_peer_or_policy_allows() {
    let mut node = shop();
    node.policy("wide", policy(Some(vec![allow(Some(vec![block("10.0.0.0/8", &["10.0.1.0/24"])]), None)]), None));
    assert!(node.lets_in(WEB, "10.9.0.1", TCP, 80), "pods and others alike");
    assert!(!node.lets_in(WEB, DB, TCP, 80) && !node.lets_in(WEB, "fd00::2", TCP, 80));
    node.policy("narrow", policy(Some(vec![allow(Some(vec![block("10.0.1.0/30", &[])]), None)]), None));
    assert!(node.lets_in(WEB, DB, TCP, 80) && !node.lets_in(WEB, "10.0.1.9", TCP, 80));
    node.apply(PolicyUpdate::Policy(Update::Delete(id("narrow"))));
    assert!(!node.lets_in(WEB, DB, TCP, 80), "and the hole is a hole again");
    node.policy("all", policy(Some(vec![allow(Some(vec![block("0.0.0.0/0", &[])]), None)]), None));
    assert!(node.lets_in(WEB, OUTSIDE, TCP, 80) && !node.lets_in("fd00::1", "2001:db8::1", TCP, 80));
}

#[test]
fn point_10_a_selected_pod_is_a_peer_with_the_addresses_of_both_families() {
    let mut node = shop();
    node.policy("p", policy(Some(vec![allow(Some(vec![pods(&[("app", "db")])]), None)]), None));
    assert!(node.lets_in(WEB, DB, TCP, 80) && node.lets_in("fd00::1", "fd00::2", TCP, 80));
}

#[test]
fn point_11_a_policy_for_sctp_or_udp_leaves_tcp_denied() {
    let mut node = shop();
    for protocol in [Protocol::Sctp, Protocol::Udp] {
        let ports = vec![port(protocol, 80)];
        node.policy("p", policy(Some(vec![allow(Some(vec![pods(&[])]), Some(ports))]), None));
        assert!(node.lets_in(WEB, DB, Some(protocol), 80) && !node.lets_in(WEB, DB, TCP, 80));
    }
}

#[test]
fn point_12_a_named_port_is_the_destinations_own_on_ingress_and_each_peers_on_egress() {
    let mut node = Node::new();
    let tcp = |name, number| (name, Protocol::Tcp, number);
    node.local(1, with_ports(pod("shop", &[("app", "a")], &["10.0.0.1"]), &[tcp("http", 80), tcp("http", 8080)]));
    node.local(2, with_ports(pod("shop", &[("app", "b")], &["10.0.0.2"]), &[tcp("http", 81)]));
    node.local(3, with_ports(pod("shop", &[("app", "c")], &["10.0.0.3"]), &[("http", Protocol::Udp, 80)]));
    let rules = || Some(vec![allow(None, Some(vec![named("http")]))]);
    node.policy("p", policy(rules(), rules()));
    let open = |own| [80, 81, 8080].map(|port| node.lets_in(own, OUTSIDE, TCP, port));
    assert_eq!(open("10.0.0.1"), [true, false, true], "duplicate names are all meant");
    assert_eq!(open("10.0.0.2"), [false, true, false]);
    assert_eq!(open("10.0.0.3"), [false; 3], "a name of another protocol is another name");
    assert!(node.lets_out("10.0.0.1", "10.0.0.2", TCP, 81) && !node.lets_out("10.0.0.1", "10.0.0.2", TCP, 80));
    assert!(!node.lets_out("10.0.0.1", OUTSIDE, TCP, 80), "what is no pod has no names");
    node.policy("p", policy(None, Some(vec![allow(Some(vec![block("10.0.0.0/31", &[])]), Some(vec![named("http")]))])));
    assert!(node.lets_out("10.0.0.3", "10.0.0.1", TCP, 80) && !node.lets_out("10.0.0.3", "10.0.0.2", TCP, 81));
    node.local(2, with_ports(pod("shop", &[("app", "b")], &["10.0.0.1"]), &[tcp("http", 443)]));
    assert!(node.lets_out("10.0.0.3", "10.0.0.1", TCP, 443), "ports follow the pod");
}

#[test]
fn point_12_a_range_has_both_its_ends_and_a_port_without_number_is_all_of_its_protocol() {
    let mut node = shop();
    let range = PortMatch::Range(Protocol::Tcp, PortRange::new(8000, 8080).unwrap());
    let rule = |ports| Some(vec![allow(Some(vec![pods(&[])]), Some(ports))]);
    node.policy("p", policy(rule(vec![range]), None));
    let open = [7999, 8000, 8080, 8081].map(|port| node.lets_in(WEB, DB, TCP, port));
    assert_eq!(open, [false, true, true, false]);
    node.policy("p", policy(rule(vec![PortMatch::All(Protocol::Tcp)]), None));
    assert!(node.lets_in(WEB, DB, TCP, 1) && !node.lets_in(WEB, DB, Some(Protocol::Udp), 1));
}

#[test]
fn point_13_what_has_no_ports_fits_only_a_rule_without_ports() {
    let mut node = shop();
    let rule = |ports| Some(vec![allow(Some(vec![pods(&[])]), ports)]);
    let all = Protocol::ALL.map(PortMatch::All).to_vec();
    node.policy("p", policy(rule(Some(all)), None));
    assert!(node.lets_in(WEB, DB, TCP, 80) && !node.lets_in(WEB, DB, None, 0));
    node.policy("p", policy(rule(None), None));
    assert!(node.lets_in(WEB, DB, None, 0));
}

#[test]
fn points_14_and_15_a_pod_reaches_itself_and_its_node_reaches_it() {
    let mut node = shop();
    node.compiler.set_node_addresses([address("172.16.0.1")]);
    node.policy("deny", policy(Some(vec![]), Some(vec![])));
    let flow = |source: &str, destination: &str| Flow {
        source: address(source),
        destination: address(destination),
        protocol: TCP,
        port: 80,
    };
    for (source, reason) in [(WEB, Reason::Itself), ("172.16.0.1", Reason::OwnNode)] {
        let flow = flow(source, WEB);
        assert!(node.compiler.allows(&flow), "{flow}");
        assert_eq!(node.compiler.explain(&flow).destination.reason, reason);
    }
    assert!(!node.compiler.allows(&flow("172.16.0.2", WEB)), "not another node");
}

#[test]
fn an_explanation_says_by_which_nodes_a_hidden_client_would_be_judged_otherwise() {
    let mut node = shop();
    node.compiler.set_node_addresses(["172.16.0.1", "fd00:16::1"].map(address));
    let node_of = |number: u8| {
        let addresses = vec![address(&format!("172.16.0.{number}")), address(&format!("fd00:16::{number}"))];
        (format!("node{number}").parse().unwrap(), addresses)
    };
    node.compiler.set_nodes((1..=3).map(node_of).collect());
    let explain = |node: &Node, source: &str, destination: &str| {
        let flow = Flow { source: address(source), destination: address(destination), protocol: TCP, port: 80 };
        let explanation = node.compiler.explain_entries(&flow);
        let entries = explanation.entries.iter();
        let entries: Vec<_> = entries.map(|it| (it.node.to_string(), it.address.to_string(), it.verdict)).collect();
        (explanation.verdict, entries)
    };
    let entry = |number: u8, address: &str, verdict| (format!("node{number}"), address.to_owned(), verdict);
    assert_eq!(explain(&node, OUTSIDE, WEB), (Judgement::Allowed, vec![]), "nothing governs it");
    let rule = |blocks: &[&str]| {
        let blocks = blocks.iter().map(|cidr| block(cidr, &[])).collect();
        policy(Some(vec![allow(Some(blocks), None)]), None)
    };
    node.policy("p", rule(&[&format!("{OUTSIDE}/32"), "172.16.0.3/32"]));
    let entries = vec![entry(2, "172.16.0.2", Judgement::Denied), entry(3, "172.16.0.3", Judgement::Allowed)];
    assert_eq!(
        explain(&node, OUTSIDE, WEB),
        (Judgement::Allowed, entries.clone()),
        "not its own node, which hides nobody"
    );
    assert_eq!(explain(&node, "203.0.113.9", WEB), (Judgement::Denied, entries));
    assert_eq!(explain(&node, DB, WEB), (Judgement::Denied, vec![]), "a pod is not hidden");
    let ipv6 = vec![entry(2, "fd00:16::2", Judgement::Denied), entry(3, "fd00:16::3", Judgement::Denied)];
    assert_eq!(explain(&node, "2001:db8::1", "fd00::1"), (Judgement::Denied, ipv6));
    // The explanation covers a pod of another node too.
    node.compiler.set_nodes([("other".parse().unwrap(), vec![address("172.16.0.9")]), node_of(1)].into());
    let entries = vec![entry(1, "172.16.0.1", Judgement::Denied)];
    assert_eq!(explain(&node, "172.16.0.3", DB), (Judgement::Allowed, entries));
    assert_eq!(explain(&node, "172.16.0.9", DB), (Judgement::Allowed, vec![]), "its own node");
}

#[test]
fn point_17_labels_of_pods_and_namespaces_change_who_is_meant_by_set_members_alone() {
    let mut node = shop();
    node.namespace("shop", &[]);
    let members =
        |changes: &[Change]| changes.iter().all(|change| matches!(change, Change::Add(..) | Change::Remove(..)));
    let peers = vec![of_namespaces(labelled(&[("team", "a")]), &[]), pods(&[("app", "cache")])];
    node.policy("p", policy(Some(vec![allow(Some(peers), Some(vec![port(Protocol::Tcp, 80)]))]), None));
    assert!(!node.lets_in(WEB, DB, TCP, 80));
    assert!(members(&node.remote(2, pod("shop", &[("app", "cache")], &[DB]))));
    assert!(node.lets_in(WEB, DB, TCP, 80));
    assert!(members(&node.remote(2, pod("shop", &[("app", "db")], &[DB]))));
    assert!(!node.lets_in(WEB, DB, TCP, 80));
    assert!(members(&node.namespace("shop", &[("team", "a")])));
    assert!(node.lets_in(WEB, DB, TCP, 80));
    assert!(members(&node.namespace("shop", &[("team", "b")])));
    assert!(!node.lets_in(WEB, DB, TCP, 80));
    let joins = node.local(1, pod("cart", &[], &[WEB, "fd00::1"]));
    assert!(joins.iter().any(|change| *change == Change::Join(address(WEB), ClassId::OPEN)), "no longer governed");
    assert!(node.lets_in(WEB, DB, TCP, 80));
}

#[test]
fn point_18_a_pod_that_is_expected_has_its_class_before_it_has_an_address() {
    let mut node = Node::new();
    node.policy("deny", policy(Some(vec![]), None));
    let key = NamespacedName { namespace: "shop".to_owned(), name: "pod".to_owned() };
    let changes = node.apply(PolicyUpdate::Expected(Update::Set(key.clone(), pod("shop", &[], &[]))));
    assert!(matches!(changes.as_slice(), [Change::PutClass(..)]));
    let changes = node.local(1, pod("shop", &[], &[WEB]));
    assert!(matches!(changes.as_slice(), [Change::Join(..)]), "{changes:?}");
    node.apply(PolicyUpdate::Expected(Update::Delete(key)));
    node.compiler.remove_local(&local(1));
    let changes = node.settle();
    assert!(matches!(changes.as_slice(), [Change::Leave(_), Change::DropClass(_)]), "{changes:?}");
}

#[test]
fn point_19_a_pod_that_has_ended_is_nobodys_peer_at_once() {
    let mut node = shop();
    node.local(3, pod("shop", &[("app", "db")], &["10.0.0.3"]));
    node.policy("p", policy(Some(vec![allow(Some(vec![pods(&[("app", "db")])]), None)]), None));
    assert!(node.lets_in(WEB, DB, TCP, 80) && node.lets_in(WEB, "10.0.0.3", TCP, 80));
    node.remote(2, EndpointFacts { finished: true, ..pod("shop", &[("app", "db")], &[DB]) });
    node.local(3, EndpointFacts { finished: true, ..pod("shop", &[("app", "db")], &["10.0.0.3"]) });
    assert!(!node.lets_in(WEB, DB, TCP, 80) && !node.lets_in(WEB, "10.0.0.3", TCP, 80));
    assert!(!node.lets_in("10.0.0.3", OUTSIDE, TCP, 80), "and stays governed while it has the address");
}

#[test]
fn point_21_a_deleted_namespace_has_no_labels_any_more() {
    let mut node = shop();
    node.namespace("shop", &[("team", "a")]);
    let peers = vec![of_namespaces(labelled(&[("team", "a")]), &[])];
    node.policy("p", policy(Some(vec![allow(Some(peers), None)]), None));
    assert!(node.lets_in(WEB, DB, TCP, 80));
    node.apply(PolicyUpdate::Namespace(Update::Delete("shop".to_owned())));
    assert!(!node.lets_in(WEB, DB, TCP, 80));
}

#[test]
fn point_23_a_policy_whose_peers_are_nobody_isolates_all_the_same() {
    let mut node = shop();
    node.policy("p", policy(Some(vec![allow(Some(vec![pods(&[("app", "nobody")])]), None)]), None));
    assert!(!node.lets_in(WEB, DB, TCP, 80));
}

#[test]
fn a_tier_that_passes_leaves_it_to_the_next_and_what_all_pass_is_allowed() {
    let mut node = shop();
    let tier = |order: u32, end| Tier { order, name: format!("t{order}"), end };
    let rule = |action, number| Rule { action, ..allow(None, Some(vec![port(Protocol::Tcp, number)])) };
    let rules = vec![rule(Action::Pass, 80), rule(Action::Deny, 81), rule(Action::Allow, 82)];
    node.policy("first", Policy { tier: tier(1, TierEnd::Pass), ..policy(Some(rules), None) });
    let open = |node: &Node| [80, 81, 82, 83].map(|port| node.lets_in(WEB, OUTSIDE, TCP, port));
    assert_eq!(open(&node), [true, false, true, true]);
    node.policy("second", policy(Some(vec![allow(None, Some(vec![port(Protocol::Tcp, 83)]))]), None));
    assert_eq!(open(&node), [false, false, true, true]);
}

#[test]
fn an_endpoint_is_shown_with_its_policies_their_members_and_the_numbers_of_names() {
    let mut node = shop();
    node.local(1, with_ports(pod("shop", &[("app", "web")], &[WEB]), &[("http", Protocol::Tcp, 8080)]));
    let rule = allow(Some(vec![pods(&[("app", "db")])]), Some(vec![named("http")]));
    node.policy("p", policy(Some(vec![rule]), None));
    let shown = node.compiler.show(&local(1)).unwrap();
    assert_eq!(shown.egress, EffectiveDirection::Open);
    let EffectiveDirection::Governed { policies } = shown.ingress else { panic!("it is governed") };
    let rule = &policies[0].rules[0];
    assert_eq!(rule.peers.as_ref().unwrap()[0].members, Some(1));
    assert_eq!(rule.ports.as_ref().unwrap()[0].numbers, Some(vec![8080]));
    assert_eq!(node.compiler.show(&local(9)), None);
    let flow = Flow { source: address(DB), destination: address(WEB), protocol: TCP, port: 8080 };
    let explanation = node.compiler.explain(&flow);
    let Reason::Rule(decision) = &explanation.destination.reason else { panic!("a rule decides") };
    assert_eq!((decision.rule, decision.peer.as_ref().unwrap().index), (0, 0));
    assert!(matches!(&explanation.source.party, Party::Endpoint { node: Some(node), .. } if node.as_str() == "other"));
}

#[test]
fn what_is_closed_to_pods_is_the_reason_whatever_policies_allow_unless_the_node_peers_with_the_pod() {
    let mut node = shop();
    let (own, other) = (address("172.16.0.9"), address("172.16.0.2"));
    node.compiler.set_node_addresses([own]);
    node.policy("allow", policy(None, Some(vec![allow(None, None)])));
    let tell = |node: &mut Node, routers: &[&str]| {
        let routers = routers.iter().map(|router| router.parse().unwrap()).collect();
        let speakers = [(own, 179), (other, 1790)].into();
        node.compiler.set_infrastructure(Infrastructure { speakers, own_port: 179, routers });
    };
    let reason = |node: &Node, source: &str, destination, protocol, port| {
        let flow = Flow { source: address(source), destination, protocol: Some(protocol), port };
        let explanation = node.compiler.explain(&flow);
        (explanation.source.reason == Reason::Infrastructure).then_some(explanation.verdict)
    };
    tell(&mut node, &[]);
    for (to, port) in [(own, 179), (other, 1790)] {
        assert_eq!(reason(&node, WEB, to, Protocol::Tcp, port), Some(Judgement::Denied));
        assert_eq!(reason(&node, WEB, to, Protocol::Udp, 3784), Some(Judgement::Denied));
        assert_eq!(reason(&node, WEB, to, Protocol::Udp, port), None);
        assert_eq!(reason(&node, OUTSIDE, to, Protocol::Tcp, port), None, "it is no pod");
    }
    assert_eq!(reason(&node, WEB, other, Protocol::Tcp, 179), None, "it listens elsewhere");
    tell(&mut node, &["app == 'web'"]);
    assert_eq!(reason(&node, WEB, own, Protocol::Tcp, 179), None);
    assert_eq!(reason(&node, WEB, other, Protocol::Tcp, 1790), Some(Judgement::Denied), "to its own node alone");
    assert_eq!(reason(&node, DB, own, Protocol::Tcp, 179), Some(Judgement::Denied), "another pod");
}
