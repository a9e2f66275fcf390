//! `LabelSelector` of Kubernetes (meta/v1): requirements that must all hold.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Labels;

/// Selects objects by labels. Without a requirement it selects every object; that a selector is absent altogether means
/// something else wherever one may stand, and is an `Option` there.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// The labels that an object must have, with these values.
    #[serde(default, skip_serializing_if = "Labels::is_empty", deserialize_with = "crate::policy::selector::nullable")]
    pub match_labels: Labels,
    /// The further requirements that must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "crate::policy::selector::nullable")]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement of a selector.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold for the label.
    pub operator: Operator,
    /// The values that `In` and `NotIn` speak of.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "crate::policy::selector::nullable")]
    pub values: Vec<String>,
}

/// How a [`Requirement`] judges a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// The object has the label with one of the values.
    In,
    /// The object does not have the label, or has it with another value.
    NotIn,
    /// The object has the label.
    Exists,
    /// The object does not have the label.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether the selector selects every object.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether the selector selects an object with these labels.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

impl Requirement {
    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl fmt::Display for LabelSelector {
    /// As kubectl writes selectors: `app=web,tier in (a,b),!debug`; `everything` without a requirement.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("everything");
        }
        let labels = self.match_labels.iter().map(|(key, value)| format!("{key}={value}"));
        let expressions = self.match_expressions.iter().map(|requirement| {
            let Requirement { key, operator, values } = requirement;
            match operator {
                Operator::In => format!("{key} in ({})", values.join(",")),
                Operator::NotIn => format!("{key} notin ({})", values.join(",")),
                Operator::Exists => key.clone(),
                Operator::DoesNotExist => format!("!{key}"),
            }
        });
        f.write_str(&labels.chain(expressions).collect::<Vec<_>>().join(","))
    }
}

/// Reads `null` as empty: Kubernetes' own clients write it where nothing is meant.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
