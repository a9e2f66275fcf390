//! The table of docs/configuration.md, against what is accepted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use config::{KEYS, assemble, variable};
use serde_json::Value;
use types::config::{Config, ConfigError};

/// A row of the table of docs/configuration.md.
struct Row {
    key: String,
    variable: String,
    kind: String,
    /// The value, where the documentation gives one that can be written; else none.
    default: Option<String>,
}

fn rows() -> Vec<Row> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().skip_while(|line| !line.starts_with("| key |")).skip(2);
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let row = |line: &str| {
        let [key, variable, kind, default, _meaning] = cells(line).try_into().unwrap();
        let code = |cell: &str| Some(cell.strip_prefix('`')?.strip_suffix('`')?.to_owned());
        Row { key: code(&key).unwrap(), variable: code(&variable).unwrap(), kind, default: code(&default) }
    };
    lines.take_while(|line| line.starts_with('|')).map(row).collect()
}

/// With what a key needs beside it, and the key itself set to this by its variable.
fn with(key: &str, value: Option<&str>) -> Result<Config, ConfigError> {
    let beside: &[(&str, &str)] = match key {
        "etcd.cert" => &[("etcd.endpoints", "https://a:1"), ("etcd.ca", "/ca"), ("etcd.key", "/key")],
        "etcd.key" => &[("etcd.endpoints", "https://a:1"), ("etcd.ca", "/ca"), ("etcd.cert", "/cert")],
        "etcd.ca" => &[("etcd.endpoints", "https://a:1")],
        "etcd.username" => &[("etcd.endpoints", "http://a:1"), ("etcd.password", "p")],
        "etcd.password" => &[("etcd.endpoints", "http://a:1"), ("etcd.username", "u")],
        "etcd.prefix" => &[("etcd.endpoints", "http://a:1")],
        _ => &[],
    };
    let set = beside.iter().copied().chain(value.map(|value| (key, value)));
    let environment: BTreeMap<_, _> = set.map(|(key, value)| (variable(key), value.to_owned())).collect();
    assemble(&Value::Null, &environment, "node1")
}

#[test]
fn the_documentation_lists_every_key_with_its_variable() {
    let rows = rows();
    assert_eq!(rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), KEYS);
    for row in &rows {
        assert_eq!(row.variable, variable(&row.key));
    }
}

#[test]
fn a_default_that_the_documentation_gives_is_what_an_absent_key_means() {
    let mut given = 0;
    for Row { key, default, .. } in rows() {
        let Some(default) = default else { continue };
        assert_eq!(with(&key, Some(&default)), with(&key, None), "{key}");
        assert!(with(&key, None).is_ok(), "{key}");
        given += 1;
    }
    assert_eq!(given, 20);
}

#[test]
fn a_key_takes_values_of_its_documented_type_and_refuses_others_by_its_name() {
    for Row { key, kind, .. } in rows() {
        let (good, bad): (&[&str], &[&str]) = match kind.as_str() {
            "name" => (&["node-2", "n.example"], &["Not A Name"]),
            "list of URLs" => (&["http://a:1", "http://a:1,http://b:2"], &["a:1"]),
            "list of prefixes" => (&["10.0.0.0/8", "10.0.0.0/8,::/0"], &["10.0.0.1/8", "x"]),
            "list of pools" => (&["10.0.0.0/16", "10.0.0.0/16=20,fd00::/64"], &["10.0.0.0/16=x", "pool"]),
            "list of numbers" => (&["80,81"], &["80,x", "80", "80,256"]),
            "path" => (&["/x/y"], &[]),
            "text" => (&["x", "/y"], &[]),
            "key prefix" => (&["/x/", "/x/y/"], &["x", "/x", "/", "/a b/"]),
            "detection method" => (&["none", "cidr=::/0", "interface=eth1"], &["guess", "cidr=x"]),
            "port range" => (&["1024-65535", "20000-20000"], &["80-90", "20000", "20001-20000", "x-y"]),
            "port" => (&["1", "65535"], &["0", "65536", "x"]),
            "duration" => (&["1s", "2m", "1m30s"], &["1", "1d", "x"]),
            "number" => (&["1280", "65535"], &["-1", "x", "1.5", "4294967296"]),
            "address with port" => (&["127.0.0.1:1", "[::1]:1"], &["9179", "127.0.0.1"]),
            "mask" => (&["0x00ff0000", "16711680"], &["0x000f0000", "0x4000", "x"]),
            "choice" => (&[], &["x"]),
            "boolean" => (&["true", "false"], &["yes", "1"]),
            _ => panic!("{key} has the unknown type {kind:?}"),
        };
        for value in good {
            let config = with(&key, Some(value));
            assert!(config.is_ok(), "{key}={value}: {config:?}");
        }
        for value in bad {
            let error = with(&key, Some(value)).unwrap_err();
            assert_eq!(error.key, key, "{key}={value}: {error}");
        }
    }
}
