//! Reads the words of a rule into matches and a target.

use super::rule::{Match, Rule, States, Target};
use super::run::State;
use crate::cidr::Cidr;

/// Reads what stands behind `-A CHAIN`. `six` says that the rule is for ip6tables.
pub(super) fn rule(words: &[String], text: String, six: bool) -> Result<Rule, String> {
    let mut reader = Reader { words: words.iter(), six, modules: Vec::new(), protocol: None, inverted: false };
    let mut rule = Rule { matches: Vec::new(), target: None, text };
    while let Some(word) = reader.words.next() {
        match word.as_str() {
            "!" if !reader.inverted => reader.inverted = true,
            "-m" | "--match" => reader.module(&mut rule)?,
            "-j" | "--jump" | "-g" | "--goto" if rule.target.is_none() && !reader.inverted => {
                rule.target = Some(reader.target(word.starts_with("-g") || word == "--goto")?);
            }
            option => reader.option(option, &mut rule)?,
        }
    }
    match reader.inverted {
        true => Err("! with nothing behind it".to_owned()),
        false => Ok(rule),
    }
}

struct Reader<'w> {
    words: std::slice::Iter<'w, String>,
    six: bool,
    modules: Vec<String>,
    protocol: Option<u8>,
    inverted: bool,
}

const TCP: u8 = 6;
const ICMP: u8 = 1;
const ICMP6: u8 = 58;

