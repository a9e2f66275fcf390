//! What it costs, printed: `cargo test -p felix --lib -- --ignored --nocapture --test-threads 1 policy::tests::cost`.

use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// The policy of a number: every second one governs one of the hundred pods here.
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

fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn print(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    println!("{what}: p50 {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
}

#[test]
#[ignore = "prints what changes cost, proves nothing"]
fn a_change_costs_what_it_touches_whatever_else_there_is() {
    for policies in [10_u16, 100, 1_000, 10_000] {
        let mut compiler = Compiler::new(CompilerConfig::default());
        let remotes: Vec<_> = (0..10_000).map(remote).collect();
        let start = Instant::now();
        remotes.iter().for_each(|(key, facts)| set_remote(&mut compiler, key, facts));
        (0..policies).for_each(|number| set_policy(&mut compiler, number, 1_000 + number));
        for pod in 0..100_u8 {
            let id = format!("manx/pod{pod}/eth0").parse().unwrap();
            let facts = EndpointFacts {
                namespace: "here".to_owned(),
                name: format!("pod-{pod}"),
                labels: labels(&[("pod", format!("pod-{pod}"))]),
                ports: Vec::new(),
                addresses: vec![std::net::Ipv4Addr::new(10, 1, 0, pod).into()],
                finished: false,
            };
            compiler.set_local(id, facts).unwrap();
        }
        let changes = compiler.take_changes().len();
        println!("{policies} policies: start {:?}, {changes} changes, {:?}", start.elapsed(), compiler.stats());
        let (mut membership, mut rule) = (Vec::new(), Vec::new());
        for turn in 0..2_000_u16 {
            let (key, mut facts) = remotes[usize::from(turn)].clone();
            facts.labels.insert("app".to_owned(), format!("app-{}", turn % policies.min(2_000) / 2 * 2));
            let start = Instant::now();
            compiler.apply(PolicyUpdate::Remote(Update::Set(key, facts)));
            std::hint::black_box(compiler.take_changes());
            membership.push(start.elapsed());
            let (id, policy) = policy(turn % policies / 2 * 2, 20_000 + turn);
            let policy = Arc::new(policy);
            let start = Instant::now();
            compiler.apply(PolicyUpdate::Policy(Update::Set(id, policy)));
            std::hint::black_box(compiler.take_changes());
            rule.push(start.elapsed());
        }
        print("  a remote label", membership);
        print("  a port", rule);
    }
}

#[test]
#[ignore = "prints what memory is used, proves nothing"]
fn endpoints_of_other_nodes_are_kept_in_few_octets() {
    let count = 100_000_u32;
    let mut compiler = Compiler::new(CompilerConfig::default());
    let before = resident();
    for number in 0..count {
        let (key, facts) = remote(number);
        set_remote(&mut compiler, &key, &facts);
    }
    compiler.take_changes();
    let after = resident();
    println!("{} octets an endpoint", (after - before) / usize::try_from(count).unwrap());
}

#[test]
#[ignore = "prints what changes cost, proves nothing"]
fn a_pod_under_a_thousand_policies_takes_another_rule_quickly() {
    let mut compiler = Compiler::new(CompilerConfig::default());
    for number in 0..10_000 {
        let (key, facts) = remote(number);
        set_remote(&mut compiler, &key, &facts);
    }
    let set = |compiler: &mut Compiler, number: u16, port| {
        let (id, mut policy) = policy(number, port);
        policy.subject = selector(NamespaceSelector::Named("here".to_owned()), "pod", "pod-0".to_owned());
        compiler.apply(PolicyUpdate::Policy(Update::Set(id, Arc::new(policy))));
    };
    (0..1_000).for_each(|number| set(&mut compiler, number, 80));
    let facts = EndpointFacts {
        namespace: "here".to_owned(),
        name: "pod-0".to_owned(),
        labels: labels(&[("pod", "pod-0".to_owned())]),
        ports: Vec::new(),
        addresses: vec![std::net::Ipv4Addr::new(10, 1, 0, 0).into()],
        finished: false,
    };
    compiler.set_local("manx/pod/eth0".parse().unwrap(), facts).unwrap();
    compiler.take_changes();
    let (mut rule, mut more) = (Vec::new(), Vec::new());
    for turn in 0..1_000_u16 {
        let start = Instant::now();
        set(&mut compiler, turn, 81);
        std::hint::black_box(compiler.take_changes());
        rule.push(start.elapsed());
        let start = Instant::now();
        set(&mut compiler, 1_000 + turn % 10, 81);
        std::hint::black_box(compiler.take_changes());
        more.push(start.elapsed());
        let (id, _) = policy(1_000 + turn % 10, 0);
        compiler.apply(PolicyUpdate::Policy(Update::Delete(id)));
        compiler.take_changes();
    }
    print("one pod under 1,000 policies, a port", rule);
    print("one pod under 1,000 policies, a policy more", more);
}
