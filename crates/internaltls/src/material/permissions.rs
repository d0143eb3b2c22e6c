//! Who but us could replace a trusted file: the judgement, apart from any walk over folders. Pure.
//!
//! 1. A file is as trustworthy as the least of: itself, every folder on the way to it, and every symlink that leads to it.
//!    Each is judged alone, by owner, group and mode.
//! 2. Everybody may write: refused. A folder with the sticky bit is excepted, since in it only the owner of an entry can
//!    replace that entry, and the entry's owner is judged as well.
//! 3. A group may write: refused for a key and for the folders that hold the key or a link to it. Elsewhere it is a
//!    warning if the group is foreign, and nothing if it is one of the process' own groups or root's: `umask 002` with a
//!    group for each user (Debian, Fedora) makes such folders, and `/usr/local` is `root:staff 2775` on some systems. What is
//!    on the way to a key and started before must not stop a process for that.
//! 4. An owner other than the process' user and root can replace what he owns: a warning. A file that is an order (the force file,
//!    the state of the lists) is refused, and so is the folder that holds it, for its owner is who gives it.
//! 5. In a user namespace, users of the host that it does not map all appear as one uid (the overflow uid, 65534). Most are the
//!    host's root, and they cannot be told apart: no offence as an owner. It is one as a group that may write,
//!    and as the owner of an order or of its folder: these are made by the process itself, or by somebody whom it knows.
//! 6. A POSIX ACL shows in the group's bits of the mode, as its mask: one that grants writing is judged like a group that may
//!    write.
//!
//! The table that follows from this is in the [manual](crate::manual::files), where the tests take it from.
use std::fmt;

const WRITE_OTHERS: u32 = 0o002;
const WRITE_GROUP: u32 = 0o020;
const READ_OTHERS: u32 = 0o004;
const READ_GROUP: u32 = 0o040;
const STICKY: u32 = 0o1000;

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Object {
    /// A file that holds a private key.
    Key,
    /// A file whose owner gives orders by it, or keeps in it what was decided: who can write it decides.
    Order,
    /// A folder that holds a key, or a symlink on the way to one or to an order.
    KeyFolder,
    /// The folder that holds an order.
    OrderFolder,
    /// Any other trusted file.
    File,
    /// Any other folder on the way to a trusted file.
    Folder,
    /// A symlink on the way. The kernel does not look at its mode.
    Symlink,
}

impl Object {
    fn is_folder(self) -> bool {
        matches!(self, Self::KeyFolder | Self::OrderFolder | Self::Folder)
    }
}

/// Owner, group and mode of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

/// Who the process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    /// The effective uid.
    pub(crate) uid: u32,
    /// The effective gid and the supplementary ones.
    pub(crate) groups: Vec<u32>,
    /// As which uid and gid those of other user namespaces appear; `None` where ours maps that id itself.
    pub(crate) unmapped_uid: Option<u32>,
    pub(crate) unmapped_gid: Option<u32>,
}

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Offence {
    /// Everybody can write it.
    WritableByOthers {
        /// Its permission bits.
        mode: u32,
    },
    /// A group can write it.
    WritableByGroup {
        /// Its permission bits.
        mode: u32,
        /// The group.
        gid: u32,
    },
    /// Neither the process' user nor root owns it.
    ForeignOwner {
        /// The owner.
        uid: u32,
    },
    /// A private key that others than its owner can read.
    Readable {
        /// Its permission bits.
        mode: u32,
    },
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WritableByOthers { mode } => write!(f, "can be written by everybody (mode {:04o})", mode & 0o7777),
            Self::WritableByGroup { mode, gid } => {
                write!(f, "can be written by the group with gid {gid} (mode {:04o})", mode & 0o7777)
            }
            Self::ForeignOwner { uid } => write!(f, "is owned by uid {uid}, neither this process' user nor root"),
            Self::Readable { mode } => write!(f, "can be read by others than its owner (mode {:04o})", mode & 0o7777),
        }
    }
}

impl Offence {
    /// The permission bits of the object, where they are what is wrong.
    pub(super) fn mode(self) -> u32 {
        match self {
            Self::WritableByOthers { mode } | Self::WritableByGroup { mode, .. } | Self::Readable { mode } => mode,
            Self::ForeignOwner { .. } => 0,
        }
    }
}

