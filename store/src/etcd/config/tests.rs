use types::config::ClientCertificate;

use super::*;

fn refusal(tls: EtcdTls) -> String {
    let settings = EtcdSettings::new(["https://a:1"], Some(tls)).unwrap();
    EtcdConfig::from(settings).options().unwrap_err().to_string()
}

#[test]
fn brackets_are_taken_off_addresses_of_ipv4_alone() {
    for (written, meant) in [
        ("http://[10.96.0.7]:2379", "http://10.96.0.7:2379"),
        ("http://[fd00:96::7]:2379", "http://[fd00:96::7]:2379"),
        ("http://10.96.0.7:2379", "http://10.96.0.7:2379"),
        ("http://[10.96.0]:2379", "http://[10.96.0]:2379"),
        ("http://etcd-1:2379", "http://etcd-1:2379"),
    ] {
        assert_eq!(EtcdConfig::from(EtcdSettings::new([written], None).unwrap()).urls(), [meant]);
    }
}

#[test]
fn a_file_that_is_not_there_or_is_no_certificate_is_named_with_its_key_and_path() {
    let no_file = "/no/such/ca.pem: No such file or directory (os error 2)";
    assert_eq!(refusal(EtcdTls { ca: "/no/such/ca.pem".into(), client: None }), format!("etcd.ca {no_file}"));

    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "not PEM").unwrap();
    assert_eq!(
        refusal(EtcdTls { ca: file.path().to_owned(), client: None }),
        format!("etcd.ca {}: no PEM section that ends in CERTIFICATE-----", file.path().display())
    );
    fs::write(file.path(), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let client = ClientCertificate { cert: file.path().to_owned(), key: file.path().to_owned() };
    assert_eq!(
        refusal(EtcdTls { ca: file.path().to_owned(), client: Some(client) }),
        format!("etcd.key {}: no PEM section that ends in PRIVATE KEY-----", file.path().display())
    );
}
