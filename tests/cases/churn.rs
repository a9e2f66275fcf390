//! Many runtimes at once on one node, and an agent that is killed, stopped and started again meanwhile.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tests::pair::{ETCD, POOLS, container};
use tests::traces::{nothing_is_left, traces};
use tests::{
    Attachment, CONVERGENCE, Lab, Node, Options, Place, Runtime, TestResult, addresses, can_run_labs, wait_until,
};

use crate::pair;

/// How many runtimes there are.
const RUNTIMES: usize = 8;

/// How many containers each has. Their ids stay the same.
const CONTAINERS: usize = 5;

/// How many operations all of them do together, unless [`LONG_VARIABLE`] says otherwise.
const SHORT: usize = 1_000;

/// The number of operations where a machine is there for this alone.
const LONG_VARIABLE: &str = "MANX_CHURN_OPERATIONS";

/// How long a runtime leaves a container alone after a refused ADD.
const BACK_OFF: Duration = Duration::from_millis(50);

/// Where pods send their first packet: their own node, in both families.
const SERVERS: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// A generator that needs to be no better (Knuth's multiplier).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What all runtimes have done so far.
#[derive(Default)]
struct Done {
    operations: AtomicUsize,
    answered: AtomicUsize,
    refused: AtomicUsize,
}

/// One runtime: it plugs its containers in and out until enough is done. A DEL always succeeds; an ADD that is answered has
/// its network; one that is refused is followed by a DEL, as the runtime has to.
fn run(node: &Node, number: usize, limit: usize, done: &Done) -> Result<(), String> {
    let runtime = node.runtime().map_err(|error| error.to_string())?;
    let names = (0..CONTAINERS).map(|place| format!("c{number}x{place}"));
    let containers: Vec<_> =
        names.map(|name| container(node, &name)).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let mut is_there = [false; CONTAINERS];
    let mut dice = Dice(number as u64 + 1);
    let del = |attachment: &Attachment| {
        done.operations.fetch_add(1, Ordering::Relaxed);
        runtime.del(attachment).map_err(|error| format!("DEL of {}: {error}", attachment.container))
    };
    while done.operations.load(Ordering::Relaxed) < limit {
        let place = usize::try_from(dice.roll(CONTAINERS as u64)).unwrap_or_default();
        let (Some(attachment), Some(is_there)) = (containers.get(place), is_there.get_mut(place)) else { continue };
        if *is_there {
            *is_there = false;
            del(attachment)?;
            if dice.roll(2) == 0 {
                // The second comes when the namespace is gone, for all that the runtime knows.
                del(&Attachment { netns: None, ..attachment.clone() })?;
            }
            if dice.roll(2) == 0 {
                continue;
            }
        }
        *is_there = add(node, &runtime, attachment, done)?;
        if !*is_there {
            del(attachment)?;
            // Without it, most of what is counted would be refusals of an agent that is away.
            thread::sleep(BACK_OFF);
        }
    }
    containers.iter().try_for_each(del)
}

/// ADD; whether it was answered, and then by the first packet that the pod sends.
fn add(node: &Node, runtime: &Runtime, attachment: &Attachment, done: &Done) -> Result<bool, String> {
    done.operations.fetch_add(1, Ordering::Relaxed);
    match runtime.add(attachment) {
        Ok(result) => {
            done.answered.fetch_add(1, Ordering::Relaxed);
            for server in SERVERS {
                if !pings(node, &attachment.container, server) {
                    return Err(format!("{} does not reach {server} after its ADD: {result}", attachment.container));
                }
            }
            Ok(true)
        }
        // An agent that is not there, or was killed meanwhile.
        Err(error) if error.code().is_some() => {
            done.refused.fetch_add(1, Ordering::Relaxed);
            Ok(false)
        }
        Err(error) => Err(format!("ADD of {}: {error}", attachment.container)),
    }
}

fn pings(node: &Node, container: &str, server: &str) -> bool {
    let netns = format!("--net=/run/netns/{container}");
    let words = ["nsenter", &netns, "--", "ping", "-n", "-q", "-c", "1", "-W", "5", server];
    node.try_exec(&words).is_ok_and(|output| output.status.success())
}

/// Kills, ends, stops and starts the agent until there is enough.
fn torment(node: &Node, enough: &AtomicBool) -> Result<usize, String> {
    let (agent, mut dice, mut times) = (node.agent(), Dice(77), 0);
    let mut torment = || -> Result<(), tests::LabError> {
        while !enough.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(500 + dice.roll(1_500)));
            match dice.roll(3) {
                0 => {
                    agent.freeze()?;
                    thread::sleep(Duration::from_millis(200 + dice.roll(4_000)));
                    agent.thaw()?;
                }
                kind => {
                    if kind == 1 {
                        agent.kill9()?;
                    } else {
                        agent.terminate()?;
                    }
                    thread::sleep(Duration::from_millis(dice.roll(500)));
                    agent.start()?;
                    agent.wait_ready(CONVERGENCE)?;
                }
            }
            times += 1;
        }
        Ok(())
    };
    torment().map_err(|error| error.to_string())?;
    Ok(times)
}

