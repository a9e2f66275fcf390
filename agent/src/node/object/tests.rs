use super::*;

#[test]
fn a_node_that_gets_ready_is_said_to_have_a_network_and_loses_the_taint_after_that() {
    let fresh = Node { taints: vec!["other".to_owned(), STARTUP_TAINT.to_owned()], ..Node::default() };
    assert_eq!(wanted(&fresh, &Network::NotYet), None);
    assert!(matches!(wanted(&fresh, &Network::Available), Some(Write::NetworkUnavailable(false, _))));
    let said = Node { network_unavailable: Some(false), ..fresh };
    assert_eq!(wanted(&said, &Network::Available), Some(Write::RemoveTaint));
    let done = Node { taints: vec!["other".to_owned()], ..said };
    assert_eq!(wanted(&done, &Network::Available), None);
    let why = Network::Unavailable("no block".to_owned());
    assert_eq!(wanted(&done, &why), Some(Write::NetworkUnavailable(true, "no block".to_owned())));
    assert_eq!(wanted(&Node { network_unavailable: Some(true), ..done }, &why), None);
}

#[test]
fn labels_and_known_annotations_of_the_node_are_registered_and_nonsense_is_left_out() {
    let annotated = |asn: &str| Node {
        labels: [("rack".to_owned(), "1".to_owned())].into(),
        annotations: [(AS_NUMBER.to_owned(), asn.to_owned()), (CLUSTER_ID.to_owned(), "10.0.0.1".to_owned())].into(),
        ..Node::default()
    };
    let own = Registration { agent_version: "1".to_owned(), ..Registration::default() };
    let registered = registration(&own, &annotated("64601"));
    assert_eq!(registered.as_number.map(types::Asn::number), Some(64_601));
    assert_eq!(registered.cluster_id, Some(ClusterId([10, 0, 0, 1].into())));
    assert_eq!(registered.labels["rack"], "1");
    assert_eq!(registration(&own, &annotated("many")).as_number, None);
}
