//! `LabelSelector`, and what labels may look like.

use serde_json::Value;

use super::reader::{Place, Reader, present};
use crate::ResourceName;
use crate::policy::{LabelSelector, Labels, Operator, Requirement};

/// A selector; none if any part of it cannot be read, since with a part less it would select more.
pub(super) fn selector(reader: &mut Reader, place: Place<'_>, value: &Value) -> Option<LabelSelector> {
    let fields = reader.object(place, value)?;
    let whole = reader.knows(place, fields, &["matchLabels", "matchExpressions"]);
    let match_labels = match present(fields, "matchLabels") {
        None => Some(Labels::new()),
        Some(value) => labels(reader, place.field("matchLabels"), value),
    };
    let place = place.field("matchExpressions");
    let items = reader.list(place, present(fields, "matchExpressions"))?;
    let match_expressions: Vec<_> =
        items.iter().enumerate().filter_map(|(index, value)| requirement(reader, place.index(index), value)).collect();
    let whole = whole && match_expressions.len() == items.len();
    match_labels.filter(|_| whole).map(|match_labels| LabelSelector { match_labels, match_expressions })
}

fn labels(reader: &mut Reader, place: Place<'_>, value: &Value) -> Option<Labels> {
    let fields = reader.object(place, value)?;
    let mut labels = Labels::new();
    for (key, value) in fields {
        let place = place.field(key);
        match value {
            Value::String(value) => match label_fault(key, value) {
                None => drop(labels.insert(key.clone(), value.clone())),
                Some(fault) => reader.problem(place, fault),
            },
            value => reader.problem(place, format!("{value} is not a text")),
        }
    }
    (labels.len() == fields.len()).then_some(labels)
}

fn requirement(reader: &mut Reader, place: Place<'_>, value: &Value) -> Option<Requirement> {
    let fields = reader.object(place, value)?;
    let whole = reader.knows(place, fields, &["key", "operator", "values"]);
    let key = match present(fields, "key") {
        Some(Value::String(key)) => match label_key_fault(key) {
            None => Some(key.clone()),
            Some(fault) => {
                reader.problem(place.field("key"), fault);
                None
            }
        },
        Some(value) => {
            reader.problem(place.field("key"), format!("{value} is not a text"));
            None
        }
        None => {
            reader.problem(place.field("key"), "is missing");
            None
        }
    };
    let operator = match present(fields, "operator").and_then(Value::as_str) {
        Some("In") => Some(Operator::In),
        Some("NotIn") => Some(Operator::NotIn),
        Some("Exists") => Some(Operator::Exists),
        Some("DoesNotExist") => Some(Operator::DoesNotExist),
        _ => {
            reader.problem(place.field("operator"), "is not In, NotIn, Exists or DoesNotExist");
            None
        }
    };
    let values = values(reader, place.field("values"), present(fields, "values"));
    if let (Some(operator), Some(values)) = (operator, &values) {
        let fault = match (operator, values.is_empty()) {
            (Operator::In | Operator::NotIn, true) => Some("needs values"),
            (Operator::Exists | Operator::DoesNotExist, false) => Some("takes no values"),
            (Operator::In | Operator::NotIn, false) | (Operator::Exists | Operator::DoesNotExist, true) => None,
        };
        if let Some(fault) = fault {
            reader.problem(place.field("values"), format!("operator {operator:?} {fault}"));
            return None;
        }
    }
    whole.then_some(Requirement { key: key?, operator: operator?, values: values? })
}

fn values(reader: &mut Reader, place: Place<'_>, value: Option<&Value>) -> Option<Vec<String>> {
    let items = reader.list(place, value)?;
    let mut values = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match item {
            Value::String(value) => {
                // API servers before 1.27 took such values, and there it means what it says: a value that no label has.
                if let Some(fault) = value_fault(value) {
                    reader.problem(place.index(index), fault);
                }
                values.push(value.clone());
            }
            item => reader.problem(place.index(index), format!("{item} is not a text")),
        }
    }
    (values.len() == items.len()).then_some(values)
}

/// What keeps a key and a value from being a label of Kubernetes.
pub(crate) fn label_fault(key: &str, value: &str) -> Option<String> {
    label_key_fault(key).or_else(|| value_fault(value))
}

/// What keeps a text from being a label's key: `NAME` or `PREFIX/NAME`.
pub(crate) fn label_key_fault(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        None => (None, key),
        Some((prefix, name)) => (Some(prefix), name),
    };
    let valid = is_label_text(name) && prefix.is_none_or(|prefix| ResourceName::new(prefix).is_ok());
    (!valid).then(|| {
        format!(
            "{key:?} is not a label's key: at most 63 letters, digits, '-', '_' and '.', starting and ending with a letter \
             or digit; before it, if anything, a DNS name and '/'"
        )
    })
}

fn value_fault(value: &str) -> Option<String> {
    (!value.is_empty() && !is_label_text(value)).then(|| {
        format!(
            "{value:?} is not a label's value: at most 63 letters, digits, '-', '_' and '.', starting and ending with a \
             letter or digit, or nothing"
        )
    })
}

fn is_label_text(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    text.len() <= 63
        && edge(text.as_bytes().first())
        && edge(text.as_bytes().last())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
