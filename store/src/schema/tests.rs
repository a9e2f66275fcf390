use super::*;
use crate::Memory;

#[tokio::test]
async fn the_layouts_version_is_written_once_and_a_newer_one_is_refused_by_name() {
    let store = Memory::new();
    check_schema(&store).await.unwrap();
    let entry = store.get(&keys::schema_version()).await.unwrap().unwrap();
    assert_eq!(entry.value, br#"{"version":1}"#);
    check_schema(&store).await.unwrap();

    let newer = Write::put(keys::schema_version(), br#"{"version":2}"#.to_vec());
    store.transact(vec![], vec![newer]).await.unwrap();
    let error = check_schema(&store).await.unwrap_err();
    assert_eq!(error.to_string(), "the store's key `version` says 2; this build knows 1 and older");
}
