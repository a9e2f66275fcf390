//! What the tables should hold, as text for iptables-restore. Pure.
//!
//! ```text
//!   mangle FORWARD ─► manx-forward ─┬─ -i mx+ ─► manx-from ─► manx-from-BRANCH ─► manx-e-NUMBER   (source's egress)
//!                                   └─ -o mx+ ─► manx-to ───► manx-to-BRANCH ───► manx-i-NUMBER   (destination's ingress)
//!   mangle INPUT ──── -i mx+ ─► manx-input        pod to its own node
//!   raw PREROUTING ── -i mx+ ─► manx-raw          sources that are not behind their interface, and 127.0.0.0/8
//!   mangle POSTROUTING ─► manx-services           forwarded to an announced range of Services, past every Service
//!   nat POSTROUTING ─► manx-nat (appended)        masquerade out of pools
//!   filter FORWARD ── ACCEPT (appended)           only where its policy is DROP
//! ```
//!
//! What is closed to pods whatever policies and connection tracking say is in `guard`.
//!
//! What a class does not let pass ends in `manx-drop-in` or `manx-drop-out`, which count it by endpoint. A packet that a pod
//! sends to itself, by way of a Service of its own, passes ahead of all classes.
//!
//! mangle, because nothing that others accept in filter can pre-empt it, and because `SET --map-set` exists only there. A
//! verdict of ours that is not DROP is RETURN, so both directions are judged and others' chains still apply. Only packets
//! with a pod's interface on either side are ever dropped.

mod class;
mod guard;

use std::collections::{BTreeMap, BTreeSet};

use types::config::EndpointToHost;
use types::policy::Direction;
use types::{Family, Prefix};

use super::config::MarkSpace;
use super::names::{self, ClassChain, SetRef};
use super::rule::{Rule, Rules};

pub(crate) use class::{VersionRules, class_rules, for_number};
pub(crate) use guard::Guard;

/// The tables that we have something in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum TableName {
    /// Policies.
    Mangle,
    /// Anti-spoofing.
    Raw,
    /// Masquerade.
    Nat,
    /// Forwarding where the default is to drop.
    Filter,
}

impl TableName {
    /// All, the most important first.
    pub(crate) const ALL: [Self; 4] = [Self::Mangle, Self::Raw, Self::Nat, Self::Filter];

    /// As iptables names it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Mangle => "mangle",
            Self::Raw => "raw",
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }
}

/// What one table of one family should hold of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WantedTable {
    /// Our chains.
    pub(crate) chains: BTreeMap<String, Rules>,
    /// Our rules in chains that are not ours.
    pub(crate) hooks: Vec<Hook>,
}

/// A rule of ours in a built-in chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hook {
    /// The chain.
    pub(crate) chain: &'static str,
    /// Where in the chain it belongs.
    pub(crate) place: Place,
    /// The rule.
    pub(crate) rule: Rule,
}

/// Where a hook belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The hook is before all other rules.
    First,
    /// The hook may be anywhere; it is put behind all rules that are there.
    Last,
    /// As `Last`, but only in a chain whose policy is to drop what no rule decides.
    LastWherePolicyDrops,
}

/// What the tables depend on beside classes.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// The bits of the mark.
    pub(crate) mark: MarkSpace,
    /// Pods' interfaces as iptables matches them: `mx+`.
    pub(crate) interfaces: String,
    /// What becomes of connections from pods to their own node.
    pub(crate) to_host: EndpointToHost,
    /// The NFLOG group for what is dropped, where it is logged.
    pub(crate) log: Option<u16>,
    /// What is closed to pods whatever policies say.
    pub(crate) guard: Guard,
    /// Whether any pool has masquerade.
    pub(crate) masquerade: bool,
    /// Ranges of Services' addresses that are announced to the network.
    pub(crate) services: BTreeSet<Prefix>,
}

/// The mark number of endpoints that no policy governs. It has no chains.
pub(crate) const OPEN_NUMBER: u16 = 1;

