//! From files to a generation.
//!
//! 1. Everything that a handshake depends on is published together, as one immutable [`Generation`], by one swap.
//! 2. Nothing is published that has not been read twice alike, parsed, checked and tried in a handshake in memory. What
//!    fails leaves the last good generation in place, and is tried again on a timer.
//! 3. Disk and served agree, or status, a gauge and the log say since when they do not.
//!
//! Parts, in the order that material takes: `source` reads, by `trusted`, which judges a file and the way to it (`hops` walks it,
//! `permissions` judges it) on threads that may hang (`reader`); `parse` understands (`pem`, `kind` and `lists` are parts of it), `check`
//! judges, `generation` builds and `trial` tries, which `prepare` strings together; `peers` asks who is connected, `decision`
//! decides (`force` is an operator's word); `published` holds what is served, `in_force` tells which lists count, and
//! `state` keeps them over a restart. Three turns drive them: `turn` for leaf, key and
//! CAs, `list_turn` for what revokes, `policy_turn` for the policy. `watch` notices, `follow` asks for turns, `store` is all of
//! it together; `report`, `status`, `alarm` and `announcer` tell, `inspect` judges for tools.
mod alarm;
mod announcer;
mod check;
mod decision;
mod follow;
mod force;
mod generation;
mod hops;
mod in_force;
pub mod inspect;
mod kind;
mod list_turn;
mod lists;
mod parse;
mod peers;
mod pem;
mod permissions;
mod policy_turn;
mod prepare;
mod published;
mod reader;
mod report;
mod source;
mod state;
mod status;
mod store;
pub(crate) mod trial;
pub mod trusted;
mod turn;
mod watch;

pub(crate) use force::Force;
pub(crate) use generation::{Generation, Purpose};
pub(crate) use peers::Connected;
pub use status::{
    CaStatus, CrlStatus, HeldStatus, Layout, LeafStatus, ListsStatus, LookStatus, MaterialStatus, ReloadStatus,
    SharedKeyStatus, WatchState, WatchStatus,
};
pub(crate) use store::{Reloaded, Store};

#[cfg(test)]
mod tests;
