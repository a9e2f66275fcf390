use super::*;
use crate::cmd::clean::plan::{RemovalStep, plan};

/// A host's root folder with these files in it.
fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn found(host: &Path, etcd_data: bool) -> (Vec<String>, usize) {
    let config = config::assemble(&Value::Null, &std::collections::BTreeMap::new(), "node1").unwrap();
    let from = host.join("image");
    let args = NodeClean { host: host.to_owned(), from, etcd_data, keep_keys: true, stay: false };
    let (mut found, mut report) = (Found::default(), Report::default());
    HostFiles { root: host, config: &config }.look(&args, &mut found, &mut report);
    let steps = plan(found);
    let shown = |step: &RemovalStep| step.to_string().replace(&format!("{}/", host.display()), "");
    (steps.iter().map(shown).collect(), report.stays)
}

const CONFLIST: &str = r#"{"plugins": [{"type": "manx"}, {"type": "portmap"}]}"#;

#[test]
fn files_of_ours_are_found_below_the_hosts_root_and_others_are_not() {
    let host = host(&[
        ("etc/cni/net.d/10-manx.conflist", CONFLIST),
        ("etc/cni/net.d/20-other.conflist", r#"{"plugins": [{"type": "bridge"}]}"#),
        ("etc/systemd/networkd.conf.d/50-manx.conf", ""),
        ("etc/systemd/networkd.conf.d/60-other.conf", ""),
        ("opt/cni/bin/manx", "binary"),
        ("opt/cni/bin/.manx.new", "bin"),
        ("opt/cni/bin/portmap", "portmap"),
        ("opt/cni/bin/bridge", "bridge"),
        ("image/portmap", "portmap"),
        ("run/manx/bgp-passwords", "[]"),
        ("run/manx/cni.sock", ""),
        ("run/manx/parked-group", "77"),
        ("run/manx/released/mxaaaaaaaaaaaaa", ""),
        ("run/manx/mapped/mxaaaaaaaaaaaaa", ""),
        ("etc/cni/net.d/10-manx.conflist.damaged", ""),
        ("var/lib/manx/journal.db", ""),
        ("var/lib/manx/journal.db-wal", ""),
        ("var/lib/manx/lock", ""),
        ("var/lib/manx/notes", "the operator's"),
        ("var/lib/manx-etcd/data/member/snap/db", ""),
    ]);
    let ours = [
        "etc/cni/net.d/10-manx.conflist",
        "opt/cni/bin/portmap",
        "opt/cni/bin/manx",
        "etc/systemd/networkd.conf.d/50-manx.conf",
        "etc/cni/net.d/10-manx.conflist.damaged",
        "opt/cni/bin/.manx.new",
        "run/manx/released/mxaaaaaaaaaaaaa",
        "run/manx/mapped/mxaaaaaaaaaaaaa",
        "run/manx/bgp-passwords",
        "run/manx/cni.sock",
        "run/manx/parked-group",
        "var/lib/manx/journal.db",
        "var/lib/manx/journal.db-wal",
        "var/lib/manx/lock",
        "run/manx/released",
        "run/manx/mapped",
        "run/manx",
        "var/lib/manx",
    ];
    assert_eq!(found(host.path(), false), (ours.map(str::to_owned).to_vec(), 0));
    let (with_data, _) = found(host.path(), true);
    assert!(with_data.contains(&"var/lib/manx-etcd".to_owned()), "{with_data:?}");
    let running = fs::File::open(host.path().join("var/lib/manx-etcd/data/member/snap/db")).unwrap();
    running.lock().unwrap();
    let (with_data, stays) = found(host.path(), true);
    assert!(!with_data.contains(&"var/lib/manx-etcd".to_owned()) && stays == 1, "{with_data:?}");
}

#[test]
fn a_portmap_stays_that_is_another_or_that_another_network_needs() {
    let other = r#"{"plugins": [{"type": "bridge"}, {"type": "portmap"}]}"#;
    let (there, ours) = (("opt/cni/bin/portmap", "portmap"), ("image/portmap", "portmap"));
    for files in [
        &[there][..],
        &[there, ("image/portmap", "newer")],
        &[there, ours, ("etc/cni/net.d/20-other.conflist", other)],
        &[("etc/cni/net.d/10-manx.conflist", other)],
    ] {
        assert_eq!(found(host(files).path(), false), (Vec::new(), 0), "{files:?}");
    }
    assert_eq!(found(host(&[there, ours]).path(), false).0, ["opt/cni/bin/portmap"]);
    let host = host(&[there]);
    let path = host.path().join("opt/cni/bin/portmap");
    assert!(portmap_is_ours(&path, &path, host.path()).is_err(), "compared to itself");
}

#[test]
fn a_folder_with_something_else_in_it_stays_and_that_is_no_failure() {
    let host = host(&[("manx/notes", "")]);
    let mut report = Report::default();
    assert!(!remove_folder(&host.path().join("manx"), &mut report).unwrap());
    fs::remove_file(host.path().join("manx/notes")).unwrap();
    assert!(remove_folder(&host.path().join("manx"), &mut report).unwrap());
    assert!(!remove_folder(&host.path().join("manx"), &mut report).unwrap());
    assert_eq!(report.stays, 0);
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