const ESTABLISHED: &str = "-m conntrack --ctstate RELATED,ESTABLISHED";
const INVALID: &str = "-m conntrack --ctstate INVALID";
const LINK_LOCAL: &str = "-s fe80::/10";
const RETURN: &str = "-j RETURN";
const DROP: &str = "-j DROP";

/// Packets by which hosts find each other and join groups on a link (RFC 4861: 133, 135 and 136; RFC 2710 and 3810: 130 to
/// 132, 143). They are never forwarded.
const NEIGHBOUR_DISCOVERY: [u8; 7] = [130, 131, 132, 133, 135, 136, 143];

/// The table, with these mark numbers in its dispatch tree and `chains` for them.
pub(crate) fn table(
    layout: &Layout,
    family: Family,
    table: TableName,
    numbers: &[u16],
    chains: impl IntoIterator<Item = (String, Rules)>,
) -> WantedTable {
    match table {
        TableName::Mangle => mangle(layout, family, numbers, chains),
        TableName::Raw => raw(layout, family),
        TableName::Nat if layout.masquerade => nat(family),
        TableName::Nat => WantedTable::default(),
        TableName::Filter => filter(layout),
    }
}

fn mangle(
    layout: &Layout,
    family: Family,
    numbers: &[u16],
    class_chains: impl IntoIterator<Item = (String, Rules)>,
) -> WantedTable {
    let mut chains: BTreeMap<_, _> = class_chains.into_iter().collect();
    chains.insert(names::FORWARD.to_owned(), forward(layout, family));
    chains.insert(names::INPUT.to_owned(), input(layout, family));
    chains.insert(names::GUARD.to_owned(), guard::forward(layout, family));
    chains.insert(names::GUARD_INPUT.to_owned(), guard::input(layout, family));
    chains.insert(names::REFUSE.to_owned(), guard::refused(layout));
    for direction in Direction::ALL {
        dispatch(layout, family, direction, numbers, &mut chains);
        chains.insert(names::drop_chain(direction).to_owned(), counted_drop(family, direction));
    }
    let pods = format!("-i {}", layout.interfaces);
    let mut hooks = vec![
        Hook { chain: "FORWARD", place: Place::First, rule: Rule::new("", &jump(names::FORWARD)) },
        Hook { chain: "INPUT", place: Place::First, rule: Rule::new(&pods, &jump(names::INPUT)) },
    ];
    let services: Vec<&Prefix> = layout.services.iter().filter(|range| range.family() == family).collect();
    if !services.is_empty() {
        chains.insert(names::SERVICES.to_owned(), to_services(&services));
        hooks.push(Hook { chain: "POSTROUTING", place: Place::First, rule: Rule::new("", &jump(names::SERVICES)) });
    }
    WantedTable { chains, hooks }
}

/// What still has an address of a Service here was led to no endpoint; the network would send it back, and so on until its
/// time is over. This comes behind filter, where such packets are refused in a way that their sender hears of. Of the node's
/// own packets none is dropped: they are led to endpoints on their way out.
fn to_services(ranges: &[&Prefix]) -> Rules {
    let drop = |range: &&Prefix| Rule::new(&format!("-d {range} -m addrtype ! --src-type LOCAL"), DROP);
    [Rule::new(ESTABLISHED, RETURN)].into_iter().chain(ranges.iter().map(drop)).collect()
}

fn forward(layout: &Layout, family: Family) -> Rules {
    let [from, to] = [format!("-i {}", layout.interfaces), format!("-o {}", layout.interfaces)];
    // The address that it goes to is behind the interface that it comes from.
    let to_itself = format!("{from} -m set --match-set {} dst,src", SetRef::Homes(family));
    [
        Rule::new(&from, &jump(names::GUARD)),
        Rule::new(ESTABLISHED, RETURN),
        guard::translated(family),
        Rule::new(&to_itself, RETURN),
        Rule::new(&from, &jump(names::FROM)),
        Rule::new(&to, &jump(names::TO)),
        // What routes and masquerades after us does not see our bits.
        Rule::new(&from, &clear(layout)),
        Rule::new(&to, &clear(layout)),
    ]
    .into()
}

