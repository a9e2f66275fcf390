//! What removes a cluster when its process cannot any more: `manx-lab reap NAME`, a process that waits for the end of that
//! process by reading from it.
//!
//! A lab's namespaces go with its process by themselves. Control groups and disks do not.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::LabError;
use crate::binaries::Binaries;
use crate::lab::Lab;
use crate::pause::DETACH;

/// The process that waits.
#[derive(Debug)]
pub(crate) struct Reaper(Child);

impl Reaper {
    pub(crate) fn start(lab: &str) -> Result<Self, LabError> {
        let program = Binaries::find()?.lab;
        let mut command = Command::new(&program);
        // The reaper has to outlive Ctrl-C and the end of a terminal.
        command.args(["reap", lab]).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self).map_err(LabError::io(format!("running {}", program.display())))
    }

    /// Tells the reaper to leave the cluster alone, as it is to live on.
    pub(crate) fn dismiss(mut self) -> Result<(), LabError> {
        let told = self.0.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(&[DETACH]));
        told.map_err(LabError::io("detaching the cluster"))
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// Waits for the end of standard input, then takes the lab down. It is no error if the lab is down already.
pub fn reap(lab: &str) -> Result<(), LabError> {
    let mut byte = [0];
    if matches!(io::stdin().read(&mut byte), Ok(1) if byte == [DETACH]) {
        return Ok(());
    }
    match Lab::take_down(lab) {
        Err(LabError::NoSuchLab(_)) => Ok(()),
        ended => ended,
    }
}
