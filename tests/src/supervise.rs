//! Ctrl-C takes everything down, at any point.
//!
//! The work is done by a second process, in a process group of its own so that the terminal's Ctrl-C does not reach it.
//! The first one does nothing but wait for a signal or for the end of the second. On a signal it kills the second, which
//! is the crash that labs clean up after anyway, and then takes the lab down by what the state file says of it.

use std::env;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode};

use anyhow::Context;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal};
use tests::Lab;

use crate::say;

/// The environment variable that tells the second process that it is the second.
const WORKER: &str = "MANX_LAB_WORKER";

/// Does `work`, which brings up the lab of this name, in such a way that a signal takes that lab down. `work` returns
/// only in the second process.
pub(crate) fn run(name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let mut awaited = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD] {
        awaited.add(signal);
    }
    if env::var_os(WORKER).is_some() {
        // Whatever is started inherits the mask, so it must be empty again before anything is.
        awaited.thread_unblock().context("unblocking signals")?;
        set_pdeathsig(Signal::SIGKILL).context("asking for a signal at the parent's death")?;
        return work().map(|()| ExitCode::SUCCESS);
    }
    awaited.thread_block().context("blocking signals")?;
    let own = env::current_exe().context("finding the running program")?;
    let mut worker = Command::new(own);
    worker.args(env::args_os().skip(1)).env(WORKER, name).process_group(0);
    if env::args().nth(1).is_some_and(|command| command == "demo") && !env::args().any(|word| word == "--name") {
        worker.args(["--name", name]);
    }
    let mut worker = worker.spawn().context("starting the second process")?;
    loop {
        let signal = awaited.wait().context("waiting for a signal")?;
        if signal == Signal::SIGCHLD {
            let Some(status) = worker.try_wait().context("waiting for the second process")? else { continue };
            if status.success() {
                return Ok(ExitCode::SUCCESS);
            }
            if status.signal().is_some() {
                take_down(name);
            }
            return Ok(status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .map_or(ExitCode::FAILURE, ExitCode::from));
        }
        say(format_args!("\n{signal}: taking down {name}"));
        worker.kill().context("ending the second process")?;
        worker.wait().context("ending the second process")?;
        take_down(name);
        return Ok(ExitCode::from(130));
    }
}

fn take_down(name: &str) {
    match Lab::take_down(name) {
        Ok(()) | Err(tests::LabError::NoSuchLab(_)) => {}
        Err(error) => say(format_args!("taking down {name}: {error}")),
    }
}
