//! What items of `allowed_urls` allow, and what they never allow.

use proptest::prelude::*;

use super::*;

fn permits(allowed: &str, url: &str) -> bool {
    may(allowed, false, url)
}

fn may(allowed: &str, any: bool, url: &str) -> bool {
    let (allowed, _) = AllowedUrls::read(allowed, any);
    SourceUrl::parse(url).is_ok_and(|(source, _)| allowed.permit(&source))
}

fn notes(allowed: &str) -> Vec<String> {
    AllowedUrls::read(allowed, false).1
}

#[test]
fn urls_are_compared_by_component() {
    let allowed = "https://models.example.com/team/";
    for url in [
        "https://models.example.com/team/a.mar",
        "HTTPS://Models.Example.COM:443/team/a/b.mar?sign=1#sha256=00",
        "https://models.example.com/%74eam/a.mar",
    ] {
        assert!(permits(allowed, url), "{url}");
    }
    for url in [
        "http://models.example.com/team/a.mar",
        "https://models.example.com:8443/team/a.mar",
        "https://models.example.com/teams/a.mar",
        "https://models.example.com/team-b/a.mar",
        "https://models.example.com/a.mar",
        "https://models.example.com.evil.com/team/a.mar",
        "https://models.example.com./team/a.mar",
        "https://models.example.com@evil.com/team/a.mar",
        "https://user@models.example.com/team/a.mar",
        "https://evil.com/https://models.example.com/team/a.mar",
        "https://models.example.com/team/%2e%2e/other/a.mar",
        "https://models.example.com/team/.%2E/other/a.mar",
        "https://models.example.com/team/%2e%2e;/other/a.mar",
        "https://models.example.com/team/..;x=1/other/a.mar",
        "https://models.example.com//team/a.mar",
        "https://models.example.com/team/x%2f..%2f..%2fother.mar",
        "https://models.example.com/team/a%00.mar",
        "https://models.example.com\\team\\a.mar",
        "https:\\\\models.example.com/team/a.mar",
        "https://models.example.com/te\tam/a.mar",
        " https://models.example.com/team/a.mar",
        "ftp://models.example.com/team/a.mar",
        "//models.example.com/team/a.mar",
    ] {
        assert!(!permits(allowed, url), "{url}");
    }
}

#[test]
fn an_address_in_another_notation_is_the_same_address() {
    let loopback = [
        "http://127.0.0.1:9/x.mar",
        "http://2130706433:9/x.mar",
        "http://0177.0.0.1:9/x.mar",
        "http://0x7f.1:9/x.mar",
    ];
    for url in loopback {
        assert!(permits("http://127.0.0.1:9/", url), "{url}");
        assert!(!permits("http://10.0.0.1:9/", url), "{url}");
    }
    for url in [
        "http://[::1]:9/x.mar",
        "http://[::ffff:127.0.0.1]:9/x.mar",
        "http://0.0.0.0:9/x.mar",
        "http://localhost:9/x.mar",
    ] {
        assert!(!permits("http://127.0.0.1:9/", url), "{url}");
    }
}

