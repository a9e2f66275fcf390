//! Which clause of which RFC is proved by which test: `docs/rfc-coverage.md` is made of the names of the workspace's tests,
//! and this keeps it true.
//!
//! A test that proves a clause is named `rfc4271_6_2_...`: the RFC, the section, then words. A letter stands directly behind
//! the number that it belongs to (`rfc7606_3g_...`). A test of several clauses joins them by `and`, or by `to` when they
//! follow each other: `rfc7606_7_5_and_7_9_...`, `rfc7606_7_4_to_7_10_...`, `rfc4271_6_7_and_rfc4486_4_...`. The words begin
//! with a letter. Without a section the RFC as a whole is meant, which is right only for one whose sections have no numbers.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::iter::Peekable;

use tests::sources::{self, Source};

/// The RFCs that tests may name, with their titles.
const TITLES: [(u32, &str); 19] = [
    (1997, "BGP Communities Attribute"),
    (2385, "Protection of BGP Sessions via the TCP MD5 Signature Option"),
    (2545, "Use of BGP-4 Multiprotocol Extensions for IPv6 Inter-Domain Routing"),
    (2918, "Route Refresh Capability for BGP-4"),
    (4271, "A Border Gateway Protocol 4 (BGP-4)"),
    (4456, "BGP Route Reflection: An Alternative to Full Mesh Internal BGP (IBGP)"),
    (4486, "Subcodes for BGP Cease Notification Message"),
    (4724, "Graceful Restart Mechanism for BGP"),
    (4760, "Multiprotocol Extensions for BGP-4"),
    (5082, "The Generalized TTL Security Mechanism (GTSM)"),
    (5396, "Textual Representation of Autonomous System (AS) Numbers"),
    (5492, "Capabilities Advertisement with BGP-4"),
    (6286, "Autonomous-System-Wide Unique BGP Identifier for BGP-4"),
    (6608, "Subcodes for BGP Finite State Machine Error"),
    (6793, "BGP Support for Four-Octet Autonomous System (AS) Number Space"),
    (7606, "Revised Error Handling for BGP UPDATE Messages"),
    (7607, "Codification of AS 0 Processing"),
    (9003, "Extended BGP Administrative Shutdown Communication"),
    (9072, "Extended Optional Parameters Length for BGP OPEN Message"),
];

/// Set, it makes the test write the page instead of comparing it.
const BLESS: &str = "MANX_BLESS";

const INTRODUCTION: &str = "\
# RFC coverage

Each row says that a test proves a clause: it fails if the speaker stops doing what that section of the RFC asks for. A test
of several clauses has a row for each. A clause is a section, with the letter of an item in it where it has such; `whole`
stands for an RFC that does not number its sections. A clause that is not here has no test of its own, which says nothing about
whether it is implemented. `cargo test -p CRATE NAME` runs a test by its name, with the crate that the file is in; those in
`tests/cases` need the lab (`./run test NAME`).

The page is made of the tests' names and is not edited by hand. A test that proves a clause is named after it,
`rfc4271_6_2_...` for section 6.2 of RFC 4271; `tests/cases/rfc_coverage.rs` has the rules of such names, compares the
page with them whenever the tests run, and writes it anew with

    MANX_BLESS=1 ./run test --unit rfc_coverage
";

#[test]
fn the_page_says_what_the_tests_names_say() {
    let page = sources::root().join("docs/rfc-coverage.md");
    let expected = render(&proofs());
    if std::env::var_os(BLESS).is_some() {
        fs::write(&page, &expected).unwrap();
    }
    let present = fs::read_to_string(&page).unwrap_or_default();
    let (old, new): (BTreeSet<_>, BTreeSet<_>) = (present.lines().collect(), expected.lines().collect());
    let changes: Vec<_> = old
        .difference(&new)
        .map(|line| format!("- {line}"))
        .chain(new.difference(&old).map(|line| format!("+ {line}")))
        .collect();
    assert!(
        present == expected,
        "docs/rfc-coverage.md is not what the names of the tests say; {BLESS}=1 writes it anew:\n{}",
        changes.join("\n")
    );
}

#[test]
fn a_name_is_read_as_the_clauses_that_it_begins_with() {
    for (name, clauses) in [
        ("rfc4271_6_2_a_wrong_peer_as_is_refused", &["4271 6.2"][..]),
        ("rfc7606_3g_the_first_one_counts", &["7606 3 g"]),
        ("rfc9072_2_and_more_words", &["9072 2"]),
        ("rfc7606_7_5_and_7_9_and_7_10_what_is_discarded", &["7606 7.5", "7606 7.9", "7606 7.10"]),
        ("rfc7606_7_8_to_7_10_lengths", &["7606 7.8", "7606 7.9", "7606 7.10"]),
        ("rfc4271_6_7_and_rfc4486_4_too_many_prefixes", &["4271 6.7", "4486 4"]),
        ("rfc1997_well_known_communities", &["1997 whole"]),
    ] {
        let read: Vec<_> = clauses_of(name).unwrap().iter().map(|(rfc, clause)| format!("{rfc} {clause}")).collect();
        assert_eq!(read, clauses, "{name}");
    }
    assert_eq!(clauses_of("a_test_of_no_clause"), Ok(vec![]));
    for wrong in
        ["rfc4271_6_2", "rfc4271x_6_2_words", "rfc999_1_words", "rfc4271_5_1_to_6_1_words", "rfc4271_6_2_to_6_1_words"]
    {
        assert!(clauses_of(wrong).is_err(), "{wrong}");
    }
}

