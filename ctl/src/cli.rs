//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use types::{Family, Prefix, ResourceName};

/// Operate a Manx network.
#[derive(Debug, Parser)]
#[command(name = "manxctl", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where things are.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The agent's configuration file; its etcd section is used (and MANX_ETCD_... variables, which win).
    #[arg(long, env = "MANX_CONFIG", default_value = types::config::FILE, global = true)]
    pub(crate) config: PathBuf,
    /// The agent's socket (default: agent.sock in the configuration's runDir).
    #[arg(long, env = "MANX_SOCKET", global = true)]
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show resources.
    Get(Get),
    /// Create or replace the resources of a YAML or JSON file.
    Apply(Apply),
    /// Delete resources.
    Delete(Delete),
    /// This node: its sessions, its datastore, what is wrong.
    Node(Node),
    /// Pools, blocks, addresses.
    Ipam(Ipam),
    /// This node's BGP tables.
    Bgp(Bgp),
    /// Versions of this tool and of the node's agent.
    Version(Version),
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// The option that every command with an answer has.
#[derive(Debug, Args)]
pub(crate) struct OutputArg {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// ippools, nodes, bgpconfigurations or bgppeers.
    pub(crate) kind: String,
    /// Only this one.
    pub(crate) name: Option<ResourceName>,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// A file with one or more documents; `-` is standard input.
    #[arg(short, long)]
    pub(crate) filename: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// ippools, nodes, bgpconfigurations or bgppeers.
    #[arg(required_unless_present = "filename", requires = "names")]
    pub(crate) kind: Option<String>,
    /// The names.
    pub(crate) names: Vec<ResourceName>,
    /// Delete what this file names instead.
    #[arg(short, long, conflicts_with = "kind")]
    pub(crate) filename: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Node {
    #[command(subcommand)]
    pub(crate) command: NodeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// BGP peers, datastore, and what is wrong.
    Status(OutputArg),
}

#[derive(Debug, Args)]
pub(crate) struct Ipam {
    #[command(subcommand)]
    pub(crate) command: IpamCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IpamCommand {
    /// How much of the pools is used, and by whom.
    Show(IpamShow),
}

#[derive(Debug, Args)]
pub(crate) struct IpamShow {
    /// Also the blocks and their owners.
    #[arg(long)]
    pub(crate) show_blocks: bool,
    /// Only this address: whose is it?
    #[arg(long)]
    pub(crate) ip: Option<IpAddr>,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Debug, Args)]
pub(crate) struct Bgp {
    #[command(subcommand)]
    pub(crate) command: BgpCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BgpCommand {
    /// Destinations, the paths peers offer, and why one is chosen.
    Routes(BgpRoutes),
}

#[derive(Debug, Args)]
pub(crate) struct BgpRoutes {
    /// Only this destination.
    pub(crate) prefix: Option<Prefix>,
    /// Only this family: ipv4 or ipv6.
    #[arg(long, value_parser = family)]
    pub(crate) family: Option<Family>,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Debug, Args)]
pub(crate) struct Version {
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

fn family(text: &str) -> Result<Family, String> {
    Family::ALL
        .into_iter()
        .find(|family| family.to_string() == text)
        .ok_or_else(|| format!("{text:?} is not ipv4 or ipv6"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