/// Each form that is found in TorchServe's files, what it allows, and what it does not.
const FORMS: [(&str, &[&str], &[&str]); 18] = [
    (
        "https://s3.amazonaws.com/.*",
        &[
            "https://s3.amazonaws.com/a/b.mar",
            "https://S3.amazonaws.com/b.mar?X-Amz-Signature=1",
        ],
        &[
            "https://s3xamazonaws.com/b.mar",
            "http://s3.amazonaws.com/b.mar",
        ],
    ),
    (
        "https://s3\\.amazonaws\\.com/.*",
        &["https://s3.amazonaws.com/b.mar"],
        &["https://s3.amazonaws.com.evil.com/b.mar"],
    ),
    (
        "^https://s3.amazonaws.com.*$",
        &["https://s3.amazonaws.com/b.mar"],
        &[
            "https://s3.amazonaws.com.evil.com/b.mar",
            "https://s3.amazonaws.com@evil.com/b.mar",
        ],
    ),
    (
        "https?://h.org/.*",
        &["http://h.org/b.mar", "https://h.org/b.mar"],
        &["s3://h.org/b.mar"],
    ),
    (
        "http(s)?://h.org/.*,s3://b/.*",
        &["https://h.org/b.mar", "s3://b/x/y.mar"],
        &["s3://bb/y.mar"],
    ),
    (
        "(http|https)://h.org/.*",
        &["http://h.org/b.mar", "https://h.org/b.mar"],
        &["https://i.org/b.mar"],
    ),
    (
        "https://a\\.org/.*|https://b\\.org/models/.*",
        &["https://a.org/x.mar", "https://b.org/models/x.mar"],
        &["https://b.org/x.mar", "https://a.org.evil.com/x.mar"],
    ),
    (
        "https://(a|b)\\.org/.*",
        &["https://a.org/x.mar", "https://b.org/x.mar"],
        &["https://ab.org/x.mar", "https://c.org/x.mar"],
    ),
    (
        "https://bucket.host/.*\\.mar",
        &["https://bucket.host/x.mar", "https://bucket.host/a/b/x.MAR"],
        &[
            "https://bucket.host/x.tar.gz",
            "https://bucket.host/x.mar?y",
            "https://bucket.host.evil.com/x.mar",
            "https://bucket.host@evil.com/x.mar",
            "https://evil.com/https://bucket.host/x.mar",
            "https://bucket.host/%2e%2e/x.mar",
            "https://bucket%2ehost/y%2emar",
        ],
    ),
    (
        "https://h.org/.*\\.(mar|tar\\.gz)",
        &["https://h.org/x.mar", "https://h.org/x.tar.gz"],
        &["https://h.org/x.zip"],
    ),
    (
        "https://h.org/models/[^/]+\\.mar",
        &["https://h.org/models/x.mar"],
        &["https://h.org/models/a/x.mar", "https://h.org/models/.mar"],
    ),
    (
        "https://h.org/models.*",
        &[
            "https://h.org/models-of-ours/x.mar",
            "https://h.org/models/x.mar",
        ],
        &["https://h.org/x.mar"],
    ),
    (
        "https://h.org/a[.]mar",
        &["https://h.org/a.mar"],
        &["https://h.org/axmar", "https://h.org/a.mar/b"],
    ),
    (
        "(?i)HTTPS://H.ORG/.*",
        &["https://h.org/x.mar"],
        &["https://i.org/x.mar"],
    ),
    (
        "https://h.org:8443/.*",
        &["https://h.org:8443/x.mar"],
        &["https://h.org/x.mar", "https://h.org:84430/x.mar"],
    ),
    (
        "file:///srv/models/.*",
        &["file:///srv/models/x.mar"],
        &["file:///srv/models-of-others/x.mar", "file:///etc/passwd"],
    ),
    (
        "file:///srv/models/.*\\.mar",
        &["file:///srv/models/x.mar"],
        &["file:///srv/models/x.key"],
    ),
    (
        "https://h.org/x.mar",
        &["https://h.org/x.mar"],
        &["https://h.org/y.mar"],
    ),
];

#[test]
fn values_of_torchserve_that_name_their_hosts_are_understood() {
    for (allowed, good, bad) in FORMS {
        for url in good {
            assert!(permits(allowed, url), "{allowed} {url}");
        }
        for url in bad {
            assert!(!permits(allowed, url), "{allowed} {url}");
        }
    }
    assert_eq!(notes("https://bucket.host/.*\\.mar"), Vec::<String>::new());
}

#[test]
fn a_pattern_that_goes_on_in_the_host_is_read_narrower_and_says_so() {
    let notes = notes("https://s3.amazonaws.com.*");
    assert!(
        notes[0].contains("read as if a slash ended the host"),
        "{notes:?}"
    );
    assert!(
        notes[0].contains("the model store and https://s3.amazonaws.com.*"),
        "{notes:?}"
    );
}

