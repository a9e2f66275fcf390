//! `manx-bench memory`: the agent's resident memory at rest, with pods of its own and other nodes' blocks.
//!
//! The other nodes are declared and not there: etcd holds their registrations and claims, and a router announces their
//! blocks. They register no address, so that no session with them is tried.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use ::tests::{Lab, Node, Place};
use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;
use types::{BlockClaim, NodeName, Registration};

use crate::report::Report;
use crate::scene::{Scene, load_average, tell};

/// The first of the remote blocks. The topology's pool is large enough for 2,048 of this size.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 42, 0, 0);

/// The prefix length of each block.
const BLOCK_LEN: u32 = 26;

/// The prefix of all keys (`etcd.prefix`).
const KEYS: &str = "/manx/v1/";

/// How many operations etcd takes in one transaction (`--max-txn-ops`).
const TRANSACTION: usize = 128;

/// How long it may take until the routes are in the kernel.
const CONVERGENCE: Duration = Duration::from_secs(120);

/// The agent counts as being at rest when its memory has not changed for this long.
const AT_REST: Duration = Duration::from_secs(5);

/// After this time the memory is measured whether or not the agent is at rest.
const REST_TIME_LIMIT: Duration = Duration::from_secs(60);

/// What the agent has to remember.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// How many pods the node has.
    #[arg(long, hide = true, default_value_t = 100)]
    pods: usize,
    /// How many blocks other nodes have.
    #[arg(long, hide = true, default_value_t = 1_000)]
    blocks: u16,
    /// How many other nodes there are.
    #[arg(long, hide = true, default_value_t = 100)]
    nodes: u16,
}

/// Runs the benchmark.
pub(crate) fn run(load: &Load) -> anyhow::Result<Report> {
    let load_before = load_average()?;
    let scene = Scene { topology: "memory.clab.yml", env: &[] };
    let (memory, rested) = scene.play(
        |lab| {
            lab.node("node1").exec(&["manxctl", "apply", "-f", "/etc/manx/resources.yaml"])?;
            declare(lab, load).context("declaring the other nodes in etcd")
        },
        |lab| {
            announce(lab, load).context("announcing the other nodes' blocks")?;
            plug(lab, load)?;
            converge(lab, load)?;
            at_rest(lab.node("node1"))
        },
    )?;
    let mut report = Report::new("memory");
    report.line(&format!(
        "the agent with {} pods and {} remote blocks of {} nodes; load average {load_before:.2} before",
        load.pods, load.blocks, load.nodes
    ));
    if !rested {
        report.line(&format!("it did not come to rest within {} s", REST_TIME_LIMIT.as_secs()));
    }
    report.line("");
    for (title, key, value) in [
        ("resident memory (VmRSS)", "rss_mib", memory.resident),
        ("of it not backed by files (RssAnon)", "rss_anon_mib", memory.anonymous),
        ("highest since its start (VmHWM)", "rss_peak_mib", memory.peak),
    ] {
        report.line(&format!("{title:<38}{value:>8.1} MiB"));
        report.figure(key, value);
    }
    report.figure("threads", f64::from(memory.threads));
    report.line(&format!("{:<38}{:>8}", "threads", memory.threads));
    report.figure("load_average_before", load_before);
    Ok(report)
}

/// Registrations and claims, as the agents of those nodes would have written them.
fn declare(lab: &Lab, load: &Load) -> anyhow::Result<()> {
    let mut puts = Vec::new();
    for number in 1..=load.nodes {
        let registration = Registration { agent_version: "0.1.0".to_owned(), ..Registration::default() };
        puts.push(put(&format!("nodes/remote-{number}/registration"), &registration)?);
    }
    for number in 0..load.blocks {
        let owner: NodeName = format!("remote-{}", number % load.nodes.max(1) + 1).parse()?;
        puts.push(put(&format!("blocks/{}-{BLOCK_LEN}", block(number)), &BlockClaim { owner })?);
    }
    puts.chunks(TRANSACTION).try_for_each(|puts| transact(lab.node("etcd"), puts))
}

/// A line of etcdctl's `txn`; the value is written as a quoted text.
fn put(key: &str, spec: &impl serde::Serialize) -> anyhow::Result<String> {
    let value = json!({ "version": 1, "spec": spec }).to_string();
    Ok(format!("put {KEYS}{key} {}", serde_json::to_string(&value)?))
}

/// Writes keys in one transaction without comparisons (etcdctl reads comparisons, requests and requests otherwise, each
/// up to an empty line).
fn transact(etcd: &Node, puts: &[String]) -> anyhow::Result<()> {
    let mut command = etcd.command("etcdctl");
    command.arg("txn").env("ETCDCTL_API", "3").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::inherit());
    let mut child = command.spawn().context("running etcdctl")?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(format!("\n{}\n\n\n", puts.join("\n")).as_bytes()).context("telling etcdctl")?;
    }
    let status = child.wait().context("waiting for etcdctl")?;
    ensure!(status.success(), "etcdctl txn: {status}");
    Ok(())
}

