use super::*;

pub(crate) fn endpoint(container: &str, namespace: &str, pod: &str) -> Located {
    let endpoint = serde_json::from_value(serde_json::json!({
        "id": format!("manx/{container}/eth0"), "pod": {"namespace": namespace, "name": pod},
        "host_interface": "mxabc", "addresses": ["10.0.0.1"], "labels": {"app": "web"},
    }));
    Located { node: Some("a".parse().unwrap()), endpoint: endpoint.unwrap() }
}

fn find(text: &str, namespace: Option<&str>, endpoints: &[Located]) -> Result<String, String> {
    let namespace = namespace.map(|namespace| namespace.parse().unwrap());
    let name = EndpointName::parse(text, namespace.as_ref()).map_err(|error| error.to_string())?;
    let found = name.find(endpoints).map_err(|error| error.to_string())?;
    Ok(found.endpoint.id.container.to_string())
}

#[test]
fn an_endpoint_is_found_by_its_pod_or_by_its_id() {
    let endpoints = [endpoint("c1", "default", "web"), endpoint("c2", "shop", "web"), endpoint("c3", "shop", "db")];
    assert_eq!(find("web", None, &endpoints).unwrap(), "c1");
    assert_eq!(find("web", Some("shop"), &endpoints).unwrap(), "c2");
    assert_eq!(find("shop/db", None, &endpoints).unwrap(), "c3");
    assert_eq!(find("shop/db", Some("shop"), &endpoints).unwrap(), "c3");
    assert_eq!(find("manx/c2/eth0", None, &endpoints).unwrap(), "c2");
}

#[test]
fn a_name_that_leads_nowhere_or_to_several_is_an_error_that_helps() {
    let mut endpoints = vec![endpoint("c1", "shop", "web"), endpoint("c2", "shop", "web")];
    let error = find("shop/web", None, &endpoints).unwrap_err();
    assert_eq!(error, "pod shop/web has several endpoints; say which: manx/c1/eth0, manx/c2/eth0");
    let error = find("web", None, &endpoints).unwrap_err();
    assert!(error.starts_with("pod default/web is not attached"), "{error}");
    assert!(find("shop/web", Some("other"), &endpoints).unwrap_err().contains("namespace shop"));
    for bad in ["", "/web", "shop/", "a/b/c/d"] {
        assert!(find(bad, None, &endpoints).is_err(), "{bad}");
    }
    endpoints[0].endpoint.finished = true;
    assert_eq!(find("shop/web", None, &endpoints).unwrap(), "c2", "the pod that replaced one that has ended");
}
