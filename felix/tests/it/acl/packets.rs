//! What passes and what does not.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use felix::acl::{Acl, AclConfig, NatPool};
use felix::policy::{Infrastructure, PolicyUpdate};
use kernel::acl::IptablesVariant;
use types::Update;
use types::config::{EndpointToHost, NatOutgoingExclusions};
use types::policy::Direction::{Egress, Ingress};

use super::node::{Node, addresses, connect, echoes, serve, sh, udp};
use super::{VARIANTS, admits, facts, id, policy_id, set_policy, sources};
use crate::{block_on, ip, prefix};

/// Pods 1 (`client`), 2 (`server`) and 3 (`other`), all attached.
async fn attach_all(acl: &Acl) {
    for (pod, app) in [(1, "client"), (2, "server"), (3, "other")] {
        acl.attach(id(pod), facts(pod, app)).await.unwrap();
    }
}

fn started(variant: IptablesVariant) -> Option<(Node, Acl)> {
    let node = Node::new(variant, 3)?;
    for pod in 1..=3 {
        serve(node.pod(pod), 80);
        serve(node.pod(pod), 81);
    }
    let acl = node.start();
    Some((node, acl))
}

#[test]
fn policies_are_enforced_from_attach_on_and_changed_live() {
    for variant in VARIANTS {
        let Some((node, acl)) = started(variant) else { return };
        assert!(!node.connects(1, 2, 80), "nothing is attached");
        block_on(async {
            acl.local_in_sync().await;
            acl.update(sources(vec![("web", admits("server", Ingress, &["client"], 80))])).await;
            attach_all(&acl).await;
        });
        assert!(node.connects(1, 2, 80) && node.connects(2, 1, 80) && node.connects(1, 3, 81));
        assert!(!node.connects(1, 2, 81), "another port");
        assert!(!node.connects(3, 2, 80), "another peer");
        block_on(async {
            acl.relabel(id(3), facts(3, "client")).await.unwrap();
            acl.update(vec![set_policy("mute", admits("client", Egress, &["server"], 80))]).await;
            acl.view().await.unwrap();
            acl.relabel(id(1), facts(1, "client")).await.unwrap();
        });
        assert!(node.connects(3, 2, 80) && node.connects(1, 2, 80));
        assert!(!node.connects(1, 3, 81), "egress is governed now");
        block_on(async {
            acl.update(vec![PolicyUpdate::Policy(Update::Delete(policy_id("mute")))]).await;
            acl.update(vec![PolicyUpdate::Policy(Update::Delete(policy_id("web")))]).await;
            acl.relabel(id(1), facts(1, "client")).await.unwrap();
            acl.relabel(id(2), facts(2, "server")).await.unwrap();
        });
        assert!(node.connects(1, 3, 81) && node.connects(3, 2, 81));
        block_on(async {
            acl.detach(id(2)).await.unwrap();
        });
        assert!(!node.connects(1, 2, 80) && !node.connects(2, 1, 80), "it is unknown again");
    }
}

#[test]
fn the_node_reaches_its_pods_and_pods_their_node_as_configured_and_neighbours_are_found() {
    for (to_host, passes) in
        [(EndpointToHost::Accept, true), (EndpointToHost::Policed, false), (EndpointToHost::Drop, false)]
    {
        let Some(node) = Node::new(IptablesVariant::Nft, 1) else { return };
        let acl = node.start_with(AclConfig { endpoint_to_host: to_host, ..AclConfig::default() });
        serve(&node.netns, 80);
        serve(node.pod(1), 80);
        block_on(async {
            acl.local_in_sync().await;
            acl.update(sources(vec![
                ("in", admits("client", Ingress, &[], 80)),
                ("out", admits("client", Egress, &[], 80)),
            ]))
            .await;
            acl.attach(id(1), facts(1, "client")).await.unwrap();
        });
        // What the pod and the node know of each other is forgotten, so that they have to ask.
        sh(node.pod(1), "ip neigh flush all; ip -6 neigh flush all");
        node.sh("ip neigh flush all; ip -6 neigh flush all");
        for address in addresses(1) {
            assert!(connect(&node.netns, address, 80).is_some(), "{to_host:?}: the node to {address}");
            assert!(connect(&node.outside, address, 80).is_none(), "{to_host:?}: another host to {address}");
        }
        for address in [ip("192.0.2.9"), ip("2001:db8:1::9")] {
            assert_eq!(connect(node.pod(1), address, 80).is_some(), passes, "{to_host:?}: the pod to {address}");
        }
    }
}

