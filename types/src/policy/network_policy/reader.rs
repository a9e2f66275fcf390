//! Reads JSON that may be wrong anywhere: what is wrong is noted with its place, and reading goes on.

use std::fmt;

use serde_json::{Map, Value};

/// A part of a policy that makes no sense. It allows nothing; the rest of the policy is in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Problem {
    /// The place in the document: `spec.ingress[0].from[1].ipBlock.cidr`.
    pub place: String,
    /// What is wrong at that place.
    pub what: String,
}

/// A place in a document. It is turned into text only when something is wrong there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The place that this one lies in.
    parent: Option<&'a Self>,
    step: PathSegment<'a>,
}

#[derive(Debug, Clone, Copy)]
enum PathSegment<'a> {
    Field(&'a str),
    Index(usize),
}

/// Collects what is wrong in a document.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
}

impl<'a> Place<'a> {
    pub(super) const fn root(name: &'a str) -> Self {
        Self { parent: None, step: PathSegment::Field(name) }
    }

    pub(super) const fn field<'b>(&'b self, name: &'b str) -> Place<'b> {
        Place { parent: Some(self), step: PathSegment::Field(name) }
    }

    pub(super) const fn index(&self, index: usize) -> Place<'_> {
        Place { parent: Some(self), step: PathSegment::Index(index) }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            PathSegment::Index(index) => write!(f, "[{index}]"),
            PathSegment::Field(name) if self.parent.is_none() => f.write_str(name),
            PathSegment::Field(name) if name.bytes().all(|byte| byte.is_ascii_alphanumeric()) => write!(f, ".{name}"),
            // This is a label, or the name of a field that somebody made up, so it may contain any character.
            PathSegment::Field(name) => write!(f, "[{name:?}]"),
        }
    }
}

impl Reader {
    pub(super) fn problem(&mut self, place: Place<'_>, what: impl Into<String>) {
        self.problems.push(Problem { place: place.to_string(), what: what.into() });
    }

    /// The fields of a mapping. Here `null` is no mapping: an item of a list has to say what it means.
    pub(super) fn object<'v>(&mut self, place: Place<'_>, value: &'v Value) -> Option<&'v Map<String, Value>> {
        let fields = value.as_object();
        if fields.is_none() {
            self.problem(place, "is not a mapping");
        }
        fields
    }

    /// Whether the mapping has no fields but these.
    pub(super) fn knows(&mut self, place: Place<'_>, fields: &Map<String, Value>, known: &[&str]) -> bool {
        let before = self.problems.len();
        for field in fields.keys().filter(|field| !known.contains(&field.as_str())) {
            self.problem(place.field(field), "is not a known field");
        }
        self.problems.len() == before
    }

    /// The items of a list that may be absent.
    pub(super) fn list<'v>(&mut self, place: Place<'_>, value: Option<&'v Value>) -> Option<&'v [Value]> {
        let Some(value) = value else { return Some(&[]) };
        let items = value.as_array();
        if items.is_none() {
            self.problem(place, "is not a list");
        }
        items.map(Vec::as_slice)
    }
}

/// A field that says something.
pub(super) fn present<'v>(fields: &'v Map<String, Value>, field: &str) -> Option<&'v Value> {
    fields.get(field).filter(|value| !value.is_null())
}
