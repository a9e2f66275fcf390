//! A program run to its end, or until its time is over.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Program<'a> {
    /// Its name, looked up when it is run.
    pub(super) name: &'a str,
    pub(super) arguments: &'a [&'a str],
    /// What it reads.
    pub(super) input: &'a str,
    /// Where it is looked up, if not by this process's `PATH`.
    pub(super) path: Option<&'a OsStr>,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit code; none if it was ended because its time was over. A signal counts as 128 and its number, as in shells.
    pub(super) code: Option<i32>,
    pub(super) output: Vec<u8>,
    pub(super) errors: Vec<u8>,
}

impl Program<'_> {
    /// Runs it in the calling thread's namespaces; `started` gets its process id.
    pub(super) fn run(&self, time_limit: Duration, started: impl FnOnce(u32)) -> io::Result<Ended> {
        let deadline = Instant::now() + time_limit;
        let mut command = Command::new(self.name);
        command.args(self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that what it started can be ended with it: nothing may change rules once this has
        // answered that it failed.
        command.process_group(0);
        if let Some(path) = self.path {
            command.env("PATH", path);
        }
        let mut child = command.spawn()?;
        started(child.id());
        let talked = talk(&mut child, self.input, deadline);
        if !matches!(talked, Ok(Talk { exited: true, .. })) {
            end(&mut child);
        }
        let status = child.wait()?;
        let talk = talked?;
        let code = talk.exited.then(|| {
            use std::os::unix::process::ExitStatusExt;
            status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
        });
        Ok(Ended { code, output: talk.output, errors: talk.errors })
    }
}

/// What was said until the program exited or the deadline had passed.
struct Talk {
    exited: bool,
    output: Vec<u8>,
    errors: Vec<u8>,
}

/// Writes the input and reads what comes, until the program has exited.
fn talk(child: &mut Child, input: &str, deadline: Instant) -> io::Result<Talk> {
    let exit = process_descriptor(child)?;
    let mut stdin = child.stdin.take();
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let pipes = [stdin.as_ref().map(AsFd::as_fd), stdout.as_ref().map(AsFd::as_fd), stderr.as_ref().map(AsFd::as_fd)];
    for pipe in pipes.into_iter().flatten() {
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    let mut left = input.as_bytes();
    let mut talk = Talk { exited: false, output: Vec::new(), errors: Vec::new() };
    loop {
        if let Some(pipe) = &mut stdin
            && !write_some(pipe, &mut left)?
        {
            // Closed, which is how the program learns that there is no more.
            stdin = None;
        }
        if let Some(pipe) = &mut stdout
            && !read_some(pipe, &mut talk.output)?
        {
            stdout = None;
        }
        if let Some(pipe) = &mut stderr
            && !read_some(pipe, &mut talk.errors)?
        {
            stderr = None;
        }
        // Seen at the last wait: what it said before it exited has just been read.
        if talk.exited {
            return Ok(talk);
        }
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Ok(talk);
        }
        let mut polled = vec![PollFd::new(exit.as_fd(), PollFlags::POLLIN)];
        polled.extend(stdin.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)));
        polled.extend(stdout.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        polled.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        let timeout = PollTimeout::try_from(remaining.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, timeout) {
            Ok(_) => talk.exited = polled.first().and_then(PollFd::any).unwrap_or(false),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Writes as much as there is room for; whether there is more.
fn write_some(pipe: &mut impl Write, left: &mut &[u8]) -> io::Result<bool> {
    while !left.is_empty() {
        match pipe.write(left) {
            Ok(written) => *left = left.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // It reads no more; its exit code and words tell why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Reads what is there; whether there may be more.
fn read_some(pipe: &mut impl Read, into: &mut Vec<u8>) -> io::Result<bool> {
    match pipe.read_to_end(into) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) => Err(error),
    }
}

/// A descriptor that is readable once the process has exited.
#[expect(unsafe_code, reason = "neither std nor nix has pidfd_open")]
fn process_descriptor(child: &Child) -> io::Result<OwnedFd> {
    let process = i64::from(child.id());
    // SAFETY: pidfd_open takes two numbers and no memory.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0_i64) };
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, close-on-exec, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Ends the program and what it started.
fn end(child: &mut Child) {
    // Its group has its number. It has not been waited for, so the number is still its own.
    let group = i32::try_from(child.id()).ok().map(Pid::from_raw);
    let killed = group.map(|group| killpg(group, Signal::SIGKILL));
    if !matches!(killed, Some(Ok(()))) {
        // Without a group of its own it can only be this one process; one that is gone already is what is wanted.
        let _ = child.kill();
    }
}

#[cfg(test)]
mod tests;
