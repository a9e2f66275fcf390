use super::*;
use proptest::prelude::*;

fn route(last_octet: u8) -> Candidate {
    Candidate {
        source: Source::Internal,
        excluded: None,
        doubted: false,
        local_pref: 100,
        as_path_length: 2,
        origin: 0,
        med: 0,
        neighbour_as: Some(65_001),
        igp_metric: 10,
        originator: u32::from(last_octet),
        cluster_list_length: 0,
        peer: Some(IpAddr::from([192, 0, 2, last_octet])),
    }
}

/// The first wins by `step`; both orders.
#[track_caller]
fn wins(winner: Candidate, loser: Candidate, step: DecisionStep) {
    let lost = if TIE_BREAKS.contains(&step) { Verdict::Multipath(step) } else { Verdict::Lost(step) };
    assert_eq!(decide(&[winner, loser]), [Verdict::Best, lost]);
    assert_eq!(decide(&[loser, winner]), [lost, Verdict::Best]);
}

#[test]
fn an_own_prefix_is_never_replaced_by_a_learned_one() {
    let own = Candidate { source: Source::Local, local_pref: 0, as_path_length: 9, ..route(9) };
    wins(own, Candidate { local_pref: 1_000, ..route(1) }, DecisionStep::LocalOrigin);
}

#[test]
fn a_route_whose_origin_is_in_doubt_is_used_only_where_there_is_nothing_better() {
    let doubted = Candidate { doubted: true, local_pref: 1_000, ..route(1) };
    wins(route(9), doubted, DecisionStep::OriginKnown);
    assert_eq!(decide(&[doubted]), [Verdict::Best]);
}

#[test]
fn rfc4271_9_1_1_the_higher_local_pref_wins() {
    wins(Candidate { local_pref: 200, as_path_length: 9, ..route(9) }, route(1), DecisionStep::LocalPref);
}

#[test]
fn rfc4271_9_1_2_1_a_route_with_an_unreachable_next_hop_takes_no_part() {
    let excluded = Excluded::NextHopUnreachable;
    let unreachable = Candidate { local_pref: 200, excluded: Some(excluded), ..route(1) };
    assert_eq!(decide(&[unreachable, route(9)]), [Verdict::Excluded(excluded), Verdict::Best]);
    assert_eq!(decide(&[unreachable]), [Verdict::Excluded(excluded)]);
}

#[test]
fn rfc4271_9_1_2_2a_the_shorter_as_path_wins() {
    wins(Candidate { as_path_length: 1, origin: 2, ..route(9) }, route(1), DecisionStep::AsPathLength);
}

#[test]
fn rfc4271_9_1_2_2b_the_lower_origin_wins() {
    wins(Candidate { med: 50, ..route(9) }, Candidate { origin: 1, ..route(1) }, DecisionStep::Origin);
}

#[test]
fn rfc4271_9_1_2_2c_med_compares_only_within_one_neighbouring_as() {
    let low = Candidate { med: 5, source: Source::Internal, ..route(9) };
    wins(low, Candidate { med: 6, source: Source::External, ..route(1) }, DecisionStep::Med);
    let other_as = Candidate { med: 6, neighbour_as: Some(65_002), ..route(1) };
    wins(other_as, low, DecisionStep::RouterId);
}

#[test]
fn rfc4271_9_1_2_2c_the_classic_cycle_of_three_has_one_outcome_in_every_order() {
    let a = Candidate { med: 10, igp_metric: 5, ..route(1) };
    let b = Candidate { neighbour_as: Some(65_002), igp_metric: 4, ..route(2) };
    let c = Candidate { med: 5, igp_metric: 6, ..route(3) };
    for order in [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
        let best = decide(&order).iter().position(|verdict| *verdict == Verdict::Best).unwrap();
        assert_eq!(order[best], b);
    }
}

#[test]
fn rfc4271_9_1_2_2d_external_wins_over_internal_and_the_two_never_share() {
    let external = Candidate { source: Source::External, igp_metric: 99, ..route(9) };
    wins(external, route(1), DecisionStep::ExternalOverInternal);
    wins(external, Candidate { source: Source::Client, ..route(1) }, DecisionStep::ExternalOverInternal);
}

#[test]
fn rfc4271_9_1_2_2e_the_nearer_next_hop_wins() {
    wins(Candidate { igp_metric: 5, ..route(9) }, route(1), DecisionStep::IgpMetric);
}

#[test]
fn rfc4271_9_1_2_2f_the_lower_router_id_wins_and_both_are_used() {
    wins(
        Candidate { peer: route(9).peer, ..route(1) },
        Candidate { peer: route(1).peer, ..route(9) },
        DecisionStep::RouterId,
    );
}

#[test]
fn rfc4456_9_the_shorter_cluster_list_wins_after_the_originator() {
    let near = Candidate { originator: 7, ..route(9) };
    wins(near, Candidate { originator: 7, cluster_list_length: 1, ..route(1) }, DecisionStep::ClusterListLength);
}

#[test]
fn rfc4271_9_1_2_2g_the_lower_peer_address_wins_last() {
    wins(Candidate { originator: 7, ..route(1) }, Candidate { originator: 7, ..route(9) }, DecisionStep::PeerAddress);
}

#[test]
fn a_client_and_another_internal_peer_share_the_load() {
    wins(
        Candidate { source: Source::Internal, ..route(1) },
        Candidate { source: Source::Client, ..route(2) },
        DecisionStep::RouterId,
    );
}

#[test]
fn no_more_than_the_maximum_share_the_load_and_the_first_by_tie_break_are_kept() {
    let routes: Vec<_> = (0..100).rev().map(route).collect();
    let verdicts = decide(&routes);
    assert_eq!(verdicts.iter().filter(|verdict| verdict.is_used()).count(), MAXIMUM_PATHS);
    assert_eq!(verdicts.last(), Some(&Verdict::Best));
    assert_eq!(verdicts.first(), Some(&Verdict::Lost(DecisionStep::RouterId)));
}

fn any_route(number: u8) -> impl Strategy<Value = Candidate> {
    let source = prop_oneof![Just(Source::External), Just(Source::Client), Just(Source::Internal)];
    (source, 0..2_u32, 1..3_u32, 0..2_u8, 0..3_u32, 0..3_u32, 0..2_u32, 0..3_u32).prop_map(
        move |(source, local_pref, as_path_length, origin, med, neighbour, igp_metric, originator)| Candidate {
            source,
            local_pref,
            as_path_length,
            origin,
            med,
            neighbour_as: Some(neighbour),
            igp_metric,
            originator,
            ..route(number)
        },
    )
}

proptest! {
    #[test]
    fn the_outcome_does_not_depend_on_the_order_of_the_routes(
        routes in (any_route(1), any_route(2), any_route(3), any_route(4), any_route(5)),
        order in Just([0, 1, 2, 3, 4]).prop_shuffle(),
    ) {
        let routes = [routes.0, routes.1, routes.2, routes.3, routes.4];
        let straight = decide(&routes);
        let shuffled = decide(&order.map(|index| routes[index]));
        for (position, index) in order.into_iter().enumerate() {
            prop_assert_eq!(straight[index], shuffled[position]);
        }
        prop_assert_eq!(straight.iter().filter(|verdict| **verdict == Verdict::Best).count(), 1);
    }
}
