use super::*;

fn key() -> Key {
    Key::new("blocks/10.0.0.0-26").unwrap()
}

#[test]
fn a_value_comes_back_as_it_was_wrapped() {
    let bytes = encode(&vec![1_u8, 2]);
    assert_eq!(bytes, br#"{"version":1,"spec":[1,2]}"#);
    assert_eq!(decode::<Vec<u8>>(&key(), &bytes), Ok(vec![1, 2]));
}

#[test]
fn a_newer_value_is_refused_by_name_whatever_it_holds() {
    let error = decode::<u8>(&key(), br#"{"version":2,"specification":{}}"#).unwrap_err();
    assert_eq!(error, DecodeError::Newer { key: key(), found: 2 });
    assert_eq!(
        error.to_string(),
        "blocks/10.0.0.0-26: value version 2 is newer than 1, which is what this build reads"
    );
}

#[test]
fn what_is_not_an_envelope_is_refused_with_its_key() {
    for bad in [&b""[..], b"null", b"7", br#"{"spec":1}"#, br#"{"version":1}"#, br#"{"version":0,"spec":1}"#] {
        let error = decode::<u8>(&key(), bad).unwrap_err().to_string();
        assert!(error.starts_with("blocks/10.0.0.0-26: "), "{error}");
    }
}

#[test]
fn the_version_counts_wherever_it_stands() {
    assert_eq!(decode::<Vec<u8>>(&key(), br#"{"spec":[1,2],"note":{},"version":1}"#), Ok(vec![1, 2]));
    let newer = decode::<u8>(&key(), br#"{"spec":{"unknown":[]},"version":3}"#).unwrap_err();
    assert_eq!(newer, DecodeError::Newer { key: key(), found: 3 });
}

#[test]
fn what_is_said_twice_or_goes_on_behind_its_end_is_malformed() {
    for bad in [
        r#"{"version":1,"version":1,"spec":1}"#,
        r#"{"version":1,"spec":1,"spec":1}"#,
        r#"{"spec":1,"version":1,"spec":1}"#,
        r#"{"version":1,"spec":1}}"#,
        r#"{"version":2,"spec":"#,
    ] {
        let error = decode::<u8>(&key(), bad.as_bytes()).unwrap_err();
        assert!(matches!(error, DecodeError::Malformed { .. }), "{bad}: {error}");
    }
}