fn input(layout: &Layout, family: Family) -> Rules {
    let mut rules = vec![Rule::new("", &jump(names::GUARD_INPUT)), Rule::new(ESTABLISHED, RETURN)];
    if family == Family::Ipv6 {
        let discovery = |kind| Rule::new(&format!("-p ipv6-icmp -m icmp6 --icmpv6-type {kind}"), RETURN);
        rules.extend(NEIGHBOUR_DISCOVERY.map(discovery));
    }
    match layout.to_host {
        EndpointToHost::Accept => {
            rules.extend(map(layout, family, local_end(Direction::Egress)));
            rules.extend(drop_unknown(layout, Direction::Egress));
            rules.push(Rule::new("", &clear(layout)));
        }
        EndpointToHost::Policed => rules.extend([Rule::new("", &jump(names::FROM)), Rule::new("", &clear(layout))]),
        EndpointToHost::Drop => rules.push(Rule::new("", DROP)),
    }
    rules.into()
}

/// Where what a class does not let pass ends.
fn counted_drop(family: Family, direction: Direction) -> Rules {
    let matches = format!("-m set --match-set {} {}", SetRef::Drops(direction, family), local_end(direction));
    // The first rule has no target: it only counts.
    [Rule::new(&matches, ""), Rule::new("", DROP)].into()
}

/// The end of a packet that is the local endpoint's.
const fn local_end(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "src",
        Direction::Ingress => "dst",
    }
}

/// The tree that finds a version's chain by the mark. Its cost does not grow with the count of versions but with its root.
fn dispatch(
    layout: &Layout,
    family: Family,
    direction: Direction,
    numbers: &[u16],
    chains: &mut BTreeMap<String, Rules>,
) {
    let root = match direction {
        Direction::Egress => names::FROM,
        Direction::Ingress => names::TO,
    };
    let mut rules = vec![Rule::new(INVALID, DROP)];
    rules.extend(map(layout, family, local_end(direction)));
    rules.extend(drop_unknown(layout, direction));
    rules.push(Rule::new(&marked(layout.mark.mark(OPEN_NUMBER), layout.mark.mask()), RETURN));
    let mut branches: BTreeMap<u16, Vec<Rule>> = BTreeMap::new();
    for number in numbers {
        let matches = marked(layout.mark.mark(*number), layout.mark.mask());
        let rule = Rule::new(&matches, &format!("-g {}", ClassChain::whole(direction).name(*number)));
        branches.entry(layout.mark.branch(*number)).or_default().push(rule);
    }
    for (branch, mut leaves) in branches {
        let name = names::branch_chain(root, branch);
        let (mark, mask) = layout.mark.branch_mark(branch);
        rules.push(Rule::new(&marked(mark, mask), &format!("-g {name}")));
        leaves.push(Rule::new("", DROP));
        chains.insert(name, leaves.into());
    }
    // What is left has a mark number without chains, which an earlier life gave to its address.
    rules.push(Rule::new("", DROP));
    chains.insert(root.to_owned(), rules.into());
}

/// The hash of the rule that drops what has no mark number.
pub(crate) fn unknown_hash(layout: &Layout) -> u64 {
    Rule::new(&marked(0, layout.mark.mask()), DROP).hash
}

/// How what a class does not let pass leaves its chain.
fn deny(direction: Direction) -> String {
    format!("-g {}", names::drop_chain(direction))
}

/// By which rules of which chains a mark number is found.
pub(crate) fn dispatch_of(layout: &Layout, number: u16) -> [(String, u64); 4] {
    let (branch, mask) = (layout.mark.branch(number), layout.mark.mask());
    let (branch_mark, branch_mask) = layout.mark.branch_mark(branch);
    let of = |direction, root: &str| {
        let name = names::branch_chain(root, branch);
        let to_branch = Rule::new(&marked(branch_mark, branch_mask), &format!("-g {name}"));
        let leaf = format!("-g {}", ClassChain::whole(direction).name(number));
        [(root.to_owned(), to_branch.hash), (name, Rule::new(&marked(layout.mark.mark(number), mask), &leaf).hash)]
    };
    let [[a, b], [c, d]] = [of(Direction::Egress, names::FROM), of(Direction::Ingress, names::TO)];
    [a, b, c, d]
}