#[test]
fn runtimes_that_add_and_delete_while_the_agent_dies_and_stops_get_a_network_with_every_answer_and_leave_nothing()
-> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let limit = std::env::var(LONG_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(SHORT);
    let lab = Lab::up(&pair("churn", &format!("{ETCD}{POOLS}"))?, &Options::unique("churn"))?;
    let node = lab.node("node1");
    let (done, enough) = (Done::default(), AtomicBool::new(false));
    let times = thread::scope(|scope| -> Result<usize, String> {
        let tormentor = scope.spawn(|| torment(node, &enough));
        let done = &done;
        let runtimes: Vec<_> = (0..RUNTIMES).map(|n| scope.spawn(move || run(node, n, limit, done))).collect();
        let outcomes: Vec<_> = runtimes.into_iter().map(|thread| thread.join()).collect();
        enough.store(true, Ordering::Relaxed);
        let times = tormentor.join().map_err(|_| "the tormentor panicked")??;
        for outcome in outcomes {
            outcome.map_err(|_| "a runtime panicked")??;
        }
        Ok(times)
    })?;
    let [operations, answered, refused] =
        [&done.operations, &done.answered, &done.refused].map(|count| count.load(Ordering::Relaxed));
    println!(
        "{operations} operations: {answered} ADDs answered, {refused} refused; the agent was disturbed {times} times"
    );
    // Each ADD that is answered goes with three more operations, and refusals are quick: how many there are is the machine's.
    assert!(times > 0 && operations >= limit && answered * 10 > operations, "{answered} of {operations}");
    nothing_is_left(&lab, node)?;
    // Nor does the journal know of anything.
    node.agent().kill9()?;
    node.agent().start()?;
    node.agent().wait_ready(CONVERGENCE)?;
    nothing_is_left(&lab, node)?;
    lab.down()?;
    Ok(())
}

/// How many pods are added, and how many at a time.
const PODS: (usize, usize) = (200, 16);

#[test]
fn two_hundred_pods_answer_at_the_moment_their_add_returns_and_go_without_a_trace() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&pair("crowd", &format!("{ETCD}{POOLS}"))?, &Options::unique("crowd"))?;
    let node = lab.node("node1");
    let runtime = node.runtime()?;
    let (count, at_a_time) = PODS;
    let containers: Vec<_> =
        (0..count).map(|number| container(node, &format!("p{number}"))).collect::<Result<_, _>>()?;
    let given = at_once(&containers, at_a_time, |attachment| {
        let result = runtime.add(attachment).map_err(|error| format!("{}: {error}", attachment.container))?;
        let addresses = addresses(&result);
        for address in &addresses {
            if !answers(node, *address) {
                return Err(format!("{} does not answer at {address}", attachment.container));
            }
        }
        for server in SERVERS {
            if !pings(node, &attachment.container, server) {
                return Err(format!("{} does not reach {server}", attachment.container));
            }
        }
        Ok(addresses)
    })?;
    let distinct: BTreeSet<_> = given.iter().flatten().collect();
    assert_eq!(distinct.len(), 2 * count);
    let begun = Instant::now();
    at_once(&containers, at_a_time, |attachment| runtime.del(attachment).map_err(|error| error.to_string()))?;
    println!("{count} pods were deleted in {:?}", begun.elapsed());
    nothing_is_left(&lab, node)?;
    lab.down()?;
    Ok(())
}

#[test]
fn a_pod_whose_namespace_goes_without_a_del_is_released_while_the_agent_runs() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&pair("forgotten", &format!("{ETCD}{POOLS}"))?, &Options::unique("forgotten"))?;
    let node = lab.node("node1");
    let (runtime, forgotten, kept) = (node.runtime()?, container(node, "forgotten")?, container(node, "kept")?);
    runtime.add(&forgotten)?;
    let addresses = addresses(&runtime.add(&kept)?);
    wait_until("both pods being published", CONVERGENCE, || {
        traces(&lab, node).is_ok_and(|traces| traces.matches("key ").count() == 2)
    })?;
    node.exec(&["ip", "netns", "delete", "forgotten"])?;
    wait_until("the pod being released that went without a DEL", CONVERGENCE, || {
        traces(&lab, node).is_ok_and(|traces| traces.matches("key ").count() == 1 && !traces.contains("/forgotten/"))
    })?;
    for address in addresses {
        assert!(node.ping(address), "{address}");
    }
    // The runtime remembers after all.
    runtime.del(&Attachment { netns: None, ..forgotten })?;
    runtime.del(&kept)?;
    nothing_is_left(&lab, node)?;
    lab.down()?;
    Ok(())
}

/// Whether the first packet is answered, however long a busy machine takes for it.
fn answers(node: &Node, address: IpAddr) -> bool {
    let address = address.to_string();
    node.try_exec(&["ping", "-n", "-q", "-c", "1", "-W", "20", &address]).is_ok_and(|output| output.status.success())
}

/// Does something with every container, so many at a time, in as many threads.
fn at_once<T: Send>(
    containers: &[Attachment],
    at_a_time: usize,
    act: impl Fn(&Attachment) -> Result<T, String> + Sync,
) -> Result<Vec<T>, String> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let work = || -> Result<Vec<T>, String> {
            let mut outcomes = Vec::new();
            while let Some(attachment) = containers.get(next.fetch_add(1, Ordering::Relaxed)) {
                outcomes.push(act(attachment)?);
            }
            Ok(outcomes)
        };
        let threads: Vec<_> = (0..at_a_time).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.extend(thread.join().map_err(|_| "a thread panicked")??);
        }
        Ok(all)
    })
}
