use super::*;

#[test]
fn ready_is_when_no_part_has_a_reason_not_to_be() {
    let readiness = Readiness::new();
    for part in [Part::Cluster, Part::PodAddresses, Part::Routes, Part::Policy] {
        readiness.ready(part);
    }
    assert_eq!(readiness.reasons(), ["BGP is not started yet"]);
    readiness.ready(Part::Speaker);
    assert!(readiness.reasons().is_empty());
    readiness.unready(Part::PodAddresses, "pool a is full".to_owned());
    assert_eq!(readiness.reasons(), ["pool a is full"]);
}

#[test]
fn pods_that_are_there_suffer_from_routes_policies_and_sessions_and_not_from_a_lack_of_addresses() {
    let readiness = Readiness::new();
    assert!(readiness.limits_pods());
    for part in [Part::Routes, Part::Speaker, Part::Policy] {
        assert!(readiness.limits_pods());
        readiness.ready(part);
    }
    assert!(!readiness.limits_pods() && !readiness.reasons().is_empty());
    readiness.unready(Part::OwnAddress, "taken".to_owned());
    assert!(readiness.limits_pods());
}
