use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::*;
use crate::cidr::Cidr;
use crate::world::{Packet, Protocol};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn ruleset(text: &str) -> Ruleset {
    let mut ruleset = Ruleset::default();
    ruleset.restore(text, false).unwrap();
    ruleset
}

fn forwarded(protocol: Protocol, port: u16) -> Arrival {
    let packet = Packet { source: address("10.65.0.4"), destination: address("10.65.0.5"), protocol, port };
    Arrival::new(&packet, "mxa", "mxb")
}

/// Whether a rule of the chain FORWARD of table mangle fits the packet; it drops what it fits.
fn fits(rule: &str, arrival: &Arrival) -> bool {
    let ruleset = ruleset(&format!("*mangle\n-A FORWARD {rule} -j DROP\nCOMMIT\n"));
    !ruleset.run(&sets(), Path::Forward, arrival).unwrap().passed
}

fn sets() -> IpSets {
    BTreeMap::from([
        ("a".to_owned(), IpSet::Addresses(BTreeSet::from([address("10.65.0.4")]))),
        ("n".to_owned(), IpSet::Nets(["10.65.0.4/31", "10.0.0.0/9"].map(|net| Cidr::parse(net).unwrap()).into())),
        ("p".to_owned(), IpSet::Ports(BTreeSet::from([(address("10.65.0.5"), Protocol::Tcp, 80)]))),
        ("m".to_owned(), IpSet::Marks(BTreeMap::from([(address("10.65.0.4"), (0x0005_0000, 0x00ff_0000))]))),
    ])
}

#[test]
fn each_match_holds_for_what_it_says_and_for_nothing_else() {
    let tcp = forwarded(Protocol::Tcp, 80);
    let with = |change: fn(&mut Arrival)| {
        let mut arrival = tcp.clone();
        change(&mut arrival);
        arrival
    };
    let answered = with(|arrival| (arrival.flags, arrival.state) = (TcpFlags::SYN_ACK, State::Established));
    let marked = with(|arrival| arrival.mark = 0x0012_0400);
    for (rule, holds, not) in [
        ("-s 10.65.0.4", &tcp, &with(|arrival| arrival.source = address("10.65.0.6"))),
        ("-d 10.65.0.4/31", &tcp, &with(|arrival| arrival.destination = address("10.65.0.6"))),
        ("! -d 10.65.0.6/32", &tcp, &with(|arrival| arrival.destination = address("10.65.0.6"))),
        ("-i mx+", &tcp, &with(|arrival| arrival.in_interface = "eth1".to_owned())),
        ("-i mxa", &tcp, &with(|arrival| arrival.in_interface = "mxab".to_owned())),
        ("-o mx+", &tcp, &with(|arrival| arrival.out_interface = "m".to_owned())),
        ("! -o eth1", &tcp, &with(|arrival| arrival.out_interface = "eth1".to_owned())),
        ("-p tcp", &tcp, &forwarded(Protocol::Udp, 80)),
        ("-p tcp -m tcp --dport 80", &tcp, &forwarded(Protocol::Tcp, 81)),
        ("-p tcp -m tcp --dport 80:90", &forwarded(Protocol::Tcp, 90), &forwarded(Protocol::Tcp, 91)),
        ("-p sctp -m sctp --dport 80", &forwarded(Protocol::Sctp, 80), &tcp),
        ("-p tcp -m multiport --dports 80,90:91", &forwarded(Protocol::Tcp, 91), &forwarded(Protocol::Tcp, 89)),
        ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", &tcp, &answered),
        ("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN", &answered, &tcp),
        ("-p tcp --syn", &tcp, &answered),
        ("-p icmp -m icmp --icmp-type 8", &forwarded(Protocol::Icmp, 0), &tcp),
        ("-m conntrack --ctstate RELATED,ESTABLISHED", &answered, &tcp),
        ("-m conntrack ! --ctstate NEW,INVALID", &answered, &tcp),
        ("-m mark --mark 0x120000/0xff0000", &marked, &tcp),
        ("-m mark ! --mark 0x0/0xff0000", &marked, &tcp),
        ("-m set --match-set a src", &tcp, &with(|arrival| arrival.source = address("10.65.0.6"))),
        ("-m set ! --match-set a dst", &tcp, &with(|arrival| arrival.destination = address("10.65.0.4"))),
        ("-m set --match-set n dst", &tcp, &with(|arrival| arrival.destination = address("10.129.0.1"))),
        ("-m set --match-set p dst,dst", &tcp, &forwarded(Protocol::Udp, 80)),
        ("-m set --match-set p dst,dst", &tcp, &forwarded(Protocol::Tcp, 81)),
        ("-m set ! --match-set p src,dst", &tcp, &with(|arrival| arrival.source = address("10.65.0.5"))),
        ("-m rpfilter --validmark --invert", &with(|arrival| arrival.reverse_path = false), &tcp),
    ] {
        assert!(fits(rule, holds), "{rule}");
        assert!(!fits(rule, not), "{rule}");
    }
}

