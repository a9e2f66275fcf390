//! The workspace's architecture: who may depend on whom.
//!
//! The folders are the architecture only as long as their manifests agree. This reads what cargo itself says of them.

mod rooms;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::process::Command;

use serde::Deserialize;

/// The workspace's crates and what each may use of the others, in normal dependencies. A crate that is not listed must
/// be added here, on purpose.
const ALLOWED: [(&str, &[&str]); 17] = [
    ("types", &[]),
    ("mailbox", &[]),
    ("config", &["types"]),
    ("store", &["types", "mailbox"]),
    ("kernel", &["types"]),
    ("kube-watch", &["types"]),
    ("bgp-proto", &["types"]),
    ("bgp", &["bgp-proto", "types", "kernel", "mailbox"]),
    ("ipam", &["store", "types", "mailbox"]),
    ("felix", &["kernel", "types", "mailbox"]),
    ("cni", &["kernel", "types"]),
    ("ctl", &["config", "store", "kernel", "kube-watch", "types"]),
    (
        "agent",
        &["types", "config", "store", "kernel", "kube-watch", "bgp-proto", "bgp", "ipam", "felix", "cni", "mailbox"],
    ),
    ("tests", &["kernel", "types"]),
    ("fuzz-targets", &["bgp-proto", "types"]),
    ("oracle", &["types"]),
    ("bench", &["bgp", "bgp-proto", "tests", "types"]),
];

/// Foreign crates that only some of ours may name in normal dependencies.
const CONFINED: [(&str, &[&str]); 12] = [
    ("etcd-client", &["store"]),
    ("figment", &["config"]),
    ("rusqlite", &["store"]),
    ("rtnetlink", &["kernel"]),
    ("netlink-packet-route", &["kernel"]),
    ("netlink-sys", &["kernel"]),
    ("kube", &["kube-watch"]),
    ("k8s-openapi", &["kube-watch"]),
    ("axum", &["agent", "ctl"]),
    ("hyper", &["agent", "ctl"]),
    ("hyper-util", &["agent", "ctl"]),
    ("http-body-util", &["agent", "ctl"]),
];

/// Crates that must not reach these, however indirectly.
const PURE: [(&str, &[&str]); 5] = [
    ("types", &["tokio", "kube", "etcd-client", "rustls", "hyper", "figment"]),
    ("config", &["tokio", "kube", "etcd-client", "rustls", "hyper"]),
    ("bgp-proto", &["tokio", "kube", "etcd-client", "rustls", "hyper", "socket2"]),
    ("kernel", &["tokio", "kube", "etcd-client", "rustls", "hyper"]),
    ("cni", &["tokio", "kube", "etcd-client", "rustls", "hyper", "clap", "regex", "tracing"]),
];

