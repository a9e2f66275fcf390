//! How the values of keys are written: in YAML as texts, numbers and lists, in variables as texts.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;
use types::resource::{BlockSizeError, IpPoolSpec};

/// A single value, as the text that its type is read from.
pub(crate) struct Text(pub(crate) String);

/// A single value of a type that is read from text; spaces around it do not count.
pub(crate) struct Parsed<T>(pub(crate) T);

/// A YAML list, or a text with commas.
#[derive(Debug)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

/// A duration: see [`types::duration::parse`].
pub(crate) struct Span(pub(crate) Duration);

/// A list of `{cidr, blockSize}`, or texts `CIDR` and `CIDR=BLOCKSIZE`.
pub(crate) struct Pools(pub(crate) Vec<IpPoolSpec>);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            value @ (Value::Number(_) | Value::Bool(_)) => Ok(Self(value.to_string())),
            _ => Err(D::Error::custom("must be a single value")),
        }
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Parsed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        parse(&text, text.trim()).map(Self).map_err(D::Error::custom)
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = texts(Value::deserialize(deserializer)?).map_err(D::Error::custom)?;
        texts.iter().map(|text| parse(text, text)).collect::<Result<_, _>>().map(Self).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        let refused = || D::Error::custom(format!("{text:?} is not a duration such as 500ms, 30s, 2m or 24h"));
        types::duration::parse(&text).map(Self).ok_or_else(refused)
    }
}

impl<'de> Deserialize<'de> for Pools {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        pools(Value::deserialize(deserializer)?).map(Self).map_err(D::Error::custom)
    }
}

fn parse<T: FromStr<Err: Display>>(written: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{written:?}: {error}"))
}

fn texts(value: Value) -> Result<Vec<String>, String> {
    let Value::Array(items) = value else {
        let Text(text) = serde_json::from_value(value).map_err(|error| error.to_string())?;
        return Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect());
    };
    let text = |item: Value| match item {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err("must be a list of texts".to_owned()),
    };
    items.into_iter().map(text).collect()
}

fn pools(value: Value) -> Result<Vec<IpPoolSpec>, String> {
    match value {
        Value::Array(items) if items.iter().any(Value::is_object) => items.iter().map(pool_of_fields).collect(),
        value => texts(value)?.iter().map(|text| pool_of_text(text)).collect(),
    }
}

fn pool_of_fields(fields: &Value) -> Result<IpPoolSpec, String> {
    let Some(Value::String(cidr)) = fields.get("cidr") else {
        return Err("every pool needs a cidr".to_owned());
    };
    let mut names = fields.as_object().into_iter().flat_map(|fields| fields.keys());
    if let Some(name) = names.find(|name| *name != "cidr" && *name != "blockSize") {
        return Err(format!("{name} is not cidr or blockSize"));
    }
    let number = |size: &Value| size.as_u64().and_then(|size| u8::try_from(size).ok());
    let size = fields.get("blockSize").map(|size| number(size).ok_or_else(|| format!("blockSize {size}")));
    pool(cidr, size.transpose()?)
}

fn pool_of_text(text: &str) -> Result<IpPoolSpec, String> {
    match text.split_once('=') {
        None => pool(text, None),
        Some((cidr, size)) => pool(cidr, Some(size.parse().map_err(|_| format!("{text:?} is not CIDR=BLOCKSIZE"))?)),
    }
}

fn pool(cidr: &str, block_size: Option<u8>) -> Result<IpPoolSpec, String> {
    let pool = IpPoolSpec::new(cidr.parse().map_err(|error| format!("{error}"))?, block_size);
    pool.block_len().map_err(|error: BlockSizeError| error.to_string())?;
    Ok(pool)
}
