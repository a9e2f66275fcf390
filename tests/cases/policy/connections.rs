//! A policy that is tightened also ends the connections that it now forbids, and no others.

use std::error::Error;

use serde_json::{Value, json};
use tests::reach::Question;
use tests::{Flow, Place, Pod, PodSpec, Talker, TestResult, can_run_labs};
use types::Family;
use types::policy::Protocol;

use super::world::World;

/// A flow of every kind, in both families, each with its name.
fn flows(client: &Pod, server: &Pod) -> Result<Vec<(String, Flow)>, Box<dyn Error>> {
    let mut flows = Vec::new();
    for family in Family::ALL {
        let address = server.address(family);
        let name = |kind: &str| format!("{kind} from {} to {} by {family}", client.name(), server.name());
        for talker in [Talker::Client, Talker::Server, Talker::Nobody] {
            flows.push((name(&format!("TCP, {talker:?} talking,")), Flow::tcp(client, server, address, talker)?));
        }
        flows.push((name("UDP"), Flow::udp(client, server, address)?));
    }
    Ok(flows)
}

/// Waits until something arrives on every flow that sends.
fn all_live(flows: &[(String, Flow)]) -> TestResult {
    flows.iter().filter(|(_, flow)| flow.talks()).try_for_each(|(name, flow)| flow.lives(name))
}

/// A policy for one of the ends that admits pods with a label as the other.
fn admits(subject: &str, direction: &str, peer: &str) -> Value {
    let peers = json!([{ "podSelector": { "matchLabels": { "role": peer } } }]);
    let rules = if direction == "Ingress" { json!([{ "from": peers }]) } else { json!([{ "to": peers }]) };
    json!({
        "podSelector": { "matchLabels": { "role": subject } },
        "policyTypes": [direction],
        (direction.to_lowercase()): rules,
    })
}

#[test]
fn a_tightened_policy_cuts_the_connections_that_it_forbids_whoever_talks_and_no_others() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut world = World::up("cut")?;
    world.namespace("x", &[])?;
    let plug = |world: &mut World, node: &str, name: &str, role: &str| {
        world.plug(node, PodSpec::in_namespace("x", name).label("role", role))
    };
    let server = plug(&mut world, "node1", "server", "server")?;
    let near = plug(&mut world, "node1", "near", "client")?;
    let far = plug(&mut world, "node2", "far", "client")?;
    let other = plug(&mut world, "node2", "other", "other")?;
    // Each end's policy is tried in turn: the server's ingress, then the clients' egress.
    for (subject, direction, peer) in [("server", "Ingress", "client"), ("client", "Egress", "server")] {
        world.policy("x", "only", admits(subject, direction, peer))?;
        let spared = if direction == "Ingress" {
            world.policy("x", "other", admits(subject, direction, "other"))?;
            &other
        } else {
            &other
        };
        for client in [&near, &far, spared] {
            for family in Family::ALL {
                world.converges(client, Question::new(Protocol::Tcp, server.address(family), 80), true)?;
            }
        }
        let mut doomed = flows(&near, &server)?;
        doomed.extend(flows(&far, &server)?);
        let others = flows(spared, &server)?;
        all_live(&doomed)?;
        all_live(&others)?;
        // The policy is tightened: it admits nobody of that role any more.
        world.policy("x", "only", admits(subject, direction, "nobody"))?;
        for client in [&near, &far] {
            for family in Family::ALL {
                world.converges(client, Question::new(Protocol::Tcp, server.address(family), 80), false)?;
            }
        }
        for (name, flow) in &doomed {
            flow.is_dead(&format!("{direction}: {name}"))?;
        }
        all_live(&others)?;
        // The policy is loosened: a flow that was cut is not picked up from its middle, and new connections come about.
        drop(doomed);
        world.policy("x", "only", admits(subject, direction, peer))?;
        for client in [&near, &far] {
            world.converges(client, Question::new(Protocol::Tcp, server.address(Family::Ipv4), 80), true)?;
        }
        all_live(&others)?;
        world.delete_policy("x", "only")?;
        if direction == "Ingress" {
            world.delete_policy("x", "other")?;
        }
    }
    world.lab.down()?;
    Ok(())
}

#[test]
fn a_label_that_is_taken_away_cuts_connections_like_a_changed_policy() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut world = World::up("cutlabel")?;
    world.namespace("x", &[])?;
    let server = world.plug("node1", PodSpec::in_namespace("x", "server").label("role", "server"))?;
    let far = world.plug("node2", PodSpec::in_namespace("x", "far").label("role", "client"))?;
    world.policy("x", "only", admits("server", "Ingress", "client"))?;
    world.converges(&far, Question::new(Protocol::Tcp, server.address(Family::Ipv4), 80), true)?;
    world.converges(&far, Question::new(Protocol::Tcp, server.address(Family::Ipv6), 80), true)?;
    let doomed = flows(&far, &server)?;
    all_live(&doomed)?;
    world.label("x.far", "role", None)?;
    world.converges(&far, Question::new(Protocol::Tcp, server.address(Family::Ipv4), 80), false)?;
    for (name, flow) in &doomed {
        flow.is_dead(name)?;
    }
    world.lab.down()?;
    Ok(())
}
