use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::*;

fn put(folder: &Path, text: &str, mode: u32) {
    let (path, aside) = (folder.join(PLUGIN), folder.join("aside"));
    std::fs::write(&aside, text).unwrap();
    std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(mode)).unwrap();
    std::fs::rename(aside, path).unwrap();
}

/// A program that says so of itself, and leaves a line in a file `runs` beside itself.
fn saying(report: &Value) -> String {
    format!("#!/bin/sh\necho run >>\"$(/usr/bin/dirname \"$0\")/runs\"\necho '{report}'\n")
}

fn report(version: &str, protocol: u32) -> Value {
    json!({ "cniVersion": "1.1.0", VERSION_KEY: version, PROTOCOL_KEY: protocol })
}

const OWN: &str = env!("CARGO_PKG_VERSION");

#[tokio::test]
async fn what_is_wrong_with_the_binary_is_seen_while_it_is_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut watch = BinaryWatch::new(folder.path());
    let gone = watch.look().await.unwrap();
    assert!(gone.hurts_pods && gone.text.contains("is gone") && gone.text.contains("node install"), "{gone:?}");
    put(folder.path(), &saying(&report(OWN, PROTOCOL)), 0o755);
    assert_eq!(watch.look().await, None);
    put(folder.path(), &saying(&report(OWN, PROTOCOL)), 0o644);
    let mode = watch.look().await.unwrap();
    assert!(mode.hurts_pods && mode.text.contains("its mode is 644"), "{mode:?}");
    put(folder.path(), "#!/nowhere/sh\n", 0o755);
    let loader = watch.look().await.unwrap();
    assert!(loader.hurts_pods && loader.text.contains("cannot be run"), "{loader:?}");
    put(folder.path(), "#!/bin/sh\necho hello\n", 0o755);
    let other = watch.look().await.unwrap();
    assert!(other.hurts_pods && other.text.contains("does not say its version"), "{other:?}");
    put(folder.path(), &saying(&report(OWN, PROTOCOL)), 0o755);
    assert_eq!(watch.look().await, None);
}

#[tokio::test]
async fn a_binary_that_has_not_changed_is_not_run_at_every_look() {
    let folder = tempfile::tempdir().unwrap();
    let mut watch = BinaryWatch::new(folder.path());
    put(folder.path(), &saying(&report(OWN, PROTOCOL)), 0o755);
    for _ in 0..3 {
        assert_eq!(watch.look().await, None);
    }
    let runs = || std::fs::read_to_string(folder.path().join("runs")).unwrap().lines().count();
    assert_eq!(runs(), 1);
    put(folder.path(), &saying(&report(OWN, PROTOCOL)), 0o755);
    assert_eq!(watch.look().await, None);
    assert_eq!(runs(), 2);
}

#[test]
fn another_version_is_for_operators_and_another_protocol_for_pods() {
    let judged = |report: Value| judge(Path::new("/opt/cni/bin/manx"), report.to_string().as_bytes(), "0.2.0");
    assert_eq!(judged(report("0.2.0", PROTOCOL)), None);
    let older = judged(report("0.1.9", PROTOCOL)).unwrap();
    assert!(!older.hurts_pods && older.text.contains("is of version 0.1.9, and this agent of 0.2.0"), "{older:?}");
    // One from before binaries told.
    let silent = judged(json!({ "cniVersion": "1.1.0", "supportedVersions": ["1.0.0"] })).unwrap();
    assert!(!silent.hurts_pods && silent.text.contains("older than this agent"), "{silent:?}");
    let stranger = judged(report("0.2.0", PROTOCOL + 1)).unwrap();
    assert!(stranger.hurts_pods && stranger.text.contains("every pod is refused"), "{stranger:?}");
}
