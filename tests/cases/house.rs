//! What keeps the code readable in one sitting: the length of files, the size of structs, and a map that names what exists.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tests::TestResult;
use tests::sources::{self, Source};

/// The most lines that a file outside of tests may have.
const LONGEST_FILE: usize = 600;

/// The most fields that a struct may have.
const LARGEST_STRUCT: usize = 20;

#[test]
fn a_file_can_be_read_in_one_sitting() -> TestResult {
    let long = |source: &Source| source.text.lines().count() > LONGEST_FILE;
    let offences = sources::of_workspace()?.into_iter().filter(|source| !source.is_test() && long(source));
    let offences: Vec<PathBuf> = offences.map(|source| source.path).collect();
    assert!(offences.is_empty(), "more than {LONGEST_FILE} lines: {offences:?}");
    Ok(())
}

#[test]
fn a_struct_has_few_enough_fields_to_be_kept_in_mind() -> TestResult {
    let mut largest = 0;
    for source in sources::of_workspace()? {
        for (name, fields) in structs(&source.text) {
            largest = largest.max(fields);
            assert!(fields <= LARGEST_STRUCT, "{}: struct {name} has {fields} fields", source.path.display());
        }
    }
    assert!(largest > 10, "the largest struct that was found has {largest} fields: they are not counted right");
    Ok(())
}

/// ARCHITECTURE.md shows four walks through the code as chains of `file:function`.
#[test]
fn every_step_of_the_walks_in_the_map_exists() -> TestResult {
    let root = sources::root();
    let map = fs::read_to_string(root.join("ARCHITECTURE.md"))?;
    let walks = map.split("\n## ").find(|section| section.starts_with("Walks")).ok_or("no section of walks")?;
    let mut steps = 0;
    for (file, function) in walks.split('`').filter_map(|quoted| quoted.split_once(".rs:")) {
        let path = root.join(format!("{file}.rs"));
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let name = function.rsplit("::").next().unwrap_or(function);
        assert!(defines(&text, name), "{file}.rs has no function {name}");
        steps += 1;
    }
    assert!(steps >= 12, "{steps} steps are not four walks");
    Ok(())
}

fn defines(text: &str, function: &str) -> bool {
    ["(", "<"].iter().any(|after| text.contains(&format!("fn {function}{after}")))
}

/// The structs of a file with the number of their fields. Reads what rustfmt has laid out: a field a line.
fn structs(text: &str) -> BTreeMap<&str, usize> {
    let mut found = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        let Some(name) = line.split_once("struct ").map(|(_, name)| name) else { continue };
        if !line.ends_with('{') || line.trim_start().starts_with("//") {
            continue;
        }
        let end = format!("{}}}", " ".repeat(indent));
        let body = lines.by_ref().take_while(|line| *line != end);
        let is_field = |line: &&str| {
            let inner = line.trim_start();
            line.len() - inner.len() == indent + 4 && !inner.starts_with(['/', '#', '}', ')', '>'])
        };
        found.insert(name.split(['<', ' ', '{']).next().unwrap_or(name), body.filter(is_field).count());
    }
    found
}

#[test]
fn fields_are_counted_and_nothing_else_is() {
    let text = "\
/// A struct of words {
pub struct Whole<T> {
    /// One.
    #[serde(default)]
    one: T,
    two: BTreeMap<
        String,
        T,
    >,
}
struct Nothing;
    struct Inner {
        three: u8,
    }
";
    assert_eq!(structs(text), BTreeMap::from([("Whole", 2), ("Inner", 1)]));
    assert!(defines("pub(crate) async fn walk<T>(", "walk") && !defines("fn walked(", "walk"));
    assert!(Source { path: Path::new("felix/src/acl/tests.rs").into(), text: String::new() }.is_test());
}
