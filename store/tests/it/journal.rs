//! The journal: what it said is committed is there, whatever happens to the process.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use futures::future::join_all;
use store::{Journal, JournalError, JournalWrite, Row, RowKind};

/// Set in the child of [`commits_that_were_acknowledged_survive_sigkill`]: the journal to write to.
const CHILD: &str = "MANX_TEST_JOURNAL";

#[tokio::test]
async fn writes_are_applied_in_order_and_read_back_by_table_and_key() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("journal.db");
    let journal = Journal::open(&file).unwrap();
    let writes = vec![
        JournalWrite::put(RowKind::Endpoint, "b", b"1".to_vec()),
        JournalWrite::put(RowKind::Endpoint, "a", b"2".to_vec()),
        JournalWrite::put(RowKind::Endpoint, "b", b"3".to_vec()),
        JournalWrite::put(RowKind::Block, "10.0.0.0/26", vec![]),
        JournalWrite::put(RowKind::Meta, "boot", b"x".to_vec()),
    ];
    journal.commit(writes).await.unwrap();
    journal
        .commit(vec![JournalWrite::Clear(RowKind::Meta), JournalWrite::delete(RowKind::CoolDown, "no")])
        .await
        .unwrap();
    let rows = vec![
        Row { kind: RowKind::Block, key: "10.0.0.0/26".to_owned(), value: vec![] },
        Row { kind: RowKind::Endpoint, key: "a".to_owned(), value: b"2".to_vec() },
        Row { kind: RowKind::Endpoint, key: "b".to_owned(), value: b"3".to_vec() },
    ];
    assert_eq!(journal.load().await.unwrap(), rows);
    assert_eq!(journal.value(RowKind::Endpoint, "b").await.unwrap(), Some(b"3".to_vec()));
    assert_eq!(journal.value(RowKind::Block, "b").await.unwrap(), None);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    journal.close().await;
    assert_eq!(journal.commit(vec![]).await, Err(JournalError::Closed { path: file.clone() }));
    assert_eq!(Journal::open(&file).unwrap().load().await.unwrap(), rows);
}

#[tokio::test]
async fn of_many_commits_that_come_together_none_is_lost() {
    let scratch = tempfile::tempdir().unwrap();
    let journal = Journal::open(scratch.path().join("journal.db")).unwrap();
    let commits = (0..2000).map(|number| journal.commit(vec![put(number)]));
    assert!(join_all(commits).await.iter().all(Result::is_ok));
    assert_eq!(journal.load().await.unwrap().len(), 2000);
}

#[tokio::test]
async fn the_log_does_not_grow_without_bounds_under_load_and_is_folded_in_when_idle() {
    let scratch = tempfile::tempdir().unwrap();
    let journal = Journal::open(scratch.path().join("journal.db")).unwrap();
    let log = || std::fs::metadata(scratch.path().join("journal.db-wal")).unwrap().len();
    for number in 0..60_u32 {
        journal.commit(vec![JournalWrite::put(RowKind::Endpoint, name(number % 2), vec![0; 1 << 20])]).await.unwrap();
        assert!(log() < 16 << 20, "{} bytes after {number} commits", log());
    }
    journal.commit(vec![put(0)]).await.unwrap();
    while log() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(journal.load().await.unwrap().len(), 2);
}

#[tokio::test]
async fn commits_that_were_acknowledged_survive_sigkill() {
    if let Some(path) = std::env::var_os(CHILD) {
        return commit_and_say_so(Path::new(&path)).await;
    }
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("journal.db");
    let mut acknowledged = 0;
    for round in 1..=3_u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "journal::commits_that_were_acknowledged_survive_sigkill", "--nocapture"])
            .env(CHILD, &file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers = lines.by_ref().filter_map(|line| line.unwrap().strip_prefix("committed ")?.parse::<u32>().ok());
        // Killed at another moment each round, while it commits.
        let reached = numbers.take(300 * round as usize + 17).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        // What it wrote to the pipe before it died counts too.
        let late = lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("committed ")?.parse::<u32>().ok());
        acknowledged = late.last().unwrap_or(reached);

        let journal = Journal::open(&file).unwrap();
        let rows = journal.load().await.unwrap();
        journal.close().await;
        for number in 0..=acknowledged {
            assert!(rows.iter().any(|row| row.key == name(number)), "commit {number} of {acknowledged} is lost");
        }
    }
    assert!(acknowledged > 300);
}

/// The child: goes on from where the last one was killed.
async fn commit_and_say_so(path: &Path) {
    let journal = Journal::open(path).unwrap();
    let first = u32::try_from(journal.load().await.unwrap().len()).unwrap();
    let mut out = std::io::stdout();
    for number in first.. {
        journal.commit(vec![put(number)]).await.unwrap();
        writeln!(out, "committed {number}").unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_fails_the_commit_by_name_and_keeps_what_was_there() {
    let Some(disk) = SmallDisk::mount() else {
        tests::say_skipped(&"a full disk is a small tmpfs, which only root can mount");
        return;
    };
    let file = disk.0.path().join("journal.db");
    let journal = Journal::open(&file).unwrap();
    journal.commit(vec![put(0)]).await.unwrap();
    std::fs::write(disk.0.path().join("ballast"), vec![0; 64 << 20]).unwrap_err();
    let mut committed = 1;
    let error = loop {
        let large = JournalWrite::put(RowKind::Endpoint, name(committed), vec![0; 4096]);
        match journal.commit(vec![large]).await {
            Ok(()) => committed += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error, JournalError::Full { path: file.clone() });
    assert_eq!(error.to_string(), format!("{}: no space left", file.display()));
    assert!(error.is_disk());
    assert_eq!(journal.load().await.unwrap().len(), committed as usize);

    std::fs::remove_file(disk.0.path().join("ballast")).unwrap();
    journal.commit(vec![put(committed)]).await.unwrap();
    assert_eq!(journal.load().await.unwrap().len(), committed as usize + 1);
    journal.close().await;
}

#[tokio::test]
async fn a_journal_of_a_newer_layout_or_a_damaged_one_is_refused_by_name() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("journal.db");
    rusqlite::Connection::open(&file).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let error = Journal::open(&file).unwrap_err();
    let text = format!("{}: layout 7 is newer than 1, which is what this build knows", file.display());
    assert_eq!(error.to_string(), text);

    std::fs::write(&file, vec![b'x'; 8192]).unwrap();
    assert!(matches!(Journal::open(&file).unwrap_err(), JournalError::Damaged { .. }));
    let error = Journal::open(scratch.path().join("no/such/journal.db")).unwrap_err();
    assert!(error.is_disk() && error.to_string().contains("no/such/journal.db"), "{error}");
}

fn put(number: u32) -> JournalWrite {
    JournalWrite::put(RowKind::Endpoint, name(number), b"{}".to_vec())
}

fn name(number: u32) -> String {
    format!("{number:08}")
}

/// A file system of 1 MiB, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let scratch = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(scratch.path()).status();
        mount.is_ok_and(|status| status.success()).then_some(Self(scratch))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}
