use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn args(dir: &Path, clients: &[&str]) -> CertsMake {
    let clients = clients.iter().map(|name| name.parse().unwrap()).collect();
    CertsMake { dir: dir.to_owned(), server: vec!["10.0.0.1".to_owned(), "etcd.test".to_owned()], days: 1, clients }
}

#[test]
fn a_node_more_is_signed_by_the_same_authority_and_what_was_made_stays() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("pki");
    let text = |path: &str| fs::read_to_string(dir.join(path)).unwrap();
    make(&args(&dir, &["node-1"])).unwrap();
    let (authority, first) = (text("ca/ca.crt"), text("node-1/tls.crt"));
    make(&args(&dir, &["node-1", "node-2"])).unwrap();
    assert_eq!((text("ca/ca.crt"), text("node-1/tls.crt")), (authority.clone(), first));
    for owner in ["server", "root", "node-1", "node-2"] {
        assert_eq!(text(&format!("{owner}/ca.crt")), authority);
        let key = fs::metadata(dir.join(owner).join(KEY)).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
    }
    fs::remove_file(dir.join("ca/ca.key")).unwrap();
    let error = make(&args(&dir, &[])).unwrap_err().to_string();
    assert!(error.contains("one is missing"), "{error}");
}