#[test]
fn sources_that_are_not_the_pods_own_and_unknown_interfaces_are_dropped() {
    for variant in VARIANTS {
        let Some((node, acl)) = started(variant) else { return };
        block_on(async {
            acl.local_in_sync().await;
            acl.update(sources(vec![])).await;
            attach_all(&acl).await;
        });
        let [v4, v6] = addresses(2).map(|address| udp(node.pod(2), SocketAddr::new(address, 9)));
        // Pod 1 takes pod 3's addresses.
        sh(node.pod(1), "ip addr add 10.65.0.3/32 dev eth0; ip addr add fd65::3/128 dev eth0 nodad");
        for (socket, from, to) in [(&v4, addresses(3)[0], addresses(2)[0]), (&v6, addresses(3)[1], addresses(2)[1])] {
            let send = |from| udp(node.pod(1), SocketAddr::new(from, 0)).send_to(&[1], SocketAddr::new(to, 9)).unwrap();
            // First so that the pod knows its gateway: it asks for it under the address that it sends from.
            let own = addresses(1)[usize::from(from.is_ipv6())];
            send(own);
            assert!(socket.recv(&mut [0]).is_ok(), "{own} is pod 1's");
            send(from);
            assert!(socket.recv(&mut [0]).is_err(), "{from} is not");
        }
        let view = block_on(acl.view()).unwrap();
        assert!(view.spoofed_drops >= 2, "{view:?}");
        // An interface of ours that nobody attached, with a route of its own.
        block_on(acl.detach(id(1))).unwrap();
        assert!(!node.connects(1, 2, 80) && !node.connects(2, 1, 80));
        assert!(block_on(acl.view()).unwrap().unknown_drops > view.unknown_drops);
    }
}

#[test]
fn a_tightened_policy_cuts_connections_and_they_cannot_be_picked_up_from_the_other_end() {
    for variant in VARIANTS {
        let Some((node, acl)) = started(variant) else { return };
        block_on(async {
            acl.local_in_sync().await;
            acl.update(sources(vec![("web", admits("server", Ingress, &["client", "other"], 80))])).await;
            attach_all(&acl).await;
        });
        for family in [0, 1] {
            let mut cut = connect(node.pod(3), addresses(2)[family], 80).unwrap();
            let mut kept = connect(node.pod(1), addresses(2)[family], 80).unwrap();
            let mut of_host = connect(&node.netns, addresses(2)[family], 80).unwrap();
            assert!(echoes(&mut cut));
            block_on(acl.update(vec![set_policy("web", admits("server", Ingress, &["client"], 80))]));
            let deadline = Instant::now() + Duration::from_secs(10);
            while block_on(acl.view()).unwrap().connections_cut <= family as u64 {
                assert!(Instant::now() < deadline, "nothing is cut");
            }
            assert!(!echoes(&mut cut), "it is forbidden now");
            assert!(echoes(&mut kept) && echoes(&mut of_host), "these are not");
            block_on(acl.update(vec![set_policy("web", admits("server", Ingress, &["client", "other"], 80))]));
            block_on(acl.relabel(id(2), facts(2, "server"))).unwrap();
        }
    }
}

