//! The requests: turns what Manx asks into requests to the API server, and its errors into Manx's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use kube::Client;
use kube::api::{DeleteParams, GetParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::core::{Request, Status as Answer};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use types::ResourceName;

use crate::access::client;
use crate::error::chain;
use crate::object::{Kind, Object};
use crate::{WatchConfig, WatchError};

/// So long an answer may take, the opening of a watch too: the API server waits up to 3 s for itself to become fresh enough.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Makes the requests of one watch.
#[derive(Clone)]
pub(crate) struct Calls {
    /// The settings.
    pub(crate) config: Arc<WatchConfig>,
    /// The API server's URL, for messages.
    server: String,
    /// The client; none while it has to be made anew from the files.
    client: Option<Client>,
    /// The one object that is asked for, in the agent's own namespace; none: all that the kind says.
    one: Option<ResourceName>,
}

/// A request failed.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The history, or the listing, that was to be continued is not kept any more (410 Gone); or what was to be changed is
    /// not what it was.
    Gone,
    /// The request has failed for any other reason.
    Failed(WatchError),
}

/// One page of a listing.
#[derive(Deserialize)]
#[serde(bound = "I: Deserialize<'de>")]
pub(crate) struct Page<I> {
    /// The metadata of the listing as a whole.
    pub(crate) metadata: PageMetadata,
    /// The objects of the page.
    items: Option<Vec<I>>,
}

/// An object as it is after a change.
#[derive(Deserialize)]
struct Patched {
    metadata: PageMetadata,
}

/// The part of a page's metadata that a listing needs.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PageMetadata {
    /// The state that all pages of the listing show.
    #[serde(default)]
    pub(crate) resource_version: String,
    /// Asks for the next page; empty: this is the last.
    #[serde(default, rename = "continue")]
    pub(crate) next: String,
}

impl<I> Page<I> {
    /// The objects of the page.
    pub(crate) fn items(self) -> impl Iterator<Item = I> {
        self.items.into_iter().flatten()
    }
}

impl Calls {
    /// Reads the settings' files, so that what is wrong with them is found at once.
    pub(crate) async fn new(config: Arc<WatchConfig>) -> Result<Self, WatchError> {
        let (client, server) = client(&config).await?;
        Ok(Self { config, server, client: Some(client), one: None })
    }

    /// The same, but for one object of the kind alone.
    pub(crate) fn of_one(self, name: ResourceName) -> Self {
        Self { one: Some(name), ..self }
    }

    /// A page of the listing of a kind; `next` is what the page before has named.
    ///
    /// The first page names no version, which asks for the newest there is ("Most Recent", a consistent read), never for
    /// what an API server that lags remembers: <https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list>.
    pub(crate) async fn page<K: Kind>(&mut self, next: Option<String>) -> Result<Page<Object<K>>, CallError> {
        let limit = self.config.page_size;
        self.list::<K, _>(limit, next).await
    }

    /// The version that a list of the kind would have now.
    pub(crate) async fn newest_version<K: Kind>(&mut self) -> Result<String, CallError> {
        let page: Page<IgnoredAny> = self.list::<K, _>(1, None).await?;
        Ok(page.metadata.resource_version)
    }

