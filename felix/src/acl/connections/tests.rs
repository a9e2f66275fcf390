use kernel::acl::Tuple;

use super::*;

#[test]
fn a_connection_is_judged_by_where_it_really_goes() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let tuple = |source, source_port, destination, destination_port| Tuple {
        source: ip(source),
        destination: ip(destination),
        protocol: 6,
        source_port,
        destination_port,
    };
    // A pod to a service's address; the service sends it to another pod's port.
    let connection = Connection {
        original: tuple("10.65.0.5", 40_000, "10.96.0.1", 443),
        reply: tuple("10.65.1.7", 6_443, "10.65.0.5", 40_000),
        zone: 0,
        id: None,
    };
    let expected =
        Flow { source: ip("10.65.0.5"), destination: ip("10.65.1.7"), protocol: Some(Protocol::Tcp), port: 6_443 };
    assert_eq!(flow(&connection), expected);
}
