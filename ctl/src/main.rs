//! `manxctl`: what an operator asks of Manx and tells it.
//!
//! Resources are read and written in etcd, or through the agent's socket on a node that works without etcd. What is a
//! node's own (sessions, routes) is asked of its agent. Answers are tables for people, and `-o json|yaml` for programs.

mod agent;
mod cli;
mod cmd;
mod datastore;
mod endpoints;
mod render;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow::Error::new(error).context("cannot start")),
    };
    // As with grep, one exit code says that the answer is no, and another that there is no answer.
    let trouble = if asks(&cli.command) { ExitCode::from(2) } else { ExitCode::FAILURE };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(error) => {
            fail(&error);
            trouble
        }
    }
}

/// Whether the exit code is the answer to a question.
const fn asks(command: &Command) -> bool {
    matches!(command, Command::Policy(cli::Policy { command: cli::PolicyCommand::Explain(_) }))
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { place, command } = cli;
    match command {
        Command::Get(args) => cmd::resources::get(&place, args).await?,
        Command::Apply(args) => cmd::resources::apply(&place, args).await?,
        Command::Delete(args) => cmd::resources::delete(&place, args).await?,
        Command::Label(args) => cmd::label::run(&place, args).await?,
        Command::Policy(args) => return cmd::policy::run(&place, args).await,
        Command::Node(args) => cmd::node::run(&place, args).await?,
        Command::Ipam(args) => cmd::ipam::run(&place, args).await?,
        Command::Bgp(args) => cmd::bgp::run(&place, args).await?,
        Command::Certs(args) => cmd::certs::run(&place, args).await?,
        Command::Version(args) => cmd::version::run(&place, args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    // The alternate form prints the chain of causes on one line.
    render::complain(&format!("{error:#}"));
    ExitCode::FAILURE
}
