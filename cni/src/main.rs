//! `manx`, the CNI plugin. All of it is in the library.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    let stdin = io::stdin();
    // A person who tries the binary has no configuration to type.
    let nothing = stdin.is_terminal();
    let mut input: Box<dyn io::Read> = if nothing { Box::new(io::empty()) } else { Box::new(stdin.lock()) };
    let outcome = cni::run(|name| std::env::var_os(name), input.as_mut(), &cni::Node);
    for note in &outcome.notes {
        eprintln!("manx: {note}");
    }
    let written = io::stdout().write_all(outcome.stdout.as_bytes());
    if outcome.success && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
