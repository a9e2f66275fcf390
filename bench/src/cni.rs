//! `manx-bench cni`: latency and rate of ADD and DEL, ours and those of `ptp` with `host-local`, in turn.
//!
//! Three settings: etcd up and blocks large enough that one serves the whole run, beside ptp; the same with etcd stopped;
//! and blocks of the default sizes with etcd up, where ADD also meets claims and the rest of released addresses. A fourth, with
//! policies, is in `under_policies`.
//! A figure is the median over the rounds of what each round gave; the 99th percentile is that of all rounds together.

use anyhow::Context;
use clap::Args;
use serde_json::{Map, Value, json};

use crate::driver::{Plan, Plugin, Round, drive};
use crate::report::Report;
use crate::scene::{Scene, load_average, processors, tell};
use crate::stats::{median, milliseconds, percentile};
use crate::under_policies::UnderPolicies;

/// How many plugins run at a time in the parallel part.
const THREADS: usize = 8;

/// Replaces the large blocks of the topology's agent.yaml by those of the default sizes.
const DEFAULT_BLOCKS: (&str, &str) = ("MANX_INITIAL_POOLS", "10.42.0.0/16,fd00:42::/64");

/// How much the benchmark measures.
#[derive(Debug, Clone, Args)]
pub(crate) struct Effort {
    /// How many turns each plugin gets.
    #[arg(long, hide = true, default_value_t = 5)]
    rounds: usize,
    /// How many attachments are made one after the other, over all rounds.
    #[arg(long, hide = true, default_value_t = 100)]
    sequential: usize,
    /// How many attachments are made by eight at a time, over all rounds.
    #[arg(long, hide = true, default_value_t = 200)]
    parallel: usize,
    /// How many classes pods are plugged into.
    #[arg(long, hide = true, default_value_t = 100)]
    classes: usize,
    /// How many pods one GC takes back.
    #[arg(long, hide = true, default_value_t = 100)]
    collected: usize,
}

/// Runs the benchmark.
pub(crate) fn run(effort: &Effort) -> anyhow::Result<Report> {
    let load_before = load_average()?;
    let large = Scene { topology: "cni.clab.yml", env: &[] };
    let (beside, stopped) = large.play(
        |_| Ok(()),
        |lab| {
            tell(format_args!("manx and ptp in turn"));
            let beside = drive(lab.node("node1"), effort.plan("up", vec![manx(), ptp(), ptp_ipv4()]))?;
            lab.etcd().stop()?;
            tell(format_args!("manx with etcd stopped"));
            let stopped = drive(lab.node("node1"), effort.plan("stopped", vec![manx()]))?;
            Ok((beside, stopped))
        },
    )?;
    let default = Scene { env: &[DEFAULT_BLOCKS], ..large };
    let default = default.play(
        |_| Ok(()),
        |lab| {
            tell(format_args!("manx with blocks of the default sizes"));
            drive(lab.node("node1"), effort.plan("default", vec![manx()]))
        },
    )?;

    let policies = UnderPolicies::measure(large, effort, effort.classes, effort.collected)?;

    let per_round = effort.parallel_per_round();
    let of = |network: &str| beside.iter().filter(|round| round.network == network).collect::<Vec<_>>();
    let (stopped, default) = (stopped.iter().collect::<Vec<_>>(), default.iter().collect::<Vec<_>>());
    let rows = Rows {
        ours: Row::of("manx", ("", ""), &of("manx"), per_round)?,
        theirs: Row::of("ptp + host-local", ("ptp_", ""), &of("ptp"), per_round)?,
        theirs_ipv4: Row::of("ptp, IPv4 alone", ("ptp_ipv4_", ""), &of("ptp4"), per_round)?,
        stopped: Row::of("manx, etcd stopped", ("", "_etcd_stopped"), &stopped, per_round)?,
        default: Row::of("manx, blocks /26 and /122", ("", "_default_blocks"), &default, per_round)?,
    };
    let mut report = effort.report(&rows, load_before, load_average()?);
    policies.add_to(&mut report)?;
    Ok(report)
}

impl Effort {
    /// The plan of a run of this name, with these plugins in turn.
    pub(crate) fn plan(&self, run: &str, plugins: Vec<Plugin>) -> Plan {
        Plan {
            run: run.to_owned(),
            plugins,
            rounds: self.rounds.max(1),
            sequential: self.sequential.div_ceil(self.rounds.max(1)).max(1),
            parallel: self.parallel_per_round(),
            threads: THREADS,
        }
    }

    fn parallel_per_round(&self) -> usize {
        self.parallel.div_ceil(self.rounds.max(1)).max(1)
    }

