//! The files of Manx on a node: which they are, and how they are removed.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;
use types::cni::{CONFLIST, DAMAGED_CONFLIST};
use types::config::Config;

use super::plan::{FileRemoval, Found};
use super::report::Report;
use crate::cli::NodeClean;
use crate::cmd::install::plan::{NETWORKD, aside, place as binary_place};

/// Where runtimes look for their configuration, unless the agent's configuration says otherwise.
const CNI_CONF: &str = "/etc/cni/net.d";

/// The data of the etcd for trying out, on the node that it runs on.
const ETCD_DATA: &str = "/var/lib/manx-etcd";

/// How the names of files in the state folder begin: databases with their logs, and the lock.
const STATE: [&str; 4] = ["journal.db", "cache.db", "local.db", "lock"];

/// The files of a node.
pub(crate) struct HostFiles<'a> {
    /// The root folder of the node's files.
    pub(crate) root: &'a Path,
    /// The configuration of the agent that was on it.
    pub(crate) config: &'a Config,
}

impl HostFiles<'_> {
    /// Adds the files that are ours to what was found.
    pub(crate) fn look(&self, args: &NodeClean, found: &mut Found, report: &mut Report) {
        let conf = self.below(self.config.cni_conf_dir.as_deref().unwrap_or_else(|| Path::new(CNI_CONF)));
        let conflist = conf.join(CONFLIST);
        self.look_at_conflist(&conflist, found, report);
        self.look_at_installed(args, &conf, found, report);
        self.look_at_state(found, report);
        self.look_at_etcd(args.etcd_data, found, report);
    }

    fn look_at_conflist(&self, conflist: &Path, found: &mut Found, report: &mut Report) {
        match fs::read_to_string(conflist) {
            Ok(text) if names_us(&text) => found.runtime.push(conflist.to_owned()),
            Ok(_) => report.note(&format!("{} is somebody else's and stays", conflist.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => report.stays(format!("{} stays: {error}", conflist.display())),
        }
    }

    /// What `manxctl node install` has put on the node, and what was being written when it, or an agent, was ended.
    fn look_at_installed(&self, args: &NodeClean, conf: &Path, found: &mut Found, report: &mut Report) {
        let (manx, portmap) = (binary_place(self.root, "manx"), binary_place(self.root, "portmap"));
        let (networkd, conflist) = (self.root.join(NETWORKD), conf.join(CONFLIST));
        let half_written = [&conflist, &manx, &portmap, &networkd].map(|path| aside(path));
        let damaged = conf.join(DAMAGED_CONFLIST);
        match portmap_is_ours(&portmap, &args.from.join("portmap"), conf) {
            Ok(true) => found.files.push(portmap),
            Ok(false) => {}
            Err(why) => report.note(&format!("{} stays: {why}", portmap.display())),
        }
        // The binary goes before what it could write to.
        let files = [manx, networkd, damaged].into_iter().chain(half_written);
        found.files.extend(files.filter(|path| path.symlink_metadata().is_ok()));
    }

    /// Looks for what an agent has written while it ran.
    fn look_at_state(&self, found: &mut Found, report: &mut Report) {
        let run = self.below(&self.config.run_dir);
        let released = run.join(types::cni::RELEASED);
        let mapped = run.join(types::cni::MAPPED);
        for folder in [&released, &mapped] {
            found.files.extend(list(folder, |_| true, report));
        }
        let ours = [types::api::SOCKET, types::cni::SOCKET, types::cni::PARKED_GROUP];
        // Half-written ones too.
        let is_ours = |name: &str| ours.contains(&name) || name.starts_with(types::api::BGP_PASSWORDS);
        found.files.extend(list(&run, is_ours, report));
        let state = self.below(&self.config.state_dir);
        // The lock is the last of them in the order of names.
        found.files.extend(list(&state, is_state, report));
        found.folders.extend([released, mapped, run, state].into_iter().filter(|folder| folder.is_dir()));
    }

    /// The data of the etcd for trying out, which is removed only if that was asked for.
    fn look_at_etcd(&self, is_to_go: bool, found: &mut Found, report: &mut Report) {
        let data = self.below(Path::new(ETCD_DATA));
        if !data.is_dir() {
            return;
        }
        if !is_to_go {
            report.note(&format!("{} stays: it is the cluster's etcd (--etcd-data removes it)", data.display()));
        } else if is_in_use(&data.join("data/member/snap/db")) {
            report.stays(format!("{} stays: etcd runs on it", data.display()));
        } else {
            found.trees.push(data);
        }
    }

    fn below(&self, path: &Path) -> PathBuf {
        below(self.root, path)
    }

    /// Removes one thing; false where there was nothing to remove.
    pub(crate) fn carry_out(&self, step: &FileRemoval, report: &mut Report) -> anyhow::Result<bool> {
        match step {
            FileRemoval::File(path) => there(fs::remove_file(path), path),
            FileRemoval::Folder(path) => remove_folder(path, report),
            FileRemoval::Tree(path) => there(fs::remove_dir_all(path), path),
        }
    }
}

/// Where a path of the host is seen from here.
pub(crate) fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Whether the portmap on the host is the one that we brought along and nobody else needs. An error says why it stays where
/// it is not, or where that cannot be told.
fn portmap_is_ours(there: &Path, from: &Path, conf: &Path) -> Result<bool, String> {
    let (Ok(meta), Ok(text)) = (fs::metadata(there), fs::read(there)) else { return Ok(false) };
    let Ok(origin) = fs::metadata(from) else { return Err(format!("there is no {} to compare it to", from.display())) };
    if (meta.dev(), meta.ino()) == (origin.dev(), origin.ino()) {
        return Err("it may be anybody's (--from says where ours came from)".to_owned());
    }
    if !fs::read(from).is_ok_and(|ours| ours == text) {
        return Err("it is not the one that Manx brings along".to_owned());
    }
    let others = fs::read_dir(conf).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut others = others.filter(|path| path.file_name().is_some_and(|name| name != CONFLIST));
    match others.find(|path| fs::read_to_string(path).is_ok_and(|text| names_portmap(&text))) {
        Some(other) => Err(format!("{} names it", other.display())),
        None => Ok(true),
    }
}

/// The files of a folder that are ours by name, in order. A folder that is not there has none.
fn list(folder: &Path, is_ours: impl Fn(&str) -> bool, report: &mut Report) -> Vec<PathBuf> {
    let read = || -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let is_file = !entry.file_type()?.is_dir();
            if is_file && entry.file_name().to_str().is_some_and(&is_ours) {
                files.push(entry.path());
            }
        }
        files.sort();
        Ok(files)
    };
    match read() {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            report.stays(format!("{} stays: {error}", folder.display()));
            Vec::new()
        }
    }
}

