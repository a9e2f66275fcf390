use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{Ended, Mailbox, Next, queue};

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

fn number(next: Next<Command>) -> Option<u32> {
    match next {
        Next::Command(Command::Add(number)) => Some(number),
        _ => None,
    }
}

#[tokio::test]
async fn a_thread_takes_commands_in_their_order_is_idle_between_and_sees_the_last_handle_go() {
    let (mailbox, inbox) = queue(2);
    assert!(matches!(inbox.next(Some(Duration::ZERO)), Next::Idle));
    assert!(mailbox.tell(Command::Add(1)).await.is_ok());
    assert!(mailbox.clone().tell(Command::Add(2)).await.is_ok());
    drop(mailbox);
    assert_eq!(number(inbox.next(None)), Some(1));
    assert!(matches!(inbox.waiting(), Some(Command::Add(2))));
    assert!(inbox.waiting().is_none());
    assert!(matches!(inbox.next(None), Next::Closed));
}

#[tokio::test]
async fn who_finds_a_queue_full_waits_for_a_place_and_hands_nothing_over_if_it_gives_up() {
    let (mailbox, inbox) = queue(1);
    assert!(mailbox.tell(Command::Add(1)).await.is_ok());
    let given_up = tokio::time::timeout(Duration::from_millis(1), mailbox.tell(Command::Add(2))).await;
    assert!(given_up.is_err(), "there was a place");
    let waiting = mailbox.tell(Command::Add(3));
    let (told, taken) = tokio::join!(waiting, async { number(inbox.next(None)) });
    assert_eq!((told, taken), (Ok(()), Some(1)));
    assert_eq!(number(inbox.next(None)), Some(3));
}

#[tokio::test]
async fn a_thread_that_has_ended_is_an_error_for_those_who_wait_for_it_too() {
    let (mailbox, inbox) = queue(1);
    let asking = mailbox.ask(Command::Sum);
    let waiting = mailbox.tell(Command::Add(1));
    let (answer, told, ()) = tokio::join!(asking, waiting, async { drop(inbox) });
    assert_eq!((answer, told), (Err(Ended), Err(Ended)));
    assert_eq!(mailbox.tell(Command::Add(1)).await, Err(Ended));
}

#[tokio::test]
async fn a_thread_answers_questions() {
    let (mailbox, inbox) = queue(4);
    let owner = std::thread::spawn(move || {
        let mut sum = 0;
        loop {
            match inbox.next(None) {
                Next::Command(Command::Add(number)) => sum += number,
                Next::Command(Command::Sum(reply)) => drop(reply.send(sum)),
                Next::Idle => {}
                Next::Closed => return,
            }
        }
    });
    for number in 1..=4 {
        assert!(mailbox.tell(Command::Add(number)).await.is_ok());
    }
    assert_eq!(mailbox.ask(Command::Sum).await, Ok(10));
    drop(mailbox);
    assert!(owner.join().is_ok());
}
