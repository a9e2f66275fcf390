use super::*;

#[test]
fn a_state_directory_is_private_and_lets_one_agent_in_at_a_time() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("lib/manx");
    assert!(StateDir::lock_existing(&path).unwrap().is_none() && !path.exists());
    let first = StateDir::lock(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(path.join("lock")).unwrap().permissions().mode() & 0o777, 0o600);

    let error = StateDir::lock(&path).unwrap_err();
    assert!(matches!(error, StateDirError::InUse { .. }));
    assert!(error.to_string().starts_with(&format!("{} is in use by another agent", path.display())), "{error}");
    assert!(StateDir::lock_existing(&path).is_err());

    drop(first);
    StateDir::lock(&path).unwrap();
}

#[test]
fn a_path_that_cannot_be_a_directory_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = StateDir::lock(file.path().join("manx")).unwrap_err().to_string();
    assert!(error.contains(&file.path().display().to_string()), "{error}");
}
