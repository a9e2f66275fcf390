use super::*;

#[test]
fn the_group_is_what_the_agent_left_last_and_the_default_where_that_is_no_group() {
    let run_dir = tempfile::tempdir().unwrap();
    assert_eq!(read(run_dir.path()), ours::LINK_GROUP);
    for group in [99, 7] {
        write(run_dir.path(), group).unwrap();
        assert_eq!(read(run_dir.path()), group);
    }
    assert_eq!(fs::read_dir(run_dir.path()).unwrap().count(), 1);
    for nonsense in ["", "0", "-1", "a group"] {
        fs::write(run_dir.path().join(types::cni::PARKED_GROUP), nonsense).unwrap();
        assert_eq!(read(run_dir.path()), ours::LINK_GROUP, "{nonsense:?}");
    }
}
