//! The documents point at what is there: every file, folder and heading that one of them links to or names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tests::sources::root;

/// The folders with documents, below the repository's root.
const FOLDERS: [&str; 3] = ["", "docs", "docs/decisions"];

/// The documents: their paths from the root, and their texts.
fn documents() -> std::io::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for folder in FOLDERS {
        for entry in fs::read_dir(root().join(folder))? {
            let name = entry?.file_name();
            let path = Path::new(folder).join(name);
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(root().join(&path))?;
                found.push((path, text));
            }
        }
    }
    Ok(found)
}

/// The text without blocks of code, which quote what is elsewhere.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// Where the links of a line lead.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let after = line.split("](").skip(1);
    after.filter_map(|rest| Some(rest.split_once(')')?.0)).filter(|target| !target.contains("://"))
}

/// The paths from the root that a line names as code. A placeholder in capitals (`types/src/resource/KIND.rs`) stands for any
/// file of its folder.
fn named_paths(line: &str) -> impl Iterator<Item = PathBuf> {
    let spans = line.split('`').skip(1).step_by(2);
    let paths = spans.filter(|span| span.contains('/') && !span.starts_with(['/', '.']));
    let paths = paths.filter(|span| span.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte)));
    paths.map(PathBuf::from).filter(|path| path.iter().next().is_some_and(|first| root().join(first).exists())).map(
        |path| {
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            let stands_for_any = !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_uppercase());
            if stands_for_any && path.extension().is_some_and(|extension| extension == "rs") {
                path.parent().map(Path::to_owned).unwrap_or_default()
            } else {
                path
            }
        },
    )
}

/// The anchors of a document's headings, as repository hosts make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| {
            let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        })
        .collect()
}

#[test]
fn what_documents_link_to_or_name_exists() -> Result<(), Box<dyn std::error::Error>> {
    let mut missing = Vec::new();
    for (document, text) in documents()? {
        let folder = document.parent().unwrap_or_else(|| Path::new("")).to_owned();
        for line in prose(&text) {
            for link in links(line) {
                let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
                let target = if file.is_empty() { document.clone() } else { folder.join(file) };
                let has_anchor = |text: String| anchor.is_empty() || anchors(&text).contains(anchor);
                let exists = match root().join(&target) {
                    path if anchor.is_empty() => path.exists(),
                    path => fs::read_to_string(path).is_ok_and(has_anchor),
                };
                if !exists {
                    missing.push(format!("{} links to {link}", document.display()));
                }
            }
            for path in named_paths(line).filter(|path| !root().join(path).exists()) {
                missing.push(format!("{} names {}", document.display(), path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "these are not there:\n{}", missing.join("\n"));
    Ok(())
}
