//! `manx-bench policy`: how soon the kernel acts on a change, and what policies cost.
//!
//! A node with 100 pods; a host that stands for all other nodes; policies of which every second one selects a pod of the
//! node, each with its own peers and its own port. What is measured is what a packet meets: a stream of datagrams, 50 us
//! apart, is dropped until a change of a remote endpoint's label, or of a policy's port, lets it pass. The time runs from
//! the return of the write to etcd until the first datagram arrives; it can be less than nothing, as watchers hear of a
//! write before its writer.

mod cluster;
mod etcd;
mod kubernetes;
mod stage;
mod stream;

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use clap::Args;

use self::cluster::{Policy, Remote, declare, namespace, nodes, policy_key};
use self::etcd::Etcd;
use self::stage::{ALL_ABOUT_ONE, SUBJECT, Stage};
use crate::cni::manx;
use crate::driver::{Plan, Plugin, drive};
use crate::memory::at_rest;
use crate::report::Report;
use crate::scene::{Scene, load_average, processors, tell};
use crate::stats::{median, milliseconds, percentile};

/// How many endpoints change their labels, beside those that policies admit.
const MOVERS: usize = 50;

/// The label of an endpoint that no policy admits.
const NOBODY: &str = "nobody";

/// How much the benchmark measures.
#[derive(Debug, Clone, Args)]
pub(crate) struct Effort {
    /// The numbers of policies to measure with.
    #[arg(long, hide = true, value_delimiter = ',', default_value = "10,100,1000,10000")]
    policies: Vec<usize>,
    /// How many changes of each kind are made at each number of policies.
    #[arg(long, hide = true, default_value_t = 200)]
    samples: usize,
    /// How many starts and restarts are made at each number of policies.
    #[arg(long, hide = true, default_value_t = 3)]
    starts: usize,
    /// The numbers of other nodes' endpoints whose cost in memory is measured.
    #[arg(long, hide = true, value_delimiter = ',', default_value = "10000,100000")]
    endpoints: Vec<usize>,
    /// How many new connections are measured.
    #[arg(long, hide = true, default_value_t = 5_000)]
    connections: usize,
    /// How many ADDs are measured with policies, and how many without.
    #[arg(long, hide = true, default_value_t = 200)]
    adds: usize,
}

/// Runs the benchmark.
pub(crate) fn run(effort: &Effort) -> anyhow::Result<Report> {
    let mut report = Report::new("policy");
    let load_before = load_average()?;
    report.figure("load_average_before", load_before);
    report.line(&format!("{} processors, load average {load_before:.2} before", processors()));
    let most = effort.policies.iter().chain(&effort.endpoints).copied().max().unwrap_or_default() + MOVERS;
    let scene = Scene { topology: "policy.clab.yml", env: &[] };
    scene.play(
        |lab| Etcd::connect(lab)?.put_all(declare(nodes(most)).chain([namespace()])),
        |lab| {
            let mut stage = Stage::set(lab, most)?;
            let rest = at_rest(stage.node())?.0.resident;
            report.figure("rss_mib_0", rest);
            effort.changes(&mut stage, &mut report)?;
            effort.connections(&mut stage, &mut report)?;
            report.line(&format!("\nresident memory at rest {rest:>36.1} MiB"));
            effort.memory(&mut stage, &mut report)?;
            effort.second_shape(&mut stage, &mut report)
        },
    )?;
    effort.adds(&mut report)?;
    effort.labels(&mut report)?;
    report.figure("load_average_after", load_average()?);
    Ok(report)
}

