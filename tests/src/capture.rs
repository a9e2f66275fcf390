//! Packets seen on an interface, by tcpdump.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use crate::LabError;
use crate::place::Place;

/// A capture under way.
#[derive(Debug)]
pub struct Capture {
    /// The capture's name in messages.
    name: String,
    /// The tcpdump process, which ends by itself.
    tcpdump: Child,
    /// What tcpdump goes on to say on standard error.
    errors: BufReader<std::process::ChildStderr>,
}

impl Capture {
    /// Starts to listen on an interface for packets that match a pcap filter, and returns once it listens. It ends with
    /// the `count`th packet, or after `seconds`.
    pub fn start(place: &dyn Place, interface: &str, filter: &str, count: u32, seconds: u32) -> Result<Self, LabError> {
        let name = format!("capture on {} of {}", interface, place.name());
        let failed = || LabError::io(name.clone());
        let mut command = place.command("timeout");
        command.args(["-s", "INT", &seconds.to_string(), "tcpdump", "-nn", "-e", "-v", "-l", "--immediate-mode"]);
        command.args(["-Z", "root", "-t", "-c", &count.to_string(), "-i", interface, filter]);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut tcpdump = spawned.map_err(failed())?;
        let errors = tcpdump.stderr.take().ok_or_else(|| failed()(std::io::ErrorKind::BrokenPipe.into()))?;
        let mut errors = BufReader::new(errors);
        let mut said = String::new();
        while !said.contains("listening on") {
            if errors.read_line(&mut said).map_err(failed())? == 0 {
                let status = tcpdump.wait().map_err(failed())?.to_string();
                return Err(LabError::Ended { name, status, log: said });
            }
        }
        Ok(Self { name, tcpdump, errors })
    }

    /// The packets that were seen, as tcpdump prints them: link layer first, one string each.
    pub fn finish(mut self) -> Result<Vec<String>, LabError> {
        let mut text = String::new();
        if let Some(mut out) = self.tcpdump.stdout.take() {
            out.read_to_string(&mut text).map_err(LabError::io(self.name.clone()))?;
        }
        let _ = self.errors.read_to_end(&mut Vec::new());
        self.tcpdump.wait().map_err(LabError::io(self.name))?;
        let mut packets: Vec<String> = Vec::new();
        for line in text.lines() {
            match packets.last_mut() {
                // Continuations of a packet's description are indented.
                Some(last) if line.starts_with([' ', '\t']) => {
                    last.push(' ');
                    last.push_str(line.trim());
                }
                _ => packets.push(line.to_owned()),
            }
        }
        Ok(packets)
    }
}
