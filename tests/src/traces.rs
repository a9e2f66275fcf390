//! What pods that have gone may have left behind on their node.

use std::fs;
use std::path::{Path, PathBuf};

use crate::pair::links;
use crate::place::Place;
use crate::wait::wait_for;
use crate::{CONVERGENCE, Lab, LabError, Node};

/// The run folder of the agent and the CNI plugin.
const RUN: &str = "/run/manx";

/// What is in that folder without any pod.
const ALWAYS_THERE: [&str; 3] = ["agent.sock", "cni.sock", "parked-group"];

/// Where runtimes keep the results of ADDs.
const RESULTS: &str = "/var/lib/cni/results";

/// The rules that every network namespace begins with (ip-rule(8)).
const FIRST_RULES: [&str; 3] = ["local", "main", "default"];

/// What there is of pods on the node, one in a line: links, routes, rules and proxied neighbours in the kernel, members of IP
/// sets, records in the run folder and results that a runtime keeps, addresses in use in the node's blocks, and keys in etcd.
/// Empty when all pods are gone.
pub fn traces(lab: &Lab, node: &Node) -> Result<String, LabError> {
    let mut found = Vec::new();
    found.extend(links(node).into_iter().map(|link| format!("link {link}")));
    for family in ["-4", "-6"] {
        let routes = node.exec(&["ip", family, "route", "show", "table", "all", "proto", "77"])?;
        // What is not given out of the node's blocks is unreachable: that is of the blocks, not of pods.
        found.extend(lines("route", routes.lines().filter(|line| !line.contains("unreachable"))));
        let rules = node.exec(&["ip", family, "rule", "show"])?;
        let first = |line: &&str| line.split_whitespace().last().is_some_and(|table| FIRST_RULES.contains(&table));
        found.extend(lines("rule", rules.lines().filter(|line| !first(line))));
        found.extend(lines("proxied neighbour", node.exec(&["ip", family, "neigh", "show", "proxy"])?.lines()));
    }
    // Pools have lengths; what has none is a pod's.
    let of_pod = |line: &&str| {
        line.starts_with("add manx-") && (line.contains(" 10.42.") || line.contains(" fd00:42:")) && !line.contains('/')
    };
    found.extend(lines("member", node.exec(&["ipset", "save"])?.lines().filter(of_pod)));
    let records = files(&node.path(RUN)).into_iter();
    let is_record = |path: &PathBuf| !ALWAYS_THERE.iter().any(|name| path.ends_with(name));
    found.extend(records.filter(is_record).map(|path| format!("record {}", path.display())));
    found.extend(files(&node.path(RESULTS)).into_iter().map(|path| format!("result {}", path.display())));
    let blocks = node.agent().ctl(&["ipam", "show", "--show-blocks"])?;
    let used = |line: &&str| {
        let mut words = line.split_whitespace();
        words.next() == Some("Block") && line.trim_end().ends_with(&node.name()) && words.nth(2) != Some("0")
    };
    found.extend(lines("block", blocks.lines().filter(used)));
    let keys = lab.etcd().ctl(&["get", "--prefix", "", "--keys-only"])?;
    let published = format!("/nodes/{}/endpoints/", node.name());
    found.extend(lines("key", keys.lines().filter(|key| key.contains(&published))));
    Ok(found.join("\n"))
}

/// Waits until no trace of any pod is on the node; the error says what is left.
pub fn nothing_is_left(lab: &Lab, node: &Node) -> Result<(), LabError> {
    wait_for(&format!("nothing being left of any pod on {}", node.name()), CONVERGENCE, || match traces(lab, node) {
        Ok(traces) if traces.is_empty() => Ok(()),
        Ok(traces) => Err(traces),
        Err(error) => Err(error.to_string()),
    })
}

fn lines<'a>(what: &str, lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    lines.map(|line| format!("{what} {}", line.trim())).collect()
}

/// The files below a folder, in any depth; none where it is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}
