//! What `iptables-restore --noflush` does with its input.

use super::rule::{Rule, Target};
use super::{Chain, IptablesTable, Ruleset, options};

/// Why a text is refused: what iptables-restore would refuse too, or something that the simulator does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}: {text}")]
pub struct TextError {
    /// The number of the line, counted from one.
    pub line: usize,
    /// What is wrong with the line.
    pub what: String,
    /// The line itself.
    pub text: String,
}

impl Ruleset {
    /// Carries out a text of `iptables-restore --noflush` (`six`: ip6tables-restore), all of it or none.
    pub fn restore(&mut self, text: &str, six: bool) -> Result<(), TextError> {
        let mut new = self.clone();
        let mut current: Option<String> = None;
        for (index, line) in text.lines().enumerate() {
            let fault = |what: String| TextError { line: index + 1, what, text: line.to_owned() };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('*') {
                match (&current, new.tables.contains_key(name)) {
                    (None, true) => current = Some(name.to_owned()),
                    _ => return Err(fault("a table where none can begin".to_owned())),
                }
                continue;
            }
            let Some(name) = current.clone() else { return Err(fault("outside of a table".to_owned())) };
            let Some(table) = new.tables.get_mut(&name) else { return Err(fault("no such table".to_owned())) };
            if line == "COMMIT" {
                table.consistent().map_err(fault)?;
                current = None;
            } else {
                table.line(line, six).map_err(fault)?;
            }
        }
        if let Some(table) = current {
            return Err(TextError {
                line: text.lines().count(),
                what: "no COMMIT".to_owned(),
                text: format!("*{table}"),
            });
        }
        *self = new;
        Ok(())
    }
}

impl IptablesTable {
    fn line(&mut self, line: &str, six: bool) -> Result<(), String> {
        if let Some(chain) = line.strip_prefix(':') {
            return self.declare(chain);
        }
        // A line may begin with counters, as `iptables-save -c` prints them.
        let line = match line.strip_prefix('[') {
            Some(rest) => rest.split_once("] ").map(|(_, rest)| rest).ok_or("counters without a rule")?,
            None => line,
        };
        let words = words(line)?;
        let [command, name, rest @ ..] = words.as_slice() else { return Err("a command without a chain".to_owned()) };
        // The rest is the rule, behind the chain's name and, if there is one, the place in the chain.
        let text = |words: &[String]| {
            let skipped = 2 + usize::from(words.len() < rest.len());
            line.splitn(skipped + 1, ' ').nth(skipped).unwrap_or_default().to_owned()
        };
        let rule = |words: &[String]| options::rule(words, text(words), six);
        match (command.as_str(), rest) {
            ("-A" | "--append", rest) => {
                let rule = rule(rest)?;
                self.chain(name)?.rules.push(rule);
            }
            ("-I" | "--insert", rest) => {
                let (place, rest) = place(rest);
                let (rule, chain) = (rule(rest)?, self.chain(name)?);
                if place == 0 || place > chain.rules.len() + 1 {
                    return Err("no such place".to_owned());
                }
                chain.rules.insert(place - 1, rule);
            }
            ("-R" | "--replace", rest) if !rest.is_empty() => {
                let (place, rest) = place(rest);
                let rule = rule(rest)?;
                *self.chain(name)?.rules.get_mut(place.wrapping_sub(1)).ok_or("no such rule")? = rule;
            }
            ("-D" | "--delete", [number]) if number.parse::<usize>().is_ok() => {
                let (place, _) = place(rest);
                let rules = &mut self.chain(name)?.rules;
                if place == 0 || place > rules.len() {
                    return Err("no such rule".to_owned());
                }
                rules.remove(place - 1);
            }
            ("-D" | "--delete", rest) => {
                let (rule, chain) = (rule(rest)?, self.chain(name)?);
                let at = chain.rules.iter().position(|has| *has == rule).ok_or("no such rule")?;
                chain.rules.remove(at);
            }
            ("-F" | "--flush", []) => self.chain(name)?.rules.clear(),
            ("-N" | "--new-chain", []) if !self.chains.contains_key(name) => self.declare(&format!("{name} -"))?,
            ("-P" | "--policy", [policy]) => self.chain(name)?.policy = Some(policy == "ACCEPT"),
            ("-X" | "--delete-chain", []) => self.delete(name)?,
            _ => return Err(format!("command {command} is not known here")),
        }
        Ok(())
    }

    /// Carries out `NAME POLICY [0:0]`: makes or empties a chain; for a built-in chain it sets the policy, unless that
    /// is `-`.
    fn declare(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split_whitespace();
        let (Some(name), Some(policy)) = (words.next(), words.next()) else {
            return Err("a chain without policy".to_owned());
        };
        if name.len() > 28 {
            return Err("a chain's name has at most 28 octets".to_owned());
        }
        match (self.chains.get_mut(name), policy) {
            (Some(Chain { policy: Some(_), .. }), "-") => {}
            (Some(Chain { policy: Some(passes), .. }), "ACCEPT" | "DROP") => *passes = policy == "ACCEPT",
            (Some(Chain { policy: None, rules }), "-") => rules.clear(),
            (None, "-") => {
                self.chains.insert(name.to_owned(), Chain { policy: None, rules: Vec::new() });
            }
            _ => return Err("a policy that this chain cannot have".to_owned()),
        }
        Ok(())
    }

    fn delete(&mut self, name: &str) -> Result<(), String> {
        let chain = self.chain(name)?;
        if chain.policy.is_some() || !chain.rules.is_empty() {
            return Err("the chain is not empty, or the kernel's own".to_owned());
        }
        if self.chains.values().any(|chain| chain.rules.iter().any(|rule| leads_to(rule) == Some(name))) {
            return Err("a rule leads to the chain".to_owned());
        }
        self.chains.remove(name);
        Ok(())
    }

    fn chain(&mut self, name: &str) -> Result<&mut Chain, String> {
        self.chains.get_mut(name).ok_or_else(|| format!("there is no chain {name}"))
    }

    /// Refuses rules that lead to a chain that does not exist or is built in.
    fn consistent(&self) -> Result<(), String> {
        for rule in self.chains.values().flat_map(|chain| &chain.rules) {
            if let Some(name) = leads_to(rule)
                && self.chains.get(name).is_none_or(|chain| chain.policy.is_some())
            {
                return Err(format!("a rule leads to {name}, which is no chain to lead to"));
            }
        }
        Ok(())
    }
}

fn leads_to(rule: &Rule) -> Option<&str> {
    match &rule.target {
        Some(Target::Jump(name) | Target::Goto(name)) => Some(name),
        _ => None,
    }
}

/// Takes the number at the beginning, or one if there is none.
fn place(words: &[String]) -> (usize, &[String]) {
    match words {
        [first, rest @ ..] => first.parse().map_or((1, words), |place| (place, rest)),
        [] => (1, words),
    }
}

/// Splits a line into words; a word with spaces stands in double quotes, with `\` before what would end it.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let (mut quoted, mut letters) = (false, line.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => word.get_or_insert_default().extend(letters.next()),
            ' ' | '\t' if !quoted => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    if quoted { Err("a quote without end".to_owned()) } else { Ok(words) }
}
