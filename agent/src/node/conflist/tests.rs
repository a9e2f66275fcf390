use super::*;

const RUN: &str = "/run/manx";

/// Our file as istio-cni leaves it behind.
fn chained() -> Value {
    json!({
        "cniVersion": "0.3.1", "name": "k8s-pod-network", "disableCheck": true,
        "plugins": [
            { "type": "manx", "mtu": 1400 },
            { "type": "portmap", "capabilities": { "portMappings": true }, "snat": true },
            { "type": "istio-cni", "name": "istio-cni", "kubernetes": { "cni_bin_dir": "/opt/cni/bin" } },
        ],
    })
}

fn judged(value: &Value) -> Verdict {
    judge(&value.to_string(), Path::new(RUN))
}

fn corrected(value: &Value) -> (Value, String) {
    match judged(value) {
        Verdict::Corrected(text, corrections) => {
            assert_eq!(judge(&text, Path::new(RUN)), Verdict::Stays, "what is corrected once stays");
            (serde_json::from_str(&text).unwrap(), corrections.join("; "))
        }
        other => panic!("{value}: {other:?}"),
    }
}

#[test]
fn what_others_and_operators_have_written_into_our_file_stays() {
    assert_eq!(judged(&chained()), Verdict::Stays);
    let text = fresh(Path::new(RUN));
    assert_eq!(judge(&text, Path::new(RUN)), Verdict::Stays);
    assert!(text.contains("portmap") && !text.contains("runDir"), "{text}");
}

#[test]
fn an_agent_with_another_run_folder_says_so_in_its_object() {
    let text = fresh(Path::new("/run/other"));
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["plugins"][0]["runDir"], "/run/other");
}

#[test]
fn our_object_comes_back_in_front_of_the_others_in_their_order() {
    let mut list = chained();
    list["plugins"].as_array_mut().unwrap().remove(0);
    let others = list["plugins"].as_array().unwrap().clone();
    let (now, said) = corrected(&list);
    assert_eq!(now["plugins"].as_array().unwrap()[1..], others);
    assert_eq!(now["plugins"][0], json!({ "type": "manx" }));
    assert_eq!(now["name"], "k8s-pod-network");
    assert!(said.contains("no plugin manx"), "{said}");
}

#[test]
fn a_second_object_of_ours_would_refuse_every_pod_and_goes() {
    let mut list = chained();
    list["plugins"].as_array_mut().unwrap().push(json!({ "type": "manx" }));
    let (now, said) = corrected(&list);
    assert_eq!(now, chained());
    assert!(said.contains("more than once"), "{said}");
}

#[test]
fn a_version_or_name_that_no_plugin_takes_is_put_right() {
    for (key, value, now, said) in [
        ("cniVersion", json!("0.2.0"), "1.0.0", "cniVersion was \"0.2.0\""),
        ("cniVersion", Value::Null, "1.0.0", "cniVersion was null"),
        ("name", json!("my network"), "manx", "name was \"my network\""),
        ("name", json!(7), "manx", "name was 7"),
    ] {
        let mut list = chained();
        list[key] = value;
        let (corrected, words) = corrected(&list);
        assert_eq!(corrected[key], now);
        assert_eq!(corrected["plugins"], chained()["plugins"]);
        assert!(words.starts_with(said), "{words}");
    }
}

#[test]
fn what_no_runtime_can_read_is_damaged() {
    for (text, why) in [
        ("", "no JSON"),
        ("{\"cniVersion\": \"1.0.0\", \"plug", "no JSON"),
        ("[]", "no JSON object"),
        ("{}", "no list of plugins"),
        ("{\"plugins\": {}}", "no list of plugins"),
        ("{\"plugins\": [{\"type\": \"manx\"}, {\"typ\": \"portmap\"}]}", "has no type"),
        ("{\"plugins\": [\"manx\"]}", "has no type"),
    ] {
        let Verdict::Damaged(said) = judge(text, Path::new(RUN)) else { panic!("{text}") };
        assert!(said.contains(why), "{text}: {said}");
    }
}

#[test]
fn another_configuration_leads_to_us_if_it_names_us_and_multus_to_what_it_is_told() {
    let flannel = json!({ "name": "cbr0", "plugins": [{ "type": "flannel" }, { "type": "portmap" }] });
    let thick = json!({ "type": "multus-shim", "name": "multus-cni-network" });
    let with = |key: &str, value: Value| {
        let mut config = thick.clone();
        config[key] = value;
        config
    };
    let multus = || Leads::Elsewhere(Some("multus-cni-network".to_owned()));
    for (config, expected) in [
        (flannel.clone(), Leads::Elsewhere(Some("cbr0".to_owned()))),
        (json!({ "type": "bridge" }), Leads::Elsewhere(None)),
        (chained(), Leads::ToUs),
        (json!({ "type": "manx", "name": "own" }), Leads::ToUs),
        (with("clusterNetwork", json!("/host/etc/cni/net.d/10-manx.conflist")), Leads::ToUs),
        (with("clusterNetwork", json!("manx")), Leads::ToUs),
        (with("delegates", json!([{ "plugins": [{ "type": "manx" }] }])), Leads::ToUs),
        (with("clusterNetwork", json!("/host/etc/cni/net.d/10-flannel.conflist")), multus()),
        (with("delegates", json!([flannel])), multus()),
        (thick.clone(), Leads::WithTheNext),
        (json!({}), Leads::Nowhere("it names no plugin".to_owned())),
        (json!({ "plugins": [] }), Leads::Nowhere("it names no plugin".to_owned())),
    ] {
        assert_eq!(leads(&config.to_string()), expected, "{config}");
    }
    assert!(matches!(leads("{"), Leads::Nowhere(_)));
}
