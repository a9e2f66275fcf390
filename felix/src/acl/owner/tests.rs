//! The owner on the fake kernel, round by round, without threads and with time as a number. What its workers would do is
//! done by hand, so a restore takes as long as a test wants.

mod crashes;

use std::collections::BTreeSet;
use std::sync::Arc;

use kernel::acl::{
    AddressHome, AddressPort, Connection, ElementChange, MarkedAddress, SetElement, SetName, SetOf, SetSpec, Tuple,
};
use kernel::fake::FakeKernel;
use kernel::fake::acl::{AclOperation, FakeAcl};
use types::policy::{
    Action, Direction, EndpointSelector, LabelSelector, Labels, NamespaceSelector, Peer, Peers, Policy, PolicyId,
    PolicyKind, PortMatch, PortRange, Ports, Protocol, Rule, Tier,
};
use types::{NamespacedName, Update};

use super::*;
use crate::acl::connections::Tracker;
use crate::acl::names::SetRef;
use crate::acl::tables::answer;
use crate::acl::view::{AclView, DropCount};
use crate::policy::PolicyUpdate;

/// EBUSY, as a held lock is told.
const BUSY: i32 = 16;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tuple(source: &str, source_port: u16, destination: &str, destination_port: u16) -> Tuple {
    Tuple { source: ip(source), destination: ip(destination), protocol: 6, source_port, destination_port }
}

/// A TCP connection without NAT.
fn connection(from: &str, to: &str, port: u16) -> Connection {
    Connection { original: tuple(from, 4_000, to, port), reply: tuple(to, port, from, 4_000), zone: 0, id: None }
}

fn id(pod: u8) -> EndpointId {
    format!("manx/{:012x}/eth0", u64::from(pod) + 0xabc0).parse().unwrap()
}

fn facts(pod: u8, app: &str) -> EndpointFacts {
    EndpointFacts {
        namespace: "shop".to_owned(),
        name: format!("pod-{pod}"),
        labels: Labels::from([("app".to_owned(), app.to_owned())]),
        ports: Vec::new(),
        addresses: vec![ip(&format!("10.65.0.{pod}")), ip(&format!("fd65::{pod}"))],
        finished: false,
    }
}

fn selector(app: &str) -> EndpointSelector {
    let match_labels = Labels::from([("app".to_owned(), app.to_owned())]);
    EndpointSelector {
        namespaces: NamespaceSelector::Named("shop".to_owned()),
        endpoints: LabelSelector { match_labels, match_expressions: Vec::new() },
    }
}

/// Pods of `app` are reached by those of `from` on these ports of TCP, and by nobody else.
fn policy(name: &str, app: &str, from: &str, ports: (u16, u16)) -> PolicyUpdate {
    let rule = Rule {
        action: Action::Allow,
        peers: Peers::Only(vec![Peer::Endpoints(selector(from))]),
        ports: Ports::Only(vec![PortMatch::Range(Protocol::Tcp, PortRange::new(ports.0, ports.1).unwrap())]),
    };
    let policy = Policy {
        tier: Tier::network_policy(),
        order: 0,
        subject: selector(app),
        ingress: Some(vec![rule]),
        egress: None,
    };
    PolicyUpdate::Policy(Update::Set(policy_id(name), Arc::new(policy)))
}

fn policy_id(name: &str) -> PolicyId {
    PolicyId { kind: PolicyKind::NetworkPolicy, namespace: "shop".to_owned(), name: name.to_owned() }
}

fn in_sync(policies: Vec<PolicyUpdate>) -> Vec<PolicyUpdate> {
    let mut all = vec![PolicyUpdate::Policy(Update::Restart)];
    all.extend(policies);
    all.push(PolicyUpdate::Policy(Update::InSync));
    all.extend([PolicyUpdate::Namespace(Update::Restart), PolicyUpdate::Namespace(Update::InSync)]);
    all.extend([PolicyUpdate::Remote(Update::Restart), PolicyUpdate::Remote(Update::InSync)]);
    all.extend([PolicyUpdate::Expected(Update::Restart), PolicyUpdate::Expected(Update::InSync)]);
    all
}

/// An owner and what is at the other ends.
struct Acl {
    kernel: FakeAcl,
    owner: Owner,
    now: Instant,
    tables: Box<dyn Tables>,
    tables_tasks: threads::Receiver<TablesTask>,
    tables_answers: threads::SyncSender<TablesAnswer>,
    tracker: Tracker,
    connections_tasks: threads::Receiver<ConnectionsTask>,
    connections_answers: threads::SyncSender<ConnectionsAnswer>,
    readiness: watch::Receiver<Vec<String>>,
    _commands: mpsc::Sender<Command>,
}

