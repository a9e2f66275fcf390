use types::resource::NAME_LABEL;

use super::*;

/// The key and the value that the cache has of an object, and the object that is made of them.
type Remade<F> = (String, String, Option<(<F as CacheForm>::Key, <F as CacheForm>::Value)>);

fn there_and_back<F: CacheForm>(name: &F::Key, value: &F::Value) -> Remade<F> {
    let key = F::key(name).unwrap();
    let entry = F::entry(name, key.clone(), value);
    (key.to_string(), String::from_utf8(entry.value.clone()).unwrap(), F::object(entry))
}

fn policy_id() -> PolicyId {
    PolicyId { kind: PolicyKind::NetworkPolicy, namespace: "shop".to_owned(), name: "deny".to_owned() }
}

#[test]
fn what_is_remembered_is_written_as_earlier_agents_wrote_it() {
    let spec = json!({ "podSelector": {}, "policyTypes": ["Ingress"] });
    let (key, written, read) = there_and_back::<Policies>(&policy_id(), &spec);
    assert_eq!(key, "resources/NetworkPolicy/shop/deny");
    assert_eq!(
        written,
        r#"{"version":1,"spec":{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy","#.to_owned()
            + r#""metadata":{"name":"deny","namespace":"shop"},"spec":{"podSelector":{},"policyTypes":["Ingress"]}}}"#
    );
    assert_eq!(read, Some((policy_id(), spec)));

    let labels = Labels::from([("team".to_owned(), "a".to_owned())]);
    let (key, written, read) = there_and_back::<Namespaces>(&"shop".to_owned(), &labels);
    assert_eq!(key, "resources/Namespace/shop");
    let document = r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"labels":{"team":"a"},"name":"shop"}}"#;
    assert_eq!(written, format!(r#"{{"version":1,"spec":{document}}}"#));
    // Whoever reads a Namespace finds the label of its name in it.
    let named = [("team", "a"), (NAME_LABEL, "shop")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(read, Some(("shop".to_owned(), named.into())));

    let (name, pod) = crate::testing::pod("web", "uid-1", Labels::new());
    let (key, _, read) = there_and_back::<Pods>(&name, &pod);
    assert_eq!(key, format!("pods/{}/{}", name.namespace, name.name));
    assert_eq!(read, Some((name, pod)));
}

#[test]
fn a_remembered_policy_that_cannot_be_read_is_there_and_says_nothing() {
    let key = Policies::key(&policy_id()).unwrap();
    let version = Version::new(0);
    for value in [&b"no document"[..], br#"{"version":1,"spec":{}}"#, br#"{"version":99,"spec":{"spec":{}}}"#] {
        let entry = Entry { key: key.clone(), value: value.to_vec(), version, created: version };
        assert_eq!(Policies::object(entry), Some((policy_id(), Value::Null)));
    }
}

#[test]
fn an_object_whose_name_makes_no_key_has_no_place() {
    assert_eq!(Policies::key(&PolicyId { name: "no/name".to_owned(), ..policy_id() }), None);
    assert_eq!(Namespaces::key(&"Shop!".to_owned()), None);
    assert_eq!(Pods::key(&NamespacedName::new("shop", "")), None);
}

#[test]
fn a_remembered_policy_without_a_spec_is_one_without_anything_in_it() {
    let key = Policies::key(&policy_id()).unwrap();
    let entry = Policies::entry(&policy_id(), key, &Value::Null);
    assert_eq!(Policies::object(entry), Some((policy_id(), json!({}))));
}
