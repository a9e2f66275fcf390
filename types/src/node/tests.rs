use super::*;
use crate::resource::NodeBgp;

#[test]
fn what_the_operator_says_of_a_node_wins_field_by_field() {
    let registration = Registration {
        ipv4: Some(Ipv4Addr::new(192, 0, 2, 1)),
        ipv6: Some("2001:db8::1".parse().unwrap()),
        listen_port: Some(1790),
        as_number: Some(Asn::DEFAULT),
        labels: [("rack", "0"), ("zone", "a")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..Registration::default()
    };
    let metadata = Metadata {
        name: "a".parse().unwrap(),
        labels: BTreeMap::from([("rack".to_owned(), "1".to_owned())]),
        annotations: BTreeMap::new(),
    };
    let bgp = NodeBgp { ipv4_address: Some("198.51.100.7/24".to_owned()), ..NodeBgp::default() };
    let spec = NodeSpec { bgp: Some(bgp) };
    let node = ClusterNode::new("a".parse().unwrap(), Some(&registration), Some((&metadata, &spec)));
    assert_eq!(node.ipv4, Some(Ipv4Addr::new(198, 51, 100, 7)));
    assert_eq!(node.ipv6, registration.ipv6);
    assert_eq!(node.listen_port, Some(1790));
    assert_eq!((node.labels["rack"].as_str(), node.labels["zone"].as_str()), ("1", "a"));
    assert_eq!(node.asn, registration.as_number);
}

#[test]
fn a_node_that_is_gone_is_stored_with_seconds_as_numbers() {
    let gone = Gone { since: 1_790_000_000, waited: Duration::from_millis(36_900), reclaimed: false };
    let stored = r#"{"since":1790000000,"waited":36,"reclaimed":false}"#;
    assert_eq!(serde_json::to_string(&gone).unwrap(), stored);
    let read: Gone = serde_json::from_str(stored).unwrap();
    assert_eq!(read, Gone { waited: Duration::from_secs(36), ..gone });
    let first: Gone = serde_json::from_str(r#"{"since":1}"#).unwrap();
    assert_eq!(first, Gone { since: 1, waited: Duration::ZERO, reclaimed: false });
}
