//! What `iptables-save` says of us: chains with the stamps of their rules, and where our rules stand in others' chains.
//! Rules are known by their stamps and never parsed.

use std::collections::{BTreeMap, BTreeSet};

use super::names::PREFIX;
use super::rule::Stamp;
use crate::policy::program::{ClassId, ClassKey};

/// One table of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SavedTable {
    /// Our chains.
    pub(crate) chains: BTreeMap<String, SavedChain>,
    /// Chains that are not ours, if they have a rule or drop what no rule decides.
    pub(crate) foreign: BTreeMap<String, ForeignChain>,
}

/// A chain of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SavedChain {
    /// The hashes of its rules in order; none for a rule that is not ours.
    pub(crate) rules: Vec<Option<u64>>,
    /// Packets that each has matched, if that was asked for.
    pub(crate) packets: Vec<u64>,
    /// The sets that its rules match.
    pub(crate) sets: BTreeSet<String>,
    /// The class that it belongs to.
    pub(crate) class: Option<(ClassId, ClassKey)>,
}

/// A chain of somebody else's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ForeignChain {
    /// Whether its policy is DROP.
    pub(crate) drops: bool,
    /// How many rules it has, ours too.
    pub(crate) length: usize,
    /// Those of them that are ours, in order.
    pub(crate) ours: Vec<OurRule>,
}

/// A rule of ours in a foreign chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OurRule {
    /// Its place, from zero.
    pub(crate) index: usize,
    /// Its hash.
    pub(crate) hash: u64,
    /// As it is to be deleted.
    pub(crate) spec: String,
}

impl SavedTable {
    /// Reads the section of a table. A text without it is an empty table.
    pub(crate) fn parse(text: &str, table: &str) -> Self {
        let mut saved = Self::default();
        let mut is_inside = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                is_inside = name.trim() == table;
            } else if is_inside {
                saved.line(line);
            }
        }
        saved.foreign.retain(|_, chain| chain.drops || chain.length > 0);
        saved
    }

    fn line(&mut self, line: &str) {
        if let Some(declared) = line.strip_prefix(':') {
            let mut words = declared.split_whitespace();
            let (Some(name), policy) = (words.next(), words.next()) else { return };
            if name.starts_with(PREFIX) {
                self.chains.entry(name.to_owned()).or_default();
            } else {
                self.foreign.entry(name.to_owned()).or_default().drops = policy == Some("DROP");
            }
            return;
        }
        let (packets, rule) = counters(line);
        let Some((chain, spec)) = rule.strip_prefix("-A ").and_then(|rule| rule.split_once(' ')) else { return };
        let stamp = value_of("--comment", spec).and_then(|comment| Stamp::parse(&comment));
        if chain.starts_with(PREFIX) {
            let saved = self.chains.entry(chain.to_owned()).or_default();
            saved.rules.push(stamp.map(|stamp| stamp.hash));
            saved.packets.extend(packets);
            saved.sets.extend(value_of("--match-set", spec));
            saved.class = saved.class.or_else(|| stamp.and_then(|stamp| stamp.class));
        } else {
            let foreign = self.foreign.entry(chain.to_owned()).or_default();
            let index = foreign.length;
            foreign.length += 1;
            foreign.ours.extend(stamp.map(|stamp| OurRule { index, hash: stamp.hash, spec: spec.to_owned() }));
        }
    }
}

/// `[packets:octets]` in front of a rule.
fn counters(line: &str) -> (Option<u64>, &str) {
    let counted = || {
        let (counters, rule) = line.strip_prefix('[')?.split_once("] ")?;
        Some((counters.split(':').next()?.parse().ok()?, rule))
    };
    match counted() {
        Some((packets, rule)) => (Some(packets), rule),
        None => (None, line),
    }
}

/// What stands behind an option of a rule.
fn value_of(option: &str, spec: &str) -> Option<String> {
    let mut words = Words(spec);
    while let Some(word) = words.next() {
        match word.as_str() {
            word if word == option => return words.next(),
            // Whatever it says, it is no option.
            "--comment" => drop(words.next()),
            _ => {}
        }
    }
    None
}

/// Words as iptables-save writes them: quoted where they have blanks, with `\` before `"` and `\`.
struct Words<'a>(&'a str);

impl Iterator for Words<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let text = self.0.trim_start();
        let (mut word, mut is_quoted, mut is_escaped) = (String::new(), false, false);
        for (at, character) in text.char_indices() {
            match character {
                _ if is_escaped => {
                    word.push(character);
                    is_escaped = false;
                }
                '\\' => is_escaped = true,
                '"' => is_quoted = !is_quoted,
                ' ' if !is_quoted => {
                    self.0 = text.get(at..).unwrap_or_default();
                    return Some(word);
                }
                _ => word.push(character),
            }
        }
        self.0 = "";
        (!text.is_empty()).then_some(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAVED: &str = r#"# Generated by iptables-nft-save v1.8.9 (nf_tables)
*raw
:PREROUTING DROP [0:0]
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:FORWARD DROP [0:0]
:manx-i-12 - [0:0]
:manx-empty - [0:0]
-A FORWARD -m comment --comment "they say \"--comment manx:1\"" -j ACCEPT
-A FORWARD -m comment --comment "manx:2a" -j manx-forward
[7:420] -A manx-i-12 -p tcp -m set --match-set manx-4i12 src,dst -m comment --comment "manx:ff:12:beef" -j DROP
[0:0] -A manx-i-12 -j RETURN
COMMIT
"#;

    #[test]
    fn chains_are_read_by_their_stamps_and_foreign_rules_only_counted() {
        let saved = SavedTable::parse(SAVED, "mangle");
        let chain = &saved.chains["manx-i-12"];
        assert_eq!((chain.rules.as_slice(), chain.packets.as_slice()), (&[Some(0xff), None][..], &[7, 0][..]));
        assert_eq!(chain.sets, BTreeSet::from(["manx-4i12".to_owned()]));
        assert_eq!(chain.class, Some((ClassId::new(12).unwrap(), ClassKey(0xbeef))));
        assert_eq!(saved.chains["manx-empty"], SavedChain::default());
        let forward = &saved.foreign["FORWARD"];
        assert_eq!((forward.drops, forward.length), (true, 2));
        let spec = "-m comment --comment \"manx:2a\" -j manx-forward".to_owned();
        assert_eq!(forward.ours, [OurRule { index: 1, hash: 0x2a, spec }]);
        assert_eq!(saved.foreign.len(), 1);
        assert_eq!(SavedTable::parse(SAVED, "nat"), SavedTable::default());
    }
}