#[test]
fn pods_of_pools_with_outgoing_nat_leave_under_the_nodes_address() {
    for variant in VARIANTS {
        let Some((node, acl)) = started(variant) else { return };
        // kube-proxy's hook comes later, and at the head.
        block_on(async {
            acl.local_in_sync().await;
            acl.update(sources(vec![])).await;
            attach_all(&acl).await;
            acl.nat_pools(vec![
                NatPool { cidr: prefix("10.65.0.0/16"), outgoing: true },
                NatPool { cidr: prefix("fd65::/48"), outgoing: true },
            ])
            .await;
            acl.relabel(id(1), facts(1, "client")).await.unwrap();
        });
        let seen_from = |to: &str, from: u8| {
            let to = ip(to);
            let there = udp(&node.outside, SocketAddr::new(to, 9));
            let own = addresses(from)[usize::from(to.is_ipv6())];
            crate::wait_until("the masquerade", || {
                // A flow is translated from its first packet on, or never.
                let here = udp(node.pod(from), SocketAddr::new(own, 0));
                here.send_to(&[1], SocketAddr::new(to, 9)).unwrap();
                there.recv_from(&mut [0]).is_ok_and(|(_, sender)| sender.ip() != own)
            });
        };
        seen_from("192.0.2.1", 1);
        seen_from("2001:db8:1::1", 1);
        let there = udp(node.pod(2), SocketAddr::new(addresses(2)[0], 9));
        udp(node.pod(1), SocketAddr::new(addresses(1)[0], 0))
            .send_to(&[1], SocketAddr::new(addresses(2)[0], 9))
            .unwrap();
        assert_eq!(there.recv_from(&mut [0]).unwrap().1.ip(), addresses(1)[0], "not between pools");
    }
}

#[test]
fn a_restart_loses_no_allowed_packet_and_passes_no_forbidden_one() {
    for variant in VARIANTS {
        let Some((node, acl)) = started(variant) else { return };
        let policies = || sources(vec![("web", admits("server", Ingress, &["client"], 80))]);
        block_on(async {
            acl.local_in_sync().await;
            acl.update(policies()).await;
            attach_all(&acl).await;
        });
        let mut allowed = connect(node.pod(1), addresses(2)[0], 80).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let flow = scope.spawn(|| {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    // One packet lost is 200 ms without an answer.
                    let began = Instant::now();
                    assert!(echoes(&mut allowed) && began.elapsed() < Duration::from_millis(150));
                    assert!(connect(node.pod(1), addresses(2)[0], 80).is_some(), "a new connection");
                    count += 1;
                }
                count
            });
            let forbidden = scope.spawn(|| {
                let (here, there) = (SocketAddr::new(addresses(3)[0], 0), SocketAddr::new(addresses(2)[0], 9));
                let (sender, receiver) = (udp(node.pod(3), here), udp(node.pod(2), there));
                receiver.set_nonblocking(true).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    sender.send_to(&[1], there).unwrap();
                    assert!(receiver.recv(&mut [0]).is_err(), "a forbidden packet");
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let mut acl = acl;
            for _ in 0..3 {
                drop(acl);
                acl = node.start();
                let readiness = acl.readiness();
                block_on(async {
                    acl.view().await.unwrap();
                    assert_ne!(*readiness.borrow(), Vec::<String>::new(), "sources are not in sync");
                    attach_all(&acl).await;
                    acl.local_in_sync().await;
                    acl.update(policies()).await;
                    acl.relabel(id(1), facts(1, "client")).await.unwrap();
                    assert_eq!(acl.view().await.unwrap().restore.count(), 0, "nothing differs");
                    assert_eq!(*readiness.borrow(), Vec::<String>::new());
                });
            }
            stop.store(true, Ordering::Relaxed);
            assert!(flow.join().unwrap() > 3);
            forbidden.join().unwrap();
        });
    }
}

#[test]
fn a_server_that_pushes_does_not_get_its_connection_back_after_a_cut() {
    use std::io::{Read, Write};
    let Some((node, acl)) = started(IptablesVariant::Nft) else { return };
    let listener = kernel::netns::run_in(node.pod(2), || std::net::TcpListener::bind("0.0.0.0:82").unwrap()).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.write_all(&[7; 512]).is_ok() {
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    let web = |from: &[&str]| admits("server", Ingress, from, 82);
    block_on(async {
        acl.local_in_sync().await;
        acl.update(sources(vec![("web", web(&["client"]))])).await;
        attach_all(&acl).await;
    });
    let address = SocketAddr::new(addresses(2)[0], 82);
    let client = || std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).unwrap();
    let mut client = kernel::netns::run_in(node.pod(1), client).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut buffer = [0; 4096];
    assert!(client.read(&mut buffer).unwrap() > 0);
    block_on(acl.update(vec![set_policy("web", web(&[]))]));
    // What was on its way is read; then nothing comes, though the server goes on.
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.read(&mut buffer).is_ok() {
        assert!(Instant::now() < deadline, "the download goes on");
    }
    assert!(client.read(&mut buffer).is_err());
    assert_eq!(block_on(acl.view()).unwrap().connections_cut, 1);
}