/// Whether somebody has locked the file.
fn is_in_use(path: &Path) -> bool {
    fs::File::open(path).is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// Whether a file or folder was there to be removed.
fn there(removed: io::Result<()>, path: &Path) -> anyhow::Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Removes a folder in which nothing is left.
fn remove_folder(path: &Path, report: &mut Report) -> anyhow::Result<bool> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            report.note(&format!("{} stays: not all that is in it is of Manx", path.display()));
            Ok(false)
        }
        // Something is mounted here, so the place belongs to whoever has mounted it.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        removed => there(removed, path),
    }
}

/// Whether a configuration of the runtime has our plugin in it; one that cannot be read is somebody else's.
fn names_us(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|config| has_plugin(&config, "manx"))
}

/// Whether another network's configuration has the plugin that we bring along, too.
fn names_portmap(text: &str) -> bool {
    // A configuration that we cannot read may have it.
    serde_json::from_str::<Value>(text)
        .map_or_else(|_| text.contains("portmap"), |config| has_plugin(&config, "portmap"))
}

fn has_plugin(config: &Value, kind: &str) -> bool {
    let is = |value: &Value| value.get("type").and_then(Value::as_str) == Some(kind);
    is(config) || config.get("plugins").and_then(Value::as_array).is_some_and(|plugins| plugins.iter().any(is))
}

/// Whether a file of the state folder is one that the agent made.
fn is_state(name: &str) -> bool {
    STATE.iter().any(|known| name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
}

#[cfg(test)]
mod tests;
