//! How many kernel changes an update leads to. How long it takes is measured by `./run bench policy`.

use std::sync::Arc;

use types::policy::{
    Action, EndpointSelector, LabelSelector, Labels, NamespaceSelector, Peer, Peers, Policy, PolicyId, PolicyKind,
    PortMatch, PortRange, Ports, Protocol, Rule, Tier,
};
use types::{EndpointId, Update};

use crate::policy::{Compiler, CompilerConfig, EndpointFacts, PolicyUpdate, RemoteKey};

fn labels(pairs: &[(&str, String)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

fn remote(number: u32) -> (RemoteKey, EndpointFacts) {
    let id: EndpointId = format!("manx/{:064x}/eth0", u64::from(number) * 0x9e37_79b9).parse().unwrap();
    let key = RemoteKey { node: format!("node-{}", number / 100).parse().unwrap(), id };
    let facts = EndpointFacts {
        namespace: format!("namespace-{}", number % 200),
        name: format!("web-{:010x}-{:05x}", number / 10, number % 0xf_ffff),
        labels: labels(&[
            ("app", format!("app-{}", number % 2_000)),
            ("pod-template-hash", format!("{:010x}", number / 10)),
            ("tier", format!("tier-{}", number % 5)),
        ]),
        ports: Vec::new(),
        addresses: vec![std::net::Ipv4Addr::from_bits(0x0a41_0000 + number).into()],
        finished: false,
    };
    (key, facts)
}

fn set_remote(compiler: &mut Compiler, key: &RemoteKey, facts: &EndpointFacts) {
    compiler.apply(PolicyUpdate::Remote(Update::Set(key.clone(), facts.clone())));
}

fn selector(namespaces: NamespaceSelector, key: &str, value: String) -> EndpointSelector {
    let match_labels = Labels::from([(key.to_owned(), value)]);
    EndpointSelector { namespaces, endpoints: LabelSelector { match_labels, match_expressions: Vec::new() } }
}

/// The policy with this number; every second policy governs one of the hundred pods on this node.
fn policy(number: u16, port: u16) -> (PolicyId, Policy) {
    let id =
        PolicyId { kind: PolicyKind::NetworkPolicy, namespace: "here".to_owned(), name: format!("policy-{number}") };
    let pod = if number.is_multiple_of(2) { format!("pod-{}", number / 2 % 100) } else { "none".to_owned() };
    let peer = Peer::Endpoints(selector(
        NamespaceSelector::Labelled(LabelSelector::default()),
        "app",
        format!("app-{number}"),
    ));
    let ports = Ports::Only(vec![PortMatch::Range(Protocol::Tcp, PortRange::single(port))]);
    let policy = Policy {
        tier: Tier::network_policy(),
        order: 0,
        subject: selector(NamespaceSelector::Named("here".to_owned()), "pod", pod),
        ingress: Some(vec![Rule { action: Action::Allow, peers: Peers::Only(vec![peer]), ports }]),
        egress: None,
    };
    (id, policy)
}

fn set_policy(compiler: &mut Compiler, number: u16, port: u16) {
    let (id, policy) = policy(number, port);
    compiler.apply(PolicyUpdate::Policy(Update::Set(id, Arc::new(policy))));
}

/// The number of kernel changes in three cases: a remote endpoint comes to match a policy that governs a pod here, one
/// comes to match a policy that governs no pod here, and a policy gets another port.
fn changes(policies: u16, remotes: u32) -> [usize; 3] {
    let mut compiler = Compiler::new(CompilerConfig::default());
    let remotes: Vec<_> = (0..remotes).map(remote).collect();
    remotes.iter().for_each(|(key, facts)| set_remote(&mut compiler, key, facts));
    (0..policies).for_each(|number| set_policy(&mut compiler, number, 80));
    for pod in 0..100_u8 {
        let facts = EndpointFacts {
            namespace: "here".to_owned(),
            name: format!("pod-{pod}"),
            labels: labels(&[("pod", format!("pod-{pod}"))]),
            ports: Vec::new(),
            addresses: vec![std::net::Ipv4Addr::new(10, 1, 0, pod).into()],
            finished: false,
        };
        compiler.set_local(format!("manx/pod{pod}/eth0").parse().unwrap(), facts).unwrap();
    }
    compiler.take_changes();
    let relabelled = |compiler: &mut Compiler, number: usize, app: &str| {
        let (key, mut facts) = remotes[number].clone();
        facts.labels.insert("app".to_owned(), app.to_owned());
        set_remote(compiler, &key, &facts);
        compiler.take_changes().len()
    };
    let governing = relabelled(&mut compiler, 900, "app-2");
    let idle = relabelled(&mut compiler, 901, "app-3");
    set_policy(&mut compiler, 4, 81);
    [governing, idle, compiler.take_changes().len()]
}

#[test]
fn what_a_change_has_written_depends_on_what_it_touches_and_not_on_how_much_else_there_is() {
    let [governing, idle, port] = changes(10, 1_000);
    assert!(governing > 0 && idle == 0 && port > 0, "{governing}, {idle}, {port}");
    assert_eq!(changes(800, 2_000), [governing, idle, port]);
}
