//! What a user does to be rid of Manx, and what is left then.

use std::fs;
use std::path::Path;

use tests::{AGNHOST_IMAGE, Cluster, ClusterOptions, Machine, Network, Place, TestResult, wait_for};

use crate::{SOON, shared};

const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");

/// Lines that speak of Manx in what can be seen of a machine; runtimes keep images and logs by themselves.
const REMAINS: &str = "
    for family in iptables ip6tables; do
        $family-nft-save 2>/dev/null | grep manx
        $family-legacy-save 2>/dev/null | grep manx
    done
    ipset list -n | grep manx
    ip -o link | grep -E ' mx[a-z2-7]{13}@'
    for family in -4 -6; do for protocol in 77 78; do ip $family route show proto $protocol; done; done
    ls -d /etc/cni/net.d/*manx* /opt/cni/bin/manx /opt/cni/bin/portmap /etc/systemd/networkd.conf.d/*manx* \
        /run/manx /var/lib/manx* 2>/dev/null
    true";

/// Makes things of others on a machine, which have to stay while pods come and go.
const OTHERS: &str = "
    ip -4 route show | grep -v 'proto 7[78]'
    ip -6 route show | grep -v -e 'proto 7[78]' -e expires -e ' dev mx'
    iptables-nft-save -t nat | grep -e '-A POSTROUTING' | grep -v manx
    ls /opt/cni/bin/loopback";

fn remains(machine: Machine<'_>) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    Ok(machine.node().shell(REMAINS)?.lines().map(str::to_owned).collect())
}

/// Applies the objects that clean the nodes, waits until they have, and deletes them; returns what they said.
fn clean(cluster: &Cluster, folder: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let folder = folder.display().to_string();
    cluster.kubectl(&["apply", "-k", &folder])?;
    cluster.wait_rollout("manx-clean", "daemonset/manx-clean", SOON)?;
    let pods = ["-n", "manx-clean", "-l", "app.kubernetes.io/name=manx-clean", "-c", "clean", "--tail=-1"];
    let said = cluster.kubectl(&[&["logs"], &pods[..]].concat())?;
    cluster.kubectl(&["delete", "-k", &folder])?;
    Ok(said)
}

#[test]
fn nothing_is_left_of_manx_on_any_node_once_it_is_removed_and_it_can_be_had_again() -> TestResult {
    let Some(_nobody_else) = shared::without() else { return Ok(()) };
    let cluster = Cluster::up(&ClusterOptions::unique("uninstall").nodes(2).network(Network::Manx))?;
    let deploy = |name: &str| {
        let image = format!("--image={AGNHOST_IMAGE}");
        cluster.kubectl(&["create", "deployment", name, &image, "--replicas=3", "--", "/agnhost", "netexec"])?;
        cluster.wait_rollout("default", &format!("deployment/{name}"), SOON)
    };
    deploy("before")?;
    for machine in cluster.machines() {
        let remains = remains(machine)?;
        assert!(remains.iter().any(|line| line.contains("manx-from")), "{remains:?}");
    }

    let folder = Path::new(MANIFESTS).join("clean");
    cluster.kubectl(&["delete", "-k", MANIFESTS])?;
    // Pods that are still in Manx's network lose it: a runtime without a configuration cannot take them down.
    let before: Vec<_> = cluster.machines().map(|machine| machine.node().shell(OTHERS)).collect::<Result<_, _>>()?;
    let said = clean(&cluster, &folder)?;
    assert_eq!(said.matches("nothing of Manx is left here").count(), 2, "{said}");
    for (machine, before) in cluster.machines().zip(before) {
        assert_eq!(remains(machine)?.iter().filter(|line| *line != "/var/lib/manx-etcd").count(), 0);
        assert_eq!(machine.node().shell(OTHERS)?, before, "{}", machine.name());
    }

    // The data of etcd goes too.
    let with_data = Path::new(env!("CARGO_TARGET_TMPDIR")).join("clean-with-data");
    fs::create_dir_all(with_data.join("etcd-data"))?;
    for file in ["namespace.yaml", "clean.yaml", "kustomization.yaml", "etcd-data/kustomization.yaml"] {
        let text = fs::read_to_string(folder.join(file))?;
        fs::write(with_data.join(file), text.replace("# components: [etcd-data]", "components: [etcd-data]"))?;
    }
    let said = clean(&cluster, &with_data)?;
    assert!(said.contains("removed /host/var/lib/manx-etcd"), "{said}");
    for machine in cluster.machines() {
        assert_eq!(remains(machine)?, Vec::<String>::new(), "{}", machine.name());
    }
    cluster.kubectl(&["label", "nodes", "--all", "manx.io/etcd-"])?;

    // The rest of the pods goes once there is a network again.
    cluster.kubectl(&["delete", "deployment", "before"])?;
    cluster.deploy_manx()?;
    deploy("after")?;
    wait_for("the old pods being gone", SOON, || {
        let pods = cluster.kubectl(&["get", "pods", "-o", "name"]).map_err(|error| error.to_string())?;
        if pods.contains("pod/before") { Err(pods) } else { Ok(()) }
    })?;
    cluster.down()?;
    Ok(())
}
