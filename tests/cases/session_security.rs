//! Passwords (TCP MD5, RFC 2385) and TTL security (RFC 5082) of BGP sessions, with FRR, BIRD and among nodes.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::mesh::{RATE, all_established, apply, mesh, node_keeps, peer, reaches, status};
use tests::pair::{ETCD, POOLS};
use tests::{
    Apiserver, CONVERGENCE, Capture, Lab, LabError, Node, Options, Place, Pod, PodSpec, Probe, TestResult,
    can_run_labs, wait_for, wait_until,
};
use types::Family;

use crate::pair;

/// The router's addresses on node1's link, as the topology's resources call the sessions with them.
const SESSIONS: [(&str, &str); 2] = [("node1-tor-v4", "172.31.1.2"), ("node1-tor-v6", "fd00:31:1::2")];

/// node1's own, on the same link.
const OWN: [&str; 2] = ["172.31.1.3", "fd00:31:1::3"];

/// Long enough for a dial that is not answered to be given up, and for the router's to come meanwhile.
const UNANSWERED: Duration = Duration::from_secs(150);

/// Has node1 hold its sessions with the router anew, with this in their specs.
fn hold(node: &Node, more: &str) -> TestResult {
    for (name, _) in SESSIONS {
        node.agent().ctl(&["delete", "bgppeer", name])?;
    }
    wait_until("the sessions being gone", CONVERGENCE, || {
        status(node).is_ok_and(|status| SESSIONS.iter().all(|(_, address)| peer(&status, address).is_none()))
    })?;
    change(node, more)
}

/// Changes the specs of node1's sessions with the router.
fn change(node: &Node, more: &str) -> TestResult {
    let document = |(name, address): &(&str, &str)| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {{name: {name}}}, \
             spec: {{node: node1, peerIP: '{address}', asNumber: 64601{more}}}}}\n"
        )
    };
    apply(node, &SESSIONS.iter().map(document).collect::<Vec<_>>().join("---\n"))
}

/// Waits until each session of node1 with the router is as it should be; what is not is told.
fn sessions_are(node: &Node, what: &str, within: Duration, is_so: impl Fn(&Value) -> bool) -> TestResult {
    for (_, address) in SESSIONS {
        wait_for(&format!("the session with {address} being {what}"), within, || {
            let status = status(node).map_err(|error| error.to_string())?;
            let session = peer(&status, address).cloned().unwrap_or_default();
            if is_so(&session) { Ok(()) } else { Err(session.to_string()) }
        })?;
    }
    Ok(())
}

fn is_established(session: &Value) -> bool {
    session["state"] == "established"
}

/// Whether what is in the way of the session is told, and by these words.
fn tells(words: &str) -> impl Fn(&Value) -> bool {
    move |session| {
        !is_established(session) && session["obstacle"].as_str().is_some_and(|obstacle| obstacle.contains(words))
    }
}

