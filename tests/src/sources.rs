//! The workspace's own sources, for tests of how they are laid out.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// A file of Rust.
#[derive(Debug)]
pub struct Source {
    /// From the root of the workspace.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

impl Source {
    /// Whether it holds tests, or what only tests use, by the project's conventions.
    pub fn is_test(&self) -> bool {
        let is_test_room =
            |part: &std::ffi::OsStr| ["tests", "tests.rs", "testing.rs", "testing"].iter().any(|name| part == *name);
        self.path.iter().any(is_test_room)
    }
}

/// The folder of the workspace.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("."))
}

/// Every file of Rust in the workspace, in the order of paths.
pub fn of_workspace() -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders = vec![root().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if path.is_dir() {
                // What was built lies beside the sources where nobody has said another place.
                if !is_hidden && !path.ends_with("target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path)?;
                sources.push(Source { path: path.strip_prefix(root()).unwrap_or(&path).to_owned(), text });
            }
        }
    }
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(sources)
}
