//! All ways to replace a folder on the way to the material, with the poll switched far off: events alone tell.
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::mount::{UnmountFlags, mount_bind, unmount};

use super::files::not_run;
use super::follow::{follow, replace, serves};
use super::issue::*;
use crate::config::Files;
use crate::material::Store;

/// A set in ROOT/a/b/certs.
struct Scene {
    root: tempfile::TempDir,
    ca: Authority,
    store: Arc<Store>,
}

impl Scene {
    async fn open() -> Self {
        Self::open_at(|_| {}, "a/b/certs").await
    }

    async fn open_at(shape: impl FnOnce(&Path), at: &str) -> Self {
        let (root, ca) = (tempfile::tempdir().unwrap(), authority("ca"));
        fill(&root.path().join("a/b/certs"), &ca, &ca.node("proxy", "proxy-1"));
        shape(root.path());
        let path = |name| root.path().join(at).join(name);
        let files = Files::new(path("server.pem"), path("server.key"), path("ca.pem"));
        // `quick` polls once an hour.
        let store = follow(files, quick()).await;
        assert!(store.status().watch.reason.is_none(), "{:?}", store.status().watch);
        Self { root, ca, store }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn leaf(&self) -> Leaf {
        self.ca.node("proxy", "proxy-1")
    }

    /// A folder with a new leaf.
    fn made(&self, path: &str) -> Leaf {
        let leaf = self.leaf();
        fill(&self.at(path), &self.ca, &leaf);
        leaf
    }

    /// The leaf is served, and so is another that is written in its place: what was replaced is watched.
    async fn is_followed(&self, leaf: &Leaf, at: &str) {
        serves(&self.store, leaf).await;
        let leaf = self.leaf();
        write(&self.at(at).join("server.pem"), &leaf.pem);
        write(&self.at(at).join("server.key"), &leaf.key);
        serves(&self.store, &leaf).await;
    }
}

fn fill(at: &Path, ca: &Authority, leaf: &Leaf) {
    fs::create_dir_all(at).unwrap();
    for (name, text) in [("server.pem", &leaf.pem), ("server.key", &leaf.key), ("ca.pem", &ca.pem)] {
        write(&at.join(name), text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_hears_of_folder_renamed_over() {
    let scene = Scene::open().await;
    for number in 0..3 {
        let leaf = scene.made("new");
        fs::rename(scene.at("a/b/certs"), scene.at(&format!("old-{number}"))).unwrap();
        fs::rename(scene.at("new"), scene.at("a/b/certs")).unwrap();
        scene.is_followed(&leaf, "a/b/certs").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_hears_of_folder_made_anew() {
    let scene = Scene::open().await;
    let (mut reused, at) = (0, scene.at("a/b/certs"));
    for _ in 0..20 {
        let before = fs::metadata(&at).unwrap().ino();
        fs::remove_dir_all(&at).unwrap();
        fs::create_dir(&at).unwrap();
        reused += u32::from(fs::metadata(&at).unwrap().ino() == before);
        let leaf = scene.made("a/b/certs");
        scene.is_followed(&leaf, "a/b/certs").await;
    }
    if reused == 0 {
        let why = std::io::Error::other("this file system gave no folder the inode of the one before it");
        not_run("inode numbers that are used again", &why);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_hears_of_folder_moved_away_and_back() {
    let scene = Scene::open().await;
    for _ in 0..3 {
        fs::rename(scene.at("a/b/certs"), scene.at("away")).unwrap();
        let leaf = scene.made("away");
        fs::rename(scene.at("away"), scene.at("a/b/certs")).unwrap();
        scene.is_followed(&leaf, "a/b/certs").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_hears_of_parents_replaced() {
    let scene = Scene::open().await;
    for (number, parent) in ["a", "a/b", "a", "a/b"].into_iter().enumerate() {
        let rest = "a/b/certs".strip_prefix(parent).unwrap();
        let leaf = scene.made(&format!("new{rest}"));
        fs::rename(scene.at(parent), scene.at(&format!("old-{number}"))).unwrap();
        fs::rename(scene.at("new"), scene.at(parent)).unwrap();
        scene.is_followed(&leaf, "a/b/certs").await;
    }
    for parent in ["a", "a/b"] {
        fs::remove_dir_all(scene.at(parent)).unwrap();
        let leaf = scene.made("a/b/certs");
        scene.is_followed(&leaf, "a/b/certs").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_hears_of_chained_symlinks() {
    // named → a link to `hop`; hop/live → ..data; ..data → ..1: of a folder of a folder.
    let shape = |root: &Path| {
        fs::create_dir_all(root.join("hop")).unwrap();
        symlink(root.join("a/b"), root.join("hop/..1")).unwrap();
        symlink("..1", root.join("hop/..data")).unwrap();
        symlink("..data/certs", root.join("hop/live")).unwrap();
        symlink("hop", root.join("named")).unwrap();
    };
    let scene = Scene::open_at(shape, "named/live").await;
    // Each hop is swapped in turn.
    let leaf = scene.made("2/certs");
    replace(&scene.at("hop/..1"), &scene.at("2"));
    scene.is_followed(&leaf, "2/certs").await;
    let leaf = scene.made("hop/..3/certs");
    replace(&scene.at("hop/..data"), Path::new("..3"));
    scene.is_followed(&leaf, "hop/..3/certs").await;
    let leaf = scene.made("4");
    replace(&scene.at("hop/live"), Path::new("../4"));
    scene.is_followed(&leaf, "4").await;
    let leaf = scene.made("5/live");
    replace(&scene.at("named"), Path::new("5"));
    scene.is_followed(&leaf, "5/live").await;
    // The folder that it leads to now is made anew, and a link takes the place of a folder.
    fs::remove_dir_all(scene.at("5/live")).unwrap();
    let leaf = scene.made("6");
    symlink("../6", scene.at("5/live")).unwrap();
    scene.is_followed(&leaf, "6").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_9_hears_of_mounts() {
    let scene = Scene::open().await;
    let leaf = scene.made("other");
    if let Err(error) = mount_bind(scene.at("other"), scene.at("a/b/certs")) {
        not_run("mounts over folders", &error.into());
        return;
    }
    let mounted = Mounted(scene.at("a/b/certs"));
    scene.is_followed(&leaf, "other").await;
    drop(mounted);
    let leaf = scene.made("a/b/certs");
    scene.is_followed(&leaf, "a/b/certs").await;
    // Files that are mounted by themselves, as a container has them, and written from outside.
    let (leaf, mut mounted) = (scene.made("outside"), Vec::new());
    for name in ["server.pem", "server.key", "ca.pem"] {
        mount_bind(scene.at("outside").join(name), scene.at("a/b/certs").join(name)).unwrap();
        mounted.push(Mounted(scene.at("a/b/certs").join(name)));
    }
    scene.is_followed(&leaf, "outside").await;
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}
