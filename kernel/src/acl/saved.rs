//! The lines that `iptables-save` prints.

/// The packets that a rule has matched, where they are in front of it (`[packets:octets]`), and the rule.
pub fn counters(line: &str) -> (Option<u64>, &str) {
    let counted = || {
        let (counters, rule) = line.strip_prefix('[')?.split_once("] ")?;
        Some((counters.split(':').next()?.parse().ok()?, rule))
    };
    match counted() {
        Some((packets, rule)) => (Some(packets), rule),
        None => (None, line),
    }
}

/// What stands behind an option of a rule.
pub fn value_of(option: &str, spec: &str) -> Option<String> {
    let mut words = Words(spec);
    while let Some(word) = words.next() {
        match word.as_str() {
            word if word == option => return words.next(),
            // Whatever it says, it is no option.
            "--comment" => drop(words.next()),
            _ => {}
        }
    }
    None
}

/// Words as iptables-save writes them: quoted where they have blanks, with `\` before `"` and `\`.
struct Words<'a>(&'a str);

impl Iterator for Words<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let text = self.0.trim_start();
        let (mut word, mut is_quoted, mut is_escaped) = (String::new(), false, false);
        for (at, character) in text.char_indices() {
            match character {
                _ if is_escaped => {
                    word.push(character);
                    is_escaped = false;
                }
                '\\' => is_escaped = true,
                '"' => is_quoted = !is_quoted,
                ' ' if !is_quoted => {
                    self.0 = text.get(at..).unwrap_or_default();
                    return Some(word);
                }
                _ => word.push(character),
            }
        }
        self.0 = "";
        (!text.is_empty()).then_some(word)
    }
}

#[cfg(test)]
mod tests;
