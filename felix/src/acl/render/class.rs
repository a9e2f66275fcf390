//! The chains of one version of a class.

use std::collections::{BTreeMap, BTreeSet};

use types::Family;
use types::policy::{Direction, PortRange};

use super::{RETURN, deny, nflog};
use crate::acl::names::{ClassChain, SetRef};
use crate::acl::rule::{NUMBER, Rule, Rules};
use crate::policy::program::{Class, ClassId, ClassRule, PeerMatch, PortClause, Rules as ClassRules, SetId, Verdict};

/// The chains of a class per family, without rules that log. Where one leads to another, [`NUMBER`] stands for the mark
/// number.
pub(crate) type VersionRules = BTreeMap<(Family, ClassChain), Rules>;

/// What multiport takes: ports, of which a range counts twice (XT_MULTI_PORTS).
const MULTIPORT: usize = 15;

/// A TCP packet that begins a connection without being a plain SYN: it would pick up, perhaps from its other end, a
/// connection that was cut.
const NOT_SYN: &str = "-p tcp -m conntrack --ctstate NEW -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN";

/// The rules of a class in these families, and the sets that they speak of.
pub(crate) fn class_rules<'a>(
    id: ClassId,
    class: &Class,
    families: impl IntoIterator<Item = &'a Family>,
) -> (VersionRules, BTreeSet<SetId>) {
    let mut all = VersionRules::new();
    for family in families {
        for direction in Direction::ALL {
            let parts = parts(id, class, *family, direction).into_iter();
            all.extend(parts.map(|(part, rules)| ((*family, ClassChain { direction, part }), rules)));
        }
    }
    let rules = [&class.ingress, &class.egress].into_iter().filter_map(|rules| match rules {
        ClassRules::Open => None,
        ClassRules::Only(rules) => Some(rules),
    });
    let sets = rules.flatten().filter_map(|rule| match rule.peer {
        PeerMatch::Any => None,
        PeerMatch::In(set) | PeerMatch::PortIn(set) => Some(set),
    });
    (all, sets.collect())
}

/// The rules as they are written for a mark number, with one that logs before the end that drops, where there is one.
pub(crate) fn for_number(rules: &Rules, number: u16, log: Option<u16>, direction: Direction, class: ClassId) -> Rules {
    let drops = rules.last().is_some_and(|last| last.hash == Rule::new("", &deny(direction)).hash);
    let log = log.filter(|_| drops).map(|group| Rule::new("", &nflog(group, direction, class.number())));
    if log.is_none() && !rules.iter().any(|rule| rule.spec.contains(NUMBER)) {
        return rules.clone();
    }
    let mut rules: Vec<_> = rules.iter().map(|rule| rule.with_number(number)).collect();
    rules.splice(rules.len().saturating_sub(1)..rules.len().saturating_sub(1), log);
    rules.into()
}

/// The chains of a direction, by the index of the rule that each begins with. There is one, unless rules pass others over:
/// then what such a rule leads to begins a chain of its own.
fn parts(id: ClassId, class: &Class, family: Family, direction: Direction) -> BTreeMap<usize, Rules> {
    let rules = match direction {
        Direction::Ingress => &class.ingress,
        Direction::Egress => &class.egress,
    };
    let is_governed = [&class.ingress, &class.egress].iter().any(|rules| !matches!(rules, ClassRules::Open));
    let mut lines: Vec<(String, String)> = Vec::new();
    if is_governed {
        lines.push((NOT_SYN.to_owned(), deny(direction)));
    }
    let mut parts = BTreeMap::new();
    let mut begin = 0;
    match rules {
        ClassRules::Open => lines.push((String::new(), RETURN.to_owned())),
        ClassRules::Only(rules) => {
            let targets: BTreeSet<_> = rules.iter().filter_map(|rule| passed_to(rule, rules.len())).collect();
            for (index, rule) in rules.iter().enumerate() {
                if targets.contains(&index) {
                    lines.push((String::new(), goto(direction, index)));
                    parts.insert(begin, std::mem::take(&mut lines));
                    begin = index;
                }
                let target = match rule.verdict {
                    // The chains of the other direction judge it next.
                    Verdict::Allow => RETURN.to_owned(),
                    Verdict::Deny => deny(direction),
                    Verdict::Pass(_) => {
                        passed_to(rule, rules.len()).map_or_else(|| deny(direction), |target| goto(direction, target))
                    }
                };
                lines.extend(matches(rule, family, direction).map(|matches| (matches, target.clone())));
            }
            lines.push((String::new(), deny(direction)));
        }
    }
    parts.insert(begin, lines);
    let stamp = |(part, lines): (usize, Vec<(String, String)>)| {
        let rules = lines.into_iter().enumerate().map(|(index, (matches, target))| match (part, index) {
            (0, 0) => Rule::of_class(&matches, &target, id, class.key),
            _ => Rule::new(&matches, &target),
        });
        (part, rules.collect())
    };
    parts.into_iter().map(stamp).collect()
}