impl Acl {
    fn start(kernel: &FakeAcl) -> Self {
        Self::start_with(kernel, AclConfig::default(), IptablesVariant::Nft)
    }

    fn start_with(kernel: &FakeAcl, config: AclConfig, variant: IptablesVariant) -> Self {
        let mark = MarkSpace::new(config.mark_mask);
        Self::start_in(kernel, config, mark, variant)
    }

    fn start_in(kernel: &FakeAcl, config: AclConfig, mark: MarkSpace, variant: IptablesVariant) -> Self {
        let (commands, requests) = mpsc::channel(256);
        let (readiness, reasons) = watch::channel(Vec::new());
        let (tables_given, tables_tasks) = threads::sync_channel(1);
        let (tables_answers, tables_given_back) = threads::sync_channel(1);
        let (connections_given, connections_tasks) = threads::sync_channel(1);
        let (connections_answers, connections_given_back) = threads::sync_channel(1);
        let ends = Ends {
            sets: Box::new(kernel.sets()),
            events: Box::new(kernel.events().unwrap()),
            commands: requests,
            tables: tables_given,
            tables_answers: tables_given_back,
            connections: connections_given,
            connections_answers: connections_given_back,
            readiness,
        };
        let now = Instant::now();
        let mut tables = Box::new(kernel.tables(variant));
        let mut owner = Owner::new(config, mark, variant, ends, now);
        owner.open(tables.as_mut(), now).unwrap();
        Self {
            kernel: kernel.clone(),
            owner,
            now,
            tables,
            tables_tasks,
            tables_answers,
            tracker: Tracker { connections: Box::new(kernel.connections()), host: Box::new(FakeKernel::new()) },
            connections_tasks,
            connections_answers,
            readiness: reasons,
            _commands: commands,
        }
    }

    /// In sync with these policies and pods.
    fn running(kernel: &FakeAcl, policies: Vec<PolicyUpdate>, pods: &[(u8, &str)]) -> Self {
        let mut acl = Self::start(kernel);
        acl.begin(policies, pods);
        acl
    }

    fn begin(&mut self, policies: Vec<PolicyUpdate>, pods: &[(u8, &str)]) {
        for (pod, app) in pods {
            self.attach(*pod, app);
        }
        self.tell(Command::LocalInSync);
        self.tell(Command::Update(in_sync(policies)));
        self.settle();
    }

    fn tell(&mut self, command: Command) {
        self.owner.command(command, self.now);
    }

    fn update(&mut self, update: PolicyUpdate) {
        self.tell(Command::Update(vec![update]));
    }

    fn attach(&mut self, pod: u8, app: &str) -> oneshot::Receiver<Result<(), AclError>> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Attach { id: id(pod), facts: facts(pod, app), reply });
        answer
    }

    fn detach(&mut self, pod: u8) -> oneshot::Receiver<Result<(), AclError>> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Detach { id: id(pod), reply });
        answer
    }

    fn view(&mut self) -> AclView {
        let (reply, mut answer) = oneshot::channel();
        self.tell(Command::View(reply));
        self.settle();
        answer.try_recv().unwrap()
    }

    /// A round, in which no worker does anything.
    fn round(&mut self) {
        assert!(self.owner.round(self.now));
    }

    /// The worker of tables does its task, if it has one.
    fn work_tables(&mut self) -> bool {
        let Ok(task) = self.tables_tasks.try_recv() else { return false };
        self.tables_answers.try_send(answer(self.tables.as_mut(), task)).unwrap();
        true
    }

    fn work_connections(&mut self) -> bool {
        let Ok(task) = self.connections_tasks.try_recv() else { return false };
        self.connections_answers.try_send(self.tracker.answer(task)).unwrap();
        true
    }

    /// Rounds and work until nobody has anything to do now.
    fn settle(&mut self) {
        self.round();
        while self.work_tables() | self.work_connections() {
            self.round();
        }
        while self.owner.timeout(self.now).is_zero() {
            self.round();
            while self.work_tables() | self.work_connections() {
                self.round();
            }
        }
    }

    /// The same, once this time has passed.
    fn after(&mut self, time: Duration) {
        self.now += time;
        self.settle();
    }

    /// Whether the kernel lets a TCP packet in: by the maps, chains and sets that it would look at.
    fn admits(&self, from: u8, to: u8, port: u16) -> bool {
        [4, 6].into_iter().all(|family| admits(&self.kernel, family, from, to, port))
    }

    fn mark_number(&self, pod: u8) -> Option<u16> {
        mark_number(&self.kernel, 4, pod)
    }
}

