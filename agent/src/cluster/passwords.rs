//! What is known of the passwords of BGP sessions (pure). The task around it is in `passwords_task`.

use std::collections::BTreeSet;

use kube_watch::Secret;
use types::update::Mirror;
use types::{KnownPassword, PasswordSource, Passwords, SessionPassword, Update};

/// A Secret of Kubernetes, as it is followed: itself or nothing.
#[derive(Debug, Default)]
pub(crate) struct FollowedSecret {
    /// What was said of it, by its name.
    said: Mirror<String, Secret>,
}

impl FollowedSecret {
    /// Takes a report in.
    pub(crate) fn apply(&mut self, update: Update<String, Secret>) {
        self.said.apply(update);
    }

    /// The password under a key; none before anything is known of the Secret. The error is for people.
    pub(crate) fn password(&self, key: &str) -> Option<Result<SessionPassword, String>> {
        if !self.said.is_known() {
            return None;
        }
        let Some(secret) = self.said.entries().values().next() else {
            return Some(Err("there is no such Secret in the agent's namespace".to_owned()));
        };
        let found = secret.get(key).ok_or_else(|| "the Secret has no such key".to_owned());
        Some(found.and_then(|password| password.clone().map_err(|error| error.to_string())))
    }
}

/// What is known of the passwords that are wanted, after what was known, when `read` gives what is there now; it gives none
/// where it has not heard yet. The last password stays known where it cannot be read any more.
pub(crate) fn known(
    former: &Passwords,
    wanted: &BTreeSet<PasswordSource>,
    read: impl Fn(&PasswordSource) -> Option<Result<SessionPassword, String>>,
) -> Passwords {
    let known = |source: &PasswordSource| {
        let before = former.get(source);
        match read(source) {
            None => before.cloned(),
            Some(Ok(password)) => Some(KnownPassword { password: Some(password), problem: None }),
            Some(Err(problem)) => {
                let password = before.and_then(|before| before.password.clone());
                Some(KnownPassword { password, problem: Some(problem) })
            }
        }
    };
    wanted.iter().filter_map(|source| Some((source.clone(), known(source)?))).collect()
}

/// What is to be told of what has changed, in words: what is wrong, and what is in order. No password is among them.
pub(crate) fn news(before: &Passwords, now: &Passwords) -> Vec<Result<String, String>> {
    let mut news = Vec::new();
    for (source, known) in now {
        let former = before.get(source);
        match &known.problem {
            Some(problem) if former.and_then(|former| former.problem.as_ref()) != Some(problem) => {
                let stays = if known.password.is_some() { "; the last one stays in use" } else { "" };
                news.push(Err(format!("{source}: {problem}{stays}")));
            }
            None if former.is_some_and(|former| former.problem.is_some() || former.password != known.password) => {
                news.push(Ok(format!("{source}: a new password takes effect")));
            }
            _ => {}
        }
    }
    news
}

/// What is wrong with passwords, for people.
pub(crate) fn problems(known: &Passwords) -> Vec<String> {
    let problem = |(source, known): (&PasswordSource, &KnownPassword)| {
        let stays = if known.password.is_some() { "sessions go on with the last one" } else { "sessions wait for it" };
        known.problem.as_ref().map(|problem| format!("BGP password, {source}: {problem}; {stays}"))
    };
    known.iter().filter_map(problem).collect()
}

#[cfg(test)]
mod tests;
