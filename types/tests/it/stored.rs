//! The form of what is stored, letter by letter: agents of other versions read it, and so does this one after an upgrade.

use serde::Serialize;
use serde::de::DeserializeOwned;
use types::resource::Resource;
use types::{Alive, BlockClaim, Gone, Pod, Registration, WorkloadEndpoint};

/// A value that is read from this text is written as this text.
fn is_stored_as<T: DeserializeOwned + Serialize>(text: &str) {
    let value: T = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&value).unwrap(), text);
}

#[test]
fn endpoints_are_stored_as_ever() {
    is_stored_as::<WorkloadEndpoint>(
        r#"{"id":"manx/0123abc/eth0","pod":{"namespace":"shop","name":"web-0","uid":"u1"},"host_interface":"mxabc","addresses":["10.42.0.7","fd00::7"],"labels":{"app":"web"},"ports":[{"name":"http","protocol":"TCP","port":80}],"finished":true}"#,
    );
    is_stored_as::<WorkloadEndpoint>(
        r#"{"id":"manx/0123abc/eth0","pod":{"namespace":"shop","name":"web-0"},"host_interface":"mxabc","addresses":["10.42.0.7"]}"#,
    );
}

#[test]
fn what_nodes_say_of_themselves_is_stored_as_ever() {
    is_stored_as::<Registration>(
        r#"{"ipv4":"192.0.2.1","ipv6":"2001:db8::1","listenPort":1790,"asNumber":64512,"clusterId":"192.0.2.9","labels":{"rack":"a"},"agentVersion":"0.1.0"}"#,
    );
    is_stored_as::<Registration>(r#"{"agentVersion":"0.1.0"}"#);
    is_stored_as::<Registration>(
        r#"{"ipv4":"192.0.2.1","ttlSecuritySubnets":["192.0.2.0/24","2001:db8::/64"],"agentVersion":"0.1.0"}"#,
    );
    is_stored_as::<Alive>(r#"{"instance":"0123abc"}"#);
    is_stored_as::<BlockClaim>(r#"{"owner":"n1"}"#);
    is_stored_as::<Gone>(r#"{"since":1790000000,"waited":36,"reclaimed":false}"#);
}

#[test]
fn what_is_remembered_of_kubernetes_is_stored_as_ever() {
    is_stored_as::<Pod>(
        r#"{"reference":{"namespace":"shop","name":"web-0","uid":"u1"},"configHash":"h1","labels":{"app":"web"},"ports":[{"name":"http","protocol":"TCP","port":80}],"hostNetwork":false,"finished":false,"addresses":["10.42.0.7"]}"#,
    );
    is_stored_as::<Resource>(
        r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"labels":{"kubernetes.io/metadata.name":"shop","team":"a"},"name":"shop"}}"#,
    );
    is_stored_as::<Resource>(
        r#"{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","metadata":{"name":"deny","namespace":"shop"},"spec":{"podSelector":{}}}"#,
    );
}