fn mark_number(kernel: &FakeAcl, family: u8, pod: u8) -> Option<u16> {
    let (_, elements) = kernel.set(&SetName::new(format!("manx-c{family}")).unwrap())?;
    elements.iter().find_map(|element| match element {
        SetElement::Mark(MarkedAddress { address, mark, .. }) => {
            facts(pod, "").addresses.contains(address).then_some((mark >> 16) as u16)
        }
        _ => None,
    })
}

/// A small reading of ingress chains: sets and single ports, enough for the policies of these tests.
fn admits(kernel: &FakeAcl, family: u8, from: u8, to: u8, port: u16) -> bool {
    let (version, peer) = match family {
        4 => (Family::Ipv4, facts(from, "").addresses[0]),
        _ => (Family::Ipv6, facts(from, "").addresses[1]),
    };
    let rules = |chain: &str| kernel.rules(version, "mangle", chain).unwrap_or_default();
    let is_hooked = rules("FORWARD").first().is_some_and(|rule| rule.ends_with("-j manx-forward"));
    if !is_hooked || rules("manx-forward").len() != 8 {
        return true;
    }
    let Some(number) = mark_number(kernel, family, to) else { return false };
    let is_known = mark_number(kernel, family, from).is_some();
    if !is_known {
        return false;
    }
    if number == 1 {
        return true;
    }
    let leads = |chain: &str, to: &str| rules(chain).iter().any(|rule| rule.ends_with(&format!("-g {to}")));
    let chain = format!("manx-i-{number}");
    let branches = kernel.chains(version, "mangle").into_iter().filter(|chain| chain.starts_with("manx-to-"));
    if !branches.into_iter().any(|branch| leads("manx-to", &branch) && leads(&branch, &chain)) {
        return false;
    }
    for rule in rules(&chain) {
        let words: Vec<_> = rule.split_whitespace().collect();
        let of = |option: &str| words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1));
        if of("--ctstate").is_some() {
            continue;
        }
        let fits_port = of("--dport").is_none_or(|ports| {
            let (first, last) = ports.split_once(':').unwrap_or((ports, ports));
            (first.parse().unwrap()..=last.parse().unwrap()).contains(&port)
        });
        let fits_set = of("--match-set").is_none_or(|set| {
            let (_, elements) = kernel.set(&SetName::new(*set).unwrap()).unwrap();
            elements.iter().any(|element| match element {
                SetElement::Address(address) => *address == peer,
                SetElement::Net(prefix) => prefix.contains(peer),
                SetElement::Port(AddressPort { address, protocol: Protocol::Tcp, port: of }) => {
                    (*address, *of) == (peer, port)
                }
                _ => false,
            })
        });
        if fits_port && fits_set {
            return rule.ends_with("-j RETURN");
        }
    }
    false
}

#[test]
fn on_an_empty_kernel_unknown_addresses_are_dropped_before_anything_else_is_known() {
    let kernel = FakeAcl::new();
    let acl = Acl::start(&kernel);
    for family in Family::ALL {
        assert!(kernel.rules(family, "mangle", "FORWARD").unwrap()[0].ends_with("-j manx-forward"));
        assert!(kernel.rules(family, "mangle", "manx-from").unwrap().last().unwrap().ends_with("-j DROP"));
        assert!(kernel.rules(family, "raw", "PREROUTING").unwrap()[0].ends_with("-j manx-raw"));
    }
    assert!(!acl.admits(1, 2, 80));
}

#[test]
fn an_attach_is_answered_when_the_class_is_in_force_in_both_families() {
    let kernel = FakeAcl::new();
    let mut acl = Acl::running(&kernel, vec![policy("web", "server", "client", (80, 9000))], &[(1, "client")]);
    let mut answer = acl.attach(2, "server");
    acl.round();
    assert_eq!(acl.mark_number(2), None, "its class is not in force");
    assert!(acl.work_tables());
    acl.round();
    assert!(acl.mark_number(2).is_some(), "IPv4 is");
    assert!(answer.try_recv().is_err(), "IPv6 is not");
    acl.settle();
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
    assert!(acl.admits(1, 2, 85) && !acl.admits(1, 2, 9001));
    // Its class is rendered now: the next one needs no restore.
    kernel.take_calls();
    let mut answer = acl.attach(3, "server");
    acl.round();
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
    assert_eq!(kernel.count(AclOperation::Restore), 0);
    assert!(acl.admits(1, 3, 85));
}

