//! A pod's further interface, in a namespace whose default routes lead by another one.

use kernel::{MAIN_TABLE, SourceRule};

use super::*;

/// A pod that another network has given an interface and the default route of both families.
fn bed() -> Bed {
    let bed = Bed::new();
    let other = bed.pod.add_link("net0", true);
    for family in Family::ALL {
        bed.pod.put_route(Route::on_link(Prefix::default_route(family), 3, other)).unwrap();
    }
    bed
}

fn rules(bed: &Bed) -> Vec<SourceRule> {
    let mut pod = bed.pod.clone();
    Family::ALL.into_iter().flat_map(|family| pod.rules(family).unwrap()).collect()
}

#[test]
fn it_answers_from_its_own_addresses_by_itself_and_the_first_ones_default_stays() {
    let bed = bed();
    let _agent = bed.agent(vec![accepts_add()]);
    let standing = bed.pod.all_routes();
    let outcome = bed.add();
    succeeded(&outcome);
    let index = bed.pod.clone().link(&"eth0".parse().unwrap()).unwrap().unwrap().index;
    let rules = rules(&bed);
    let sources: Vec<_> = rules.iter().map(|rule| rule.source).collect();
    assert_eq!(sources, wire().addresses);
    let routes = bed.pod.all_routes();
    assert!(standing.iter().all(|route| routes.contains(route)));
    let of_its_own: Vec<_> = routes.iter().filter(|route| route.table != MAIN_TABLE).collect();
    assert_eq!(of_its_own.len(), 2);
    for (route, rule) in of_its_own.iter().zip(&rules) {
        assert_eq!((route.prefix.len(), route.table, route.next_hops[0].interface), (0, rule.table, Some(index)));
    }
    let result: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(result["routes"], json!([]));
}

#[test]
fn rules_of_interfaces_that_have_gone_go_with_the_next_and_those_of_others_stay() {
    let bed = bed();
    let mut pod = bed.pod.clone();
    let rule = |source: &str, table, protocol| {
        let source = source.parse().unwrap();
        SourceRule { priority: 10_000, source, table, protocol }
    };
    let gone = rule("10.65.0.9", 0x6d78_0007, ours::ROUTE_PROTOCOL_LOCAL);
    // Of the interface that is there, and of another plugin.
    let (there, others) = (rule("10.65.0.8", 0x6d78_0002, ours::ROUTE_PROTOCOL_LOCAL), rule("10.65.0.7", 100, 3));
    for rule in [gone, there, others] {
        pod.add_rule(&rule).unwrap();
    }
    let _agent = bed.agent(vec![accepts_add()]);
    succeeded(&bed.add());
    let left = rules(&bed);
    assert!(!left.contains(&gone) && left.contains(&there) && left.contains(&others), "{left:?}");
    assert_eq!(left.len(), 4);
}

#[test]
fn where_the_kernel_has_no_such_rules_it_is_refused_in_words_and_nothing_is_left() {
    const EOPNOTSUPP: i32 = 95;
    for (operation, nth) in [(Operation::AddRule, 1), (Operation::AddRule, 2), (Operation::Rules, 2)] {
        let bed = bed();
        let before = bed.pod_state();
        bed.pod.fail(operation, nth, EOPNOTSUPP);
        let agent = bed.agent(vec![accepts_add()]);
        let (code, msg) = error(&bed.add());
        assert!(code == 102 && msg.starts_with("in the pod's namespace: cannot "), "{msg}");
        assert!(msg.contains("rule"), "{msg}");
        assert_eq!((bed.host_link(), bed.pod_state()), (None, before));
        assert_eq!(rules(&bed), []);
        assert!(!agent.heard()[0].contains(&Request::Wired));
    }
}

#[test]
fn check_verifies_rule_and_route() {
    type Harm = fn(&Bed);
    let harms: [(Harm, &str); 3] = [
        (|_| {}, ""),
        (
            |bed| {
                let rule = *rules(bed).iter().find(|rule| rule.source.is_ipv6()).unwrap();
                bed.pod.clone().delete_rule(&rule).unwrap();
            },
            "the pod has no rule from fd00::2 lookup ",
        ),
        (
            |bed| {
                let mut routes = bed.pod.all_routes();
                routes.retain(|route| route.table != MAIN_TABLE && route.prefix.family() == Family::Ipv4);
                let changes: Vec<_> = routes.into_iter().map(kernel::RouteChange::Delete).collect();
                assert_eq!(bed.pod.clone().change_routes(&changes).unwrap(), []);
            },
            "of the pod has no default route of ipv4 by eth0",
        ),
    ];
    for (harm, told) in harms {
        let bed = bed();
        let _agent = bed.agent(vec![accepts_add(), vec![Play::Say(Reply::Wire(wire()))]]);
        let mut config = bed.config("1.0.0");
        config["prevResult"] = serde_json::from_str(&bed.add().stdout).unwrap();
        let index = bed.host_link().unwrap().index;
        for address in wire().addresses {
            bed.host.put_route(Route::on_link(Prefix::host(address), 77, index)).unwrap();
        }
        harm(&bed);
        let outcome = bed.call("CHECK", &config);
        if told.is_empty() {
            succeeded(&outcome);
        } else {
            let (code, msg) = error(&outcome);
            assert!(code == 104 && msg.contains(told), "{msg}");
        }
    }
}
