use std::time::Instant;

use tokio::sync::mpsc;

use super::{ENOUGH, Outbox, PER_BATCH, STUCK};

#[tokio::test]
async fn it_is_clogged_while_much_waits_for_a_task_that_takes_some() {
    let (sender, mut batches) = mpsc::channel(1);
    let mut outbox = Outbox::new(sender);
    (0..ENOUGH - 1).for_each(|value| outbox.push(value));
    assert!(outbox.clogged_until(Instant::now()).is_none());
    (0..PER_BATCH).for_each(|value| outbox.push(value));
    assert!(outbox.clogged_until(Instant::now()).is_some());
    outbox.flush().await;
    assert!(outbox.clogged_until(Instant::now()).is_none(), "it is short again");
    assert_eq!(batches.recv().await.map(|batch| batch.len()), Some(PER_BATCH));
}

#[tokio::test]
async fn nobody_waits_for_a_task_that_is_stuck() {
    let (sender, _batches) = mpsc::channel(1);
    let mut outbox = Outbox::new(sender);
    (0..ENOUGH).for_each(|value| outbox.push(value));
    let now = Instant::now();
    assert!(outbox.clogged_until(now).is_some() && outbox.clogged_until(now + STUCK).is_none());
}