    /// Follows a kind from a version on, for at most `duration`.
    pub(crate) async fn watch<K: Kind>(
        &mut self,
        version: &str,
        duration: Duration,
    ) -> Result<impl Stream<Item = Result<WatchEvent<Object<K>>, kube::Error>> + Send + use<K>, CallError> {
        let seconds = u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1);
        let params = WatchParams {
            field_selector: self.fields::<K>(),
            label_selector: K::labels(),
            timeout: Some(seconds),
            bookmarks: true,
            ..WatchParams::default()
        };
        let client = self.client().await?;
        let request = self.requests::<K>(&client).watch(&params, version).map_err(|error| self.config_error(&error))?;
        match tokio::time::timeout(ANSWER_TIME, client.request_events(request)).await {
            Ok(Ok(events)) => Ok(events),
            Ok(Err(error)) => Err(self.error(error)),
            Err(_) => Err(self.unanswered()),
        }
    }

    async fn list<K: Kind, I: DeserializeOwned>(
        &mut self,
        limit: u32,
        next: Option<String>,
    ) -> Result<Page<I>, CallError> {
        let params = ListParams {
            field_selector: self.fields::<K>(),
            label_selector: K::labels(),
            limit: Some(limit),
            continue_token: next,
            ..ListParams::default()
        };
        let client = self.client().await?;
        let request = self.requests::<K>(&client).list(&params).map_err(|error| self.config_error(&error))?;
        let text = match tokio::time::timeout(ANSWER_TIME, client.request_text(request)).await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => return Err(self.error(error)),
            Err(_) => return Err(self.unanswered()),
        };
        let page: Page<I> = serde_json::from_str(&text).map_err(|error| self.malformed(&chain(&error)))?;
        if page.metadata.resource_version.is_empty() {
            return Err(self.malformed("a list without metadata.resourceVersion"));
        }
        Ok(page)
    }

    /// Changes the status of an object by a strategic merge patch. Where the object is gone (404) or not in the version that
    /// the patch names (409), that is [`CallError::Gone`].
    /// Gives the version that it is in then.
    pub(crate) async fn patch_status(&mut self, path: &str, name: &str, patch: &Value) -> Result<String, CallError> {
        let patch = Patch::Strategic(patch);
        let request = Request::new(path)
            .patch_subresource("status", name, &PatchParams::default(), &patch)
            .map_err(|error| self.config_error(&error))?;
        let text = self.ask(async |client| client.request_text(request).await).await?;
        let patched: Patched = serde_json::from_str(&text).map_err(|error| self.malformed(&chain(&error)))?;
        Ok(patched.metadata.resource_version)
    }

    /// An object; [`CallError::Gone`] where there is none of that name.
    pub(crate) async fn get(&mut self, path: &str, name: &str) -> Result<Value, CallError> {
        let request = Request::new(path).get(name, &GetParams::default()).map_err(|error| self.config_error(&error))?;
        let text = self.ask(async |client| client.request_text(request).await).await?;
        serde_json::from_str(&text).map_err(|error| self.malformed(&chain(&error)))
    }

    /// Whether any object of a collection has this label.
    pub(crate) async fn is_any_labelled(&mut self, path: &str, label: &str) -> Result<bool, CallError> {
        let params = ListParams::default().labels(label).limit(1);
        let request = Request::new(path).list(&params).map_err(|error| self.config_error(&error))?;
        let text = self.ask(async |client| client.request_text(request).await).await?;
        let page: Page<IgnoredAny> = serde_json::from_str(&text).map_err(|error| self.malformed(&chain(&error)))?;
        Ok(page.items().next().is_some())
    }

    /// Makes an object; [`CallError::Gone`] where there is one of that name (409).
    pub(crate) async fn create(&mut self, path: &str, object: &Value) -> Result<(), CallError> {
        let request = Request::new(path)
            .create(&PostParams::default(), object.to_string().into_bytes())
            .map_err(|error| self.config_error(&error))?;
        self.ask(async |client| client.request_text(request).await).await.map(drop)
    }

    /// Deletes an object; [`CallError::Gone`] where there is none of that name.
    pub(crate) async fn delete(&mut self, path: &str, name: &str) -> Result<(), CallError> {
        let request =
            Request::new(path).delete(name, &DeleteParams::default()).map_err(|error| self.config_error(&error))?;
        self.ask(async |client| client.request_text(request).await).await.map(drop)
    }

    /// Changes an object by a merge patch (RFC 7396); errors as for [`Calls::patch_status`].
    pub(crate) async fn patch(&mut self, path: &str, name: &str, patch: &Value) -> Result<(), CallError> {
        let request = Request::new(path)
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .map_err(|error| self.config_error(&error))?;
        self.ask(async |client| client.request_text(request).await).await.map(drop)
    }

    /// Sends a request about one object. Where that is gone (404) or not in the version that the request names (409), that
    /// is [`CallError::Gone`].
    async fn ask(
        &mut self,
        request: impl AsyncFnOnce(Client) -> Result<String, kube::Error>,
    ) -> Result<String, CallError> {
        let client = self.client().await?;
        match tokio::time::timeout(ANSWER_TIME, request(client)).await {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(kube::Error::Api(answer))) if matches!(answer.code, 404 | 409) || is_of_another(&answer) => {
                Err(CallError::Gone)
            }
            Ok(Err(error)) => Err(self.error(error)),
            Err(_) => Err(self.unanswered()),
        }
    }

    /// An object could not be read.
    pub(crate) fn not_read(&self, error: &serde_json::Error) -> WatchError {
        WatchError::Malformed { server: self.server.clone(), what: chain(error) }
    }

    fn fields<K: Kind>(&self) -> Option<String> {
        match &self.one {
            Some(name) => Some(format!("metadata.name={name}")),
            None => K::fields(self.config.node_name.as_str()),
        }
    }

    /// Requests for the objects of a kind. The one object is in the namespace of the credentials: of the service account, or
    /// of the kubeconfig's context.
    fn requests<K: Kind>(&self, client: &Client) -> Request {
        let path = K::path();
        match (&self.one, path.rsplit_once('/')) {
            (Some(_), Some((group, plural))) => {
                Request::new(format!("{group}/namespaces/{}/{plural}", client.default_namespace()))
            }
            _ => Request::new(path),
        }
    }

    async fn client(&mut self) -> Result<Client, WatchError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let (client, server) = client(&self.config).await?;
        self.server = server;
        Ok(self.client.insert(client).clone())
    }

    /// What a failed request, or a stream that broke, means.
    pub(crate) fn error(&mut self, error: kube::Error) -> CallError {
        match error {
            kube::Error::Api(answer) => self.refusal(&answer),
            kube::Error::SerdeError(error) => self.malformed(&chain(&error)),
            error => {
                // Among them are an address, a CA or a token that is out of date: the files are read again.
                self.reconnect();
                self.unavailable(chain(&error), None)
            }
        }
    }

    /// What the API server's word for a failure means; it comes as an answer, or as an event of a watch.
    pub(crate) fn refusal(&mut self, answer: &Answer) -> CallError {
        let what = format!("{} ({} {})", answer.message, answer.code, answer.reason);
        match answer.code {
            410 => CallError::Gone,
            401 | 403 => {
                // kube reads a token file again every minute; one that is refused is out of date now.
                self.reconnect();
                let unknown = answer.code == 401;
                CallError::Failed(WatchError::Refused { server: self.server.clone(), what, unknown })
            }
            _ => {
                let seconds = answer.details.as_ref().map_or(0, |details| details.retry_after_seconds);
                self.unavailable(what, (seconds > 0).then(|| Duration::from_secs(seconds.into())))
            }
        }
    }

    /// The next request goes over a new connection, with what the files say then.
    pub(crate) fn reconnect(&mut self) {
        self.client = None;
    }

    fn unanswered(&mut self) -> CallError {
        self.reconnect();
        self.unavailable("no answer".to_owned(), None)
    }

    pub(crate) fn malformed(&self, what: &str) -> CallError {
        CallError::Failed(WatchError::Malformed { server: self.server.clone(), what: what.to_owned() })
    }

    pub(crate) fn unavailable(&self, what: String, retry_after: Option<Duration>) -> CallError {
        CallError::Failed(WatchError::Unavailable { server: self.server.clone(), what, retry_after })
    }

    /// The request itself cannot be written: a name in it.
    fn config_error(&self, error: &kube::core::request::Error) -> CallError {
        CallError::Failed(WatchError::Config { key: self.config.node_name.to_string(), what: chain(error) })
    }
}

/// Whether a patch names the UID of an earlier object of the name: the API server calls that an attempt to change the UID (422).
fn is_of_another(answer: &Answer) -> bool {
    answer.code == 422 && answer.message.contains("metadata.uid")
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("config", &self.config).field("server", &self.server).finish_non_exhaustive()
    }
}

impl From<WatchError> for CallError {
    fn from(error: WatchError) -> Self {
        Self::Failed(error)
    }
}
