//! Labels as numbers, with an index from each label to who has it, and requirements on them.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use types::policy::{LabelSelector, Labels, Operator};

use super::hash::StableHasher;
use super::id_set::IdSet;
use super::slab::{Slab, Texts};

/// The labels of one kind of object, kept as numbers.
#[derive(Debug, Default)]
pub(crate) struct LabelIndex {
    keys: Texts,
    by_text: HashMap<(u32, Arc<str>), u32>,
    pairs: Slab<Pair>,
}

/// A label: a key with a value.
#[derive(Debug)]
struct Pair {
    key: u32,
    value: Arc<str>,
    /// The objects that are listed under this label.
    objects: IdSet,
    /// How many objects and requirements hold this label.
    holders: u32,
}

impl LabelIndex {
    /// Holds every label of an object and gives the labels' numbers, ascending. The caller releases them later.
    pub(crate) fn hold_all(&mut self, labels: &Labels) -> Box<[u32]> {
        let mut pairs: Vec<_> = labels.iter().map(|(key, value)| self.hold(key, value)).collect();
        pairs.sort_unstable();
        pairs.into()
    }

    pub(crate) fn release_all(&mut self, pairs: &[u32]) {
        pairs.iter().for_each(|pair| self.release(*pair));
    }

    /// Lists an object under each of its labels.
    pub(crate) fn list(&mut self, pairs: &[u32], object: u32) {
        for pair in pairs {
            if let Some(pair) = self.pairs.get_mut(*pair) {
                pair.objects.insert(object);
            }
        }
    }

    pub(crate) fn unlist(&mut self, pairs: &[u32], object: u32) {
        for pair in pairs {
            if let Some(pair) = self.pairs.get_mut(*pair) {
                pair.objects.remove(object);
            }
        }
    }

    /// The objects that are listed under a label.
    pub(crate) fn objects(&self, pair: u32) -> Option<&IdSet> {
        self.pairs.get(pair).map(|pair| &pair.objects)
    }

    pub(crate) fn key(&self, pair: u32) -> Option<u32> {
        self.pairs.get(pair).map(|pair| pair.key)
    }

    pub(crate) fn texts(&self, pairs: &[u32]) -> Labels {
        pairs
            .iter()
            .filter_map(|pair| self.pairs.get(*pair))
            .map(|pair| (self.keys.text(pair.key).to_owned(), pair.value.to_string()))
            .collect()
    }

    /// How many keys and how many labels are known.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.pairs.len() + self.keys.kept()
    }

    fn hold(&mut self, key: &str, value: &str) -> u32 {
        let key = self.keys.hold(key);
        let text: Arc<str> = value.into();
        if let Some(id) = self.by_text.get(&(key, Arc::clone(&text))).copied() {
            // The pair holds its key once, however many hold the pair.
            self.keys.release(key);
            if let Some(pair) = self.pairs.get_mut(id) {
                pair.holders += 1;
            }
            return id;
        }
        let pair = Pair { key, value: Arc::clone(&text), objects: IdSet::default(), holders: 1 };
        let id = self.pairs.insert(pair);
        self.by_text.insert((key, text), id);
        id
    }

    fn release(&mut self, id: u32) {
        let Some(pair) = self.pairs.get_mut(id) else { return };
        pair.holders -= 1;
        if pair.holders == 0
            && let Some(pair) = self.pairs.remove(id)
        {
            self.keys.release(pair.key);
            self.by_text.remove(&(pair.key, pair.value));
        }
    }
}

/// A selector in one form for all ways to write it: requirements in order, each once, its values likewise.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Requirements(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Requirement {
    key: String,
    operator: Operator,
    values: BTreeSet<String>,
}

impl Requirements {
    pub(crate) fn hash(&self, hasher: &mut StableHasher) {
        for requirement in &self.0 {
            hasher.text(match requirement.operator {
                Operator::In => "in",
                Operator::NotIn => "not in",
                Operator::Exists => "exists",
                Operator::DoesNotExist => "does not exist",
            });
            hasher.text(&requirement.key);
            hasher.number(requirement.values.len().try_into().unwrap_or(u64::MAX));
            requirement.values.iter().for_each(|value| hasher.text(value));
        }
    }
}