fn announce(lab: &Lab, load: &Load) -> anyhow::Result<()> {
    tell(format_args!("announcing {} blocks", load.blocks));
    let router = lab.node("router");
    let asn = 64_601;
    let mut text = format!("router bgp {asn}\n address-family ipv4 unicast\n");
    for number in 0..load.blocks {
        writeln!(text, "  network {}/{BLOCK_LEN}", block(number))?;
    }
    text.push_str(" exit-address-family\n");
    let file = "/run/blocks.conf";
    fs::write(router.path(file), text).context(file)?;
    router.exec(&["vtysh", "-f", file])?;
    Ok(())
}

fn plug(lab: &Lab, load: &Load) -> anyhow::Result<()> {
    tell(format_args!("plugging in {} pods", load.pods));
    for number in 1..=load.pods {
        lab.node("node1").plug(&format!("pod{number}"))?;
    }
    Ok(())
}

/// Waits until all blocks are routes of the kernel and the agent is ready.
fn converge(lab: &Lab, load: &Load) -> anyhow::Result<()> {
    tell(format_args!("waiting for the routes"));
    let node = lab.node("node1");
    lab.wait_for("the remote blocks' routes", CONVERGENCE, || {
        let routes = node.exec(&["ip", "-4", "route", "show", "proto", "78"]).map_err(|error| error.to_string())?;
        let count = routes.lines().count();
        if count == usize::from(load.blocks) { Ok(()) } else { Err(format!("{count} of {}", load.blocks)) }
    })?;
    Ok(node.agent().wait_ready(CONVERGENCE)?)
}

/// The agent's memory once it has stayed the same, and whether it did so in time.
pub(crate) fn at_rest(node: &Node) -> anyhow::Result<(Memory, bool)> {
    tell(format_args!("waiting until the agent is at rest"));
    let process = node.agent().process().context("the agent does not run")?;
    let read = || -> anyhow::Result<Memory> {
        node.agent().check()?;
        let path = format!("/proc/{}/status", process.pid);
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        Memory::parse(&text).with_context(|| format!("{path} has no memory"))
    };
    let started = Instant::now();
    let (mut last, mut since) = (read()?, Instant::now());
    while since.elapsed() < AT_REST {
        if started.elapsed() > REST_TIME_LIMIT {
            return Ok((last, false));
        }
        thread::sleep(Duration::from_millis(250));
        let now = read()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok((last, true))
}

/// The remote block with this number.
fn block(number: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST.to_bits() + (u32::from(number) << (32 - BLOCK_LEN)))
}

/// What `/proc/PID/status` says of a process (proc_pid_status(5)), in MiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Memory {
    /// `VmRSS`.
    pub(crate) resident: f64,
    /// `RssAnon`.
    anonymous: f64,
    /// `VmHWM`.
    pub(crate) peak: f64,
    /// `Threads`.
    threads: u32,
}

impl Memory {
    pub(crate) fn parse(status: &str) -> Option<Self> {
        let value = |key: &str| {
            let fields = status.lines().filter_map(|line| line.split_once(':'));
            let (_, value) = fields.into_iter().find(|(name, _)| *name == key)?;
            value.split_whitespace().next()?.parse::<u32>().ok()
        };
        let mebibytes = |key| Some(f64::from(value(key)?) / 1_024.0);
        Some(Self {
            resident: mebibytes("VmRSS")?,
            anonymous: mebibytes("RssAnon")?,
            peak: mebibytes("VmHWM")?,
            threads: value("Threads")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_mebibytes() {
        let status =
            "Name:\tmanx-agent\nVmHWM:\t   30720 kB\nVmRSS:\t   20480 kB\nRssAnon:\t   10240 kB\nThreads:\t7\n";
        let memory = Memory { resident: 20.0, anonymous: 10.0, peak: 30.0, threads: 7 };
        assert_eq!(Memory::parse(status), Some(memory));
        assert_eq!(Memory::parse("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn remote_blocks_follow_each_other_and_stay_in_the_pool() {
        assert_eq!(block(0), Ipv4Addr::new(10, 42, 0, 0));
        assert_eq!(block(5), Ipv4Addr::new(10, 42, 1, 64));
        assert_eq!(block(999), Ipv4Addr::new(10, 42, 249, 192));
    }

    #[test]
    fn a_claim_is_written_as_the_store_s_envelope_in_a_quoted_text() {
        let claim = BlockClaim { owner: "remote-1".parse().unwrap() };
        let line = put("blocks/10.42.0.0-26", &claim).unwrap();
        let (words, value) = line.split_once(" \"").unwrap();
        assert_eq!(words, "put /manx/v1/blocks/10.42.0.0-26");
        let value: String = serde_json::from_str(&format!("\"{value}")).unwrap();
        let value: serde_json::Value = serde_json::from_str(&value).unwrap();
        assert_eq!(value, json!({ "version": 1, "spec": { "owner": "remote-1" } }));
    }
}
