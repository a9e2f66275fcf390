//! The rooms of the agent: who may name whom. Read from what its files import.

use std::collections::{BTreeMap, BTreeSet};

use tests::sources::{self, Source};

/// The agent's rooms and what each may name of the others. A room that is not listed must be added here, on purpose.
const ROOMS: [(&str, &[&str]); 6] = [
    ("node", &[]),
    ("cluster", &["node"]),
    ("policy", &["node", "cluster"]),
    ("services", &["node", "cluster"]),
    ("cni", &["node", "policy"]),
    ("api", &["node", "cluster", "policy", "services", "cni"]),
];

/// The modules at the top of the agent: they may name every room, and no room names them.
const TOP: [&str; 3] = ["main", "start", "tasks"];

/// The modules that only tests share: tests of every room may name them.
const TEST_SUPPORT: &str = "testing";

/// The agent's modules, by the names on the way to them, with their text.
#[derive(Debug, Clone)]
struct Modules(BTreeMap<Vec<String>, String>);

impl Modules {
    fn of_agent() -> Result<Self, Box<dyn std::error::Error>> {
        let mut modules = BTreeMap::new();
        for Source { path, text } in sources::of_workspace()? {
            let Ok(file) = path.strip_prefix("agent/src") else { continue };
            let way: Option<Vec<_>> =
                file.with_extension("").iter().map(|name| name.to_str().map(str::to_owned)).collect();
            let mut way = way.ok_or("a name that is no text")?;
            way.pop_if(|name| name == "mod");
            modules.insert(way, text);
        }
        Ok(Self(modules))
    }

    /// The paths in this crate that a module names, from the top.
    fn named<'a>(&self, module: &'a [String], text: &'a str) -> impl Iterator<Item = Vec<String>> + 'a {
        paths(text).into_iter().filter_map(move |path| {
            let up = path.iter().take_while(|step| *step == "super").count();
            let from = if path.first()? == "crate" { &[] } else { module.get(..module.len().checked_sub(up)?)? };
            Some(from.iter().cloned().chain(path.into_iter().skip(up.max(1))).collect())
        })
    }

    /// Every breach of the rules above, in words.
    fn offences(&self) -> Vec<String> {
        let rooms: BTreeMap<_, _> = ROOMS.into_iter().collect();
        let mut offences = Vec::new();
        for (module, text) in &self.0 {
            let Some(place) = module.first().filter(|place| !TOP.contains(&place.as_str()) && *place != TEST_SUPPORT)
            else {
                continue;
            };
            let Some(allowed) = rooms.get(place.as_str()) else {
                offences.push(format!("{place} is in the agent but not in the table of rooms"));
                continue;
            };
            for named in self.named(module, text) {
                let Some(other) = named.first() else { continue };
                if other != place && other != TEST_SUPPORT && !allowed.contains(&other.as_str()) {
                    offences.push(format!("{} may not name {}", module.join("::"), named.join("::")));
                }
            }
        }
        offences.extend(self.cycle().map(|cycle| format!("files need each other: {}", cycle.join(" -> "))));
        offences
    }

    /// Files that need each other, if there are any. Tests do not count: nothing needs them.
    fn cycle(&self) -> Option<Vec<String>> {
        let is_counted = |module: &[String]| module.last().is_some_and(|name| name != "tests" && name != TEST_SUPPORT);
        let mut needs: BTreeMap<&[String], BTreeSet<&[String]>> = BTreeMap::new();
        for (module, text) in self.0.iter().filter(|(module, _)| is_counted(module)) {
            for named in self.named(module, text) {
                let is_named = |(other, _): &(&Vec<String>, &String)| other.len() > 1 && named.starts_with(other);
                let other = self.0.iter().filter(is_named).map(|(other, _)| other).max_by_key(|other| other.len());
                if let Some(other) = other.filter(|other| *other != module) {
                    needs.entry(module).or_default().insert(other);
                }
            }
        }
        // A module that needs none of those that are left cannot be in a cycle.
        loop {
            let left: BTreeSet<&[String]> = needs.keys().copied().collect();
            needs.values_mut().for_each(|others| others.retain(|other| left.contains(other)));
            let before = needs.len();
            needs.retain(|_, others| !others.is_empty());
            if needs.len() == before {
                break;
            }
        }
        let mut way = vec![*needs.keys().next()?];
        loop {
            let next = *needs.get(way.last()?)?.first()?;
            if let Some(begin) = way.iter().position(|module| *module == next) {
                let mut cycle: Vec<String> = way.iter().skip(begin).map(|module| module.join("::")).collect();
                let first = cycle.iter().enumerate().min_by_key(|(_, name)| *name).map_or(0, |(at, _)| at);
                cycle.rotate_left(first);
                cycle.extend(cycle.first().cloned());
                return Some(cycle);
            }
            way.push(next);
        }
    }

