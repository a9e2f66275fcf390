use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;

use super::*;

const TEST_TIME_LIMIT: Duration = Duration::from_secs(20);

fn shell<'a>(arguments: &'a [&'a str], input: &'a str) -> Program<'a> {
    Program { name: "sh", arguments, input, path: None }
}

#[test]
fn a_program_reads_its_input_and_says_what_it_has_to_say() {
    // More than a pipe holds, both ways at once.
    let input = "0123456789abcdef\n".repeat(100_000);
    let ended = shell(&["-c", "cat; echo done >&2; exit 3"], &input).run(TEST_TIME_LIMIT, |_| {}).unwrap();
    assert_eq!(ended.code, Some(3));
    assert_eq!(ended.output, input.as_bytes());
    assert_eq!(ended.errors, b"done\n");
}

#[test]
fn a_program_that_does_not_read_its_input_is_judged_by_its_exit() {
    let input = "x".repeat(1_000_000);
    let ended = shell(&["-c", "exec <&-; exit 0"], &input).run(TEST_TIME_LIMIT, |_| {}).unwrap();
    assert_eq!(ended.code, Some(0));
}

#[test]
fn a_program_that_hangs_is_ended_with_what_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("alive");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut alive = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&fifo).unwrap();
    let script = format!("exec 9>{}; sleep 60 & echo begun; sleep 60", fifo.display());
    let ended = shell(&["-c", &script], "").run(Duration::from_secs(1), |_| {}).unwrap();
    assert_eq!(ended.code, None);
    assert_eq!(ended.output, b"begun\n");
    // Its end comes when the last process that could write into it is gone.
    fcntl(&alive, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    assert_eq!(alive.read(&mut [0]).unwrap(), 0);
}

#[test]
fn what_a_program_leaves_in_the_background_does_not_hold_up_its_answer() {
    let ended = shell(&["-c", "sleep 5 & echo $!"], "").run(Duration::from_secs(4), |_| {}).unwrap();
    assert_eq!(ended.code, Some(0));
    let background: i32 = String::from_utf8(ended.output).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(Pid::from_raw(background), Signal::SIGKILL).unwrap();
}

#[test]
fn programs_are_looked_up_where_they_are_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = Program { path: Some(folder.path().as_os_str()), ..shell(&["-c", "exit 0"], "") };
    assert_eq!(nowhere.run(TEST_TIME_LIMIT, |_| {}).unwrap_err().kind(), io::ErrorKind::NotFound);
}
