//! Files that are no files, folders that are replaced, and files that anybody may write (invariant 9).
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use test_util::authority::{Leaf, Pair, plain_serial, write_public};
use test_util::command::program;
use test_util::rogue::{self, Identity};
use test_util::wait;

use crate::fixtures::{SOON, meshctl, text};
use crate::site::{Live, Role, Site, short};

/// Settings that name a file of the mesh's material, and the file.
const MESH: [(&str, &str); 6] = [
    ("internaltls.serverPemPath", "certs/server.pem"),
    ("internaltls.serverKeyPath", "certs/server.key"),
    ("internaltls.caPemPath", "certs/ca.pem"),
    ("internaltls.crlPath", "crl.pem"),
    ("internaltls.distrustPath", "distrust"),
    ("internaltls.policyPath", "policy.yaml"),
];
/// The same of the edge's.
const EDGE: [(&str, &str); 5] = [
    ("tls.serverPemPath", "edge/server.pem"),
    ("tls.serverKeyPath", "edge/server.key"),
    ("tls.caPemPath", "edge/ca.pem"),
    ("tls.crlPath", "edge-crl.pem"),
    ("tls.distrustPath", "edge-distrust"),
];

/// A proxy with a file in each place that there is.
fn whole() -> Site {
    let site = Site::new(Role::Proxy);
    let (mesh, edge) = (site.mesh.numbered_crl(&[], 1), site.edge.numbered_crl(&[], 1));
    site.with_file("internaltls.crlPath", "crl.pem", &mesh)
        .with_file("internaltls.distrustPath", "distrust", "# end 0\n")
        .with_file("internaltls.policyPath", "policy.yaml", include_str!("../../../config/policy.yaml"))
        .with_file("tls.crlPath", "edge-crl.pem", &edge)
        .with_file("tls.distrustPath", "edge-distrust", "# end 0\n")
}

/// What lies where a file should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Odd {
    Fifo,
    Folder,
    Device,
    Socket,
}

impl Odd {
    const ALL: [Self; 4] = [Self::Fifo, Self::Folder, Self::Device, Self::Socket];

    fn put(self, path: &Path) {
        match self {
            Self::Fifo => assert!(program("mkfifo").args([path]).run().success, "{}", path.display()),
            Self::Folder => fs::create_dir(path).unwrap(),
            // It never ends.
            Self::Device => symlink("/dev/zero", path).unwrap(),
            Self::Socket => drop(UnixListener::bind(path).unwrap()),
        }
    }
}

/// Something odd in place of a file, until it is dropped.
struct InPlaceOf<'a> {
    path: &'a Path,
    aside: PathBuf,
}

impl<'a> InPlaceOf<'a> {
    fn put(odd: Odd, path: &'a Path) -> Self {
        let aside = path.with_extension("aside");
        fs::rename(path, &aside).unwrap();
        odd.put(path);
        Self { path, aside }
    }
}

impl Drop for InPlaceOf<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path);
        let _ = fs::remove_dir(self.path);
        let _ = fs::rename(&self.aside, self.path);
    }
}

/// The process ends, and names the file; so does `certs check`.
fn stops_the_start(site: &Site, file: &str, odd: Odd) {
    let path = site.path(file);
    let _odd = InPlaceOf::put(odd, &path);
    let what = format!("a {odd:?} as {file}");
    let said = site.refuses_to_start(&what);
    assert!(said.contains(file), "{what}: it is not named: {}", short(&said));
    let config = text(&site.config());
    let checked = program(meshctl()).args(["certs", "check", "--config", &config]).within(Duration::from_secs(8)).run();
    // It judges certificates and lists; what a policy says is not its to judge.
    let ended = checked.code.is_some_and(|code| code != 0 || file == "policy.yaml");
    assert!(ended, "{what}: certs check ends with {:?}: {}", checked.code, short(&checked.text()));
}

#[test]
fn invariant_9_odd_files_stop_the_start() {
    let site = whole();
    site.write_config();
    let files = MESH.iter().chain(&EDGE).map(|(_, file)| *file).chain(["milvus.yaml"]);
    for file in files {
        for odd in Odd::ALL {
            // A folder of CRLs is what the setting may name, and of settings what the argument may; an empty one is another matter.
            if odd != Odd::Folder || !(file.contains("crl") || file.contains("yaml")) {
                stops_the_start(&site, file, odd);
            }
        }
    }
}

#[test]
fn certs_check_ends_at_odd_files() {
    let site = whole();
    for odd in Odd::ALL {
        let path = site.path(&format!("{odd:?}"));
        odd.put(&path);
        let checked = program(meshctl()).args(["certs", "check"]).args([&path]).within(Duration::from_secs(8)).run();
        assert!(checked.code.is_some_and(|code| code != 0), "a {odd:?}: {:?}: {}", checked.code, checked.text());
        assert!(checked.text().contains(&format!("{odd:?}")), "a {odd:?} is not named: {}", checked.text());
    }
}

fn knock_at_edge(live: &Live, client: &Pair) -> Result<(), String> {
    let config = rogue::client(&Identity::of_pem(&client.cert, &client.key));
    rogue::call(&live.site.grpc(), "localhost", &config).map(drop)
}

