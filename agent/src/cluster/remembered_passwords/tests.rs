use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn passwords_of_secrets_outlive_the_agent_in_a_file_of_root_alone_and_go_when_nobody_wants_them() {
    let folder = tempfile::tempdir().unwrap();
    let secret = PasswordSource::Secret { name: "bgp-secrets".parse().unwrap(), key: "rack1".to_owned() };
    let file = PasswordSource::File("/etc/manx/rack2".into());
    let password = SessionPassword::new(b"one\n\n").ok();
    let known = KnownPassword { password: password.clone(), problem: Some("gone".to_owned()) };
    let both = Passwords::from([(secret.clone(), known.clone()), (file.clone(), known)]);
    let wanted = BTreeSet::from([secret.clone(), file]);
    RememberedPasswords::load(folder.path()).keep(&both);
    let path = folder.path().join(BGP_PASSWORDS);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    let mut next_life = RememberedPasswords::load(folder.path());
    let before = next_life.before(&Passwords::new(), &wanted);
    assert_eq!(before.keys().collect::<Vec<_>>(), [&secret]);
    assert_eq!(before[&secret], KnownPassword { password, problem: None });
    assert!(next_life.before(&Passwords::new(), &BTreeSet::new()).is_empty());
    let newer = Passwords::from([(secret.clone(), KnownPassword { password: None, problem: None })]);
    assert_eq!(next_life.before(&newer, &wanted), newer);

    assert!(next_life.begin() && !next_life.begin());
    next_life.keep(&Passwords::new());
    assert!(!path.exists());
    fs::write(&path, "no JSON").unwrap();
    assert!(RememberedPasswords::load(folder.path()).before(&Passwords::new(), &wanted).is_empty());
}
