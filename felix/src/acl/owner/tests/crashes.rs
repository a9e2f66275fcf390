//! The owner ends between any two calls to the kernel, and a new one begins.

use proptest::prelude::*;

use super::*;

/// Three worlds that follow each other: policies and labels of pods.
fn world(number: usize) -> (Vec<PolicyUpdate>, Vec<(u8, &'static str)>) {
    match number {
        0 => (vec![policy("web", "server", "client", (80, 9000))], vec![(1, "client"), (2, "server"), (3, "other")]),
        1 => (
            vec![policy("web", "server", "other", (80, 9500)), policy("db", "client", "server", (1, 4000))],
            vec![(1, "client"), (2, "server"), (3, "other")],
        ),
        _ => (vec![policy("db", "server", "client", (8500, 9000))], vec![(1, "server"), (2, "server"), (3, "client")]),
    }
}

/// Which pod reaches which on which port.
fn grid(kernel: &FakeAcl) -> Vec<bool> {
    let pods = [1, 2, 3];
    let flows = pods.into_iter().flat_map(|from| pods.map(|to| (from, to))).filter(|(from, to)| from != to);
    let ports = flows.flat_map(|(from, to)| [80, 8500, 9500, 9999].map(|port| (from, to, port)));
    ports.flat_map(|(from, to, port)| [4, 6].map(|family| admits(kernel, family, from, to, port))).collect()
}

/// Nothing passes that neither allows. What both allow may wait for the next life: a set that others' old rules speak of
/// is not added to before they are gone.
fn opens_no_more(now: &[bool], one: &[bool], other: &[bool]) -> bool {
    now.iter().zip(one).zip(other).all(|((now, one), other)| !now || *one || *other)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn wherever_it_ends_the_next_one_comes_to_the_same_and_nothing_is_open_that_neither_state_opens(
        first in 0..3_usize, second in 0..3_usize, operation in 0..4_usize, nth in 1..12_usize, lives in 1..3_usize,
    ) {
        let operations =
            [AclOperation::Restore, AclOperation::ChangeElements, AclOperation::CreateSet, AclOperation::DestroySet];
        let fresh = |number| {
            let kernel = FakeAcl::new();
            let (policies, pods) = world(number);
            Acl::running(&kernel, policies, &pods);
            kernel
        };
        let (before, target) = (grid(&fresh(first)), grid(&fresh(second)));
        let kernel = fresh(first);
        for _ in 0..lives {
            let mut acl = Acl::start(&kernel);
            assert_eq!(grid(&kernel), before, "before it knows anything it changes nothing");
            // From that call on nothing succeeds: to the kernel, that is the end.
            kernel.fail(operations[operation], nth, BUSY);
            let (policies, pods) = world(second);
            for (pod, app) in &pods {
                acl.attach(*pod, app);
            }
            acl.tell(Command::LocalInSync);
            acl.tell(Command::Update(in_sync(policies)));
            for _ in 0..nth {
                acl.round();
                assert!(opens_no_more(&grid(&kernel), &before, &target));
                if !acl.work_tables() {
                    break;
                }
            }
            kernel.heal();
            if grid(&kernel) != before {
                break;
            }
        }
        let mut acl = Acl::start(&kernel);
        assert!(opens_no_more(&grid(&kernel), &before, &target));
        let (policies, pods) = world(second);
        acl.begin(policies, &pods);
        assert_eq!(grid(&kernel), target);
        acl.after(Duration::from_secs(1));
        acl.after(Duration::from_secs(1));
        assert_eq!(grid(&kernel), target);
        // And again finds nothing to do.
        drop(acl);
        kernel.take_calls();
        let (policies, pods) = world(second);
        Acl::running(&kernel, policies, &pods);
        for operation in operations {
            assert_eq!(kernel.count(operation), 0, "{operation:?}: {:?}", kernel.calls());
        }
    }
}
