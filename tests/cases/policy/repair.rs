//! What is taken away from the agent's rules comes back, and a kernel that does not take them opens nothing.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::json;
use tests::reach::{Question, Verdict, ask};
use tests::{CONVERGENCE, Flood, Node, Place, PodSpec, Sink, TestResult, can_run_labs, wait_for, wait_until};
use types::Family;
use types::policy::Protocol;

use super::guarded::Guarded;
use super::world::udp;

/// Flushes what the agent made, waits until it stands again, and checks that the agent has counted it.
fn flushed(guarded: &Guarded, commands: &[&str]) -> TestResult {
    for command in commands {
        let before = guarded.node().agent().metric("repairs").unwrap_or_default();
        let sink = Sink::start(&guarded.server, 9100)?;
        let targets: Vec<SocketAddr> = guarded.server.addresses().iter().map(|own| (*own, 9100).into()).collect();
        let flood = Flood::start(&guarded.strangers[1], &targets, 1_000)?;
        guarded.node().shell(command)?;
        wait_for("the repair being counted", CONVERGENCE, || match guarded.node().agent().metric("repairs") {
            Ok(now) if now > before => Ok(()),
            Ok(now) => Err(format!("{now} after {before}")),
            Err(error) => Err(error),
        })?;
        guarded.stands()?;
        let passed = sink.count();
        wait_until("nothing passing any more", CONVERGENCE, || {
            let before = sink.count();
            std::thread::sleep(std::time::Duration::from_millis(200));
            sink.count() == before
        })?;
        // At 2,000 packets a second a packet is half a millisecond: this is the window, as it was seen from outside.
        eprintln!("{command}: {passed} packets passed in the window");
        drop(flood);
    }
    Ok(())
}

#[test]
fn chains_that_somebody_flushes_are_repaired_and_the_window_is_counted_with_nft() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let guarded = Guarded::with("flushnft", &[("MANX_POLICY_IPTABLES", "nft")])?;
    assert!(guarded.node().exec(&["iptables-nft-save", "-t", "mangle"])?.contains("manx"));
    flushed(
        &guarded,
        &[
            "iptables-nft -t mangle -F",
            "ip6tables-nft -t mangle -F FORWARD; iptables-nft -t mangle -F FORWARD",
            "nft flush ruleset",
        ],
    )?;
    guarded.world.lab.down()?;
    Ok(())
}

#[test]
fn chains_that_somebody_flushes_are_repaired_and_the_window_is_counted_with_legacy_iptables() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let guarded = Guarded::with("flushlegacy", &[("MANX_POLICY_IPTABLES", "legacy")])?;
    assert!(guarded.node().exec(&["iptables-legacy-save", "-t", "mangle"])?.contains("manx"));
    assert!(!guarded.node().exec(&["iptables-nft-save", "-t", "mangle"])?.contains("manx"));
    flushed(&guarded, &["iptables-legacy -t mangle -F; ip6tables-legacy -t mangle -F"])?;
    guarded.world.lab.down()?;
    Ok(())
}

#[test]
fn the_variant_of_iptables_is_the_one_that_the_node_s_other_components_use() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let guarded = Guarded::up("variant")?;
    let node = guarded.node();
    for variant in ["legacy", "nft"] {
        node.agent().kill9()?;
        for command in [
            "nft flush ruleset",
            "iptables-legacy -t mangle -F",
            "iptables-legacy -t mangle -X",
            "ip6tables-legacy -t mangle -F",
            "ip6tables-legacy -t mangle -X",
        ] {
            // The chain may be in use, or the table absent: what matters is what the agent does next.
            let _ = node.shell(command);
        }
        // The kubelet leaves this chain for others to see which variant it uses.
        for command in ["iptables", "ip6tables"] {
            node.shell(&format!("{command}-{variant} -t mangle -N KUBE-IPTABLES-HINT"))?;
        }
        node.agent().start()?;
        node.agent().wait_ready(CONVERGENCE)?;
        guarded.stands()?;
        let saved = node.exec(&[&format!("iptables-{variant}-save"), "-t", "mangle"])?;
        assert!(saved.contains("manx"), "{variant}: {saved}");
        for command in ["iptables", "ip6tables"] {
            node.shell(&format!("{command}-{variant} -t mangle -X KUBE-IPTABLES-HINT"))?;
        }
    }
    guarded.world.lab.down()?;
    Ok(())
}

