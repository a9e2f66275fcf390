//! The passwords of Secrets, for the agent's next life: an agent that is replaced while the API server is away ends no session.
//!
//! They are in a file of the run folder, which is root's and in memory: where the kubelet has the Secrets that it mounts,
//! and as they do, they end with the machine's boot.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;
use zeroize::Zeroizing;

use types::api::BGP_PASSWORDS;
use types::{KnownPassword, PasswordSource, Passwords, ResourceName, SessionPassword};

/// What an earlier life of the agent knew, and where this one puts what it knows.
pub(crate) struct RememberedPasswords {
    /// The file.
    path: PathBuf,
    /// What was in it at the start.
    of_earlier_life: Passwords,
    /// Whether it may have what nobody needs any more.
    is_old: bool,
}

/// A password, as it is in the file.
#[derive(Serialize, Deserialize)]
struct Remembered {
    secret: ResourceName,
    key: String,
    octets: Zeroizing<Vec<u8>>,
}

impl RememberedPasswords {
    /// Reads what there is. A file that cannot be read is as good as none.
    pub(crate) fn load(run_dir: &Path) -> Self {
        let path = run_dir.join(BGP_PASSWORDS);
        let of_earlier_life = match fs::read(&path).map(Zeroizing::new) {
            Ok(text) => read(&text),
            Err(_) => Passwords::new(),
        };
        Self { path, of_earlier_life, is_old: true }
    }

    /// What was known before: what this life knows, and for the rest what an earlier one knew.
    pub(crate) fn before(&self, known: &Passwords, wanted: &BTreeSet<PasswordSource>) -> Passwords {
        let earlier = self.of_earlier_life.iter().filter(|(source, _)| wanted.contains(source));
        let mut before: Passwords = earlier.map(|(source, known)| (source.clone(), known.clone())).collect();
        before.extend(known.iter().map(|(source, known)| (source.clone(), known.clone())));
        before
    }

    /// Whether this is the first time that it is asked.
    pub(crate) fn begin(&mut self) -> bool {
        std::mem::take(&mut self.is_old)
    }

    /// Keeps these, and no others.
    pub(crate) fn keep(&self, known: &Passwords) {
        let written = match text(known) {
            None => match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
            Some(text) => write(&self.path, &text),
        };
        if let Err(error) = written {
            let path = self.path.display();
            warn!(%path, %error, "BGP passwords are not kept for the agent's next start, which has to ask the API server for them");
        }
    }
}

fn read(text: &[u8]) -> Passwords {
    let remembered: Vec<Remembered> = serde_json::from_slice(text).unwrap_or_default();
    let known = remembered.into_iter().filter_map(|Remembered { secret: name, key, octets }| {
        let password = SessionPassword::new(&octets).ok()?;
        Some((PasswordSource::Secret { name, key }, KnownPassword { password: Some(password), problem: None }))
    });
    known.collect()
}

/// What is in the file, where anything is. Files of the node are there at the next start as well.
fn text(known: &Passwords) -> Option<Zeroizing<Vec<u8>>> {
    let remembered = known.iter().filter_map(|(source, known)| match (source, &known.password) {
        (PasswordSource::Secret { name, key }, Some(password)) => Some(Remembered {
            secret: name.clone(),
            key: key.clone(),
            // A line's end, since one is not taken for a part of it when it is read.
            octets: Zeroizing::new([password.reveal(), b"\n"].concat()),
        }),
        _ => None,
    });
    let remembered: Vec<_> = remembered.collect();
    if remembered.is_empty() {
        return None;
    }
    serde_json::to_vec(&remembered).ok().map(Zeroizing::new)
}

/// In place of what is there, in one step, for root alone.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?.write_all(text)?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests;