/// Puts the number of an end into the mark; zero for an address that has none.
fn map(layout: &Layout, family: Family, end: &str) -> [Rule; 2] {
    let set = SetRef::Marks(family);
    [Rule::new("", &clear(layout)), Rule::new("", &format!("-j SET --map-set {set} {end} --map-mark"))]
}

/// The filter fails closed: packets of an address without a mark number are dropped.
fn drop_unknown(layout: &Layout, direction: Direction) -> Vec<Rule> {
    let unknown = marked(0, layout.mark.mask());
    let log = layout.log.map(|group| Rule::new(&unknown, &nflog(group, direction, 0)));
    log.into_iter().chain([Rule::new(&unknown, DROP)]).collect()
}

fn raw(layout: &Layout, family: Family) -> WantedTable {
    let mut rules = match family {
        // Portmap has the kernel take them (route_localnet); answers to what the node itself sent from there have another
        // destination here. In IPv6 the kernel takes none.
        Family::Ipv4 => vec![Rule::new("-d 127.0.0.0/8", DROP)],
        // Neighbour discovery; a packet with such a source is not forwarded (RFC 4291 section 2.5.6). Each new source is a
        // neighbour that the node remembers for five seconds at least, and it has room for 1,024 of them (net.ipv6.neigh
        // gc_thresh3) on all its links.
        Family::Ipv6 => vec![
            Rule::new(&format!("{LINK_LOCAL} -p ipv6-icmp -m limit --limit 64/second --limit-burst 64"), RETURN),
            Rule::new(LINK_LOCAL, DROP),
        ],
    };
    rules.push(Rule::new("-m rpfilter --validmark --invert", DROP));
    let hook = Rule::new(&format!("-i {}", layout.interfaces), &jump(names::RAW));
    WantedTable {
        chains: BTreeMap::from([(names::RAW.to_owned(), rules.into())]),
        hooks: vec![Hook { chain: "PREROUTING", place: Place::First, rule: hook }],
    }
}

fn nat(family: Family) -> WantedTable {
    let (from, pools) = (SetRef::Masquerade(family), SetRef::Pools(family));
    let matches = format!("-m set --match-set {from} src -m set ! --match-set {pools} dst");
    let rules = [Rule::new(&matches, "-j MASQUERADE --random-fully")];
    let hook = Rule::new("", &jump(names::NAT));
    WantedTable {
        chains: BTreeMap::from([(names::NAT.to_owned(), rules.into())]),
        // It stands behind kube-proxy's rules, which know better what to do with packets of Services.
        hooks: vec![Hook { chain: "POSTROUTING", place: Place::Last, rule: hook }],
    }
}

fn filter(layout: &Layout) -> WantedTable {
    let accept = |side| Hook {
        chain: "FORWARD",
        place: Place::LastWherePolicyDrops,
        rule: Rule::new(&format!("{side} {}", layout.interfaces), "-j ACCEPT"),
    };
    WantedTable { chains: BTreeMap::new(), hooks: vec![accept("-i"), accept("-o")] }
}

fn jump(chain: &str) -> String {
    format!("-j {chain}")
}

fn clear(layout: &Layout) -> String {
    format!("-j MARK --set-xmark 0x0/{:#x}", layout.mark.mask())
}

fn marked(mark: u32, mask: u32) -> String {
    format!("-m mark --mark {mark:#x}/{mask:#x}")
}

/// The prefix says direction and class; class zero is the unknown.
fn nflog(group: u16, direction: Direction, class: u16) -> String {
    let letter = match direction {
        Direction::Ingress => 'i',
        Direction::Egress => 'e',
    };
    format!("-j NFLOG --nflog-group {group} --nflog-prefix manx-{letter}{class}")
}

#[cfg(test)]
mod tests;
