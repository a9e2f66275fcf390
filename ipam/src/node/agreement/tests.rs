use proptest::prelude::*;
use store::{Entry, Key, Listing, Outcome, Version, keys};
use types::Update;

use super::*;
use crate::IpamConfig;
use crate::fence::Fencing;
use crate::messages::Answer;
use crate::node::tests::{attach, blocks, claim, committed, list_claims, same_boot, set_pools, unavailable};
use crate::plan::claims::ClaimOutcome;
use crate::plan::publications::Ask;
use crate::rows::{self, Restored};
use crate::testing::{JournalRows, id, node, pool, prefix, request};

const GRACE: Duration = Duration::from_secs(100);
const BLOCK: &str = "10.0.0.0/24";

fn config() -> IpamConfig {
    let fencing = Some(Fencing { grace: GRACE, clocks: || None });
    IpamConfig { boot_id: "boot".to_owned(), cool_down: Duration::ZERO, fencing, ..IpamConfig::new(node("n1")) }
}

fn at(seconds: u64) -> Option<Reading> {
    let since = Duration::from_secs(1_000_000 + seconds);
    Some(Reading { boot: since, wall: since })
}

fn entry(owner: &str, created: u64) -> Claim {
    Claim { owner: Some(node(owner)), created: Version::new(created) }
}

/// A node with one block, claimed at 1, that the store has confirmed and that has published what there is.
fn settled(now: Instant) -> Node {
    let mut node = Node::new(&config(), true, same_boot(Restored::default()), now);
    node.clocks(at(0));
    set_pools(&mut node, &[pool("v4", BLOCK, 24)]);
    list_claims(&mut node, [claim(BLOCK, "n1", 1)]);
    let version = Version::new(3);
    let listing = Listing { entries: Vec::new(), version, incarnation: store::Incarnation::new("x") };
    assert_eq!(answer(&mut node, now, Some(entry("n1", 1))), 1);
    node.answered(Answer::Listed(Ok(listing)), now);
    node.take_events();
    node
}

/// Answers all questions about blocks with this claim of the one block, until none comes; how many there were.
fn answer(node: &mut Node, now: Instant, claim: Option<Claim>) -> usize {
    let mut count = 0;
    while node.jobs(now).contains(&Job::Confirm(vec![prefix(BLOCK)])) {
        let claims = vec![(prefix(BLOCK), claim.clone())];
        node.answered(Answer::Confirmed(Ok(Shown { claims, is_gone: false })), now);
        count += 1;
    }
    count
}

/// A publication that the store refuses to make.
fn refute(node: &mut Node, now: Instant) {
    let jobs = node.jobs(now);
    let Some(Job::Publication(Ask::Write(checks, _))) = jobs.last() else { panic!("{jobs:?}") };
    assert_eq!(*checks, [store::Check::created(keys::block(&prefix(BLOCK)), Version::new(1))]);
    node.answered(Answer::Written(Ok(Outcome::Conflict)), now);
}

#[test]
fn who_publishes_finds_out_that_its_block_is_another_s_though_the_watch_is_silent() {
    let now = Instant::now();
    let mut node = settled(now);
    let pod = attach(&mut node, "a");
    refute(&mut node, now);
    assert_eq!(node.take_events(), [Event::Doubted(prefix(BLOCK))]);
    let refused = node.reserve(&id("b"), request("b")).unwrap_err();
    assert!(node.may_wait(&refused), "{refused}");

    assert_eq!(answer(&mut node, now, Some(entry("n2", 7))), 1);
    assert!(blocks(&node).is_empty());
    let endpoints = vec!["default/a (manx/a/eth0)".to_owned()];
    assert_eq!(node.take_events(), [Event::Lost { block: prefix(BLOCK), to: "node n2".to_owned(), endpoints }]);
    let stray = Stray { pod: pod.pod, address: pod.addresses[0], owner: None };
    assert_eq!(node.standing().strays, std::slice::from_ref(&stray));
    // A watch that still shows the past does not give the block back.
    set_pools(&mut node, &[pool("v4", BLOCK, 24)]);
    node.claim_update(claim(BLOCK, "n1", 1), now);
    assert!(blocks(&node).is_empty());
    node.claim_update(claim(BLOCK, "n2", 7), now);
    let later = now + Duration::from_secs(1);
    assert_eq!(answer(&mut node, later, Some(entry("n2", 7))), 1);
    let owner = Some(crate::testing::node("n2"));
    assert_eq!(node.standing().strays, [Stray { owner, ..stray }]);
}

