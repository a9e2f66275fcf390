use super::*;
use serde_json::json;

fn parse(config: &Value) -> Result<NetworkConfig, (CniVersion, CniError)> {
    NetworkConfig::parse(config.to_string().as_bytes())
}

fn with(key: &str, value: Value) -> Value {
    let mut config = json!({ "cniVersion": "1.0.0", "name": "manx", "type": "manx" });
    config[key] = value;
    config
}

fn attachment(args: &[(&str, &str)]) -> Attachment {
    Attachment {
        container: "c1".parse().unwrap(),
        interface: "eth0".parse().unwrap(),
        args: args.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        plugins: Vec::new(),
    }
}

#[test]
fn every_supported_version_is_read_and_any_other_is_code_1_with_the_versions_that_are() {
    for version in CniVersion::ALL {
        assert_eq!(parse(&with("cniVersion", json!(version))).unwrap().version, version);
    }
    for version in [json!("0.1.0"), json!("0.2.0"), json!("0.3.2"), json!("2.0.0"), json!("")] {
        let (written_in, error) = parse(&with("cniVersion", version.clone())).unwrap_err();
        assert_eq!((written_in, error.code.number()), (CniVersion::LATEST, 1), "{version}");
        assert_eq!(error.details, "plugin supports 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0");
    }
    let (_, error) = parse(&json!({ "name": "manx", "type": "manx" })).unwrap_err();
    assert_eq!(error.msg, "incompatible CNI versions: config is \"0.1.0\"");
}

#[test]
fn defaults_are_the_agents_own_places_and_both_can_be_moved() {
    let config = parse(&with("other", json!(1))).unwrap();
    assert_eq!(config.agent_socket, Path::new("/run/manx/cni.sock"));
    assert_eq!(config.tombstones(), Path::new("/run/manx/released"));
    let config = parse(&with("runDir", json!("/tmp/n1"))).unwrap();
    assert_eq!(config.agent_socket, Path::new("/tmp/n1/cni.sock"));
    let config = parse(&with("agentSocket", json!("/tmp/a.sock"))).unwrap();
    assert_eq!(config.agent_socket, Path::new("/tmp/a.sock"));
}

#[test]
fn input_that_is_no_object_is_code_6() {
    for input in ["", "{", "[]", "null", "{\"cniVersion\": 1}"] {
        let (_, error) = NetworkConfig::parse(input.as_bytes()).unwrap_err();
        assert_eq!(error.code.number(), 6, "{input:?}: {error}");
    }
}

#[test]
fn a_bad_value_is_code_7_and_named() {
    let port = |port: Value| with("args", json!({ "cni": { "manx.io/ports": [port] } }));
    for (config, culprit) in [
        (json!({ "cniVersion": "1.0.0", "type": "manx" }), "name is missing"),
        (json!({ "cniVersion": "1.0.0", "name": "manx" }), "type is missing"),
        (with("type", json!("")), "type is empty"),
        (with("name", json!("-net")), "name: \"-net\" is not a network name"),
        (with("name", json!(3)), "name: 3 is not a string"),
        (with("runDir", json!("run")), "runDir: \"run\" is not an absolute path"),
        (with("agentSocket", json!(7)), "agentSocket: 7 is not an absolute path"),
        (with("args", json!([])), "args: [] is not an object"),
        (with("args", json!({ "cni": 1 })), "args.cni: 1 is not an object"),
        (with("mtu", json!("big")), "mtu: \"big\" is not a number of octets between 68 and 65535"),
        (with("mtu", json!(67)), "mtu: 67 is not"),
        (with("dns", json!([])), "dns: [] is not an object"),
        (with("prevResult", json!("x")), "prevResult: \"x\" is not an object"),
        (with("args", json!({ "cni": { "labels": { "app": 1 } } })), "args.cni.labels: app: 1 is not a string"),
        (with("args", json!({ "cni": { "labels": [{ "key": "a" }] } })), "args.cni.labels: {\"key\":\"a\"} has no"),
        (with("args", json!({ "cni": { "labels": 1 } })), "args.cni.labels: 1 is neither"),
        (port(json!({ "protocol": "TCP", "port": 80 })), "args.cni[\"manx.io/ports\"]: name of {"),
        (port(json!({ "name": "h", "protocol": "ICMP", "port": 80 })), "args.cni[\"manx.io/ports\"]: protocol of {"),
        (port(json!({ "name": "h", "protocol": "TCP", "port": 65_536 })), "args.cni[\"manx.io/ports\"]: port of {"),
        (with("args", json!({ "cni": { "manx.io/ports": {} } })), "args.cni[\"manx.io/ports\"]: {} is not a list"),
    ] {
        let (version, error) = parse(&config).unwrap_err();
        assert_eq!((version, error.code.number()), (CniVersion::V1_0_0, 7), "{config}");
        assert!(error.msg.starts_with(culprit), "{}", error.msg);
    }
}

