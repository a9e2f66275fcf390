use super::*;

fn refusal(config: &EtcdConfig) -> String {
    let checks = [config.urls().err(), config.user().err(), config.options().err(), config.checked_prefix().err()];
    checks.into_iter().flatten().map(|error| error.to_string()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_setting_that_cannot_be_used_is_named() {
    let base = EtcdConfig::new(["127.0.0.1:2379"]);
    assert_eq!(refusal(&base), "");
    let cases = [
        (EtcdConfig { endpoints: vec![], ..base.clone() }, "etcd.endpoints: no endpoint"),
        (EtcdConfig::new(["https://a:1"]), "etcd.endpoints: https://a:1 needs etcd.ca"),
        (EtcdConfig::new(["unix://a"]), "etcd.endpoints: unix://a is not an http:// or https:// URL"),
        (EtcdConfig { username: Some("manx".into()), ..base.clone() }, "etcd.password: missing beside etcd.username"),
        (EtcdConfig { cert: Some("/c".into()), ..base.clone() }, "etcd.ca: missing beside etcd.cert"),
        (EtcdConfig { prefix: "/".into(), ..base.clone() }, "etcd.prefix: \"/\" is not a prefix such as /manx/v1/"),
        (
            EtcdConfig { ca: Some("/no/such/ca.pem".into()), ..base.clone() },
            "etcd.ca /no/such/ca.pem: No such file or directory (os error 2)",
        ),
    ];
    for (config, expected) in cases {
        assert_eq!(refusal(&config), expected);
    }
}

#[test]
fn brackets_are_taken_off_addresses_of_ipv4_alone() {
    for (written, meant) in [
        ("http://[10.96.0.7]:2379", "http://10.96.0.7:2379"),
        ("http://[fd00:96::7]:2379", "http://[fd00:96::7]:2379"),
        ("http://10.96.0.7:2379", "http://10.96.0.7:2379"),
        ("http://[10.96.0]:2379", "http://[10.96.0]:2379"),
        ("etcd-1:2379", "http://etcd-1:2379"),
    ] {
        assert_eq!(EtcdConfig::new([written]).urls(), Ok(vec![meant.to_owned()]));
    }
}

#[test]
fn a_file_that_is_no_certificate_is_named_with_its_path() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "not PEM").unwrap();
    let config = EtcdConfig { ca: Some(file.path().to_owned()), ..EtcdConfig::new(["a:1"]) };
    assert_eq!(
        refusal(&config),
        format!("etcd.ca {}: no PEM section that ends in CERTIFICATE-----", file.path().display())
    );
}

#[test]
fn a_password_does_not_show_itself() {
    let config = EtcdConfig { password: Some(Password::new("secret")), ..EtcdConfig::default() };
    assert!(!format!("{config:?}").contains("secret"));
}
