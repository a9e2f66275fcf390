use super::*;

#[test]
fn another_object_under_the_name_of_one_that_was_not_deleted_is_found_out() {
    let mut pods = Mirror::new();
    pods.apply(Update::Restart);
    assert!(!is_taken_over(&mut pods, &"web", "uid-1"));
    pods.apply(Update::InSync);
    assert!(!is_taken_over(&mut pods, &"web", "uid-1"), "a change of the same pod");
    pods.apply(Update::Delete("web"));
    assert!(!is_taken_over(&mut pods, &"web", "uid-2"), "its deletion was reported");
    pods.apply(Update::Restart);
    assert!(is_taken_over(&mut pods, &"web", "uid-3"), "a listing names another pod");
    pods.apply(Update::Restart);
    pods.apply(Update::InSync);
    assert!(!is_taken_over(&mut pods, &"web", "uid-4"), "its absence from a whole listing was report enough");
}
