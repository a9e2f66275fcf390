//! The latest value of something, for all who follow it.

use tokio::sync::watch;

/// The next change of what may not be there: it never comes where it is not.
pub(crate) async fn changed<T>(of: &mut Option<watch::Receiver<T>>) -> Result<(), watch::error::RecvError> {
    match of {
        Some(of) => of.changed().await,
        None => std::future::pending().await,
    }
}

/// Tells what is so now, unless it was told before; gives whether it was news.
pub(crate) fn tell<T: PartialEq>(to: &watch::Sender<T>, now: T) -> bool {
    to.send_if_modified(|known| {
        let is_news = *known != now;
        *known = now;
        is_news
    })
}
