//! The part of `manx-bench cni` that is about policies and GC: what ADD takes under many policies, what a class costs that no
//! pod is in, and what it takes to let a hundred pods go at once.

use ::tests::{Lab, Place};
use anyhow::Context;
use serde_json::{Value, json};

use crate::cni::{Effort, manx};
use crate::driver::{CLASS_LABEL, Classes, Collection, Plugin, Round, drive, drive_classes, drive_collection};
use crate::report::Report;
use crate::scene::{Scene, tell};
use crate::stats::{median, milliseconds};

/// The namespace whose pods are all under [`POLICIES`] policies.
const POLICED: &str = "policed";

/// How many those are.
const POLICIES: usize = 20;

/// The namespace of pods that are in a class of their own, by a label.
const CLASSED: &str = "classed";

/// What was measured.
pub(crate) struct UnderPolicies {
    rounds: Vec<Round>,
    classes: Classes,
    collection: Collection,
}

impl UnderPolicies {
    /// Plays the scene, with so many classes and so many pods for the GC.
    pub(crate) fn measure(scene: Scene<'_>, effort: &Effort, classes: usize, collected: usize) -> anyhow::Result<Self> {
        let of = |namespace: &str| Plugin { network: namespace.to_owned(), namespace: namespace.to_owned(), ..manx() };
        scene.play(
            |lab| write_policies(lab, classes),
            |lab| {
                let node = lab.node("node1");
                tell(format_args!("manx under {POLICIES} policies and under none, in turn"));
                let rounds = drive(node, effort.plan("policies", vec![manx(), of(POLICED)]))?;
                tell(format_args!("pods of {classes} classes"));
                let classes = drive_classes(node, of(CLASSED), classes)?;
                tell(format_args!("{collected} pods and one GC"));
                let collection = drive_collection(node, of("collected"), collected)?;
                Ok(Self { rounds, classes, collection })
            },
        )
    }

    /// Puts the figures into the report.
    pub(crate) fn add_to(&self, report: &mut Report) -> anyhow::Result<()> {
        let of = |network: &str| {
            let rounds = self.rounds.iter().filter(|round| round.network == network);
            let times: Vec<f64> = rounds.flat_map(|round| milliseconds(&round.add)).collect();
            median(&times).with_context(|| format!("{network}: nothing was measured"))
        };
        let (open, policed) = (of("manx")?, of(POLICED)?);
        report.line(&format!("\nADD p50 ms: {policed:.2} under {POLICIES} policies, {open:.2} under none"));
        report.figure("add_policed_p50_ms", policed);
        report.ratio("add_policed_vs_open", policed, open);

        let middle = |times| median(&milliseconds(times)).context("no pod of a class was measured");
        let Classes { first, next, again } = &self.classes;
        let [first, next, again] = [middle(first)?, middle(next)?, middle(again)?];
        report.line(&format!(
            "a class's first pod {first:.2}, its second {next:.2}; one that comes when all have gone {again:.2}"
        ));
        report.figure("add_first_of_class_p50_ms", first);
        report.figure("add_next_of_class_p50_ms", next);
        report.figure("add_again_of_class_p50_ms", again);
        report.ratio("add_first_of_class_vs_next", first, next);
        report.ratio("add_again_of_class_vs_next", again, next);

        let milliseconds = |time: std::time::Duration| time.as_secs_f64() * 1_000.0;
        let Collection { verb, links_gone, kernel } = self.collection;
        let [verb, gone, kernel] = [verb, links_gone, kernel].map(milliseconds);
        report.line(&format!(
            "one GC that lets all go: {verb:.0} ms, links gone after {gone:.0}, of which {kernel:.0} in the kernel"
        ));
        report.figure("gc_ms", verb);
        report.figure("gc_links_gone_ms", gone);
        report.figure("gc_kernel_ms", kernel);
        Ok(())
    }
}

/// Writes all policies, before the agent starts.
fn write_policies(lab: &Lab, classes: usize) -> anyhow::Result<()> {
    let node = lab.node("node1");
    let policed = (0..POLICIES).map(|number| policy(POLICED, number, &json!({})));
    let classed = (0..classes).map(|number| policy(CLASSED, number, &json!({ CLASS_LABEL: format!("c{number}") })));
    let policies: Vec<_> = policed.chain(classed).map(|policy| policy.to_string()).collect();
    std::fs::write(node.path("/etc/manx/policies.yaml"), policies.join("\n---\n"))?;
    node.exec(&["manxctl", "apply", "-f", "/etc/manx/policies.yaml"])?;
    Ok(())
}

/// A policy with peers and a port of its own, for the pods of these labels.
fn policy(namespace: &str, number: usize, labels: &Value) -> Value {
    let peers = json!([{ "podSelector": { "matchLabels": { "peer": format!("r{number}") } } }]);
    let ports = json!([{ "protocol": "UDP", "port": 10_000 + number }]);
    let subject = if labels == &json!({}) { json!({}) } else { json!({ "matchLabels": labels }) };
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": { "name": format!("policy-{number:03}"), "namespace": namespace },
        "spec": { "podSelector": subject, "policyTypes": ["Ingress"], "ingress": [{ "from": peers, "ports": ports }] },
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_report_has_what_classes_and_gc_cost() {
        let times = |millisecond| vec![Duration::from_millis(millisecond); 3];
        let round = |network: &str, millisecond| Round {
            network: network.to_owned(),
            add: times(millisecond),
            del: times(1),
            parallel_add: Duration::ZERO,
            parallel_del: Duration::ZERO,
            links_gone: Duration::ZERO,
        };
        let measured = UnderPolicies {
            rounds: vec![round("manx", 2), round(POLICED, 3)],
            classes: Classes { first: times(8), next: times(4), again: times(5) },
            collection: Collection {
                verb: Duration::from_millis(30),
                links_gone: Duration::from_millis(90),
                kernel: Duration::from_millis(50),
            },
        };
        let mut report = Report::new("cni");
        measured.add_to(&mut report).unwrap();
        assert_eq!(report.ratios["add_policed_vs_open"], 1.5);
        assert_eq!(report.ratios["add_first_of_class_vs_next"], 2.0);
        assert_eq!(report.ratios["add_again_of_class_vs_next"], 1.25);
        assert_eq!((report.figures["gc_ms"], report.figures["gc_kernel_ms"]), (30.0, 50.0));
    }
}
