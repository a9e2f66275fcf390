//! How pods are plugged in otherwise than by one interface of ours: by other plugins with addresses of ours, by two networks, in
//! two sandboxes of one pod, under the longest names.

mod main_plugins;
mod sandboxes;
mod two_networks;

use std::error::Error;
use std::net::IpAddr;

use serde_json::{Value, json};
use tests::pair::{ETCD, POOLS};
use tests::{Attachment, CONVERGENCE, Lab, Node, Options, Place, Runtime, TestResult, addresses, wait_until};

use crate::pair;

/// Two nodes on one wire.
fn up(test: &str) -> Result<Lab, Box<dyn Error>> {
    Ok(Lab::up(&pair(test, &format!("{ETCD}{POOLS}"))?, &Options::unique(test))?)
}

/// A runtime with one network of one plugin.
fn network(node: &Node, name: &str, plugin: &Value) -> Result<Runtime, String> {
    let text = json!({ "cniVersion": "1.0.0", "name": name, "plugins": [plugin] }).to_string();
    Runtime::from_conflist(node.namespace().clone(), &text)
}

/// One call of a plugin; null where it says nothing, and its error object where it refuses.
fn call(runtime: &Runtime, verb: &str, attachment: &Attachment, plugin: &Value) -> Result<Value, Box<dyn Error>> {
    let mut config = plugin.clone();
    config["cniVersion"] = json!("1.0.0");
    config["name"] = json!(runtime.network);
    let args: Vec<_> = attachment.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let args = args.join(";");
    let env = [
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", attachment.container.as_str()),
        ("CNI_NETNS", attachment.netns.as_deref().unwrap_or_default()),
        ("CNI_IFNAME", attachment.interface.as_str()),
        ("CNI_ARGS", args.as_str()),
    ];
    let kind = plugin["type"].as_str().unwrap_or_default();
    let output = runtime.run(kind, &env, &config.to_string())?;
    if output.status.success() && output.stdout.is_empty() {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_str(&output.stdout).map_err(|error| format!("{error}: {} {}", output.stdout, output.stderr))?)
}

/// CHECK of what an ADD has answered.
fn check(runtime: &Runtime, attachment: &Attachment, plugin: &Value, result: &Value) -> Result<Value, Box<dyn Error>> {
    let mut config = plugin.clone();
    config["prevResult"] = result.clone();
    call(runtime, "CHECK", attachment, &config)
}

/// The gateways of an ADD's result.
fn gateways(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| ip["gateway"].as_str().map(str::to_owned)).collect()
}

/// Waits until each of the places is answered by each address, both families.
fn all_reach(from: &[&dyn Place], to: &[IpAddr]) -> TestResult {
    assert_eq!(to.iter().filter(|address| address.is_ipv4()).count() * 2, to.len(), "both families: {to:?}");
    for place in from {
        for address in to {
            wait_until(&format!("{} reaching {address}", place.name()), CONVERGENCE, || place.ping(*address))?;
        }
    }
    Ok(())
}

/// Whether a pod's namespace is answered by the address.
fn pings(node: &Node, netns: &str, words: &[&str]) -> bool {
    let mut line = vec!["nsenter", "--net", "ping", "-n", "-q", "-c", "1", "-W", "1"];
    let netns = format!("--net=/run/netns/{netns}");
    line[1] = &netns;
    line.extend(words);
    node.try_exec(&line).is_ok_and(|output| output.status.success())
}
