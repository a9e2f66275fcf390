use super::*;

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn claim(block: &str, owner: &str) -> Update<Prefix, Claim> {
    Update::Set(block.parse().unwrap(), Claim { owner: Some(node(owner)), created: 1 })
}

fn published(at: &str, container: &str, address: &str) -> Update<(NodeName, EndpointId), Box<WorkloadEndpoint>> {
    let id: EndpointId = format!("manx/{container}/eth0").parse().unwrap();
    let endpoint = WorkloadEndpoint {
        host_interface: id.host_interface(),
        id: id.clone(),
        pod: types::PodRef { namespace: "default".to_owned(), name: container.to_owned(), uid: None },
        addresses: vec![address.parse().unwrap()],
        subnets: Vec::new(),
        labels: BTreeMap::new(),
        ports: Vec::new(),
        finished: false,
    };
    Update::Set((node(at), id), Box::new(endpoint))
}

fn peers(blocks: &[(&str, &str)]) -> Peers {
    let mut peers = Peers::new(node("own"));
    peers.block(Update::Restart);
    for (block, owner) in blocks {
        peers.block(claim(block, owner));
    }
    peers.block(Update::InSync);
    peers
}

fn counts(peers: &mut Peers, at: &str, address: &str) -> bool {
    matches!(peers.endpoint(published(at, "a", address)).as_slice(), [Update::Set(..)])
}

#[test]
fn an_endpoint_counts_only_where_its_publisher_owns_the_block() {
    let mut peers = peers(&[("10.0.0.0/26", "n1"), ("10.0.0.64/26", "n2"), ("fd00::/122", "n1")]);
    assert!(counts(&mut peers, "n1", "10.0.0.63") && counts(&mut peers, "n1", "fd00::3f"));
    for (at, address) in [("n1", "10.0.0.64"), ("n2", "10.0.0.1"), ("n1", "10.0.0.128"), ("n2", "fd00::1")] {
        assert!(!counts(&mut peers, at, address), "{at} {address}");
    }
    assert_eq!(peers.endpoint(published("own", "a", "10.0.0.1")), []);
}

#[test]
fn an_endpoint_heard_before_its_block_counts_once_the_block_is_heard() {
    let mut peers = peers(&[]);
    assert!(!counts(&mut peers, "n1", "10.0.0.1"));
    assert_eq!(peers.block(claim("10.0.0.64/26", "n1")), Consequence::Accepted(Vec::new()));
    let Consequence::Accepted(accepted) = peers.block(claim("10.0.0.0/26", "n1")) else { panic!() };
    assert_eq!(accepted.len(), 1);
    assert_eq!(peers.refused(), 0);
}

#[test]
fn endpoints_are_not_said_to_be_complete_before_blocks_are() {
    let mut peers = Peers::new(node("own"));
    assert_eq!(peers.endpoint(Update::Restart), [Update::Restart]);
    assert!(!counts(&mut peers, "n1", "10.0.0.1"));
    assert_eq!(peers.endpoint(Update::InSync), []);
    peers.block(Update::Restart);
    peers.block(claim("10.0.0.0/26", "n1"));
    assert_eq!(peers.block(Update::InSync), Consequence::Accepted(vec![Update::InSync]));
    assert_eq!(peers.endpoint(Update::InSync), [Update::InSync]);
}

#[test]
fn when_a_block_is_lost_endpoints_are_listed_anew() {
    let mut peers = peers(&[("10.0.0.0/26", "n1"), ("10.0.0.64/26", "n2")]);
    assert_eq!(peers.block(claim("10.0.0.0/26", "n2")), Consequence::Relist);
    assert_eq!(peers.block(Update::Delete("10.0.0.0/26".parse().unwrap())), Consequence::Relist);
    peers.block(Update::Restart);
    assert_eq!(peers.block(Update::InSync), Consequence::Relist, "n2's other block was not named again");
}