/// Has the router configure its sessions with node1.
fn router(lab: &Lab, commands: &[&str]) -> TestResult {
    let lines = OWN.iter().flat_map(|own| commands.iter().map(move |command| command.replace("NODE", own)));
    let lines: Vec<String> = ["router bgp 64601".to_owned()].into_iter().chain(lines).collect();
    lab.node("tor").frr().configure(&lines.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(())
}

/// Keeps node1 from dialling, or lets it dial again: only the router's connections come about meanwhile.
fn dials(node: &Node, allowed: bool) -> Result<(), LabError> {
    let verb = if allowed { "-D" } else { "-I" };
    ["iptables", "ip6tables"].into_iter().try_for_each(|program| {
        node.exec(&[program, verb, "OUTPUT", "-p", "tcp", "--dport", "179", "--syn", "-j", "DROP"]).map(drop)
    })
}

/// That no agent has written a password anywhere where people look.
fn nobody_tells(lab: &Lab, password: &str) -> TestResult {
    for node in lab.manx_nodes() {
        let log = fs::read_to_string(node.agent().log())?;
        let shown = ["node status", "node status -o json", "get bgppeers -o yaml", "get bgpconfigurations -o yaml"];
        let shown = shown.map(|words| node.agent().ctl(&words.split(' ').collect::<Vec<_>>()).unwrap_or_default());
        for text in shown.iter().chain([&log]) {
            assert!(!text.contains(password), "{} tells the password: {text}", node.name());
        }
    }
    Ok(())
}

#[test]
fn rfc2385_2_sessions_with_a_router_have_the_same_password_or_say_what_is_wrong_with_it() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, one, _) = mesh("md5frr")?;
    let node = lab.node("node1");
    let file = node.path("/etc/manx/rack1");
    let in_file = ", passwordFile: /etc/manx/rack1";
    // Fail closed: without the file there is no session, and it says which file.
    hold(node, in_file)?;
    sessions_are(node, "withheld", CONVERGENCE, |session| {
        let why = session["lastError"].as_str().unwrap_or_default();
        session["state"] == "idle" && why.contains("no session without its password") && why.contains("/etc/manx/rack1")
    })?;
    router(&lab, &["neighbor NODE password rack-secret-1"])?;
    fs::write(&file, "rack-secret-1\n")?;
    let is_locked = |session: &Value| is_established(session) && session["hasPassword"] == true;
    sessions_are(node, "established with the password", CONVERGENCE, is_locked)?;

    // The router's connections, then node1's alone.
    dials(node, false)?;
    hold(node, in_file)?;
    sessions_are(node, "established by the router's connection", CONVERGENCE, is_locked)?;
    dials(node, true)?;
    router(&lab, &["neighbor NODE passive"])?;
    hold(node, in_file)?;
    sessions_are(node, "established by node1's connection", CONVERGENCE, is_locked)?;
    router(&lab, &["no neighbor NODE passive"])?;
    for family in Family::ALL {
        wait_until("the host reaching a pod", CONVERGENCE, || lab.node("client").ping(one.address(family)))?;
    }

    // A session that is up says so before its hold time is over: what it has to tell is not acknowledged.
    fs::write(&file, "rack-secret-2")?;
    node.agent().ctl(&["node", "drain"])?;
    sessions_are(node, "up and told that the passwords differ", UNANSWERED, |session| {
        is_established(session) && session["obstacle"].as_str().is_some_and(|told| told.contains("TCPMD5Failure"))
    })?;
    let metric = node.agent().metric("bgp_tcp_drops_total{reason=\"md5-wrong\"}")?;
    assert!(metric >= 1.0, "{metric} counted");
    node.agent().ctl(&["node", "drain", "--undo"])?;

    hold(node, in_file)?;
    sessions_are(node, "told that the passwords differ", UNANSWERED, tells("TCPMD5Failure"))?;
    hold(node, "")?;
    sessions_are(node, "told that the router has a password", UNANSWERED, tells("TCPMD5Unexpected"))?;
    router(&lab, &["no neighbor NODE password"])?;
    hold(node, in_file)?;
    sessions_are(node, "told that the router has none", UNANSWERED, tells("TCPMD5NotFound"))?;
    router(&lab, &["neighbor NODE password rack-secret-2"])?;
    sessions_are(node, "established with the new password", UNANSWERED, is_locked)?;
    hold(node, "")?;
    router(&lab, &["no neighbor NODE password"])?;
    sessions_are(node, "established without one", UNANSWERED, |session| {
        is_established(session) && session["hasPassword"] != true
    })?;
    nobody_tells(&lab, "rack-secret")?;
    lab.down()?;
    Ok(())
}

#[test]
fn rfc5082_3_a_router_with_ttl_security_is_answered_and_one_that_is_too_far_away_is_told_as_such() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let (lab, _, _) = mesh("gtsm")?;
    let node = lab.node("node1");
    router(&lab, &["neighbor NODE ttl-security hops 1"])?;
    // Whoever asks for it gets a TTL of 255, without a word in the BGPPeer.
    hold(node, "")?;
    sessions_are(node, "established with a router that asks for a TTL", CONVERGENCE, is_established)?;
    hold(node, ", ttlSecurity: 1")?;
    let is_near = |session: &Value| is_established(session) && session["leastTtl"] == 255;
    sessions_are(node, "established with TTL security at both ends", CONVERGENCE, is_near)?;
    // FRR sends to external peers with a TTL of 1 where it is not told otherwise.
    router(&lab, &["no neighbor NODE ttl-security hops 1"])?;
    hold(node, ", ttlSecurity: 1")?;
    sessions_are(node, "told what TTL comes", UNANSWERED, tells("with TTL 1;"))?;
    let table = node.agent().ctl(&["node", "status"])?;
    assert!(table.contains("ttlSecurity") && table.contains("TTL 255"), "{table}");
    // Taken back, the session comes by itself.
    change(node, "")?;
    sessions_are(node, "established without TTL security", UNANSWERED, |session| {
        is_established(session) && session["leastTtl"].is_null()
    })?;
    lab.down()?;
    Ok(())
}