#[test]
fn members_come_and_go_while_a_restore_takes_its_time() {
    let kernel = FakeAcl::new();
    let policies = vec![policy("web", "server", "client", (80, 9000)), policy("db", "db", "server", (1, 4000))];
    let mut acl = Acl::running(&kernel, policies, &[(1, "other"), (2, "server"), (3, "db")]);
    assert!(acl.admits(2, 3, 80) && !acl.admits(1, 2, 80));
    acl.update(policy("db", "db", "server", (443, 5000)));
    acl.round();
    // Under way: what another class admits changes meanwhile.
    let mut answer = acl.attach(1, "client");
    acl.round();
    assert!(acl.admits(1, 2, 80), "a label is elements only");
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
    assert!(acl.admits(2, 3, 80), "the old content is in force");
    acl.settle();
    assert!(acl.admits(2, 3, 443) && !acl.admits(2, 3, 80));
}

#[test]
fn a_failing_restore_opens_nothing_loses_nothing_and_is_tried_again() {
    let kernel = FakeAcl::new();
    let policies = vec![policy("web", "server", "client", (80, 9000))];
    let mut acl = Acl::running(&kernel, policies, &[(1, "client"), (2, "server")]);
    kernel.fail_always(AclOperation::Restore, BUSY);
    acl.update(policy("web", "server", "client", (9500, 19000)));
    let mut answer = acl.attach(3, "server");
    acl.settle();
    assert!(acl.readiness.borrow()[0].contains("rules cannot be changed"), "{:?}", acl.readiness.borrow());
    assert!(acl.admits(1, 2, 80) && !acl.admits(1, 2, 9500), "what is in force stays so");
    assert!(answer.try_recv().is_err() && acl.mark_number(3).is_none(), "who comes waits for his policies");
    // Who loses his rights does so all the same.
    acl.attach(1, "other");
    acl.settle();
    assert!(!acl.admits(1, 2, 80));
    acl.attach(1, "client");
    acl.settle();
    kernel.heal();
    acl.after(Duration::from_secs(20));
    acl.after(Duration::from_secs(20));
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
    assert!(acl.admits(1, 2, 9500) && !acl.admits(1, 2, 80) && acl.admits(1, 3, 9500));
    assert!(acl.readiness.borrow().is_empty());
    assert!(acl.view().restore_failures > 0);
}

#[test]
fn a_change_of_rules_only_adds_before_it_counts_and_is_cleared_away_later() {
    let kernel = FakeAcl::new();
    let mut acl =
        Acl::running(&kernel, vec![policy("web", "server", "client", (80, 9000))], &[(1, "client"), (2, "server")]);
    let before = acl.mark_number(2).unwrap();
    kernel.take_calls();
    acl.update(policy("web", "server", "client", (80, 9001)));
    acl.settle();
    assert_ne!(acl.mark_number(2).unwrap(), before);
    let restores: Vec<_> = kernel
        .take_calls()
        .into_iter()
        .filter_map(|call| match call {
            kernel::fake::acl::AclCall::Restore(_, text) => Some(text),
            _ => None,
        })
        .collect();
    assert_eq!(restores.len(), 2);
    assert!(restores.iter().all(|text| !text.contains("-X") && !text.contains("-D")), "{restores:?}");
    assert!(restores.iter().all(|text| !text.contains(":manx-to")), "no chain is written anew");
    acl.after(Duration::from_secs(1));
    assert!(!kernel.chains(Family::Ipv4, "mangle").contains(&format!("manx-i-{before}")));
    // And back: a number is free again.
    acl.update(policy("web", "server", "client", (80, 9000)));
    acl.settle();
    assert_eq!(acl.mark_number(2), Some(before));
}

