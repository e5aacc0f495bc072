//! Downloads from scripted servers: what is fetched, what is refused, and which files are left.

use std::fs;

use tempfile::TempDir;

use super::*;
use origin::{Origin, header, reply, whole_or_rest};

#[path = "../../../tests/support/origin.rs"]
#[allow(dead_code, reason = "tests of the program use the rest")]
mod origin;

/// A model store and a fetcher into it.
struct Place {
    directory: TempDir,
    cfg: FetchConfig,
}

impl Place {
    fn allowing(allowed: &str) -> Self {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("store")).unwrap();
        let cfg = FetchConfig {
            allowed: AllowedUrls::read(allowed, false).0,
            limit: 1 << 20,
            ..FetchConfig::default()
        };
        Self { directory, cfg }
    }

    fn store(&self) -> std::path::PathBuf {
        self.directory.path().join("store")
    }

    fn fetcher(&self) -> Fetcher {
        Fetcher::new(self.cfg.clone(), ModelStore::new(Some(self.store())))
    }

    async fn find(&self, url: &str) -> Result<Found, ArchiveError> {
        self.fetcher().find(url, NamedBy::Client).await
    }

    async fn refused(&self, url: &str) -> String {
        self.find(url).await.unwrap_err().to_string()
    }

    /// Everything in the store, hidden or not, with its contents.
    fn contents(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let mut pending = vec![self.store()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    let name = path
                        .strip_prefix(self.store())
                        .unwrap()
                        .display()
                        .to_string();
                    found.push((name, fs::read(path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }

    fn names(&self) -> Vec<String> {
        self.contents().into_iter().map(|(name, _)| name).collect()
    }
}

fn body() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

#[tokio::test]
async fn a_download_lies_in_the_store_and_goes_unless_it_is_kept() {
    let origin = Origin::serving(body()).await;
    let place = Place::allowing(&origin.url("/"));
    let found = place
        .find(&origin.url("/team/x.mar?signature=secret"))
        .await
        .unwrap();
    assert_eq!(
        found.location.path(),
        place.store().canonicalize().unwrap().join("x.mar")
    );
    assert_eq!(fs::read(found.location.path()).unwrap(), body());
    drop(found);
    assert_eq!(place.names(), Vec::<String>::new());
    let found = place.find(&origin.url("/team/x.mar")).await.unwrap();
    found.download.as_ref().unwrap().keep();
    drop(found);
    assert_eq!(place.names(), ["x.mar"]);
    assert_eq!(
        place.refused(&origin.url("/other/x.mar")).await,
        "Model file already exists x.mar"
    );
    assert_eq!(origin.heads().len(), 2);
}

#[tokio::test]
async fn nothing_that_is_not_allowed_is_connected_to() {
    let canary = Origin::serving(body()).await;
    let port = canary.address().port();
    let allowed = Origin::start({
        let canary = canary.url("/x.mar");
        move |_, _| reply("302 Found", &[&format!("location: {canary}")], b"")
    })
    .await;
    let mut place = Place::allowing(&format!(
        "{},http://models.example.com:{port}/",
        allowed.url("/")
    ));
    place.cfg.lookup = Arc::new(|_| Box::pin(async { Ok(vec!["127.0.0.1".parse().unwrap()]) }));
    for url in [
        format!("http://127.0.0.1:{port}/x.mar"),
        format!("http://localhost:{port}/x.mar"),
        format!("http://[::1]:{port}/x.mar"),
        format!("http://[::ffff:127.0.0.1]:{port}/x.mar"),
        format!("http://2130706433:{port}/x.mar"),
        format!("http://0177.0.0.1:{port}/x.mar"),
        format!("http://0x7f000001:{port}/x.mar"),
        format!("http://0.0.0.0:{port}/x.mar"),
        format!("http://{}@127.0.0.1:{port}/x.mar", allowed.address()),
        format!("http://models.example.com@127.0.0.1:{port}/x.mar"),
        format!("http://127.0.0.1:{port}\\x.mar"),
        format!("HTTP://127.0.0.1:{port}/x.mar"),
        "http://169.254.169.254/latest/meta-data/x.mar".to_owned(),
        "https://127.0.0.1/x.mar".to_owned(),
        "file:///etc/passwd".to_owned(),
        "s3://bucket/x.mar".to_owned(),
    ] {
        assert_eq!(
            place.refused(&url).await,
            format!("Given URL {url} does not match any allowed URL(s)")
        );
    }
    let redirected = place.refused(&allowed.url("/x.mar")).await;
    assert!(
        redirected.ends_with("it redirects to a URL that is not allowed"),
        "{redirected}"
    );
    let rebound = place
        .refused(&format!("http://models.example.com:{port}/x.mar"))
        .await;
    assert!(rebound.ends_with("it cannot be reached"), "{rebound}");
    assert_eq!(canary.heads(), Vec::<String>::new());
    assert_eq!(place.names(), Vec::<String>::new());
    place
        .cfg
        .private_hosts
        .insert("models.example.com".to_owned());
    assert!(
        place
            .find(&format!("http://models.example.com:{port}/x.mar"))
            .await
            .is_ok()
    );
    assert_eq!(canary.heads().len(), 1);
}

#[tokio::test]
async fn refused_names_leave_the_store_as_it_was() {
    let origin = Origin::serving(body()).await;
    let place = Place::allowing(&origin.url("/"));
    let long = "n".repeat(300);
    for (path, part) in [
        ("/../x.mar", "Relative path is not allowed in url: "),
        ("/a/..%2fx.mar", "Relative path is not allowed in url: "),
        ("/%2e%2e/x.mar", "does not match any allowed URL(s)"),
        ("/a%2fx.mar", "does not match any allowed URL(s)"),
        ("/a%5cx.mar", "does not match any allowed URL(s)"),
        ("/x%00.mar", "does not match any allowed URL(s)"),
        ("/x%0a.mar", "does not match any allowed URL(s)"),
        ("/", "must end in the name of a file"),
        ("/.hidden.mar", "must end in the name of a file"),
        (&format!("/{long}"), "must end in the name of a file"),
        ("/x.mar#part", "must have no fragment but"),
        ("/x.mar#sha256=abc", "64 hexadecimal digits"),
    ] {
        let error = place.refused(&origin.url(path)).await;
        assert!(error.contains(part), "{path}: {error}");
    }
    let malformed = place.refused("http://localhost:aaaa").await;
    assert_eq!(
        malformed,
        "Failed to download archive from: http://localhost:aaaa: it is not a URL"
    );
    assert_eq!(origin.heads(), Vec::<String>::new());
    assert_eq!(place.names(), Vec::<String>::new());
}

#[tokio::test]
async fn failures_of_the_source_say_why_and_leave_nothing() {
    type Answer = fn(&str, usize) -> Vec<u8>;
    let cases: [(Answer, &str); 6] = [
        (
            |_, _| reply("404 Not Found", &["content-length: 0"], b""),
            "answered 404",
        ),
        (
            |_, _| reply("500 Oops", &["content-length: 0"], b""),
            "its server failed",
        ),
        (
            |_, _| reply("200 OK", &["content-length: 2097152"], b"x"),
            "it is larger than 1",
        ),
        (
            |_, _| reply("200 OK", &[], &vec![0; (1 << 20) + 1]),
            "it is larger than 1",
        ),
        (
            |_, _| reply("200 OK", &["content-length: 9"], b"short"),
            "it broke off",
        ),
        (
            |head, n| {
                let location =
                    format!("location: http://{}/{n}.mar", header(head, "host").unwrap());
                reply("307 Temporary Redirect", &[&location], b"")
            },
            "redirected more than 5 times",
        ),
    ];
    for (answer, part) in cases {
        let origin = Origin::start(answer).await;
        let place = Place::allowing(&origin.url("/"));
        let error = place.refused(&origin.url("/x.mar?secret")).await;
        assert!(error.contains(part) && !error.contains("secret"), "{error}");
        assert_eq!(place.names(), Vec::<String>::new(), "{part}");
    }
    let place = Place::allowing("http://127.0.0.1:1/");
    let error = place.refused("http://127.0.0.1:1/x.mar").await;
    assert_eq!(
        error,
        "Failed to download archive from: http://127.0.0.1:1/x.mar: it cannot be reached"
    );
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_broke() {
    let origin = Origin::start(|head, n| {
        let mut answer = whole_or_rest(head, &body(), "\"v1\"");
        if n < 2 {
            answer.truncate(answer.len() / 2);
        }
        answer
    })
    .await;
    let place = Place::allowing(&origin.url("/"));
    let found = place.find(&origin.url("/x.mar")).await.unwrap();
    assert_eq!(fs::read(found.location.path()).unwrap(), body());
    let ranges: Vec<_> = origin
        .heads()
        .iter()
        .map(|head| header(head, "range").is_some())
        .collect();
    assert_eq!(ranges, [false, true, true]);
}

#[tokio::test]
async fn what_changed_meanwhile_is_fetched_anew() {
    let origin = Origin::start(|head, n| match n {
        0 => {
            let answer = whole_or_rest(head, &body(), "\"v1\"");
            answer[..answer.len() / 2].to_vec()
        }
        _ => whole_or_rest(head, b"other", "\"v2\""),
    })
    .await;
    let place = Place::allowing(&origin.url("/"));
    let found = place.find(&origin.url("/x.mar")).await.unwrap();
    assert_eq!(fs::read(found.location.path()).unwrap(), b"other");
}

#[tokio::test]
async fn what_arrived_waits_for_the_next_who_asks() {
    let origin = Origin::start(|head, n| {
        let answer = whole_or_rest(head, &body(), "\"v1\"");
        // Every further attempt of the first client fails without a byte.
        match n {
            0 => answer[..answer.len() / 2].to_vec(),
            1 => Vec::new(),
            _ => answer,
        }
    })
    .await;
    let place = Place::allowing(&origin.url("/"));
    place.refused(&origin.url("/x.mar")).await;
    assert_eq!(place.names().len(), 2, "a part and its tag");
    let found = place.find(&origin.url("/x.mar")).await.unwrap();
    assert_eq!(fs::read(found.location.path()).unwrap(), body());
    assert!(header(&origin.heads()[2], "range").is_some());
    drop(found);
    assert_eq!(place.names(), Vec::<String>::new());
}

#[tokio::test]
async fn one_url_is_fetched_once_at_a_time() {
    let origin = Origin::serving(body()).await;
    let place = Place::allowing(&origin.url("/"));
    let (fetcher, url) = (place.fetcher(), origin.url("/x.mar"));
    let (one, other) = tokio::join!(
        fetcher.find(&url, NamedBy::Client),
        fetcher.find(&url, NamedBy::Client)
    );
    let exists = |found: &Result<Found, ArchiveError>| matches!(found, Err(ArchiveError::Exists(name)) if name == "x.mar");
    assert!(one.is_ok() != other.is_ok() && (exists(&one) || exists(&other)));
    assert_eq!(origin.heads().len(), 1);
}

#[tokio::test]
async fn what_the_operator_lists_is_fetched_once_and_used_again() {
    let origin = Origin::serving(body()).await;
    let place = Place::allowing("");
    let (fetcher, url) = (place.fetcher(), origin.url("/x.mar"));
    let found = fetcher.find(&url, NamedBy::Operator).await.unwrap();
    found.download.unwrap().keep();
    let found = fetcher.find(&url, NamedBy::Operator).await.unwrap();
    assert!(found.download.is_none());
    assert_eq!(origin.heads().len(), 1);
    let elsewhere = place.directory.path().join("elsewhere.mar");
    fs::write(&elsewhere, "x").unwrap();
    let path = elsewhere.to_str().unwrap();
    assert!(fetcher.find(path, NamedBy::Operator).await.is_ok());
    assert!(fetcher.find(path, NamedBy::Client).await.is_err());
}

#[tokio::test]
async fn nothing_is_left_of_a_download_whose_client_left() {
    let origin = Origin::start(|_, _| reply("200 OK", &["content-length: 9"], b"part")).await;
    let place = Place::allowing(&origin.url("/"));
    // Without a validator the download cannot be resumed.
    place.refused(&origin.url("/x.mar")).await;
    assert_eq!(place.names(), Vec::<String>::new());
    let root = place.store();
    drop(Part::open(&root, "left").unwrap());
    assert_eq!(place.names(), Vec::<String>::new());
}

#[tokio::test]
async fn files_are_copied_out_of_allowed_directories_alone() {
    let place = Place::allowing("");
    let root = place.directory.path().canonicalize().unwrap();
    for directory in ["models", "models-evil"] {
        fs::create_dir(root.join(directory)).unwrap();
        fs::write(root.join(directory).join("x.mar"), directory).unwrap();
    }
    fs::write(root.join("secret.mar"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret.mar", root.join("models/out.mar")).unwrap();
    std::os::unix::fs::symlink("../models-evil", root.join("models/evil")).unwrap();
    std::os::unix::fs::symlink("x.mar", root.join("models/in.mar")).unwrap();
    let mut place = place;
    place.cfg.allowed = AllowedUrls::read(&format!("file://{}/models/", root.display()), false).0;
    let url = |path: &str| format!("file://{}/{path}", root.display());
    for good in ["models/x.mar", "models/in.mar"] {
        let found = place.find(&url(good)).await.unwrap();
        assert_eq!(fs::read_to_string(found.location.path()).unwrap(), "models");
    }
    for evil in ["models-evil/x.mar", "secret.mar"] {
        assert!(
            place.refused(&url(evil)).await.starts_with("Given URL"),
            "{evil}"
        );
    }
    for evil in [
        "models/out.mar",
        "models/evil/x.mar",
        "models/nope.mar",
        "models/evil",
    ] {
        let error = place.refused(&url(evil)).await;
        assert!(
            error.starts_with("Failed to download archive from: file://"),
            "{error}"
        );
    }
    assert_eq!(place.names(), Vec::<String>::new());
    let whole = |path: &str| root.join(path).display().to_string();
    assert!(
        place
            .find(&whole("models/x.mar"))
            .await
            .unwrap()
            .download
            .is_none()
    );
    for evil in [
        "models/out.mar",
        "secret.mar",
        "models-evil/x.mar",
        "models/evil/x.mar",
    ] {
        assert!(
            place
                .refused(&whole(evil))
                .await
                .starts_with("Model not found at: "),
            "{evil}"
        );
    }
}

#[tokio::test]
async fn what_is_in_the_store_needs_no_copy() {
    let place = Place::allowing("");
    fs::write(place.store().join("x.mar"), "x").unwrap();
    let path = place.store().join("x.mar").display().to_string();
    for url in [format!("file://{path}"), path.clone(), "x.mar".to_owned()] {
        let found = place.find(&url).await.unwrap();
        assert!(found.download.is_none() && found.location.path().ends_with("store/x.mar"));
    }
    fs::create_dir(place.store().join(".lantern")).unwrap();
    fs::write(place.store().join(".lantern/y.mar"), "y").unwrap();
    for hidden in [
        ".lantern/y.mar".to_owned(),
        path.replace("x.mar", ".lantern/y.mar"),
    ] {
        assert!(
            place
                .refused(&hidden)
                .await
                .starts_with("Model not found at: ")
        );
    }
}

#[tokio::test]
async fn a_link_in_the_store_leads_where_a_file_may_be_named() {
    let mut place = Place::allowing("");
    let root = place.directory.path().canonicalize().unwrap();
    for directory in ["shared", "private"] {
        fs::create_dir(root.join(directory)).unwrap();
        fs::write(root.join(directory).join("x.mar"), directory).unwrap();
        let link = root.join("store").join(format!("{directory}.mar"));
        std::os::unix::fs::symlink(root.join(directory).join("x.mar"), link).unwrap();
    }
    let rule = format!("file://{}/shared/", root.display());
    place.cfg.allowed = AllowedUrls::read(&rule, false).0;
    let names = |link: &str| {
        let path = root.join("store").join(link).display().to_string();
        [link.to_owned(), format!("file://{path}"), path]
    };
    for name in names("shared.mar") {
        let found = place.find(&name).await.unwrap();
        assert_eq!(found.location.path(), root.join("shared/x.mar"), "{name}");
        assert!(found.download.is_none(), "it is used where it is");
    }
    for name in names("private.mar") {
        assert!(place.find(&name).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn no_download_becomes_or_replaces_a_link() {
    let origin = Origin::serving(body()).await;
    let place = Place::allowing(&origin.url("/"));
    let outside = place.directory.path().join("outside.mar");
    std::os::unix::fs::symlink(&outside, place.store().join("x.mar")).unwrap();
    let refused = place.refused(&origin.url("/x.mar")).await;
    assert_eq!(refused, "Model file already exists x.mar");
    assert!(!outside.exists());
    let found = place.find(&origin.url("/y.mar")).await.unwrap();
    assert!(!found.location.path().is_symlink());
}

#[tokio::test]
async fn every_host_is_not_every_address() {
    let canary = Origin::serving(body()).await;
    let port = canary.address().port();
    let mut place = Place::allowing("");
    place.cfg.allowed = AllowedUrls::read(".*", true).0;
    place.cfg.lookup = Arc::new(|_| Box::pin(async { Ok(vec!["127.0.0.1".parse().unwrap()]) }));
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "2130706433",
        "models.example.com",
    ] {
        place.refused(&format!("http://{host}:{port}/x.mar")).await;
    }
    assert_eq!(canary.heads(), Vec::<String>::new());
    place
        .cfg
        .private_hosts
        .insert("models.example.com".to_owned());
    let url = format!("http://models.example.com:{port}/x.mar");
    assert!(place.find(&url).await.is_ok());
}

/// The proxies that the variables name.
fn proxies(variables: &[(&str, &str)]) -> Proxies {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Proxies::new(&variables.collect())
}

#[tokio::test]
async fn archives_come_through_a_proxy() {
    let proxy = Origin::serving(body()).await;
    let mut place = Place::allowing("http://models.example.com/team/");
    let address = proxy.url("").replace("http://", "http://user:word@");
    place.cfg.proxies = proxies(&[("HTTP_PROXY", &address)]);
    // Only the proxy knows the name.
    place.cfg.lookup = Arc::new(|_| Box::pin(async { Err(std::io::ErrorKind::NotFound.into()) }));
    let url = "http://models.example.com/team/x.mar";
    let found = place.find(url).await.unwrap();
    assert_eq!(fs::read(found.location.path()).unwrap(), body());
    let heads = proxy.heads();
    assert!(
        heads[0].starts_with("GET http://models.example.com/team/x.mar HTTP/1.1"),
        "{heads:?}"
    );
    assert_eq!(
        header(&heads[0], "proxy-authorization"),
        Some("Basic dXNlcjp3b3Jk")
    );
}

#[tokio::test]
async fn a_proxy_opens_nothing_that_is_not_allowed() {
    let proxy = Origin::start(|_, _| {
        let location = "location: http://other.example.com/x.mar";
        reply("302 Found", &[location], b"")
    })
    .await;
    let mut place = Place::allowing("http://models.example.com/,http://inner.example.com/");
    place.cfg.proxies = proxies(&[("HTTP_PROXY", &proxy.url(""))]);
    place.cfg.lookup = Arc::new(|name| {
        Box::pin(async move {
            match name.as_str() {
                "inner.example.com" => Ok(vec!["10.0.0.1".parse().unwrap()]),
                _ => Ok(vec!["8.8.8.8".parse().unwrap()]),
            }
        })
    });
    let elsewhere = place.refused("http://other.example.com/x.mar").await;
    assert!(elsewhere.starts_with("Given URL"), "{elsewhere}");
    let inner = place.refused("http://inner.example.com/x.mar").await;
    assert!(inner.ends_with("it cannot be reached"), "{inner}");
    assert_eq!(proxy.heads(), Vec::<String>::new());
    let redirected = place.refused("http://models.example.com/x.mar").await;
    assert!(
        redirected.ends_with("it redirects to a URL that is not allowed"),
        "{redirected}"
    );
    assert_eq!(proxy.heads().len(), 1);
    place
        .cfg
        .private_hosts
        .insert("inner.example.com".to_owned());
    place.refused("http://inner.example.com/x.mar").await;
    assert_eq!(
        proxy.heads().len(),
        2,
        "the operator says that it may be asked for"
    );
}

#[tokio::test]
async fn a_host_without_a_proxy_is_connected_to() {
    let (proxy, origin) = (
        Origin::serving(b"proxy".to_vec()).await,
        Origin::serving(body()).await,
    );
    let url = format!(
        "http://models.example.com:{}/x.mar",
        origin.address().port()
    );
    let mut place = Place::allowing(&url);
    place.cfg.proxies = proxies(&[("HTTP_PROXY", &proxy.url("")), ("NO_PROXY", "example.com")]);
    place.cfg.lookup = Arc::new(|_| Box::pin(async { Ok(vec!["127.0.0.1".parse().unwrap()]) }));
    place
        .cfg
        .private_hosts
        .insert("models.example.com".to_owned());
    let found = place.find(&url).await.unwrap();
    assert_eq!(fs::read(found.location.path()).unwrap(), body());
    assert_eq!(proxy.heads(), Vec::<String>::new());
}

#[tokio::test]
async fn objects_of_s3_come_through_a_proxy() {
    let proxy = Origin::serving(body()).await;
    let mut place = Place::allowing("s3://bucket/team/");
    place.cfg.proxies = proxies(&[("HTTP_PROXY", &proxy.url(""))]);
    place.cfg.s3 = [
        ("AWS_ENDPOINT_URL", "http://s3.example.com:9000"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "hidden"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let found = place.find("s3://bucket/team/x.mar").await.unwrap();
    assert_eq!(fs::read(found.location.path()).unwrap(), body());
    let heads = proxy.heads();
    assert!(
        heads[0].starts_with("GET http://s3.example.com:9000/bucket/team/x.mar HTTP/1.1"),
        "{heads:?}"
    );
}

#[tokio::test]
async fn tls_goes_through_a_proxy_as_a_tunnel() {
    let proxy = Origin::start(|_, _| reply("403 Forbidden", &["content-length: 0"], b"")).await;
    let mut place = Place::allowing("https://models.example.com/");
    place.cfg.proxies = proxies(&[("HTTPS_PROXY", &proxy.url(""))]);
    place.cfg.lookup = Arc::new(|_| Box::pin(async { Err(std::io::ErrorKind::NotFound.into()) }));
    place.refused("https://models.example.com/x.mar").await;
    assert!(
        proxy.heads()[0].starts_with("CONNECT models.example.com:443 HTTP/1.1"),
        "{:?}",
        proxy.heads()
    );
}

#[tokio::test]
async fn a_killed_server_leaves_no_download_behind() {
    let origin = Origin::serving(body()).await;
    let place = Place::allowing(&origin.url("/"));
    let found = place.find(&origin.url("/x.mar")).await.unwrap();
    // Leaves everything as if the process had been killed here.
    found.download.unwrap().abandon();
    assert_eq!(place.names(), [".lantern/x.mar.pending", "x.mar"]);
    let root = place.store();
    recover(&root, &BTreeSet::from(["x.mar".to_owned()]));
    assert_eq!(place.names(), ["x.mar"]);
    // It was kept, and is being unregistered when the server is killed.
    let kept = Download::kept(&root, "x.mar").unwrap();
    kept.give_up();
    recover(&root, &BTreeSet::new());
    assert_eq!(
        place.names(),
        [".lantern/x.mar.pending", "x.mar"],
        "its server is alive"
    );
    kept.abandon();
    recover(&root, &BTreeSet::new());
    assert_eq!(place.names(), Vec::<String>::new());
    // The operator's own file of that name stays.
    fs::write(root.join(".lantern/y.mar.pending"), "1:1").unwrap();
    fs::write(root.join("y.mar"), "mine").unwrap();
    recover(&root, &BTreeSet::new());
    assert_eq!(place.names(), ["y.mar"]);
}

#[tokio::test]
async fn objects_come_from_a_store_that_speaks_s3() {
    let origin = Origin::start(|head, n| {
        if !head.starts_with("GET /bucket/team/x.mar HTTP") {
            return reply("404 Not Found", &["content-length: 0"], b"");
        }
        let answer = whole_or_rest(head, &body(), "\"v1\"");
        match n {
            0 => answer[..answer.len() / 2].to_vec(),
            _ => answer,
        }
    })
    .await;
    let mut place = Place::allowing("s3://bucket/team/");
    place.cfg.s3 = [
        ("AWS_ENDPOINT_URL", origin.url("").as_str()),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "hidden"),
        ("AWS_REGION", "eu-west-1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let found = place.find("s3://bucket/team/x.mar").await.unwrap();
    assert_eq!(fs::read(found.location.path()).unwrap(), body());
    let heads = origin.heads();
    let signed = header(&heads[0], "authorization").unwrap();
    assert!(
        signed.starts_with("AWS4-HMAC-SHA256 Credential=id/") && signed.contains("/eu-west-1/s3/")
    );
    drop(found);
    let missing = place.refused("s3://bucket/team/y.mar").await;
    assert_eq!(
        missing,
        "Failed to download archive from: s3://bucket/team/y.mar: there is no such object"
    );
    for other in [
        "s3://other/team/x.mar",
        "s3://bucket/teams/x.mar",
        "s3://bucket.evil/team/x.mar",
    ] {
        assert!(
            place.refused(other).await.starts_with("Given URL"),
            "{other}"
        );
    }
    assert_eq!(place.names(), Vec::<String>::new());
}