impl Reader<'_> {
    fn module(&mut self, rule: &mut Rule) -> Result<(), String> {
        let name = self.word()?;
        let matching = match name.as_str() {
            "tcp" => self.protocol == Some(TCP),
            "udp" => self.protocol == Some(17),
            "sctp" => self.protocol == Some(132),
            "icmp" => self.protocol == Some(ICMP) && !self.six,
            "icmp6" | "ipv6-icmp" => self.protocol == Some(ICMP6) && self.six,
            "multiport" => self.has_ports(),
            "conntrack" | "set" | "mark" | "comment" | "limit" => true,
            "rpfilter" => {
                rule.matches.push((false, Match::ReversePath { inverted: false }));
                true
            }
            _ => return Err(format!("match {name} is not known")),
        };
        if !matching || self.inverted {
            return Err(format!("-m {name} cannot stand here"));
        }
        self.modules.push(name);
        Ok(())
    }

    fn option(&mut self, option: &str, rule: &mut Rule) -> Result<(), String> {
        let found = match option {
            "-s" | "--source" => Match::Source(self.range()?),
            "-d" | "--destination" => Match::Destination(self.range()?),
            "-i" | "--in-interface" => Match::In(self.word()?),
            "-o" | "--out-interface" => Match::Out(self.word()?),
            "-p" | "--protocol" => {
                let number = protocol(&self.word()?)?;
                self.protocol = Some(number).filter(|_| !self.inverted);
                Match::Protocol(number)
            }
            "--dport" | "--destination-port" if self.has_ports() => Match::DestinationPorts(self.ports(1)?),
            "--sport" | "--source-port" if self.has_ports() => Match::SourcePorts(self.ports(1)?),
            "--dports" | "--destination-ports" if self.loaded("multiport") => Match::DestinationPorts(self.ports(15)?),
            "--sports" | "--source-ports" if self.loaded("multiport") => Match::SourcePorts(self.ports(15)?),
            "--ports" if self.loaded("multiport") => Match::AnyPorts(self.ports(15)?),
            "--tcp-flags" if self.protocol == Some(TCP) => {
                let (mask, set) = (flags(&self.word()?)?, flags(&self.word()?)?);
                Match::TcpFlags { mask, set }
            }
            "--syn" if self.protocol == Some(TCP) => Match::TcpFlags { mask: 0x17, set: 0x02 },
            "--icmp-type" if self.protocol == Some(ICMP) && !self.six => Match::IcmpType(icmp_type(&self.word()?)?),
            "--icmpv6-type" if self.protocol == Some(ICMP6) && self.six => Match::IcmpType(icmp_type(&self.word()?)?),
            "--ctstate" if self.loaded("conntrack") => Match::State(states(&self.word()?)?),
            "--match-set" if self.loaded("set") => Match::Set(self.set_name()?, dimensions(&self.word()?)?),
            "--mark" if self.loaded("mark") => {
                let (value, mask) = value_and_mask(&self.word()?)?;
                Match::Mark { value, mask }
            }
            "--comment" if self.loaded("comment") => {
                let comment = self.word()?;
                if comment.len() > 255 {
                    return Err("a comment has at most 255 octets".to_owned());
                }
                Match::Comment(comment)
            }
            // As if no packets had come before.
            "--limit" | "--limit-burst" if self.loaded("limit") => {
                self.word()?;
                return Ok(());
            }
            "--invert" if self.loaded("rpfilter") => {
                return rpfilter(rule, |inverted| *inverted = true);
            }
            // Packets of the simulator have no mark in the look-up of the way back, so the option changes nothing.
            "--validmark" if self.loaded("rpfilter") => return rpfilter(rule, |_| {}),
            option => return Err(format!("option {option} is not known here")),
        };
        rule.matches.push((std::mem::take(&mut self.inverted), found));
        Ok(())
    }

    fn target(&mut self, goto: bool) -> Result<Target, String> {
        let name = self.word()?;
        let target = match name.as_str() {
            "ACCEPT" => Target::Accept,
            "DROP" => Target::Drop,
            "RETURN" => Target::Return,
            "MARK" => self.mark()?,
            "SET" => self.map()?,
            "NFLOG" => {
                self.settings(&[
                    "--nflog-group",
                    "--nflog-prefix",
                    "--nflog-size",
                    "--nflog-range",
                    "--nflog-threshold",
                ])?;
                Target::Log
            }
            "MASQUERADE" => {
                for word in self.words.by_ref() {
                    if word != "--random-fully" {
                        return Err(format!("MASQUERADE with {word}"));
                    }
                }
                Target::Masquerade
            }
            // Targets of the kernel are written in capitals, our chains are not.
            _ if goto => return Ok(Target::Goto(chain_name(name)?)),
            name if name.bytes().all(|octet| octet.is_ascii_uppercase()) => {
                return Err(format!("target {name} is not known"));
            }
            _ => return Ok(Target::Jump(chain_name(name)?)),
        };
        if goto { Err("-g to what is no chain".to_owned()) } else { Ok(target) }
    }

    fn mark(&mut self) -> Result<Target, String> {
        let option = self.word()?;
        let (value, mask) = value_and_mask(&self.word()?)?;
        match option.as_str() {
            "--set-xmark" => Ok(Target::Mark { value, mask }),
            "--set-mark" => Ok(Target::Mark { value, mask: value | mask }),
            "--or-mark" => Ok(Target::Mark { value, mask: value }),
            "--and-mark" => Ok(Target::Mark { value: 0, mask: !value }),
            _ => Err(format!("MARK with {option}")),
        }
    }

    fn map(&mut self) -> Result<Target, String> {
        let (option, name, flags, mark) = (self.word()?, self.set_name()?, self.word()?, self.word()?);
        match (option.as_str(), mark.as_str()) {
            ("--map-set", "--map-mark") => Ok(Target::MapMark(name, dimensions(&flags)?)),
            _ => Err(format!("SET with {option} and {mark}")),
        }
    }

    /// Reads options with one value each that do not change what becomes of a packet.
    fn settings(&mut self, known: &[&str]) -> Result<(), String> {
        while let Some(option) = self.words.next() {
            if !known.contains(&option.as_str()) {
                return Err(format!("option {option} is not known here"));
            }
            let value = self.word()?;
            if option == "--nflog-prefix" && value.len() > 63 {
                return Err("a prefix of NFLOG has at most 63 octets".to_owned());
            }
        }
        Ok(())
    }

    fn word(&mut self) -> Result<String, String> {
        self.words.next().cloned().ok_or_else(|| "the rule ends too early".to_owned())
    }

    fn set_name(&mut self) -> Result<String, String> {
        let name = self.word()?;
        if name.len() > 31 { Err(format!("the set's name {name} is longer than 31 octets")) } else { Ok(name) }
    }

    fn range(&mut self) -> Result<Cidr, String> {
        let text = self.word()?;
        let whole = if self.six { 128 } else { 32 };
        let range = match text.parse() {
            Ok(address) => Cidr::of(address, whole),
            Err(_) => Cidr::parse(&text),
        };
        range.filter(|range| range.is_six() == self.six).ok_or_else(|| format!("{text} is no range of this family"))
    }

    fn loaded(&self, module: &str) -> bool {
        self.modules.iter().any(|loaded| loaded == module)
    }

    fn has_ports(&self) -> bool {
        matches!(self.protocol, Some(TCP | 17 | 132))
    }

    /// Reads `80`, `80:90`, and for multiport a list in which a range takes two of fifteen places.
    fn ports(&mut self, places: usize) -> Result<Vec<(u16, u16)>, String> {
        let text = self.word()?;
        let number = |text: &str| text.parse().map_err(|_| format!("{text} is no port"));
        let mut ranges = Vec::new();
        let mut taken = 0;
        for part in text.split(',') {
            let (first, last) = part.split_once(':').unwrap_or((part, part));
            taken += if first == last { 1 } else { 2 };
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return Err(format!("{part} ends before it begins"));
            }
            ranges.push((first, last));
        }
        if (places == 1 && ranges.len() > 1) || (places > 1 && taken > places) {
            return Err(format!("{text} has more ports than fit"));
        }
        Ok(ranges)
    }
}

