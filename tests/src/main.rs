//! `manx-lab`: brings labs up and takes them down by hand, and shows what Manx does.

mod cluster;
mod demo;
mod supervise;

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand, ValueEnum};
use tests::{Lab, Options, Place, Topology, reach};
use types::Family;

/// Containerlab topologies as network namespaces, with real etcd, FRR and Manx agents.
#[derive(Debug, Parser)]
#[command(name = "manx-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Brings a topology up and leaves it running.
    Up {
        /// A containerlab file.
        file: PathBuf,
        /// The lab's name (default: the topology's).
        #[arg(long)]
        name: Option<String>,
        /// Starts no agents and applies no resources.
        #[arg(long)]
        without_agents: bool,
    },
    /// Takes a lab down, also one whose process crashed.
    Down {
        /// The lab (default: the only one that is up).
        name: Option<String>,
    },
    /// Lists the labs that are up.
    List,
    /// Runs a shell, or a command, in a node or a pod.
    Shell {
        /// The lab (default: the only one that is up).
        #[arg(long)]
        lab: Option<String>,
        /// NODE, or NODE/POD.
        place: String,
        /// The command (default: a shell).
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Plugs a pod in, as a container runtime does.
    Plug {
        /// The lab (default: the only one that is up).
        #[arg(long)]
        lab: Option<String>,
        /// The node.
        node: String,
        /// The pod's name.
        pod: String,
    },
    /// Unplugs a pod.
    Unplug {
        /// The lab (default: the only one that is up).
        #[arg(long)]
        lab: Option<String>,
        /// The node.
        node: String,
        /// The pod's name.
        pod: String,
    },
    /// Shows Manx at work on the mesh topology, or in a Kubernetes cluster, then takes everything down.
    Demo {
        /// What is shown (default: the mesh topology).
        stage: Option<Stage>,
        /// The mesh topology (default: the one of this source tree).
        #[arg(
            long,
            conflicts_with = "stage",
            default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/topologies/mesh.clab.yml")
        )]
        file: PathBuf,
        /// The lab's name.
        #[arg(long, hide = true)]
        name: Option<String>,
    },
    /// A Kubernetes cluster: nodes in two racks, each behind its own router.
    #[command(subcommand)]
    K8s(cluster::Action),
    /// Asks, or answers, in the network namespace that it is run in.
    #[command(hide = true, subcommand)]
    Probe(Probing),
    /// What runs as process 1 of a node.
    #[command(hide = true)]
    Pause,
    /// Takes a lab down when standard input ends.
    #[command(hide = true)]
    Reap {
        /// The lab.
        name: String,
    },
}

/// Where the demonstration takes place.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Stage {
    /// A Kubernetes cluster, from nothing.
    K8s,
}

#[derive(Debug, Subcommand)]
enum Probing {
    /// Answers TCP and UDP on these ports, and SCTP at these addresses, until standard input ends. Says `ready` first.
    Serve {
        /// A port.
        #[arg(long = "port", required = true)]
        ports: Vec<u16>,
        /// An own address.
        addresses: Vec<IpAddr>,
    },
    /// Reads a JSON list of questions from standard input and writes the list of verdicts.
    Ask,
}

fn main() -> ExitCode {
    let ended = match Cli::parse().command {
        Action::Probe(probing) => probe(probing),
        Action::Pause => tests::pause::run().map(|()| ExitCode::SUCCESS).map_err(anyhow::Error::msg),
        Action::Reap { name } => tests::reap(&name).map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Action::K8s(action) => cluster::run(action),
        Action::Up { file, name, without_agents } => up(file, name, without_agents),
        Action::Demo { stage, file, name } => {
            let name = name.unwrap_or_else(|| format!("demo-{}", std::process::id()));
            supervise::run(&name, || match stage {
                None => demo::run(&file, &name),
                Some(Stage::K8s) => demo::kubernetes::run(&name),
            })
        }
        Action::Down { name } => pick(name).and_then(|name| {
            Lab::take_down(&name)?;
            say(format_args!("{name} is down"));
            Ok(ExitCode::SUCCESS)
        }),
        Action::List => {
            for name in Lab::list() {
                say(format_args!("{name}"));
            }
            Ok(ExitCode::SUCCESS)
        }
        Action::Shell { lab, place, command } => shell(lab, &place, &command),
        Action::Plug { lab, node, pod } => plug(lab, &node, &pod),
        Action::Unplug { lab, node, pod } => unplug(lab, &node, &pod),
    };
    ended.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "manx-lab: {error:#}");
        ExitCode::FAILURE
    })
}

