//! What the runtime plugs pods in by: the agent keeps its configuration right and everything of others in it, and tells of what it
//! does not mend: another network's configuration that comes first, a binary that is gone or cannot be run.

use std::fs;

use serde_json::{Value, json};
use tests::pair::{ETCD, POOLS, container};
use tests::{Apiserver, CONVERGENCE, Lab, Node, Options, Place, Runtime, TestResult, can_run_labs, wait_for};

use crate::pair;

const CONFLIST: &str = "/etc/cni/net.d/10-manx.conflist";
const BINARY: &str = "/opt/cni/bin/manx";

/// A stand-in for istio-cni: it keeps what it is called with, and passes the result on, as plugins do that add nothing to it. The
/// key `type` is the last of what the lab's runtime writes.
const STAND_IN: &str = r#"#!/bin/sh
cat >/run/istio/$CNI_COMMAND
[ $CNI_COMMAND != ADD ] || sed 's/.*"prevResult":\(.*\),"type":"istio-cni".*/\1/' /run/istio/ADD
"#;

/// A binary of another version.
const OLDER: &str = r#"#!/bin/sh
echo '{"cniVersion": "1.1.0", "manx.io/version": "0.0.1", "manx.io/protocol": 1}'
"#;

fn up(test: &str) -> Result<Lab, Box<dyn std::error::Error>> {
    let agent = format!("{ETCD}{POOLS}cniConfDir: /etc/cni/net.d\ncniBinDir: /opt/cni/bin\n");
    let lab = Lab::up(&pair(test, &agent)?, &Options::unique(test).without_agents())?;
    // In the lab the configuration is a mount, and the binary a link to what was built: here they are the node's own files.
    lab.node("node1").shell(&format!(
        "umount {CONFLIST} && rm {CONFLIST} && mkdir /run/image && cp -L {BINARY} /run/image/ && rm {BINARY} && cp /run/image/manx {BINARY}"
    ))?;
    for node in lab.manx_nodes() {
        node.agent().start()?;
    }
    for node in lab.manx_nodes() {
        node.agent().wait_ready(CONVERGENCE)?;
    }
    Ok(lab)
}

