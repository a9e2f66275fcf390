use kernel::fake::{FakeKernel, Operation};
use kernel::{Netns, VethSpec};

use super::*;

const GROUP: u32 = 4_077;

/// The host's end of a pair of ours, down, in a group.
fn link(kernel: &mut FakeKernel, container: &str, group: u32) -> u32 {
    let netns = Netns::current().unwrap();
    let host = types::InterfaceName::of_attachment(&container.parse().unwrap(), &"eth0".parse().unwrap());
    let peer = types::InterfaceName::new(format!("p{container}")).unwrap();
    let spec = VethSpec {
        host,
        host_mac: ours::HOST_MAC,
        host_up: false,
        host_group: group,
        peer,
        peer_netns: &netns,
        peer_mac: None,
        mtu: 1_500,
    };
    kernel.create_veth(&spec).unwrap()
}

fn indices(kernel: &FakeKernel) -> Vec<u32> {
    kernel.clone().links().unwrap().iter().map(|link| link.index).filter(|index| *index != 1).collect()
}

fn join(kernel: &FakeKernel, index: u32) {
    let change = LinkChange { group: Some(GROUP), ..LinkChange::default() };
    kernel.clone().change_link(index, &change).unwrap();
}

#[test]
fn what_comes_into_the_group_while_it_is_reaped_stays() {
    let mut kernel = FakeKernel::new();
    link(&mut kernel, "c1", GROUP);
    let foreign = kernel.add_link("eth9", true);
    let late = link(&mut kernel, "c2", 0);
    kernel.before(Operation::DeleteLinkGroup, move |kernel| {
        join(kernel, foreign);
        join(kernel, late);
    });
    assert_eq!(reap(&mut kernel, GROUP).unwrap(), 1);
    assert_eq!(indices(&kernel), [foreign, late]);
    // The one that is ours is the next time's.
    assert_eq!(reap(&mut kernel, GROUP).unwrap(), 1);
    assert_eq!(indices(&kernel), [foreign]);
}

#[test]
fn a_link_of_ours_that_is_in_use_and_what_is_anothers_is_not_reaped() {
    let mut kernel = FakeKernel::new();
    let used = link(&mut kernel, "c1", GROUP);
    kernel.set_link_up(used, true);
    let foreign = kernel.add_link("eth9", false);
    join(&kernel, foreign);
    link(&mut kernel, "c2", GROUP);
    assert_eq!(reap(&mut kernel, GROUP).unwrap(), 1);
    assert_eq!(indices(&kernel), [used, foreign]);
}

#[test]
fn many_links_go_with_few_messages() {
    let mut kernel = FakeKernel::new();
    for number in 0..300 {
        link(&mut kernel, &format!("c{number}"), GROUP);
    }
    assert_eq!(reap(&mut kernel, GROUP).unwrap(), 300);
    assert_eq!(indices(&kernel), Vec::<u32>::new());
    assert_eq!((kernel.count(Operation::DeleteLinkGroup), kernel.count(Operation::DeleteLink)), (3, 0));
}

#[test]
fn what_could_not_be_deleted_is_ours_still_and_goes_the_next_time() {
    let mut kernel = FakeKernel::new();
    let parked = link(&mut kernel, "c1", GROUP);
    kernel.fail(Operation::DeleteLinkGroup, 1, 16);
    assert!(reap(&mut kernel, GROUP).is_err());
    assert_eq!(indices(&kernel), [parked]);
    assert_eq!(reap(&mut kernel, GROUP).unwrap(), 1);
    assert_eq!(indices(&kernel), Vec::<u32>::new());
}
