//! An etcd that speaks TLS and lets in only clients with a certificate of its authority.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tests::pair::POOLS;
use tests::{CONVERGENCE, Lab, Options, Place, TestResult, can_run_labs, fake_clock, wait_until};

use crate::pair;

/// An authority's certificate, and one each for the server and its clients, in a folder.
fn certificates(folder: &Path) -> TestResult {
    fs::create_dir_all(folder)?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "lab authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(folder.join("ca.pem"), authority.pem())?;
    for (name, addresses) in [("server", vec!["172.20.40.10".to_owned(), "127.0.0.1".to_owned()]), ("node", Vec::new())]
    {
        let mut params = CertificateParams::new(addresses)?;
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        fs::write(folder.join(format!("{name}.pem")), params.signed_by(&key, &authority)?.pem())?;
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
    }
    Ok(())
}

#[test]
fn agents_and_manxctl_speak_tls_with_etcd_and_show_their_certificate() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let settings = "etcd:\n  endpoints: ['https://172.20.40.10:2379']\n  ca: /etc/manx/pki/ca.pem\n  \
                    cert: /etc/manx/pki/node.pem\n  key: /etc/manx/pki/node.key\n";
    let file = pair("tls", &format!("{settings}{POOLS}"))?;
    let folder = file.parent().ok_or("the topology lies in no folder")?;
    certificates(&folder.join("pki"))?;
    let pki = "/etc/manx/pki";
    let env = format!(
        "binds: ['pki:{pki}:ro']
      env:
        ETCD_DATA_DIR: /var/lib/etcd
        ETCD_LISTEN_CLIENT_URLS: https://0.0.0.0:2379
        ETCD_ADVERTISE_CLIENT_URLS: https://172.20.40.10:2379
        ETCD_CERT_FILE: {pki}/server.pem
        ETCD_KEY_FILE: {pki}/server.key
        ETCD_CLIENT_CERT_AUTH: 'true'
        ETCD_TRUSTED_CA_FILE: {pki}/ca.pem
        ETCDCTL_API: '3'
        ETCDCTL_ENDPOINTS: https://127.0.0.1:2379
        ETCDCTL_CACERT: {pki}/ca.pem
        ETCDCTL_CERT: {pki}/node.pem
        ETCDCTL_KEY: {pki}/node.key
"
    );
    let text = fs::read_to_string(&file)?;
    let plain = text.lines().find(|line| line.contains("ETCD_DATA_DIR")).ok_or("the etcd has no environment")?;
    let text = text.replace(plain, &format!("      {}", env.trim_end()));
    let text = text.replace(
        "      binds:\n        - agent.yaml",
        "      binds:\n        - pki:/etc/manx/pki:ro\n        - agent.yaml",
    );
    fs::write(&file, text)?;

    let lab = Lab::up(&file, &Options::unique("tls"))?;
    let node = lab.node("node1");
    node.plug("a")?;
    assert!(node.agent().ctl(&["get", "ippools"])?.contains("10.42.0.0/16"));
    wait_until("the pod being published", CONVERGENCE, || {
        lab.node("node2").agent().ctl(&["ipam", "show"]).is_ok_and(|said| said.contains("1 ("))
    })?;
    // Without a certificate no client is let in, and the agent says so and names the endpoint.
    fs::write(
        node.path("/etc/manx/bare.yaml"),
        "etcd: {endpoints: ['https://172.20.40.10:2379'], ca: /etc/manx/pki/ca.pem}\n",
    )?;
    let error = node.agent().ctl(&["--config", "/etc/manx/bare.yaml", "get", "ippools"]).expect_err("no certificate");
    assert!(error.to_string().contains("172.20.40.10:2379"), "{error}");
    // A wrong clock makes good certificates bad ones, and the agent says so.
    if let Some(preload) = fake_clock() {
        let clock = ["env", &preload, "FAKETIME=@1971-01-01 00:00:00", "manxctl", "get", "ippools"];
        let error = node.exec(&clock).expect_err("a certificate of the future").to_string();
        assert!(error.contains("not valid yet") && error.contains("clock"), "{error}");
    }
    lab.down()?;
    Ok(())
}
