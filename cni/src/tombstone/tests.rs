use super::*;
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn a_tombstone_holds_the_id_under_the_interfaces_name_and_nothing_else_is_left() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path().join("run/released");
    let id: EndpointId = "net/c1/eth0".parse().unwrap();
    write(&folder, &id).unwrap();
    write(&folder, &id).unwrap();
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, [id.host_interface().as_str()]);
    let [Tombstone { path, id: Ok(found) }] = &list(&folder).unwrap()[..] else { panic!("one tombstone is listed") };
    assert_eq!((path, found), (&folder.join(id.host_interface().as_str()), &id));
    fs::write(path, "nonsense").unwrap();
    assert!(matches!(list(&folder).unwrap()[0].id, Err(TombstoneError::Nonsense(_))));
    fs::write(path, id.to_string()).unwrap();
    let text = fs::read_to_string(folder.join(id.host_interface().as_str())).unwrap();
    assert_eq!(text.parse::<EndpointId>().unwrap(), id);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    remove(&folder, &id).unwrap();
    remove(&folder, &id).unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    assert!(list(&folder).unwrap().is_empty() && list(&folder.join("missing")).unwrap().is_empty());
}

#[test]
fn a_tombstone_that_cannot_be_put_leaves_no_unfinished_file() {
    let scratch = tempfile::tempdir().unwrap();
    let id: EndpointId = "net/c1/eth0".parse().unwrap();
    // A folder of that name cannot be renamed over.
    fs::create_dir_all(scratch.path().join(id.host_interface().as_str()).join("x")).unwrap();
    assert!(write(scratch.path(), &id).is_err());
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
}
