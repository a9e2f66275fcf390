//! From what a table holds to what it should: the text for `iptables-restore --noflush`. Pure.
//!
//! A chain that only misses rules gets them inserted where they belong; any other difference rewrites it. That matters:
//! deleting a rule makes nftables wait for an RCU grace period (a restore takes 15 to 20 ms instead of 3).

use std::fmt::Write;

use super::names::PREFIX;
use super::render::{Hook, Place, TableName, WantedTable};
use super::rule::Rule;
use super::saved::{ForeignChain, OurRule, SavedChain, SavedTable};

/// The text that makes the table what is wanted; none if it is. One transaction: in force as a whole or not at all.
pub(crate) fn restore_text(name: TableName, saved: &SavedTable, wanted: &WantedTable) -> Option<String> {
    let mut text = Text::default();
    for (chain, rules) in &wanted.chains {
        match saved.chains.get(chain) {
            None => text.whole(chain, rules),
            Some(saved) => match insertions(&saved.rules, rules) {
                Some(missing) => missing.for_each(|(place, rule)| text.insert(chain, place, rule)),
                None => text.whole(chain, rules),
            },
        }
    }
    for (chain, foreign) in &saved.foreign {
        for ours in &foreign.ours {
            let is_kept = wanted.hooks.iter().any(|hook| hook.chain == chain && is_in_place(hook, foreign, ours));
            if !is_kept {
                text.delete(chain, &ours.spec);
            }
        }
    }
    let missing = wanted.hooks.iter().filter(|hook| {
        let foreign = saved.foreign.get(hook.chain);
        applies(hook, foreign)
            && !foreign.is_some_and(|foreign| foreign.ours.iter().any(|ours| is_in_place(hook, foreign, ours)))
    });
    for hook in missing {
        match hook.place {
            Place::First => text.insert(hook.chain, 1, &hook.rule),
            Place::Last | Place::LastWherePolicyDrops => text.append(hook.chain, &hook.rule),
        }
    }
    // Nothing refers to them any more but each other.
    let obsolete = || saved.chains.keys().filter(|chain| !wanted.chains.contains_key(*chain));
    obsolete().for_each(|chain| text.declare(chain));
    obsolete().for_each(|chain| text.remove(chain));
    text.finish(name)
}

/// The table once that text is in force.
pub(crate) fn after(saved: &SavedTable, wanted: &WantedTable) -> SavedTable {
    let chains = wanted.chains.iter().map(|(name, rules)| {
        let rules = rules.iter().map(|rule| Some(rule.hash)).collect();
        (name.clone(), SavedChain { rules, ..SavedChain::default() })
    });
    let mut foreign = saved.foreign.clone();
    for chain in foreign.values_mut() {
        chain.length -= chain.ours.len();
        chain.ours.clear();
    }
    for hook in &wanted.hooks {
        if !applies(hook, foreign.get(hook.chain)) {
            continue;
        }
        let chain = foreign.entry(hook.chain.to_owned()).or_default();
        let index = if hook.place == Place::First { 0 } else { chain.length };
        chain.length += 1;
        chain.ours.push(OurRule { index, hash: hook.rule.hash, spec: hook.rule.spec.clone() });
    }
    foreign.retain(|_, chain| chain.drops || chain.length > 0);
    SavedTable { chains: chains.collect(), foreign }
}

fn applies(hook: &Hook, foreign: Option<&ForeignChain>) -> bool {
    match hook.place {
        Place::First | Place::Last => true,
        Place::LastWherePolicyDrops => foreign.is_some_and(|foreign| foreign.drops),
    }
}

/// Whether this rule is the hook, where it belongs, and no copy of one before it.
fn is_in_place(hook: &Hook, foreign: &ForeignChain, ours: &OurRule) -> bool {
    let is_first_copy = foreign.ours.iter().find(|other| other.hash == ours.hash) == Some(ours);
    let is_placed = hook.place != Place::First || ours.index == 0;
    hook.rule.hash == ours.hash && is_first_copy && is_placed && applies(hook, Some(foreign))
}

/// Where which rules are missing (places from one, as `-I` counts them, each after those before it were put); none if
/// that is not all.
fn insertions<'a>(saved: &[Option<u64>], wanted: &'a [Rule]) -> Option<impl Iterator<Item = (usize, &'a Rule)>> {
    let mut left = saved;
    let mut missing = Vec::new();
    for (index, rule) in wanted.iter().enumerate() {
        match left.split_first() {
            Some((first, rest)) if *first == Some(rule.hash) => left = rest,
            _ => missing.push((index + 1, rule)),
        }
    }
    left.is_empty().then(|| missing.into_iter())
}

/// The commands of one table. Chains are declared, that is made or emptied, before any rule.
#[derive(Default)]
struct Text {
    declarations: String,
    commands: String,
}

impl Text {
    fn declare(&mut self, chain: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.declarations, ":{chain} - [0:0]");
    }

    fn whole(&mut self, chain: &str, rules: &[Rule]) {
        self.declare(chain);
        rules.iter().for_each(|rule| self.append(chain, rule));
    }

    fn append(&mut self, chain: &str, rule: &Rule) {
        let _ = writeln!(self.commands, "-A {chain} {}", rule.spec);
    }

    fn insert(&mut self, chain: &str, place: usize, rule: &Rule) {
        let _ = writeln!(self.commands, "-I {chain} {place} {}", rule.spec);
    }

    fn delete(&mut self, chain: &str, spec: &str) {
        let _ = writeln!(self.commands, "-D {chain} {spec}");
    }

    fn remove(&mut self, chain: &str) {
        debug_assert!(chain.starts_with(PREFIX));
        let _ = writeln!(self.commands, "-X {chain}");
    }

    fn finish(self, name: TableName) -> Option<String> {
        let Self { declarations, commands } = self;
        if declarations.is_empty() && commands.is_empty() {
            return None;
        }
        Some(format!("*{}\n{declarations}{commands}COMMIT\n", name.as_str()))
    }
}

#[cfg(test)]
mod tests;
