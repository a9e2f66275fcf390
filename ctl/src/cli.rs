//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use types::policy::Protocol;
use types::{Family, NodeName, Prefix, ResourceName};

/// Operate a Manx network.
#[derive(Debug, Parser)]
#[command(name = "manxctl", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Where manxctl finds what it asks.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The agent's configuration file. manxctl reads where etcd is from it; MANX_ETCD_... variables win over the file.
    #[arg(long, env = "MANX_CONFIG", default_value = config::FILE, global = true)]
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
    /// Change the labels of a pod's endpoint on this node, where no API server says what they are.
    Label(Label),
    /// Explain what policies allow, and which of them decides.
    Policy(Policy),
    /// Show how this node fares, or install, drain or clean it.
    Node(Node),
    /// Show pools, blocks and addresses.
    Ipam(Ipam),
    /// Show this node's BGP tables.
    Bgp(Bgp),
    /// Make certificates for etcd, and tell etcd what their owners may do.
    Certs(Certs),
    /// Show the versions of this tool and of the node's agent.
    Version(Version),
}

/// In which form to print an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table for people.
    Table,
    /// The table with more columns, where there are more.
    Wide,
    /// JSON for programs.
    Json,
    /// YAML for programs and people.
    Yaml,
}

/// The option that every command with an answer has.
#[derive(Debug, Args)]
pub(crate) struct OutputArg {
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Output,
}

/// The option of commands about what is in namespaces.
#[derive(Debug, Args)]
pub(crate) struct NamespaceArg {
    /// The namespace, for what is in one (default: the one that a document names, or `default`).
    #[arg(short, long)]
    pub(crate) namespace: Option<ResourceName>,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The kind: ippools, nodes, bgpconfigurations, bgppeers, networkpolicies, namespaces or workloadendpoints.
    pub(crate) kind: String,
    /// Show only this one. An endpoint is called by its pod, as NAME or NAMESPACE/NAME, or by its id.
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArg,
    /// Show those of all namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "name"])]
    pub(crate) all_namespaces: bool,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// The file, with one or more documents; `-` is standard input.
    #[arg(short, long)]
    pub(crate) filename: PathBuf,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArg,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The kind: ippools, nodes, bgpconfigurations, bgppeers, networkpolicies or namespaces.
    #[arg(required_unless_present = "filename", requires = "names")]
    pub(crate) kind: Option<String>,
    /// The names of the resources.
    pub(crate) names: Vec<ResourceName>,
    /// Delete the resources that this file names instead.
    #[arg(short, long, conflicts_with = "kind")]
    pub(crate) filename: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArg,
}

#[derive(Debug, Args)]
pub(crate) struct Label {
    /// The kind, which is workloadendpoint.
    pub(crate) kind: String,
    /// The endpoint: its pod, as NAME or NAMESPACE/NAME, or its id NETWORK/CONTAINER/INTERFACE.
    pub(crate) name: String,
    /// KEY=VALUE sets a label, KEY- removes it.
    #[arg(required = true)]
    pub(crate) labels: Vec<String>,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArg,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Debug, Args)]
pub(crate) struct Policy {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Tell whether a connection is allowed, and which policy, rule and peer decides at either end. manxctl exits with 0
    /// if it is allowed, with 1 if it is denied, and with 2 if that cannot be told.
    Explain(PolicyExplain),
    /// Show all that governs a pod of this node: the rules by direction, and how many endpoints their peers are.
    Show(PolicyShow),
    /// Print the packets that policies deny on this node, as they are denied.
    Log(PolicyLog),
}

#[derive(Debug, Args)]
pub(crate) struct PolicyExplain {
    /// The end that opens the connection: a pod, as NAME or NAMESPACE/NAME, or an address.
    pub(crate) source: String,
    /// The other end, likewise.
    pub(crate) destination: String,
    /// The destination port.
    #[arg(long, required_unless_present_any = ["icmp"])]
    pub(crate) port: Option<u16>,
    /// The protocol: tcp, udp or sctp.
    #[arg(long, default_value = "tcp")]
    pub(crate) protocol: Protocol,
    /// Ask about ICMP, or whatever else has no ports, in place of a protocol.
    #[arg(long, conflicts_with_all = ["port", "protocol"])]
    pub(crate) icmp: bool,
    /// The address family, ipv4 or ipv6, where both ends have both (default: ipv4).
    #[arg(long, value_parser = family)]
    pub(crate) family: Option<Family>,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArg,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyShow {
    /// The pod, as NAME or NAMESPACE/NAME, or its endpoint's id.
    pub(crate) pod: String,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArg,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Debug, Args)]
