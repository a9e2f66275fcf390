//! Namespaces, and the requirements on their labels that somebody uses.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use types::policy::Labels;

use super::id_set::IdSet;
use super::labels::{LabelIndex, Matchers, Requirements};
use super::slab::Slab;

/// The label that every namespace has, by its name, also before anything else is known of it.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// All namespaces that are known, that endpoints are in or that selectors name.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    by_name: HashMap<Arc<str>, u32>,
    entries: Slab<Namespace>,
    labels: LabelIndex,
    parts: Slab<Part>,
    by_requirements: HashMap<Arc<Requirements>, u32>,
}

#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: Arc<str>,
    /// It exists, as its source says.
    known: bool,
    labels: Box<[u32]>,
    /// The endpoints in it that can be peers.
    pub(crate) peers: IdSet,
    /// The endpoints in it that are governed here.
    pub(crate) governed: IdSet,
    /// The parts of selectors that it fits.
    pub(crate) parts: Vec<u32>,
    /// How many endpoints and selectors name it.
    holders: u32,
}

/// What selectors require of a namespace.
#[derive(Debug)]
struct Part {
    requirements: Arc<Requirements>,
    matchers: Matchers,
    /// The namespaces that fit.
    namespaces: IdSet,
    holders: u32,
}

impl Namespaces {
    pub(crate) fn get(&self, id: u32) -> Option<&Namespace> {
        self.entries.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut Namespace> {
        self.entries.get_mut(id)
    }

    pub(crate) fn find(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }

    pub(crate) fn labels(&self, id: u32) -> Labels {
        self.entries.get(id).map(|namespace| self.labels.texts(&namespace.labels)).unwrap_or_default()
    }

    /// The names of those that are known.
    pub(crate) fn known(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|(_, namespace)| namespace.known).map(|(_, namespace)| &*namespace.name)
    }

    /// The number of a namespace, held once more.
    pub(crate) fn hold(&mut self, name: &str) -> u32 {
        let id = self.find(name).unwrap_or_else(|| self.insert(name));
        if let Some(namespace) = self.entries.get_mut(id) {
            namespace.holders += 1;
        }
        id
    }

    /// Held once less.
    pub(crate) fn release(&mut self, id: u32) {
        if let Some(namespace) = self.entries.get_mut(id) {
            namespace.holders -= 1;
        }
        self.forget(id);
    }

    /// Says what labels a namespace has, or that it does not exist. Returns the parts that it fits no longer or only now.
    pub(crate) fn set_labels(&mut self, name: &str, labels: Option<&Labels>) -> Option<(u32, BTreeSet<u32>)> {
        let id = match (self.find(name), labels) {
            (None, None) => return None,
            (Some(id), _) => id,
            (None, Some(_)) => self.insert(name),
        };
        let pairs = match labels {
            Some(labels) => self.labels.hold_all(labels),
            None => self.labels.hold_all(&implicit(name)),
        };
        let namespace = self.entries.get_mut(id)?;
        namespace.known = labels.is_some();
        let old = std::mem::replace(&mut namespace.labels, pairs);
        self.labels.release_all(&old);
        Some((id, self.fit(id)))
    }

    /// Forgets a namespace that does not exist and that nobody names.
    pub(crate) fn forget(&mut self, id: u32) {
        let unused = self.entries.get(id).is_some_and(|namespace| !namespace.known && namespace.holders == 0);
        if unused && let Some(namespace) = self.entries.remove(id) {
            self.by_name.remove(&namespace.name);
            self.labels.release_all(&namespace.labels);
            for part in namespace.parts {
                if let Some(part) = self.parts.get_mut(part) {
                    part.namespaces.remove(id);
                }
            }
        }
    }

    /// The part of a selector that speaks of namespaces, held once more.
    pub(crate) fn hold_part(&mut self, requirements: &Requirements) -> u32 {
        if let Some(id) = self.by_requirements.get(requirements) {
            if let Some(part) = self.parts.get_mut(*id) {
                part.holders += 1;
            }
            return *id;
        }
        let matchers = Matchers::hold(requirements, &mut self.labels);
        let requirements = Arc::new(requirements.clone());
        let (key, namespaces) = (Arc::clone(&requirements), IdSet::default());
        let part = self.parts.insert(Part { requirements, matchers, namespaces, holders: 1 });
        self.by_requirements.insert(key, part);
        let all: Vec<_> = self.entries.iter().map(|(id, _)| id).collect();
        for id in all {
            self.fit_part(id, part);
        }
        part
    }

    pub(crate) fn release_part(&mut self, id: u32) {
        let Some(part) = self.parts.get_mut(id) else { return };
        part.holders -= 1;
        if part.holders == 0
            && let Some(part) = self.parts.remove(id)
        {
            self.by_requirements.remove(&part.requirements);
            part.matchers.release(&mut self.labels);
            for namespace in part.namespaces.iter() {
                if let Some(namespace) = self.entries.get_mut(namespace) {
                    namespace.parts.retain(|part| *part != id);
                }
            }
        }
    }

    /// The namespaces that fit a part.
    pub(crate) fn of_part(&self, part: u32) -> impl Iterator<Item = &Namespace> {
        let namespaces = self.parts.get(part).into_iter().flat_map(|part| part.namespaces.iter());
        namespaces.filter_map(|id| self.entries.get(id))
    }

    /// How much is kept: namespaces, parts and labels.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.entries.len() + self.parts.len() + self.labels.kept()
    }

    fn insert(&mut self, name: &str) -> u32 {
        let name: Arc<str> = name.into();
        let labels = self.labels.hold_all(&implicit(&name));
        let id = self.entries.insert(Namespace {
            name: Arc::clone(&name),
            known: false,
            labels,
            peers: IdSet::default(),
            governed: IdSet::default(),
            parts: Vec::new(),
            holders: 0,
        });
        self.by_name.insert(name, id);
        self.fit(id);
        id
    }

    /// Finds out which parts a namespace fits; returns those for which that changed.
    fn fit(&mut self, id: u32) -> BTreeSet<u32> {
        let parts: Vec<_> = self.parts.iter().map(|(part, _)| part).collect();
        parts.into_iter().filter(|part| self.fit_part(id, *part)).collect()
    }

    fn fit_part(&mut self, id: u32, part_id: u32) -> bool {
        let (Some(namespace), Some(part)) = (self.entries.get_mut(id), self.parts.get_mut(part_id)) else {
            return false;
        };
        let fits = part.matchers.fit(&namespace.labels, &self.labels);
        let changed = if fits { part.namespaces.insert(id) } else { part.namespaces.remove(id) };
        if changed && fits {
            namespace.parts.push(part_id);
        } else if changed {
            namespace.parts.retain(|part| *part != part_id);
        }
        changed
    }
}

fn implicit(name: &str) -> Labels {
    Labels::from([(NAME_LABEL.to_owned(), name.to_owned())])
}