/// Forms that stand for every host or file, and something that they then allow.
const EVERYTHING: [(&str, &str); 8] = [
    ("file://.*|http(s)?://.*", "https://h.org/x.mar"),
    ("file://.*|http(s)?://.*", "file:///srv/x.mar"),
    (".*", "http://h.org/x.mar"),
    ("https?://.*", "https://h.org/x.mar"),
    ("https://.*", "https://h.org/x.mar"),
    ("s3://.*", "s3://bucket/x.mar"),
    ("file:///.*", "file:///srv/x.mar"),
    (".*\\.mar", "https://h.org/x.mar"),
];

#[test]
fn every_host_takes_one_more_word() {
    for (allowed, url) in EVERYTHING {
        assert!(!permits(allowed, url), "{allowed}");
        let said = notes(allowed).join("\n");
        for part in [
            allowed,
            "lantern_allow_any_url=true",
            "the model store alone",
        ] {
            assert!(
                said.contains(&format!("{part:?}")) || said.contains(part),
                "{said}"
            );
        }
        assert!(may(allowed, true, url), "{allowed}");
        assert_eq!(AllowedUrls::read(allowed, true).1, Vec::<String>::new());
    }
    let mixed = notes("https://h.org/.*,.*");
    assert_eq!(mixed.len(), 1);
    assert!(
        mixed[0].contains("the model store and https://h.org/.*"),
        "{mixed:?}"
    );
    assert!(permits("https://h.org/.*,.*", "https://h.org/x.mar"));
}

#[test]
fn every_host_is_not_this_machine() {
    for url in [
        "http://localhost/x.mar",
        "http://a.localhost/x.mar",
        "http://127.0.0.1/x.mar",
        "http://2130706433/x.mar",
        "http://[::1]/x.mar",
        "http://[::ffff:10.0.0.1]/x.mar",
        "http://169.254.169.254/latest/meta-data/x.mar",
        "http://10.0.0.1/x.mar",
    ] {
        assert!(!may("https?://.*", true, url), "{url}");
        assert!(!may(".*", true, url), "{url}");
    }
    assert!(may(
        "https?://.*,http://127.0.0.1:9/",
        true,
        "http://127.0.0.1:9/x.mar"
    ));
}

#[test]
fn what_is_not_read_allows_nothing_and_is_named() {
    for (bad, says) in [
        ("https://.*\\.h\\.org/.*", "fixes no host"),
        ("https://[a-z]+.h.org/.*", "bracket"),
        ("https://h.org/.*/models/.*", "second part"),
        ("https://h\\d.org/.*", "backslash"),
        ("https://h.org/(a", "opening parenthesis"),
        ("https://h.org/a)", "closing parenthesis"),
        ("https://h.org/a{2}", "repetition"),
        ("https://h.org/(ab)*", "repetition"),
        ("https://(?!evil).*", "group"),
        ("https://h.org/a$b", "anchor"),
        ("https://*.h.org/", "repetition"),
        ("https://user@h.org/.*", "host"),
        ("file:///srv.*", "fixes no host"),
        ("ftp://h.org/.*", "host"),
        ("https://h.org/a/../b/", "encoded slashes, dots that climb"),
        ("https://user@h.org/", "user name"),
        ("file:///", "must name a directory"),
        ("file://host/srv", "must name a host, or none"),
        ("ftp://h.org/", "must start with https://"),
        ("h.org", "is not a URL"),
    ] {
        let said = notes(bad).join("\n");
        assert!(
            said.contains(&format!("{bad:?}")) && said.contains(says),
            "{bad}: {said}"
        );
        assert!(
            said.ends_with("archives come from the model store alone"),
            "{said}"
        );
    }
    assert_eq!(AllowedUrls::read(" , ", false), Default::default());
}

#[test]
fn an_expression_takes_little_time_and_room() {
    let groups = "(a|b)?".repeat(40);
    let nested = format!("{}a{}", "(".repeat(1000), ")".repeat(1000));
    for bad in [
        format!("https://h.org/{groups}"),
        format!("https://h.org/{nested}"),
    ] {
        assert_eq!(notes(&bad).len(), 1);
    }
}