    fn with(mut self, module: &[&str], text: &str) -> Self {
        let module: Vec<String> = module.iter().map(|name| (*name).to_owned()).collect();
        self.0.entry(module).or_default().push_str(text);
        self
    }
}

/// The paths of a text that begin in this crate, with groups written out.
fn paths(text: &str) -> Vec<Vec<String>> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let mut found = Vec::new();
    for begin in ["crate::", "super::"] {
        for (at, _) in code.match_indices(begin) {
            let before = code.get(..at).and_then(|before| before.chars().next_back());
            // The word must neither be a part of a longer name nor a later step of a path.
            if !before.is_some_and(|before| before.is_alphanumeric() || before == '_' || before == ':') {
                write_out(code.get(at..).unwrap_or_default(), Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Follows a path, or the tree of an import, to its end; returns the rest of the text.
fn write_out<'a>(mut left: &'a str, mut path: Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    loop {
        if let Some(group) = left.strip_prefix('{') {
            left = group;
            loop {
                left = left.trim_start();
                if left.is_empty() || left.starts_with('}') {
                    return left.get(1..).unwrap_or_default();
                }
                left = write_out(left, path.clone(), found);
                // The name that something is imported under does not matter.
                let end = left.find([',', '}']).unwrap_or(left.len());
                left = left.get(end..).unwrap_or_default();
                left = left.strip_prefix(',').unwrap_or(left);
            }
        }
        let end = left.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(left.len());
        let (step, after) = left.split_at(end);
        if step.is_empty() {
            found.push(path);
            return left;
        }
        path.push(step.to_owned());
        match after.strip_prefix("::") {
            Some(after) => left = after,
            None => {
                found.push(path);
                return after;
            }
        }
    }
}

#[test]
fn every_room_of_the_agent_names_only_rooms_that_the_architecture_allows() -> Result<(), Box<dyn std::error::Error>> {
    let modules = Modules::of_agent()?;
    let there: BTreeSet<&str> = modules.0.keys().filter_map(|module| module.first()).map(String::as_str).collect();
    assert!(ROOMS.iter().all(|(room, _)| there.contains(room)), "a room of the table is not in the agent: {there:?}");
    let offences = modules.offences();
    assert!(offences.is_empty(), "{}", offences.join("\n"));
    Ok(())
}

#[test]
fn a_forbidden_import_is_found_and_named() -> Result<(), Box<dyn std::error::Error>> {
    let agent = Modules::of_agent()?;
    for (module, text, offence) in [
        (&["node", "host"][..], "use crate::cluster::sources;", "node::host may not name cluster::sources"),
        (&["policy", "pods"], "use crate::cni::links::{self, park};", "policy::pods may not name cni::links::park"),
        (&["cluster", "desired"], "use crate::{node, tasks::Tasks};", "cluster::desired may not name tasks::Tasks"),
        (&["cni", "reaper"], "fn f() { crate::api::x(1) }", "cni::reaper may not name api::x"),
        (&["services"], "use super::start::run;", "services may not name start::run"),
        (&["cluster", "sources", "tests"], "use super::super::super::api;", "cluster::sources::tests may not name api"),
        (&["lobby"], "", "lobby is in the agent but not in the table of rooms"),
    ] {
        let offences = agent.clone().with(module, text).offences();
        assert!(offences.iter().any(|found| found == offence), "{offence} is not among {offences:?}");
    }
    let twins = agent.clone().with(&["node", "latest"], "use super::fatal::Fatal;");
    let twins = twins.with(&["node", "fatal"], "use crate::node::latest::tell;").offences();
    assert_eq!(twins, ["files need each other: node::fatal -> node::latest -> node::fatal"]);
    for harmless in ["// use crate::api::x;", "use crate::testing::World;", "use crate::cluster::sources::decode;"] {
        assert_eq!(agent.clone().with(&["policy", "pods"], harmless).offences(), Vec::<String>::new(), "{harmless}");
    }
    Ok(())
}