#[test]
fn a_block_out_of_doubt_is_given_out_of_again() {
    let now = Instant::now();
    let mut node = settled(now);
    attach(&mut node, "a");
    refute(&mut node, now);
    assert!(node.reserve(&id("b"), request("b")).is_err());
    node.hurry(now);
    assert_eq!(answer(&mut node, now, Some(entry("n1", 1))), 1);
    attach(&mut node, "b");
    assert_eq!(blocks(&node), [BLOCK]);
}

#[test]
fn a_claim_that_is_gone_is_made_again_before_anything_is_given_out_of_its_block() {
    let now = Instant::now();
    let mut node = settled(now);
    attach(&mut node, "a");
    refute(&mut node, now);
    assert_eq!(node.jobs(now), [Job::Confirm(vec![prefix(BLOCK)])]);
    let shown = Shown { claims: vec![(prefix(BLOCK), None)], is_gone: false };
    node.answered(Answer::Confirmed(Ok(shown)), now);
    let jobs = node.jobs(now);
    assert!(jobs.contains(&Job::Claim(prefix(BLOCK))), "{jobs:?}");
    node.answered(Answer::Claim(prefix(BLOCK), Ok(ClaimOutcome::Claimed)), now);
    assert!(node.reserve(&id("b"), request("b")).is_err(), "the watch has not shown it yet");
    node.hurry(now);
    let jobs = node.jobs(now);
    assert!(jobs.contains(&Job::Confirm(vec![prefix(BLOCK)])), "{jobs:?}");
    let shown = Shown { claims: vec![(prefix(BLOCK), Some(entry("n1", 9)))], is_gone: false };
    node.answered(Answer::Confirmed(Ok(shown)), now);
    assert!(node.reserve(&id("b"), request("b")).is_err(), "the watch still shows the former claim");
    node.claim_update(claim(BLOCK, "n1", 9), now);
    node.hurry(now);
    assert_eq!(answer(&mut node, now, Some(entry("n1", 9))), 1);
    attach(&mut node, "b");
}

#[test]
fn who_claims_again_and_is_too_late_gives_the_block_up_whatever_the_watch_shows() {
    let now = Instant::now();
    let mut node = settled(now);
    attach(&mut node, "a");
    refute(&mut node, now);
    answer(&mut node, now, None);
    node.jobs(now);
    node.answered(Answer::Claim(prefix(BLOCK), Ok(ClaimOutcome::Taken(entry("n2", 9)))), now);
    assert!(blocks(&node).is_empty());
    assert_eq!(node.standing().strays.len(), 1);
}

