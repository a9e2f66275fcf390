//! A speaker becomes another one: its identifier or its addresses change while it runs.

use bgp_proto::session::{DownReason, StopReason};
use bgp_proto::wire::Families;
use bgp_proto::{ByFamily, Identity, PeerConfig};
use types::{Family, RouterId};

use super::{MINUTE, SECOND, converged_mesh, downs, is_converged};
use crate::simnet::{address, block, peer};

fn reconfigured() -> (DownReason, Families) {
    (DownReason::Stopped(StopReason::ConfigurationChange), Families::NONE)
}

#[test]
fn with_another_identifier_every_session_begins_anew_and_with_the_same_none() {
    let mut net = converged_mesh(3);
    net.identify(1, net.identity(1));
    net.run(SECOND);
    assert_eq!(downs(&net, 1, 2), []);

    let router_id = RouterId::new([198, 51, 100, 1].into()).unwrap();
    net.identify(1, Identity { router_id, ..net.identity(1) });
    net.run(MINUTE);
    for other in [2, 3] {
        assert_eq!(downs(&net, 1, other), [reconfigured(), reconfigured()], "one of each family");
        let speaker = net.node(other).speaker.as_ref().unwrap();
        let of_one = speaker.peers().filter(|status| status.config.address == address(1, Family::Ipv4));
        let seen: Vec<_> = of_one.map(|status| status.negotiated.map(|agreed| agreed.router_id)).collect();
        assert_eq!(seen, [Some(router_id)]);
    }
    assert_eq!(downs(&net, 2, 3), []);
    assert!(is_converged(&net, 3));
}

#[test]
fn another_address_ends_the_sessions_that_name_it_as_next_hop_and_no_other() {
    let mut net = converged_mesh(3);
    // IPv6 over the session with node 2's IPv4 address: what it is told names our IPv6 address.
    let both = |from, to| PeerConfig { families: Families::ALL, ..peer(from, to, Family::Ipv4) };
    net.configure(1, vec![both(1, 2), peer(1, 3, Family::Ipv4), peer(1, 3, Family::Ipv6)], None);
    net.configure(2, vec![both(2, 1)], None);
    net.run(MINUTE);
    let (to_two, to_three) = (downs(&net, 1, 2).len(), downs(&net, 1, 3).len());

    let renumbered = "2001:db8::99".parse().unwrap();
    let addresses = ByFamily { ipv6: Some(renumbered), ..net.identity(1).addresses };
    net.identify(1, Identity { addresses, ..net.identity(1) });
    net.run(MINUTE);
    assert_eq!(downs(&net, 1, 2)[to_two..], [reconfigured()]);
    assert_eq!(downs(&net, 1, 3).len(), to_three);
    let speaker = net.node(2).speaker.as_ref().unwrap();
    let view = speaker.routes(Family::Ipv6, Some(block(1, Family::Ipv6))).next().unwrap();
    assert_eq!(view.paths.iter().map(|path| path.next_hop).collect::<Vec<_>>(), [renumbered]);
}