/// BIRD in the router's place: sessions with node1 by both families, with this in each of them.
fn bird(lab: &Lab, more: &str) -> TestResult {
    let tor = lab.node("tor");
    let session = |(name, own, node, family): (&str, &str, &str, &str)| {
        format!(
            "protocol bgp {name} {{ local {own} as 64601; neighbor {node} as 64512; connect retry time 3; \
             connect delay time 1; error wait time 2, 4; {more} {family} {{ import all; export none; }}; }}\n"
        )
    };
    let sessions = [("v4", SESSIONS[0].1, OWN[0], "ipv4"), ("v6", SESSIONS[1].1, OWN[1], "ipv6")].map(session);
    let text = format!("router id 192.0.2.1;\nprotocol device {{}}\n{}", sessions.concat());
    fs::write(tor.path("/etc/bird-lab.conf"), text)?;
    tor.exec(&["mkdir", "-p", "/run/bird"])?;
    tor.end_service("bird", nix::sys::signal::Signal::SIGKILL)?;
    let mut command = tor.command("bird");
    command.args(["-f", "-c", "/etc/bird-lab.conf", "-s", "/run/bird/lab.ctl"]);
    tor.start_service("bird", command)?;
    Ok(())
}

#[test]
fn rfc2385_2_and_rfc5082_3_sessions_with_bird_have_a_password_and_ttl_security() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    if !["/usr/sbin/bird", "/sbin/bird"].iter().any(|program| fs::exists(program).unwrap_or_default()) {
        tests::say_skipped(&"there is no bird (install bird2)");
        return Ok(());
    }
    let (lab, _, _) = mesh("md5bird")?;
    let node = lab.node("node1");
    lab.node("tor").frr().kill_daemon("bgpd")?;
    fs::write(node.path("/etc/manx/rack1"), "bird-secret-1")?;
    let both = ", passwordFile: /etc/manx/rack1, ttlSecurity: 1";
    let is_up =
        |session: &Value| is_established(session) && session["hasPassword"] == true && session["leastTtl"] == 255;
    for passive in ["", "passive on;"] {
        hold(node, both)?;
        bird(&lab, &format!("password \"bird-secret-1\"; ttl security on; {passive}"))?;
        sessions_are(node, "established with BIRD", UNANSWERED, is_up)?;
    }
    dials(node, false)?;
    hold(node, both)?;
    bird(&lab, "password \"bird-secret-1\"; ttl security on;")?;
    sessions_are(node, "established by BIRD's connection", UNANSWERED, is_up)?;
    dials(node, true)?;
    let routes = node.agent().ctl(&["bgp", "routes"])?;
    assert!(routes.contains("own block"), "{routes}");
    hold(node, both)?;
    bird(&lab, "password \"bird-secret-2\"; ttl security on;")?;
    sessions_are(node, "told that the passwords differ", UNANSWERED, tells("TCPMD5Failure"))?;
    nobody_tells(&lab, "bird-secret")?;
    lab.down()?;
    Ok(())
}

/// The Secret that holds the mesh's password, in the namespace of the kubeconfig's context.
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

/// Waits until both sessions of a node of the pair are up, with what is asked of them.
fn mesh_is(node: &Node, what: &str, has_password: bool, least_ttl: Option<u8>) -> TestResult {
    wait_for(&format!("the mesh on {} being {what}", node.name()), UNANSWERED, || {
        let status = status(node).map_err(|error| error.to_string())?;
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        let is_so = |peer: &Value| {
            is_established(peer)
                && peer["hasPassword"].as_bool().unwrap_or_default() == has_password
                && peer["leastTtl"].as_u64() == least_ttl.map(u64::from)
        };
        if peers.len() == 2 && peers.iter().all(is_so) { Ok(()) } else { Err(status.to_string()) }
    })?;
    Ok(())
}