#[test]
fn marks_are_set_and_mapped_bit_by_bit() {
    let mark = |rules: &str, before: u32| {
        let lines: String = rules.lines().map(|rule| format!("-A FORWARD {rule}\n")).collect();
        let mut arrival = forwarded(Protocol::Tcp, 80);
        arrival.mark = before;
        ruleset(&format!("*mangle\n{lines}COMMIT\n")).run(&sets(), Path::Forward, &arrival).unwrap().mark
    };
    assert_eq!(mark("-j MARK --set-xmark 0x0/0xff0000", 0x0012_4000), 0x4000);
    assert_eq!(mark("-j MARK --set-xmark 0x110000/0x100000", 0x0012_4000), 0x0013_4000);
    assert_eq!(mark("-j MARK --set-mark 0x30000/0x10000", 0x00f0_0000), 0x00f3_0000);
    assert_eq!(mark("-j SET --map-set m src --map-mark", 0x0012_4000), 0x0005_4000);
    assert_eq!(mark("-j SET --map-set m dst --map-mark", 0x0012_4000), 0x0012_4000);
}

#[test]
fn jumps_come_back_and_gotos_go_back_where_their_chain_would() {
    let passes = |rules: &str| {
        let text = format!("*filter\n:FORWARD DROP [0:0]\n:one - [0:0]\n:two - [0:0]\n{rules}COMMIT\n");
        ruleset(&text).run(&sets(), Path::Forward, &forwarded(Protocol::Tcp, 80)).unwrap().passed
    };
    assert!(passes("-A FORWARD -j one\n-A FORWARD -j ACCEPT\n-A one -j RETURN\n-A one -j DROP\n"));
    assert!(passes("-A FORWARD -j one\n-A FORWARD -j ACCEPT\n-A one -g two\n-A one -j DROP\n-A two -j RETURN\n"));
    assert!(!passes("-A FORWARD -g one\n-A FORWARD -j ACCEPT\n-A one -j RETURN\n"), "the policy decides");
    assert!(!passes("-A FORWARD -j one\n-A FORWARD -j ACCEPT\n-A one -j two\n-A one -j DROP\n"));
}

#[test]
fn a_packet_is_dropped_by_whichever_table_drops_it_first() {
    let text = "*raw\n-A PREROUTING -i mx+ -m rpfilter --invert -j DROP\nCOMMIT\n\
                *mangle\n-A INPUT -j DROP\nCOMMIT\n*filter\n-A FORWARD -j ACCEPT\nCOMMIT\n\
                *nat\n-A POSTROUTING -s 10.65.0.4 -j MASQUERADE --random-fully\nCOMMIT\n";
    let (ruleset, arrival) = (ruleset(text), forwarded(Protocol::Tcp, 80));
    let run = |path, arrival: &Arrival| ruleset.run(&sets(), path, arrival).unwrap();
    assert!(run(Path::Forward, &arrival).passed && run(Path::Forward, &arrival).masqueraded);
    assert!(!run(Path::Input, &arrival).passed);
    assert!(run(Path::Output, &arrival).passed);
    assert!(!run(Path::Forward, &Arrival { reverse_path: false, ..arrival.clone() }).passed);
    assert!(!run(Path::Forward, &Arrival { state: State::Established, ..arrival }).masqueraded);
}

