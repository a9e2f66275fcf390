use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn a_binary_that_says_its_version_runs_and_any_other_is_an_error_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let tried = |name: &str, text: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        run(&path).map_err(|error| format!("{error:#}"))
    };
    let good = "#!/bin/sh\necho \"{\\\"manx.io/version\\\": \\\"1.2.3\\\", \\\"asked\\\": \\\"$CNI_COMMAND\\\"}\"\n";
    assert!(tried("good", good, 0o755).unwrap().ends_with("good: runs, version 1.2.3"));
    let said = tried("noexec", good, 0o644).unwrap_err();
    assert!(said.contains("no pod would start") && said.contains("mounted noexec"), "{said}");
    let said = tried("loader", "#!/nowhere/sh\n", 0o755).unwrap_err();
    assert!(said.contains("lacks the loader"), "{said}");
    let said = tried("fails", "#!/bin/sh\necho broken >&2; exit 3\n", 0o755).unwrap_err();
    assert!(said.contains("broken") && said.contains("exit status: 3"), "{said}");
    let said = tried("other", "#!/bin/sh\necho '{}'\n", 0o755).unwrap_err();
    assert!(said.contains("asked for its version"), "{said}");
}
