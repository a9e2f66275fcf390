//! Properties that hold for every sequence of events.

use proptest::prelude::*;
use types::Update;
use types::policy::{Direction, Flow, Judgement};

use super::generate::{Kinds, events, policy_id, probes, remote_key};
use super::kernel::Kernel;
use super::world::{Event, Probe, World};
use crate::policy::{Compiler, CompilerConfig, PolicyUpdate};

/// How many classes stay when nobody is in them.
const IDLE: usize = 2;

fn compiler(narrow_limit: usize, idle_classes: usize) -> Compiler {
    Compiler::new(CompilerConfig { narrow_limit, idle_classes, ..CompilerConfig::default() })
}

/// The verdict on each probe; none where the probe's own end is no endpoint of this node.
fn table(world: &World, probes: &[Probe]) -> Vec<Option<bool>> {
    probes.iter().map(|probe| world.allows(probe)).collect()
}

fn kernel_allows(kernel: &Kernel, probe: &Probe) -> bool {
    kernel.allows(probe.own, probe.direction, probe.other, probe.protocol, probe.port)
}

fn flow(probe: &Probe) -> Flow {
    let (source, destination) = match probe.direction {
        Direction::Ingress => (probe.other, probe.own),
        Direction::Egress => (probe.own, probe.other),
    };
    Flow { source, destination, protocol: probe.protocol, port: probe.port }
}

/// Compares the compiler's and the kernel's verdict on every probe with the world's.
fn agree(world: &World, compiler: &Compiler, kernel: &Kernel, probes: &[Probe]) -> Result<(), TestCaseError> {
    prop_assert_eq!(kernel, &Kernel::of(compiler.desired()), "the changes have led to what is desired");
    for probe in probes {
        let Some(allowed) = world.allows(probe) else { continue };
        prop_assert_eq!(kernel_allows(kernel, probe), allowed, "{:?}", probe);
        let flow = flow(probe);
        let explanation = compiler.explain(&flow);
        let end = match probe.direction {
            Direction::Ingress => &explanation.destination,
            Direction::Egress => &explanation.source,
        };
        prop_assert_eq!(end.verdict() == Judgement::Allowed, allowed, "{:?} of {:?}", end, probe);
        let there = match probe.direction {
            Direction::Ingress => Probe { own: probe.other, other: probe.own, direction: Direction::Egress, ..*probe },
            Direction::Egress => Probe { own: probe.other, other: probe.own, direction: Direction::Ingress, ..*probe },
        };
        prop_assert_eq!(compiler.allows(&flow), allowed && world.allows(&there).unwrap_or(true), "{:?}", probe);
    }
    Ok(())
}

/// Feeds events in batches. After each batch, and with `step_by_step` within it as well, checks what the changes do.
fn follow(
    batches: Vec<Vec<Event>>,
    limit: usize,
    step_by_step: bool,
    idle: usize,
) -> Result<(Compiler, World), TestCaseError> {
    let (mut compiler, mut kernel, mut world) = (compiler(limit, idle), Kernel::default(), World::default());
    let probes = probes();
    for batch in batches {
        let mut tables = vec![table(&world, &probes)];
        for event in batch {
            world.take(event.clone());
            event.give(&mut compiler);
            tables.push(table(&world, &probes));
        }
        let changes = compiler.take_changes();
        for (index, change) in changes.iter().enumerate() {
            kernel.take(change);
            if !step_by_step {
                continue;
            }
            for (cell, probe) in probes.iter().enumerate() {
                let allowed = kernel_allows(&kernel, probe);
                // If at some point there was no endpoint with this address, any verdict on it is right.
                let right = tables.iter().any(|table| table[cell].is_none_or(|wanted| wanted == allowed));
                prop_assert!(right, "{:?} is {} after {:?}", probe, allowed, &changes[..=index]);
            }
        }
        agree(&world, &compiler, &kernel, &probes)?;
    }
    Ok((compiler, world))
}

