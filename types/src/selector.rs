//! The label selectors of `projectcalico.org/v3`: `all()`, `has(rack)`, `rack == 'a' && !(role in {'edge', 'spare'})`.
//!
//! Parsed once, evaluated against a map of labels. The language is the one that operators know from `nodeSelector` and
//! `peerSelector`; a text outside it is an error that shows where.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A parsed selector, which remembers the text it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector {
    /// The text as it was written, for printing.
    text: String,
    /// The meaning of the text.
    expression: Expression,
}

impl Selector {
    /// The selector that selects everything.
    pub fn all() -> Self {
        Self { text: "all()".to_owned(), expression: Expression::All }
    }

    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.expression.matches(labels)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> Self {
        selector.text
    }
}

impl TryFrom<String> for Selector {
    type Error = SelectorError;
    fn try_from(text: String) -> Result<Self, SelectorError> {
        text.parse()
    }
}

impl FromStr for Selector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut parser = Parser { text, rest: text };
        let expression = if text.trim().is_empty() { Expression::All } else { parser.any(0)? };
        parser.end()?;
        Ok(Self { text: text.to_owned(), expression })
    }
}

/// Where a text stops being a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("selector {text:?}: expected {expected} at {at:?}")]
pub struct SelectorError {
    text: String,
    expected: &'static str,
    at: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    All,
    Has(String),
    Equal(String, String),
    NotEqual(String, String),
    In(String, BTreeSet<String>),
    NotIn(String, BTreeSet<String>),
    Contains(String, String),
    StartsWith(String, String),
    EndsWith(String, String),
    Not(Box<Self>),
    Every(Vec<Self>),
    Any(Vec<Self>),
}

impl Expression {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All => true,
            Self::Has(key) => labels.contains_key(key),
            Self::Equal(key, value) => labels.get(key) == Some(value),
            // As in Kubernetes, an object without the key differs from every value.
            Self::NotEqual(key, value) => labels.get(key) != Some(value),
            Self::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
            Self::Contains(key, part) => labels.get(key).is_some_and(|value| value.contains(part)),
            Self::StartsWith(key, part) => labels.get(key).is_some_and(|value| value.starts_with(part)),
            Self::EndsWith(key, part) => labels.get(key).is_some_and(|value| value.ends_with(part)),
            Self::Not(inner) => !inner.matches(labels),
            Self::Every(parts) => parts.iter().all(|part| part.matches(labels)),
            Self::Any(parts) => parts.iter().any(|part| part.matches(labels)),
        }
    }
}

/// A text that nests deeper is an attack on the stack, not a selector.
const MAX_DEPTH: usize = 64;

struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Parser<'_> {
    fn any(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        let mut parts = vec![self.every(depth)?];
        while self.take("||") {
            parts.push(self.every(depth)?);
        }
        Ok(single(parts, Expression::Any))
    }

    fn every(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        let mut parts = vec![self.term(depth)?];
        while self.take("&&") {
            parts.push(self.term(depth)?);
        }
        Ok(single(parts, Expression::Every))
    }

    fn term(&mut self, depth: usize) -> Result<Expression, SelectorError> {
        if depth > MAX_DEPTH {
            return Err(self.expected("at most 64 levels of nesting"));
        }
        if self.take("!") {
            return Ok(Expression::Not(Box::new(self.term(depth + 1)?)));
        }
        if self.take("(") {
            let inner = self.any(depth + 1)?;
            return if self.take(")") { Ok(inner) } else { Err(self.expected("')'")) };
        }
        let name = self.label()?;
        if (name == "all" || name == "global") && self.take("()") {
            return Ok(Expression::All);
        }
        if name == "has" && self.take("(") {
            let key = self.label()?;
            return if self.take(")") { Ok(Expression::Has(key)) } else { Err(self.expected("')'")) };
        }
        self.comparison(name)
    }

    fn comparison(&mut self, key: String) -> Result<Expression, SelectorError> {
        if self.take("==") {
            return Ok(Expression::Equal(key, self.literal()?));
        }
        if self.take("!=") {
            return Ok(Expression::NotEqual(key, self.literal()?));
        }
        match self.label()?.as_str() {
            "in" => Ok(Expression::In(key, self.set()?)),
            "not" if self.label()? == "in" => Ok(Expression::NotIn(key, self.set()?)),
            "contains" => Ok(Expression::Contains(key, self.literal()?)),
            "starts" if self.label()? == "with" => Ok(Expression::StartsWith(key, self.literal()?)),
            "ends" if self.label()? == "with" => Ok(Expression::EndsWith(key, self.literal()?)),
            _ => Err(self.expected("==, !=, in, not in, contains, starts with or ends with")),
        }
    }

    fn set(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        let mut values = BTreeSet::new();
        if !self.take("{") {
            return Err(self.expected("'{'"));
        }
        while !self.take("}") {
            values.insert(self.literal()?);
            if !self.take(",") && !self.rest.trim_start().starts_with('}') {
                return Err(self.expected("',' or '}'"));
            }
        }
        Ok(values)
    }

    fn literal(&mut self) -> Result<String, SelectorError> {
        self.rest = self.rest.trim_start();
        for quote in ['\'', '"'] {
            if let Some(inner) = self.rest.strip_prefix(quote) {
                let (value, rest) = inner.split_once(quote).ok_or_else(|| self.expected("a closing quote"))?;
                self.rest = rest;
                return Ok(value.to_owned());
            }
        }
        Err(self.expected("a quoted value"))
    }

    fn label(&mut self) -> Result<String, SelectorError> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-./".contains(c)));
        let (label, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        if label.is_empty() {
            return Err(self.expected("a label, all(), has(), '!' or '('"));
        }
        self.rest = rest;
        Ok(label.to_owned())
    }

    fn take(&mut self, token: &str) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn end(&self) -> Result<(), SelectorError> {
        if self.rest.trim().is_empty() { Ok(()) } else { Err(self.expected("&&, || or the end")) }
    }

    fn expected(&self, expected: &'static str) -> SelectorError {
        SelectorError { text: self.text.to_owned(), expected, at: self.rest.trim_start().to_owned() }
    }
}

/// Joins several parts by an operator; a single part stands for itself.
fn single(mut parts: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => Expression::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(text: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        text.parse::<Selector>().unwrap().matches(&labels)
    }

    #[test]
    fn every_operator_means_what_operators_of_calico_expect() {
        let labels = [("rack", "a"), ("kubernetes.io/os", "linux")];
        for text in [
            "",
            "all()",
            "has(rack)",
            "!has(zone)",
            "rack == 'a'",
            "rack==\"a\"",
            "zone != 'b'",
            "rack in {'a', 'b'}",
            "rack not in { 'b' }",
            "zone not in {'b'}",
            "kubernetes.io/os starts with 'li' && kubernetes.io/os ends with 'ux'",
            "kubernetes.io/os contains 'inu'",
            "rack == 'b' || has(rack) && !(rack == 'c')",
        ] {
            assert!(selects(text, &labels), "{text}");
        }
        for text in ["rack == 'b'", "has(zone)", "!all()", "zone == ''", "rack in {}", "has(rack) && has(zone)"] {
            assert!(!selects(text, &labels), "{text}");
        }
    }

    #[test]
    fn a_text_outside_the_language_is_an_error_that_shows_where() {
        let error = "rack == a".parse::<Selector>().unwrap_err().to_string();
        assert_eq!(error, "selector \"rack == a\": expected a quoted value at \"a\"");
        for bad in ["rack", "rack == 'a", "has(rack", "rack in {'a' 'b'}", "all() all()", "&& all()", "(all()"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
        assert!("!".repeat(10_000).parse::<Selector>().is_err());
    }
}