fn rpfilter(rule: &mut Rule, change: impl FnOnce(&mut bool)) -> Result<(), String> {
    match rule.matches.iter_mut().find_map(|(_, found)| match found {
        Match::ReversePath { inverted } => Some(inverted),
        _ => None,
    }) {
        Some(inverted) => change(inverted),
        None => return Err("an option of rpfilter without it".to_owned()),
    }
    Ok(())
}

fn chain_name(name: String) -> Result<String, String> {
    if name.len() > 28 { Err(format!("the chain's name {name} is longer than 28 octets")) } else { Ok(name) }
}

fn protocol(name: &str) -> Result<u8, String> {
    match name {
        "tcp" => Ok(TCP),
        "udp" => Ok(17),
        "sctp" => Ok(132),
        "icmp" => Ok(ICMP),
        "icmpv6" | "ipv6-icmp" => Ok(ICMP6),
        number => number.parse().map_err(|_| format!("protocol {name} is not known")),
    }
}

fn flags(text: &str) -> Result<u8, String> {
    text.split(',').try_fold(0, |bits, name| {
        let bit = match name {
            "FIN" => 0x01,
            "SYN" => 0x02,
            "RST" => 0x04,
            "PSH" => 0x08,
            "ACK" => 0x10,
            "URG" => 0x20,
            "ALL" => 0x3f,
            "NONE" => 0,
            _ => return Err(format!("{name} is no flag of TCP")),
        };
        Ok(bits | bit)
    })
}

/// Reads a number, or a name of RFC 4443 or RFC 4861 as ip6tables has it.
fn icmp_type(text: &str) -> Result<u8, String> {
    match text {
        "router-solicitation" => Ok(133),
        "router-advertisement" => Ok(134),
        "neighbour-solicitation" | "neighbor-solicitation" => Ok(135),
        "neighbour-advertisement" | "neighbor-advertisement" => Ok(136),
        "redirect" => Ok(137),
        number => number.parse().map_err(|_| format!("ICMP type {text} is not known")),
    }
}

fn states(text: &str) -> Result<States, String> {
    let bits = text.split(',').try_fold(0, |bits, name| {
        let state = match name {
            "NEW" => State::New,
            "ESTABLISHED" => State::Established,
            "RELATED" => State::Related,
            "INVALID" => State::Invalid,
            "UNTRACKED" => State::Untracked,
            "DNAT" => return Ok(bits | States::TRANSLATED),
            _ => return Err(format!("state {name} is not known")),
        };
        Ok(bits | state.bit())
    })?;
    Ok(States(bits))
}

fn dimensions(text: &str) -> Result<Vec<bool>, String> {
    let one = |word| match word {
        "src" => Ok(true),
        "dst" => Ok(false),
        _ => Err(format!("{word} is not src or dst")),
    };
    text.split(',').map(one).collect()
}

fn value_and_mask(text: &str) -> Result<(u32, u32), String> {
    let number = |text: &str| {
        match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16),
            None => text.parse(),
        }
        .map_err(|_| format!("{text} is no mark"))
    };
    match text.split_once('/') {
        Some((value, mask)) => Ok((number(value)?, number(mask)?)),
        None => Ok((number(text)?, u32::MAX)),
    }
}
