//! `manx-bench k8s`: many pods at once in a Kubernetes cluster, until each is ready and reached from outside.
//!
//! Each round brings the lab's cluster up twice, one after the other: once with Manx, deployed as a user deploys it, and once
//! with the reference plugins `ptp` and `host-local` and static routes; every other round in the opposite order. All else is
//! the same: machines in two racks, kubelet, containerd, runc, kube-proxy. The pods come from one list and name their
//! node, so that neither a scheduler nor a controller is measured; they are a small server each.
//!
//! A pod's clock runs from the start of `kubectl create` for all of them. It is *ready* when a watch of the API server says so
//! (the kubelet has reached it by then), *reached* when the host behind the fabric has had an answer from each of its
//! addresses, *usable* when it is both. A figure is the median over the rounds of what each round gave.

mod burst;
mod processes;

use std::path::PathBuf;
use std::time::Instant;

use ::tests::{Cluster, ClusterOptions, Network, images_folder};
use anyhow::{Context, ensure};
use clap::Args;

use self::burst::{Burst, burst};
use self::processes::{Busy, Process, of};
use crate::report::Report;
use crate::scene::{load_average, processors, tell};
use crate::stats::{median, percentile};

/// The archive of the agent's image as `./run bench` makes it, beside that of the tests.
const ARCHIVE: &str = "manx-agent-release.tar";

/// The name of the agent's process.
const AGENT: &str = "manx-agent";

/// How much the benchmark measures.
#[derive(Debug, Clone, Args)]
pub(crate) struct Effort {
    /// How many pods are created at once.
    #[arg(long, hide = true, default_value_t = 100)]
    pods: usize,
    /// How many nodes they are on.
    #[arg(long, hide = true, default_value_t = 3)]
    nodes: usize,
    /// How many clusters each network gets.
    #[arg(long, hide = true, default_value_t = 2)]
    rounds: usize,
    /// The path of the archive of the agent's image.
    #[arg(long, hide = true)]
    image: Option<PathBuf>,
}

/// Runs the benchmark.
pub(crate) fn run(effort: &Effort) -> anyhow::Result<Report> {
    let image = effort.image.clone().map_or_else(|| images_folder().map(|folder| folder.join(ARCHIVE)), Ok)?;
    ensure!(image.exists(), "there is no image {} (./run bench makes it)", image.display());
    let load_before = load_average()?;
    let mut rounds = Vec::new();
    for round in 0..effort.rounds.max(1) {
        let both = [Network::Manx, Network::Ptp];
        let order = if round % 2 == 0 { both } else { [Network::Ptp, Network::Manx] };
        for network in order {
            let options = ClusterOptions::unique("bench").network(network).nodes(effort.nodes).agent_archive(&image);
            rounds.push(effort.round(network, &options)?);
        }
    }
    let of = |network: Network| rounds.iter().filter(|round| round.network == network).collect::<Vec<_>>();
    let ours = Row::of("manx", "", &of(Network::Manx))?;
    let theirs = Row::of("ptp + host-local", "ptp_", &of(Network::Ptp))?;
    let agents = Agents::of(&of(Network::Manx))?;
    Ok(effort.report(&ours, &theirs, &agents, load_before))
}

impl Effort {
    /// Measures one cluster.
    fn round(&self, network: Network, options: &ClusterOptions) -> anyhow::Result<Round> {
        tell(format_args!("bringing up a cluster with {network:?}"));
        let began = Instant::now();
        let cluster = Cluster::up(options).context("bringing the cluster up")?;
        tell(format_args!("it took {:.0} s", began.elapsed().as_secs_f64()));
        let measured = self.measure(&cluster, network);
        if let Err(error) = &measured {
            tell(format_args!("{error:#}\n{}", cluster.diagnosis("manx-system")));
        }
        cluster.down().context("taking the cluster down")?;
        measured
    }

    fn measure(&self, cluster: &Cluster, network: Network) -> anyhow::Result<Round> {
        // One pod runs on each node first, so that every program has run once and the network is complete.
        burst(cluster, "warm-up", self.nodes)?;
        let agents: Vec<Process> =
            cluster.machines().map(|machine| of(machine.node(), AGENT)).collect::<Result<Vec<_>, _>>()?.concat();
        ensure!((network == Network::Manx) == (agents.len() == self.nodes), "{} agents run", agents.len());
        let stores: Vec<Process> =
            cluster.machines().map(|machine| of(machine.node(), "etcd")).collect::<Result<Vec<_>, _>>()?.concat();
        let before = Busy::now()?;
        let cpu = |of: &[Process]| of.iter().map(Process::cpu).collect::<anyhow::Result<Vec<f64>>>();
        let (agents_before, stores_before) = (cpu(&agents)?, cpu(&stores)?);
        let mut rest = Vec::new();
        for agent in &agents {
            rest.push(agent.memory()?.resident);
            agent.forget_peak()?;
        }
        tell(format_args!("{} pods at once", self.pods));
        let burst = burst(cluster, "bench", self.pods)?;
        let busy = Busy::now()?.since(&before);
        let peak = agents.iter().map(|agent| Ok(agent.memory()?.peak)).collect::<anyhow::Result<Vec<f64>>>()?;
        let spent = |before: Vec<f64>, after: Vec<f64>| {
            after.iter().zip(before).map(|(after, before)| after - before).collect::<Vec<f64>>()
        };
        let agents_cpu = spent(agents_before, cpu(&agents)?);
        let stores_cpu = spent(stores_before, cpu(&stores)?).iter().sum();
        let middle = median(&burst.ready).unwrap_or_default();
        tell(format_args!("half are ready after {middle:.1} s, all usable after {:.1} s", burst.all()));
        Ok(Round { network, burst, busy, agents_cpu, stores_cpu, rest, peak })
    }