#[test]
fn restore_changes_what_it_names_and_keeps_the_rest_or_changes_nothing() {
    let mut ruleset =
        ruleset("*mangle\n:mine - [0:0]\n-A FORWARD -j mine\n-A mine -p tcp -j DROP\n-A mine -j RETURN\nCOMMIT\n");
    let shown = |ruleset: &Ruleset| ruleset.rules("mangle", "mine").map(|rules| rules.join("; "));
    ruleset
        .restore("*mangle\n-I mine 1 -p udp -j DROP\n-D mine -p tcp -j DROP\n-R mine 2 -j ACCEPT\nCOMMIT\n", false)
        .unwrap();
    assert_eq!(shown(&ruleset).unwrap(), "-p udp -j DROP; -j ACCEPT");
    for refused in [
        "*mangle\n-F mine\n-X mine\nCOMMIT\n",
        "*mangle\n-F mine\n-A nobody -j DROP\nCOMMIT\n",
        "*mangle\n-F mine\n-A mine -j nobody\nCOMMIT\n",
        "*mangle\n-F mine\n-D mine -p tcp -j DROP\nCOMMIT\n",
        "*mangle\n-F mine\n",
        "*mangle\n-F mine\n-A mine -j WONDER\nCOMMIT\n",
        "*mangle\n-F mine\n-A mine -m wonder -j DROP\nCOMMIT\n",
        "*mangle\n-F mine\n-A mine --wonder -j DROP\nCOMMIT\n",
        "*mangle\n-F mine\n-A mine --dport 80 -j DROP\nCOMMIT\n",
        "*mangle\n-F mine\n-A mine -p tcp -m multiport --dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14:15,16 -j DROP\nCOMMIT\n",
        "*mangle\n-F mine\n-A mine -s fd00::1 -j DROP\nCOMMIT\n",
        "*mangle\n-F mine\n-A mine -m set --match-set a src --return-nomatch -j DROP\nCOMMIT\n",
    ] {
        assert!(ruleset.restore(refused, false).is_err(), "{refused}");
        assert_eq!(shown(&ruleset).unwrap(), "-p udp -j DROP; -j ACCEPT", "{refused}");
    }
    ruleset.restore("*mangle\n:mine - [0:0]\n-A mine -j DROP\nCOMMIT\n", false).unwrap();
    assert_eq!(shown(&ruleset).unwrap(), "-j DROP", "declaring a chain empties it");
    ruleset.restore("*mangle\n-D FORWARD -j mine\n-F mine\n-X mine\nCOMMIT\n", false).unwrap();
    assert_eq!(shown(&ruleset), None);
}

#[test]
fn what_iptables_save_prints_is_taken_as_well() {
    let text = "# Generated by iptables-save\n*mangle\n:PREROUTING ACCEPT [12:34]\n:FORWARD ACCEPT [0:0]\n:mine - [0:0]\n\
                [5:300] -A FORWARD -m comment --comment \"manx:1 \\\"x\\\"\" -j mine\n-A mine -j RETURN\nCOMMIT\n# Completed\n";
    assert_eq!(ruleset(text).chains("mangle"), ["mine"]);
}

#[test]
fn what_a_kernel_would_refuse_is_a_fault() {
    let fault = |rule: &str, table: &str| {
        let ruleset = ruleset(&format!("*{table}\n-A FORWARD {rule}\nCOMMIT\n"));
        ruleset.run(&sets(), Path::Forward, &forwarded(Protocol::Tcp, 80)).unwrap_err()
    };
    assert_eq!(fault("-m set --match-set gone src -j DROP", "mangle"), Fault::NoSet("gone".to_owned()));
    assert_eq!(fault("-m set --match-set p src -j DROP", "mangle"), Fault::Dimensions("p".to_owned(), 1));
    assert_eq!(fault("-j SET --map-set a src --map-mark", "mangle"), Fault::NoMarks("a".to_owned()));
    assert!(matches!(fault("-j SET --map-set m src --map-mark", "filter"), Fault::WrongTable(..)));
    let circle = "*mangle\n:a - [0:0]\n:b - [0:0]\n-A FORWARD -j a\n-A a -j b\n-A b -j a\nCOMMIT\n";
    let circle = ruleset(circle).run(&sets(), Path::Forward, &forwarded(Protocol::Tcp, 80));
    assert!(matches!(circle, Err(Fault::Circle(_))));
}
