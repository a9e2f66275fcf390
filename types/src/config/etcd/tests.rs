use super::*;

fn tls() -> Option<EtcdTls> {
    Some(EtcdTls { ca: "/ca".into(), client: None })
}

#[test]
fn endpoints_that_etcd_could_not_be_reached_by_are_refused_by_name() {
    let none: [&str; 0] = [];
    let refusals = [
        (EtcdSettings::new(none, None), "etcd.endpoints: no endpoint"),
        (EtcdSettings::new(["https://a:1"], None), "etcd.endpoints: https://a:1 needs etcd.ca"),
        (
            EtcdSettings::new(["https://a:1", "http://b:1"], tls()),
            "etcd.endpoints: http://b:1 is not https://, but etcd.ca is set",
        ),
        (
            EtcdSettings::new(["unix://a"], None),
            "etcd.endpoints: \"unix://a\" is not a URL such as https://192.0.2.1:2379",
        ),
        (
            EtcdSettings::new(["http://:2379"], None),
            "etcd.endpoints: \"http://:2379\" is not a URL such as https://192.0.2.1:2379",
        ),
    ];
    for (settings, expected) in refusals {
        assert_eq!(settings.unwrap_err().to_string(), format!("configuration key {expected}"));
    }
    let settings = EtcdSettings::new(["https://a:1", "https://[fd00::1]:2"], tls()).unwrap();
    assert_eq!(settings.endpoints(), ["https://a:1", "https://[fd00::1]:2"]);
}

#[test]
fn a_prefix_has_one_slash_at_either_end_and_single_ones_between() {
    for (text, prefix) in [("/manx/v1/", "/manx/v1/"), ("//x/y//", "/x/y/")] {
        assert_eq!(text.parse::<KeyPrefix>().unwrap().to_string(), prefix);
    }
    for text in ["", "x", "/x", "x/"] {
        assert_eq!(text.parse::<KeyPrefix>(), Err("must begin and end with '/'".to_owned()), "{text}");
    }
    for text in ["/", "//", "/a//b/", "/a b/", "/\u{e4}/"] {
        assert_eq!(text.parse::<KeyPrefix>(), Err(format!("{text:?} is not a prefix such as /manx/v1/")));
    }
}

#[test]
fn a_password_does_not_show_itself() {
    let mut settings = EtcdSettings::new(["http://a:1"], None).unwrap();
    settings.user = Some(Credentials { username: "manx".to_owned(), password: Password::new("secret") });
    assert!(!format!("{settings:?}").contains("secret"));
}
