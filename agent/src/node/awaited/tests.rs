use kernel::fake::FakeKernel;
use kernel::{InterfaceAddress, Kernel as _};
use types::config::AddressDetection;

use super::super::addresses::find;
use super::*;

const EARLIER_REASONS: usize = 5;

fn methods(ipv4: &str, ipv6: &str) -> AddressDetection {
    AddressDetection { ipv4: ipv4.parse().unwrap(), ipv6: ipv6.parse().unwrap() }
}

fn missing(readiness: &Readiness) -> Option<String> {
    readiness.reasons().into_iter().find(|reason| reason.contains("waits for"))
}

#[tokio::test(start_paused = true)]
async fn the_agent_waits_for_every_address_that_it_was_told_to_find_and_says_which_is_missing() {
    let methods = methods("interface=eth1", "interface=eth1");
    let (mut kernel, readiness) = (FakeKernel::new(), Readiness::new());
    let (news, changes) = mpsc::channel(1);
    let (mut seen, told) = (kernel.clone(), readiness.clone());
    let wait = tokio::spawn(async move { addresses(|| find(&methods, &mut seen, &[]), changes, &told).await });

    let mut reasons = readiness.changes();
    reasons.wait_for(|reasons| reasons.len() > EARLIER_REASONS).await.unwrap();
    let reason = missing(&readiness).unwrap();
    assert!(reason.contains("addressDetection.ipv4") && reason.contains("eth1"), "{reason}");

    let index = kernel.add_link("eth1", true);
    kernel.add_address(&InterfaceAddress::new(index, "192.0.2.1".parse().unwrap(), 24)).unwrap();
    news.send(()).await.unwrap();
    reasons.wait_for(|reasons| reasons.values().any(|reason| reason.contains("addressDetection.ipv6"))).await.unwrap();
    assert!(!wait.is_finished(), "one of two families is not what was asked for");

    // Heard of by nobody: it is found all the same.
    kernel.add_address(&InterfaceAddress::new(index, "2001:db8::1".parse().unwrap(), 64)).unwrap();
    let found = wait.await.unwrap().unwrap();
    assert_eq!(found, ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
    assert_eq!(missing(&readiness), None);
}

#[tokio::test(start_paused = true)]
async fn an_address_of_the_wrong_family_is_not_waited_for() {
    let (_news, changes) = mpsc::channel(1);
    let methods = methods("2001:db8::1", "none");
    let found = addresses(|| find(&methods, &mut FakeKernel::new(), &[]), changes, &Readiness::new()).await;
    let error = found.unwrap_err().to_string();
    assert!(error.starts_with("addressDetection.ipv4: 2001:db8::1"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn without_news_of_changes_it_is_looked_for_all_the_same() {
    let (news, changes) = mpsc::channel(1);
    drop(news);
    let mut kernel = FakeKernel::new();
    let mut looks = 0;
    let look = || {
        looks += 1;
        if looks == 3 {
            let index = kernel.add_link("eth1", true);
            kernel.add_address(&InterfaceAddress::new(index, "192.0.2.1".parse().unwrap(), 24)).unwrap();
        }
        find(&methods("interface=eth1", "none"), &mut kernel, &[])
    };
    assert_eq!(addresses(look, changes, &Readiness::new()).await.unwrap().len(), 1);
    assert_eq!(looks, 3);
}
