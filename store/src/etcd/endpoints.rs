//! The members of the cluster: which one to ask, and why none answers.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, Error as EtcdError};
use tokio::sync::OnceCell;

use super::config::EtcdConfig;
use crate::StoreError;

/// gRPC status codes (<https://grpc.io/docs/guides/status-codes/>).
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// The members. One answers until it fails; then the next is asked.
pub(super) struct Endpoints {
    /// The members, in the order of the configuration.
    members: Vec<Member>,
    /// The index of the member that answered last.
    current: AtomicUsize,
    /// Whether the last request to `current` was answered.
    healthy: AtomicBool,
    /// Name and password, where authentication is on.
    user: Option<(String, String)>,
    /// How long one request to one member may take.
    timeout: Duration,
}

struct Member {
    url: String,
    /// Connects at the first request, and again after failures.
    client: Client,
    /// Set once the user was let in; the client then renews its token by itself.
    authenticated: OnceCell<()>,
}

/// A request failed, seen from the caller's side.
#[derive(Debug)]
pub(super) enum CallError {
    /// The request failed in a way that the store's error describes.
    Store(StoreError),
    /// What was asked for by its id is not there (a lease).
    NotFound,
    /// The revision that was asked for has been compacted.
    Compacted,
    /// The answer is larger than a message may be.
    TooLarge(StoreError),
}

impl Endpoints {
    pub(super) async fn new(config: &EtcdConfig) -> Result<Self, StoreError> {
        let (urls, user, options) = (config.urls(), config.user(), config.options()?);
        let mut members = Vec::with_capacity(urls.len());
        for url in urls {
            // Without a user this sends nothing.
            let client = Client::connect([&url], Some(options.clone())).await.map_err(|error| {
                match (&error, config.tls_files()) {
                    (EtcdError::TransportError(_), Some(files)) => {
                        StoreError::Config { key: files, what: describe(&error) }
                    }
                    _ => StoreError::Config {
                        key: "etcd.endpoints".to_owned(),
                        what: format!("{url}: {}", describe(&error)),
                    },
                }
            })?;
            members.push(Member { url, client, authenticated: OnceCell::new() });
        }
        Ok(Self {
            members,
            current: AtomicUsize::new(0),
            healthy: AtomicBool::new(false),
            user,
            timeout: config.timeout,
        })
    }

    /// Makes a request that may be repeated without harm: asks each member in turn until one answers.
    pub(super) async fn repeatable<T, F>(&self, request: impl Fn(Client) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let first = self.current.load(Ordering::Relaxed);
        let mut reasons = Vec::new();
        for index in (first..first + self.members.len()).map(|index| index % self.members.len()) {
            let Some(member) = self.members.get(index) else { continue };
            match self.ask(member, &request).await {
                Err(Failure::Silent(reason)) => reasons.push((member, reason)),
                answered => {
                    self.current.store(index, Ordering::Relaxed);
                    self.healthy.store(true, Ordering::Relaxed);
                    return answered.map_err(|failure| self.call_error(failure));
                }
            }
        }
        self.healthy.store(false, Ordering::Relaxed);
        Err(self.unavailable(&reasons).into())
    }