/// Whether a lab of that name is up and in use: it must not be taken down when another cannot come up.
fn is_up(name: &str) -> bool {
    Lab::list().iter().any(|lab| lab == name) && Lab::attach(name).is_ok()
}

/// Writes a line; a reader that has gone away is no error.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn up(file: PathBuf, name: Option<String>, without_agents: bool) -> anyhow::Result<ExitCode> {
    let name = match name {
        Some(name) => name,
        None => Topology::read(&file)?.name,
    };
    if is_up(&name) {
        bail!("a lab named {name} is up already (manx-lab down {name} ends it)");
    }
    supervise::run(&name, || {
        let options = Options::default().named(&name).progress(|step| say(format_args!("  {step}")));
        let options = if without_agents { options.without_agents() } else { options };
        let lab = Lab::up(&file, &options)?;
        say(format_args!("lab {} is up; logs are in {}", lab.name(), lab.folder().join("logs").display()));
        for node in lab.nodes() {
            let address = node.management_address(Family::Ipv4);
            say(format_args!("  {:<12} {:<6} {address}", node.name(), format!("{:?}", node.role()).to_lowercase()));
        }
        say(format_args!("manx-lab shell NODE | plug NODE POD | down {}", lab.name()));
        Ok(lab.detach()?)
    })
}

fn shell(lab: Option<String>, place: &str, command: &[String]) -> anyhow::Result<ExitCode> {
    let lab = Lab::attach(&pick(lab)?)?;
    let (node, pod) = place.split_once('/').map_or((place, None), |(node, pod)| (node, Some(pod)));
    let node = lab.find_node(node)?;
    let enter = |program: &str| -> anyhow::Result<Command> {
        Ok(match pod {
            None => node.command(program),
            Some(pod) => node.find_pod(pod)?.command(program),
        })
    };
    let mut command = match command.split_first() {
        Some((program, arguments)) => {
            let mut command = enter(program)?;
            command.args(arguments);
            command
        }
        None if io::stdin().is_terminal() => {
            // A terminal of its own: the shell is in another PID namespace, where this one has no process groups.
            let mut command = enter("script")?;
            command.args(["-qefc", "bash", "/dev/null"]);
            command
        }
        None => enter("bash")?,
    };
    Err(command.exec()).with_context(|| format!("running {command:?}"))
}

fn plug(lab: Option<String>, node: &str, pod: &str) -> anyhow::Result<ExitCode> {
    let lab = Lab::attach(&pick(lab)?)?;
    let pod = lab.find_node(node)?.plug(pod)?;
    let addresses: Vec<String> = pod.addresses().iter().map(ToString::to_string).collect();
    say(format_args!("{} has {}", pod.name(), addresses.join(" and ")));
    Ok(ExitCode::SUCCESS)
}

fn unplug(lab: Option<String>, node: &str, pod: &str) -> anyhow::Result<ExitCode> {
    let lab = Lab::attach(&pick(lab)?)?;
    lab.find_node(node)?.unplug(pod)?;
    Ok(ExitCode::SUCCESS)
}

fn probe(probing: Probing) -> anyhow::Result<ExitCode> {
    match probing {
        Probing::Serve { ports, addresses } => {
            let stop = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    let _ = io::copy(&mut io::stdin(), &mut io::sink());
                    stop.store(true, Ordering::Relaxed);
                });
                reach::listen_here(&addresses, &ports, || say(format_args!("ready")), &stop)
            })?;
        }
        Probing::Ask => {
            let questions: Vec<reach::Question> =
                serde_json::from_reader(io::stdin()).context("the questions on standard input")?;
            let verdicts = reach::ask_here(&questions, reach::REACH_TIME_LIMIT)?;
            say(format_args!("{}", serde_json::to_string(&verdicts)?));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds the lab that is meant: the named one, or the only one that is up.
fn pick(name: Option<String>) -> anyhow::Result<String> {
    if let Some(name) = name {
        return Ok(name);
    }
    match Lab::list().as_slice() {
        [only] => Ok(only.clone()),
        [] => bail!("no lab is up"),
        several => bail!("name a lab: those that are up are {}", several.join(", ")),
    }
}
