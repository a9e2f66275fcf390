use super::*;
use serde_json::Value;

#[test]
fn version_repeats_the_runtimes_version_and_lists_ours() {
    let report: Value = serde_json::from_str(&version_report(Some("0.4.0"))).unwrap();
    assert_eq!(
        report,
        json!({
            "cniVersion": "0.4.0", "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
            "manx.io/version": env!("CARGO_PKG_VERSION"), "manx.io/protocol": types::cni::PROTOCOL,
        })
    );
    let report: Value = serde_json::from_str(&version_report(None)).unwrap();
    assert_eq!(report["cniVersion"], "1.1.0");
}

#[test]
fn an_error_object_has_version_code_and_message_and_details_only_if_there_are_any() {
    let error = CniError::new(Code::InvalidConfig, "name is missing");
    let object: Value = serde_json::from_str(&error.to_json(CniVersion::V0_4_0)).unwrap();
    assert_eq!(object, json!({ "cniVersion": "0.4.0", "code": 7, "msg": "name is missing" }));
    let object: Value = serde_json::from_str(&error.with_details("see the docs").to_json(CniVersion::V1_1_0)).unwrap();
    assert_eq!(object["details"], "see the docs");
}

#[test]
fn versions_are_ordered_and_known_by_their_names() {
    assert!(CniVersion::V0_3_1 < CniVersion::V0_4_0 && CniVersion::V1_0_0 < CniVersion::V1_1_0);
    assert_eq!(CniVersion::parse("0.2.0"), None);
    for version in CniVersion::ALL {
        assert_eq!(CniVersion::parse(version.as_str()), Some(version));
    }
}