#[test]
fn with_few_numbers_contents_are_replaced_in_place() {
    let kernel = FakeAcl::new();
    // Numbers 2 to 15.
    let mark = MarkSpace::narrow(0x000f_0000);
    let mut acl = Acl::start_in(&kernel, AclConfig::default(), mark, IptablesVariant::Nft);
    let names: Vec<_> = (0..14).map(|number| format!("app-{number}")).collect();
    let policies = |to| names.iter().map(move |name| policy(name, name, "client", (80, to))).collect::<Vec<_>>();
    let pods: Vec<_> = (10..).zip(names.iter().map(String::as_str)).collect();
    acl.begin(policies(9000), &pods);
    acl.attach(1, "client");
    acl.settle();
    assert!(pods.iter().all(|(pod, _)| acl.admits(1, *pod, 9000) && !acl.admits(1, *pod, 9001)));
    for update in policies(9001) {
        acl.update(update);
    }
    acl.settle();
    acl.after(Duration::from_secs(1));
    acl.after(Duration::from_secs(1));
    assert!(pods.iter().all(|(pod, _)| acl.admits(1, *pod, 9001)), "{:?}", acl.readiness.borrow());
}

#[test]
fn a_full_set_is_made_larger_and_one_that_cannot_be_turns_readiness_off() {
    let kernel = FakeAcl::new();
    let mut acl = Acl::running(&kernel, vec![policy("web", "server", "client", (80, 9000))], &[(2, "server")]);
    let name = SetName::new("manx-c4").unwrap();
    let (spec, _) = kernel.set(&name).unwrap();
    // In the place of ours somebody puts one that is full.
    let small = SetName::new("small").unwrap();
    kernel.sets().create_set(&small, &SetSpec { max_elements: 1, ..spec }).unwrap();
    let member = MarkedAddress::try_from(kernel.set(&name).unwrap().1[0]).unwrap();
    kernel.sets().change_elements(&SetOf::new(small.clone()).changes([ElementChange::Put(member)])).unwrap();
    kernel.sets().swap_sets(&small, &name).unwrap();
    kernel.fail_always(AclOperation::SwapSets, BUSY);
    let mut answer = acl.attach(3, "server");
    acl.settle();
    assert!(acl.readiness.borrow().iter().any(|reason| reason.contains("manx-c4")), "{:?}", acl.readiness.borrow());
    assert!(answer.try_recv().is_err());
    kernel.heal();
    acl.after(Duration::from_secs(20));
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
    assert!(acl.readiness.borrow().is_empty());
    assert!(kernel.set(&name).unwrap().0.max_elements > 1);
}

#[test]
fn what_others_flush_is_repaired_within_100_ms_of_the_event_and_alarmed() {
    let kernel = FakeAcl::new();
    let mut acl =
        Acl::running(&kernel, vec![policy("web", "server", "client", (80, 9000))], &[(1, "other"), (2, "server")]);
    let rules = |kernel: &FakeAcl| {
        kernel
            .chains(Family::Ipv4, "mangle")
            .iter()
            .map(|chain| kernel.rules(Family::Ipv4, "mangle", chain))
            .collect::<Vec<_>>()
    };
    let before = rules(&kernel);
    kernel.flush_table(Family::Ipv4, "mangle");
    assert!(admits(&kernel, 4, 1, 2, 80), "open");
    acl.round();
    acl.after(Duration::from_millis(99));
    assert_eq!(rules(&kernel), before);
    let view = acl.view();
    assert_eq!(view.repairs, 1);
    assert!(view.unprotected > Duration::ZERO && view.unprotected < Duration::from_millis(100));
    // What kube-proxy does all day long concerns nobody.
    kernel.take_calls();
    kernel.foreign_restore(Family::Ipv4, "*nat\n:KUBE-X - [0:0]\n-A KUBE-X -j RETURN\nCOMMIT\n").unwrap();
    acl.after(Duration::from_millis(99));
    assert_eq!(kernel.count(AclOperation::Save), 0);
}

#[test]
fn rules_that_could_not_be_read_are_no_reason_any_more_once_all_of_them_are_read() {
    let kernel = FakeAcl::new();
    let mut acl = Acl::running(&kernel, vec![policy("web", "server", "client", (80, 9000))], &[(2, "server")]);
    let restores = kernel.count(AclOperation::Restore);
    kernel.fail_always(AclOperation::Save, BUSY);
    kernel.lose_events();
    acl.settle();
    assert!(acl.readiness.borrow()[0].contains("rules cannot be changed"), "{:?}", acl.readiness.borrow());
    kernel.heal();
    // One table read in its turn says nothing of the others.
    acl.owner.reading.read_in_turn(vec![(Family::Ipv4, TableName::Nat)]);
    acl.settle();
    assert_eq!(acl.readiness.borrow().len(), 1, "before they are read again");
    acl.after(Duration::from_secs(20));
    assert!(acl.readiness.borrow().is_empty(), "{:?}", acl.readiness.borrow());
    assert_eq!(kernel.count(AclOperation::Restore), restores, "no restore had to say so");
}