/// What is to be warned of. The offence for which the object is refused is the error.
pub(crate) fn judge(object: Object, owned: Owned, who: &Who) -> Result<Vec<Offence>, Offence> {
    let Owned { uid, gid, mode } = owned;
    let mut warnings = Vec::new();
    let (foreign, unmapped) = (![0, who.uid].contains(&uid), who.unmapped_uid == Some(uid));
    if foreign && matches!(object, Object::Order | Object::OrderFolder) {
        return Err(Offence::ForeignOwner { uid });
    }
    if foreign && !unmapped {
        warnings.push(Offence::ForeignOwner { uid });
    }
    if object == Object::Symlink {
        return Ok(warnings);
    }
    if !(object.is_folder() && mode & STICKY != 0) {
        if mode & WRITE_OTHERS != 0 {
            return Err(Offence::WritableByOthers { mode });
        }
        if mode & WRITE_GROUP != 0 {
            match object {
                Object::Key | Object::Order | Object::KeyFolder | Object::OrderFolder => {
                    return Err(Offence::WritableByGroup { mode, gid });
                }
                _ if !who.belongs_to(gid) => warnings.push(Offence::WritableByGroup { mode, gid }),
                _ => {}
            }
        }
    }
    if object == Object::Key && is_readable(owned, who) {
        warnings.push(Offence::Readable { mode });
    }
    Ok(warnings)
}

/// A key that root owns and our group may read (`0440 root:fsGroup`) is how Kubernetes and Debian's `ssl-cert` hand a key to a
/// process. Of a key that we own the group's bit is of no use to us, so it is for somebody else.
fn is_readable(key: Owned, who: &Who) -> bool {
    let Owned { uid, gid, mode } = key;
    let for_us = who.belongs_to(gid) || who.unmapped_gid == Some(gid);
    let needless = uid == who.uid && uid != 0;
    mode & READ_OTHERS != 0 || (mode & READ_GROUP != 0 && (needless || !for_us))
}

impl Who {
    /// This process, now. It may change its user after it has bound its ports, so this is asked at each reading.
    pub(crate) fn now() -> Self {
        use rustix::process::{getegid, geteuid, getgroups};
        let supplementary = getgroups().unwrap_or_default();
        let groups = std::iter::once(getegid()).chain(supplementary).map(rustix::process::Gid::as_raw).collect();
        let (unmapped_uid, unmapped_gid) = (unmapped("uid"), unmapped("gid"));
        Self { uid: geteuid().as_raw(), groups, unmapped_uid, unmapped_gid }
    }

    /// Whether a group is one of ours or root's.
    fn belongs_to(&self, gid: u32) -> bool {
        gid == 0 || self.groups.contains(&gid) && self.unmapped_gid != Some(gid)
    }
}

/// The overflow id of a kind, where our user namespace does not map it. Where /proc cannot be read nothing is excepted.
fn unmapped(kind: &str) -> Option<u32> {
    let overflow = std::fs::read_to_string(format!("/proc/sys/kernel/overflow{kind}")).ok()?.trim().parse().ok()?;
    let map = std::fs::read_to_string(format!("/proc/self/{kind}_map")).ok()?;
    (!maps(&map, overflow)).then_some(overflow)
}

