//! Compares the judge with the compiler.

use std::cell::Cell;
use std::collections::BTreeSet;

use felix::policy::program::Change;
use felix::policy::{Compiler, CompilerConfig};
use oracle::generate::{self, Order};
use oracle::{Direction, Exemptions, Packet, Probe, World, handover, judge};
use types::policy::{Flow, Judgement};

use crate::history::{History, LIMITS, histories};
use crate::node::{News, Node};
use crate::program::Program;

/// How a node hears of a world at first: all of it listed.
const LISTED: Order = Order { shuffle: 0, relist: true, noise: false, eager: false };

#[test]
fn compiled_policies_do_to_every_packet_what_the_specification_says() {
    let probes = Cell::new(0_usize);
    generate::check("whole worlds", 120, &generate::world(8), |world| {
        for limit in LIMITS {
            let nodes = Nodes::of(world, limit)?;
            probes.set(probes.get() + nodes.compare(world)?);
        }
        Ok(())
    });
    assert!(probes.get() >= 100_000, "only {} packets", probes.get());
}

#[test]
fn what_is_compiled_does_not_depend_on_how_it_came_to_that() {
    generate::check("histories", 150, &histories(4, 6), |History { world, steps, limit }| {
        let mut nodes = Nodes::of(world, *limit)?;
        let mut old = world.clone();
        for (index, step) in steps.iter().enumerate() {
            let mut new = old.clone();
            for change in &step.changes {
                let before = new.clone();
                change.apply(&mut new);
                if step.order.noise {
                    nodes.hear(&before, &new, step.order)?;
                }
            }
            nodes.hear(if step.order.noise { &new } else { &old }, &new, step.order)?;
            let at = |what: String| format!("after step {index}: {what}");
            nodes.compare(&new).map_err(at)?;
            nodes.equal(&nodes.anew(&new, *limit)?, *limit == LIMITS[1]).map_err(at)?;
            old = new;
        }
        Ok(())
    });
}

#[test]
fn what_is_explained_is_what_the_specification_says_at_both_ends_on_every_node() {
    generate::check("explanations", 60, &histories(6, 2), |History { world, steps, limit }| {
        let mut nodes = Nodes::of(world, *limit)?;
        let mut old = world.clone();
        for step in steps {
            let mut new = old.clone();
            step.changes.iter().for_each(|change| change.apply(&mut new));
            nodes.hear(&old, &new, step.order)?;
            nodes.explain(&new)?;
            old = new;
        }
        Ok(())
    });
}

#[test]
fn who_finds_no_class_has_no_network_and_gets_one_when_one_is_free() {
    generate::check("few classes", 60, &histories(4, 4), |History { world, steps, limit }| {
        let mut nodes = Nodes::of_classes(world, *limit, 3, 1)?;
        let mut old = world.clone();
        for (index, step) in steps.iter().enumerate() {
            let mut new = old.clone();
            step.changes.iter().for_each(|change| change.apply(&mut new));
            nodes.hear(&old, &new, step.order)?;
            nodes.compare_placed(&new).map_err(|what| format!("after step {index}: {what}"))?;
            old = new;
        }
        Ok(())
    });
}

#[test]
fn no_step_on_the_way_opens_or_closes_what_neither_end_of_it_does() {
    generate::check("ways", 60, &histories(3, 4), |History { world, steps, limit }| {
        let mut nodes = Nodes::of(world, *limit)?;
        let mut old = world.clone();
        for (index, step) in steps.iter().enumerate() {
            let mut new = old.clone();
            step.changes.iter().for_each(|change| change.apply(&mut new));
            let order = Order { relist: false, noise: false, eager: true, ..step.order };
            nodes.watch(&old, &new, order).map_err(|what| format!("in step {index}: {what}"))?;
            old = new;
        }
        Ok(())
    });
}

/// The agents of all nodes, as far as policies are concerned.
struct Nodes(Vec<(Node, Compiler, Program)>);

impl Nodes {
    /// Agents that have just started in this world.
    fn of(world: &World, narrow_limit: usize) -> Result<Self, String> {
        Self::of_classes(world, narrow_limit, 200, 0)
    }

    /// The same agents with only this many numbers for classes, of which so many stay when nobody is in them.
    fn of_classes(world: &World, narrow_limit: usize, classes: u16, idle_classes: usize) -> Result<Self, String> {
        let nodes = generate::NODES.iter().map(|(name, _)| Node::new(name));
        Self::begin(nodes, world, CompilerConfig { classes, narrow_limit, idle_classes })
    }

