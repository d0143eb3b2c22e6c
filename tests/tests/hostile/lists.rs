//! Lists of the distrusted only ever fail towards refusing (invariants 5 and 9).
//!
//! 1. Whoever a list named stays refused whatever becomes of the file, while the process runs and after it was started again. A
//!    process that does not start refuses too, if it says which file it misses.
//! 2. An entry of the distrust file leaves where the file ends in `# end COUNT`, COUNT being the number of its entries.
use std::fs;
use std::time::{Duration, Instant};

use test_util::authority::{Authority, Leaf, Pair, write_public, write_secret};
use test_util::process::{CONTINUE, Process, STOP, signal};
use test_util::rogue::{self, Identity, Served};
use test_util::{http, wait};

use crate::fixtures::{SOON, text};
use crate::hand::{Hand, Running};
use crate::site::{Live, Role, Site, short};

/// Longer than it takes to look at the files: they are looked at each second.
const A_FEW_LOOKS: Duration = Duration::from_millis(2_500);

/// A coordinator with lists, two whom they name and one whom they do not.
struct Scene {
    live: Option<Live>,
    named: [Pair; 2],
    free: Pair,
}

impl Scene {
    fn start(prepare: impl FnOnce(Site, &[Pair; 2]) -> Site) -> Self {
        let site = Site::new(Role::Coordinator);
        let named = [site.peer("data-node", "data-node-1"), site.peer("data-node", "data-node-2")];
        let free = site.peer("proxy", "proxy-1");
        let live = prepare(site, &named).start();
        let scene = Self { live: Some(live), named, free };
        scene.refuses_both("at first");
        scene
    }

    fn live(&self) -> &Live {
        self.live.as_ref().unwrap()
    }

    fn refuses_both(&self, when: &str) {
        self.live().serves("one whom no list names", &self.free);
        for (nth, pair) in self.named.iter().enumerate() {
            self.live().refuses(&format!("entry {nth} {when}"), pair);
        }
    }

    /// Both are refused throughout, and the third is not.
    fn goes_on_refusing(&self, when: &str) {
        wait::throughout(&format!("both are refused {when}"), A_FEW_LOOKS, || {
            let live = self.live();
            self.named.iter().enumerate().try_for_each(|(nth, pair)| match live.knock(pair) {
                Err(_) => Ok(()),
                Ok(_) => Err(format!("entry {nth} is served\n{}", short(&live.process.log()))),
            })
        });
        self.live().serves("one whom no list names", &self.free);
    }

    /// The same after another start; or it does not start, says why and names `file`, and `mend` lets it.
    fn refuses_after_restart(&mut self, when: &str, file: &str, mend: impl FnOnce(&Site)) {
        match self.live.take().unwrap().restart() {
            Ok(live) => {
                self.live = Some(live);
                self.goes_on_refusing(&format!("{when}, after a restart"));
                mend(&self.live().site);
            }
            Err(refused) => {
                let (site, log) = *refused;
                assert!(log.contains(file), "{when}: it does not start and does not name {file}: {}", short(&log));
                mend(&site);
                self.live = Some(site.start());
            }
        }
        self.refuses_both("after the lists are back");
    }
}

fn line(pair: &Pair) -> String {
    format!("{}\n", pair.spki_sha256())
}

fn ended(entries: &[&Pair]) -> String {
    let lines: String = entries.iter().map(|pair| line(pair)).collect();
    format!("{lines}# end {}\n", entries.len())
}

