//! The corpora of `fuzz/`, without libFuzzer: what was once found, or leads somewhere, is run by every test.

#![allow(clippy::unwrap_used, reason = "a failure here is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

use fuzz_targets::TARGETS;

fn corpus(target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Names the input on which the process panics.
fn run(target: &str) {
    let (_, function) = TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
    let files = corpus(target);
    assert!(files.len() > 20, "the corpus of {target} has {} files", files.len());
    for file in files {
        let octets = fs::read(&file).unwrap();
        let outcome = std::panic::catch_unwind(|| function(&octets));
        assert!(outcome.is_ok(), "{target} fails on {}", file.display());
    }
}

#[test]
fn the_decoder_holds_on_its_corpus() {
    run("decode");
}

#[test]
fn a_session_holds_on_its_corpus() {
    run("session");
}

#[test]
fn a_speaker_holds_on_its_corpus() {
    run("speaker");
}

#[test]
fn every_target_has_its_program_and_every_program_its_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
    let mut programs: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    programs.sort();
    assert_eq!(programs, TARGETS.map(|(name, _)| name));
}
