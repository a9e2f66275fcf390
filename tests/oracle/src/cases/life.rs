//! Cases in which pods, namespaces and policies change.

use serde_json::json;

use super::{ALL, Case, Reach, TCP_80, labels, put, stage, story, world};
use crate::generate::{Change, NODES};
use crate::world::{Phase, Pod, PodName, PolicyName};

pub(super) fn cases() -> Vec<Case> {
    [policies(), people()].concat()
}

fn policies() -> Vec<Case> {
    let deny = || json!({"podSelector": {"matchLabels": {"pod": "a"}}});
    let allow = || json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": [{"podSelector": {}}]}]});
    vec![
        story(
            "a policy that is replaced holds as it is now",
            vec![
                stage(vec![put("x", 0, deny())], Reach::open().into("x/a", &[])),
                stage(vec![put("x", 0, allow())], Reach::open().into("x/a", &[("x/*", ALL)])),
                stage(
                    vec![put("x", 0, json!({"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}]}))],
                    Reach::open().into("x/*", &[("*", TCP_80)]),
                ),
            ],
        ),
        story(
            "policies that are deleted hold no more",
            vec![
                stage(vec![put("x", 0, deny()), put("x", 1, allow())], Reach::open().into("x/a", &[("x/*", ALL)])),
                stage(vec![Change::DeletePolicy(PolicyName::new("x", "p1"))], Reach::open().into("x/a", &[])),
                stage(vec![Change::DeletePolicy(PolicyName::new("x", "p0"))], Reach::open()),
            ],
        ),
    ]
}

fn people() -> Vec<Case> {
    let from_y = || {
        json!({"podSelector": {"matchLabels": {"pod": "a"}}, "ingress": [{"from": [
            {"namespaceSelector": {"matchLabels": {"ns": "y"}}, "podSelector": {"matchLabels": {"pod": "b"}}}]}]})
    };
    let relabel = |namespace, name, label| Change::LabelPod(PodName::new(namespace, name), labels(&[("pod", label)]));
    let of_y = Reach::open().into("x/a", &[("y/b", ALL)]);
    let end = |phase| Change::EndPod(PodName::new("y", "b"), phase);
    let in_host = {
        let (node, addresses) = NODES[0];
        let pod = world().pods.remove(&PodName::new("y", "b"));
        pod.map(|pod| Pod { node: node.to_owned(), addresses: addresses.to_vec(), host_network: true, ..pod })
    };
    vec![
        story(
            "a namespace that is relabelled joins and leaves the peers",
            vec![
                stage(vec![put("x", 0, from_y())], of_y.clone()),
                stage(
                    vec![Change::LabelNamespace("z".to_owned(), labels(&[("ns", "y")]))],
                    Reach::open().into("x/a", &[("y/b", ALL), ("z/b", ALL)]),
                ),
                stage(
                    vec![Change::LabelNamespace("y".to_owned(), labels(&[]))],
                    Reach::open().into("x/a", &[("z/b", ALL)]),
                ),
            ],
        ),
        story(
            "a pod that is relabelled joins and leaves the peers",
            vec![
                stage(
                    vec![put("x", 0, from_y()), relabel("y", "c", "b")],
                    Reach::open().into("x/a", &[("y/b", ALL), ("y/c", ALL)]),
                ),
                stage(vec![relabel("y", "b", "c")], Reach::open().into("x/a", &[("y/c", ALL)])),
            ],
        ),
        story(
            "a pod that is relabelled comes under a policy and from under it",
            vec![
                stage(
                    vec![put("x", 0, from_y()), relabel("x", "b", "a")],
                    Reach::open().into("x/a", &[("y/b", ALL)]).into("x/b", &[("y/b", ALL)]),
                ),
                stage(vec![relabel("x", "a", "b")], Reach::open().into("x/b", &[("y/b", ALL)])),
            ],
        ),
        story(
            "a namespace that is deleted takes its policies and its pods' rights along",
            vec![
                stage(vec![put("x", 0, from_y()), put("y", 0, json!({}))], of_y.clone().into("y/*", &[])),
                stage(vec![Change::DeleteNamespace("y".to_owned())], Reach::open().into("x/a", &[])),
            ],
        ),
        story(
            "a pod that has ended is nobody's peer, and its address is for others",
            vec![
                stage(vec![put("x", 0, from_y())], of_y.clone()),
                stage(vec![end(Phase::Succeeded)], Reach::open().into("x/a", &[])),
                stage(
                    world()
                        .pods
                        .remove(&PodName::new("z", "a"))
                        .map(|pod| Change::Inherit(PodName::new("y", "b"), PodName::new("z", "a"), pod))
                        .into_iter()
                        .collect(),
                    Reach::open().into("x/a", &[]),
                ),
            ],
        ),
        story(
            "a pod that waits to run is a peer: its init containers speak",
            vec![
                stage(vec![put("x", 0, from_y()), end(Phase::Pending)], of_y.clone()),
                stage(vec![end(Phase::Failed)], Reach::open().into("x/a", &[])),
            ],
        ),
        story(
            "a pod in the host's network is neither governed nor a peer",
            vec![stage(
                in_host
                    .map(|pod| Change::PutPod(PodName::new("y", "b"), pod))
                    .into_iter()
                    .chain([
                        put("x", 0, from_y()),
                        put("y", 0, json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})),
                    ])
                    .collect(),
                Reach::open().into("x/a", &[]).into("y/*", &[]).out("y/*", &[]),
            )],
        ),
    ]
}
