//! A file system that stalls, as NFS does whose server is gone (invariant 9).
//!
//! [`Stalling`] is one of ours, by FUSE: three files, and a switch after which no question of the kernel is answered any more. Where
//! FUSE is not there, or not ours to mount, nothing runs and the last lines say so.
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use test_util::authority::{Leaf, Pair, write_public};
use test_util::command::program;
use test_util::wait;

use crate::fixtures::{SOON, is_root, meshctl, not_run, text};
use crate::site::{Role, Site, short};

/// The files of the root folder, by name.
type Files = Arc<Mutex<Vec<(&'static str, Vec<u8>)>>>;

/// A mounted file system. Its drop answers all with an error, and unmounts.
struct Stalling {
    // Beside the site's folder: that one is removed while this one may still stall.
    folder: TempDir,
    files: Files,
    stalled: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

// From the kernel's fuse.h.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const ENOENT: i32 = -2;
const ENOSYS: i32 = -38;
const HEADER: usize = 40;
/// Of Linux on all processors that this runs on.
const O_NONBLOCK: i32 = 0o4000;

impl Stalling {
    fn mount(files: Vec<(&'static str, Vec<u8>)>) -> Result<Self, String> {
        if !is_root() {
            return Err("this is not root".into());
        }
        let folder = TempDir::with_prefix("stalling-").unwrap();
        let mut device = OpenOptions::new();
        let device = device.read(true).write(true).custom_flags(O_NONBLOCK);
        let device = device.open("/dev/fuse").map_err(|e| format!("/dev/fuse: {e}"))?;
        // mount(8) gives the kernel its own standard input, which is our device.
        let mounted = std::process::Command::new("mount")
            .args([
                "-i",
                "-t",
                "fuse",
                "-o",
                "fd=0,rootmode=40000,user_id=0,group_id=0,default_permissions",
                "stalling",
            ])
            .arg(folder.path())
            .stdin(Stdio::from(device.try_clone().unwrap()))
            .output()
            .map_err(|e| format!("mount: {e}"))?;
        if !mounted.status.success() {
            return Err(format!("mount: {}", String::from_utf8_lossy(&mounted.stderr).trim()));
        }
        let (files, stalled, over) = (Arc::new(Mutex::new(files)), Arc::default(), Arc::default());
        let server = {
            let (files, stalled, over) = (Arc::clone(&files), Arc::clone(&stalled), Arc::clone(&over));
            std::thread::spawn(move || serve(device, &files, &stalled, &over))
        };
        Ok(Self { folder, files, stalled, over, server: Some(server) })
    }

    fn path(&self, name: &str) -> String {
        text(&self.folder.path().join(name))
    }

    fn stall(&self) {
        self.stalled.store(true, Ordering::SeqCst);
    }

    fn put(&self, pair: &Pair) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, content) in files.iter_mut() {
            match *name {
                "server.pem" => *content = pair.cert.clone().into_bytes(),
                "server.key" => *content = pair.key.clone().into_bytes(),
                _ => {}
            }
        }
    }
}

impl Drop for Stalling {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // The end of the device gives all who wait an error.
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        let _ = program("umount").args(["-l"]).args([self.folder.path()]).run();
    }
}

/// Answers the kernel. Once stalled it takes no question any more: what waits for a question that nobody took can be killed, as
/// what waits for NFS can.
fn serve(mut device: File, files: &Files, stalled: &AtomicBool, over: &AtomicBool) {
    let mut request = vec![0; 1 << 20];
    while !over.load(Ordering::SeqCst) {
        let read =
            if stalled.load(Ordering::SeqCst) { Err(ErrorKind::WouldBlock.into()) } else { device.read(&mut request) };
        let length = match read {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::park_timeout(Duration::from_millis(2));
                continue;
            }
            // Somebody who asked has gone meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(_) => return,
        };
        let number = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().unwrap());
        let (opcode, unique, node) = (number(4) as u32, number(8), number(16));
        if matches!(opcode, FORGET | BATCH_FORGET | INTERRUPT) {
            continue;
        }
        let answer = answer(opcode, node, &request[HEADER..length], files);
        let (error, body) = answer.map_or_else(|error| (error, Vec::new()), |body| (0, body));
        let length = u32::try_from(16 + body.len()).unwrap();
        let header = [&length.to_le_bytes()[..], &error.to_le_bytes(), &unique.to_le_bytes()].concat();
        let _ = device.write(&[header, body].concat());
    }
}