    fn report(&self, rows: &Rows, load_before: f64, load_after: f64) -> Report {
        let mut report = Report::new("cni");
        report.line(&format!(
            "ADD and DEL in {} rounds: {} one by one, {} by {THREADS} at a time; medians of the rounds",
            self.rounds, self.sequential, self.parallel
        ));
        report.line(&format!(
            "{} processors, load average {load_before:.2} before and {load_after:.2} after",
            processors()
        ));
        report.line("both families; no duplicate address detection in the pods, which ptp would wait for\n");
        report.line(&Row::heading());
        let Rows { ours, theirs, theirs_ipv4, stopped, default } = rows;
        for row in [ours, theirs, theirs_ipv4, stopped, default] {
            report.line(&row.to_line());
            row.add_figures(&mut report);
        }
        report.figure("load_average_before", load_before);
        report.figure("load_average_after", load_after);
        report.line("\nours over theirs:");
        for (theirs, of) in [(theirs, ""), (theirs_ipv4, "_ipv4")] {
            for (key, eight, ours, theirs) in [
                ("add_p50_vs_ptp", "", ours.add_p50, theirs.add_p50),
                ("del_p50_vs_ptp", "", ours.del_p50, theirs.del_p50),
                ("add_rate_vs_ptp", "_8", ours.add_rate, theirs.add_rate),
                ("del_rate_vs_ptp", "_8", ours.del_rate, theirs.del_rate),
            ] {
                let key = format!("{key}{of}{eight}");
                let ratio = report.ratio(&key, ours, theirs);
                report.line(&format!("  {key:<24} {ratio:>8.3}"));
            }
        }
        let tail = report.ratio("add_p99_vs_p50", ours.add_p99, ours.add_p50);
        report.line(&format!("ours alone:\n  {:<24} {tail:>8.3}", "add_p99_vs_p50"));
        report
    }
}

pub(crate) fn manx() -> Plugin {
    plugin("manx", "manx", 2, json!({}))
}

/// The addresses are allocated in files on the disk that has our journal and etcd's data.
fn ptp() -> Plugin {
    let ipam = json!({
        "type": "host-local",
        "dataDir": "/var/lib/cni/networks",
        "ranges": [[{ "subnet": "10.99.0.0/16" }], [{ "subnet": "fd00:99::/64" }]],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
    });
    plugin("ptp", "ptp", 2, json!({ "ipam": ipam }))
}

/// ptp with half the work. With IPv6 it polls, at long intervals, until the kernel has made the pod's addresses usable,
/// which hits some of its ADDs and most of them on a busy machine; this is what ptp takes without that.
fn ptp_ipv4() -> Plugin {
    let ipam = json!({
        "type": "host-local",
        "dataDir": "/var/lib/cni/networks",
        "ranges": [[{ "subnet": "10.98.0.0/16" }]],
        "routes": [{ "dst": "0.0.0.0/0" }],
    });
    plugin("ptp", "ptp4", 1, json!({ "ipam": ipam }))
}

fn plugin(program: &str, network: &str, addresses: usize, more: Value) -> Plugin {
    let mut config = match more {
        Value::Object(config) => config,
        _ => Map::new(),
    };
    for (key, value) in [("cniVersion", "1.0.0"), ("name", network), ("type", program)] {
        config.insert(key.to_owned(), value.into());
    }
    // ptp's IPv6 route is refused now and then, as the kernel has not looked yet whether its source is anybody else's.
    let may_fail = program != "manx";
    let (program, network, namespace) = (program.to_owned(), network.to_owned(), "default".to_owned());
    Plugin { program, network, namespace, addresses, config, may_fail }
}

/// The lines of the table.
struct Rows {
    /// Manx with etcd up and large blocks.
    ours: Row,
    /// The plugin ptp, in turn with Manx.
    theirs: Row,
    /// The plugin ptp for one family, in turn with both.
    theirs_ipv4: Row,
    /// Manx with etcd stopped.
    stopped: Row,
    /// Manx with blocks of the default sizes.
    default: Row,
}

/// One line of the table. Latencies and delays are in milliseconds, rates are per second.
#[derive(Debug)]
struct Row {
    /// The line's title, for people.
    title: &'static str,
    /// The beginning of the names of the line's figures, and the ending behind the name of the quantity.
    naming: (&'static str, &'static str),
    add_p50: f64,
    add_p90: f64,
    add_p99: f64,
    del_p50: f64,
    del_p90: f64,
    add_rate: f64,
    del_rate: f64,
    links_gone: f64,
}

impl Row {
    fn of(
        title: &'static str,
        naming: (&'static str, &'static str),
        rounds: &[&Round],
        parallel: usize,
    ) -> anyhow::Result<Self> {
        let over = |of_round: &dyn Fn(&Round) -> Option<f64>| {
            let values: Option<Vec<f64>> = rounds.iter().map(|round| of_round(round)).collect();
            values.as_deref().and_then(median).with_context(|| format!("{title}: nothing was measured"))
        };
        let all: Vec<f64> = rounds.iter().flat_map(|round| milliseconds(&round.add)).collect();
        let add_p99 = percentile(&all, 99).with_context(|| format!("{title}: nothing was measured"))?;
        #[expect(clippy::cast_precision_loss, reason = "a number of pods")]
        let count = parallel as f64;
        Ok(Self {
            title,
            naming,
            add_p50: over(&|round| percentile(&milliseconds(&round.add), 50))?,
            add_p90: over(&|round| percentile(&milliseconds(&round.add), 90))?,
            add_p99,
            del_p50: over(&|round| percentile(&milliseconds(&round.del), 50))?,
            del_p90: over(&|round| percentile(&milliseconds(&round.del), 90))?,
            add_rate: over(&|round| Some(count / round.parallel_add.as_secs_f64()))?,
            del_rate: over(&|round| Some(count / round.parallel_del.as_secs_f64()))?,
            links_gone: over(&|round| Some(round.links_gone.as_secs_f64() * 1_000.0))?,
        })
    }