pub(crate) struct PolicyLog {
    /// Print until interrupted.
    #[arg(short, long, conflicts_with = "seconds")]
    pub(crate) follow: bool,
    /// Print for so many seconds.
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Debug, Args)]
pub(crate) struct Node {
    #[command(subcommand)]
    pub(crate) command: NodeCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// Show this node's BGP peers and datastore, and what is wrong.
    Status(OutputArg),
    /// Make this node ready for an agent: install CNI binaries, switch forwarding on, keep other daemons from our routes.
    /// Where all this has been done, the command changes nothing.
    Install(NodeInstall),
    /// Withdraw all that this node announces, so that the network sends it nothing any more: before maintenance, once its
    /// pods are gone. It lasts until it is undone, or the agent starts again.
    Drain(NodeDrain),
    /// Remove all that is of Manx from this node, which has no agent any more: rules, sets, routes, interfaces, files, and
    /// this node's keys in etcd. Pods that are still here lose their network. A second run finds nothing to remove.
    Clean(NodeClean),
}

#[derive(Debug, Args)]
pub(crate) struct NodeInstall {
    /// The host's root folder, where this runs in a container.
    #[arg(long, default_value = "/")]
    pub(crate) host: PathBuf,
    /// Where the CNI binaries are.
    #[arg(long, default_value = "/opt/cni/bin")]
    pub(crate) from: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct NodeDrain {
    /// Announce all of it again.
    #[arg(long)]
    pub(crate) undo: bool,
}

#[derive(Debug, Args)]
pub(crate) struct NodeClean {
    /// The host's root folder, where this runs in a container.
    #[arg(long, default_value = "/")]
    pub(crate) host: PathBuf,
    /// Where the CNI binaries came from: a portmap that is the same is removed, another is somebody else's.
    #[arg(long, default_value = "/opt/cni/bin")]
    pub(crate) from: PathBuf,
    /// Also remove the data of the etcd for trying out, if it was on this node: all that the cluster knows of Manx.
    #[arg(long)]
    pub(crate) etcd_data: bool,
    /// Leave this node's keys in etcd, and do not connect to it.
    #[arg(long)]
    pub(crate) keep_keys: bool,
    /// Run on afterwards until told to end, under a supervisor that would start the command again.
    #[arg(long)]
    pub(crate) stay: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ipam {
    #[command(subcommand)]
    pub(crate) command: IpamCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum IpamCommand {
    /// Show how much of the pools is used, and by whom.
    Show(IpamShow),
}

#[derive(Debug, Args)]
pub(crate) struct IpamShow {
    /// Also show the blocks and their owners.
    #[arg(long)]
    pub(crate) show_blocks: bool,
    /// Show only whose this address is.
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
    /// Show the destinations, the paths that peers offer, and why one of them is chosen.
    Routes(BgpRoutes),
}

#[derive(Debug, Args)]
pub(crate) struct BgpRoutes {
    /// Show only this destination.
    pub(crate) prefix: Option<Prefix>,
    /// Show only this address family: ipv4 or ipv6.
    #[arg(long, value_parser = family)]
    pub(crate) family: Option<Family>,
    /// Show the routes that are refused, with the reason, instead of the others. Of those that no claim can make good there
    /// are samples.
    #[arg(long, conflicts_with_all = ["prefix", "family"])]
    pub(crate) rejected: bool,
    #[command(flatten)]
    pub(crate) output: OutputArg,
}

#[derive(Debug, Args)]
pub(crate) struct Certs {
    #[command(subcommand)]
    pub(crate) command: CertsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Make an authority, and certificates that it signs, for etcd, for its administrator (root) and for nodes. What is
    /// there already stays, so that the command can be run again for another node.
    Make(CertsMake),
    /// Confine nodes in etcd: each writes its own keys, and reads the keys of all.
    Roles(CertsRoles),
    /// Fill the Secrets of the etcd for trying out; its Job in the cluster runs this.
    #[command(hide = true)]
    Secrets(CertsSecrets),
}

#[derive(Debug, Args)]
pub(crate) struct CertsMake {
    /// Where to write: ca, server, root and every client get a folder each, with ca.crt, tls.crt and tls.key.
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The names and addresses by which clients reach etcd.
    #[arg(long, value_delimiter = ',')]
    pub(crate) server: Vec<String>,
    /// For how many days the certificates are valid.
    #[arg(long, default_value_t = 3650)]
    pub(crate) days: u32,
    /// The names of the clients, which are nodes.
    pub(crate) clients: Vec<NodeName>,
}

#[derive(Debug, Args)]
pub(crate) struct CertsRoles {
    /// The names of the nodes.
    pub(crate) nodes: Vec<NodeName>,
    /// Then switch etcd's authentication on: a client without a certificate of a known name may do nothing any more.
    #[arg(long)]
    pub(crate) enable: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CertsSecrets {
    /// The Secrets' namespace.
    #[arg(long)]
    pub(crate) namespace: ResourceName,
    /// The address of etcd's Service.
    #[arg(long)]
    pub(crate) address: IpAddr,
    /// The node that etcd is to run on, unless one is marked already.
    #[arg(long)]
    pub(crate) node: NodeName,
    /// For how many days the certificates are valid.
    #[arg(long, default_value_t = 3650)]
    pub(crate) days: u32,
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
mod tests;