#[test]
fn invariant_5_distrust_outlives_its_file() {
    let key = "internaltls.distrustPath";
    let mut scene = Scene::start(|site, [one, two]| site.with_file(key, "distrust", &ended(&[one, two])));
    let path = scene.live().site.path("distrust");
    let [one, two] = scene.named.clone();
    let write = |content: &str| {
        let path = path.clone();
        let content = content.to_owned();
        move || write_public(&path, &content)
    };
    let remove = || fs::remove_file(&path).unwrap();
    let whole = ended(&[&one, &two]);
    type Way<'a> = (&'static str, Box<dyn Fn() + 'a>);
    let ways: Vec<Way<'_>> = vec![
        ("while the file is cut within a line", Box::new(write(&whole[..whole.find('\n').unwrap() + 20]))),
        ("while the file is empty", Box::new(write(""))),
        ("while the file is gone", Box::new(remove)),
        ("while the file has comments alone", Box::new(write("# nobody\n"))),
        ("while an entry is gone and nothing ends the file", Box::new(write(&line(&one)))),
        ("while an entry is gone and the count is of before", Box::new(write(&format!("{}# end 2\n", line(&one))))),
        ("while something follows the end", Box::new(write(&format!("{}# end 1\n{}", line(&one), "zz\n")))),
        ("while the file begins with garbage", Box::new(write(&format!("\u{1}garbage\n{}", line(&one))))),
        ("while the file is no text", Box::new(|| fs::write(&path, [0xff, 0xfe, 0, 0xff]).unwrap())),
    ];
    for (when, change) in &ways {
        change();
        scene.goes_on_refusing(when);
        scene.refuses_after_restart(when, "distrust", |_| write_public(&path, &whole));
    }
}

/// The control of the test above: what is said to be the end is.
#[test]
fn ended_file_lets_entries_go() {
    let key = "internaltls.distrustPath";
    let mut scene = Scene::start(|site, [one, two]| site.with_file(key, "distrust", &ended(&[one, two])));
    let [one, two] = scene.named.clone();
    write_public(&scene.live().site.path("distrust"), &ended(&[&one]));
    scene.live().serves("one whose entry was removed", &two);
    scene.live().refuses("one whose entry stayed", &one);
    let live = scene.live.take().unwrap().restart().unwrap_or_else(|refused| panic!("{}", short(&refused.1)));
    live.serves("one whose entry was removed, after a restart", &two);
    live.refuses("one whose entry stayed, after a restart", &one);
    write_public(&live.site.path("distrust"), "# end 0\n");
    live.serves("one whose entry was removed last", &one);
}

/// Any whole line adds, whatever the others are and whatever else is wrong.
#[test]
fn invariant_5_whole_lines_add() {
    let site = Site::new(Role::Coordinator);
    fs::create_dir_all(site.path("crls")).unwrap();
    write_public(&site.path("crls/mesh.pem"), &site.mesh.numbered_crl(&[], 1));
    let crls = text(&site.path("crls"));
    let live =
        site.with_file("internaltls.distrustPath", "distrust", "# end 0\n").set("internaltls.crlPath", &crls).start();
    let added = |what: &str, before: &str, after: &str| {
        let pair = live.site.peer("data-node", "data-node-1");
        live.serves("one whom no list names", &pair);
        write_public(&live.site.path("distrust"), &format!("{before}{}{after}", line(&pair)));
        live.refuses(&format!("an entry {what}"), &pair);
    };
    added("after a line of garbage", "garbage\n", "");
    added("before a line that is cut", "", "0123456789abcdef");
    added("in a file that is not ended", "", "");
    added("in a file of another count", "", "# end 17\n");
    write_public(&live.site.path("crls/README"), "these are revocation lists\n");
    added("beside a stray file among the CRLs", "", "");
    fs::remove_file(live.site.path("crls/README")).unwrap();
    let key = live.site.path("certs/server.key");
    let kept = fs::read(&key).unwrap();
    fs::write(&key, "no key\n").unwrap();
    added("beside a broken key", "", "");
    fs::write(&key, kept).unwrap();
    let ca = live.site.path("certs/ca.pem");
    write_public(&ca, Authority::new("another CA").cert());
    added("beside a bundle that does not fit", "", "");
}

/// With a folder of lists: of the CA that signed all leaves, and of another in the bundle.
fn listed(site: Site, other: &Authority, revoked: &[&Pair]) -> Site {
    write_public(&site.path("certs/ca.pem"), &format!("{}{}", site.mesh.cert(), other.cert()));
    write_public(&site.path("crls/other.pem"), &other.numbered_crl(&[], 3));
    write_public(&site.path("crls/mesh.pem"), &site.mesh.numbered_crl(revoked, 7));
    let folder = text(&site.path("crls"));
    site.set("internaltls.crlPath", &folder)
}