/// A section of an RFC; the RFC as a whole where it is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Clause {
    numbers: Vec<u32>,
    letter: Option<char>,
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.numbers.is_empty() {
            return f.write_str("whole");
        }
        let numbers: Vec<_> = self.numbers.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join("."))?;
        self.letter.map_or(Ok(()), |letter| write!(f, " {letter}"))
    }
}

/// One row of the page, in the order of its columns.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Proof {
    rfc: u32,
    clause: Clause,
    test: String,
    /// From the root of the workspace.
    file: String,
}

fn render(proofs: &BTreeSet<Proof>) -> String {
    let mut page = format!("{INTRODUCTION}\n| RFC | title |\n|---|---|\n");
    for (rfc, title) in TITLES.iter().filter(|(rfc, _)| proofs.iter().any(|proof| proof.rfc == *rfc)) {
        page.push_str(&format!("| {rfc} | {title} |\n"));
    }
    page.push_str("\n| RFC | clause | test | file |\n|---|---|---|---|\n");
    for Proof { rfc, clause, test, file } in proofs {
        page.push_str(&format!("| {rfc} | {clause} | `{test}` | `{file}` |\n"));
    }
    page
}

/// What the names of the workspace's tests claim.
fn proofs() -> BTreeSet<Proof> {
    let mut proofs = BTreeSet::new();
    for Source { path, text } in sources::of_workspace().unwrap() {
        let file = path.to_str().unwrap();
        for test in tests_in(&text) {
            let clauses = clauses_of(test).unwrap_or_else(|fault| panic!("{file}: {test}: {fault}"));
            for (rfc, clause) in clauses {
                proofs.insert(Proof { rfc, clause, test: test.to_owned(), file: file.to_owned() });
            }
        }
    }
    proofs
}

/// The names of the functions that have a test attribute.
fn tests_in(source: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim_start) {
        if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if !line.starts_with("//") {
            let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            let name = function.and_then(|rest| rest.split(['(', '<']).next());
            names.extend(name.filter(|_| is_test));
            is_test = false;
        }
    }
    names
}

/// The clauses that a test's name begins with, each with its RFC; none for the name of a test that proves none.
fn clauses_of(name: &str) -> Result<Vec<(u32, Clause)>, String> {
    let mut parts = name.split('_').peekable();
    let Some(mut rfc) = parts.peek().and_then(|part| part.strip_prefix("rfc")).map(rfc_number).transpose()? else {
        return Ok(Vec::new());
    };
    parts.next();
    let mut clauses = vec![(rfc, take_clause(&mut parts))];
    loop {
        let mut ahead = parts.clone();
        let joint = ahead.next();
        let next = ahead.peek().copied().unwrap_or_default();
        match joint {
            Some("and") if next.starts_with("rfc") => {
                rfc = rfc_number(&next["rfc".len()..])?;
                ahead.next();
                clauses.push((rfc, take_clause(&mut ahead)));
            }
            Some("and") if component(next).is_some() => clauses.push((rfc, take_clause(&mut ahead))),
            Some("to") if component(next).is_some() => {
                let (_, first) = clauses.last().cloned().unwrap_or_default();
                let last = take_clause(&mut ahead);
                clauses.extend(following(&first, &last)?.into_iter().map(|clause| (rfc, clause)));
            }
            Some(_) => return Ok(clauses),
            None => return Err("there are no words behind the clause".to_owned()),
        }
        parts = ahead;
    }
}

fn rfc_number(digits: &str) -> Result<u32, String> {
    let number = digits.parse().map_err(|_| format!("{digits:?} is not the number of an RFC"))?;
    let is_known = TITLES.iter().any(|(rfc, _)| *rfc == number);
    if is_known { Ok(number) } else { Err(format!("RFC {number} has no title in this file")) }
}

/// The number between two underscores, and the letter behind it.
fn component(part: &str) -> Option<(u32, Option<char>)> {
    let letter = part.chars().last().filter(char::is_ascii_lowercase);
    let digits = part.strip_suffix(|last: char| Some(last) == letter).unwrap_or(part);
    if digits.starts_with(|first: char| first.is_ascii_digit()) { Some((digits.parse().ok()?, letter)) } else { None }
}

fn take_clause<'a>(parts: &mut Peekable<impl Iterator<Item = &'a str>>) -> Clause {
    let mut clause = Clause::default();
    while clause.letter.is_none()
        && let Some((number, letter)) = parts.peek().copied().and_then(component)
    {
        parts.next();
        clause.numbers.push(number);
        clause.letter = letter;
    }
    clause
}

/// The clauses behind `first` up to `last`, of the same section.
fn following(first: &Clause, last: &Clause) -> Result<Vec<Clause>, String> {
    match (&first.numbers[..], &last.numbers[..]) {
        ([section @ .., from], [same @ .., to]) if section == same && from < to => {
            Ok((from + 1..=*to).map(|number| Clause { numbers: [section, &[number]].concat(), letter: None }).collect())
        }
        _ => Err(format!("{last} does not follow {first}")),
    }
}
