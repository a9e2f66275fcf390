//! iptables by its own programs: `ip(6)tables-{nft,legacy}-{save,restore}`.

mod process;
mod variant;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use types::Family;

use self::process::{Ended, Program};
use super::{IPTABLES_TIME_LIMIT, IptablesVariant, TABLES, Tables};
use crate::netns::run_in;
use crate::{Failure, KernelError, Netns};

/// How long a legacy program waits for `/run/xtables.lock`, which all network namespaces share: less than
/// [`IPTABLES_TIME_LIMIT`], so that its own words tell who is to blame.
const LOCK_SECONDS: &str = "5";

/// What the programs say when it is worth another try: the lock is held, or somebody else changed the rules meanwhile or
/// still refers to something. (The exit code tells nothing: the nft programs give 4 for whatever the kernel refuses.)
const TRY_AGAIN: [&str; 3] = ["xtables lock", "Resource temporarily unavailable", "Device or resource busy"];

/// How many own restores are remembered: their notifications are read long before as many more have run.
const RESTORES_REMEMBERED: usize = 32;

/// iptables of the namespace of the calling thread, or of a given one.
///
/// The programs are found by `PATH` at each call.
#[derive(Debug)]
pub struct Iptables {
    variant: IptablesVariant,
    /// Where the programs are run, if not where the caller is.
    netns: Option<Netns>,
    /// In the place of this process's `PATH`.
    path: Option<OsString>,
    time_limit: Duration,
    restores: OwnRestores,
}

/// The processes that restored on our behalf of late: by them, own changes are told from foreign ones. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct OwnRestores(Arc<Mutex<VecDeque<u32>>>);

impl Iptables {
    /// That variant.
    pub fn new(variant: IptablesVariant) -> Self {
        Self { variant, netns: None, path: None, time_limit: IPTABLES_TIME_LIMIT, restores: OwnRestores::default() }
    }

    /// The variant that others use in the calling thread's namespace: the one with kube-proxy's or the kubelet's chains,
    /// else the one with more rules, else the host's `iptables`. [`KernelError::Gone`] if there is no program of either.
    pub fn detect() -> Result<Self, KernelError> {
        variant::detect(None).map(Self::new)
    }

    /// The same with the programs in the folders of `path` (as `PATH` has them).
    pub fn detect_with_path(path: impl Into<OsString>) -> Result<Self, KernelError> {
        let path = path.into();
        Ok(Self::new(variant::detect(Some(&path))?).with_path(path))
    }

    /// Runs the programs in another namespace. Costs a thread a call.
    #[must_use]
    pub fn in_netns(mut self, netns: Netns) -> Self {
        self.netns = Some(netns);
        self
    }

    /// Finds the programs in the folders of `path`, in the place of this process's `PATH`.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<OsString>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Ends a program that takes longer than this, in the place of [`IPTABLES_TIME_LIMIT`].
    #[must_use]
    pub const fn with_time_limit(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }

    /// The processes that restored for this handle.
    pub fn own_restores(&self) -> OwnRestores {
        self.restores.clone()
    }

    /// Runs a program with the given input; its output if it succeeded.
    fn run(&self, program: &Program<'_>, operation: &(dyn Fn() -> String + Sync)) -> Result<String, KernelError> {
        let run = || program.run(self.time_limit, |process| self.restores.add(process));
        let ended = match &self.netns {
            Some(netns) => run_in(netns, run)?,
            None => run(),
        };
        let ended = ended.map_err(|error| {
            // "Not found" says nothing without what was looked for.
            KernelError::io(format!("{}: cannot run {}", operation(), program.name), &error)
        })?;
        judge(&ended, program, operation)
    }
}

impl Tables for Iptables {
    fn variant(&self) -> IptablesVariant {
        self.variant
    }