    /// Makes a request that must not be repeated, to a member that is known to answer: after a failure, `probe` finds one.
    pub(super) async fn once<T, F>(
        &self,
        probe: impl Future<Output = Result<(), CallError>>,
        request: impl Fn(Client) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        if !self.healthy.load(Ordering::Relaxed) {
            probe.await?;
        }
        let index = self.current.load(Ordering::Relaxed);
        let Some(member) = self.members.get(index) else {
            return Err(self.unavailable(&[]).into());
        };
        match self.ask(member, &request).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Silent(reason)) => {
                self.healthy.store(false, Ordering::Relaxed);
                self.current.store((index + 1) % self.members.len(), Ordering::Relaxed);
                Err(self.unavailable(&[(member, reason)]).into())
            }
            Err(failure) => Err(self.call_error(failure)),
        }
    }

    /// All endpoints, for errors.
    pub(super) fn names(&self) -> String {
        let urls: Vec<&str> = self.members.iter().map(|member| member.url.as_str()).collect();
        format!("etcd at {}", urls.join(", "))
    }

    /// What etcd says of a watch that it refuses.
    pub(super) fn refused(&self, what: &str) -> StoreError {
        let user = self
            .user
            .as_ref()
            .map_or_else(|| "this client (no etcd.username is set)".to_owned(), |(name, _)| format!("user {name:?}"));
        StoreError::Refused { endpoints: self.names(), user, what: what.to_owned() }
    }

    /// Something that is no answer came from the current member.
    pub(super) fn broken(&self, what: &str) -> StoreError {
        StoreError::Unavailable { endpoints: self.names(), what: what.to_owned() }
    }

    /// Lets the user in again; etcd forgets tokens when it restarts, and a refused watch is not retried by the client.
    pub(super) async fn renew_tokens(&self) {
        if self.user.is_some() {
            for member in &self.members {
                // A member that is away is logged in to with its next request.
                let _ = tokio::time::timeout(self.timeout, member.client.refresh_token()).await;
            }
        }
    }

    async fn ask<T, F>(&self, member: &Member, request: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, EtcdError>>,
    {
        let call = async {
            if let Some(user) = &self.user {
                let login = || async { member.client.clone().update_user(Some(user.clone())).await };
                member.authenticated.get_or_try_init(login).await.map_err(classify_login)?;
            }
            request(member.client.clone()).await.map_err(classify)
        };
        tokio::time::timeout(self.timeout, call)
            .await
            .unwrap_or_else(|_| Err(Failure::Silent(format!("no answer within {:?}", self.timeout))))
    }

    fn call_error(&self, failure: Failure) -> CallError {
        match failure {
            Failure::Silent(reason) => self.broken(&reason).into(),
            Failure::Refused(what) => self.refused(&what).into(),
            Failure::Invalid(what) => StoreError::Invalid(what).into(),
            Failure::NotFound => CallError::NotFound,
            Failure::Compacted => CallError::Compacted,
            Failure::TooLarge(what) => CallError::TooLarge(self.broken(&what)),
        }
    }

    fn unavailable(&self, reasons: &[(&Member, String)]) -> StoreError {
        let what = match reasons {
            [(_, reason)] if self.members.len() == 1 => reason.clone(),
            several => {
                let reason = |(member, reason): &(&Member, String)| format!("{}: {reason}", member.url);
                several.iter().map(reason).collect::<Vec<_>>().join("; ")
            }
        };
        StoreError::Unavailable { endpoints: self.names(), what }
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names())
    }
}

impl From<StoreError> for CallError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<CallError> for StoreError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Store(error) | CallError::TooLarge(error) => error,
            CallError::NotFound => Self::Invalid("not found".to_owned()),
            CallError::Compacted => Self::Invalid("the revision is compacted".to_owned()),
        }
    }
}

/// What a member's answer, or silence, means.
enum Failure {
    /// No answer, or one that says that this member cannot work: another may.
    Silent(String),
    /// etcd does not let our user do this.
    Refused(String),
    /// The request is wrong.
    Invalid(String),
    NotFound,
    Compacted,
    TooLarge(String),
}

fn classify(error: EtcdError) -> Failure {
    let what = describe(&error);
    let EtcdError::GRpcStatus(status) = error else {
        return match error {
            EtcdError::InvalidArgs(_) | EtcdError::InvalidUri(_) => Failure::Invalid(what),
            _ => Failure::Silent(what),
        };
    };
    match i32::from(status.code()) {
        code::PERMISSION_DENIED | code::UNAUTHENTICATED => Failure::Refused(what),
        // etcd answers this to a request without a token ("user name is empty"), and to one with a token from before the
        // last change of users and roles.
        code::INVALID_ARGUMENT if what.contains("user name is empty") || what.contains("auth store") => {
            Failure::Refused(what)
        }
        code::INVALID_ARGUMENT => Failure::Invalid(what),
        code::NOT_FOUND => Failure::NotFound,
        // The client library gives its own limit on messages the code that etcd gives to compacted revisions.
        code::OUT_OF_RANGE if what.contains("compacted") => Failure::Compacted,
        code::OUT_OF_RANGE => Failure::TooLarge(what),
        _ => Failure::Silent(what),
    }
}

/// A login that is answered with anything but success is refused, whatever code etcd gives it.
fn classify_login(error: EtcdError) -> Failure {
    let what = describe(&error);
    match error {
        EtcdError::GRpcStatus(status)
            if matches!(
                i32::from(status.code()),
                code::INVALID_ARGUMENT | code::PERMISSION_DENIED | code::UNAUTHENTICATED | code::FAILED_PRECONDITION
            ) =>
        {
            Failure::Refused(what)
        }
        _ => Failure::Silent(what),
    }
}

/// The error with its causes, each once, outermost first: a TLS failure hides behind "transport error".
fn describe(error: &EtcdError) -> String {
    let (first, mut cause) = match error {
        EtcdError::GRpcStatus(status) => (status.message().to_owned(), status.source()),
        EtcdError::TransportError(error) => (error.to_string(), error.source()),
        other => (other.to_string(), other.source()),
    };
    let mut texts = vec![first];
    while let Some(error) = cause {
        let text = error.to_string();
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        cause = error.source();
    }
    texts.retain(|text| !text.is_empty());
    let text = texts.join(": ");
    // What rustls calls them; it says both times, in seconds since 1970.
    let is_of_time = ["certificate expired", "certificate not valid yet"].iter().any(|said| text.contains(said));
    if is_of_time { format!("{text}; is this machine's clock right?") } else { text }
}
