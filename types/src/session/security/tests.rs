use super::*;

#[test]
fn a_password_does_not_show_itself_and_ends_before_the_end_of_its_line() {
    let password = SessionPassword::new(b"rack-secret-1\r\n").unwrap();
    assert_eq!(password.reveal(), b"rack-secret-1");
    let known = KnownPassword { password: Some(password), problem: None };
    assert!(!format!("{known:?}").contains("rack"), "{known:?}");
    assert_eq!(SessionPassword::new(b"a\n\n").unwrap().reveal(), b"a\n", "one line's end is none of the password's");
}

#[test]
fn what_is_no_password_is_refused_without_being_told() {
    assert_eq!(SessionPassword::new(b"\n"), Err(SessionPasswordError::Empty));
    let error = SessionPassword::new(&[b'x'; 81]).unwrap_err().to_string();
    assert_eq!(error, "has 81 octets; TCP MD5 takes 80 at most");
    assert!(SessionPassword::new(&[b'x'; 80]).is_ok());
}

#[test]
fn rfc5082_3_each_hop_costs_one_of_255() {
    let least = |number: i64| Hops::try_from(number).unwrap().least_ttl();
    assert_eq!((least(1), least(2), least(255)), (255, 254, 1));
    assert_eq!(Hops::NEIGHBOUR, Hops::try_from(1).unwrap());
    for bad in [0, -1, 256, 1_000_000] {
        assert!(Hops::try_from(bad).is_err(), "{bad}");
    }
}