impl Effort {
    /// Measures membership, rules and starts at each number of policies.
    fn changes(&self, stage: &mut Stage<'_>, report: &mut Report) -> anyhow::Result<()> {
        let columns = ["membership p50", "p99 ms", "rule p50", "p99 ms", "start s", "restart s"];
        report.line(&format!("{:<14}{}", "policies", columns.map(|column| format!("{column:>16}")).concat()));
        let (mut there, mut policies) = (0, Vec::new());
        let mut changes = BTreeMap::new();
        for &count in &self.policies {
            tell(format_args!("{count} policies"));
            ensure!(count > there, "numbers of policies must grow");
            let fresh: Vec<Policy> = (there..count).map(Policy).collect();
            let peers: Result<Vec<_>, _> =
                fresh.iter().map(|policy| Remote(policy.0).labelled(&policy.peer())).collect();
            stage.etcd.put_all(peers?)?;
            stage.etcd.put_all(fresh.iter().map(|policy| policy.made()))?;
            policies.extend(fresh);
            there = count;
            stage.right(&policies, &changes)?;
            let membership = self.membership(stage, &policies, &changes).context("membership")?;
            let rule = self.rule(stage, &policies, &mut changes).context("rule")?;
            let (mut starts, mut restarts) = (Vec::new(), Vec::new());
            for _ in 0..self.starts {
                stage.crash_and_forget()?;
                let begun = stage.start()?;
                let right = stage.right(&policies, &changes)?;
                let ready = stage.ready()?;
                starts.push((right.max(ready) - begun).as_secs_f64());
                stage.node().agent().kill9()?;
                let begun = stage.start()?;
                restarts.push((stage.ready()? - begun).as_secs_f64());
                stage.right(&policies, &changes)?;
            }
            let mut line = format!("{count:<14}");
            for (key, value) in [
                ("membership_p50_ms", percentile(&membership, 50)),
                ("membership_p99_ms", percentile(&membership, 99)),
                ("rule_p50_ms", percentile(&rule, 50)),
                ("rule_p99_ms", percentile(&rule, 99)),
                ("start_s", median(&starts)),
                ("restart_s", median(&restarts)),
            ] {
                let value = value.with_context(|| format!("{key}: nothing was measured"))?;
                line.push_str(&format!("{value:>16.2}"));
                report.figure(format!("{key}_{count}"), value);
            }
            report.line(&line);
        }
        Ok(())
    }

    /// Measures how soon an endpoint on another node is admitted after it gets the label of a policy's peers.
    fn membership(
        &self,
        stage: &mut Stage<'_>,
        policies: &[Policy],
        changes: &BTreeMap<usize, usize>,
    ) -> anyhow::Result<Vec<f64>> {
        let mut times = Vec::new();
        for (number, (policy, pod)) in sample(policies, self.samples).enumerate() {
            let mover = Remote(policies.len() + number % MOVERS);
            let port = policy.port(changes.get(&policy.0).copied().unwrap_or_default());
            let published = mover.published(&policy.peer())?;
            times.push(stage.first_passing(mover, pod, port, |etcd| etcd.put(&mover.key(), &published))?);
            stage.etcd.put_all([mover.labelled(NOBODY)?])?;
            stage.closed(mover, pod, port)?;
        }
        Ok(times)
    }

    /// Measures how soon a policy admits to another port than before.
    fn rule(
        &self,
        stage: &mut Stage<'_>,
        policies: &[Policy],
        changes: &mut BTreeMap<usize, usize>,
    ) -> anyhow::Result<Vec<f64>> {
        let mut times = Vec::new();
        for (policy, pod) in sample(policies, self.samples) {
            let change = changes.entry(policy.0).or_default();
            let before = policy.port(*change);
            *change += 1;
            let (port, written) = (policy.port(*change), policy.stored(*change));
            times.push(stage.first_passing(Remote(policy.0), pod, port, |etcd| etcd.put(&policy.key(), &written))?);
            stage.closed(Remote(policy.0), pod, before)?;
        }
        Ok(times)
    }

