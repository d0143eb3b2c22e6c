//! Certificates and CAs replaced under a living cluster, with everything that goes wrong meanwhile.
//!
//! 1. The processes are real ones, started as an operator starts them; each test has a mesh of its own.
//! 2. No call fails, whatever is replaced; what is served is in the end what is on disk.
//!
//! Parts: [`ca`] is `meshctl ca rotate` on the cluster; [`suite`] a random walk over a [`scene`] of nodes with an echo
//! service in [`server`], under the [`traffic`] that the cluster does not have: long streams and large calls; [`tool`] a random walk of the
//! tool on the cluster; [`thousand`] how soon many are cut; [`way_back`] what renewed files do when all leaves have expired. [`namespace`] is where disks are small.
#![expect(clippy::unwrap_used, reason = "an `unwrap` in a test is an assertion")]

mod ca;
mod fixtures;
mod namespace;
mod scene;
mod server;
mod suite;
mod thousand;
mod tool;
mod traffic;
mod way_back;
#[path = "../../bin/echo/wire.rs"]
mod wire;