#[test]
fn invariant_5_revocation_outlives_its_list() {
    let mut scene = Scene::start(|site, [one, two]| listed(site, &Authority::new("other CA"), &[one, two]));
    let [one, two] = scene.named.clone();
    let authority = &scene.live().site.mesh;
    let (whole, older) = (authority.numbered_crl(&[&one, &two], 7), authority.numbered_crl(&[&one], 6));
    let none = authority.numbered_crl(&[], 6);
    let foreign = Authority::new("mesh CA").numbered_crl(&[], 99);
    let path = scene.live().site.path("crls/mesh.pem");
    type Way<'a> = (&'static str, Box<dyn Fn() + 'a>);
    let ways: Vec<Way<'_>> = vec![
        ("while a list of a lower number is put back", Box::new(|| write_public(&path, &older))),
        ("while an empty list of a lower number is put back", Box::new(|| write_public(&path, &none))),
        ("while the list is gone", Box::new(|| fs::remove_file(&path).unwrap())),
        ("while the list is cut", Box::new(|| write_public(&path, &whole[..whole.len() / 2]))),
        ("while the list is empty", Box::new(|| write_public(&path, ""))),
        ("while another CA of its name signed it", Box::new(|| write_public(&path, &foreign))),
    ];
    for (when, change) in &ways {
        change();
        scene.goes_on_refusing(when);
        scene.refuses_after_restart(when, "crls", |_| write_public(&path, &whole));
    }
}

/// The control: a later list counts.
#[test]
fn later_list_lets_entries_go() {
    let mut scene = Scene::start(|site, [one, two]| listed(site, &Authority::new("other CA"), &[one, two]));
    let [one, two] = scene.named.clone();
    let later = scene.live().site.mesh.numbered_crl(&[&one], 8);
    write_public(&scene.live().site.path("crls/mesh.pem"), &later);
    scene.live().serves("one whose certificate is not listed any more", &two);
    scene.live().refuses("one that is still listed", &one);
    scene.live = Some(scene.live.take().unwrap().restart().unwrap_or_else(|refused| panic!("{}", short(&refused.1))));
    scene.live().serves("one whose certificate is not listed any more, after a restart", &two);
}

/// A list that is written anew is not there for a moment; that of an intermediate CA too.
#[test]
fn vanished_list_ends_no_connection() {
    let mut site = Site::new(Role::Coordinator);
    site.mesh = Authority::root("mesh CA");
    site.mesh.write_node(&site.path("certs"), &site.leaf());
    let issuing = site.mesh.intermediate("issuing CA");
    write_public(&site.path("crls/issuing.pem"), &issuing.numbered_crl(&[], 3));
    write_public(&site.path("crls/mesh.pem"), &site.mesh.numbered_crl(&[], 7));
    let folder = text(&site.path("crls"));
    let live = site.set("internaltls.crlPath", &folder).start();
    let mut below = issuing.sign(&Leaf::node("proxy", "proxy-2"));
    below.cert.push_str(issuing.cert());
    let members = [live.site.peer("proxy", "proxy-1"), below];
    for (member, list) in members.iter().zip(["crls/mesh.pem", "crls/issuing.pem"]) {
        let (mut open, path) = (live.knock(member).unwrap(), live.site.path(list));
        let crl = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        stays_open(&format!("while {list} is gone"), &mut open);
        live.serves("a member while its CA's list is gone", member);
        fs::write(&path, crl).unwrap();
        stays_open(&format!("after {list} is back"), &mut open);
    }
}

fn stays_open(when: &str, open: &mut Served) {
    wait::throughout(&format!("a connection stays open {when}"), A_FEW_LOOKS, || {
        if open.is_cut() { Err("it is closed") } else { Ok(()) }
    });
}

/// All processes but the coordinator, stopped: their kernel takes connections, and nobody answers.
struct Frozen(Vec<u32>);