    fn tables(&mut self, family: Family) -> Result<Vec<String>, KernelError> {
        let all = || TABLES.map(str::to_owned).to_vec();
        if self.variant == IptablesVariant::Nft {
            return Ok(all());
        }
        let file = match family {
            Family::Ipv4 => "/proc/thread-self/net/ip_tables_names",
            Family::Ipv6 => "/proc/thread-self/net/ip6_tables_names",
        };
        let read = || fs::read_to_string(file);
        let names = match &self.netns {
            Some(netns) => run_in(netns, read)?,
            None => read(),
        };
        match names {
            Ok(names) => Ok(all().into_iter().filter(|table| names.lines().any(|name| name == table)).collect()),
            // The modules are not loaded.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(KernelError::io(format!("cannot read {file}"), &error)),
        }
    }

    fn save(&mut self, family: Family, table: &str, counters: bool) -> Result<String, KernelError> {
        let name = variant::program(family, self.variant, "save");
        let mut arguments = vec!["-t", table];
        if counters {
            arguments.push("-c");
        }
        let program = Program { name: &name, arguments: &arguments, input: "", path: self.path.as_deref() };
        self.run(&program, &|| format!("cannot read {family} table {table}"))
    }

    fn restore(&mut self, family: Family, text: &str) -> Result<(), KernelError> {
        let name = variant::program(family, self.variant, "restore");
        let mut arguments = vec!["--noflush"];
        if self.variant == IptablesVariant::Legacy {
            arguments.extend(["-w", LOCK_SECONDS]);
        }
        let program = Program { name: &name, arguments: &arguments, input: text, path: self.path.as_deref() };
        self.run(&program, &|| format!("cannot change {family} rules")).map(drop)
    }
}

impl OwnRestores {
    /// Whether a process is one of them.
    pub(super) fn contains(&self, process: u32) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&process)
    }

    fn add(&self, process: u32) {
        let mut processes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        processes.push_back(process);
        if processes.len() > RESTORES_REMEMBERED {
            processes.pop_front();
        }
    }
}

/// The output of a program that succeeded, or why it did not: its own words with the line that they speak of.
fn judge(ended: &Ended, program: &Program<'_>, operation: &dyn Fn() -> String) -> Result<String, KernelError> {
    let failure = |errno, message| Failure { operation: operation(), errno, message: Some(message) };
    match ended.code {
        Some(0) => Ok(String::from_utf8_lossy(&ended.output).into_owned()),
        None => {
            let message = format!("{} took too long", program.name);
            Err(KernelError::Busy(failure(libc::ETIMEDOUT, message)))
        }
        Some(code) => {
            let said = String::from_utf8_lossy(&ended.errors);
            let mut message = format!("{} ended with {code}: {}", program.name, words_of(&said));
            if let Some((number, line)) = line_blamed(&said, program.input) {
                message.push_str(&format!(" (line {number} is {line:?})"));
            }
            if TRY_AGAIN.iter().any(|words| said.contains(words)) {
                Err(KernelError::Busy(failure(libc::EAGAIN, message)))
            } else if said.contains("Permission denied") {
                Err(KernelError::Denied(failure(libc::EPERM, message)))
            } else {
                Err(KernelError::Rejected(failure(libc::EINVAL, message)))
            }
        }
    }
}

/// What a program said, on one line, without its advice.
fn words_of(said: &str) -> String {
    let lines = said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("Try `"));
    lines.collect::<Vec<_>>().join("; ")
}

/// The line of the input that a program complains of, counted from 1. The nft programs check some things only at the next
/// line or at COMMIT, and then blame that; a COMMIT is not worth quoting.
fn line_blamed<'a>(said: &str, input: &'a str) -> Option<(usize, &'a str)> {
    let number = said.split("line").skip(1).find_map(|behind| {
        let behind = behind.trim_start_matches([':', ' ']);
        let digits = behind.find(|c: char| !c.is_ascii_digit()).map_or(behind, |end| behind.get(..end).unwrap_or(""));
        digits.parse::<usize>().ok()
    })?;
    let line = input.lines().nth(number.checked_sub(1)?)?;
    (line != "COMMIT").then_some((number, line))
}

#[cfg(test)]
mod tests;
