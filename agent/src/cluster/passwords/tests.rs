use super::*;

fn source(key: &str) -> PasswordSource {
    PasswordSource::Secret { name: "bgp-secrets".parse().unwrap(), key: key.to_owned() }
}

fn password(text: &str) -> SessionPassword {
    SessionPassword::new(text.as_bytes()).unwrap()
}

fn secret(entries: &[(&str, &str)]) -> Secret {
    entries.iter().map(|(key, text)| ((*key).to_owned(), SessionPassword::new(text.as_bytes()))).collect()
}

#[test]
fn a_secret_says_what_it_lacks_and_nothing_before_it_is_known() {
    let mut followed = FollowedSecret::default();
    followed.apply(Update::Restart);
    assert_eq!(followed.password("rack1"), None);
    followed.apply(Update::InSync);
    assert_eq!(followed.password("rack1"), Some(Err("there is no such Secret in the agent's namespace".to_owned())));
    followed.apply(Update::Set("bgp-secrets".to_owned(), secret(&[("rack1", "one\n"), ("empty", "")])));
    assert_eq!(followed.password("rack1"), Some(Ok(password("one"))));
    assert_eq!(followed.password("rack2"), Some(Err("the Secret has no such key".to_owned())));
    assert_eq!(followed.password("empty"), Some(Err("is empty".to_owned())));
    // While it is listed anew, what was so is so.
    followed.apply(Update::Restart);
    assert_eq!(followed.password("rack1"), Some(Ok(password("one"))));
}

#[test]
fn the_last_password_stays_when_its_source_goes_and_is_told_with_the_reason_and_without_itself() {
    let wanted = BTreeSet::from([source("rack1")]);
    let read = |said: Option<Result<SessionPassword, String>>| move |_: &PasswordSource| said.clone();
    let nothing = known(&Passwords::new(), &wanted, read(None));
    assert!(nothing.is_empty(), "not heard of yet is not missing");
    let missing = known(&nothing, &wanted, read(Some(Err("gone".to_owned()))));
    assert_eq!(news(&nothing, &missing), [Err("key rack1 of Secret bgp-secrets: gone".to_owned())]);
    assert!(problems(&missing).remove(0).ends_with("sessions wait for it"));
    let there = known(&missing, &wanted, read(Some(Ok(password("hunter2")))));
    assert_eq!(news(&missing, &there).len(), 1);
    assert!(problems(&there).is_empty() && news(&there, &there).is_empty());
    let rotated = known(&there, &wanted, read(Some(Ok(password("hunter3")))));
    let gone = known(&rotated, &wanted, read(Some(Err("gone".to_owned()))));
    assert_eq!(gone[&source("rack1")].password, Some(password("hunter3")));
    assert_eq!(known(&gone, &wanted, read(None)), gone);
    let told = format!("{:?}{:?}{:?}{:?}", news(&there, &rotated), news(&rotated, &gone), problems(&gone), gone);
    assert!(!told.contains("hunter") && told.contains("the last one stays in use"), "{told}");
    assert!(known(&gone, &BTreeSet::new(), read(None)).is_empty(), "what nobody wants is forgotten");
}