impl From<&LabelSelector> for Requirements {
    fn from(selector: &LabelSelector) -> Self {
        let labels = selector.match_labels.iter().map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: BTreeSet::from([value.clone()]),
        });
        let expressions = selector.match_expressions.iter().map(|requirement| Requirement {
            key: requirement.key.clone(),
            operator: requirement.operator,
            values: match requirement.operator {
                Operator::In | Operator::NotIn => requirement.values.iter().cloned().collect(),
                Operator::Exists | Operator::DoesNotExist => BTreeSet::new(),
            },
        });
        let requirements: BTreeSet<_> = labels.chain(expressions).collect();
        Self(requirements.into_iter().collect())
    }
}

/// [`Requirements`] over the numbers of an index, all of which must hold.
#[derive(Debug)]
pub(crate) struct Matchers(Box<[Matcher]>);

#[derive(Debug)]
enum Matcher {
    /// The object has one of these labels.
    In(Box<[u32]>),
    /// The object has none of these labels.
    NotIn(Box<[u32]>),
    /// The object has a label with this key.
    Exists(u32),
    /// The object has no label with this key.
    DoesNotExist(u32),
}

/// The labels by which objects that may fit a matcher can be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Handle {
    /// An object that fits has one of these labels.
    Pairs(Vec<u32>),
    /// An object that fits has a label with this key.
    Key(u32),
    /// The matcher requires no label to be present, so nothing leads to the objects that fit.
    Nothing,
}

impl Matchers {
    /// Holds the labels that the requirements speak of; the caller releases the matcher later.
    pub(crate) fn hold(requirements: &Requirements, index: &mut LabelIndex) -> Self {
        let mut hold_all = |requirement: &Requirement| {
            requirement.values.iter().map(|value| index.hold(&requirement.key, value)).collect()
        };
        let (mut valued, mut keyed) = (Vec::new(), Vec::new());
        for requirement in &requirements.0 {
            match requirement.operator {
                Operator::In => valued.push(Matcher::In(hold_all(requirement))),
                Operator::NotIn => valued.push(Matcher::NotIn(hold_all(requirement))),
                Operator::Exists | Operator::DoesNotExist => keyed.push(requirement),
            }
        }
        for requirement in keyed {
            let key = index.keys.hold(&requirement.key);
            valued.push(match requirement.operator {
                Operator::Exists => Matcher::Exists(key),
                _ => Matcher::DoesNotExist(key),
            });
        }
        Self(valued.into())
    }

    pub(crate) fn release(&self, index: &mut LabelIndex) {
        for matcher in &self.0 {
            match matcher {
                Matcher::In(pairs) | Matcher::NotIn(pairs) => index.release_all(pairs),
                Matcher::Exists(key) | Matcher::DoesNotExist(key) => index.keys.release(*key),
            }
        }
    }

    /// Whether every requirement holds for an object with these labels.
    pub(crate) fn fit(&self, labels: &[u32], index: &LabelIndex) -> bool {
        let has = |pair: &u32| labels.binary_search(pair).is_ok();
        let has_key = |key: u32| labels.iter().any(|pair| index.key(*pair) == Some(key));
        self.0.iter().all(|matcher| match matcher {
            Matcher::In(pairs) => pairs.iter().any(has),
            Matcher::NotIn(pairs) => !pairs.iter().any(has),
            Matcher::Exists(key) => has_key(*key),
            Matcher::DoesNotExist(key) => !has_key(*key),
        })
    }

    /// The handle that leads to the fewest objects: labels, as few as possible, before a key.
    pub(crate) fn handle(&self) -> Handle {
        let pairs = self.0.iter().filter_map(|matcher| match matcher {
            Matcher::In(pairs) => Some(pairs),
            _ => None,
        });
        if let Some(pairs) = pairs.min_by_key(|pairs| pairs.len()) {
            return Handle::Pairs(pairs.to_vec());
        }
        let key = self.0.iter().find_map(|matcher| match matcher {
            Matcher::Exists(key) => Some(*key),
            _ => None,
        });
        key.map_or(Handle::Nothing, Handle::Key)
    }
}