/// Since when each of a node's sessions has been up, at the latest.
fn up_since(node: &Node) -> Result<Instant, Box<dyn std::error::Error>> {
    let status = status(node)?;
    let ages = status["peers"].as_array().into_iter().flatten().filter_map(|peer| peer["sinceSecs"].as_u64());
    let youngest = ages.min().ok_or("there is no session")?;
    Instant::now().checked_sub(Duration::from_secs(youngest)).ok_or_else(|| "the clock is young".into())
}

/// Does something while the two pods speak with each other both ways and by either family: not a packet of theirs is lost.
fn undisturbed(what: &str, pods: [&Pod; 2], step: impl FnOnce() -> TestResult) -> TestResult {
    let [near, far] = pods;
    let mut probes = Vec::new();
    for (from, to) in [(near, far), (far, near)] {
        for family in Family::ALL {
            probes.push(Probe::start(from, to, to.address(family), RATE)?);
        }
    }
    step()?;
    for probe in probes {
        let report = probe.finish();
        assert!(report.sent > 0 && report.lost == 0, "{what}: {report:?}");
    }
    Ok(())
}

/// That a node's sessions carry routes: what the other node takes back goes, and comes again. Its pods are not to be reached
/// meanwhile.
fn routes_flow(from: &Node, to: &Node) -> TestResult {
    let count = || status(to).ok().and_then(|status| status["routes"]["bgp"].as_u64());
    let had = count();
    from.agent().ctl(&["node", "drain"])?;
    wait_until("its routes being taken back", UNANSWERED, || count() == Some(0))?;
    from.agent().ctl(&["node", "drain", "--undo"])?;
    wait_until("its routes being back", UNANSWERED, || count() == had)?;
    Ok(())
}

/// The same, and that what the sessions send for it is signed: a session that went on as it was would carry routes as well.
fn routes_flow_signed(from: &Node, to: &Node) -> TestResult {
    // A connection that was given up before there was a password may be sending its last words still.
    let live = to.exec(&["ss", "-Htn", "state", "established", "( sport = :179 or dport = :179 )"])?;
    let ports = live.split_whitespace().filter_map(|word| word.rsplit_once(':')).map(|(_, port)| port);
    let ports: Vec<_> = ports.filter(|port| *port != "179").map(|port| format!("tcp port {port}")).collect();
    assert!(!ports.is_empty(), "{live}");
    let capture = Capture::start(to, "eth1", &format!("tcp port 179 and ({})", ports.join(" or ")), 8, 20)?;
    routes_flow(from, to)?;
    let packets = capture.finish()?;
    let is_unsigned = |packet: &&String| !packet.trim().is_empty() && !packet.contains("md5");
    let unsigned: Vec<_> = packets.iter().filter(is_unsigned).collect();
    assert!(!packets.is_empty() && unsigned.is_empty(), "{unsigned:?} of {} packets are not signed", packets.len());
    Ok(())
}