#[test]
fn reading_rules_does_not_hide_that_they_cannot_be_changed() {
    let kernel = FakeAcl::new();
    let mut acl = Acl::running(&kernel, vec![policy("web", "server", "client", (80, 9000))], &[(2, "server")]);
    kernel.fail_always(AclOperation::Restore, BUSY);
    acl.update(policy("web", "server", "client", (80, 9001)));
    acl.settle();
    kernel.fail_always(AclOperation::Save, BUSY);
    kernel.lose_events();
    acl.settle();
    kernel.heal();
    kernel.fail_always(AclOperation::Restore, BUSY);
    let reads = kernel.count(AclOperation::Save);
    acl.after(Duration::from_secs(20));
    assert!(kernel.count(AclOperation::Save) > reads);
    assert!(acl.readiness.borrow()[0].contains("rules cannot be changed"), "{:?}", acl.readiness.borrow());
    kernel.heal();
    acl.after(Duration::from_secs(20));
    assert!(acl.readiness.borrow().is_empty());
}

#[test]
fn while_iptables_is_at_work_the_owner_waits_for_its_answer_and_then_reads_what_others_have_changed() {
    let kernel = FakeAcl::new();
    let mut acl =
        Acl::running(&kernel, vec![policy("web", "server", "client", (80, 9000))], &[(1, "client"), (2, "server")]);
    acl.update(policy("web", "server", "client", (80, 9001)));
    acl.round();
    kernel.flush_chain(Family::Ipv4, "mangle", "FORWARD");
    acl.round();
    acl.now += Duration::from_millis(50);
    acl.round();
    assert!(!acl.owner.timeout(acl.now).is_zero(), "the answer of iptables wakes it");
    acl.settle();
    assert!(acl.admits(1, 2, 9001) && !acl.admits(3, 2, 9001));
    assert_eq!(acl.view().repairs, 1);
}

#[test]
fn legacy_rules_are_looked_at_every_five_seconds() {
    let kernel = FakeAcl::new();
    let mut acl = Acl::start_with(&kernel, AclConfig::default(), IptablesVariant::Legacy);
    acl.begin(vec![policy("web", "server", "client", (80, 9000))], &[(1, "other"), (2, "server")]);
    acl.after(Duration::from_secs(5));
    kernel.flush_chain(Family::Ipv6, "mangle", "FORWARD");
    acl.after(Duration::from_secs(5));
    assert!(!acl.admits(1, 2, 80));
    assert_eq!(acl.view().unprotected, Duration::from_secs(5), "as far as one can know");
}

#[test]
fn connections_of_former_addresses_are_forgotten_before_somebody_else_has_them_and_nobody_waits_for_it_before() {
    let kernel = FakeAcl::new();
    let acl = Acl::running(&kernel, vec![], &[(1, "client"), (2, "server")]);
    assert!(acl.mark_number(1).is_some());
    drop(acl);
    let connection = |other: &str| connection("10.65.0.1", other, 80);
    kernel.put_connection(connection("192.0.2.1"));
    // It works before sources are in sync.
    let mut acl = Acl::start(&kernel);
    acl.attach(1, "client");
    let mut answer = acl.detach(1);
    acl.round();
    assert_eq!(answer.try_recv().unwrap(), Ok(()));
    assert_eq!(acl.mark_number(1), None);
    assert!(acl.mark_number(2).is_some(), "of others nothing is changed");
    assert_eq!(kernel.all_connections().len(), 1, "some are collected first");
    acl.after(Duration::from_secs(1));
    assert_eq!(kernel.all_connections(), []);

    // Somebody else has it at once: he waits, and the collecting ends.
    acl.begin(vec![], &[(2, "server")]);
    kernel.put_connection(connection("192.0.2.2"));
    acl.tell(Command::Forget(BTreeSet::from([ip("10.65.0.1")])));
    let mut attached = acl.attach(1, "other");
    acl.round();
    assert!(attached.try_recv().is_err());
    acl.settle();
    assert_eq!(attached.try_recv().unwrap(), Ok(()));
    assert_eq!(kernel.all_connections(), []);
}