    fn heading() -> String {
        let columns = ["ADD p50 ms", "p90", "p99", "DEL p50 ms", "p90", "8: ADD/s", "8: DEL/s", "links gone ms"];
        let columns: String = columns.iter().map(|column| format!("{column:>14}")).collect();
        format!("{:<25}{columns}", "")
    }

    fn to_line(&self) -> String {
        format!(
            "{:<25}{:>14.2}{:>14.2}{:>14.2}{:>14.2}{:>14.2}{:>14.0}{:>14.0}{:>14.0}",
            self.title,
            self.add_p50,
            self.add_p90,
            self.add_p99,
            self.del_p50,
            self.del_p90,
            self.add_rate,
            self.del_rate,
            self.links_gone
        )
    }

    fn add_figures(&self, report: &mut Report) {
        let (before, after) = self.naming;
        for (quantity, unit, value) in [
            ("add_p50", "_ms", self.add_p50),
            ("add_p90", "_ms", self.add_p90),
            ("add_p99", "_ms", self.add_p99),
            ("del_p50", "_ms", self.del_p50),
            ("del_p90", "_ms", self.del_p90),
            ("add_rate_8", "_per_s", self.add_rate),
            ("del_rate_8", "_per_s", self.del_rate),
            ("links_gone_after_del", "_ms", self.links_gone),
        ] {
            report.figure(format!("{before}{quantity}{after}{unit}"), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn round(network: &str, milliseconds: u64) -> Round {
        let times = |factor: u64| (1..=10).map(|n| Duration::from_millis(n * factor * milliseconds)).collect();
        Round {
            network: network.to_owned(),
            add: times(1),
            del: times(2),
            parallel_add: Duration::from_millis(100 * milliseconds),
            parallel_del: Duration::from_millis(200 * milliseconds),
            links_gone: Duration::from_millis(3),
        }
    }

    #[test]
    fn a_row_is_the_median_of_its_rounds_and_a_rate_counts_all_pods_of_the_part() {
        let rounds = [round("manx", 1), round("manx", 50), round("manx", 2)];
        let row = Row::of("manx", ("", ""), &rounds.each_ref(), 40).unwrap();
        assert_eq!((row.add_p50, row.add_p90), (10.0, 18.0));
        assert_eq!((row.del_p50, row.del_p90), (20.0, 36.0));
        assert_eq!((row.add_rate, row.del_rate), (200.0, 100.0));
    }

    #[test]
    fn the_report_has_every_row_s_figures_under_names_of_their_own_and_the_ratios() {
        let row = |title, naming, slowness| Row::of(title, naming, &[&round(title, slowness)], 40).unwrap();
        let rows = Rows {
            ours: row("manx", ("", ""), 1),
            theirs: row("ptp", ("ptp_", ""), 4),
            theirs_ipv4: row("ptp4", ("ptp_ipv4_", ""), 2),
            stopped: row("stopped", ("", "_etcd_stopped"), 1),
            default: row("default", ("", "_default_blocks"), 2),
        };
        let report =
            Effort { rounds: 1, sequential: 10, parallel: 40, classes: 1, collected: 1 }.report(&rows, 0.5, 1.0);
        for (key, value) in [
            ("add_p50_ms", 5.0),
            ("ptp_add_p50_ms", 20.0),
            ("add_rate_8_per_s", 400.0),
            ("ptp_add_rate_8_per_s", 100.0),
            ("add_p50_etcd_stopped_ms", 5.0),
            ("del_p50_default_blocks_ms", 20.0),
        ] {
            assert_eq!(report.figures.get(key), Some(&value), "{key}");
        }
        assert_eq!(report.figures.len(), 5 * 8 + 2);
        assert_eq!((report.figures["add_p99_ms"], report.ratios["add_p99_vs_p50"]), (10.0, 2.0));
        assert_eq!(report.ratios["add_p50_vs_ptp"], 0.25);
        assert_eq!(report.ratios["del_p50_vs_ptp"], 0.25);
        assert_eq!(report.ratios["add_rate_vs_ptp_8"], 4.0);
        assert_eq!(report.ratios["del_rate_vs_ptp_8"], 4.0);
        assert_eq!(report.ratios["add_p50_vs_ptp_ipv4"], 0.5);
        assert_eq!(report.ratios["add_rate_vs_ptp_ipv4_8"], 2.0);
    }

    #[test]
    fn a_plugin_that_was_not_measured_is_an_error() {
        assert!(Row::of("manx", ("", ""), &[], 40).unwrap_err().to_string().contains("manx"));
    }
}
