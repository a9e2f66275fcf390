//! The instruments themselves: with no policy everything is open, and what plain iptables drops is seen to be dropped.

use tests::reach::{Question, Verdict, ask, ask_all};
use tests::{CONVERGENCE, Flood, Place, PodSpec, Sink, TestResult, can_run_labs, wait_until};
use types::Family;
use types::policy::Protocol;

use super::world::{OUTSIDE, World, all_questions, node_addresses};

#[test]
fn without_policies_everything_is_open_and_what_plain_iptables_drops_is_seen_as_dropped_and_nothing_else() -> TestResult
{
    if !can_run_labs() {
        return Ok(());
    }
    let mut world = World::up("probers")?;
    let here = world.plug("node1", PodSpec::in_namespace("x", "a").label("pod", "a"))?;
    let near = world.plug("node1", PodSpec::in_namespace("x", "b"))?;
    let far = world.plug("node2", PodSpec::new("far"))?;
    for address in far.addresses() {
        world.converges(&here, Question::echo(*address), true)?;
    }
    let addresses: Vec<_> = [&near, &far].iter().flat_map(|pod| pod.addresses().to_vec()).chain(OUTSIDE).collect();
    let questions: Vec<Question> = addresses.into_iter().flat_map(all_questions).collect();
    let open = vec![Verdict::Passed; questions.len()];
    assert_eq!(ask(&here, &questions)?, open);
    let to_nodes: Vec<Question> = ["node1", "node2"].into_iter().flat_map(node_addresses).map(Question::echo).collect();
    assert!(ask(&here, &to_nodes)?.iter().all(Verdict::passed));

    // The host outside and the nodes themselves ask too.
    let to_here: Vec<Question> = here.addresses().iter().copied().flat_map(all_questions).collect();
    let outside = world.node("client");
    let askers: Vec<(&dyn Place, Vec<Question>)> =
        vec![(outside, to_here.clone()), (world.node("node1"), to_here.clone()), (world.node("node2"), to_here)];
    for (verdicts, (place, questions)) in ask_all(&askers)?.iter().zip(&askers) {
        for (verdict, question) in verdicts.iter().zip(questions) {
            assert!(verdict.passed(), "{question} from {}: {verdict:?}", place.name());
        }
    }
    // A port that nobody serves is neither open nor dropped.
    let unserved = Question::new(Protocol::Tcp, near.address(Family::Ipv4), 82);
    assert!(matches!(ask(&here, &[unserved])?.as_slice(), [Verdict::Failed(_)]));

    // For each protocol and port in turn, a drop of it is seen, and nothing else is.
    for (command, family) in [("iptables", Family::Ipv4), ("ip6tables", Family::Ipv6)] {
        for (words, protocol) in
            [("tcp --dport 81", Protocol::Tcp), ("udp --dport 81", Protocol::Udp), ("sctp --dport 81", Protocol::Sctp)]
        {
            let rule = |action: &str| {
                format!("{command} -t mangle {action} FORWARD -d {} -p {words} -j DROP", far.address(family))
            };
            world.node("node2").shell(&rule("-A"))?;
            let verdicts = ask(&here, &questions)?;
            world.node("node2").shell(&rule("-D"))?;
            let dropped = Question::new(protocol, far.address(family), 81);
            for (verdict, question) in verdicts.iter().zip(&questions) {
                let wanted = if *question == dropped { Verdict::Silent } else { Verdict::Passed };
                assert_eq!(*verdict, wanted, "{question} with {words} dropped");
            }
        }
    }
    world.lab.down()?;
    Ok(())
}

#[test]
fn a_flood_is_counted_where_it_arrives_and_not_where_it_is_dropped() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut world = World::up("floods")?;
    let (from, to) = (world.plug("node1", PodSpec::new("from"))?, world.plug("node1", PodSpec::new("to"))?);
    let sink = Sink::start(&to, 9000)?;
    let targets: Vec<_> = to.addresses().iter().map(|address| (*address, sink.port()).into()).collect();
    let drop = |action: &str| format!("ip6tables -t mangle {action} FORWARD -p udp --dport 9000 -j DROP");
    world.node("node1").shell(&drop("-A"))?;
    let flood = Flood::start(&from, &targets, 1_000)?;
    wait_until("hundreds of datagrams", CONVERGENCE, || sink.count() > 300)?;
    assert_eq!(sink.by_source().keys().collect::<Vec<_>>(), [&from.address(Family::Ipv4)]);
    world.node("node1").shell(&drop("-D"))?;
    wait_until("both families", CONVERGENCE, || sink.by_source().len() == 2)?;
    assert!(flood.finish() > 600);
    world.lab.down()?;
    Ok(())
}
