//! `manx-agent`: the process that makes a host a node of a Manx network.
//!
//! It wires ipam, felix and bgp, which do not know each other, answers the CNI binary and the operator, and holds the
//! node's name in the store. Stopping it changes nothing for pods: the kernel keeps forwarding, peers keep the routes, and
//! the next start changes only what differs.

mod api;
mod cluster;
mod cni;
mod node;
mod policy;
mod services;
mod start;
mod tasks;
#[cfg(test)]
mod testing;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// The agent of a Manx node.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file; every key is also an environment variable.
    #[arg(long, env = "MANX_CONFIG", default_value = config::FILE)]
    config: PathBuf,
    /// Levels of the log: `info`, or `bgp=debug,info`. The client's own words about the API server come by the watches.
    #[arg(long, env = "MANX_LOG", default_value = "info,kube_client=off")]
    log: Targets,
    /// Form of the log.
    #[arg(long, env = "MANX_LOG_FORMAT", default_value = "text", value_parser = ["text", "json"])]
    log_format: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    log_to_stderr(&arguments);
    match run(&arguments.config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path) -> anyhow::Result<()> {
    let host_name = config::host_name().context("cannot read the host's name")?;
    let config = config::read(path, &host_name)?;
    // What is waited for is the kernel and sockets, hardly ever the processor.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(start::run(config));
    // Threads in a system call or a sleeping task do not hold up the end: everything that must last is in the journal.
    runtime.shutdown_background();
    outcome
}

fn log_to_stderr(arguments: &Arguments) {
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(arguments.log.clone());
    if arguments.log_format == "json" {
        registry.with(layer.json()).init();
    } else {
        registry.with(layer.with_ansi(false)).init();
    }
}