#[test]
fn the_meshs_password_is_set_and_rotated_in_a_secret_without_a_lost_session_or_packet() -> TestResult {
    if !can_run_labs() || !Apiserver::can_run() {
        return Ok(());
    }
    let file = pair("md5mesh", &format!("{ETCD}{POOLS}"))?;
    let lab = Lab::up(&file, &Options::unique("md5mesh").without_agents())?;
    let server = Apiserver::start(lab.node("etcd"))?;
    server.start_agents(&lab, CONVERGENCE)?;
    let (one, two) = (lab.node("node1"), lab.node("node2"));
    let mut client = server.client()?;
    let near = one.plug_pod(client.create_pod("node1", &PodSpec::in_namespace("default", "a"))?)?;
    let far = two.plug_pod(client.create_pod("node2", &PodSpec::in_namespace("default", "b"))?)?;
    // Both are on one subnet and say so: TTL security needs no word.
    for node in [one, two] {
        mesh_is(node, "with TTL security", false, Some(255))?;
    }
    reaches(&near, &far)?;
    // Ages are whole seconds: a session that begins anew shows itself once they are old enough.
    wait_until("the sessions being up for a while", CONVERGENCE, || {
        up_since(one).is_ok_and(|since| since.elapsed() > Duration::from_secs(4))
    })?;
    let begun = up_since(one)?;
    let is_still_up = |what: &str| -> TestResult {
        for node in [one, two] {
            let since = up_since(node)?;
            assert!(since < begun + Duration::from_secs(3), "{what} has cost {} a session", node.name());
        }
        Ok(())
    };

    let secret = json!({"metadata": {"name": "bgp-secrets"}, "stringData": {"mesh": "mesh-secret-1"}});
    client.call("POST", SECRETS, Some(&secret))?;
    let configuration = "{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}, \
                         spec: {nodeMeshPassword: {secretKeyRef: {name: bgp-secrets, key: mesh}}}}";
    undisturbed("setting a password", [&near, &far], || {
        apply(one, configuration)?;
        [one, two].into_iter().try_for_each(|node| mesh_is(node, "with the password", true, Some(255)))
    })?;
    routes_flow_signed(two, one)?;
    is_still_up("setting a password")?;

    let rotated = json!({"stringData": {"mesh": "mesh-secret-2"}});
    undisturbed("a new password", [&near, &far], || {
        client.call("PATCH", &format!("{SECRETS}/bgp-secrets"), Some(&rotated))?;
        for node in [one, two] {
            let log = || fs::read_to_string(node.agent().log()).unwrap_or_default();
            wait_until("the new password taking effect", CONVERGENCE, || {
                log().contains("a new password takes effect")
            })?;
        }
        Ok(())
    })?;
    routes_flow_signed(two, one)?;
    routes_flow_signed(one, two)?;
    is_still_up("a new password")?;

    // A registration as an older agent has it: nobody asks for a TTL, and no session ends; and back.
    let key = "/manx/v1/nodes/node2/registration";
    let etcdctl = |words: &[&str]| -> Result<String, LabError> {
        let mut line = vec!["etcdctl", "--endpoints", "http://172.20.40.10:2379"];
        line.extend(words);
        lab.node("etcd").exec(&line)
    };
    let own = etcdctl(&["get", "--print-value-only", key])?.trim().to_owned();
    let mut older: Value = serde_json::from_str(&own)?;
    let removed = older["spec"].as_object_mut().ok_or("no spec")?.remove("ttlSecuritySubnets");
    assert!(removed.is_some(), "{own}");
    undisturbed("TTL security that goes and comes", [&near, &far], || {
        for (registration, least) in [(older.to_string(), None), (own, Some(255))] {
            etcdctl(&["put", key, &registration])?;
            for node in [one, two] {
                mesh_is(node, "as the registrations say", true, least)?;
            }
        }
        Ok(())
    })?;
    routes_flow(two, one)?;
    is_still_up("TTL security that goes and comes")?;

    // A Secret that is gone ends nothing, and is told; nor does an agent that is replaced while the API server is away.
    undisturbed("a Secret that is gone", [&near, &far], || {
        client.call("DELETE", &format!("{SECRETS}/bgp-secrets"), None)?;
        wait_until("the missing Secret being told", CONVERGENCE, || {
            status(one)
                .is_ok_and(|status| status["problems"].to_string().contains("Secret bgp-secrets: there is no such"))
        })?;
        Ok(())
    })?;
    is_still_up("a Secret that is gone")?;
    undisturbed("an agent that is replaced without the API server", [&near, &far], || {
        server.stop()?;
        one.agent().kill9()?;
        one.agent().start_with(&[("MANX_KUBERNETES", "/etc/manx/kubeconfig")])?;
        one.agent().wait_ready(CONVERGENCE)?;
        mesh_is(one, "up again without the API server", true, Some(255))?;
        wait_until("node2 having both sessions again", UNANSWERED, || all_established(two) == Some(2))?;
        // What was kept of before goes only when the peers have said all they have.
        wait_until("nobody keeping paths of before", CONVERGENCE, || ![one, two].into_iter().any(node_keeps))?;
        Ok(())
    })?;
    reaches(&near, &far)?;
    nobody_tells(&lab, "mesh-secret")?;
    lab.down()?;
    Ok(())
}
