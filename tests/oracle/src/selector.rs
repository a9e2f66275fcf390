//! `LabelSelector` (meta/v1), read from JSON each time it is asked.

use serde_json::Value;

use crate::judge::{Unreadable, field, known_fields, list};
use crate::world::Labels;

/// Whether an object with these labels is selected. All of `matchLabels` and all of `matchExpressions` must hold; `{}` selects
/// everything. What the API server would refuse is unreadable as a whole.
pub(crate) fn selects(selector: &Value, labels: &Labels) -> Result<bool, Unreadable> {
    known_fields(selector, &["matchLabels", "matchExpressions"])?;
    let mut all = true;
    match field(selector, "matchLabels") {
        None => {}
        Some(Value::Object(wanted)) => {
            for (key, value) in wanted {
                let value = value.as_str().filter(|value| is_key(key) && is_value(value));
                let value = value.ok_or_else(|| Unreadable::at("what is no label"))?;
                all &= labels.get(key).is_some_and(|has| has == value);
            }
        }
        Some(_) => return Err(Unreadable::at("matchLabels")),
    }
    for expression in list(selector, "matchExpressions")?.into_iter().flatten() {
        all &= holds(expression, labels)?;
    }
    Ok(all)
}

/// Whether one expression holds. `NotIn` and `DoesNotExist` hold for what lacks the label. `In` and `NotIn` need
/// values, the others may not have any.
fn holds(expression: &Value, labels: &Labels) -> Result<bool, Unreadable> {
    known_fields(expression, &["key", "operator", "values"])?;
    let text = |name| field(expression, name).and_then(Value::as_str);
    let (Some(key), Some(operator)) = (text("key"), text("operator")) else {
        return Err(Unreadable::at("an expression without key or operator"));
    };
    if !is_key(key) {
        return Err(Unreadable::at("what is no label's key"));
    }
    let mut values = Vec::new();
    for value in list(expression, "values")?.into_iter().flatten() {
        // A value that no label can have is as good as one that no label has; API servers before 1.27 took such values.
        values.push(value.as_str().ok_or_else(|| Unreadable::at("a value that is no text"))?);
    }
    let has = labels.get(key).map(String::as_str);
    match (operator, values.is_empty()) {
        ("In", false) => Ok(has.is_some_and(|has| values.contains(&has))),
        ("NotIn", false) => Ok(!has.is_some_and(|has| values.contains(&has))),
        ("Exists", true) => Ok(has.is_some()),
        ("DoesNotExist", true) => Ok(has.is_none()),
        _ => Err(Unreadable::at("an operator that is unknown, or whose values are")),
    }
}

/// `[DNS subdomain/]name`: a name of up to 63 letters, digits, `-`, `_` and `.`, of which neither end is a sign; the domain of up
/// to 253, in lower case and without `_`.
fn is_key(key: &str) -> bool {
    let (domain, name) = key.split_once('/').map_or((None, key), |(domain, name)| (Some(domain), name));
    let is_label = |label: &str| {
        is_name(label) && label.bytes().all(|octet| !octet.is_ascii_uppercase() && !b"_.".contains(&octet))
    };
    let is_domain = |domain: &str| domain.len() <= 253 && domain.split('.').all(is_label);
    domain.is_none_or(is_domain) && name.len() <= 63 && is_name(name)
}

/// Whether the text has the form of a key's name, or is empty.
fn is_value(value: &str) -> bool {
    value.is_empty() || (value.len() <= 63 && is_name(value))
}

fn is_name(text: &str) -> bool {
    let letter = |octet: Option<u8>| octet.is_some_and(|octet| octet.is_ascii_alphanumeric());
    letter(text.bytes().next())
        && letter(text.bytes().last())
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(&octet))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn selected(selector: Value, labels: &[(&str, &str)]) -> Option<bool> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        selects(&selector, &labels).ok()
    }

    #[test]
    fn labels_and_expressions_must_all_hold() {
        let both = json!({"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]});
        assert_eq!(selected(both.clone(), &[("a", "1"), ("b", "")]), Some(true));
        assert_eq!(selected(both.clone(), &[("a", "1")]), Some(false));
        assert_eq!(selected(both, &[("a", "2"), ("b", "")]), Some(false));
        assert_eq!(selected(json!({}), &[]), Some(true));
        assert_eq!(selected(json!({"matchLabels": null, "matchExpressions": []}), &[]), Some(true));
    }

    #[test]
    fn what_speaks_of_absence_fits_objects_without_the_label() {
        let not_in = json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1", "2"]}]});
        assert_eq!(selected(not_in.clone(), &[]), Some(true));
        assert_eq!(selected(not_in.clone(), &[("a", "3")]), Some(true));
        assert_eq!(selected(not_in, &[("a", "2")]), Some(false));
        let absent = json!({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]});
        assert_eq!(selected(absent.clone(), &[]), Some(true));
        assert_eq!(selected(absent, &[("a", "")]), Some(false));
        let within = json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1", "2"]}]});
        assert_eq!(selected(within.clone(), &[]), Some(false));
        assert_eq!(selected(within, &[("a", "2")]), Some(true));
    }

    #[test]
    fn a_selector_that_the_api_server_would_refuse_is_not_guessed_at() {
        for selector in [
            json!("everything"),
            json!({"matchlabels": {}}),
            json!({"matchLabels": {"a": 1}}),
            json!({"matchLabels": {"a": "-1"}}),
            json!({"matchLabels": {"": "1"}}),
            json!({"matchLabels": {"Example.com/a": "1"}}),
            json!({"matchLabels": {"a/b/c": "1"}}),
            json!({"matchExpressions": [{"key": "a b", "operator": "Exists"}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": [1]}]}),
            json!({"matchExpressions": {"key": "a", "operator": "Exists"}}),
            json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["1"]}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}),
            json!({"matchExpressions": [{"operator": "Exists"}]}),
        ] {
            assert_eq!(selected(selector.clone(), &[]), None, "{selector}");
        }
    }
}
