//! `manx-bench`: measures Manx beside what a user would pick instead, in a lab of its own.

mod bgp_latency;
mod cni;
mod driver;
mod k8s;
mod memory;
mod policy;
mod report;
mod scene;
mod speaker;
mod stats;
mod under_policies;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Report;

/// Benchmarks. Each brings a lab up, measures, and takes the lab down.
#[derive(Debug, Parser)]
#[command(name = "manx-bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Action,
    /// Ends with one line of JSON: name, figures and ratios.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Latency and rate of CNI ADD and DEL, beside ptp with host-local.
    Cni(cni::Effort),
    /// Whether a BGP peer with a million routes delays other peers, KEEPALIVEs or the kernel's routes.
    BgpLatency(bgp_latency::Feed),
    /// The agent's memory at rest, with pods of its own and other nodes' blocks.
    Memory(memory::Load),
    /// From a change of policies or labels until the kernel acts on it, and what policies cost.
    Policy(policy::Effort),
    /// Many pods at once in a Kubernetes cluster, beside the same cluster with ptp, host-local and static routes.
    K8s(k8s::Effort),
    /// The BGP speaker alone, for a load generator to speak to.
    #[command(hide = true)]
    Speaker(speaker::Daemon),
    /// Measures inside a node; started by the other commands.
    #[command(hide = true)]
    Drive,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match &cli.command {
        Action::Cni(effort) => cni::run(effort).and_then(|report| show(&report, cli.json)),
        Action::BgpLatency(feed) => bgp_latency::run(feed).and_then(|report| show(&report, cli.json)),
        Action::Memory(load) => memory::run(load).and_then(|report| show(&report, cli.json)),
        Action::Policy(effort) => policy::run(effort).and_then(|report| show(&report, cli.json)),
        Action::K8s(effort) => k8s::run(effort).and_then(|report| show(&report, cli.json)),
        Action::Speaker(daemon) => speaker::run(daemon),
        Action::Drive => driver::run(),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("manx-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn show(report: &Report, json: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", report.text.trim_end())?;
    if json {
        writeln!(out, "{}", serde_json::to_string(report)?)?;
    }
    Ok(out.flush()?)
}