#[test]
fn speakers_are_closed_to_pods_also_to_connections_of_before_and_open_to_pods_that_the_node_peers_with() {
    for variant in VARIANTS {
        let Some((node, acl)) = started(variant) else { return };
        let speakers = [ip("192.0.2.9"), ip("2001:db8:1::9"), ip("192.0.2.1"), ip("2001:db8:1::1")];
        for netns in [&node.netns, &node.outside] {
            [179, 1790, 80].into_iter().for_each(|port| serve(netns, port));
        }
        block_on(async {
            acl.local_in_sync().await;
            acl.update(sources(vec![])).await;
            attach_all(&acl).await;
        });
        // Before anything is told, the node's own port of BGP is closed, at every address of the node.
        for address in [ip("192.0.2.9"), ip("2001:db8:1::9"), ip("169.254.1.1")] {
            assert!(connect(node.pod(1), address, 179).is_none(), "{address}");
        }
        let mut of_before: Vec<_> =
            speakers.iter().map(|address| connect(node.pod(1), *address, 1790).unwrap()).collect();
        let tell = |routers: &str| {
            let is_closed = routers.is_empty();
            let routers = if routers.is_empty() { Vec::new() } else { vec![routers.parse().unwrap()] };
            let infrastructure =
                Infrastructure { speakers: speakers.map(|address| (address, 1790)).into(), own_port: 1790, routers };
            block_on(acl.infrastructure(infrastructure));
            // Rules of no class: nobody waits for them.
            let is_told = || {
                let own = speakers.iter().zip([true, true, false, false]);
                own.into_iter()
                    .all(|(address, own)| connect(node.pod(1), *address, 1790).is_some() == (own && !is_closed))
            };
            crate::wait_until("what was told being in force", is_told);
        };
        tell("");
        for (address, stream) in speakers.iter().zip(&mut of_before) {
            assert!(!echoes(stream), "{address}: a connection of before goes on");
            assert!(connect(node.pod(1), *address, 1790).is_none(), "{address}: a new connection");
            assert!(connect(node.pod(1), *address, 80).is_some(), "{address}: another port");
            assert!(connect(&node.netns, *address, 1790).is_some(), "{address}: from the node itself");
        }
        tell("app == 'client'");
        for (address, own) in speakers.iter().zip([true, true, false, false]) {
            assert_eq!(connect(node.pod(1), *address, 1790).is_some(), own, "{address}: a pod that is a router");
            assert!(connect(node.pod(2), *address, 1790).is_none(), "{address}: another pod");
        }
        assert!(block_on(acl.view()).unwrap().refused_drops >= 8);
    }
}

