//! Where a benchmark takes place: a lab whose nodes keep their state on a disk, and the machine around it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tests::{Lab, Options, Place};

/// How long an agent may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// The folder for what is kept over reboots: it is on a disk and not in memory (Filesystem Hierarchy Standard 3.0,
/// section 5.15).
const DISK: &str = "/var/tmp";

/// The beginning of the names of our folders there; the rest is the id of the process that made the folder.
const FOLDER: &str = "manx-bench-";

/// A lab to be brought up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    /// The name of the topology's file in `bench/topologies`.
    pub(crate) topology: &'a str,
    /// The variables that the agents' environment has beside the topology's.
    pub(crate) env: &'a [(&'a str, &'a str)],
}

impl Scene<'_> {
    /// Brings the lab up, lets `prepare` do what comes before the agents, starts them, and measures. The lab is taken
    /// down however that ends; if it failed, the last words of the agents are shown.
    pub(crate) fn play<T>(
        self,
        prepare: impl FnOnce(&Lab) -> anyhow::Result<()>,
        measure: impl FnOnce(&Lab) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let disk = Disk::new()?;
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("topologies").join(self.topology);
        // The agents are started below, with an environment of their own.
        let options = Options::unique("bench").without_agents().data_in(&disk.0);
        tell(format_args!("bringing up {}", self.topology));
        let lab = Lab::up(&file, &options).context("bringing the lab up")?;
        let measured = prepare(&lab).and_then(|()| self.start(&lab)).and_then(|()| measure(&lab));
        if measured.is_err() {
            last_words(&lab);
        }
        let down = lab.down().context("taking the lab down");
        let measured = measured?;
        down?;
        Ok(measured)
    }

    fn start(self, lab: &Lab) -> anyhow::Result<()> {
        for node in lab.manx_nodes() {
            node.agent().start_with(self.env)?;
        }
        for node in lab.manx_nodes() {
            node.agent().wait_ready(READY)?;
        }
        Ok(())
    }
}

fn last_words(lab: &Lab) {
    for node in lab.manx_nodes() {
        let log = fs::read_to_string(node.agent().log()).unwrap_or_default();
        let skipped = log.lines().count().saturating_sub(15);
        tell(format_args!("the end of the agent's log on {}:", node.name()));
        log.lines().skip(skipped).for_each(|line| tell(format_args!("  {line}")));
    }
}

/// A folder on a disk, which is removed when this is dropped.
struct Disk(PathBuf);

impl Disk {
    fn new() -> anyhow::Result<Self> {
        sweep();
        let folder = Path::new(DISK).join(format!("{FOLDER}{}", std::process::id()));
        fs::create_dir(&folder).with_context(|| folder.display().to_string())?;
        Ok(Self(folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tell(format_args!("removing {}: {error}", self.0.display()));
        }
    }
}

/// Removes the folders of interrupted benchmarks: those whose process is gone.
fn sweep() {
    for entry in fs::read_dir(DISK).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(FOLDER)).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // A folder that cannot be removed is no reason to fail; the next benchmark tries again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The machine's load average over the last minute.
pub(crate) fn load_average() -> anyhow::Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("/proc/loadavg")?;
    text.split_whitespace().next().and_then(|word| word.parse().ok()).context("/proc/loadavg has no number")
}

/// How many processors this process may use.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Says what is being done, on standard error.
pub(crate) fn tell(step: fmt::Arguments<'_>) {
    eprintln!("  {step}");
}