/// Items as they may be typed: parts that are understood, and some that are not.
fn items() -> impl Strategy<Value = String> {
    let scheme = prop_oneof![
        Just("https://"),
        Just("http://"),
        Just("https?://"),
        Just("http(s)?://"),
        Just("(http|https)://"),
        Just("s3://"),
        Just("file:///"),
        Just(""),
        Just("^https://"),
    ];
    let host = prop_oneof![
        Just("h.org"),
        Just("h\\.org"),
        Just("(a|h)\\.org"),
        Just("h.org.*"),
        Just(".*\\.org"),
        Just(".*"),
        Just("h.org:8443"),
        Just("[hi].org"),
        Just("h.org@"),
        Just("srv"),
    ];
    let path = prop_oneof![
        Just("/.*"),
        Just("/.+"),
        Just("/a/.*\\.mar"),
        Just("/[^/]*"),
        Just("/a/[^/]+\\.mar"),
        Just("/(a|b)?/.*"),
        Just("/a.*"),
        Just("/x.mar$"),
        Just("/?.*"),
        Just(""),
        Just("/.*/b/.*"),
        Just("/a?b.*?"),
        Just("/a\\?b=.*"),
    ];
    let one = (scheme, host, path).prop_map(|(scheme, host, path)| format!("{scheme}{host}{path}"));
    prop::collection::vec(one, 1..3).prop_map(|all| all.join("|"))
}

/// URLs near those, and others that try to look like them.
fn urls() -> impl Strategy<Value = String> {
    let scheme = prop_oneof![
        Just("https://"),
        Just("http://"),
        Just("HTTPS://"),
        Just("s3://"),
        Just("file:///"),
        Just("https:///")
    ];
    let host = prop_oneof![
        Just("h.org"),
        Just("H.ORG"),
        Just("a.org"),
        Just("i.org"),
        Just("h.org.evil.com"),
        Just("h.org@evil.com"),
        Just("hxorg"),
        Just("h.org:8443"),
        Just("h.org:443"),
        Just("evil.org"),
        Just("h%2eorg"),
        Just("evil.com?h.org"),
        Just("evil.com#h.org"),
        Just("srv"),
    ];
    let path = prop::collection::vec(
        prop_oneof![
            Just("/"),
            Just("a"),
            Just("b"),
            Just("/a/"),
            Just("x.mar"),
            Just("x.MAR"),
            Just(".mar"),
            Just(".."),
            Just("%2e%2e"),
            Just("%2f"),
            Just("?b="),
            Just("#"),
            Just("//"),
            Just("@"),
            Just("h.org"),
            Just("\\"),
            Just("\n"),
        ],
        0..6,
    );
    (scheme, host, path)
        .prop_map(|(scheme, host, path)| format!("{scheme}{host}/{}", path.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_url_is_allowed_that_the_expression_does_not_match(item in items(), url in urls(), any: bool) {
        // The start of URLs is no expression: it is compared part by part, and decoded.
        prop_assume!(pattern::is_pattern(&item));
        if may(&item, any, &url) {
            let expression = regex::RegexBuilder::new(&format!("^(?:{item})$")).case_insensitive(true).build().unwrap();
            prop_assert!(expression.is_match(&url), "{item} {url}");
        }
    }

    #[test]
    fn no_other_host_is_allowed_than_the_expression_names(item in items(), url in urls()) {
        if may(&item, false, &url) {
            let host = Url::parse(&url).unwrap().host_str().map(str::to_owned);
            let is_named = host.as_deref().is_none_or(|host| ["h.org", "a.org", "i.org", "srv"].contains(&host));
            prop_assert!(is_named, "{item} {url}");
        }
    }

    #[test]
    fn any_text_is_read_or_named(item in "[a-z:/.*+?()|\\[\\]^$\\\\{}@%-]{0,40}", url in urls()) {
        let _ = may(&item, true, &url);
    }

    #[test]
    fn whatever_is_permitted_has_the_allowed_host(url in "(https?|s3):[/\\\\]{0,3}[a-z0-9.@:%/\\\\#?]{0,40}") {
        let (allowed, _) = AllowedUrls::read("https://h.org/a/", false);
        if let Ok((source, parsed)) = SourceUrl::parse(&url) && allowed.permit(&source) {
            prop_assert_eq!(parsed.host_str(), Some("h.org"));
            prop_assert!(parsed.path().starts_with("/a"));
        }
    }
}