/// Log, status and metrics tell of the file.
fn alarm(live: &Live, file: &str, before: usize) -> Result<(), String> {
    let path = text(&live.site.path(file));
    let log = live.process.log();
    let told = |line: &str| (line.contains("[WARN]") || line.contains("[ERROR]")) && line.contains(&path);
    if !log.lines().skip(before).any(told) {
        return Err(format!("the log does not tell of {file}: {}", short(&log)));
    }
    if !live.status_text().contains(&path) {
        return Err(format!("the status does not tell of {file}"));
    }
    let failed = |line: &str| line.starts_with("internaltls_last_reload_failed{") && line.ends_with(" 1.0");
    if live.metrics().lines().any(failed) { Ok(()) } else { Err(format!("no metric tells of {file}")) }
}

#[test]
fn invariant_9_odd_files_are_told_of_and_change_nothing() {
    let live = whole().start();
    let (member, client) = (live.site.peer("operator", "operator-1"), live.site.edge.sign(&Leaf::edge_client()));
    wait::until("the edge serves", SOON, || knock_at_edge(&live, &client));
    for (nth, (_, file)) in MESH.iter().chain(&EDGE).enumerate() {
        let odd = if nth % 2 == 0 { Odd::Fifo } else { Odd::ALL[nth % 4] };
        let odd = if file.contains("crl") { Odd::Fifo } else { odd };
        let (path, before) = (live.site.path(file), live.process.log().lines().count());
        let in_place = InPlaceOf::put(odd, &path);
        wait::until(&format!("an alarm of a {odd:?} as {file}"), SOON, || alarm(&live, file, before));
        live.serves("a member", &member);
        wait::until("the edge serves", SOON, || knock_at_edge(&live, &client));
        drop(in_place);
        wait::until(&format!("no alarm after {file} is back"), SOON, || {
            let failed = |line: &&str| line.starts_with("internaltls_last_reload_failed{") && line.ends_with(" 1.0");
            live.metrics().lines().find(failed).map_or(Ok(()), |line| Err(line.to_owned()))
        });
    }
}

/// Where the key is a FIFO, lists still count, and SIGTERM ends the process as it does else.
#[test]
fn invariant_9_fifo_holds_up_neither_lists_nor_the_end() {
    let usual = {
        let mut live = whole().start();
        let start = Instant::now();
        live.stop(SOON);
        start.elapsed()
    };
    let mut live = whole().start();
    let (member, before) = (live.site.peer("operator", "operator-1"), live.process.log().lines().count());
    live.serves("a member", &member);
    let key = live.site.path("certs/server.key");
    let _odd = InPlaceOf::put(Odd::Fifo, &key);
    wait::until("an alarm", SOON, || alarm(&live, "certs/server.key", before));
    write_public(&live.site.path("distrust"), &format!("{}\n# end 1\n", member.spki_sha256()));
    live.refuses("one who was distrusted since", &member);
    let start = Instant::now();
    let ended = live.stop(SOON);
    let most = Duration::from_secs(2) + 3 * usual;
    assert!(ended.success() && start.elapsed() < most, "{ended} after {:?}, {usual:?} else", start.elapsed());
}

/// The force file is read when a set is held back, and looked for at each look.
#[test]
fn fifo_as_force_file_holds_up_no_leaf() {
    let site = Site::new(Role::Coordinator);
    let force = site.path("force");
    Odd::Fifo.put(&force);
    let live = site.set("internaltls.reload.forcePath", &text(&force)).start();
    let pair = live.site.mesh.sign(&live.site.leaf());
    pair.write(&live.site.path("certs"), "server");
    serves_leaf(&live, "beside a FIFO as force file", &pair);
}

fn serves_leaf(live: &Live, when: &str, pair: &Pair) {
    wait::until(&format!("the new leaf {when}"), SOON, || {
        let status = live.status();
        let served = plain_serial(status["leaf"]["serial"].as_str().unwrap_or_default());
        if served == pair.serial() { Ok(()) } else { Err(format!("{served}; {}", status["last_reload"])) }
    });
}