    /// The same nodes, with agents that know nothing yet.
    fn anew(&self, world: &World, narrow_limit: usize) -> Result<Self, String> {
        let nodes = self.0.iter().map(|(node, ..)| node.anew());
        Self::begin(nodes, world, CompilerConfig { classes: 200, narrow_limit, idle_classes: 0 })
    }

    fn begin(nodes: impl Iterator<Item = Node>, world: &World, config: CompilerConfig) -> Result<Self, String> {
        let mut nodes = Self(nodes.map(|node| (node, Compiler::new(config), Program::default())).collect());
        nodes.hear(&World::default(), world, LISTED)?;
        Ok(nodes)
    }

    /// Tells the agents that the world has become another.
    fn hear(&mut self, old: &World, new: &World, order: Order) -> Result<(), String> {
        for (node, compiler, program) in &mut self.0 {
            for news in node.news(old, new, order) {
                tell(compiler, news);
                if order.eager {
                    carry_out(program, compiler.take_changes())?;
                }
            }
            carry_out(program, compiler.take_changes())?;
            program.check()?;
            if !compiler.in_sync() {
                return Err("not in sync".to_owned());
            }
        }
        Ok(())
    }

    /// The same, and checks after every single change that each verdict is that of before or after the report.
    fn watch(&mut self, old: &World, new: &World, order: Order) -> Result<(), String> {
        let probes: Vec<_> = probes(old).into_iter().chain(probes(new)).collect();
        for (node, compiler, program) in &mut self.0 {
            for news in node.news(old, new, order).into_iter().flatten() {
                let shown = format!("{news:?}");
                let before = program.clone();
                tell(compiler, vec![news]);
                let changes = compiler.take_changes();
                let mut after = program.clone();
                carry_out(&mut after, changes.clone())?;
                for change in &changes {
                    program.apply(change)?;
                    for (packet, direction) in probes
                        .iter()
                        .flat_map(|probe| [Direction::Ingress, Direction::Egress].map(|d| (&probe.packet, d)))
                    {
                        let now = program.allows(packet, direction).unwrap_or(false);
                        let ends = [&before, &after].map(|end| end.allows(packet, direction).unwrap_or(false));
                        if !ends.contains(&now) {
                            return Err(format!(
                                "{packet}, {direction}: {now} after {change:?}, though neither before nor after\n{shown}\n{changes:#?}"
                            ));
                        }
                    }
                }
            }
            program.check()?;
        }
        Ok(())
    }

    /// Checks that every packet of a world meets the fate that the specification demands. Returns how many were asked
    /// about.
    fn compare(&self, world: &World) -> Result<usize, String> {
        let probes = probes(world);
        for probe in &probes {
            let expected = judge(world, &probe.packet, NO_EXEMPTION);
            let egress = self.side(world, &probe.packet, Direction::Egress)?;
            let ingress = self.side(world, &probe.packet, Direction::Ingress)?;
            for (actual, side, name) in [
                (egress, &expected.egress, "egress at the source"),
                (ingress, &expected.ingress, "ingress at the destination"),
            ] {
                if actual != side.allowed {
                    let word = if actual { "allowed" } else { "denied" };
                    return Err(format!(
                        "{} -> {}: {}: {name} is {word}, should not be: {}",
                        probe.from, probe.to, probe.packet, side.why
                    ));
                }
            }
        }
        Ok(probes.len())
    }