fn limits() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![0_usize, 2, 4, 1000])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_is_compiled_allows_what_the_policies_allow_and_no_step_opens_or_closes_too_much(
        batches in prop::collection::vec(events(Kinds::NetworkPolicies, 4), 1..12),
        limit in limits(),
    ) {
        follow(batches, limit, true, IDLE)?;
    }

    #[test]
    fn endpoints_that_part_from_a_class_never_live_by_what_it_becomes(
        first in events(Kinds::OneNamespace, 24),
        batches in prop::collection::vec(events(Kinds::OneNamespace, 2), 1..12),
        limit in limits(),
    ) {
        let batches = std::iter::once(first).chain(batches).collect();
        follow(batches, limit, true, IDLE)?;
    }

    #[test]
    fn tiers_with_allow_deny_and_pass_are_compiled_to_what_they_say(
        batches in prop::collection::vec(events(Kinds::All, 6), 1..8),
        limit in limits(),
    ) {
        follow(batches, limit, false, IDLE)?;
    }

    #[test]
    fn the_same_world_gives_the_same_sets_and_classes_however_it_came_about(
        batches in prop::collection::vec(events(Kinds::NetworkPolicies, 8), 1..6),
        limit in prop::sample::select(vec![0_usize, 1000]),
        order in any::<u64>(),
    ) {
        let (old, world) = follow(batches, limit, false, 0)?;
        let wanted = Kernel::of(old.desired()).by_key();
        let mut events = world.events();
        for round in 0..3_u64 {
            let mut new = compiler(limit, 0);
            match round {
                0 => events.reverse(),
                round => events.sort_by_key(|event| {
                    let text = format!("{event:?}{order}{round}");
                    text.bytes().fold(order, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x100_0000_01b3))
                }),
            }
            for (index, event) in events.iter().enumerate() {
                event.clone().give(&mut new);
                if (order >> (index % 64)) & 1 == 1 {
                    new.take_changes();
                    event.clone().give(&mut new);
                }
            }
            new.take_changes();
            prop_assert_eq!(&Kernel::of(new.desired()).by_key(), &wanted);
        }
    }

    #[test]
    fn a_source_that_lists_anew_loses_nothing_until_it_has_said_all(
        batch in events(Kinds::NetworkPolicies, 30),
        limit in limits(),
        forgotten in any::<u8>(),
    ) {
        let (mut compiler, mut world) = follow(vec![batch], limit, false, 0)?;
        let before = Kernel::of(compiler.desired());
        let restart = |compiler: &mut Compiler| {
            compiler.apply(PolicyUpdate::Policy(Update::Restart));
            compiler.apply(PolicyUpdate::Namespace(Update::Restart));
            compiler.apply(PolicyUpdate::Remote(Update::Restart));
            compiler.apply(PolicyUpdate::Expected(Update::Restart));
        };
        restart(&mut compiler);
        prop_assert_eq!(compiler.take_changes(), vec![]);
        prop_assert!(!compiler.in_sync());
        // The source lists anew, as after a lost connection, without some of what it had before.
        restart(&mut compiler);
        world.policies.remove(&policy_id(forgotten % 5));
        world.remotes.remove(&remote_key(forgotten / 5 % 5));
        world.namespaces.remove(&format!("n{}", forgotten % 3));
        for event in world.events() {
            event.give(&mut compiler);
        }
        prop_assert_eq!(compiler.take_changes(), vec![], "what has been said again changes nothing");
        let mut kernel = before;
        compiler.apply(PolicyUpdate::Policy(Update::InSync));
        compiler.apply(PolicyUpdate::Namespace(Update::InSync));
        compiler.apply(PolicyUpdate::Remote(Update::InSync));
        compiler.apply(PolicyUpdate::Expected(Update::InSync));
        prop_assert!(compiler.in_sync());
        compiler.take_changes().iter().for_each(|change| kernel.take(change));
        agree(&world, &compiler, &kernel, &probes())?;
    }

    #[test]
    fn when_all_has_gone_nothing_is_kept(
        batches in prop::collection::vec(events(Kinds::All, 10), 1..5),
        limit in limits(),
        reverse in any::<bool>(),
    ) {
        let (mut compiler, world) = follow(batches, limit, false, 0)?;
        let mut gone: Vec<_> = world.events().into_iter().map(|event| match event {
            Event::SetLocal(id, _) => Event::RemoveLocal(id),
            Event::Update(PolicyUpdate::Policy(Update::Set(id, _))) => Event::Update(PolicyUpdate::Policy(Update::Delete(id))),
            Event::Update(PolicyUpdate::Namespace(Update::Set(id, _))) => Event::Update(PolicyUpdate::Namespace(Update::Delete(id))),
            Event::Update(PolicyUpdate::Remote(Update::Set(id, _))) => Event::Update(PolicyUpdate::Remote(Update::Delete(id))),
            Event::Update(PolicyUpdate::Expected(Update::Set(id, _))) => Event::Update(PolicyUpdate::Expected(Update::Delete(id))),
            other => other,
        }).collect();
        if reverse {
            gone.reverse();
        }
        gone.into_iter().for_each(|event| event.give(&mut compiler));
        compiler.take_changes();
        prop_assert_eq!(compiler.kept(), 0, "{:?}", compiler);
        let kernel = Kernel::of(compiler.desired());
        prop_assert!(kernel.sets.is_empty() && kernel.joins.is_empty() && kernel.classes.len() == 1);
    }
}
