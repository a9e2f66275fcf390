//! What an earlier life of the agent left: tombstones of DELs that ran without an agent, links without an endpoint, and
//! the host's settings that only an installer may change.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use kernel::{Kernel, KernelError, LinkChange, SysctlKey, ours};
use tracing::warn;

use types::{EndpointId, InterfaceName};

/// The attachments that were detached without an agent, each with its tombstone's file, which goes once the release is
/// in the journal. A file that says nothing sensible is removed: the endpoint's missing interface tells the same.
pub(crate) fn tombstones(folder: &Path) -> io::Result<Vec<(EndpointId, std::path::PathBuf)>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        // Another name is a tombstone that is being written.
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<InterfaceName>().ok());
        if !name.is_some_and(|name| name.is_ours()) {
            continue;
        }
        match std::fs::read_to_string(&path).map(|text| text.trim().parse::<EndpointId>()) {
            Ok(Ok(id)) => found.push((id, path)),
            Ok(Err(error)) => {
                warn!(path = %path.display(), %error, "not a tombstone");
                std::fs::remove_file(&path)?;
            }
            Err(error) => warn!(path = %path.display(), %error, "unreadable tombstone"),
        }
    }
    Ok(found)
}

/// The host interfaces that serve a pod now: ours by name, up, and not parked.
pub(crate) fn serving(kernel: &mut dyn Kernel, parked_group: u32) -> Result<BTreeSet<InterfaceName>, KernelError> {
    let links = kernel.links()?;
    let serving = links.iter().filter(|link| ours::is_our_link(link) && link.up && link.group != parked_group);
    Ok(serving.filter_map(|link| link.name.parse().ok()).collect())
}

/// Parks links of ours that no endpoint has: an ADD was cut off, or its journal entry is from another boot. The reaper
/// deletes them.
pub(crate) fn park_orphans(
    kernel: &mut dyn Kernel,
    endpoints: &BTreeSet<InterfaceName>,
    parked_group: u32,
) -> Result<usize, KernelError> {
    let belongs = |name: &str| name.parse().is_ok_and(|name: InterfaceName| endpoints.contains(&name));
    let links = kernel.links()?;
    let orphans: Vec<_> = links.iter().filter(|link| ours::is_our_link(link) && !belongs(&link.name)).collect();
    orphans.iter().try_for_each(|link| change_if_there(kernel, link.index, &parked(parked_group)))?;
    Ok(orphans.len())
}

/// Parks the link of an attachment that is given up, if it was made: the binary that made it may be dead.
pub(crate) fn park(kernel: &mut dyn Kernel, interface: &InterfaceName, parked_group: u32) -> Result<(), KernelError> {
    let Some(link) = kernel.link(interface)? else { return Ok(()) };
    change_if_there(kernel, link.index, &parked(parked_group))
}

fn parked(group: u32) -> LinkChange {
    LinkChange { up: Some(false), group: Some(group), ..LinkChange::default() }
}

/// Changes a link; one that has gone meanwhile, with its namespace, needs no change.
pub(crate) fn change_if_there(kernel: &mut dyn Kernel, index: u32, change: &LinkChange) -> Result<(), KernelError> {
    match kernel.change_link(index, change) {
        Err(KernelError::Gone(_)) => Ok(()),
        result => result,
    }
}

/// What routing needs of the host and does not have, in words.
pub(crate) fn host_problems(kernel: &mut dyn Kernel) -> Vec<String> {
    let forwarding = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"].into_iter().filter_map(|key| {
        match kernel.read_sysctl(&SysctlKey::global(key)) {
            Ok(value) if value == "0" => Some(format!("sysctl net/{key} is 0: this node does not forward")),
            _ => None,
        }
    });
    forwarding.collect()
}
