//! `manx-lab k8s`: a Kubernetes cluster by hand.

use std::os::unix::process::CommandExt;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use tests::{Cluster, ClusterOptions, Lab, Network, Peering, ProxyMode, kubectl_command};

use crate::{is_up, say, shell, supervise};

#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Brings a cluster up and leaves it running.
    Up(Up),
    /// Runs kubectl as the cluster's administrator.
    Kubectl {
        /// The cluster's name.
        #[arg(long = "lab", default_value = NAME, env = "MANX_LAB")]
        name: String,
        /// kubectl's own arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs a shell, or a command, on a node of the topology: a machine, a router, the host.
    Shell {
        /// The cluster's name.
        #[arg(long = "lab", default_value = NAME, env = "MANX_LAB")]
        name: String,
        /// The node.
        node: String,
        /// The command to run (default: a shell).
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Takes the cluster down.
    Down {
        /// The cluster's name.
        #[arg(default_value = NAME)]
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// The cluster's name.
    #[arg(long, default_value = NAME)]
    name: String,
    /// How many nodes the cluster has: odd ones are in the first rack, even ones in the second.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=6))]
    nodes: u8,
    /// Who gives pods their network: none, ptp or manx.
    #[arg(long, default_value = "none", conflicts_with = "manx")]
    network: Network,
    /// Deploys Manx: kubectl apply -k manifests/
    #[arg(long)]
    manx: bool,
    /// With whom Manx's nodes peer: rack-as (their rack's router, one AS per rack) or mesh (each other too, one AS).
    #[arg(long, default_value = "rack-as")]
    peering: Peering,
    /// With what kube-proxy carries services: iptables or nftables.
    #[arg(long, default_value = "iptables")]
    proxy_mode: ProxyMode,
}

/// The cluster's name if none is given: that of the topology.
const NAME: &str = "racks";

pub(crate) fn run(action: Action) -> anyhow::Result<ExitCode> {
    match action {
        Action::Up(up) => self::up(&up),
        Action::Kubectl { name, arguments } => {
            let mut command = kubectl_command(&Lab::attach(&name)?)?;
            command.args(arguments);
            Err(command.exec()).with_context(|| format!("running {command:?}"))
        }
        Action::Shell { name, node, command } => shell(Some(name), &node, &command),
        Action::Down { name } => {
            Lab::take_down(&name)?;
            say(format_args!("{name} is down"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn up(up: &Up) -> anyhow::Result<ExitCode> {
    let Up { name, nodes, network, manx, peering, proxy_mode } = up;
    if is_up(name) {
        bail!("a cluster named {name} is up already (manx-lab k8s down {name} ends it)");
    }
    let network = if *manx { Network::Manx } else { *network };
    supervise::run(name, || {
        let options = ClusterOptions::default().named(name).nodes(usize::from(*nodes)).network(network);
        let options = options.peering(*peering).proxy_mode(*proxy_mode).progress(|step| say(format_args!("  {step}")));
        let cluster = Cluster::up(&options)?;
        say(format_args!("cluster {name} is up; logs are in {}", cluster.lab().folder().join("logs").display()));
        say(format_args!("manx-lab k8s kubectl get nodes -o wide | shell NODE | down"));
        Ok(cluster.detach()?)
    })
}