fn answer(opcode: u32, node: u64, body: &[u8], files: &Files) -> Result<Vec<u8>, i32> {
    let files = files.lock().unwrap_or_else(PoisonError::into_inner);
    let at = |node: u64| usize::try_from(node).ok().and_then(|node| files.get(node.checked_sub(2)?));
    let zeros = |count: usize| vec![0; count];
    match opcode {
        // Version 7.31, 128 KiB a write; everything else as the kernel likes.
        INIT => {
            let words: [u32; 6] = [7, 31, 1 << 17, 0, 0x000c_0010, 1 << 17];
            Ok([words.iter().flat_map(|word| word.to_le_bytes()).collect(), zeros(40)].concat())
        }
        GETATTR => {
            let attributes = if node == 1 { attributes(1, 0, 0o40_700) } else { file(node, at(node).ok_or(ENOENT)?) };
            Ok([zeros(16), attributes].concat())
        }
        LOOKUP => {
            let name = body.split(|byte| *byte == 0).next().unwrap_or_default();
            let found = files.iter().position(|(file, _)| file.as_bytes() == name).ok_or(ENOENT)?;
            let node = found as u64 + 2;
            // No time that it is good for: the kernel asks again each time.
            Ok([node.to_le_bytes().to_vec(), zeros(32), file(node, &files[found])].concat())
        }
        OPEN | OPENDIR => {
            // FOPEN_DIRECT_IO: each read comes here.
            Ok([zeros(8), 1_u32.to_le_bytes().to_vec(), zeros(4)].concat())
        }
        READ => {
            let (_, content) = at(node).ok_or(ENOENT)?;
            let offset = u64::from_le_bytes(body[8..16].try_into().unwrap()) as usize;
            let size = u32::from_le_bytes(body[16..20].try_into().unwrap()) as usize;
            let end = content.len().min(offset.saturating_add(size));
            Ok(content.get(offset..end).unwrap_or_default().to_vec())
        }
        READDIR | RELEASE | RELEASEDIR | FLUSH => Ok(Vec::new()),
        STATFS => Ok(zeros(80)),
        _ => Err(ENOSYS),
    }
}

fn file(node: u64, (_, content): &(&str, Vec<u8>)) -> Vec<u8> {
    attributes(node, content.len() as u64, 0o100_600)
}

/// `struct fuse_attr`.
fn attributes(node: u64, size: u64, mode: u32) -> Vec<u8> {
    let long = [node, size, 1, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let short = [0, 0, 0, mode, 1, 0, 0, 0, 4_096, 0].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    [long, short].concat()
}

/// A coordinator whose leaf, key and bundle lie there, and whose lists do not.
fn site() -> Result<(Site, Stalling), String> {
    let site = Site::new(Role::Coordinator);
    let read = |name: &str| fs::read(site.path("certs").join(name)).unwrap();
    let files = ["server.pem", "server.key", "ca.pem"].map(|name| (name, read(name)));
    let stalling = Stalling::mount(files.into())?;
    let site = site
        .set("internaltls.serverPemPath", &stalling.path("server.pem"))
        .set("internaltls.serverKeyPath", &stalling.path("server.key"))
        .set("internaltls.caPemPath", &stalling.path("ca.pem"))
        .with_file("internaltls.distrustPath", "distrust", "# end 0\n");
    Ok((site, stalling))
}

#[test]
fn invariant_9_stalled_files_are_told_of_and_hold_nothing_up() {
    let (site, stalling) = match site() {
        Ok(made) => made,
        Err(why) => return not_run("files that stall", &why),
    };
    let mut live = site.start();
    let (member, other) = (live.site.peer("proxy", "proxy-1"), live.site.peer("proxy", "proxy-2"));
    // The control: what lies there is followed.
    let pair = live.site.mesh.sign(&Leaf::node("coordinator", "coordinator-1"));
    stalling.put(&pair);
    wait::until("the new leaf", SOON, || {
        let served = live.status()["leaf"]["serial"].as_str().unwrap_or_default().to_owned();
        if served.trim_start_matches('0') == pair.serial() { Ok(()) } else { Err(served) }
    });
    let before = live.process.log().lines().count();
    stalling.stall();
    wait::until("an alarm of a stalled file", SOON, || {
        let log = live.process.log();
        let told = |line: &str| (line.contains("[WARN]") || line.contains("[ERROR]")) && line.contains("internaltls");
        let told = log.lines().skip(before).any(|line| told(line) && line.contains("material=mesh"));
        if told { Ok(()) } else { Err(short(&log)) }
    });
    // What tells of it does not wait for what stalls.
    wait::until("a metric of a stalled file", SOON, || {
        let overdue = live.metric("internaltls_look_overdue{material=\"mesh\"}");
        if overdue == Some(1.0) { Ok(()) } else { Err(format!("{overdue:?}")) }
    });
    live.serves("a member", &member);
    write_public(&live.site.path("distrust"), &format!("{}\n# end 1\n", other.spki_sha256()));
    live.refuses("one who was distrusted while files stall", &other);
    live.serves("a member", &member);
    let start = Instant::now();
    let ended = live.stop(SOON);
    assert!(ended.success(), "{ended} after {:?}", start.elapsed());
}

#[test]
fn invariant_9_stalled_files_at_the_start_are_told_of() {
    let (site, stalling) = match site() {
        Ok(made) => made,
        Err(why) => return not_run("files that stall at the start", &why),
    };
    site.write_config();
    stalling.stall();
    let mut process = site.spawn();
    wait::until("a word of the stalled file, or its end", SOON, || {
        let log = process.log();
        if log.contains(&stalling.path("server")) { Ok(()) } else { Err(format!("it says: {}", short(&log))) }
    });
    if process.ended().is_none() {
        process.terminate();
        process.wait(SOON);
    }
    let config = text(&site.config());
    let checked = program(meshctl()).args(["certs", "check", "--config", &config]).within(SOON).run();
    assert!(checked.code.is_some_and(|code| code != 0), "certs check: {:?}: {}", checked.code, checked.text());
}
