use types::host_ports::HostPort;
use types::policy::Protocol;

use super::*;
use crate::testing::{id, reference};

fn given(uid: Option<&str>, addresses: &[&str], host_port: u16, order: u64) -> Given {
    let port = HostPort { protocol: Protocol::Tcp, container_port: 80, host_port };
    let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
    Given { pod: reference("web", uid), addresses, ports: vec![port], order }
}

#[test]
fn of_two_sandboxes_of_a_pod_the_later_one_counts_and_hosts_are_of_its_families() {
    let node = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    let all = AllGiven::from([
        (id("aaa1"), given(Some("u1"), &["10.65.0.2", "fd00::2"], 20_002, 2)),
        (id("bbb2"), given(Some("u1"), &["10.65.0.3", "fd00::3"], 20_001, 1)),
        (id("ccc3"), given(Some("u2"), &["10.65.0.4"], 20_003, 3)),
        (id("ddd4"), given(None, &["10.65.0.5"], 20_004, 4)),
    ]);
    let wanted = wanted(&all, &node);
    let name = NamespacedName::new("shop", "web");
    let of = |uid: &str| wanted[&(name.clone(), uid.to_owned())].as_str();
    assert_eq!(wanted.len(), 2);
    assert!(of("u1").contains("20002") && of("u1").contains(r#"["192.0.2.1","2001:db8::1"]"#), "{}", of("u1"));
    assert!(of("u2").contains("20003") && of("u2").contains(r#"["192.0.2.1"]"#), "{}", of("u2"));
}

#[test]
fn what_a_pod_tells_otherwise_is_due_and_a_pod_that_is_not_known_is_left_alone() {
    let pod = |name: &str| (NamespacedName::new("shop", name), format!("uid-{name}"));
    let wanted = BTreeMap::from(["new", "right", "changed", "gone"].map(|name| (pod(name), "ours".to_owned())));
    let told = Told::from([
        (pod("new"), None),
        (pod("right"), Some("ours".to_owned())),
        (pod("changed"), Some("theirs".to_owned())),
        (pod("other"), Some("theirs".to_owned())),
    ]);
    let due: Vec<_> = due(wanted, &told).into_iter().map(|(pod, _)| pod.0.name).collect();
    assert_eq!(due, ["changed", "new"]);
}
