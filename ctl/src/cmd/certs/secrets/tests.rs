use super::*;

#[test]
fn a_secret_is_filled_when_it_has_all_three() {
    assert!(!is_filled(&json!({ "metadata": {} })));
    assert!(!is_filled(&json!({ "data": { CA: "x", CERTIFICATE: "x", KEY: "" } })));
    assert!(is_filled(&json!({ "data": { CA: "x", CERTIFICATE: "x", KEY: "x" } })));
}

#[test]
fn a_secret_is_filled_only_as_it_was_found() {
    let made = Certificate { certificate: "cert".to_owned(), key: "key".to_owned() };
    let patch = filling(&json!({ "metadata": { "resourceVersion": "7" } }), "ca", &made);
    assert_eq!(patch.pointer("/metadata/resourceVersion"), Some(&json!("7")));
    assert_eq!(patch.pointer("/stringData/ca.crt"), Some(&json!("ca")));
}
