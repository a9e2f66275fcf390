//! Control groups of machines: a tree of its own for each, in every hierarchy that the host has, of which the machine
//! sees nothing but its own part.
//!
//! ```text
//! /sys/fs/cgroup[/HIERARCHY]/manx-lab-LAB/NODE            what the machine sees as the root; the kubelet's are below it
//! /sys/fs/cgroup[/HIERARCHY]/manx-lab-LAB/NODE/system     the machine's own processes
//! /sys/fs/cgroup[/HIERARCHY]/manx-lab-LAB/outside         `unshare`, which waits for the machine's end
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::LabError;
use crate::wait::wait_for;

/// The group of a machine's own processes, below the machine's root.
pub(crate) const SYSTEM: &str = "system";

/// A hierarchy of control groups, as it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// The folder where the hierarchy is mounted.
    pub(crate) at: PathBuf,
    /// Version 2, or version 1 and the options that name it (`memory`, `none,name=systemd`).
    pub(crate) kind: Kind,
}

/// Which interface a hierarchy has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// cgroup v1, and the mount options that name it.
    One(String),
    /// cgroup v2.
    Two,
}

impl Hierarchy {
    /// The hierarchies that this process sees below `/sys/fs/cgroup`.
    pub(crate) fn all() -> io::Result<Vec<Self>> {
        Ok(hierarchies(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    /// Makes a group and its parents.
    fn make(&self, group: &Path) -> io::Result<()> {
        let mut folder = self.at.clone();
        for part in group {
            self.delegate(&folder)?;
            folder.push(part);
            self.add(&folder)?;
        }
        Ok(())
    }

    /// Makes a group whose parent exists.
    fn add(&self, folder: &Path) -> io::Result<()> {
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.inherit(folder),
        }
    }

    /// On version 2, gives the groups below this one every controller that this one has.
    fn delegate(&self, folder: &Path) -> io::Result<()> {
        if self.kind != Kind::Two {
            return Ok(());
        }
        let controllers = fs::read_to_string(folder.join("cgroup.controllers"))?;
        let wanted: Vec<String> = controllers.split_whitespace().map(|name| format!("+{name}")).collect();
        fs::write(folder.join("cgroup.subtree_control"), wanted.join(" "))
    }

    /// On version 1, gives a group processors and memory nodes, as it takes no process without them.
    fn inherit(&self, folder: &Path) -> io::Result<()> {
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let own = folder.join(file);
            if self.kind == Kind::Two || !own.exists() {
                continue;
            }
            let parent = folder.parent().unwrap_or(folder).join(file);
            if fs::read_to_string(&own)?.trim().is_empty() {
                fs::write(&own, fs::read_to_string(parent)?)?;
            }
        }
        Ok(())
    }

    fn enter(&self, group: &Path, pid: i32) -> io::Result<()> {
        fs::write(self.at.join(group).join("cgroup.procs"), pid.to_string())
    }
}

/// Reads the hierarchies out of `/proc/PID/mountinfo` (proc(5)): the fifth field is the mount point; behind ` - ` are
/// the kind, the source and the options.
fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let lines = mountinfo.lines().filter_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let at = PathBuf::from(mount.split_whitespace().nth(4)?);
        let mut fields = file_system.split_whitespace();
        let (kind, options) = (fields.next()?, fields.nth(1)?);
        if !at.starts_with("/sys/fs/cgroup") {
            return None;
        }
        match kind {
            "cgroup2" => Some(Hierarchy { at, kind: Kind::Two }),
            "cgroup" => {
                let about_mounts = |option: &&str| {
                    !matches!(*option, "rw" | "ro" | "xattr" | "clone_children" | "noprefix")
                        && !option.starts_with("release_agent=")
                };
                let mut names: Vec<&str> = options.split(',').filter(about_mounts).collect();
                if names.iter().all(|name| name.starts_with("name=")) {
                    names.insert(0, "none");
                }
                Some(Hierarchy { at, kind: Kind::One(names.join(",")) })
            }
            _ => None,
        }
    });
    lines.collect()
}

/// A machine's groups, in all hierarchies.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    hierarchies: Vec<Hierarchy>,
    lab: PathBuf,
    node: PathBuf,
}

impl Groups {
    /// Makes the groups of a node.
    pub(crate) fn make(lab: &str, node: &str) -> Result<Self, LabError> {
        let failed = || LabError::io(format!("control groups of {node}"));
        let hierarchies = Hierarchy::all().map_err(failed())?;
        let lab = PathBuf::from(folder_of(lab));
        let groups = Self { hierarchies, node: lab.join(node), lab };
        for hierarchy in &groups.hierarchies {
            hierarchy.make(&groups.node).map_err(failed())?;
            hierarchy.make(&groups.lab.join("outside")).map_err(failed())?;
            // The group has no controllers yet: version 2 lets no process into a group that gives any away.
            hierarchy.add(&hierarchy.at.join(&groups.node).join(SYSTEM)).map_err(failed())?;
        }
        Ok(groups)
    }

    /// The files to which a process writes its pid in order to be in the machine's root when it makes its namespace.
    pub(crate) fn doors(&self) -> impl Iterator<Item = PathBuf> {
        self.hierarchies.iter().map(|hierarchy| hierarchy.at.join(&self.node).join("cgroup.procs"))
    }

    /// Moves the two processes out of the machine's root, where version 2 wants none: process 1 below it, `unshare`
    /// beside it.
    pub(crate) fn settle(&self, unshare: i32, init: i32) -> io::Result<()> {
        for hierarchy in &self.hierarchies {
            hierarchy.enter(&self.node.join(SYSTEM), init)?;
            hierarchy.enter(&self.lab.join("outside"), unshare)?;
            hierarchy.delegate(&hierarchy.at.join(&self.node))?;
        }
        Ok(())
    }

    /// Removes the groups of a lab whose processes are gone. It is no error if there are none.
    pub(crate) fn remove(lab: &str) -> Result<(), LabError> {
        remove_all(Path::new(&folder_of(lab)))
    }

    /// Removes the groups of a node whose processes are gone.
    pub(crate) fn remove_node(lab: &str, node: &str) -> Result<(), LabError> {
        remove_all(&Path::new(&folder_of(lab)).join(node))
    }
}

/// Removes a group in every hierarchy.
fn remove_all(group: &Path) -> Result<(), LabError> {
    let hierarchies = Hierarchy::all().map_err(LabError::io("reading the mounts"))?;
    hierarchies.iter().try_for_each(|hierarchy| {
        let folder = hierarchy.at.join(group);
        // The kernel lets go of a group a moment after the group's last process has ended.
        wait_for(&format!("the end of {}", folder.display()), Duration::from_secs(10), || remove(&folder))
    })
}

fn folder_of(lab: &str) -> String {
    format!("manx-lab-{lab}")
}

/// Removes a group and those below it.
fn remove(folder: &Path) -> io::Result<()> {
    let gone = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return gone(error),
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(folder).or_else(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_as_the_kernel_lists_them() {
        let text = "24 1 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                    25 24 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                    26 24 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
                    27 24 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    28 1 0:26 / /elsewhere rw - cgroup2 cgroup2 rw\n";
        let one = |at: &str, options: &str| Hierarchy { at: at.into(), kind: Kind::One(options.to_owned()) };
        let two = Hierarchy { at: "/sys/fs/cgroup/unified".into(), kind: Kind::Two };
        let expected =
            [one("/sys/fs/cgroup/cpu,cpuacct", "cpu,cpuacct"), one("/sys/fs/cgroup/systemd", "none,name=systemd"), two];
        assert_eq!(hierarchies(text), expected);
    }
}
