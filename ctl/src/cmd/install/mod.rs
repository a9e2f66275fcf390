//! `manxctl node install`: makes a node ready for its agent.

pub(crate) mod plan;
mod trial;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use kernel::{Kernel, KernelError, Linux, SysctlKey};
use types::cni::PLUGIN;

use crate::cli::NodeInstall;
use crate::render;
use plan::{BinarySeen, InstallStep, InterfaceSeen, NETWORKD, SYSTEMD, Seen, There, aside, place, plan};

pub(crate) fn run(args: &NodeInstall) -> anyhow::Result<()> {
    let mut kernel = Linux::open()?;
    let mut not_loaded = Vec::new();
    let seen = look(&mut kernel, args)?;
    for step in plan(&seen) {
        match (carry_out(&mut kernel, args, &step), &step) {
            (Ok(()), InstallStep::Module(_)) => {}
            (Ok(()), step) => render::say(&step.to_string())?,
            // Another kernel may have the module under another name, or not need it; the agent says what it misses.
            (Err(_), InstallStep::Module(name)) => not_loaded.push(*name),
            // Some hosts cannot be written to; their operators configure systemd-networkd in another way.
            (Err(error), InstallStep::Write { .. }) => render::complain(&format!("{error:#}")),
            (Err(error), _) => return Err(error),
        }
    }
    if let Some(binary) = seen.binaries.iter().find(|binary| binary.name == PLUGIN) {
        render::say(&trial::run(&place(&args.host, &binary.name))?)?;
    }
    if not_loaded.is_empty() { Ok(()) } else { render::say(&format!("not loaded: {}", not_loaded.join(", "))) }
}

fn look(kernel: &mut Linux, args: &NodeInstall) -> anyhow::Result<Seen> {
    let mut interfaces = Vec::new();
    for link in kernel.links()? {
        let Ok(name) = link.name.parse() else { continue };
        if link.name == "lo" {
            continue;
        }
        let mut read = |key| sysctl(kernel, &SysctlKey::ipv6_conf(&name, key));
        if let (Some(accept_ra), Some(forwarding)) = (read("accept_ra")?, read("forwarding")?) {
            interfaces.push(InterfaceSeen { name, accept_ra, forwarding });
        }
    }
    let networkd = args.host.join(NETWORKD);
    Ok(Seen {
        ipv4_forwarding: sysctl(kernel, &SysctlKey::global("ipv4/ip_forward"))?,
        ipv6_forwarding: sysctl(kernel, &SysctlKey::global("ipv6/conf/all/forwarding"))?,
        interfaces,
        // The file is there once the module is loaded, and lists the tables that were used.
        legacy_iptables: fs::read_to_string("/proc/net/ip_tables_names").is_ok_and(|names| !names.is_empty()),
        systemd: args.host.join(SYSTEMD).is_dir(),
        networkd: content(&networkd)?.map(|text| String::from_utf8_lossy(&text).into_owned()),
        binaries: binaries(args)?,
    })
}

/// A key's value; none where there is no such key.
fn sysctl(kernel: &mut Linux, key: &SysctlKey) -> Result<Option<String>, KernelError> {
    match kernel.read_sysctl(key) {
        Err(KernelError::Gone(_)) => Ok(None),
        read => read.map(Some),
    }
}

fn binaries(args: &NodeInstall) -> anyhow::Result<Vec<BinarySeen>> {
    let shown = || args.from.display().to_string();
    let mut binaries = Vec::new();
    for entry in fs::read_dir(&args.from).with_context(shown)? {
        let entry = entry.with_context(shown)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let target = place(&args.host, &name);
        let there = match content(&target)? {
            None => There::Nothing,
            Some(_) if !is_executable(&target) => There::Unusable,
            Some(there) if content(&entry.path())?.as_ref() == Some(&there) => There::Same,
            Some(_) => There::Other,
        };
        binaries.push(BinarySeen { name, there });
    }
    binaries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(binaries)
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0)
}

fn content(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

fn carry_out(kernel: &mut Linux, args: &NodeInstall, step: &InstallStep) -> anyhow::Result<()> {
    match step {
        InstallStep::Module(name) => {
            let output = Command::new("modprobe").arg("--dirname").arg(&args.host).arg(name).output();
            let output = output.context("modprobe")?;
            anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
            Ok(())
        }
        InstallStep::Sysctl { key, value } => match kernel.write_sysctl(key, value) {
            // The interface has gone meanwhile, so it needs no sysctl.
            Err(KernelError::Gone(_)) => Ok(()),
            written => Ok(written?),
        },
        InstallStep::Write { path, text } => put(&args.host.join(path), text.as_bytes(), 0o644),
        InstallStep::Binary(name) => {
            let from = args.from.join(name);
            let mut program = Vec::new();
            let read = fs::File::open(&from).and_then(|mut file| file.read_to_end(&mut program));
            read.with_context(|| from.display().to_string())?;
            put(&place(&args.host, name), &program, 0o755)
        }
    }
}

/// Replaces a file in one step: whoever runs or reads it meanwhile has all of the old one, or all of the new one.
fn put(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let Some(folder) = path.parent() else { anyhow::bail!("{}: no file", path.display()) };
    let aside = aside(path);
    let write = || {
        fs::create_dir_all(folder)?;
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&aside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&aside, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(&aside))).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests;
