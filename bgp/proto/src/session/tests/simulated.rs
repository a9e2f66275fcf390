//! Two sessions that dial each other at once over a network that delays everything at will: whatever the order of events,
//! they settle on one connection, and no established session is lost over it.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::wire::{Cease, ErrorCode};

/// One of the two speakers.
type End = usize;

/// A connection as each of its ends knows it, with what is on its way to that end.
struct Wire {
    ids: [Option<ConnId>; 2],
    towards: [VecDeque<Arrival>; 2],
    closed: [bool; 2],
}

enum Arrival {
    Connected,
    Accepted,
    Message(Bytes),
    Closed,
}

struct Network {
    benches: [Bench; 2],
    wires: Vec<Wire>,
    by_id: [BTreeMap<ConnId, usize>; 2],
    /// Sessions that went down, and attempts that left neither connection.
    lost: Vec<DownReason>,
}

impl Network {
    fn new(graceful_restart: bool) -> Self {
        let terms = graceful_restart.then(|| restart_terms(true));
        let left = SessionConfig { graceful_restart: terms.clone(), ..config() };
        let right = SessionConfig {
            router_id: RouterId::new(HIGHER_ID.into()).unwrap(),
            local_asn: left.peer_asn,
            peer_asn: left.local_asn,
            seed: 99,
            ..left.clone()
        };
        let benches = [Bench::new(left), Bench::new(right)];
        Self { benches, wires: Vec::new(), by_id: Default::default(), lost: Vec::new() }
    }

    fn feed(&mut self, end: End, input: Input) {
        let outputs = self.benches[end].feed(input);
        let mut acknowledged = Vec::new();
        for output in outputs {
            match output {
                Output::Probe(conn) => {
                    let wire = &self.wires[self.by_id[end][&conn]];
                    acknowledged.extend((!wire.closed[1 - end]).then_some(conn));
                }
                Output::Refused(_) => {}
                Output::Connect(conn) => {
                    let mut wire = Wire { ids: [None; 2], towards: Default::default(), closed: [false; 2] };
                    wire.ids[end] = Some(conn);
                    wire.towards[end].push_back(Arrival::Connected);
                    wire.towards[1 - end].push_back(Arrival::Accepted);
                    self.by_id[end].insert(conn, self.wires.len());
                    self.wires.push(wire);
                }
                Output::Close(conn) => {
                    let wire = &mut self.wires[self.by_id[end][&conn]];
                    wire.closed[end] = true;
                    wire.towards[end].clear();
                    wire.towards[1 - end].push_back(Arrival::Closed);
                }
                Output::Send(conn, message) => {
                    let wire = &mut self.wires[self.by_id[end][&conn]];
                    wire.towards[1 - end].push_back(Arrival::Message(message));
                }
                Output::Down(reason) => self.lost.push(reason),
                // The other speaker was not started yet.
                Output::AttemptFailed(DownReason::NotificationReceived(notification))
                    if notification.error == ErrorCode::Cease(Cease::ConnectionRejected) => {}
                Output::AttemptFailed(reason) => self.lost.push(reason),
                Output::Established(..) | Output::Update(_) | Output::Refresh(_) => {}
            }
        }
        acknowledged.into_iter().for_each(|conn| self.feed(end, Input::Acknowledged(conn)));
    }

    /// Where something is about to arrive.
    fn busy(&self) -> Vec<(usize, End)> {
        let ends = (0..self.wires.len()).flat_map(|wire| [(wire, 0), (wire, 1)]);
        ends.filter(|(wire, end)| {
            let wire = &self.wires[*wire];
            !wire.closed[*end] && !wire.towards[*end].is_empty()
        })
        .collect()
    }

    fn arrive(&mut self, (index, end): (usize, End)) {
        let Some(arrival) = self.wires[index].towards[end].pop_front() else { return };
        let input = match (arrival, self.wires[index].ids[end]) {
            (Arrival::Accepted, _) => {
                let conn = self.benches[end].outputs.conn_id();
                self.wires[index].ids[end] = Some(conn);
                self.by_id[end].insert(conn, index);
                Input::Accepted(conn)
            }
            (Arrival::Connected, Some(conn)) => Input::Connected(conn),
            (Arrival::Message(message), Some(conn)) => Input::Received(conn, message),
            (Arrival::Closed, Some(conn)) => {
                self.wires[index].closed[end] = true;
                Input::Closed(conn)
            }
            (_, None) => panic!("an arrival before the connection"),
        };
        self.feed(end, input);
    }

    /// Lets time pass to the next timer of either end.
    fn wait(&mut self) {
        let at = self.benches.iter().filter_map(|bench| bench.session.timeout()).min().expect("a timer");
        self.benches.iter_mut().for_each(|bench| bench.now = at);
        [0, 1].into_iter().for_each(|end| self.feed(end, Input::Tick));
    }

    fn is_settled(&self) -> bool {
        let wire = |end: End| self.benches[end].session.connection().map(|conn| self.by_id[end][&conn]);
        self.busy().is_empty() && wire(0).is_some() && wire(0) == wire(1)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rfc4271_6_8_whatever_arrives_first_two_speakers_settle_on_one_connection(
        choices in prop::collection::vec(any::<u16>(), 200),
        graceful_restart: bool,
        together: bool,
    ) {
        let mut network = Network::new(graceful_restart);
        let now = network.benches[0].now;
        network.benches[1].now = now;
        network.feed(0, Input::Start);
        if together {
            network.feed(1, Input::Start);
        }
        let mut right_runs = together;
        for choice in choices {
            let busy = network.busy();
            if !right_runs && (busy.is_empty() || choice % 7 == 0) {
                network.feed(1, Input::Start);
                right_runs = true;
            } else if busy.is_empty() {
                if network.is_settled() {
                    break;
                }
                network.wait();
            } else {
                network.arrive(busy[usize::from(choice) % busy.len()]);
            }
        }
        prop_assert!(network.is_settled(), "{:?}", network.benches.map(|bench| bench.session));
        prop_assert_eq!(network.lost, []);
    }
}
