//! Small and nasty worlds, as strategies that shrink: few labels, so that selectors collide; few addresses, so that blocks
//! overlap and cut between pods; every list absent, null and empty too; parts that make no sense.
//!
//! All of a world shrinks towards fewer pods, fewer policies and plainer pieces of them.

mod change;
mod document;
mod people;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde_json::Value;

use crate::world::{PolicyName, Protocol, World};

pub use change::{Change, HistoryStep, Order, Report, reports, steps};
pub use document::{invalid_spec, spec};
pub use people::{EXTERNALS, NAMESPACES, NODES, POD_NAMES, pod};

/// What every pair of ends is asked: ports that rules speak of, their neighbours, and one protocol without ports.
pub const PORTS: [(Protocol, u16); 13] = [
    (Protocol::Tcp, 80),
    (Protocol::Tcp, 81),
    (Protocol::Tcp, 82),
    (Protocol::Tcp, 83),
    (Protocol::Tcp, 8080),
    (Protocol::Tcp, 65535),
    (Protocol::Udp, 80),
    (Protocol::Udp, 81),
    (Protocol::Udp, 8080),
    (Protocol::Sctp, 80),
    (Protocol::Sctp, 81),
    (Protocol::Icmp, 0),
    (Protocol::Tcp, 1),
];

/// Generates a world of up to three namespaces, nine pods on two nodes and `policies` policies.
pub fn world(policies: usize) -> BoxedStrategy<World> {
    let policies = proptest::collection::vec((0..NAMESPACES.len(), 0..policies, spec()), 0..=policies);
    (people::people(), policies)
        .prop_map(|(mut world, policies)| {
            world.policies = named(policies);
            world
        })
        .boxed()
}

fn named(policies: Vec<(usize, usize, Value)>) -> BTreeMap<PolicyName, Value> {
    let name = |namespace: usize, index: usize| {
        NAMESPACES.get(namespace).map(|namespace| PolicyName::new(namespace, &format!("p{index}")))
    };
    policies.into_iter().filter_map(|(namespace, index, spec)| Some((name(namespace, index)?, spec))).collect()
}

/// Runs a property over values of a strategy, always the same ones for the same seed, and shrinks one that fails.
///
/// The seed is `MANX_SEED`, a number, where it is set; `MANX_CASES` multiplies the cases.
///
/// # Panics
/// With the seed, what the property said and the smallest value found for which it says so.
pub fn check<T>(name: &str, cases: u32, strategy: &BoxedStrategy<T>, property: impl Fn(&T) -> Result<(), String>)
where
    T: std::fmt::Debug + std::fmt::Display,
{
    let from_environment = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = from_environment("MANX_SEED").unwrap_or(1);
    let cases = cases.saturating_mul(from_environment("MANX_CASES").and_then(|n| u32::try_from(n).ok()).unwrap_or(1));
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let mut bytes = [0; 32];
    for (byte, value) in bytes.iter_mut().zip(seed.to_le_bytes().into_iter().chain(name.bytes())) {
        *byte = value;
    }
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let outcome = runner.run(strategy, |value| property(&value).map_err(TestCaseError::fail));
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, value)) => panic!("{name}, seed {seed}:\n{reason}\nin\n{value}"),
        Err(TestError::Abort(reason)) => panic!("{name}, seed {seed}: {reason}"),
    }
}
