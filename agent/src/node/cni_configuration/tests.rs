use super::*;

#[test]
fn the_configuration_is_put_once_and_others_before_it_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().join("net.d");
    let path = put_conflist(&into).unwrap();
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    assert_eq!(put_conflist(&into).unwrap(), path);
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written, "what is there stays");
    assert_eq!(first_of_others(&into), None);
    for name in ["05-other.conflist", "99-last.conf", "00-readme.txt"] {
        std::fs::write(into.join(name), "{}").unwrap();
    }
    assert_eq!(first_of_others(&into).as_deref(), Some("05-other.conflist"));
    std::fs::write(&path, "{}").unwrap();
    put_conflist(&into).unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().contains("\"portmap\""), "another content is replaced");
}
