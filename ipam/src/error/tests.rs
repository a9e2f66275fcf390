use super::*;

#[test]
fn an_exhausted_node_says_which_pools_what_it_has_of_them_and_what_is_in_the_way() {
    let count = |pool: &str, blocks, addresses, in_use, resting| PoolCount {
        pool: pool.parse().unwrap(),
        blocks,
        addresses,
        in_use,
        resting,
    };
    let error = ReserveError::Exhausted {
        family: Family::Ipv4,
        pools: vec![count("blue", 1, 64, 60, 4), count("green", 0, 0, 0, 0)],
        obstacle: Some("every block is claimed".to_owned()),
    };
    assert_eq!(
        error.to_string(),
        "no free ipv4 address: pool blue: 1 block here with 64 addresses, 60 in use, 4 resting; pool green: 0 blocks \
             here with 0 addresses, 0 in use, 0 resting; every block is claimed"
    );
}

#[test]
fn a_node_without_a_pool_says_which_pools_cannot_be_used() {
    let refused = PoolError::Fit { pool: "a".parse().unwrap(), cidr: "10.0.0.0/27".parse().unwrap(), block_size: 26 };
    let error = ReserveError::NoPool { refused: vec![refused] };
    assert_eq!(error.to_string(), "no enabled pool selects this node (pool a: blockSize 26 does not fit 10.0.0.0/27)");
    assert_eq!(ReserveError::NoPool { refused: Vec::new() }.to_string(), "no enabled pool selects this node");
}