    /// The same where class numbers are short: every endpoint with a class is governed as it should be, and no number
    /// is left unused while an endpoint lacks a class.
    fn compare_placed(&self, world: &World) -> Result<(), String> {
        for (_, compiler, program) in &self.0 {
            let stats = compiler.stats();
            if stats.unplaced_endpoints > 0 && program.classes.len() < 3 {
                return Err(format!("somebody has no class, and there are numbers left: {stats:?}"));
            }
        }
        for probe in probes(world) {
            let expected = judge(world, &probe.packet, NO_EXEMPTION);
            for (direction, side) in [(Direction::Egress, &expected.egress), (Direction::Ingress, &expected.ingress)] {
                match self.side(world, &probe.packet, direction) {
                    Ok(actual) if actual != side.allowed => {
                        return Err(format!("{}, {direction}: {actual}, should not be: {}", probe.packet, side.why));
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Checks that every node explains both ends of every flow as they are, and would cut just those connections that
    /// its own ends forbid.
    fn explain(&self, world: &World) -> Result<(), String> {
        let exemptions = Exemptions { itself: true, ..NO_EXEMPTION };
        for Probe { packet, .. } in probes(world) {
            let expected = judge(world, &packet, exemptions);
            let flow = Flow {
                source: packet.source,
                destination: packet.destination,
                protocol: handover::protocol(packet.protocol),
                port: packet.port,
            };
            for (index, (_, compiler, _)) in self.0.iter().enumerate() {
                let explained = compiler.explain(&flow);
                for (end, side) in [(&explained.source, &expected.egress), (&explained.destination, &expected.ingress)]
                {
                    if (end.verdict() == Judgement::Allowed) != side.allowed {
                        return Err(format!("node {index} says of {packet}: {end:?}, should not: {}", side.why));
                    }
                }
                let is_here = |address| {
                    world
                        .pod_at(address)
                        .is_some_and(|(_, pod)| generate::NODES.get(index).is_some_and(|(node, _)| *node == pod.node))
                };
                let own = (expected.egress.allowed || !is_here(packet.source))
                    && (expected.ingress.allowed || !is_here(packet.destination));
                if compiler.allows(&flow) != own {
                    return Err(format!("node {index} lets connections {packet} live: {}; {expected}", !own));
                }
            }
        }
        Ok(())
    }

    /// What the node of an end's pod says; an end that is no pod lets everything pass.
    fn side(&self, world: &World, packet: &Packet, direction: Direction) -> Result<bool, String> {
        let own = match direction {
            Direction::Ingress => packet.destination,
            Direction::Egress => packet.source,
        };
        let Some((name, pod)) = world.pod_at(own) else { return Ok(true) };
        let index = generate::NODES.iter().position(|(node, _)| *node == pod.node);
        let (_, _, program) = index.and_then(|index| self.0.get(index)).ok_or("no such node")?;
        program.allows(packet, direction).ok_or_else(|| format!("{own} of {name} is in no class"))
    }

    /// Checks that other agents, told the world from nothing, come to as much as these have, and that what each says it
    /// wants is what it has.
    fn equal(&self, fresh: &Self, is_between: bool) -> Result<(), String> {
        for ((_, compiler, program), (_, _, fresh)) in self.0.iter().zip(&fresh.0) {
            let members = |program: &Program| program.sets.values().map(BTreeSet::len).sum::<usize>();
            // Near the limit a peer stays written as it was before; away from it, only what exists now counts.
            let size = |program: &Program| match is_between {
                true => (0, 0, program.classes.len(), program.joins.len()),
                false => (program.sets.len(), members(program), program.classes.len(), program.joins.len()),
            };
            if size(program) != size(fresh) {
                return Err(format!(
                    "sets, members, classes, joins are {:?} and from scratch {:?}\n{program:#?}\n{fresh:#?}",
                    size(program),
                    size(fresh)
                ));
            }
            let (desired, counted) = desired(compiler);
            if desired != *program || counted != members(program) {
                return Err(format!("desired is\n{desired:#?} of {counted} members\nand in force\n{program:#?}"));
            }
        }
        Ok(())
    }
}

/// Which traffic no policy can stop: the compiler leaves it to backends.
const NO_EXEMPTION: Exemptions = Exemptions { from_own_node: false, to_own_node: false, itself: false };

fn probes(world: &World) -> Vec<Probe> {
    Probe::all(world, &generate::PORTS)
}

fn tell(compiler: &mut Compiler, news: Vec<News>) {
    for news in news {
        match news {
            News::Source(update) => compiler.apply(update),
            // Where an endpoint has no class, none of its addresses is joined to one.
            News::Attach(id, facts) => drop(compiler.set_local(id, facts)),
            News::Detach(id) => compiler.remove_local(&id),
        }
    }
}

fn carry_out(program: &mut Program, changes: Vec<Change>) -> Result<(), String> {
    for change in &changes {
        program.apply(change).map_err(|what| format!("{what}\nof {changes:#?}"))?;
    }
    Ok(())
}

/// What the compiler says should be in force, and how many members it counts.
fn desired(compiler: &Compiler) -> (Program, usize) {
    let desired = compiler.desired();
    let program = Program {
        sets: desired.sets().map(|(set, _)| (set, desired.elements(set).collect())).collect(),
        classes: desired.classes().map(|(id, class)| (id, class.clone())).collect(),
        joins: desired.memberships().collect(),
    };
    (program, desired.sets().map(|(_, count)| count).sum())
}
