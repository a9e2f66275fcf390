use std::path::Path;

use kernel::acl::{ElementChange, SetElement, SetName, Sets as _};

use crate::policy::pods::Identities;
use crate::testing::{World, attached, attachments, id, pod, tier};

#[tokio::test]
async fn an_attachment_is_verified_against_the_kernels_sets_and_what_is_gone_is_named() {
    let world = World::new().await;
    let attachments = attachments(&world, Identities::Stated, Path::new("/nowhere"));
    let none = attachments.verify(&id("aaa1")).await.unwrap_err();
    assert_eq!(none.msg, "manx/aaa1/eth0 holds no addresses on this node");
    let id = attached(&world, "aaa1", &pod("a", "u", tier("web")).1).await;
    let wire = attachments.verify(&id).await.unwrap();
    assert_eq!(wire.addresses, world.ipam.endpoint(id.clone()).await.unwrap().addresses);

    // Another program empties the sets that map the pod's address.
    let mut sets = world.filter.sets();
    let names: Vec<SetName> = sets.sets().unwrap().into_iter().map(|header| header.name).collect();
    for name in names {
        let of_pod = |member: &SetElement| match member {
            SetElement::Mark(mark) => wire.addresses.contains(&mark.address),
            SetElement::Home(home) => wire.addresses.contains(&home.address),
            _ => false,
        };
        let members = sets.elements(&name).unwrap();
        for member in members.into_iter().filter(of_pod) {
            let removal = match member {
                SetElement::Mark(mark) => kernel::acl::SetOf::new(name.clone()).changes([ElementChange::Delete(mark)]),
                SetElement::Home(home) => kernel::acl::SetOf::new(name.clone()).changes([ElementChange::Delete(home)]),
                _ => continue,
            };
            assert_eq!(sets.change_elements(&removal).unwrap(), []);
        }
    }
    let refused = attachments.verify(&id).await.unwrap_err().msg;
    assert!(refused.contains("is mapped to no class of policies"), "{refused}");
    assert!(refused.contains("is not known to be behind mx"), "{refused}");
}