/// Puts a shim in front of every `iptables-restore`; a file says what the shim does.
fn shim(node: &Node) -> Result<(), Box<dyn std::error::Error>> {
    let folder = node.path("/opt/shim");
    fs::create_dir_all(&folder)?;
    for program in ["iptables", "ip6tables"]
        .iter()
        .flat_map(|family| ["", "-nft", "-legacy"].map(|variant| format!("{family}{variant}-restore")))
    {
        let path = folder.join(&program);
        fs::write(
            &path,
            format!(
                "#!/bin/sh\ncase $(cat /run/shim 2>/dev/null) in\n\
                 fail) cat >/dev/null; echo 'shim: line 3 failed' >&2; exit 1 ;;\n\
                 slow) sleep 3 ;;\n\
                 esac\nexec /usr/sbin/{program} \"$@\"\n"
            ),
        )?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

fn mode(node: &Node, mode: &str) -> std::io::Result<()> {
    fs::write(node.path("/run/shim"), mode)
}

#[test]
fn a_slow_or_failing_iptables_restore_opens_nothing_is_tried_again_and_is_told_by_readiness() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut guarded = Guarded::up("shim")?;
    let node = guarded.world.lab.node("node1");
    shim(node)?;
    let path = std::env::join_paths([
        Path::new("/opt/shim"),
        Path::new("/usr/sbin"),
        Path::new("/usr/bin"),
        Path::new("/sbin"),
        Path::new("/bin"),
    ])?;
    let path = path.into_string().map_err(|_| "PATH")?;
    node.agent().kill9()?;
    node.agent().start_with(&[("PATH", &path)])?;
    node.agent().wait_ready(CONVERGENCE)?;
    guarded.stands()?;

    // The shim is slow: what is in force stays so, and a pod of a new class is not open for a moment.
    mode(guarded.node(), "slow")?;
    let siege = guarded.besiege()?;
    let spec = PodSpec::in_namespace("x", "slow").label("class", "slow");
    guarded.world.policy("x", "slow", json!({
        "podSelector": { "matchLabels": { "class": "slow" } },
        "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "friend": "yes" } } }], "ports": [{ "protocol": "TCP", "port": 80, "endPort": 81 }] }],
    }))?;
    let slow = guarded.world.plug("node1", spec)?;
    let question = Question::new(Protocol::Tcp, slow.address(Family::Ipv4), 81);
    assert_eq!(ask(&guarded.strangers[0], &[question])?, [Verdict::Silent]);
    guarded.world.converges(&guarded.friends[1], question, true)?;
    siege.failed("slow");

    // The shim fails: readiness says why, nothing that was closed is open, and the agent tries again until it works.
    mode(guarded.node(), "fail")?;
    let siege = guarded.besiege()?;
    guarded.world.policy(
        "x",
        "late",
        json!({
            "podSelector": { "matchLabels": { "class": "slow" } },
            "ingress": [{ "ports": [{ "protocol": "UDP", "port": 70, "endPort": 90 }] }],
        }),
    )?;
    wait_for("readiness being off", CONVERGENCE, || match guarded.node().agent().ready() {
        Err(answer) if answer.contains("iptables") => Ok(()),
        Err(answer) => Err(answer),
        Ok(()) => Err("it is ready".to_owned()),
    })?;
    let opened = udp(&slow, Family::Ipv6, 81);
    assert_eq!(ask(&guarded.strangers[1], &[opened])?, [Verdict::Silent]);
    guarded.stands()?;
    siege.failed("failing");
    mode(guarded.node(), "")?;
    guarded.node().agent().wait_ready(CONVERGENCE)?;
    guarded.world.converges(&guarded.strangers[1], opened, true)?;
    guarded.stands()?;
    guarded.world.lab.down()?;
    Ok(())
}