fn read(node: &Node) -> Value {
    fs::read(node.path(CONFLIST)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Replaces a file as a careful program does.
fn write(node: &Node, path: &str, text: &str) -> TestResult {
    let aside = format!("{path}.aside");
    fs::write(node.path(&aside), text)?;
    Ok(fs::rename(node.path(&aside), node.path(path))?)
}

fn types(list: &Value) -> Vec<&str> {
    list["plugins"].as_array().into_iter().flatten().filter_map(|plugin| plugin["type"].as_str()).collect()
}

/// Waits until the node's status says this, and is ready or not.
fn says(node: &Node, words: &str, is_ready: bool) -> TestResult {
    wait_for(&format!("{words:?} being told, and readiness being {is_ready}"), CONVERGENCE, || {
        let status = node.agent().ctl(&["node", "status"]).map_err(|error| error.to_string())?;
        let ready = node.agent().ready();
        if status.contains(words) && ready.is_ok() == is_ready { Ok(()) } else { Err(format!("{status} {ready:?}")) }
    })?;
    Ok(())
}

/// Waits until nothing is wrong.
fn is_fine(node: &Node) -> TestResult {
    node.agent().wait_ready(CONVERGENCE)?;
    wait_for("no problem being told", CONVERGENCE, || {
        let status = node.agent().ctl(&["node", "status"]).map_err(|error| error.to_string())?;
        if status.contains("problem:") { Err(status) } else { Ok(()) }
    })?;
    Ok(())
}

#[test]
fn what_others_chain_into_our_configuration_stays_and_ours_comes_back() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("chainedinto")?;
    let node = lab.node("node1");
    wait_for("our configuration", CONVERGENCE, || {
        if types(&read(node)) == ["manx", "portmap"] { Ok(()) } else { Err("not yet") }
    })?;
    // What istio-cni does, and linkerd-cni: its object is appended, the file rewritten.
    let mut list = read(node);
    let istio = json!({
        "type": "istio-cni", "name": "istio-cni", "plugin_log_level": "info",
        "kubernetes": { "kubeconfig": "/etc/cni/net.d/ZZZ-istio-cni-kubeconfig", "exclude_namespaces": ["istio-system"] },
    });
    list["plugins"].as_array_mut().ok_or("no plugins")?.push(istio.clone());
    write(node, CONFLIST, &format!("{list:#}"))?;
    node.shell("mkdir /run/istio")?;
    write(node, "/opt/cni/bin/istio-cni", STAND_IN)?;
    node.shell("chmod 755 /opt/cni/bin/istio-cni")?;
    for life in ["first", "restarted"] {
        let text = fs::read_to_string(node.path(CONFLIST))?;
        assert_eq!(text, format!("{list:#}"), "{life}");
        let runtime = Runtime::from_conflist(node.namespace().clone(), &text)?;
        let attachment = container(node, life)?;
        let result = runtime.add(&attachment)?;
        let heard: Value = serde_json::from_slice(&fs::read(node.path("/run/istio/ADD"))?)?;
        assert_eq!(heard["prevResult"], result, "{life}");
        // portmap, which is before it, leaves out what is empty.
        assert_eq!(heard["prevResult"]["interfaces"][0]["sandbox"].as_str().unwrap_or_default(), "");
        assert_eq!(heard["prevResult"]["interfaces"][1]["sandbox"], format!("/var/run/netns/{life}"));
        assert_eq!(heard["kubernetes"], istio["kubernetes"]);
        runtime.check(&attachment)?;
        runtime.del(&attachment)?;
        runtime.del(&attachment)?;
        node.agent().kill9()?;
        node.agent().start()?;
        node.agent().wait_ready(CONVERGENCE)?;
        // So that it has looked at the file in its new life: it does at once when it is ready.
        is_fine(node)?;
    }

    // Somebody takes our object away, and somebody the file.
    list["plugins"].as_array_mut().ok_or("no plugins")?.remove(0);
    write(node, CONFLIST, &list.to_string())?;
    wait_for("our object", CONVERGENCE, || {
        let now = read(node);
        if types(&now) == ["manx", "portmap", "istio-cni"] && now["plugins"][2] == istio {
            Ok(())
        } else {
            Err(now.to_string())
        }
    })?;
    node.shell(&format!("rm {CONFLIST}"))?;
    wait_for(
        "our file",
        CONVERGENCE,
        || if types(&read(node)) == ["manx", "portmap"] { Ok(()) } else { Err("not yet") },
    )?;

    // Half a file, as a full disk leaves it.
    write(node, CONFLIST, "{\"cniVersion\": \"1.0.0\", \"plugins\": [{\"type\": \"istio-cni\"")?;
    says(node, "10-manx.conflist.damaged made no sense as a CNI configuration and was replaced", true)?;
    assert_eq!(types(&read(node)), ["manx", "portmap"]);
    assert!(fs::read_to_string(node.path(&format!("{CONFLIST}.damaged")))?.contains("istio-cni"));
    node.plug("after")?;
    node.shell(&format!("rm {CONFLIST}.damaged"))?;
    is_fine(node)?;
    lab.down()?;
    Ok(())
}

#[test]
fn a_foreign_configuration_that_comes_first_and_a_binary_that_cannot_be_run_are_told_while_it_is_so() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = up("toldfiles")?;
    let node = lab.node("node1");
    is_fine(node)?;
    let flannel = json!({ "cniVersion": "1.0.0", "name": "cbr0", "plugins": [{ "type": "ptp" }] }).to_string();
    write(node, "/etc/cni/net.d/10-flannel.conflist", &flannel)?;
    says(node, "the runtime takes /etc/cni/net.d/10-flannel.conflist (network cbr0) before 10-manx.conflist", false)?;
    let status = json!({ "cniVersion": "1.1.0", "name": "manx", "type": "manx" }).to_string();
    let status = node.runtime()?.run("manx", &[("CNI_COMMAND", "STATUS")], &status)?;
    assert!(status.stdout.contains("\"code\":50") && status.stdout.contains("10-flannel"), "{status:?}");
    node.shell("rm /etc/cni/net.d/10-flannel.conflist")?;
    is_fine(node)?;

    node.shell(&format!("rm {BINARY}"))?;
    says(node, &format!("the CNI binary {BINARY} is gone"), false)?;
    node.shell(&format!("cp /run/image/manx {BINARY} && chmod 644 {BINARY}"))?;
    says(node, "its mode is 644; chmod 755 mends that", false)?;
    // The installer mends that, too.
    let said = node.agent().ctl(&["node", "install", "--from", "/run/image"])?;
    assert!(said.contains("/opt/cni/bin/manx: installed") && said.contains("manx: runs, version"), "{said}");
    is_fine(node)?;

    node.shell("mount -t tmpfs -o noexec tmpfs /opt/cni/bin")?;
    let said = node.agent().ctl(&["node", "install", "--from", "/run/image"]).expect_err("noexec").to_string();
    assert!(said.contains("no pod would start") && said.contains("mounted noexec"), "{said}");
    says(node, "its file system is mounted noexec", false)?;
    node.shell("umount /opt/cni/bin")?;
    is_fine(node)?;

    // Pods go on with a binary of another version as long as the two understand each other.
    write(node, BINARY, OLDER)?;
    node.shell(&format!("chmod 755 {BINARY}"))?;
    says(node, "is of version 0.0.1, and this agent of", true)?;
    node.agent().ctl(&["node", "install", "--from", "/run/image"])?;
    is_fine(node)?;
    node.plug("after")?;
    lab.down()?;
    Ok(())
}

