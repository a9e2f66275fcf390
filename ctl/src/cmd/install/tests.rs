use super::*;

#[test]
fn a_file_is_replaced_as_a_whole_and_leaves_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("opt/cni/bin/manx");
    put(&path, b"one", 0o755).unwrap();
    let running = fs::File::open(&path).unwrap();
    put(&path, b"two", 0o755).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(io::read_to_string(running).unwrap(), "one");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
}

#[test]
fn what_is_in_a_binarys_place_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let args = NodeInstall { host: folder.path().join("host"), from: folder.path().join("image") };
    for (name, text) in [("manx", "new"), ("portmap", "same"), ("third", "third")] {
        put(&args.from.join(name), text.as_bytes(), 0o755).unwrap();
    }
    put(&place(&args.host, "manx"), b"old", 0o755).unwrap();
    put(&place(&args.host, "portmap"), b"same", 0o755).unwrap();
    put(&args.from.join("fourth"), b"fourth", 0o755).unwrap();
    put(&place(&args.host, "fourth"), b"fourth", 0o644).unwrap();
    let seen: Vec<_> = binaries(&args).unwrap().into_iter().map(|binary| (binary.name, binary.there)).collect();
    let expected =
        [("fourth", There::Unusable), ("manx", There::Other), ("portmap", There::Same), ("third", There::Nothing)];
    assert_eq!(seen, expected.map(|(name, there)| (name.to_owned(), there)));
}
