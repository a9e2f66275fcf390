use super::*;

fn command(variables: &[(&str, &str)]) -> Result<Command, CniError> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    Command::from_environment(|name| variables.get(name).map(OsString::from))
}

fn add(extra: &[(&str, &str)]) -> Result<Command, CniError> {
    let mut variables =
        vec![("CNI_COMMAND", "ADD"), ("CNI_CONTAINERID", "c1"), ("CNI_NETNS", "/run/netns/c1"), ("CNI_IFNAME", "eth0")];
    variables.extend_from_slice(extra);
    command(&variables)
}

#[test]
fn all_missing_variables_are_named_in_one_message() {
    for (variables, missing) in [
        (vec![], "[CNI_COMMAND]"),
        (vec![("CNI_COMMAND", "ADD")], "[CNI_CONTAINERID,CNI_IFNAME,CNI_NETNS]"),
        (vec![("CNI_COMMAND", "ADD"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "")], "[CNI_CONTAINERID,CNI_NETNS]"),
        (vec![("CNI_COMMAND", "DEL")], "[CNI_CONTAINERID,CNI_IFNAME]"),
        (vec![("CNI_COMMAND", "CHECK"), ("CNI_IFNAME", "eth0")], "[CNI_CONTAINERID,CNI_NETNS]"),
    ] {
        let error = command(&variables).unwrap_err();
        assert_eq!(error.code.number(), 4);
        assert_eq!(error.msg, format!("required env variables {missing} missing"));
    }
}

#[test]
fn a_bad_variable_is_named_with_its_value() {
    for (variable, value, culprit) in [
        ("CNI_COMMAND", "PLUG", "CNI_COMMAND: \"PLUG\""),
        ("CNI_COMMAND", "add", "CNI_COMMAND: \"add\""),
        ("CNI_CONTAINERID", "../x", "CNI_CONTAINERID: \"../x\""),
        ("CNI_IFNAME", "a/b", "CNI_IFNAME: \"a/b\""),
        ("CNI_IFNAME", "sixteen-bytes-xx", "CNI_IFNAME: \"sixteen-bytes-xx\""),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S", "CNI_ARGS: \"K8S\""),
        ("CNI_ARGS", "=v", "CNI_ARGS: \"=v\""),
    ] {
        let error = add(&[(variable, value)]).unwrap_err();
        assert_eq!(error.code.number(), 4, "{variable}={value}");
        assert!(error.msg.starts_with(culprit), "{}", error.msg);
    }
}

#[test]
fn a_variable_that_is_not_utf8_is_named() {
    use std::os::unix::ffi::OsStringExt as _;
    let variable = |name: &str| (name == "CNI_COMMAND").then(|| OsString::from_vec(vec![0xff]));
    assert_eq!(Command::from_environment(variable).unwrap_err().msg, "CNI_COMMAND is not UTF-8");
}

#[test]
fn the_pod_is_what_the_runtime_says_in_any_order_with_or_without_ignore_unknown() {
    for args in [
        "K8S_POD_INFRA_CONTAINER_ID=c1;K8S_POD_UID=u;IgnoreUnknown=1;K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop",
        "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u",
    ] {
        let Command::Add { attachment, .. } = add(&[("CNI_ARGS", args)]).unwrap() else { panic!("not an ADD") };
        let pod = PodRef { namespace: "shop".to_owned(), name: "web".to_owned(), uid: Some("u".to_owned()) };
        assert_eq!(attachment.pod().unwrap(), pod);
    }
}

#[test]
fn without_kubernetes_the_pod_is_the_container_in_the_default_namespace() {
    let Command::Add { attachment, netns } = add(&[]).unwrap() else { panic!("not an ADD") };
    let pod = attachment.pod().unwrap();
    assert_eq!((pod.to_string(), pod.uid), ("default/c1".to_owned(), None));
    assert_eq!(netns, PathBuf::from("/run/netns/c1"));
}

#[test]
fn del_needs_no_namespace_and_version_and_status_need_nothing() {
    let del = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "")];
    assert!(matches!(command(&del), Ok(Command::Del(_))));
    assert_eq!(command(&[("CNI_COMMAND", "VERSION"), ("CNI_IFNAME", "a/b")]), Ok(Command::Version));
    assert_eq!(command(&[("CNI_COMMAND", "STATUS")]), Ok(Command::Status));
    assert_eq!(command(&[("CNI_COMMAND", "GC")]), Ok(Command::Gc));
}
