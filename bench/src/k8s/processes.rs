//! The processor time and memory that processes of a node have taken, and the load of the whole machine (proc(5)).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

use ::tests::{Node, Place};
use anyhow::Context;

use crate::memory::Memory;

/// Units of processor time in a second, as programs see them (`USER_HZ`), on every architecture that this runs on.
const TICKS: f64 = 100.0;

/// A process of a node, as the host sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(u32);

/// All processes of this name that are in a node's own network.
pub(crate) fn of(node: &Node, name: &str) -> anyhow::Result<Vec<Process>> {
    let wanted = node.netns()?.metadata().context("a node's network namespace")?.ino();
    let pids = fs::read_dir("/proc").context("/proc")?.flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let called = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name);
    let inside = |pid: &u32| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|netns| netns.ino() == wanted);
    Ok(pids.filter(called).filter(inside).map(Process).collect())
}

impl Process {
    fn read(self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        fs::read_to_string(&path).context(path)
    }

    /// How many seconds of processor time the process has taken.
    pub(crate) fn cpu(&self) -> anyhow::Result<f64> {
        cpu(&self.read("stat")?).with_context(|| format!("/proc/{}/stat has no times", self.0))
    }

    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        Memory::parse(&self.read("status")?).with_context(|| format!("/proc/{}/status has no memory", self.0))
    }

    /// Makes the kernel measure the process's peak of memory from now on.
    pub(crate) fn forget_peak(&self) -> anyhow::Result<()> {
        let path = format!("/proc/{}/clear_refs", self.0);
        fs::write(&path, "5").context(path)
    }
}

/// Reads `utime` and `stime` of `/proc/PID/stat`; the name before them may have any character in it.
fn cpu(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u32>);
    let (user, system) = (times.next()?.ok()?, times.next()?.ok()?);
    Some((f64::from(user) + f64::from(system)) / TICKS)
}

/// The processor time that the whole machine had used at an instant.
#[derive(Debug)]
pub(crate) struct Busy {
    at: Instant,
    seconds: f64,
}

impl Busy {
    pub(crate) fn now() -> anyhow::Result<Self> {
        let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        let seconds = busy(&text).context("/proc/stat has no times")?;
        Ok(Self { at: Instant::now(), seconds })
    }

    /// How many processors were busy between the two instants, on average.
    pub(crate) fn since(&self, before: &Self) -> f64 {
        (self.seconds - before.seconds) / self.at.saturating_duration_since(before.at).as_secs_f64()
    }
}

/// The seconds that all processors together were not idle: all columns but the fourth and fifth, and but the guests',
/// which are contained in the first two.
fn busy(stat: &str) -> Option<f64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse::<f64>).collect();
    let counted = ticks.ok()?.into_iter().take(8).enumerate().filter(|(column, _)| !matches!(column, 3 | 4));
    Some(counted.map(|(_, ticks)| ticks).sum::<f64>() / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_s_time_is_that_of_user_and_system() {
        let stat = "14 (a (b) c) S 1 14 14 0 -1 4194560 9 0 0 0 150 50 7 7 20 0 5 0 100 1000 200";
        assert_eq!(cpu(stat), Some(2.0));
        assert_eq!(cpu("14 (short) S 1"), None);
    }

    #[test]
    fn waiting_is_not_being_busy() {
        assert_eq!(busy("cpu  100 10 200 9000 500 0 40 50 100 0\ncpu0 1 2 3 4\n"), Some(4.0));
    }
}