    fn report(&self, ours: &Row, theirs: &Row, agents: &Agents, load_before: f64) -> Report {
        let mut report = Report::new("k8s");
        report.line(&format!(
            "{} pods at once over {} nodes, {} clusters with each network in turn; medians of the clusters",
            self.pods,
            self.nodes,
            self.rounds.max(1)
        ));
        report.line(&format!("{} processors, load average {load_before:.2} before", processors()));
        report.line(
            "seconds since the start of kubectl create; reached: from the host behind the fabric, both families\n",
        );
        report.line(&Row::heading());
        for row in [ours, theirs] {
            report.line(&row.to_line());
            row.add_figures(&mut report);
        }
        report.line("\nours over theirs:");
        for (key, ours, theirs) in [
            ("ready_p50_vs_ptp", ours.ready.p50, theirs.ready.p50),
            ("ready_p99_vs_ptp", ours.ready.p99, theirs.ready.p99),
            ("reached_p50_vs_ptp", ours.reached.p50, theirs.reached.p50),
            ("reached_p99_vs_ptp", ours.reached.p99, theirs.reached.p99),
            ("usable_p50_vs_ptp", ours.usable.p50, theirs.usable.p50),
            ("usable_p99_vs_ptp", ours.usable.p99, theirs.usable.p99),
            ("all_usable_vs_ptp", ours.usable.max, theirs.usable.max),
        ] {
            let ratio = report.ratio(key, ours, theirs);
            report.line(&format!("  {key:<24} {ratio:>8.3}"));
        }
        report.line("\nManx meanwhile:");
        for (title, key, value) in [
            ("processor time of an agent, s", "agent_cpu_s", agents.cpu),
            ("  of the busiest", "agent_cpu_max_s", agents.cpu_max),
            ("processor time of its etcd, s", "etcd_cpu_s", agents.store_cpu),
            ("resident memory at rest, MiB", "agent_rss_mib", agents.rest),
            ("  at its peak", "agent_rss_peak_mib", agents.peak),
        ] {
            report.line(&format!("  {title:<34}{value:>8.2}"));
            report.figure(key, value);
        }
        report.figure("load_average_before", load_before);
        report
    }
}

/// What was measured of one cluster.
#[derive(Debug)]
struct Round {
    network: Network,
    burst: Burst,
    /// How many processors of the machine were busy meanwhile.
    busy: f64,
    /// How many seconds of processor time each agent took.
    agents_cpu: Vec<f64>,
    /// How many seconds of processor time Manx's etcd took.
    stores_cpu: f64,
    /// How much memory each agent had before, in MiB.
    rest: Vec<f64>,
    /// How much memory each agent had at most, in MiB.
    peak: Vec<f64>,
}

/// The times of all pods, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    p50: f64,
    p99: f64,
    max: f64,
}

impl Spread {
    fn of(rounds: &[&Round], sample: impl Fn(&Burst) -> Vec<f64>) -> Option<Self> {
        let over = |percent| {
            let of_rounds: Option<Vec<f64>> =
                rounds.iter().map(|round| percentile(&sample(&round.burst), percent)).collect();
            median(&of_rounds?)
        };
        Some(Self { p50: over(50)?, p99: over(99)?, max: over(100)? })
    }
}

/// One line of the table.
#[derive(Debug)]
struct Row {
    title: &'static str,
    /// The beginning of the names of the line's figures.
    naming: &'static str,
    ready: Spread,
    reached: Spread,
    usable: Spread,
    busy: f64,
}

impl Row {
    fn of(title: &'static str, naming: &'static str, rounds: &[&Round]) -> anyhow::Result<Self> {
        let spread = |sample: &dyn Fn(&Burst) -> Vec<f64>| {
            Spread::of(rounds, sample).with_context(|| format!("{title}: nothing was measured"))
        };
        let busy: Vec<f64> = rounds.iter().map(|round| round.busy).collect();
        Ok(Self {
            title,
            naming,
            ready: spread(&|burst| burst.ready.clone())?,
            reached: spread(&|burst| burst.reached.clone())?,
            usable: spread(&Burst::usable)?,
            busy: median(&busy).with_context(|| format!("{title}: nothing was measured"))?,
        })
    }

