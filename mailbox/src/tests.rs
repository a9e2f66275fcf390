use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::{Ended, Mailbox};

enum Command {
    Add(u32),
    Sum(oneshot::Sender<u32>),
}

async fn own(mut commands: mpsc::Receiver<Command>) {
    let mut sum = 0;
    while let Some(command) = commands.recv().await {
        match command {
            Command::Add(number) => sum += number,
            Command::Sum(reply) => drop(reply.send(sum)),
        }
    }
}

#[tokio::test]
async fn an_answer_follows_from_all_that_was_told_before() {
    let (commands, requests) = mpsc::channel(1);
    let mailbox = Mailbox::new(commands);
    let asking = async {
        for number in 1..=4 {
            mailbox.clone().tell(Command::Add(number)).await?;
        }
        mailbox.ask(Command::Sum).await
    };
    tokio::select! {
        () = own(requests) => panic!("the owner has ended"),
        sum = asking => assert_eq!(sum, Ok(10)),
    }
}

#[tokio::test]
async fn an_owner_that_has_ended_is_an_error_of_its_own() {
    let (commands, requests) = mpsc::channel(1);
    let mailbox = Mailbox::new(commands);
    drop(requests);
    assert_eq!(mailbox.tell(Command::Add(1)).await, Err(Ended));
    assert_eq!(mailbox.ask(Command::Sum).await, Err(Ended));
}

#[tokio::test]
async fn a_question_that_is_dropped_is_not_waited_for() {
    let (commands, mut requests) = mpsc::channel(1);
    let mailbox = Mailbox::new(commands);
    let (answer, ()) = tokio::join!(mailbox.ask(Command::Sum), async { drop(requests.recv().await) });
    assert_eq!(answer, Err(Ended));
}

#[tokio::test]
async fn the_owner_is_woken_after_each_command_and_when_the_last_handle_is_gone() {
    let (commands, mut requests) = mpsc::channel(4);
    let woken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&woken);
    let mailbox = Mailbox::waking(commands, move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let other = mailbox.clone();
    assert!(mailbox.tell(Command::Add(1)).await.is_ok());
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    drop(mailbox);
    assert_eq!(woken.load(Ordering::Relaxed), 1, "another handle is left");
    drop(other);
    assert_eq!(woken.load(Ordering::Relaxed), 2);
    assert!(requests.recv().await.is_some());
    assert!(requests.recv().await.is_none(), "an owner that is woken at last sees that nobody is left");
}
