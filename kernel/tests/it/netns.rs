//! Tests of network namespaces.

use kernel::netns::run_in;
use kernel::{Kernel, KernelError, Linux, Netns};

use crate::in_fresh_namespace;

#[test]
fn a_socket_keeps_the_namespace_in_which_it_was_opened() {
    in_fresh_namespace(|| {
        let here = Netns::current().unwrap();
        let there = Netns::create().unwrap();
        assert_ne!(here, there);
        assert_eq!(run_in(&there, Netns::current).unwrap().unwrap(), there);
        assert_eq!(Netns::current().unwrap(), here, "only the other thread moved");
        let mut inside = Linux::open_in(&there).unwrap();
        let index = Linux::open().unwrap().create_veth(&crate::veth("mx0", &there)).unwrap();
        let links = inside.links().unwrap();
        assert!(links.iter().any(|link| link.name == "eth0" && link.peer_index == Some(index)));
        assert!(!links.iter().any(|link| link.name == "mx0"));
    });
}

#[test]
fn a_named_namespace_lives_until_its_name_is_deleted() {
    in_fresh_namespace(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netns/node-a");
        let made = Netns::create_named(&path).unwrap();
        assert_eq!(Netns::open(&path).unwrap(), made);
        assert!(matches!(Netns::create_named(&path), Err(KernelError::Exists(_))));
        Netns::delete_named(&path).unwrap();
        assert!(!path.exists());
        Netns::delete_named(&path).expect("an absent one is success");
    });
}

#[test]
fn a_path_that_is_no_namespace_is_gone() {
    in_fresh_namespace(|| {
        let file = tempfile::NamedTempFile::new().unwrap();
        for path in [file.path(), std::path::Path::new("/run/no/such")] {
            let error = Netns::open(path).unwrap_err();
            assert!(matches!(error, KernelError::Gone(_)), "{error}");
        }
        assert!(Netns::of_process(std::process::id()).is_ok());
    });
}

#[test]
fn a_panic_inside_goes_on_outside() {
    in_fresh_namespace(|| {
        let here = Netns::current().unwrap();
        let outcome = std::panic::catch_unwind(|| run_in(&here, || panic!("on purpose")));
        assert!(outcome.is_err());
    });
}
