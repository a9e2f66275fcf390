use kernel::fake::acl::FakeAcl;
use store::Journal;

use super::*;
use crate::cni::host_ports::HostPortsTask;
use crate::testing::{World, id, soon};

fn mapped(interface: &InterfaceName) -> String {
    format!(
        r#"*nat
:CNI-DN-aaaa - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
-A CNI-DN-aaaa -p tcp -m tcp --dport 28330 -j DNAT --to-destination 10.65.0.2:80
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"manx-hostports-{interface}\" id: \"aaa1\"" -m multiport --dports 28330 -j CNI-DN-aaaa
COMMIT
"#
    )
}

#[tokio::test]
async fn what_is_mapped_to_a_pod_that_has_gone_is_unmapped_and_its_port_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path().join("journal.db")).unwrap();
    let (world, acl, gone) = (World::new().await, FakeAcl::new(), id("aaa1"));
    let records = folder.path().join("mapped");
    std::fs::create_dir(&records).unwrap();
    let record = records.join(gone.host_interface().as_str());
    let text = serde_json::json!({
        "id": gone, "host_ports": [{ "protocol": "TCP", "container_port": 80, "host_port": 28_330 }],
        "addresses": ["10.65.0.2"], "plugins": [], "config": {},
    });
    std::fs::write(&record, text.to_string()).unwrap();
    let (task, host_ports) = HostPortsTask::new(None, journal, world.ipam.clone(), None, records);
    let fake = acl.clone();
    let tables = NatTables::of(move || vec![Box::new(fake.tables(IptablesVariant::Nft))]);
    let stale = StaleMappings { host_ports, turns: Turns::default(), tables };
    let script = async {
        // Nothing is in the tables that portmap wrote elsewhere: the record stays for portmap.
        stale.look().await;
        assert!(record.exists());
        acl.foreign_restore(Family::Ipv4, &mapped(&gone.host_interface())).unwrap();
        stale.look().await;
        assert!(!record.exists());
        assert_eq!(acl.rules(Family::Ipv4, "nat", "CNI-HOSTPORT-DNAT").unwrap(), Vec::<String>::new());
        assert!(!acl.chains(Family::Ipv4, "nat").contains(&"CNI-DN-aaaa".to_owned()));
    };
    tokio::select! {
        () = task.run() => panic!("the task has ended"),
        () = soon(script) => {}
    }
}