#[test]
fn connections_that_are_forbidden_now_are_cut_once_the_rules_are_in_force() {
    let kernel = FakeAcl::new();
    let policies = vec![policy("web", "server", "client", (80, 9000))];
    let mut acl = Acl::running(&kernel, policies, &[(1, "client"), (2, "server")]);
    acl.after(Duration::from_secs(1));
    let direct = |port| connection("10.65.0.1", "10.65.0.2", port);
    // By way of a service, to port 80 in the end.
    let service = Connection {
        original: tuple("10.65.0.1", 4_001, "10.96.0.1", 85),
        reply: tuple("10.65.0.2", 80, "10.65.0.1", 4_001),
        zone: 0,
        id: None,
    };
    for connection in [direct(80), direct(85), service] {
        kernel.put_connection(connection);
    }
    acl.update(policy("web", "server", "client", (85, 9000)));
    acl.round();
    acl.now += Duration::from_secs(1);
    acl.round();
    assert_eq!(kernel.all_connections().len(), 3, "the rules are not in force");
    acl.settle();
    acl.after(Duration::from_secs(1));
    assert_eq!(kernel.all_connections(), [direct(85)]);
    assert_eq!(acl.view().connections_cut, 2);
}

#[test]
fn what_a_set_forbids_is_cut_also_while_rules_cannot_be_changed() {
    let kernel = FakeAcl::new();
    let policies = vec![policy("web", "server", "client", (80, 9000)), policy("other", "aside", "client", (80, 9000))];
    let mut acl = Acl::running(&kernel, policies, &[(1, "client"), (2, "server"), (3, "aside")]);
    acl.after(Duration::from_secs(1));
    kernel.put_connection(connection("10.65.0.1", "10.65.0.2", 80));
    kernel.put_connection(connection("10.65.0.1", "10.65.0.3", 85));
    kernel.fail_always(AclOperation::Restore, BUSY);
    acl.update(policy("other", "aside", "client", (80, 9001)));
    acl.settle();
    acl.attach(1, "stranger");
    acl.settle();
    assert!(!acl.admits(1, 2, 80), "the sets say so already");
    acl.after(Duration::from_secs(2));
    assert_eq!(kernel.all_connections(), []);
}

#[test]
fn where_cutting_is_switched_off_connections_that_policies_forbid_now_live_on() {
    let kernel = FakeAcl::new();
    let config = AclConfig { cut_connections: false, ..AclConfig::default() };
    let mut acl = Acl::start_with(&kernel, config, IptablesVariant::Nft);
    acl.begin(vec![policy("web", "server", "client", (80, 9000))], &[(1, "client"), (2, "server")]);
    kernel.put_connection(connection("10.65.0.1", "10.65.0.2", 80));
    acl.update(policy("web", "server", "client", (85, 9000)));
    acl.settle();
    acl.after(Duration::from_secs(2));
    assert!(!acl.admits(1, 2, 80), "new ones are not admitted");
    assert_eq!((kernel.all_connections().len(), acl.view().connections_cut), (1, 0));
}

#[test]
fn a_pod_that_was_expected_is_plugged_in_by_set_elements_alone() {
    let kernel = FakeAcl::new();
    let mut acl = Acl::running(&kernel, vec![policy("web", "server", "client", (80, 9000))], &[(1, "client")]);
    let key = NamespacedName { namespace: "shop".to_owned(), name: "pod-2".to_owned() };
    let expected = EndpointFacts { addresses: Vec::new(), ..facts(2, "server") };
    acl.update(PolicyUpdate::Expected(Update::Set(key, expected)));
    acl.settle();
    kernel.take_calls();
    let mut attached = acl.attach(2, "server");
    // No worker does anything: whatever needs iptables would not be done.
    acl.round();
    assert_eq!(attached.try_recv().unwrap(), Ok(()));
    assert_eq!(kernel.count(AclOperation::Restore), 0);
    assert!(acl.admits(1, 2, 80) && !acl.admits(1, 2, 79));
}

