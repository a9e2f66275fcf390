use serde_json::json;
use store::{Version, keys};

use super::*;

fn set(value: Vec<u8>) -> Update<Subject, Entry> {
    let name: types::ResourceName = "shop".parse().unwrap();
    let (key, version) = (keys::resource(Kind::Namespace, &name), Version::new(1));
    Update::Set(Subject::Resource(Kind::Namespace, name), Entry { key, value, version, created: version })
}

fn told(update: Update<Subject, Entry>) -> Update<String, Labels> {
    let Some(PolicyUpdate::Namespace(update)) = namespace(update) else { panic!("not told as a namespace") };
    update
}

#[test]
fn a_namespace_that_cannot_be_read_has_no_labels_any_more() {
    let document = json!({
        "apiVersion": Kind::Namespace.api_version(),
        "kind": "Namespace",
        "metadata": { "name": "shop", "labels": { "team": "a" } },
    });
    let labels = [("team", "a"), (NAME_LABEL, "shop")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(told(set(store::encode(&document))), Update::Set("shop".to_owned(), labels.into()));
    for unreadable in [b"no document".to_vec(), store::encode(&json!({})), br#"{"version":99,"spec":{}}"#.to_vec()] {
        assert_eq!(told(set(unreadable)), Update::Delete("shop".to_owned()));
    }
}
