use std::path::PathBuf;

use super::*;

struct Bed(tempfile::TempDir);

impl Bed {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn folder(&self) -> PathBuf {
        self.0.path().join("net.d")
    }

    fn look(&self, may_write: bool) -> Looked {
        look(&self.folder(), Path::new("/run/manx"), may_write)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder().join(name), text).unwrap();
    }

    fn ours(&self) -> String {
        std::fs::read_to_string(self.folder().join(CONFLIST)).unwrap()
    }
}

const FLANNEL: &str = r#"{"name": "cbr0", "plugins": [{"type": "flannel"}]}"#;

#[test]
fn our_file_is_put_once_the_agent_serves_and_again_whenever_it_has_gone() {
    let bed = Bed::new();
    assert_eq!(bed.look(false), Looked::default());
    assert!(!bed.folder().exists());
    for _ in 0..2 {
        assert_eq!(bed.look(true), Looked { changes: vec![Change::Put], faults: vec![] });
        let written = std::fs::metadata(bed.folder().join(CONFLIST)).unwrap().modified().unwrap();
        assert_eq!(bed.look(true), Looked::default());
        assert_eq!(std::fs::metadata(bed.folder().join(CONFLIST)).unwrap().modified().unwrap(), written);
        std::fs::remove_file(bed.folder().join(CONFLIST)).unwrap();
    }
}

#[test]
fn what_others_chain_into_it_stays_and_what_breaks_pods_is_put_right() {
    let bed = Bed::new();
    bed.look(true);
    let chained = r#"{"cniVersion":"1.0.0","name":"manx","plugins":[{"type":"manx"},{"type":"linkerd-cni"}]}"#;
    bed.write(CONFLIST, chained);
    assert_eq!(bed.look(true), Looked::default());
    assert_eq!(bed.ours(), chained);
    bed.write(CONFLIST, &chained.replace(r#"{"type":"manx"},"#, ""));
    let looked = bed.look(true);
    assert!(matches!(looked.changes.as_slice(), [Change::Corrected(_)]), "{looked:?}");
    assert_eq!(serde_json::from_str::<serde_json::Value>(&bed.ours()).unwrap()["plugins"][1]["type"], "linkerd-cni");
}

#[test]
fn a_damaged_file_is_replaced_kept_aside_and_told_of_until_it_is_deleted() {
    let bed = Bed::new();
    bed.look(true);
    bed.write(CONFLIST, "{\"plugins\": [{\"type\": \"istio-cni\"");
    let looked = bed.look(true);
    assert!(matches!(looked.changes.as_slice(), [Change::Replaced(_)]), "{looked:?}");
    let aside = bed.folder().join(DAMAGED_CONFLIST);
    assert!(std::fs::read_to_string(&aside).unwrap().contains("istio-cni"));
    assert!(bed.ours().contains("portmap"));
    for looked in [looked, bed.look(true)] {
        let [fault] = looked.faults.as_slice() else { panic!("{:?}", looked.faults) };
        assert!(!fault.hurts_pods && fault.text.contains("10-manx.conflist.damaged"), "{fault:?}");
    }
    std::fs::remove_file(aside).unwrap();
    assert_eq!(bed.look(true), Looked::default());
}

#[test]
fn another_networks_file_that_comes_first_is_a_fault_while_it_is_there() {
    let bed = Bed::new();
    bed.look(true);
    for (name, text, said) in [
        ("10-flannel.conflist", FLANNEL, Some("10-flannel.conflist (network cbr0) before 10-manx.conflist")),
        (".05-hidden.conf", FLANNEL, Some(".05-hidden.conf")),
        ("05-broken.json", "{", Some("is no CNI configuration")),
        ("05-own.conflist", r#"{"plugins": [{"type": "manx"}]}"#, None),
        ("00-readme.txt", "x", None),
        ("20-flannel.conflist", FLANNEL, None),
        ("10-flannel.conflist.bak", FLANNEL, None),
    ] {
        bed.write(name, text);
        let found = bed.look(true).faults;
        match said {
            None => assert_eq!(found, [], "{name}"),
            Some(said) => assert!(
                matches!(found.as_slice(), [fault] if fault.hurts_pods && fault.text.contains(said)),
                "{found:?}"
            ),
        }
        // It is told before ours is put, too.
        assert_eq!(bed.look(false).faults, found);
        std::fs::remove_file(bed.folder().join(name)).unwrap();
        assert_eq!(bed.look(true), Looked::default());
    }
    // Multus leads where the next one does.
    bed.write("00-multus.conf", r#"{"type": "multus-shim"}"#);
    assert_eq!(bed.look(true), Looked::default());
    bed.write("05-flannel.conflist", FLANNEL);
    assert_eq!(bed.look(true).faults.len(), 1);
}

#[test]
fn a_file_that_cannot_be_written_is_a_fault() {
    let bed = Bed::new();
    std::fs::write(bed.folder(), "").unwrap();
    let faults = bed.look(true).faults;
    assert!(
        matches!(faults.as_slice(), [fault] if fault.hurts_pods && fault.text.contains("cannot be kept right")),
        "{faults:?}"
    );
}
