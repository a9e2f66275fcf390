use super::*;
use crate::endpoints::tests::endpoint;

#[test]
fn endpoints_are_shown_with_what_policies_see_of_them() {
    let mut located = endpoint("c1", "shop", "web");
    assert_eq!(
        table(std::slice::from_ref(&located), true, false),
        "NAMESPACE  POD  NODE  ADDRESSES  LABELS\nshop       web  a     10.0.0.1   app=web"
    );
    located.endpoint.finished = true;
    located.node = None;
    let wide = table(&[located], false, true);
    assert!(wide.contains("web (ended)  this node") && wide.contains("manx/c1/eth0"), "{wide}");
}
