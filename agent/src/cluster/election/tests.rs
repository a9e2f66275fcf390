use std::time::UNIX_EPOCH;

use kube_watch::{Failure, Resource};
use store::Memory;

use super::*;

struct Candidate {
    elected: watch::Receiver<bool>,
    cancel: CancellationToken,
}

fn candidate(store: &Memory, instance: &str) -> Candidate {
    candidate_with(store, instance, None)
}

fn candidate_with(store: &Memory, instance: &str, watches: Option<watch::Receiver<Status>>) -> Candidate {
    let node = format!("node-{instance}").parse().unwrap();
    let election = Election::new(Arc::new(store.clone()), node, instance.to_owned(), watches);
    let (elected, cancel) = (election.is_elected(), CancellationToken::new());
    tokio::spawn(election.stand(cancel.clone()));
    Candidate { elected, cancel }
}

async fn comes(elected: &mut watch::Receiver<bool>, wanted: bool) {
    tokio::time::timeout(Duration::from_secs(60), elected.wait_for(|is| *is == wanted)).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_is_elected_and_another_when_it_has_gone() {
    let store = Memory::new();
    let mut one = candidate(&store, "a");
    comes(&mut one.elected, true).await;
    let mut two = candidate(&store, "b");
    tokio::time::sleep(LEASE * 3).await;
    assert!(*one.elected.borrow() && !*two.elected.borrow());
    one.cancel.cancel();
    comes(&mut one.elected, false).await;
    store.expire_all();
    comes(&mut two.elected, true).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_instance_is_elected_again_at_once() {
    let store = Memory::new();
    let mut one = candidate(&store, "a");
    comes(&mut one.elected, true).await;
    let two = candidate(&store, "b");
    one.cancel.cancel();
    comes(&mut one.elected, false).await;
    let mut again = candidate(&store, "a");
    comes(&mut again.elected, true).await;
    assert!(!*two.elected.borrow());
}

#[tokio::test(start_paused = true)]
async fn whoever_loses_its_session_stands_again() {
    let store = Memory::new();
    let mut one = candidate(&store, "a");
    comes(&mut one.elected, true).await;
    let mut changes = one.elected.clone();
    changes.borrow_and_update();
    store.expire_all();
    changes.changed().await.unwrap();
    comes(&mut one.elected, true).await;
}

#[tokio::test(start_paused = true)]
async fn who_loses_the_key_is_not_elected_any_more() {
    let store = Memory::new();
    let mut one = candidate(&store, "a");
    comes(&mut one.elected, true).await;
    let other = Holder { node: "node-z".parse().unwrap(), instance: "z".to_owned() };
    let write = Write::put(keys::elected_holder(), store::encode(&other));
    store.transact(Vec::new(), vec![write]).await.unwrap();
    comes(&mut one.elected, false).await;
    store.transact(Vec::new(), vec![Write::delete(keys::elected_holder())]).await.unwrap();
    comes(&mut one.elected, true).await;
}
/// Watches of an API server: one that has heard nothing to the contrary yet, and one that fares like this.
fn faring(error: Option<WatchError>) -> Status {
    let mut nodes = WatchStatus::default();
    nodes.connected_since = Some(UNIX_EPOCH);
    let mut services = WatchStatus::default();
    services.connected_since = error.is_none().then_some(UNIX_EPOCH);
    services.last_failure = error.map(|error| Failure { at: UNIX_EPOCH, error });
    Status { watches: [(Resource::Nodes, nodes), (Resource::Services, services)].into() }
}

fn watches(reached: bool) -> Status {
    let (server, what) = ("https://k8s".to_owned(), "refused".to_owned());
    faring((!reached).then_some(WatchError::Unavailable { server, what, retry_after: None }))
}

#[test]
fn an_api_server_is_reached_that_is_followed_or_refuses_and_is_not_before_anything_was_heard() {
    let refused = |unknown| {
        let (server, what) = ("https://k8s".to_owned(), "no".to_owned());
        is_reached(&faring(Some(WatchError::Refused { server, what, unknown })))
    };
    assert!(is_reached(&watches(true)) && !is_reached(&watches(false)));
    assert!(refused(false) && !refused(true));
    let unheard = [(Resource::Nodes, WatchStatus::default())].into();
    assert!(!is_reached(&Status { watches: unheard }));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_reach_the_api_server_gives_the_office_up_and_stands_again_when_it_does() {
    let store = Memory::new();
    let (ones, of_one) = watch::channel(watches(true));
    let (twos, of_two) = watch::channel(watches(false));
    let mut one = candidate_with(&store, "a", Some(of_one));
    comes(&mut one.elected, true).await;
    let mut two = candidate_with(&store, "b", Some(of_two));

    // Not for a short break, and not to somebody who is no better off.
    ones.send_replace(watches(false));
    tokio::time::sleep(API_SERVER_GRACE - Duration::from_secs(1)).await;
    ones.send_replace(watches(true));
    tokio::time::sleep(API_SERVER_GRACE * 2).await;
    assert!(*one.elected.borrow() && !*two.elected.borrow());
    ones.send_replace(watches(false));
    tokio::time::sleep(API_SERVER_GRACE + Duration::from_secs(1)).await;
    assert!(!*one.elected.borrow() && !*two.elected.borrow());
    assert_eq!(store.get(&keys::elected_holder()).await.unwrap(), None, "the office is free at once");

    twos.send_replace(watches(true));
    comes(&mut two.elected, true).await;
    ones.send_replace(watches(true));
    tokio::time::sleep(API_SERVER_GRACE * 2).await;
    assert!(*two.elected.borrow() && !*one.elected.borrow());
    twos.send_replace(watches(false));
    comes(&mut one.elected, true).await;
    assert!(!*two.elected.borrow());
}