#[test]
fn kubernetes_is_told_by_one_event_on_the_node_while_it_is_so() -> TestResult {
    if !Apiserver::can_run() {
        return Ok(());
    }
    let agent = format!("{ETCD}{POOLS}cniConfDir: /etc/cni/net.d\n");
    let lab = Lab::up(&pair("toldevents", &agent)?, &Options::unique("toldevents").without_agents())?;
    let server = Apiserver::start(lab.node("etcd"))?;
    server.start_agents(&lab, CONVERGENCE)?;
    let (node, mut client) = (lab.node("node1"), server.client()?);
    let mut told = |wanted: Option<&str>| {
        wait_for(&format!("Events on node1 being {wanted:?}"), CONVERGENCE, || {
            let (_, list) =
                client.call("GET", "/api/v1/namespaces/default/events", None).map_err(|error| error.to_string())?;
            let events = list["items"].as_array().into_iter().flatten();
            let messages = events
                .filter(|event| event["involvedObject"]["name"] == "node1" && event["reason"] == "CNIConfiguration");
            let messages: Vec<_> = messages.filter_map(|event| event["message"].as_str()).collect();
            let is_so = match (wanted, messages.as_slice()) {
                (None, []) => true,
                (Some(wanted), [one]) => one.contains(wanted),
                _ => false,
            };
            if is_so { Ok(()) } else { Err(format!("{messages:?}")) }
        })
    };
    let ptp = json!({ "cniVersion": "1.0.0", "name": "cbr0", "plugins": [{ "type": "ptp" }] }).to_string();
    for name in ["09-other.conflist", "05-another.conflist"] {
        write(node, &format!("/etc/cni/net.d/{name}"), &ptp)?;
        told(Some(name))?;
    }
    // It is mended while no agent runs.
    node.agent().kill9()?;
    node.shell("rm /etc/cni/net.d/09-other.conflist /etc/cni/net.d/05-another.conflist")?;
    told(Some("05-another.conflist"))?;
    node.agent().start_with(&[("MANX_KUBERNETES", "/etc/manx/kubeconfig")])?;
    told(None)?;
    lab.down()?;
    Ok(())
}