#[test]
fn neither_a_translated_destination_nor_the_nodes_loopback_leads_past_what_is_closed() {
    for variant in VARIANTS {
        let Some((node, acl)) = started(variant) else { return };
        let speakers = [ip("192.0.2.1"), ip("2001:db8:1::1")];
        [179, 80].into_iter().for_each(|port| serve(&node.outside, port));
        // As portmap does.
        node.sh("sysctl -qw net.ipv4.conf.mxpod1.route_localnet=1");
        serve(&node.netns, 8080);
        block_on(async {
            acl.local_in_sync().await;
            acl.update(sources(vec![])).await;
            attach_all(&acl).await;
            acl.infrastructure(Infrastructure {
                speakers: speakers.map(|address| (address, 179)).into(),
                ..Infrastructure::default()
            })
            .await;
            acl.nat_pools(vec![
                NatPool { cidr: prefix("10.65.0.0/16"), outgoing: true },
                NatPool { cidr: prefix("fd65::/48"), outgoing: true },
            ])
            .await;
        });
        crate::wait_until("what was told being in force", || {
            speakers.iter().all(|address| connect(node.pod(1), *address, 179).is_none())
        });
        for (service, port) in [(8179, 179), (8080, 80)] {
            let program = if variant == IptablesVariant::Nft { "nft" } else { "legacy" };
            node.sh(&format!(
                "iptables-{program} -t nat -A PREROUTING -p tcp -d 203.0.113.1 --dport {service} -j DNAT --to 192.0.2.1:{port}
                 ip6tables-{program} -t nat -A PREROUTING -p tcp -d 2001:db8:cb::1 --dport {service} -j DNAT --to [2001:db8:1::1]:{port}"
            ));
            for address in [ip("203.0.113.1"), ip("2001:db8:cb::1")] {
                assert_eq!(connect(node.pod(1), address, service).is_some(), port == 80, "{address}:{service}");
            }
            // From no pod of this node: kube-proxy gives such a connection the node's address.
            for (address, via) in [("203.0.113.1", "192.0.2.9"), ("2001:db8:cb::1", "2001:db8:1::9")] {
                node.sh(&format!(
                    "{}tables-{program} -t nat -A POSTROUTING -p tcp --dport {port} -m conntrack --ctstate DNAT -j MASQUERADE",
                    if address.contains(':') { "ip6" } else { "ip" }
                ));
                sh(&node.outside, &format!("ip route replace {address} via {via}"));
                let from_outside = connect(&node.outside, ip(address), service).is_some();
                assert_eq!(from_outside, port == 80, "from outside to {address}:{service}");
            }
        }
        assert!(connect(node.pod(1), ip("192.0.2.9"), 8080).is_some());
        sh(
            node.pod(1),
            "ip addr del 127.0.0.1/8 dev lo; ip route add 127.0.0.0/8 via 169.254.1.1 dev eth0 src 10.65.0.1
                         sysctl -qw net.ipv4.conf.eth0.route_localnet=1",
        );
        assert!(connect(node.pod(1), ip("127.0.0.1"), 8080).is_none(), "the node's loopback");
    }
}

#[test]
fn masquerade_leaves_out_nodes_where_that_is_configured_and_no_others() {
    for (exclusions, masqueraded) in
        [(NatOutgoingExclusions::IpPoolsOnly, true), (NatOutgoingExclusions::IpPoolsAndHostIps, false)]
    {
        let Some(node) = Node::new(IptablesVariant::Nft, 1) else { return };
        sh(&node.outside, "ip addr add 192.0.2.77/24 dev eth0; ip addr add 2001:db8:1::77/64 dev eth0 nodad");
        let acl = node.start_with(AclConfig { nat_outgoing_exclusions: exclusions, ..AclConfig::default() });
        let other = [ip("192.0.2.1"), ip("2001:db8:1::1")];
        block_on(async {
            acl.local_in_sync().await;
            acl.update(sources(vec![])).await;
            acl.attach(id(1), facts(1, "client")).await.unwrap();
            acl.nat_pools(vec![
                NatPool { cidr: prefix("10.65.0.0/16"), outgoing: true },
                NatPool { cidr: prefix("fd65::/48"), outgoing: true },
            ])
            .await;
            acl.nodes([("node2".parse().unwrap(), other.to_vec())].into()).await;
        });
        for stranger in ["192.0.2.77", "2001:db8:1::77"].map(ip) {
            let there = udp(&node.outside, SocketAddr::new(stranger, 9));
            crate::wait_until("the masquerade", || {
                let own = addresses(1)[usize::from(stranger.is_ipv6())];
                udp(node.pod(1), SocketAddr::new(own, 0)).send_to(&[1], SocketAddr::new(stranger, 9)).unwrap();
                there.recv_from(&mut [0]).is_ok_and(|(_, sender)| sender.ip() != own)
            });
        }
        for (to, nat) in other
            .into_iter()
            .map(|to| (to, masqueraded))
            .chain(["192.0.2.77", "2001:db8:1::77"].map(|to| (ip(to), true)))
        {
            let there = udp(&node.outside, SocketAddr::new(to, 9));
            let own = addresses(1)[usize::from(to.is_ipv6())];
            let here = udp(node.pod(1), SocketAddr::new(own, 0));
            // The first datagram may wait for a neighbour to be found.
            let (_, sender) = (0..10)
                .find_map(|_| {
                    here.send_to(&[1], SocketAddr::new(to, 9)).unwrap();
                    there.recv_from(&mut [0]).ok()
                })
                .unwrap();
            assert_eq!(sender.ip() != own, nat, "{exclusions:?}: to {to} from {sender}");
        }
    }
}