#[test]
fn drops_are_counted_by_endpoint_and_direction_over_the_lives_of_chains_and_of_agents() {
    let kernel = FakeAcl::new();
    let policies = || vec![policy("web", "server", "client", (80, 9000))];
    let mut acl = Acl::running(&kernel, policies(), &[(2, "server"), (3, "server")]);
    assert_eq!(acl.view().drops, []);
    let rules = kernel.rules(Family::Ipv4, "mangle", "manx-drop-in").unwrap();
    assert!(rules[0].contains("--match-set manx-drops-in4 dst") && !rules[0].contains(" -j "), "{rules:?}");
    kernel.count_member(&SetName::new("manx-drops-in4").unwrap(), facts(2, "").addresses[0], 7);
    kernel.count_member(&SetName::new("manx-drops-in6").unwrap(), facts(2, "").addresses[1], 2);
    let expected = [DropCount {
        endpoint: id(2),
        namespace: "shop".to_owned(),
        pod: "pod-2".to_owned(),
        direction: Direction::Ingress,
        packets: 9,
    }];
    assert_eq!(acl.view().drops, expected);
    acl.update(policy("web", "server", "client", (80, 9001)));
    acl.settle();
    acl.after(Duration::from_secs(1));
    assert_eq!(acl.view().drops, expected, "other chains");
    drop(acl);
    let mut acl = Acl::running(&kernel, policies(), &[(2, "server"), (3, "server")]);
    assert_eq!(acl.view().drops, expected, "another agent");
    // The next of its address begins anew.
    acl.detach(2);
    acl.settle();
    acl.after(Duration::from_secs(2));
    acl.attach(2, "server");
    acl.settle();
    assert_eq!(acl.view().drops, []);
}

#[test]
fn what_is_known_of_local_addresses_is_kept_right_over_restarts_and_others_doing() {
    let kernel = FakeAcl::new();
    let homes = |kernel: &FakeAcl| kernel.set(&SetName::new("manx-homes4").unwrap()).unwrap().1;
    let home = |pod| {
        let interface = LinkName::from(&id(pod).host_interface());
        SetElement::Home(AddressHome { address: facts(pod, "").addresses[0], interface })
    };
    let acl = Acl::running(&kernel, vec![], &[(1, "client"), (2, "server")]);
    assert_eq!(homes(&kernel), [home(1), home(2)]);
    drop(acl);
    let mut acl = Acl::running(&kernel, vec![], &[(2, "server"), (3, "server")]);
    assert_eq!(homes(&kernel), [home(2), home(3)]);
    kernel.flush_set(&SetName::new("manx-homes4").unwrap());
    acl.after(Duration::from_secs(100));
    assert_eq!(homes(&kernel), [home(2), home(3)]);
}

#[test]
fn logging_is_switched_while_running_and_survives_a_restart_of_either_kind() {
    let kernel = FakeAcl::new();
    let policies = || vec![policy("web", "server", "client", (80, 9000))];
    let mut acl = Acl::running(&kernel, policies(), &[(2, "server")]);
    let logs = |kernel: &FakeAcl| {
        let chains = kernel.chains(Family::Ipv4, "mangle").into_iter().filter(|chain| chain.starts_with("manx-i-"));
        chains
            .flat_map(|chain| kernel.rules(Family::Ipv4, "mangle", &chain).unwrap())
            .filter(|rule| rule.contains("NFLOG"))
            .count()
    };
    acl.tell(Command::Log(true));
    acl.settle();
    assert_eq!(logs(&kernel), 1);
    let number = acl.mark_number(2);
    drop(acl);
    let acl = Acl::running(&kernel, policies(), &[(2, "server")]);
    assert_eq!(
        (logs(&kernel), acl.mark_number(2)),
        (0, number),
        "the same class under the same number, without logging"
    );
}

#[test]
fn sets_that_nobody_wants_go_after_the_rules_that_speak_of_them() {
    let kernel = FakeAcl::new();
    let mut acl =
        Acl::running(&kernel, vec![policy("web", "server", "client", (80, 9000))], &[(1, "client"), (2, "server")]);
    let ours = |kernel: &FakeAcl| kernel.set_names().into_iter().map(|name| name.to_string()).collect::<BTreeSet<_>>();
    assert!(ours(&kernel).len() > 2);
    acl.update(PolicyUpdate::Policy(Update::Delete(policy_id("web"))));
    acl.settle();
    acl.after(Duration::from_secs(1));
    acl.after(Duration::from_secs(1));
    let left = Family::ALL.into_iter().flat_map(SetRef::base).map(|set| set.to_string()).collect();
    assert_eq!(ours(&kernel), left);
    assert!(!kernel.chains(Family::Ipv4, "mangle").iter().any(|chain| chain.starts_with("manx-i-")));
    assert_eq!(acl.mark_number(2), Some(1));
}