/// The index of the rule that a rule passes to; none if none is left.
fn passed_to(rule: &ClassRule, count: usize) -> Option<usize> {
    match rule.verdict {
        Verdict::Pass(target) if target < count => Some(target),
        Verdict::Pass(_) | Verdict::Allow | Verdict::Deny => None,
    }
}

fn goto(direction: Direction, part: usize) -> String {
    format!("-g {}", ClassChain { direction, part }.name(NUMBER))
}

/// What a rule matches; several where its ports do not fit one.
fn matches(rule: &ClassRule, family: Family, direction: Direction) -> impl Iterator<Item = String> {
    let peer = match (rule.peer, direction) {
        (PeerMatch::Any, _) => String::new(),
        (PeerMatch::In(set), Direction::Ingress) => in_set(set, family, "src"),
        (PeerMatch::In(set), Direction::Egress) => in_set(set, family, "dst"),
        // The port is always the one that the packet goes to.
        (PeerMatch::PortIn(set), Direction::Ingress) => in_set(set, family, "src,dst"),
        (PeerMatch::PortIn(set), Direction::Egress) => in_set(set, family, "dst,dst"),
    };
    ports(&rule.port).into_iter().map(move |ports| match (ports.as_str(), peer.as_str()) {
        ("", _) => peer.clone(),
        (_, "") => ports,
        _ => format!("{ports} {peer}"),
    })
}

fn in_set(set: SetId, family: Family, ends: &str) -> String {
    format!("-m set --match-set {} {ends}", SetRef::Program(set, family))
}

fn ports(clause: &PortClause) -> Vec<String> {
    let name = |protocol: &types::policy::Protocol| protocol.to_string().to_ascii_lowercase();
    match clause {
        PortClause::Any => vec![String::new()],
        PortClause::All(protocol) => vec![format!("-p {}", name(protocol))],
        PortClause::Ranges(protocol, ranges) => {
            let protocol = name(protocol);
            if let [range] = ranges.as_slice() {
                return vec![format!("-p {protocol} -m {protocol} --dport {}", port_text(*range))];
            }
            let several = |ports| format!("-p {protocol} -m multiport --dports {ports}");
            multiports(ranges).into_iter().map(several).collect()
        }
    }
}

fn multiports(ranges: &[PortRange]) -> Vec<String> {
    let mut all = Vec::new();
    let (mut texts, mut used) = (Vec::new(), 0);
    for range in ranges {
        let places = if range.first() == range.last() { 1 } else { 2 };
        if used + places > MULTIPORT {
            all.push(std::mem::take(&mut texts).join(","));
            used = 0;
        }
        texts.push(port_text(*range));
        used += places;
    }
    if !texts.is_empty() {
        all.push(texts.join(","));
    }
    all
}

fn port_text(range: PortRange) -> String {
    if range.first() == range.last() {
        range.first().to_string()
    } else {
        format!("{}:{}", range.first(), range.last())
    }
}