#[test]
fn unconfirmed_for_half_the_grace_nothing_is_given_out_and_everything_is_taken_back() {
    let now = Instant::now();
    let mut node = settled(now);
    attach(&mut node, "a");
    node.answered(Answer::Written(committed()), now);
    let later = now + Duration::from_secs(50);
    node.clocks(at(50));
    assert!(node.jobs(later).contains(&Job::Confirm(vec![prefix(BLOCK)])));
    node.answered(Answer::Confirmed(Err(unavailable())), later);
    attach(&mut node, "b");
    node.take_events();
    node.clocks(at(51));
    let refused = node.reserve(&id("c"), request("c")).unwrap_err();
    let said = refused.to_string();
    assert!(said.contains("not confirmed this node's blocks for 51 s") && said.contains("50 s, half of"), "{said}");
    assert!(node.may_wait(&refused));
    assert_eq!(node.standing().fenced, Some(said));
    let limit = GRACE / 2;
    assert_eq!(node.take_events(), [Event::Fenced(Unconfirmed::Since(Duration::from_secs(51)), limit)]);
    assert!(node.release(&id("a"), later).is_some());
    assert_eq!(blocks(&node), [BLOCK]);

    node.hurry(later);
    assert_eq!(answer(&mut node, later, Some(entry("n1", 1))), 1);
    attach(&mut node, "c");
    node.clocks(at(51));
    assert_eq!(node.take_events(), [Event::Confirmed]);
}

#[test]
fn a_node_that_counts_as_gone_is_not_confirmed() {
    let now = Instant::now();
    let mut node = settled(now);
    let later = now + Duration::from_secs(60);
    node.clocks(at(60));
    for (is_gone, is_fenced) in [(true, true), (false, false)] {
        node.hurry(later);
        assert!(node.jobs(later).contains(&Job::Confirm(vec![prefix(BLOCK)])));
        let shown = Shown { claims: vec![(prefix(BLOCK), Some(entry("n1", 1)))], is_gone };
        node.answered(Answer::Confirmed(Ok(shown)), later);
        assert_eq!(node.standing().fenced.is_some(), is_fenced);
    }
}

/// What may happen to a node, its store and its elected agent.
#[derive(Debug, Clone)]
enum Do {
    Wait(u64),
    /// Whether the node reaches the store.
    Connect(bool),
    /// The watch of claims shows what it has not shown yet.
    Show,
    /// The elected agent looks at the node.
    Look,
    /// The agent is killed and started again.
    Restart,
    /// Somebody sets the wall clock.
    Set(u64),
    Add,
}

fn steps() -> impl Strategy<Value = Vec<Do>> {
    let one = prop_oneof![
        4 => (0_u64..60).prop_map(Do::Wait),
        2 => any::<bool>().prop_map(Do::Connect),
        2 => Just(Do::Show),
        4 => Just(Do::Look),
        1 => Just(Do::Restart),
        1 => (0_u64..10_000_000).prop_map(Do::Set),
        6 => Just(Do::Add),
    ];
    prop::collection::vec(one, 0..150)
}

