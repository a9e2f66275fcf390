//! Namespaces, and the requirements on their labels that somebody uses.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use types::policy::Labels;

use super::id_set::IdSet;
use super::labels::{LabelIndex, Matchers, Requirements};
use super::slab::Slab;

/// The label that every namespace has, with its name as value, even before its source has told anything of it.
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
    /// Whether the source of namespaces says that this one exists.
    known: bool,
    labels: Box<[u32]>,
    /// The endpoints in this namespace that can be peers.
    pub(crate) peers: IdSet,
    /// The endpoints in this namespace that are governed on this node.
    pub(crate) governed: IdSet,
    /// The namespace selectors (their numbers) that this namespace fits.
    pub(crate) parts: Vec<u32>,
    /// How many endpoints and selectors name this namespace.
    holders: u32,
}

/// What a selector requires of the labels of a namespace.
#[derive(Debug)]
struct Part {
    requirements: Arc<Requirements>,
    matchers: Matchers,
    /// The namespaces that fit these requirements.
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

    /// The names of the namespaces that exist.
    pub(crate) fn known(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|(_, namespace)| namespace.known).map(|(_, namespace)| &*namespace.name)
    }

    /// Gives the number of a namespace and counts one more holder of it.
    pub(crate) fn hold(&mut self, name: &str) -> u32 {
        let id = self.find(name).unwrap_or_else(|| self.insert(name));
        if let Some(namespace) = self.entries.get_mut(id) {
            namespace.holders += 1;
        }
        id
    }

    /// Counts one holder of the namespace less, and forgets it when none is left.
    pub(crate) fn release(&mut self, id: u32) {
        if let Some(namespace) = self.entries.get_mut(id) {
            namespace.holders -= 1;
        }
        self.forget(id);
    }

    /// Sets the labels of a namespace; none means that it does not exist. Returns its number and the namespace
    /// selectors that it has begun or ceased to fit.
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

    /// Forgets a namespace that does not exist and that no endpoint or selector names.
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

    /// Gives the number of what a selector requires of namespaces, and counts one more holder of it.
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

    /// The namespaces that fit these requirements.
    pub(crate) fn of_part(&self, part: u32) -> impl Iterator<Item = &Namespace> {
        let namespaces = self.parts.get(part).into_iter().flat_map(|part| part.namespaces.iter());
        namespaces.filter_map(|id| self.entries.get(id))
    }

    /// How many namespaces, namespace selectors and labels are kept, to find leaks.
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

    /// Works out which namespace selectors a namespace fits; returns those for which the answer has changed.
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
