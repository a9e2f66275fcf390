//! Names, arguments and configurations as long as they may be, and longer.

use super::*;

/// A call with these variables in the place of the usual ones.
fn call(bed: &Bed, command: &str, variables: &[(&str, &str)], config: &str) -> Outcome {
    let mut all = BTreeMap::from([
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/run/netns/c1"),
        ("CNI_IFNAME", "eth0"),
    ]);
    all.extend(variables.iter().copied());
    run(|name| all.get(name).map(OsString::from), &mut config.as_bytes(), bed)
}

#[test]
fn the_longest_names_work_and_their_records_have_short_names() {
    let (container, network, interface) = ("c".repeat(253), "n".repeat(253), "i".repeat(15));
    let bed = Bed::new();
    let id: EndpointId = format!("{network}/{container}/{interface}").parse().unwrap();
    let of_them = Wire { host_interface: id.host_interface(), ..wire() };
    let agent = bed.agent(vec![vec![Play::Say(Reply::Wire(of_them)), Play::Say(Reply::Done)]]);
    let mut config = bed.config("1.0.0");
    config["name"] = json!(network);
    let variables = [("CNI_CONTAINERID", container.as_str()), ("CNI_IFNAME", interface.as_str())];
    succeeded(&call(&bed, "ADD", &variables, &config.to_string()));
    let Request::Attach(attach) = &agent.heard()[0][0] else { panic!("not an ADD") };
    assert_eq!(attach.id, id);
    // No agent any more.
    succeeded(&call(&bed, "DEL", &variables, &config.to_string()));
    let tombstone = bed.run_dir.path().join("released").join(id.host_interface().as_str());
    assert_eq!(std::fs::read_to_string(tombstone).unwrap(), id.to_string());
}

#[test]
fn longer_names_are_refused_in_words_that_stay_short() {
    let bed = Bed::new();
    let config = bed.config("1.0.0").to_string();
    let (long, huge) = ("c".repeat(254), "c".repeat(100_000));
    let pod = |key: &str, value: &str| format!("IgnoreUnknown=1;{key}={value}");
    for (variable, value, told) in [
        ("CNI_CONTAINERID", long.clone(), "CNI_CONTAINERID: \"ccc"),
        ("CNI_CONTAINERID", huge.clone(), "CNI_CONTAINERID: \"ccc"),
        ("CNI_IFNAME", "i".repeat(16), "CNI_IFNAME: \"iii"),
        ("CNI_ARGS", pod("K8S_POD_NAME", &huge), "CNI_ARGS K8S_POD_NAME: 100000 octets are more than the 253"),
        ("CNI_ARGS", pod("K8S_POD_NAMESPACE", &long), "CNI_ARGS K8S_POD_NAMESPACE: 254 octets"),
        ("CNI_ARGS", pod("K8S_POD_UID", &long), "CNI_ARGS K8S_POD_UID: 254 octets"),
    ] {
        let (code, msg) = error(&call(&bed, "ADD", &[(variable, &value)], &config));
        assert!(code == 4 && msg.starts_with(told) && msg.len() < 700, "{variable}: {code} {msg}");
        assert_eq!(bed.host_link(), None);
    }
    let mut named = bed.config("1.0.0");
    named["name"] = json!(long);
    let (code, msg) = error(&call(&bed, "ADD", &[], &named.to_string()));
    assert!(code == 7 && msg.starts_with("name: \"ccc"), "{msg}");
}

#[test]
fn arguments_and_configurations_of_megabytes_work_where_they_say_nothing_that_is_kept() {
    let bed = Bed::new();
    let agent = bed.agent(vec![accepts_add()]);
    let mut config = bed.config("1.0.0");
    config["x"] = json!("x".repeat(4 << 20));
    let many: Vec<_> =
        (0..20_000).map(|number| json!({ "dst": format!("10.{}.{}.0/24", number / 250, number % 250) })).collect();
    config["prevResult"] = json!({ "cniVersion": "1.0.0", "routes": many });
    // The kernel takes 128 KiB of one variable.
    let args = format!("IgnoreUnknown=1;K8S_POD_NAME=web;{}", "KEY=VALUE;".repeat(13_000));
    let outcome = call(&bed, "ADD", &[("CNI_ARGS", &args)], &config.to_string());
    succeeded(&outcome);
    let result: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(result["routes"].as_array().map(Vec::len), Some(20_002));
    assert_eq!(agent.heard()[0].len(), 3);
}

#[test]
fn what_would_be_kept_of_a_pod_and_is_too_long_is_refused_and_a_configuration_without_end_too() {
    let bed = Bed::new();
    let with = |args: Value| {
        let mut config = bed.config("1.0.0");
        config["args"] = json!({ "cni": args });
        config.to_string()
    };
    let labels: BTreeMap<_, _> = (0..2_000).map(|number| (format!("key{number}"), "v".repeat(63))).collect();
    let ports: Vec<_> = (1..4_000).map(|port| json!({ "name": format!("port{port}"), "port": port })).collect();
    for (config, told) in [
        (with(json!({ "labels": labels })), "args.cni.labels: "),
        (with(json!({ "manx.io/ports": ports })), "args.cni[\"manx.io/ports\"]: "),
    ] {
        let (code, msg) = error(&call(&bed, "ADD", &[], &config));
        assert!(code == 7 && msg.starts_with(told) && msg.contains("octets are more than the 65536"), "{msg}");
        // What was refused is taken down all the same.
        succeeded(&call(&bed, "DEL", &[], &config));
    }
    let endless = format!("{{\"x\":\"{}\"}}", "x".repeat(16 << 20));
    let (code, msg) = error(&call(&bed, "ADD", &[], &endless));
    assert!(code == 6 && msg.contains("longer than 16777216 octets"), "{msg}");
}
