use super::*;
use crate::testing::{soon, until};

#[tokio::test]
async fn the_configuration_is_put_when_all_else_is_ready_and_a_file_before_it_is_told_while_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let readiness = Readiness::new();
    let (faults, told) = watch::channel(None);
    let conf = folder.path().join("net.d");
    std::fs::create_dir(&conf).unwrap();
    let other = conf.join("05-other.conflist");
    std::fs::write(&other, r#"{"name": "other", "plugins": [{"type": "bridge"}]}"#).unwrap();
    let task = RuntimeTask {
        cni_conf_dir: Some(conf.clone()),
        cni_bin_dir: None,
        run_dir: "/run/manx".into(),
        readiness: readiness.clone(),
        faults,
    };
    let ours = conf.join(types::cni::CONFLIST);
    let script = async {
        until(async || told.borrow().is_some()).await;
        assert!(!ours.exists(), "ADD cannot be served yet");
        assert!(readiness.reason(Part::Runtime).unwrap().contains("05-other.conflist (network other)"));
        for part in [Part::Cluster, Part::PodAddresses, Part::Routes, Part::Speaker, Part::Policy] {
            readiness.ready(part);
        }
        until(async || ours.exists()).await;
        std::fs::remove_file(&other).unwrap();
        until(async || readiness.reasons().is_empty()).await;
        assert_eq!(*told.borrow(), Some(Vec::new()));
    };
    tokio::select! {
        () = task.run() => panic!("the task has ended"),
        () = soon(script) => {}
    }
}
