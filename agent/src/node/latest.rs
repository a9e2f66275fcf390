//! The latest value of something, for all who follow it.

use tokio::sync::watch;

/// Tells what is so now, unless it was told before; gives whether it was news.
pub(crate) fn tell<T: PartialEq>(to: &watch::Sender<T>, now: T) -> bool {
    to.send_if_modified(|known| {
        let is_news = *known != now;
        *known = now;
        is_news
    })
}