/// A node, the store's truth about its block, and an elected agent that takes the block back when the node has been gone
/// for the grace period; another node has it then at once.
struct World {
    node: Node,
    /// The node's journal.
    journal: JournalRows,
    now: Instant,
    since_boot: Duration,
    wall: Duration,
    is_connected: bool,
    claim: Option<Claim>,
    /// Changes of it that the watch has not shown.
    unshown: Vec<Update<Key, Entry>>,
    /// Since when the node counts as gone.
    gone: Option<Duration>,
    revision: u64,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let node = Node::new(&config(), true, same_boot(Restored::default()), now);
        let (since_boot, wall) = (Duration::from_secs(500), Duration::from_secs(1_000_000));
        let mut world = Self {
            node,
            journal: JournalRows::default(),
            now,
            since_boot,
            wall,
            is_connected: true,
            claim: None,
            unshown: Vec::new(),
            gone: None,
            revision: 0,
        };
        list_claims(&mut world.node, []);
        set_pools(&mut world.node, &[pool("v4", BLOCK, 24)]);
        world
    }

    fn set(&mut self, owner: &str) {
        self.revision += 1;
        self.claim = Some(entry(owner, self.revision));
        self.unshown.push(claim(BLOCK, owner, self.revision));
    }

    fn read_clocks(&mut self) {
        self.node.clocks(Some(Reading { boot: self.since_boot, wall: self.wall }));
    }

    /// The node asks until it has nothing more to ask for now.
    fn turn(&mut self) {
        self.read_clocks();
        for _ in 0..20 {
            let jobs = self.node.jobs(self.now);
            if jobs.is_empty() {
                break;
            }
            for job in jobs {
                let answer = self.answer(job);
                self.node.answered(answer, self.now);
            }
        }
        self.journal.take(self.node.journal());
    }

    fn answer(&mut self, job: Job) -> Answer {
        let reached = if self.is_connected { Ok(()) } else { Err(unavailable()) };
        match job {
            Job::Claim(block) => {
                let outcome = reached.map(|()| match self.claim.clone() {
                    Some(claim) => ClaimOutcome::Taken(claim),
                    None => {
                        self.set("n1");
                        ClaimOutcome::Claimed
                    }
                });
                Answer::Claim(block, outcome)
            }
            Job::Withdraw(block, _) => Answer::Withdraw(block, reached),
            Job::Confirm(blocks) => {
                let claims = blocks.into_iter().map(|block| (block, self.claim.clone())).collect();
                Answer::Confirmed(reached.map(|()| Shown { claims, is_gone: self.gone.is_some() }))
            }
            Job::Publication(Ask::List(_)) => {
                let (entries, version) = (Vec::new(), Version::new(self.revision));
                let incarnation = store::Incarnation::new("x");
                Answer::Listed(reached.map(|()| Listing { entries, version, incarnation }))
            }
            Job::Publication(Ask::Write(checks, _)) => {
                let holds = checks.iter().all(|check| {
                    let created = self.claim.as_ref().map(|claim| store::Expect::Created(claim.created));
                    created.as_ref() == Some(&check.expect)
                });
                let outcome = if holds { Outcome::Committed(Version::new(1)) } else { Outcome::Conflict };
                Answer::Written(reached.map(|()| outcome))
            }
        }
    }

    /// One look of the elected agent. Its own time is that since boot.
    fn look(&mut self) {
        match self.gone {
            // The lease on its name has ended; or the agent is back, and holds it.
            None if !self.is_connected => self.gone = Some(self.since_boot),
            Some(_) if self.is_connected => self.gone = None,
            Some(since) if self.since_boot - since >= GRACE => self.set("n2"),
            _ => {}
        }
    }

    fn restart(&mut self) {
        let restored = rows::restore(self.journal.rows(), &node("n1")).unwrap();
        self.node = Node::new(&config(), true, restored, self.now);
        set_pools(&mut self.node, &[pool("v4", BLOCK, 24)]);
        if self.is_connected {
            self.unshown.clear();
            let there =
                self.claim.clone().map(|there| claim(BLOCK, there.owner.unwrap().as_str(), there.created.count()));
            list_claims(&mut self.node, there);
        }
    }
}

proptest! {
    /// However long the node is cut off, however late its watch and whatever becomes of its clock: no address is given out
    /// of a block that another node has got meanwhile.
    #[test]
    fn nothing_is_given_out_of_a_block_that_another_node_has(steps in steps()) {
        let mut world = World::new();
        world.turn();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Do::Wait(seconds) => {
                    let passed = Duration::from_secs(seconds);
                    world.now += passed;
                    world.since_boot += passed;
                    world.wall += passed;
                }
                Do::Connect(connected) => world.is_connected = connected,
                Do::Show if world.is_connected => {
                    for update in std::mem::take(&mut world.unshown) {
                        world.node.claim_update(update, world.now);
                    }
                }
                Do::Show => {}
                Do::Look => world.look(),
                Do::Restart => world.restart(),
                Do::Set(wall) => world.wall = Duration::from_secs(wall),
                Do::Add => {
                    world.read_clocks();
                    let id = id(&format!("c{number}"));
                    if world.node.reserve(&id, request("pod")).is_ok() {
                        let owner = world.claim.as_ref().and_then(|claim| claim.owner.clone());
                        prop_assert_eq!(owner, Some(node("n1")));
                        world.node.release(&id, world.now);

                    }
                }
            }
            world.turn();
        }
    }
}
