//! What Manx has left on a node: whose it is, and in which order it goes.

pub(crate) mod kernel_state;
pub(crate) mod keys;

use std::fmt;
use std::path::PathBuf;

use kernel::acl::{Remains, SetName};
use kernel::{Link, Route};
use serde_json::Value;

/// Where runtimes look for their configuration, unless the agent's configuration says otherwise.
pub(crate) const CNI_CONF: &str = "/etc/cni/net.d";

/// The data of the etcd for trying out, on the node that it runs on.
pub(crate) const ETCD_DATA: &str = "/var/lib/manx-etcd";

/// How the names of files in the state folder begin: databases with their logs, and the lock.
const STATE: [&str; 4] = ["journal.db", "cache.db", "local.db", "lock"];

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// By what a runtime starts pods on our network.
    pub(crate) runtime: Vec<PathBuf>,
    pub(crate) links: Vec<Link>,
    pub(crate) routes: Vec<Route>,
    pub(crate) rules: Vec<Remains>,
    pub(crate) sets: Vec<SetName>,
    pub(crate) files: Vec<PathBuf>,
    /// Folders that are ours if nothing else is in them, inner ones first.
    pub(crate) folders: Vec<PathBuf>,
    /// Folders that are ours with all that is in them.
    pub(crate) trees: Vec<PathBuf>,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    File(PathBuf),
    Link { index: u32, name: String },
    Route(Route),
    Rules(Remains),
    Set(SetName),
    Folder(PathBuf),
    Tree(PathBuf),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) | Self::Folder(path) | Self::Tree(path) => write!(f, "{}", path.display()),
            Self::Link { name, .. } => write!(f, "interface {name}"),
            Self::Route(route) => write!(f, "route {route} (protocol {})", route.protocol),
            Self::Rules(remains) => write!(f, "{remains}"),
            Self::Set(name) => write!(f, "set {name}"),
        }
    }
}

/// In which order it goes: no pod more; then the pods' network, and only then the rules that hold it in check; sets after
/// the rules that name them; what an agent would be kept out by last.
pub(crate) fn plan(found: Found) -> Vec<Step> {
    let links = found.links.into_iter().map(|link| Step::Link { index: link.index, name: link.name });
    let before = found.runtime.into_iter().map(Step::File).chain(links);
    let kernel = found.routes.into_iter().map(Step::Route).chain(found.rules.into_iter().map(Step::Rules));
    let sets = found.sets.into_iter().map(Step::Set);
    let trees = found.trees.into_iter().map(Step::Tree);
    let files = found.files.into_iter().map(Step::File).chain(found.folders.into_iter().map(Step::Folder));
    before.chain(kernel).chain(sets).chain(trees).chain(files).collect()
}

/// Whether a configuration of the runtime has our plugin in it; one that cannot be read is somebody else's.
pub(crate) fn names_us(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|config| has_plugin(&config, "manx"))
}

/// Whether another network's configuration has the plugin that we bring along, too.
pub(crate) fn names_portmap(text: &str) -> bool {
    // One that we cannot read may have it.
    serde_json::from_str::<Value>(text)
        .map_or_else(|_| text.contains("portmap"), |config| has_plugin(&config, "portmap"))
}

fn has_plugin(config: &Value, kind: &str) -> bool {
    let is = |value: &Value| value.get("type").and_then(Value::as_str) == Some(kind);
    is(config) || config.get("plugins").and_then(Value::as_array).is_some_and(|plugins| plugins.iter().any(is))
}

/// Whether a file of the state folder is one that the agent made.
pub(crate) fn is_state(name: &str) -> bool {
    STATE.iter().any(|known| name.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
}

/// The name that a file of ours has while it is being written.
pub(crate) fn aside(name: &str) -> String {
    format!(".{name}.new")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_hold_until_no_pod_is_left_and_the_lock_goes_last() {
        let route = Route::unreachable("10.42.0.0/26".parse().unwrap(), 77);
        let link = Link {
            index: 7,
            name: "mxaaaaaaaaaaaaa".to_owned(),
            mac: None,
            mtu: 1_500,
            up: true,
            running: true,
            group: 0,
            kind: Some("veth".to_owned()),
            peer_index: None,
            peer_netns: None,
        };
        let remains = Remains {
            variant: kernel::acl::IptablesVariant::Nft,
            family: types::Family::Ipv6,
            table: "raw".to_owned(),
            chains: vec!["manx-raw".to_owned()],
            rules: Vec::new(),
        };
        let found = Found {
            runtime: vec!["/etc/cni/net.d/10-manx.conflist".into()],
            links: vec![link],
            routes: vec![route],
            rules: vec![remains],
            sets: vec![SetName::new("manx-c4").unwrap()],
            files: vec!["/var/lib/manx/lock".into()],
            folders: vec!["/var/lib/manx".into()],
            trees: vec![ETCD_DATA.into()],
        };
        let steps: Vec<_> = plan(found).iter().map(Step::to_string).collect();
        assert_eq!(
            steps,
            [
                "/etc/cni/net.d/10-manx.conflist",
                "interface mxaaaaaaaaaaaaa",
                "route unreachable 10.42.0.0/26 (protocol 77)",
                "ipv6 table raw (nft): 1 chain, 0 rules",
                "set manx-c4",
                "/var/lib/manx-etcd",
                "/var/lib/manx/lock",
                "/var/lib/manx",
            ]
        );
    }

    #[test]
    fn a_file_is_ours_by_what_is_in_it() {
        assert!(names_us(r#"{"plugins": [{"type": "manx"}, {"type": "portmap"}]}"#));
        assert!(names_us(r#"{"type": "manx"}"#));
        for others in [r#"{"plugins": [{"type": "bridge"}], "name": "manx"}"#, "manx", "", "[]"] {
            assert!(!names_us(others), "{others}");
        }
        assert!(names_portmap(r#"{"plugins": [{"type": "bridge"}, {"type": "portmap"}]}"#));
        assert!(names_portmap("{ portmap"));
        assert!(!names_portmap(r#"{"plugins": [{"type": "bridge"}]}"#));
    }

    #[test]
    fn what_somebody_put_into_the_state_folder_is_not_the_agents() {
        for ours in ["journal.db", "journal.db-wal", "cache.db-shm", "local.db", "lock"] {
            assert!(is_state(ours), "{ours}");
        }
        for others in ["journal.db.bak", "locked", "notes", "old-journal.db"] {
            assert!(!is_state(others), "{others}");
        }
    }
}