impl Frozen {
    fn freeze(running: &Running) -> Self {
        let pids: Vec<u32> = running.processes[1..].iter().map(Process::pid).collect();
        pids.iter().for_each(|pid| signal(*pid, STOP));
        Self(pids)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.0.iter().for_each(|pid| signal(*pid, CONTINUE));
    }
}

#[test]
fn invariant_5_distrust_waits_for_no_peer() {
    let hand = Hand::new();
    let lists = hand.dir().join("distrust");
    write_public(&lists, "# end 0\n");
    let hand = hand.internaltls(&[&format!("distrustPath: {}", text(&lists)), "reload: { pollSeconds: 1 }"]);
    let running = hand.start();
    let coordinator = running.hand.members()[0].clone();
    let authority = Authority::load(
        &fs::read_to_string(running.hand.dir().join("certs/mesh/ca.pem")).unwrap(),
        &fs::read_to_string(running.hand.dir().join("certs/mesh/ca.key")).unwrap(),
    );
    let mut entries = String::new();
    let mut cut = || {
        let pair = authority.sign(&Leaf::node("proxy", "proxy-2"));
        let config = rogue::client(&Identity::of_pem(&pair.cert, &pair.key));
        let knock = || rogue::call(&coordinator.internal, "coordinator.mesh.internal", &config);
        let mut open = wait::until("a member is served", SOON, knock);
        entries.push_str(&line(&pair));
        let start = Instant::now();
        write_public(&lists, &entries);
        wait::until("the connection of one who is distrusted is cut", SOON, || {
            if open.is_cut() { Ok(()) } else { Err("it is open") }
        });
        let took = start.elapsed();
        assert!(knock().is_err(), "one who is distrusted is served again");
        took
    };
    let usual = cut();
    let beside = {
        let _frozen = Frozen::freeze(&running);
        // Material of another kind that waits for what frozen peers say of it.
        renew(&running, "coordinator-1", &authority);
        wait::throughout("the frozen are asked", Duration::from_secs(1), || Ok::<(), String>(()));
        cut()
    };
    // It was four seconds when a cut waited for peers. On a machine that is busy a look takes longer, frozen peers or not.
    let most = Duration::from_millis(2_500).max(3 * usual);
    assert!(beside <= most, "cut after {beside:?} beside frozen peers, after {usual:?} else");
}

/// A new leaf, as an operator writes it.
fn renew(running: &Running, node: &str, authority: &Authority) {
    let role = node.rsplit_once('-').unwrap().0;
    let pair = authority.sign(&Leaf::node(role, node));
    let folder = running.hand.certs(node);
    let versions: Vec<_> = fs::read_dir(&folder).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(!versions.is_empty(), "{} is empty", folder.display());
    write_secret(&folder.join("server.key"), &pair.key);
    write_public(&folder.join("server.pem"), &pair.cert);
}

#[test]
fn frozen_peers_hold_no_leaf_back_for_long() {
    let running = Hand::new().start();
    let coordinator = running.hand.members()[0].clone();
    let authority = Authority::load(
        &fs::read_to_string(running.hand.dir().join("certs/mesh/ca.pem")).unwrap(),
        &fs::read_to_string(running.hand.dir().join("certs/mesh/ca.key")).unwrap(),
    );
    let served = || {
        let status = || http::get_json(&coordinator.management, "/status").unwrap();
        let before = status()["generation"].as_u64().unwrap();
        let start = Instant::now();
        renew(&running, "coordinator-1", &authority);
        wait::until("a new leaf is served", Duration::from_secs(60), || {
            let status = status();
            if status["generation"].as_u64().unwrap() > before {
                Ok(())
            } else {
                Err(status["last_reload"].to_string())
            }
        });
        start.elapsed()
    };
    let usual = served();
    let _frozen = Frozen::freeze(&running);
    let beside = served();
    // A trial may wait three seconds for an answer, and there are two files: what is read in between may be tried, too.
    let most = Duration::from_secs(7) + 3 * usual;
    assert!(beside <= most, "served after {beside:?} beside frozen peers, after {usual:?} else");
}