    /// Measures a new connection to a pod under a thousand policies, and under none.
    fn connections(&self, stage: &mut Stage<'_>, report: &mut Report) -> anyhow::Result<()> {
        tell(format_args!("new connections"));
        stage.etcd.delete_all(&policy_key(""))?;
        stage.right(&[], &BTreeMap::new())?;
        let last = Policy(ALL_ABOUT_ONE - 1);
        let none = self.connection(stage, last)?;
        stage.etcd.put_all((0..ALL_ABOUT_ONE).map(|number| Policy(number).made_for(SUBJECT)))?;
        stage.settled(last.port(0))?;
        let many = self.connection(stage, last)?;
        stage.etcd.delete_all(&policy_key(""))?;
        stage.node().agent().kill9()?;
        stage.forget()?;
        let bare = self.connection(stage, last)?;
        stage.start()?;
        stage.ready()?;
        report.line(&format!(
            "\na new connection, us: {many:.1} under {ALL_ABOUT_ONE} policies, {none:.1} under none, {bare:.1} without agent"
        ));
        for (key, value) in [("1000", many), ("0", none), ("no_agent", bare)] {
            report.figure(format!("new_conn_us_{key}"), value);
        }
        let ratio = report.ratio("new_conn_1000_vs_0", many, none);
        report.line(&format!("  new_conn_1000_vs_0 {ratio:>8.3}"));
        Ok(())
    }

    fn connection(&self, stage: &Stage<'_>, policy: Policy) -> anyhow::Result<f64> {
        median(&stage.new_connections(policy.port(0), self.connections)?).context("no connections")
    }

    /// Measures the agent's memory with 1,000 policies and other nodes' endpoints.
    fn memory(&self, stage: &mut Stage<'_>, report: &mut Report) -> anyhow::Result<()> {
        let policies: Vec<Policy> = (0..1_000).map(Policy).collect();
        stage.etcd.put_all(policies.iter().map(|policy| policy.made()))?;
        let mut there = 0;
        for &count in &self.endpoints {
            tell(format_args!("{count} endpoints of other nodes"));
            let endpoints: Result<Vec<_>, _> =
                (there..count).map(|number| Remote(number).labelled(&Policy(number % policies.len()).peer())).collect();
            stage.etcd.put_all(endpoints?)?;
            there = count;
            stage.right(&policies, &BTreeMap::new())?;
            stage.node().agent().kill9()?;
            stage.start()?;
            stage.ready()?;
            stage.right(&policies, &BTreeMap::new())?;
            let (memory, rested) = at_rest(stage.node())?;
            ensure!(rested, "the agent did not come to rest");
            report.figure(format!("rss_mib_{count}"), memory.resident);
            report.line(&format!("  with {count:>7} endpoints of other nodes {:>22.1} MiB", memory.resident));
        }
        stage.etcd.delete_all(&policy_key(""))?;
        Ok(())
    }

    /// Measures a hundred classes, each of which admits all endpoints.
    fn second_shape(&self, stage: &mut Stage<'_>, report: &mut Report) -> anyhow::Result<()> {
        let endpoints = self.endpoints.iter().copied().max().unwrap_or_default();
        tell(format_args!("{} classes that admit {endpoints} endpoints each", cluster::PODS));
        let policies: Vec<Policy> = (0..cluster::PODS).map(Policy).collect();
        stage.etcd.put_all(policies.iter().map(|policy| policy.admits_all()))?;
        stage.crash_and_forget()?;
        let begun = stage.start()?;
        let ready = stage.ready()?;
        let open: Vec<(usize, u16)> = policies.iter().map(|policy| (policy.0, policy.port(0))).collect();
        let right = stage.admitted(Remote(endpoints - 1), &open)?;
        let start = (right.max(ready) - begun).as_secs_f64();
        let text = stage.node_shell("ipset list -t")?;
        let sets = mebibytes_of_sets(&text);
        let resident = at_rest(stage.node())?.0.resident;
        report.line(&format!(
            "{} classes that admit {endpoints} endpoints each: start {start:.2} s, sets {sets:.1} MiB, agent {resident:.1} MiB",
            cluster::PODS
        ));
        report.figure("broad_start_s", start);
        report.figure("broad_sets_mib", sets);
        report.figure("broad_rss_mib", resident);
        Ok(())
    }