/// The packages by id, and the packages that each uses.
#[derive(Debug, Default, Clone)]
struct Graph {
    /// The names of the workspace's own packages, with their ids.
    members: BTreeMap<String, String>,
    /// Every package's name, by id.
    names: BTreeMap<String, String>,
    /// Normal dependencies, by id.
    uses: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Reads what cargo says of this workspace.
    fn of_workspace() -> Result<Self, Box<dyn std::error::Error>> {
        #[derive(Deserialize)]
        struct Metadata {
            packages: Vec<Package>,
            workspace_members: Vec<String>,
            resolve: Resolve,
        }
        #[derive(Deserialize)]
        struct Package {
            id: String,
            name: String,
        }
        #[derive(Deserialize)]
        struct Resolve {
            nodes: Vec<Node>,
        }
        #[derive(Deserialize)]
        struct Node {
            id: String,
            deps: Vec<Dependency>,
        }
        #[derive(Deserialize)]
        struct Dependency {
            pkg: String,
            dep_kinds: Vec<Kind>,
        }
        #[derive(Deserialize)]
        struct Kind {
            kind: Option<String>,
        }
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        // Without a platform, cargo asks for the sources for every platform, which a build has not fetched.
        let compiler = Command::new("rustc").arg("-vV").output()?.stdout;
        let compiler = String::from_utf8(compiler)?;
        let platform = compiler.lines().find_map(|line| line.strip_prefix("host: ")).ok_or("rustc names no host")?;
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", platform])
            .args(["--manifest-path", manifest])
            .output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
        let names: BTreeMap<String, String> =
            metadata.packages.into_iter().map(|package| (package.id, package.name)).collect();
        let members = metadata.workspace_members.into_iter().map(|id| (names[&id].clone(), id)).collect();
        let uses = metadata.resolve.nodes.into_iter().map(|node| {
            let normal = node.deps.into_iter().filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind.is_none()));
            (node.id, normal.map(|dep| dep.pkg).collect())
        });
        Ok(Self { members, uses: uses.collect(), names })
    }

    /// The names of the packages that a package uses directly.
    fn uses(&self, id: &str) -> impl Iterator<Item = &str> {
        self.uses.get(id).into_iter().flatten().filter_map(|id| self.names.get(id)).map(String::as_str)
    }

    /// A shortest way from a package to one of this name.
    fn way<'a>(&'a self, from: &'a str, to: &'a str) -> Option<Vec<&'a str>> {
        let mut before: BTreeMap<&str, &str> = BTreeMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(id) = queue.pop_front() {
            if id != from && self.names.get(id).is_some_and(|name| name == to) {
                let mut way = vec![to];
                let mut at = id;
                while let Some(previous) = before.get(at) {
                    at = previous;
                    way.push(self.names.get(at).map_or("?", String::as_str));
                }
                way.reverse();
                return Some(way);
            }
            for next in self.uses.get(id).into_iter().flatten() {
                if next != from && !before.contains_key(next.as_str()) {
                    before.insert(next, id);
                    queue.push_back(next);
                }
            }
        }
        None
    }

    /// Every breach of the rules above, in words.
    fn offences(&self) -> Vec<String> {
        let mut offences = Vec::new();
        let allowed: BTreeMap<_, _> = ALLOWED.into_iter().collect();
        for (member, id) in &self.members {
            let Some(allowed) = allowed.get(member.as_str()) else {
                offences.push(format!("{member} is in the workspace but not in the table of allowed dependencies"));
                continue;
            };
            for used in self.uses(id) {
                if self.members.contains_key(used) && !allowed.contains(&used) {
                    offences.push(format!("{member} may not depend on {used}"));
                }
                let users = CONFINED.iter().find(|(confined, _)| *confined == used).map(|(_, users)| users);
                if users.is_some_and(|users| !users.contains(&member.as_str())) {
                    offences.push(format!("{member} may not use {used}"));
                }
            }
        }
        for (member, forbidden) in PURE {
            let Some(id) = self.members.get(member) else { continue };
            for name in forbidden {
                if let Some(way) = self.way(id, name) {
                    offences.push(format!("{member} may not reach {name}: {}", way.join(" -> ")));
                }
            }
        }
        offences
    }

    #[cfg(test)]
    fn with(mut self, from: &str, to: &str) -> Self {
        for name in [from, to] {
            self.names.entry(name.to_owned()).or_insert_with(|| name.to_owned());
        }
        let from = self.members.get(from).cloned().unwrap_or_else(|| from.to_owned());
        let to = self.members.get(to).cloned().unwrap_or_else(|| to.to_owned());
        self.uses.entry(from).or_default().insert(to);
        self
    }
}

#[test]
fn every_dependency_is_one_that_the_architecture_allows() -> Result<(), Box<dyn std::error::Error>> {
    let offences = Graph::of_workspace()?.offences();
    assert!(offences.is_empty(), "{}", offences.join("\n"));
    Ok(())
}

#[test]
fn a_forbidden_dependency_is_found_and_named() -> Result<(), Box<dyn std::error::Error>> {
    let workspace = Graph::of_workspace()?;
    for (from, to, offence) in [
        ("bgp", "felix", "bgp may not depend on felix"),
        ("felix", "ipam", "felix may not depend on ipam"),
        ("types", "kernel", "types may not depend on kernel"),
        ("ctl", "agent", "ctl may not depend on agent"),
        ("ipam", "etcd-client", "ipam may not use etcd-client"),
        ("felix", "rtnetlink", "felix may not use rtnetlink"),
        ("store", "axum", "store may not use axum"),
        ("bgp-proto", "tokio", "bgp-proto may not reach tokio: bgp-proto -> tokio"),
    ] {
        let offences = workspace.clone().with(from, to).offences();
        assert!(offences.iter().any(|found| found == offence), "{offence} is not among {offences:?}");
    }
    let hidden = workspace.clone().with("cni", "some-crate").with("some-crate", "tokio").offences();
    assert!(hidden.contains(&"cni may not reach tokio: cni -> some-crate -> tokio".to_owned()), "{hidden:?}");

    let mut stranger = workspace;
    stranger.members.insert("stranger".to_owned(), "stranger".to_owned());
    assert!(stranger.offences().iter().any(|found| found.starts_with("stranger is in the workspace")));
    Ok(())
}