    fn heading() -> String {
        let columns =
            ["ready p50", "p99", "max", "reached p50", "p99", "max", "usable p50", "p99", "max", "cores busy"];
        let columns: String = columns.iter().map(|column| format!("{column:>12}")).collect();
        format!("{:<18}{columns}", "")
    }

    fn to_line(&self) -> String {
        let spreads = [self.ready, self.reached, self.usable];
        let columns = spreads.iter().flat_map(|spread| [spread.p50, spread.p99, spread.max]).chain([self.busy]);
        let columns: String = columns.map(|value| format!("{value:>12.2}")).collect();
        format!("{:<18}{columns}", self.title)
    }

    fn add_figures(&self, report: &mut Report) {
        for (quantity, spread) in [("ready", self.ready), ("reached", self.reached), ("usable", self.usable)] {
            for (which, value) in [("p50", spread.p50), ("p99", spread.p99), ("max", spread.max)] {
                report.figure(format!("{}{quantity}_{which}_s", self.naming), value);
            }
        }
        report.figure(format!("{}cores_busy", self.naming), self.busy);
    }
}

/// The resources that Manx took.
#[derive(Debug)]
struct Agents {
    cpu: f64,
    cpu_max: f64,
    store_cpu: f64,
    rest: f64,
    peak: f64,
}

impl Agents {
    /// The median over all agents of all rounds, and the maximum of any agent.
    fn of(rounds: &[&Round]) -> anyhow::Result<Self> {
        let all = |of: &dyn Fn(&Round) -> Vec<f64>| rounds.iter().flat_map(|round| of(round)).collect::<Vec<f64>>();
        let cpu = all(&|round| round.agents_cpu.clone());
        let middle = |values: &[f64]| median(values).context("no agent was measured");
        Ok(Self {
            cpu: middle(&cpu)?,
            cpu_max: percentile(&cpu, 100).context("no agent was measured")?,
            store_cpu: middle(&all(&|round| vec![round.stores_cpu]))?,
            rest: middle(&all(&|round| round.rest.clone()))?,
            peak: percentile(&all(&|round| round.peak.clone()), 100).context("no agent was measured")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(network: Network, ready: f64) -> Round {
        let burst = Burst { ready: vec![ready, 2.0 * ready], reached: vec![3.0 * ready, ready] };
        Round {
            network,
            burst,
            busy: 2.0,
            agents_cpu: vec![0.5, 1.0, 0.7],
            stores_cpu: 0.2,
            rest: vec![20.0],
            peak: vec![21.0, 25.0],
        }
    }

    #[test]
    fn a_pod_is_usable_when_it_is_ready_and_reached() {
        let rounds = [round(Network::Manx, 1.0), round(Network::Manx, 3.0), round(Network::Manx, 100.0)];
        let row = Row::of("manx", "", &rounds.each_ref()).unwrap();
        assert_eq!(row.ready, Spread { p50: 3.0, p99: 6.0, max: 6.0 });
        assert_eq!(row.reached, Spread { p50: 3.0, p99: 9.0, max: 9.0 });
        assert_eq!(row.usable, Spread { p50: 6.0, p99: 9.0, max: 9.0 });
    }

    #[test]
    fn the_report_has_both_networks_figures_the_ratios_and_what_the_agents_took() {
        let (ours, theirs) = (round(Network::Manx, 1.0), round(Network::Ptp, 2.0));
        let effort = Effort { pods: 2, nodes: 1, rounds: 1, image: None };
        let report = effort.report(
            &Row::of("manx", "", &[&ours]).unwrap(),
            &Row::of("ptp", "ptp_", &[&theirs]).unwrap(),
            &Agents::of(&[&ours]).unwrap(),
            0.5,
        );
        for (key, value) in [
            ("ready_p50_s", 1.0),
            ("ptp_ready_p50_s", 2.0),
            ("usable_max_s", 3.0),
            ("agent_cpu_s", 0.7),
            ("agent_cpu_max_s", 1.0),
            ("agent_rss_peak_mib", 25.0),
        ] {
            assert_eq!(report.figures.get(key), Some(&value), "{key}");
        }
        assert_eq!(report.figures.len(), 2 * 10 + 6);
        assert_eq!(report.ratios["ready_p50_vs_ptp"], 0.5);
        assert_eq!(report.ratios.len(), 7);
    }

    #[test]
    fn a_network_that_was_not_measured_is_an_error() {
        assert!(Row::of("ptp", "ptp_", &[]).unwrap_err().to_string().contains("ptp"));
    }
}