    /// Measures a CNI ADD with 20 policies in force for its pods, in turn with an ADD without any.
    fn adds(&self, report: &mut Report) -> anyhow::Result<()> {
        let policed = Plugin { network: "policed".to_owned(), namespace: cluster::NAMESPACE.to_owned(), ..manx() };
        let rounds = 10;
        let plan = Plan {
            run: "policy".to_owned(),
            plugins: vec![manx(), policed],
            rounds,
            sequential: self.adds.div_ceil(rounds).max(1),
            parallel: 1,
            threads: 1,
        };
        let scene = Scene { topology: "cni.clab.yml", env: &[] };
        let measured = scene.play(
            |lab| {
                let node = lab.node("node1");
                let policies = (0..20).map(Policy).map(|policy| cluster::for_all(policy).to_string());
                std::fs::write(node.path("/etc/manx/policies.yaml"), policies.collect::<Vec<_>>().join("\n---\n"))?;
                ::tests::Place::exec(node, &["manxctl", "apply", "-f", "/etc/manx/policies.yaml"])?;
                Ok(())
            },
            |lab| drive(lab.node("node1"), plan),
        )?;
        let of = |network: &str| {
            let times: Vec<f64> = measured
                .iter()
                .filter(|round| round.network == network)
                .flat_map(|round| milliseconds(&round.add))
                .collect();
            median(&times).with_context(|| format!("{network}: nothing was measured"))
        };
        let (open, policed) = (of("manx")?, of("policed")?);
        report.line(&format!("CNI ADD, median ms: {policed:.2} under 20 policies, {open:.2} under none"));
        report.figure("add_policed_ms", policed);
        report.figure("add_open_ms", open);
        report.figure("add_policed_extra_ms", policed - open);
        Ok(())
    }

    /// Measures the time from the API server's answer to a label's change until the kernel of another node acts.
    fn labels(&self, report: &mut Report) -> anyhow::Result<()> {
        let Some(times) = kubernetes::label_to_kernel(self.samples)? else { return Ok(()) };
        let of = |percent| percentile(&times, percent).context("no label was changed");
        let (middle, worst) = (of(50)?, of(99)?);
        report.line(&format!(
            "a pod's label at the API server until another node's kernel acts, ms: {middle:.2} / {worst:.2}"
        ));
        report.figure("label_to_kernel_p50_ms", middle);
        report.figure("label_to_kernel_p99_ms", worst);
        Ok(())
    }
}

/// The policies that select a pod of the node, spread over all of them, again and again.
fn sample(policies: &[Policy], count: usize) -> impl Iterator<Item = (Policy, usize)> {
    let selecting: Vec<(Policy, usize)> =
        policies.iter().filter_map(|policy| policy.pod().map(|pod| (*policy, pod))).collect();
    // This step has no factor in common with any number of policies here, so it goes through all of them.
    let length = selecting.len().max(1);
    (0..count).filter_map(move |number| selecting.get(number * 7 % length).copied())
}

/// The memory of all sets, as the kernel tells it (`Size in memory` of ipset(8)).
fn mebibytes_of_sets(listing: &str) -> f64 {
    let sizes = listing.lines().filter_map(|line| line.strip_prefix("Size in memory: ")?.trim().parse::<u32>().ok());
    sizes.map(f64::from).sum::<f64>() / 1_048_576.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_go_through_all_policies_that_select_a_pod() {
        let policies: Vec<Policy> = (0..100).map(Policy).collect();
        let sampled: std::collections::BTreeSet<usize> = sample(&policies, 50).map(|(policy, _)| policy.0).collect();
        assert_eq!(sampled.len(), 50);
        assert!(sampled.iter().all(|number| Policy(*number).pod().is_some()));
    }

    #[test]
    fn the_memory_of_sets_is_summed() {
        let listing = "Name: a\nSize in memory: 1048576\nNumber of entries: 3\n\nName: b\nSize in memory: 524288\n";
        assert_eq!(mebibytes_of_sets(listing), 1.5);
    }

    #[test]
    fn a_declared_node_has_a_registration_and_a_block() {
        assert_eq!(declare(3).count(), 6);
    }
}