#[test]
fn labels_come_as_an_object_or_as_pairs_and_ports_in_either_case() {
    let pairs = json!({ "cni": { "labels": [{ "key": "app", "value": "web" }] } });
    let object = json!({ "cni": { "labels": { "app": "web" },
            "manx.io/ports": [{ "Name": "http", "Protocol": "tcp", "Port": 80 }, { "name": "dns", "port": 53 }] } });
    let expected = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    assert_eq!(parse(&with("args", pairs)).unwrap().labels, expected);
    let config = parse(&with("args", object)).unwrap();
    assert_eq!(config.labels, expected);
    let ports: Vec<_> = config.ports.iter().map(|port| (&*port.name, port.protocol, port.port)).collect();
    assert_eq!(ports, [("http", Protocol::Tcp, 80), ("dns", Protocol::Tcp, 53)]);
}

#[test]
fn reserved_and_unknown_keys_are_tolerated() {
    let config = json!({
        "cniVersion": "1.1.0", "name": "manx", "type": "manx", "cni.dev/attachments": [], "ipam": {}, "x": null,
        "runtimeConfig": { "portMappings": [{ "HostPort": 18080, "ContainerPort": 80 }], "IPs": [], "mac": "" },
        "args": { "cni": { "unknown": true } }, "prevResult": null,
    });
    let config = parse(&config).unwrap();
    assert_eq!(config.previous, None);
    assert_eq!(config.refuse_wishes(&attachment(&[("IgnoreUnknown", "1"), ("IP", "")])), Ok(()));
}

#[test]
fn a_wish_for_an_address_or_a_mac_is_code_2_with_key_and_value() {
    for (config, args, culprit) in [
        (with("runtimeConfig", json!({ "IPs": ["10.0.0.7"] })), vec![], "runtimeConfig.ips=[\"10.0.0.7\"]"),
        (with("runtimeConfig", json!({ "mac": "02:00:00:00:00:01" })), vec![], "runtimeConfig.mac=\"02:"),
        (with("args", json!({ "cni": { "ips": ["10.0.0.7"] } })), vec![], "args.cni.ips=[\"10.0.0.7\"]"),
        (with("x", json!(1)), vec![("IP", "10.0.0.7")], "CNI_ARGS IP=10.0.0.7"),
        (with("x", json!(1)), vec![("MAC", "02:00:00:00:00:01")], "CNI_ARGS MAC=02:"),
    ] {
        let error = parse(&config).unwrap().refuse_wishes(&attachment(&args)).unwrap_err();
        assert_eq!(error.code.number(), 2);
        assert!(error.msg.starts_with(culprit), "{}", error.msg);
    }
}

#[test]
fn version_reads_what_it_can_and_never_fails() {
    assert_eq!(requested_version(b"{\"cniVersion\":\"0.4.0\"}").as_deref(), Some("0.4.0"));
    for input in ["", "{", "{}", "{\"cniVersion\": 1}"] {
        assert_eq!(requested_version(input.as_bytes()), None);
    }
}

#[test]
fn del_reads_a_configuration_that_add_refuses_whatever_is_wrong_with_it() {
    for (key, value) in [
        ("cniVersion", json!("0.1.0")),
        ("cniVersion", json!("9.0.0")),
        ("cniVersion", json!(7)),
        ("args", json!({ "cni": { "labels": 1 } })),
        ("prevResult", json!("x")),
        ("mtu", json!("big")),
        ("runtimeConfig", json!([])),
    ] {
        let config = with(key, value.clone());
        assert!(parse(&config).is_err(), "{config}");
        let config = NetworkConfig::parse_for_del(config.to_string().as_bytes()).unwrap();
        assert_eq!(config.name.to_string(), "manx", "{key}: {value}");
    }
    let (_, error) = NetworkConfig::parse_for_del(b"{\"cniVersion\":\"0.1.0\",\"type\":\"manx\"}").unwrap_err();
    assert_eq!((error.code.number(), &*error.msg), (7, "name is missing"));
}

#[test]
fn gc_takes_a_list_of_attachments_and_nothing_else_for_one() {
    let valid = |value: Value| parse(&with("cni.dev/valid-attachments", value)).unwrap().valid_attachments();
    assert_eq!(valid(json!([])), Ok(BTreeSet::new()));
    let listed = valid(json!([{ "containerID": "c1", "ifname": "eth0" }, { "containerID": "c2", "ifName": "eth0" }]));
    assert_eq!(listed.unwrap().len(), 2);
    for (value, culprit) in [
        (Value::Null, "cni.dev/valid-attachments is missing"),
        (json!({}), "cni.dev/valid-attachments: {} is not a list"),
        (json!([{ "ifname": "eth0" }]), "cni.dev/valid-attachments: {\"ifname\":\"eth0\"} has no containerID"),
        (json!([{ "containerID": "../x", "ifname": "eth0" }]), "cni.dev/valid-attachments: containerID: "),
        (json!([{ "containerID": "c1", "ifname": "a/b" }]), "cni.dev/valid-attachments: ifname: "),
    ] {
        let error = valid(value).unwrap_err();
        assert_eq!(error.code.number(), 7);
        assert!(error.msg.starts_with(culprit), "{}", error.msg);
    }
}

#[test]
fn an_mtu_is_read_and_0_is_none() {
    for (value, mtu) in [(json!(1_280), Some(1_280)), (json!(0), None), (Value::Null, None)] {
        assert_eq!(parse(&with("mtu", value)).unwrap().mtu, mtu);
    }
}