/// Whether a map of a user namespace (user_namespaces(7): first id inside, first outside, length) has this id inside.
fn maps(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(_)), Some(Ok(length))) = (fields.next(), fields.next(), fields.next()) else {
            return false;
        };
        (first..first.saturating_add(length)).contains(&u64::from(id))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u32 = 1000;
    const OTHER: u32 = 1001;
    const OUR_GROUP: u32 = 2000;
    const FOREIGN_GROUP: u32 = 2001;
    const NOBODY: u32 = 65534;

    fn who() -> Who {
        Who { uid: US, groups: vec![US, OUR_GROUP], unmapped_uid: None, unmapped_gid: None }
    }

    fn in_namespace() -> Who {
        Who { unmapped_uid: Some(NOBODY), unmapped_gid: Some(NOBODY), ..who() }
    }

    /// What is to be said of an object: nothing, a warning, or a refusal.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Say {
        Nothing,
        Warning,
        Refusal,
    }

    fn said(object: Object, uid: u32, gid: u32, mode: u32, who: &Who) -> Say {
        match judge(object, Owned { uid, gid, mode }, who) {
            Ok(warnings) if warnings.is_empty() => Nothing,
            Ok(_) => Warning,
            Err(_) => Refusal,
        }
    }

    use Object::{File, Folder, Key, KeyFolder, Order, OrderFolder, Symlink};
    use Say::{Nothing, Refusal, Warning};

    const MANUAL: &str = include_str!("../manual/files.md");

    /// A row of the manual's table: an example, and what is said of a key, a folder with it, another file, another folder, and
    /// a symlink.
    struct Row {
        uid: u32,
        gid: u32,
        mode: u32,
        who: Who,
        says: [Say; 5],
    }

    fn table() -> Vec<Row> {
        let rows = MANUAL.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
        rows.filter_map(|row| {
            let cells: Vec<&str> = row.split(" |").map(str::trim).collect();
            let example = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
            let (owners, mode) = example.split_once(' ').unwrap();
            let (owner, group) = owners.split_once(':').unwrap();
            let says = cells[2..].iter().map(|cell| match *cell {
                "" => Nothing,
                "warned" => Warning,
                "refused" => Refusal,
                other => panic!("{other} in {row}"),
            });
            Some(Row {
                uid: id(owner, US, OTHER),
                gid: id(group, OUR_GROUP, FOREIGN_GROUP),
                mode: u32::from_str_radix(mode, 8).unwrap(),
                who: if owner == "unmapped" { in_namespace() } else { who() },
                says: says.collect::<Vec<_>>().try_into().unwrap(),
            })
        })
        .collect()
    }

    fn id(word: &str, ours: u32, foreign: u32) -> u32 {
        match word {
            "us" => ours,
            "root" => 0,
            "foreign" => foreign,
            "unmapped" => NOBODY,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn invariant_7_judges_every_cell_of_the_table() {
        let table = table();
        assert_eq!(table.len(), 22, "rows of the manual");
        for Row { uid, gid, mode, who, says } in table {
            let found = [Key, KeyFolder, File, Folder, Symlink].map(|object| said(object, uid, gid, mode, &who));
            assert_eq!(found, says, "uid {uid}, gid {gid}, mode {mode:04o}");
        }
    }

    #[test]
    fn excepts_unmapped_owner_in_user_namespace() {
        let owner =
            |mode| [Key, File, Folder, Symlink].map(|object| said(object, NOBODY, NOBODY, mode, &in_namespace()));
        assert_eq!(owner(0o440), [Nothing; 4]);
        assert_eq!(owner(0o646), [Refusal, Refusal, Refusal, Nothing]);
        assert_eq!(owner(0o664), [Refusal, Warning, Warning, Nothing]);
        assert_eq!(said(File, OTHER, NOBODY, 0o600, &in_namespace()), Warning, "another that is mapped");
    }

    #[test]
    fn invariant_7_refuses_orders_of_others() {
        for Row { uid, gid, mode, who, .. } in table() {
            // Whether others can read an order is no matter.
            let key = said(Key, uid, gid, mode & !0o044, &who);
            let of_folder = said(KeyFolder, uid, gid, mode, &who);
            for (object, alike) in [(Order, key), (OrderFolder, of_folder)] {
                let expected = if [0, US].contains(&uid) { alike } else { Refusal };
                assert_eq!(said(object, uid, gid, mode, &who), expected, "{object:?} {uid}:{gid} {mode:04o}");
            }
        }
        for object in [Order, OrderFolder] {
            assert_eq!(said(object, NOBODY, NOBODY, 0o600, &in_namespace()), Refusal, "of whom cannot be told");
            assert_eq!(said(object, US, NOBODY, 0o700, &in_namespace()), Nothing, "a container's own");
            assert_eq!(said(object, 0, 0, 0o755, &in_namespace()), Nothing);
        }
    }

    #[test]
    fn root_is_warned_of_foreign_owner() {
        let root = Who { uid: 0, groups: vec![0], unmapped_uid: None, unmapped_gid: None };
        assert_eq!(said(Key, US, US, 0o600, &root), Warning);
        assert_eq!(said(Key, 0, 0, 0o600, &root), Nothing);
    }

    #[test]
    fn tells_mapped_ids_from_unmapped() {
        assert!(maps("         0          0 4294967295\n", NOBODY), "no namespace of its own");
        assert!(!maps("0 1000 1\n", NOBODY));
        assert!(maps("0 1000 1\n1 100000 65536\n", NOBODY), "a rootless container with a range of its own");
        assert!(!maps("0 100000 65534\n", NOBODY));
        for garbled in ["", "0 0\n", "a b c\n", "-1 0 5\n"] {
            assert!(!maps(garbled, 0), "{garbled}");
        }
    }
}