/// Ways in which a folder, or one above it, is replaced by another. The set lies in `a/b/certs` of the site's folder.
#[test]
fn invariant_9_replaced_folders_are_watched() {
    let site = Site::new(Role::Coordinator);
    let certs = site.path("a/b/certs");
    site.mesh.write_node(&certs, &site.leaf());
    let path = |name: &str| text(&certs.join(name));
    let site = site
        .set("internaltls.serverPemPath", &path("server.pem"))
        .set("internaltls.serverKeyPath", &path("server.key"))
        .set("internaltls.caPemPath", &path("ca.pem"))
        .set("internaltls.reload.pollSeconds", "3600");
    let live = site.start();
    let (site, above, top) = (&live.site, live.site.path("a/b"), live.site.path("a"));
    let fill = |folder: &Path| site.mesh.write_node(folder, &site.leaf());
    let aside = site.path("aside");
    type Way<'a> = (&'static str, Box<dyn Fn() -> Pair + 'a>);
    let again = |folder: &Path| {
        fs::remove_dir_all(folder).unwrap();
        fill(&certs)
    };
    let swap = |folder: &Path| {
        let within = certs.strip_prefix(folder).unwrap();
        let pair = fill(&aside.join(within));
        let away = site.path("away");
        let _ = fs::remove_dir_all(&away);
        fs::rename(folder, &away).unwrap();
        fs::rename(&aside, folder).unwrap();
        pair
    };
    let ways: Vec<Way<'_>> = vec![
        ("after its folder was made again", Box::new(|| again(&certs))),
        ("after the folder above was made again", Box::new(|| again(&above))),
        ("after two folders above were made again", Box::new(|| again(&top))),
        ("after another folder was moved there", Box::new(|| swap(&certs))),
        ("after another was moved to the folder above", Box::new(|| swap(&above))),
        ("after another was moved two folders above", Box::new(|| swap(&top))),
        (
            "after its folder had been gone for a while",
            Box::new(|| {
                fs::remove_dir_all(&certs).unwrap();
                wait::throughout("it is gone", Duration::from_millis(700), || Ok::<(), String>(()));
                fill(&certs)
            }),
        ),
        (
            "after its folder became a link",
            Box::new(|| {
                let pair = fill(&aside.join("linked"));
                fs::remove_dir_all(&certs).unwrap();
                symlink(aside.join("linked"), &certs).unwrap();
                pair
            }),
        ),
        ("behind the link, in place", Box::new(|| fill(&aside.join("linked")))),
        (
            "after the link was pointed elsewhere",
            Box::new(|| {
                let pair = fill(&aside.join("other"));
                let link = aside.join("link");
                symlink(aside.join("other"), &link).unwrap();
                fs::rename(&link, &certs).unwrap();
                pair
            }),
        ),
        (
            "behind the other link, made again",
            Box::new(|| {
                fs::remove_dir_all(aside.join("other")).unwrap();
                fill(&aside.join("other"))
            }),
        ),
    ];
    for (when, replace) in &ways {
        // Twice: what lost sight of it at the first time sees nothing of the second.
        for _ in 0..2 {
            if certs.is_symlink() && !when.contains("link") {
                break;
            }
            if *when == "after its folder became a link" && certs.is_symlink() {
                break;
            }
            let pair = replace();
            serves_leaf(&live, when, &pair);
        }
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn files_that_all_may_write_stop_the_start() {
    let site = whole();
    site.write_config();
    for file in MESH.iter().chain(&EDGE).map(|(_, file)| *file).chain(["milvus.yaml"]) {
        let path = site.path(file);
        let before = fs::metadata(&path).unwrap().permissions();
        mode(&path, 0o666);
        let said = site.refuses_to_start(&format!("{file}, which all may write"));
        assert!(said.contains(file), "{file} is not named: {}", short(&said));
        fs::set_permissions(&path, before).unwrap();
    }
}

#[test]
fn folders_that_all_may_write_stop_the_start() {
    let site = whole();
    site.write_config();
    let folder = site.path("certs");
    mode(&folder, 0o777);
    let said = site.refuses_to_start("a folder that all may write");
    assert!(said.contains("certs"), "{}", short(&said));
    mode(&folder, 0o700);
    // One hop of a link leads through such a folder.
    let loose = site.path("loose");
    fs::create_dir(&loose).unwrap();
    fs::rename(site.path("certs/ca.pem"), site.path("ca.pem")).unwrap();
    symlink(site.path("ca.pem"), loose.join("ca.pem")).unwrap();
    symlink(loose.join("ca.pem"), site.path("certs/ca.pem")).unwrap();
    mode(&loose, 0o777);
    let said = site.refuses_to_start("a link through a folder that all may write");
    assert!(said.contains("loose"), "{}", short(&said));
    // The sticky bit keeps others from replacing what is not theirs: /tmp is such a folder.
    mode(&loose, 0o1777);
    drop(site.start());
}

#[test]
fn files_that_all_may_write_change_nothing() {
    let live = whole().start();
    let member = live.site.peer("operator", "operator-1");
    for file in ["certs/ca.pem", "certs/server.pem", "distrust", "crl.pem", "policy.yaml"] {
        let (path, before) = (live.site.path(file), live.process.log().lines().count());
        let content = fs::read(&path).unwrap();
        // Somebody else writes: the same, and a line that means nothing.
        let more = if file.contains("pem") { "" } else { "# theirs\n" };
        fs::write(&path, [&content, more.as_bytes()].concat()).unwrap();
        mode(&path, 0o666);
        wait::until(&format!("an alarm of {file}"), SOON, || alarm(&live, file, before));
        live.serves("a member", &member);
        mode(&path, 0o644);
        fs::write(&path, content).unwrap();
        wait::until(&format!("no alarm after {file} is safe"), SOON, || {
            let failed = |line: &&str| line.starts_with("internaltls_last_reload_failed{") && line.ends_with(" 1.0");
            live.metrics().lines().find(failed).map_or(Ok(()), |line| Err(line.to_owned()))
        });
    }
}
