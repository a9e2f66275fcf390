//! What a newer Manx has left is refused by its name, and where the agent can do without it, it does.

use std::fs;

use tests::pair::{ETCD, POOLS};
use tests::{CONVERGENCE, Lab, Node, Options, TestResult, can_run_labs, wait_for};

use crate::pair;

/// A value that only a newer build can read.
const NEWER: &str = r#"{"version":2,"specification":{}}"#;

/// A key of each kind that agents read, with a value that this build cannot.
const KEYS: [&str; 10] = [
    "resources/IPPool/newer",
    "resources/BGPConfiguration/newer",
    "resources/BGPPeer/newer",
    "resources/Node/newer",
    "resources/Namespace/newer",
    "resources/NetworkPolicy/default/newer",
    "blocks/10.42.255.0-26",
    "nodes/newer/registration",
    "nodes/newer/endpoints/manx/0123abc/eth0",
    "elected/gone/newer",
];

#[test]
fn what_a_newer_version_stored_is_refused_by_name_and_the_rest_is_used() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let settings = format!("{ETCD}{POOLS}");
    let lab = Lab::up(&pair("newer", &settings)?, &Options::unique("newer"))?;
    let (node, etcd) = (lab.node("node1"), lab.node("etcd").etcd());
    let put = |key: &str, value: &str| etcd.ctl(&["put", &format!("/manx/v1/{key}"), value]);
    let says = |what: &str| {
        wait_for(&format!("{what:?} in the log"), CONVERGENCE, || {
            let log = fs::read_to_string(node.agent().log()).map_err(|error| error.to_string())?;
            if log.contains(what) { Ok(()) } else { Err(log) }
        })
    };
    // The agent meets these values while it runs, and when it starts.
    for key in KEYS {
        put(key, NEWER)?;
        says(&format!("{key}: value version 2 is newer than 1"))?;
    }
    node.agent().terminate()?;
    fs::write(node.agent().log(), "")?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    for key in KEYS {
        says(&format!("{key}: value version 2 is newer than 1"))?;
    }
    node.plug("a")?;

    // The agent cannot do without these files, so it ends and names the file and the version.
    node.agent().terminate()?;
    ends_with(node, "nodes/node1/alive: value version 2 is newer than 1", || put("nodes/node1/alive", NEWER))?;
    etcd.ctl(&["del", "/manx/v1/nodes/node1/alive"])?;
    ends_with(node, "key `version` says 2; this build knows 1 and older", || put("version", r#"{"version":2}"#))?;
    let delete = ["delete", "ippool", "newer"];
    let refused = node.agent().ctl(&delete).expect_err("a write into a newer layout").to_string();
    assert!(refused.contains("key `version` says 2"), "{refused}");
    put("version", r#"{"version":1}"#)?;
    node.agent().ctl(&delete)?;
    // The cache can be filled again, so the agent starts without it.
    let folder = node.path("/var/lib/manx");
    // A log beside the file would take precedence over what the file itself holds.
    let _ = fs::remove_file(folder.join("cache.db-wal"));
    fs::write(folder.join("cache.db"), database_of_layout(7))?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    says("cache.db: layout 7 is newer than 1")?;
    node.agent().terminate()?;
    ends_with(node, "journal.db: layout 7 is newer than 1", || {
        let _ = fs::remove_file(folder.join("journal.db-wal"));
        fs::write(folder.join("journal.db"), database_of_layout(7))
    })?;
    lab.down()?;
    Ok(())
}

/// Starts the agent after this was done; it must end, and say that.
fn ends_with<T, E>(node: &Node, last_words: &str, done: impl FnOnce() -> Result<T, E>) -> TestResult
where
    E: std::error::Error + 'static,
{
    done()?;
    // The agent may have ended before the test looks.
    let said = match node.agent().start() {
        Err(ended) => ended.to_string(),
        Ok(()) => {
            let end = || node.agent().check().err().ok_or("it runs");
            wait_for("the agent's end", CONVERGENCE, end)?.to_string()
        }
    };
    assert!(said.contains(last_words), "{said}");
    Ok(())
}

/// An empty SQLite database whose `user_version` is this (the database file format, section 1.3: the header; then a
/// b-tree page without cells).
fn database_of_layout(layout: u32) -> Vec<u8> {
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<u8>>();
    let mut page = b"SQLite format 3\0".to_vec();
    // Pages have 4,096 bytes; there is a write-ahead log; the fractions are fixed.
    page.extend([0x10, 0, 2, 2, 0, 64, 32, 32]);
    // These are the change counter, pages, free pages (two), the schema's cookie and format, the cache, the root, and
    // UTF-8.
    page.extend(numbers(&[1, 1, 0, 0, 1, 4, 0, 0, 1, layout]));
    page.resize(92, 0);
    page.extend(numbers(&[1, 3_040_000]));
    // The page is a leaf of a table: no free block, no cells, content from the end on.
    page.extend([0x0d, 0, 0, 0, 0, 0x10, 0, 0]);
    page.resize(4_096, 0);
    page
}
