use std::sync::Arc;

use serde_json::json;
use types::policy::{PolicyKind, network_policy};

use super::*;

fn set(number: usize, selector: &serde_json::Value) -> PolicyUpdate {
    let (policy, _) = network_policy("shop", &json!({ "podSelector": selector, "policyTypes": ["Ingress"] }));
    PolicyUpdate::Policy(Update::Set(id(number), Arc::new(policy)))
}

fn id(number: usize) -> PolicyId {
    PolicyId { kind: PolicyKind::NetworkPolicy, namespace: "shop".to_owned(), name: format!("p{number}") }
}

fn by_label(number: usize) -> PolicyUpdate {
    set(number, &json!({ "matchLabels": { "app": format!("a{number}") } }))
}

#[test]
fn a_pod_is_expected_with_the_labels_that_a_policy_names_until_the_policy_names_none_or_goes() {
    let mut foreseen = Foreseen::default();
    let Some(PolicyUpdate::Expected(Update::Set(at, facts))) = foreseen.follow(&by_label(1)) else {
        panic!("nothing is expected")
    };
    assert_eq!((at.clone(), facts.namespace.as_str(), facts.labels["app"].as_str()), (key(&id(1)), "shop", "a1"));
    let vague = set(1, &json!({ "matchExpressions": [{ "key": "app", "operator": "Exists" }] }));
    assert_eq!(foreseen.follow(&vague), Some(PolicyUpdate::Expected(Update::Delete(at.clone()))));
    assert_eq!(foreseen.follow(&vague), None);

    foreseen.follow(&by_label(1));
    let gone = PolicyUpdate::Policy(Update::Delete(id(1)));
    assert_eq!(foreseen.follow(&gone), Some(PolicyUpdate::Expected(Update::Delete(at))));
    assert_eq!(foreseen.follow(&gone), None);
}

#[test]
fn expectations_are_known_when_policies_are_and_no_more_are_made_than_a_node_can_bear() {
    let mut foreseen = Foreseen::default();
    for update in [Update::Restart, Update::InSync] {
        let expected = foreseen.follow(&PolicyUpdate::Policy(update.clone()));
        assert!(matches!(
            (update, expected),
            (Update::Restart, Some(PolicyUpdate::Expected(Update::Restart)))
                | (Update::InSync, Some(PolicyUpdate::Expected(Update::InSync)))
        ));
    }
    assert!((0..POLICIES_FORESEEN).all(|number| foreseen.follow(&by_label(number)).is_some()));
    assert_eq!(foreseen.follow(&by_label(POLICIES_FORESEEN)), None);
    foreseen.follow(&PolicyUpdate::Policy(Update::Delete(id(0))));
    assert!(foreseen.follow(&by_label(POLICIES_FORESEEN)).is_some());

    // A listing that names one alone.
    for update in [PolicyUpdate::Policy(Update::Restart), by_label(7), PolicyUpdate::Policy(Update::InSync)] {
        assert!(foreseen.follow(&update).is_some());
    }
    let others = (0..POLICIES_FORESEEN).filter(|number| *number != 7);
    assert!(others.into_iter().all(|number| foreseen.follow(&by_label(number)).is_some()));
    assert_eq!(foreseen.follow(&by_label(POLICIES_FORESEEN + 1)), None);
}
